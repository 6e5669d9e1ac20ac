//! Shell jobs from the command line: output, exit codes, limits, and what a job must not see.

use std::time::Duration;

use agenticore_tests::{ScriptedAgent, World, is_alive, peak_memory, until};
use rustix::process::Signal;
use serde_json::json;

use crate::{field, number, text};

#[tokio::test]
async fn hello_world_prints_and_exits_with_zero() {
    let world = World::start();
    let run = world
        .cli(&["run", "echo hello world", "--profile", "shell", "--wait"])
        .await;
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (Some(0), "hello world\n"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("succeeded"), "{}", run.stderr);

    let job = world.cli(&["job", "@last", "--json"]).await.json();
    assert_eq!(text(&job, "status"), "succeeded");
    assert_eq!(field(&job, "exit_code"), &json!(0));
    assert_eq!(text(&job, "output").trim_end(), "hello world");
    assert_eq!(text(&job, "profile"), "shell");
    assert_eq!(text(&job, "pod_name"), "test-pod");
    assert_eq!(text(&job, "mode"), "fire_and_forget");
    assert_eq!(number(&job, "attempt"), 1);
    for time in ["created_at", "started_at", "ended_at"] {
        assert!(text(&job, time).starts_with("20"), "{time} in {job}");
    }
    let jobs = world.cli(&["jobs", "--json"]).await.json();
    assert_eq!(
        field(&jobs[0], "pod_name"),
        &json!("test-pod"),
        "a bare array"
    );
}

#[tokio::test]
async fn a_failing_job_exits_with_one_and_says_why() {
    let world = World::start();
    let run = world
        .cli(&[
            "run",
            "echo before; echo problem >&2; exit 3",
            "-p",
            "shell",
            "-w",
        ])
        .await;
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains("before"), "{}", run.stdout);
    assert!(run.stderr.contains("failed"), "{}", run.stderr);

    let job = world.cli(&["job", "@last", "--json"]).await.json();
    assert_eq!(
        (text(&job, "status"), field(&job, "exit_code")),
        ("failed", &json!(3))
    );
    let failure = field(&job, "failure");
    assert_eq!(text(failure, "class"), "agent");
    assert!(
        !text(failure, "message").is_empty() && !text(failure, "remedy").is_empty(),
        "{failure}"
    );
    assert!(!text(&job, "error").is_empty());
}

#[tokio::test]
async fn a_cancelled_job_exits_with_three_and_its_processes_are_gone() {
    let world = World::start();
    let script = format!(
        "echo $$ > '{}'; echo started; sleep 1000",
        world.path("pid").display()
    );
    let mut run = world
        .cli_start(&["run", &script, "--profile", "shell", "--wait"])
        .await;
    run.saw("started").await;
    let cancel = world.cli(&["cancel", "@last"]).await;
    assert_eq!(cancel.code, Some(0), "{}", cancel.stderr);
    let end = run.end().await;
    assert_eq!(end.code, Some(3), "{}", end.stderr);

    let job = world.cli(&["job", "@last", "--json"]).await.json();
    assert_eq!(text(&job, "status"), "cancelled");
    let pid: u32 = world.read("pid").trim().parse().unwrap();
    assert!(!is_alive(pid), "the script runs on after its job ended");
    let again = world.cli(&["cancel", "@last"]).await;
    assert_eq!(
        again.code,
        Some(0),
        "cancelling twice is fine: {}",
        again.stderr
    );
}

#[tokio::test]
async fn exit_codes_tell_what_went_wrong_with_the_command_itself() {
    let world = World::start();
    let gate = world.gate("slow");
    let slow = world.submit(&gate.wait()).await;
    let cases: [(&[&str], i32); 6] = [
        (&["run"], 2),
        (&["run", "", "--profile", "shell"], 2),
        (&["run", "x", "--profile", "nosuch"], 2),
        (&["job", "00000000-0000-4000-8000-000000000000"], 5),
        (&["wait", &slow, "--timeout", "1"], 6),
        (&["--server", "http://127.0.0.1:1", "jobs"], 7),
    ];
    for (arguments, code) in cases {
        let run = world.cli(arguments).await;
        assert_eq!(run.code, Some(code), "{arguments:?}: {}", run.stderr);
        assert!(
            run.stdout.is_empty(),
            "{arguments:?} prints data: {}",
            run.stdout
        );
        assert!(!run.stderr.is_empty(), "{arguments:?} says nothing");
    }
    gate.open();
    let waited = world.cli(&["wait", &slow]).await;
    assert_eq!(waited.code, Some(0), "{}", waited.stderr);
}

