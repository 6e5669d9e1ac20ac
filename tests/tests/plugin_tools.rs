//! The commands for plugins: what authors and operators do with a component outside of a job.

use std::fs;
use std::path::{Path, PathBuf};

use agenticore_tests::World;
use serde_json::{Value, json};

use crate::{field, text};

/// A component that was built before the tests.
fn built(name: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    workspace.join(format!("plugins/dist/{name}.wasm"))
}

fn built_text(name: &str) -> String {
    built(name).display().to_string()
}

/// A path in the world's folder as text.
fn at(world: &World, below: &str) -> String {
    world.path(below).display().to_string()
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The component with one text in the place of another of the same length, everywhere.
fn patched(world: &World, name: &str, from: &str, to: &str) -> String {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(built("test-guests")).unwrap();
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, window)| *window == from.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "no {from:?} in the component");
    for place in places {
        bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
    }
    let path = world.path(name);
    fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// What `describe` of the test guest does.
fn describes(world: &World, name: &str, what: &str) -> String {
    let to = format!("DESCRIBE-DOES:{what:.<18}");
    patched(world, name, "DESCRIBE-DOES:normal............", &to)
}

#[tokio::test]
async fn a_folder_does_not_hide_a_bundled_plugin_of_its_name() {
    let world = World::builder().idle();
    fs::create_dir(world.path("policy")).unwrap();
    for command in ["check", "inspect"] {
        let run = world.cli(&["plugin", command, "policy"]).await;
        assert_eq!(run.code, Some(0), "{command}: {}", run.stderr);
    }
    // A file is what it is.
    fs::write(world.path("shell"), "no component").unwrap();
    let run = world.cli(&["plugin", "check", "shell"]).await;
    assert_ne!(run.code, Some(0), "{}", run.stdout);
}

#[tokio::test]
async fn a_dry_run_gives_the_tree_hash_of_the_server() {
    let world = World::builder()
        .profile(
            "scripts",
            "plugin: {component: shell.wasm, config: {env: {A: b}}, grants: {program: [sh]}}\n",
        )
        .start();
    let folder = world.path("home/.agenticore/profiles/scripts");
    fs::copy(built("shell"), folder.join("shell.wasm")).unwrap();
    let id = world
        .submit_body(&json!({"task": "echo one\necho two", "profile": "scripts"}))
        .await;
    let record = world.ended(&id).await;
    let expected = text(field(&record, "plugin"), "tree").to_owned();
    assert_eq!(expected.len(), 64, "{record:#}");
    write(&world.path("job.json"), &record.to_string());
    let shell = at(&world, "home/.agenticore/profiles/scripts/shell.wasm");
    let job = at(&world, "job.json");

    let run = [
        "plugin",
        "run",
        &shell,
        "--job",
        &job,
        "--profile",
        "scripts",
    ];
    let hash = world.cli(&[&run[..], &["-o", "id"]].concat()).await;
    assert_eq!(
        (hash.code, hash.stdout.trim()),
        (Some(0), expected.as_str()),
        "{hash:?}"
    );

    let shown = world.cli(&[&run[..], &["--json"]].concat()).await.json();
    let answer = field(&shown, "answer");
    assert_eq!(answer["env"], json!({"A": "b"}));
    assert_eq!(answer["arguments"], json!(["{config-dir}/task.sh"]));
    assert_eq!(shown["grants"]["effective"], json!({"program": ["sh"]}));
    let used: Vec<&str> = shown["used"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| text(u, "limit"))
        .collect();
    assert_eq!(
        used,
        [
            "component_bytes",
            "time",
            "memory",
            "host_calls",
            "files",
            "output_bytes"
        ]
    );

    let other = world
        .cli(&[&run[..], &["--task", "echo three", "-o", "id"]].concat())
        .await;
    assert_ne!(
        other.stdout.trim(),
        expected,
        "another task is another tree"
    );
}