#[tokio::test]
async fn an_interrupted_wait_detaches_and_the_job_goes_on() {
    let world = World::start();
    let gate = world.gate("finish");
    let script = format!("echo started; {}; echo finished", gate.wait());
    let mut run = world
        .cli_start(&["run", &script, "--profile", "shell", "--wait"])
        .await;
    run.saw("started").await;
    run.send(Signal::INT);
    let end = run.end().await;
    assert_eq!(end.code, Some(130), "{}", end.stderr);
    assert!(
        end.stderr.contains("cancel") && end.stderr.contains("logs"),
        "{}",
        end.stderr
    );
    gate.open();
    let logs = world.cli(&["logs", "--follow", "@last"]).await;
    assert_eq!(logs.stdout, "started\nfinished\n");
    let waited = world.cli(&["wait", "@last"]).await;
    assert_eq!(waited.code, Some(0), "{}", waited.stderr);
}

#[tokio::test]
async fn the_task_can_come_from_standard_input() {
    let world = World::start();
    let script = "cat <<'END'\nfirst line\n--second 'line'\nEND\n";
    let run = world
        .cli_with(&["run", "-", "--profile", "shell", "--wait"], script)
        .await;
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (Some(0), "first line\n--second 'line'\n"),
        "{}",
        run.stderr
    );
}

#[tokio::test]
async fn a_job_runs_without_any_server() {
    let world = World::builder().idle();
    let run = world
        .cli(&["run", "echo hello local", "--profile", "shell", "--local"])
        .await;
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (Some(0), "hello local\n"),
        "{}",
        run.stderr
    );
    let failed = world
        .cli(&["run", "exit 4", "--profile", "shell", "--local"])
        .await;
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
}

#[tokio::test]
async fn a_local_run_complains_of_nothing_and_leaves_only_what_the_agent_made() {
    let world = World::builder().idle();
    let local = async |task: &str, more: &[&str]| {
        let run = ["run", task, "--profile", "shell", "--local"];
        world.cli(&[&run, more].concat()).await
    };
    let left = || {
        let mut left = world.files("repos/local");
        for folder in ["home/.agenticore/tmp", "home/.agenticore/local"] {
            let entries = std::fs::read_dir(world.path(folder)).into_iter().flatten();
            left.extend(entries.map(|entry| entry.unwrap().path().display().to_string()));
        }
        left
    };
    for _ in 0..4 {
        let run = local("echo 1", &[]).await;
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(
            !run.stderr.contains("ERROR") && !run.stderr.contains("WARN"),
            "{}",
            run.stderr
        );
        let refused = local("echo 1", &["--session-id", "x"]).await;
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(!refused.stderr.contains("ERROR"), "{}", refused.stderr);
    }
    let cut = local("sleep 1000", &["--timeout", "1"]).await;
    assert_eq!(cut.code, Some(6), "{}", cut.stderr);
    assert!(!cut.stderr.contains("ERROR"), "{}", cut.stderr);
    assert!(world.agents().is_empty(), "the agent is gone with it");
    assert_eq!(left(), [""; 0]);

    let made = local("echo work > made.txt", &[]).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert!(
        left().iter().any(|file| file.ends_with("made.txt")),
        "{:?}",
        left()
    );
}

#[tokio::test]
async fn big_output_keeps_its_head_and_tail_in_flat_memory() {
    const BYTES: u64 = 60_000_000;
    let world = World::start();
    let small = world.submit("echo warm").await;
    world.ended(&small).await;
    let before = peak_memory(world.pid());

    let script = format!(
        "echo FIRST; head -c {BYTES} /dev/zero | tr '\\0' x | fold -w 4000; echo; echo LAST"
    );
    let id = world.submit(&script).await;
    let job = world.ended(&id).await;
    assert_eq!(
        text(&job, "status"),
        "succeeded",
        "{}",
        field(&job, "failure")
    );
    let output = text(&job, "output");
    assert!(output.len() <= 51_200, "{} bytes are stored", output.len());
    assert!(
        output.starts_with("FIRST\nxxxx"),
        "the head: {:?}",
        output.get(..40)
    );
    assert!(
        output.trim_end().ends_with("x\nLAST"),
        "the tail is cut off"
    );
    let cut = number(&job, "output_cut");
    assert!(
        cut > BYTES - 100_000,
        "only {cut} bytes are said to be cut out"
    );
    let grown = peak_memory(world.pid()).saturating_sub(before);
    assert!(
        grown < BYTES,
        "memory grew by {grown} bytes for {BYTES} bytes of output"
    );
}

#[tokio::test]
async fn a_time_limit_kills_the_whole_tree() {
    let world = World::builder()
        .profile("brief", "extends: shell\ntimeout: 2\n")
        .start();
    let pids = world.path("pids");
    let script = format!(
        "echo $$ >> '{0}'; (setsid sh -c 'echo $$ >> \"{0}\"; trap \"\" TERM; while :; do sleep 1; done' &) ; \
         until [ $(wc -l < '{0}') = 2 ]; do sleep 0.02; done; echo both; trap '' TERM; while :; do sleep 1; done",
        pids.display()
    );
    let id = world
        .submit_body(&json!({"task": script, "profile": "brief"}))
        .await;
    world.logged(&id, "both").await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "failed");
    assert_eq!(text(field(&job, "failure"), "class"), "time_limit", "{job}");
    let left: Vec<u32> = world
        .read("pids")
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    assert_eq!(left.len(), 2);
    until("both processes are gone", || async {
        left.iter().all(|pid| !is_alive(*pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_job_leaves_in_the_background_ends_with_it() {
    let world = World::start();
    let script = format!(
        "setsid sleep 1000 & echo $! > '{}'; echo bye",
        world.path("pid").display()
    );
    let id = world.submit(&script).await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "succeeded");
    let pid: u32 = world.read("pid").trim().parse().unwrap();
    until("the background process is gone", || async {
        (!is_alive(pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_does_not_see_the_environment_of_the_server() {
    let world = World::builder()
        .env("UNRELATED_SECRET", "canary-1")
        .env("GITHUB_TOKEN", "canary-2")
        .env("AGENTICORE_API_KEYS", "canary-3,canary-4")
        .env("ANTHROPIC_API_KEY", "canary-5")
        .start();
    let id = world
        .submit("env; tr '\\0' '\\n' < /proc/self/environ; cat /proc/self/cmdline")
        .await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "succeeded");
    assert!(text(&job, "output").contains("PATH="), "{job}");
    assert!(
        text(&job, "output").contains("AGENTICORE_JOB="),
        "the mark that finds its processes"
    );
    let events = format!("{:?}", world.events(&id).await);
    for (place, seen) in [
        ("record", job.to_string()),
        ("events", events),
        ("log", world.log()),
    ] {
        assert!(!seen.contains("canary"), "the {place} holds a secret");
    }
    for file in world.files("home/.agenticore") {
        let path = format!("home/.agenticore/{file}");
        assert!(
            !world.read(&path).contains("canary"),
            "{path} holds a secret"
        );
    }
}

#[tokio::test]
async fn each_job_works_in_a_folder_of_its_own() {
    let world = World::start();
    let mut folders = Vec::new();
    for _ in 0..2 {
        let id = world.submit("pwd; ls -A; echo x > mine").await;
        let job = world.ended(&id).await;
        assert_eq!(text(&job, "status"), "succeeded");
        let output = text(&job, "output").trim_end().to_owned();
        assert!(
            !output.contains("mine"),
            "the folder of another job: {output}"
        );
        folders.push(output);
    }
    assert_ne!(folders[0], folders[1]);
}

#[tokio::test]
async fn a_missing_agent_program_fails_the_job_and_names_it() {
    let world = World::builder()
        .env("AGENTICORE_CLAUDE_BINARY", "/nonexistent/agent")
        .start();
    let id = world
        .submit_body(&json!({"task": "x", "profile": "code"}))
        .await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "failed");
    let failure = field(&job, "failure");
    assert_eq!(text(failure, "class"), "host", "{failure}");
    assert!(
        text(failure, "message").contains("/nonexistent/agent"),
        "{failure}"
    );
    assert!(!text(failure, "remedy").is_empty());
    // The server goes on.
    let next = world.submit("echo fine").await;
    assert_eq!(text(&world.ended(&next).await, "status"), "succeeded");
}

#[tokio::test]
async fn an_agent_without_a_repository_runs_and_its_figures_are_recorded() {
    let builder = World::builder();
    let agent = ScriptedAgent::write(&builder.path(""), "cat > task.txt; cat task.txt");
    let world = builder
        .env("AGENTICORE_CLAUDE_BINARY", &agent.program())
        .start();
    let id = world
        .submit_body(&json!({"task": "say it -- with $HOME"}))
        .await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
    assert_eq!(text(&job, "profile"), "code", "the default");
    assert_eq!(field(&job, "cost_usd"), &json!(0.25));
    assert_eq!(number(field(&job, "usage"), "output_tokens"), 5);
    assert_eq!(number(&job, "num_turns"), 1);
    assert!(text(&job, "output").contains("scripted result"), "{job}");
    let session = text(&job, "session_id").to_owned();
    assert!(agent.calls()[0].contains(&session), "{:?}", agent.calls());
    world.logged(&id, "say it -- with $HOME").await;
}

#[tokio::test]
async fn a_synchronous_request_answers_with_the_end_of_the_job() {
    let world = World::start();
    let body = json!({"task": "sleep 0.2; echo sync", "profile": "shell", "wait": true});
    let reply = world.post("/jobs", &body).await;
    assert_eq!(text(reply.job(), "status"), "succeeded");
    assert_eq!(text(reply.job(), "mode"), "sync");

    // A client that goes away does not take the job with it.
    let gate = world.gate("later");
    let body = json!({"task": gate.wait(), "profile": "shell", "wait": true});
    let request = world.request(reqwest::Method::POST, "/jobs").json(&body);
    let gone = tokio::time::timeout(Duration::from_millis(500), request.send()).await;
    assert!(gone.is_err(), "the answer came before the job ended");
    let jobs = world.jobs().await;
    let id = text(&jobs[0], "id").to_owned();
    gate.open();
    assert_eq!(text(&world.ended(&id).await, "status"), "succeeded");
}