#[tokio::test]
async fn a_run_writes_the_files_and_refuses_what_a_server_refuses() {
    let world = World::builder().idle();
    let tree = at(&world, "tree");
    let run = world
        .cli(&[
            "plugin", "run", "shell", "--task", "echo hi", "--write", &tree,
        ])
        .await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(
        fs::read_to_string(world.path("tree/task.sh")).unwrap(),
        "echo hi"
    );

    // A redacting hook and `agent` can be called too.
    let redacted = world
        .cli(&["plugin", "run", "redact", "--hook", "redact", "--json"])
        .await
        .json();
    let kept = json!([{"kind": "output", "text": "hello\n", "changed": false}]);
    assert_eq!(redacted["answer"]["passages"], kept, "{redacted:#}");
    write(&world.path("printed"), "one\n");
    let printed = at(&world, "printed");
    let read = world
        .cli(&["plugin", "run", "shell", "--agent-output", &printed])
        .await;
    assert!(
        read.stdout.contains("agent") && read.stdout.contains(r#""text": "one""#),
        "{read:?}"
    );

    // Without the grant nothing is planned, and the answer names the grant and who can give it.
    let refused = world
        .cli(&["plugin", "run", "shell", "--grant", "mcp:stdio", "--json"])
        .await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let shown = refused.json();
    assert_eq!(shown["error"]["code"], "plugin.grant");
    assert_eq!(shown["error"]["grant"], "program:sh");

    for (arguments, words) in [
        (vec!["no-such.wasm"], "no bundled plugin of that name"),
        (vec!["shell", "--config", "[]"], "no JSON object"),
        (vec!["shell", "--write", &tree], "exists already"),
        (vec!["shell", "--profile", "no-such"], "no-such"),
    ] {
        let wrong = world
            .cli(&[&["plugin", "run"][..], &arguments].concat())
            .await;
        assert_eq!(wrong.code, Some(2), "{arguments:?}: {wrong:?}");
        assert!(wrong.stderr.contains(words), "{arguments:?}: {wrong:?}");
    }
    let config = world
        .cli(&["plugin", "run", "shell", "--config", r#"{"timeout": 0}"#])
        .await;
    assert_eq!(config.code, Some(1), "{config:?}");
    assert!(config.stderr.contains("plugin.config"), "{config:?}");
}

#[tokio::test]
async fn cases_pass_fail_with_a_diff_and_are_updated() {
    let world = World::builder().idle();
    let cases = world.path("project/cases");
    fs::create_dir_all(&cases).unwrap();
    fs::copy(built("test-guests"), world.path("project/plugin.wasm")).unwrap();
    for (file, text) in [
        (
            "plan/case.yml",
            "component: shell\njob: {task: echo one}\nconfig: {env: {LEVEL: info}}\n",
        ),
        (
            "hooks/rejects/case.yml",
            "hook: pre-job\nconfig: {verdict: reject}\n",
        ),
        (
            "hooks/patches/case.yml",
            "hook: pre-job\nconfig: {verdict: patch}\nplan: {program: sh, files: {settings.json: '{}'}}\n",
        ),
        (
            "hooks/reviews/case.yml",
            "hook: post-job\nresult: {status: failed, failure: agent}\n",
        ),
        (
            "hooks/panics/case.yml",
            "hook: pre-job\nconfig: {do: panic}\n",
        ),
        (
            "hooks/redacts/case.yml",
            "hook: redact\nconfig: {secret: hunter2}\npassages: [{kind: pull-request-title, text: it is hunter2}, {kind: message, text: done}]\n",
        ),
        ("runs/fails/printed.txt", "two\n"),
        (
            "runs/fails/case.yml",
            "component: shell\nrun: {stdout: \"one\\n\", stdout_file: printed.txt, stderr: \"oops\\n\", exit: {code: 3}}\n",
        ),
        (
            "runs/unread/case.yml",
            "component: policy\nrun: {stdout: x}\n",
        ),
    ] {
        write(&cases.join(file), text);
    }
    let folder = cases.display().to_string();
    let test = async |more: &[&str]| {
        world
            .cli(&[&["plugin", "test", &folder][..], more].concat())
            .await
    };

    let first = test(&[]).await;
    assert_eq!(first.code, Some(1), "nothing is accepted yet: {first:?}");
    assert!(first.stdout.contains("--update"), "{first:?}");
    let updated = test(&["--update"]).await;
    assert_eq!(updated.code, Some(0), "{updated:?}");
    assert!(
        updated.stdout.ends_with("0 passed, 0 failed, 8 updated\n"),
        "{updated:?}"
    );
    let again = test(&["--json"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(again.json()["passed"], 8);

    let read = |below: &str| fs::read_to_string(cases.join(below)).unwrap();
    assert_eq!(read("plan/expected/tree/task.sh"), "echo one");
    assert!(read("hooks/rejects/expected/verdict.json").contains(r#""verdict": "reject""#));
    assert_eq!(
        read("hooks/patches/expected/tree/hook/added.txt"),
        "settings.json"
    );
    assert!(read("hooks/reviews/expected/review.json").contains("pull_request"));
    assert!(read("hooks/panics/expected/error.json").contains("plugin.trap"));
    let answer = |below: &str| serde_json::from_str::<Value>(&read(below)).unwrap();
    assert_eq!(
        answer("hooks/redacts/expected/passages.json"),
        json!({"passages": [
            {"kind": "pull-request-title", "text": "it is (gone)", "changed": true},
            {"kind": "message", "text": "done", "changed": false},
        ]})
    );
    let run = answer("runs/fails/expected/run.json");
    assert_eq!(
        run["facts"],
        json!([{"text": "one"}, {"text": "two"}, {"text": "oops"}])
    );
    let failed = &run["conclusion"]["ending"]["failed"];
    assert_eq!(failed["class"], "agent", "{run}");
    assert!(text(failed, "message").contains("oops"), "{run}");
    assert!(read("runs/unread/expected/error.json").contains("plugin.export"));

    write(
        &cases.join("plan/case.yml"),
        "component: shell\njob: {task: echo two}\n",
    );
    let changed = test(&["--only", "plan"]).await;
    assert_eq!(changed.code, Some(1), "{changed:?}");
    for line in [
        "FAILED   plan",
        "-echo one",
        "+echo two",
        "0 passed, 1 failed, 0 updated",
    ] {
        assert!(changed.stdout.contains(line), "{line}: {}", changed.stdout);
    }

    write(&cases.join("plan/case.yml"), "componet: shell\n");
    let wrong = test(&[]).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(
        wrong.stderr.contains("componet") && wrong.stderr.contains("case.yml"),
        "{wrong:?}"
    );
    let none = world.cli(&["plugin", "test", &at(&world, "tmp")]).await;
    assert_eq!(none.code, Some(2), "{none:?}");
}

#[tokio::test]
async fn check_says_what_is_wrong_which_code_it_has_and_what_to_do() {
    let world = World::builder().idle();
    write(&world.path("text.wasm"), "(component)");
    fs::write(world.path("core.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let whole = fs::read(built("shell")).unwrap();
    fs::write(world.path("cut.wasm"), &whole[..whole.len() / 2]).unwrap();
    let file = |name: &str| at(&world, name);
    let speaks = |name: &str, version: &str| patched(&world, name, "@1.1.0", version);
    let does = |what: &str| describes(&world, &format!("{what}.wasm"), what);
    let greedy = built_text("test-guests");
    let mut told = String::new();
    for (what, component, more) in [
        ("wrong: text", file("text.wasm"), &[][..]),
        ("wrong: a core module", file("core.wasm"), &[]),
        ("wrong: cut off", file("cut.wasm"), &[]),
        (
            "old: of an earlier contract",
            speaks("old.wasm", "@0.9.0"),
            &[],
        ),
        ("newer than this host", speaks("newer.wasm", "@7.0.0"), &[]),
        ("hostile: loops in describe", does("loop"), &[]),
        ("hostile: panics in describe", does("panic"), &[]),
        ("hostile: fills the memory", does("memory"), &[]),
        ("greedy", greedy.clone(), &[]),
        ("greedy, --strict", greedy, &["--strict"]),
        ("fine, --strict", "shell".to_owned(), &["--strict"]),
        ("missing", file("none.wasm"), &[]),
    ] {
        let check = [&["plugin", "check", &component], more].concat();
        let check = world.cli(&check).await;
        let said = format!("{}{}", check.stdout, check.stderr);
        told.push_str(&format!(
            "== {what}: exit {}\n{}\n",
            check.code.unwrap(),
            told_lines(&said, &world)
        ));
    }
    expect_file("plugin_check.txt", &without_numbers(&told));
}

/// The lines of a check that tell what it came to.
fn told_lines(said: &str, world: &World) -> String {
    let begins = [
        "usable",
        "contract",
        "note",
        "error",
        "fixed by",
        "--strict",
        "agenticore:",
    ];
    let kept = said
        .lines()
        .filter(|line| begins.iter().any(|word| line.starts_with(word)));
    let folder = world.path("").display().to_string();
    let kept = kept.collect::<Vec<_>>().join("\n");
    kept.replace(folder.trim_end_matches('/'), "FOLDER")
}

/// Times and places in a file differ from run to run and from build to build; what is bundled and spoken, from version to version.
fn without_numbers(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = &without(line, "(bundled are: ", ")");
        let line = &without(line, "(this host speaks ", ")");
        let line = &without(line, "speaks agenticore:plugin@", ";");
        let line = &without(line, "`wasi:", ")");
        let line = match line.split_once("used ") {
            Some((before, after)) if after.contains(", allowed") => {
                let (_, after) = after.split_once(", allowed").unwrap();
                format!("{before}used N, allowed{after}")
            }
            _ => line.to_owned(),
        };
        match line.split_once("at byte ") {
            Some((before, after)) => {
                let rest = after.trim_start_matches(|c: char| {
                    c.is_ascii_digit() || c == ' ' || "of".contains(c)
                });
                format!("{before}at byte N{rest}")
            }
            None => line,
        }
    });
    lines
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// A line without what stands between `start` and `end`.
fn without(line: &str, start: &str, end: &str) -> String {
    let Some((before, after)) = line.split_once(start) else {
        return line.to_owned();
    };
    let rest = after.find(end).map_or("", |at| &after[at..]);
    format!("{before}{start}..{rest}")
}

/// Compares with a file beside the tests; `INSTA_UPDATE=always` writes it, as for all snapshots.
fn expect_file(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(name);
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        write(&path, text);
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text,
        expected,
        "{} differs; look at it, and accept it with INSTA_UPDATE=always",
        path.display()
    );
}

#[tokio::test]
async fn the_document_of_check_is_stable() {
    let world = World::builder().idle();
    let report = world
        .cli(&["plugin", "check", "shell", "--json"])
        .await
        .json();
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "ok",
            "sha256",
            "size",
            "host_api",
            "api",
            "exports",
            "imports",
            "description",
            "requests",
            "config_schema",
            "findings"
        ]
    );
    assert_eq!(report["requests"], json!({"program": ["sh"]}));
    let old = patched(&world, "old.wasm", "@1.1.0", "@0.9.0");
    let report = world.cli(&["plugin", "check", &old, "--json"]).await.json();
    assert_eq!(report["error"]["code"], "plugin.api");
    assert_eq!(report["ok"], false);
}

#[tokio::test]
async fn inspect_takes_a_component_apart() {
    let world = World::builder().idle();
    let shown = world.cli(&["plugin", "inspect", "shell", "--json"]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let anatomy = shown.json();
    assert!(
        text(&anatomy, "wit").contains("export agenticore:plugin/profile@1.1.0"),
        "{anatomy:#}"
    );
    assert!(
        text(&anatomy, "wit").contains("materialize: func"),
        "{anatomy:#}"
    );
    assert_eq!(anatomy["parts"][0]["kind"], "component");
    let code = |part: &Value| part["sections"]["code"]["bytes"].as_u64();
    assert!(
        anatomy["parts"]
            .as_array()
            .unwrap()
            .iter()
            .any(|part| code(part) > Some(10_000))
    );
    assert!(
        anatomy["producers"].to_string().contains("wit-bindgen"),
        "{}",
        anatomy["producers"]
    );
    let wit = world.cli(&["plugin", "inspect", "shell", "--wit"]).await;
    assert_eq!(wit.stdout, text(&anatomy, "wit"));
    write(&world.path("text.wasm"), "(component)");
    let wrong = world
        .cli(&["plugin", "inspect", &at(&world, "text.wasm")])
        .await;
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.stderr.contains("plugin.format"), "{wrong:?}");
}

#[tokio::test]
async fn diff_names_the_grants_that_a_new_version_wants() {
    let world = World::builder().idle();
    let modest = describes(&world, "modest.wasm", "no-requests");
    let greedy = built_text("test-guests");
    let same = world.cli(&["plugin", "diff", &greedy, &greedy]).await;
    assert_eq!(same.code, Some(0), "{same:?}");
    let more = world
        .cli(&["plugin", "diff", &modest, &greedy, "--json"])
        .await;
    assert_eq!(more.code, Some(1), "{more:?}");
    let found = more.json();
    assert!(
        found["more_grants"].to_string().contains("secrets:*"),
        "{found:#}"
    );
    assert_eq!(found["fewer_grants"], json!(["program:sh"]));
    assert_eq!(found["answers"], json!([]));

    write(&world.path("cases/one/case.yml"), "job: {task: echo hi}\n");
    let cases = at(&world, "cases");
    let other = world
        .cli(&["plugin", "diff", "shell", &greedy, "--cases", &cases])
        .await;
    assert_eq!(other.code, Some(1), "{other:?}");
    for words in [
        "interfaces:",
        "export agenticore:plugin/hooks@1.1.0",
        "answer to",
        "B asks",
    ] {
        assert!(other.stdout.contains(words), "{words}: {}", other.stdout);
    }
}

#[tokio::test]
async fn bench_sets_calls_beside_the_same_work_without_a_plugin() {
    let world = World::builder().idle();
    let bench = world
        .cli(&["plugin", "bench", "shell", "--calls", "5", "--json"])
        .await;
    assert_eq!(bench.code, Some(0), "{bench:?}");
    let measured = bench.json();
    let rows = measured["rows"].as_array().unwrap();
    let row = |what: &str| rows.iter().find(|row| text(row, "what") == what).unwrap();
    let call = row("a call, and its files written");
    assert!(call["p50_us"].as_f64().unwrap() > 0.0 && call["ratio"].as_f64().unwrap() > 0.0);
    assert!(call["p99_us"].as_f64() >= call["p50_us"].as_f64(), "{call}");
    // Code that is kept is at least not compiled again.
    let time = |what: &str| row(what)["p50_us"].as_f64().unwrap();
    assert!(
        time("loaded, compiled before") < time("loaded, compiled anew"),
        "{measured:#}"
    );
}
