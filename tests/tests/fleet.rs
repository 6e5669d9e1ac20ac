//! A fleet: any pod takes any request, any pod runs any job, and whatever goes away, no job is lost and none runs twice at once.
//!
//! Real servers over one folder and a real Redis. What a test does to a pod it does to the server and its agents, as an orchestrator
//! does to a container.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use agenticore_tests::chaos::{self, Plan};
use agenticore_tests::ledger::Deed;
use agenticore_tests::{Fleet, Redis, Repo, World, needs_redis, until};
use serde_json::json;

use crate::{field, number, text};

#[tokio::test]
async fn ten_jobs_sent_to_one_pod_are_spread_over_three() {
    needs_redis!();
    let fleet = Fleet::start(3, Redis::durable(), |_, builder| {
        builder.env("AGENTICORE_MAX_PARALLEL_JOBS", "3")
    });
    let gate = fleet.gate("go");
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(fleet.submit_waiting(&n.to_string(), &gate).await);
    }
    let queued = until("nine of the ten run", || async {
        let jobs = fleet.pod(2).jobs().await;
        let waiting = jobs
            .iter()
            .filter(|j| text(j, "status") == "queued")
            .count();
        (jobs.len() == 10 && waiting == 1).then_some(waiting)
    })
    .await;
    assert_eq!(queued, 1);
    // What autoscalers look at.
    let length: usize = fleet.redis.ask(&["LLEN", "agenticore:queue"]);
    assert_eq!(length, 1, "the queue is a list of what waits");
    gate.open();
    let mut spread: BTreeMap<usize, usize> = BTreeMap::new();
    for id in &ids {
        let job = fleet.pod(1).ended(id).await;
        assert_eq!(text(&job, "status"), "succeeded", "{job}");
        *spread.entry(Fleet::number_of(&job).unwrap()).or_default() += 1;
    }
    assert!(
        spread.len() == 3 && spread.values().all(|n| *n >= 3),
        "{spread:?}"
    );
    fleet.assert_sound(2, &ids).await;
}

#[tokio::test]
async fn a_job_is_followed_waited_for_and_cancelled_from_any_pod() {
    needs_redis!();
    let fleet = Fleet::of(2);
    let gate = fleet.gate("never");
    let id = fleet.submit_waiting("long", &gate).await;
    let runs_on = fleet.runner(&id).await;
    let elsewhere = fleet.pod(fleet.other(runs_on));
    let mut logs = elsewhere.cli_start(&["logs", "--follow", &id]).await;
    logs.saw("begun long").await;
    let waits = elsewhere.cli_start(&["wait", &id]).await;
    let mut stream = elsewhere.sse(&id, None).await;

    assert_eq!(elsewhere.cli(&["cancel", &id]).await.code, Some(0));
    let frames = stream.rest().await;
    let ids: Vec<u64> = frames.iter().filter_map(|frame| frame.id).collect();
    assert!(ids.iter().copied().eq(1..=ids.len() as u64), "{ids:?}");
    assert_eq!(frames.last().map(|frame| frame.event.as_str()), Some("end"));
    assert_eq!(waits.end().await.code, Some(3), "cancelled");
    drop(logs.end().await);
    let job = elsewhere.job(&id).await;
    assert_eq!(text(&job, "status"), "cancelled", "{job}");
    until("its processes are gone", || async {
        fleet.pod(runs_on).agents().is_empty().then_some(())
    })
    .await;
    // Both pods tell the same story.
    assert_eq!(
        fleet.pod(0).events(&id).await,
        fleet.pod(1).events(&id).await
    );
}

#[tokio::test]
async fn a_draining_pod_hands_its_job_to_another_at_once() {
    needs_redis!();
    let fleet = Fleet::of(2);
    let (id, gate, first, second) = fleet.held_job().await;
    let drained = fleet.pod(first).cli(&["drain", "--timeout", "0"]).await;
    assert_eq!(drained.code, Some(8), "{drained:?}");
    until("the other pod runs it", || async {
        let job = fleet.pod(first).job(&id).await;
        let moved = text(&job, "status") == "running" && Fleet::number_of(&job) == Some(second);
        moved.then_some(())
    })
    .await;
    // A pod that drains takes nothing more.
    assert_eq!(fleet.pod(first).get("/readyz").await.status, 503);
    gate.open();
    fleet.pod(first).succeeded(&id, 2).await;
    let events = fleet.pod(second).events(&id).await;
    assert!(
        events.iter().any(|e| text(e, "reason") == "hand_off"),
        "{events:?}"
    );
    fleet.assert_sound(first, &[id]).await;
}

#[tokio::test]
async fn a_pod_that_is_told_to_end_hands_its_job_to_another() {
    needs_redis!();
    let mut fleet = Fleet::of(2);
    let (id, gate, first, second) = fleet.held_job().await;
    fleet.pod(first).sigterm();
    fleet.pod_mut(first).stopped();
    fleet.runs_on(second, &id, second).await;
    gate.open();
    let job = fleet.pod(second).succeeded(&id, 2).await;
    assert_eq!(
        number(&job, "interruptions"),
        0,
        "a hand-off is no crash: {job}"
    );
    fleet.assert_sound(second, &[id]).await;
}

#[tokio::test]
async fn the_jobs_of_a_killed_pod_run_again_on_another() {
    needs_redis!();
    let mut fleet = Fleet::of(2);
    let (id, gate, first, second) = fleet.held_job().await;
    fleet.pod(second).logged(&id, "begun").await;
    let seen = fleet.pod(second).events(&id).await;
    fleet.pod_mut(first).kill_pod();
    fleet.runs_on(second, &id, second).await;
    gate.open();
    fleet.pod(second).succeeded(&id, 2).await;
    let events = fleet.pod(second).events(&id).await;
    assert_eq!(
        events.get(..seen.len()),
        Some(seen.as_slice()),
        "what was seen stays so"
    );
    fleet.assert_sound(second, &[id]).await;
}

#[tokio::test]
async fn the_agents_of_a_server_that_is_killed_alone_end_with_it() {
    needs_redis!();
    let mut fleet = Fleet::of(2);
    let (id, gate, first, second) = fleet.held_job().await;
    fleet.pod(second).logged(&id, "begun").await;
    fleet.pod_mut(first).kill9();
    until("its agents are gone", || async {
        fleet.pod(first).agents().is_empty().then_some(())
    })
    .await;
    fleet.runs_on(second, &id, second).await;
    gate.open();
    fleet.assert_sound(second, &[id]).await;
}

#[tokio::test]
async fn a_pod_that_was_frozen_beyond_its_lease_ends_nothing_that_is_another_s() {
    needs_redis!();
    let fleet = Fleet::of(2);
    let (id, gate, first, second) = fleet.held_job().await;
    fleet.pod(first).freeze();
    fleet.runs_on(second, &id, second).await;
    fleet.pod(first).thaw();
    until("its old agent is gone", || async {
        fleet.pod(first).agents().is_empty().then_some(())
    })
    .await;
    assert_eq!(text(&fleet.pod(first).job(&id).await, "status"), "running");
    gate.open();
    fleet.pod(first).succeeded(&id, 2).await;
    let (entries, _) = fleet.ledger().read();
    let ends: Vec<u32> = entries
        .iter()
        .filter(|entry| entry.deed == Deed::End)
        .map(|entry| entry.attempt)
        .collect();
    assert_eq!(ends, [2], "the first attempt never came to its end");
}

#[tokio::test]
async fn a_pod_that_only_lost_redis_keeps_its_job() {
    needs_redis!();
    let fleet = Fleet::of(2);
    let (id, gate, first, second) = fleet.held_job().await;
    fleet.way(first).cut();
    until("its lease in Redis is over", || async {
        let now: Vec<f64> = fleet.redis.ask(&["TIME"]);
        let all = ["ZRANGE", "agenticore:pods", "0", "-1", "WITHSCORES"];
        let leases: BTreeMap<String, f64> = fleet.redis.ask(&all);
        let now = now.first().copied().unwrap_or_default() * 1000.0;
        let mut ends = leases.values();
        ends.any(|end| *end < now - 2_000.0).then_some(())
    })
    .await;
    gate.open();
    until("the job's end is kept on the volume", || async {
        let job = fleet.pod(first).job(&id).await;
        (text(&job, "status") == "succeeded").then_some(())
    })
    .await;
    fleet.way(first).open();
    fleet.pod(second).succeeded(&id, 1).await;
    fleet.assert_sound(second, &[id]).await;
}

#[tokio::test]
async fn a_list_is_whole_also_while_an_emptied_redis_is_put_back() {
    needs_redis!();
    let fleet = Fleet::of(1);
    let id = fleet.pod(0).submit("true").await;
    fleet.pod(0).ended(&id).await;
    // Emptied, and another pod that has put nothing back yet holds the lock.
    let emptied =
        "redis.call('FLUSHALL') return redis.call('SET', KEYS[1], 'another', 'PX', 15000)";
    let lock = "agenticore:rebuild";
    fleet.redis.ask::<String>(&["EVAL", emptied, "1", lock]);
    let listed = fleet.pod(0).jobs().await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    let found = fleet.pod(0).cli(&["job", &id[..8]]).await;
    assert_eq!(found.code, Some(0), "by the beginning of its id: {found:?}");
    let left: usize = fleet.redis.ask(&["EXISTS", lock]);
    assert_eq!(left, 1, "the list was asked for too late");
    fleet.pod(0).succeeded(&id, 1).await;
}

#[tokio::test]
async fn a_pod_that_is_given_its_own_lost_job_again_ends_the_old_run_first() {
    needs_redis!();
    let fleet = Fleet::of(2);
    let (id, gate, first, second) = fleet.held_job().await;
    // The other pod takes jobs of dead pods back, and claims none.
    let drained = fleet.pod(second).cli(&["drain"]).await;
    assert_eq!(drained.code, Some(0), "{drained:?}");
    fleet.pod(first).freeze();
    until("the job waits again", || async {
        let job = fleet.pod(second).job(&id).await;
        (text(&job, "status") == "queued").then_some(())
    })
    .await;
    fleet.pod(first).thaw();
    until("it runs again", || async {
        let job = fleet.pod(second).job(&id).await;
        (text(&job, "status") == "running" && number(&job, "attempt") == 2).then_some(())
    })
    .await;
    gate.open();
    fleet.pod(second).succeeded(&id, 2).await;
}

#[tokio::test]
async fn what_is_submitted_while_redis_is_down_at_start_runs_once_when_it_is_there() {
    needs_redis!();
    let mut redis = Redis::durable();
    redis.kill();
    let mut fleet = Fleet::start(2, redis, |_, builder| builder);
    let mut ids = Vec::new();
    for n in 0..6 {
        let task = format!("{} # {n}", fleet.ledger().script(1));
        ids.push(fleet.pod(n % 2).submit(&task).await);
    }
    assert_eq!(
        fleet.pod(0).get("/livez").await.status,
        200,
        "Redis is no reason to be restarted"
    );
    fleet.redis.start_again();
    for id in &ids {
        fleet.pod(0).succeeded(id, 1).await;
    }
    fleet.assert_sound(1, &ids).await;
    let jobs = fleet.pod(1).jobs().await;
    assert_eq!(jobs.len(), ids.len(), "each submission is one job");
}

#[tokio::test]
async fn a_job_ends_while_redis_is_gone_and_the_fleet_hears_of_it_later() {
    needs_redis!();
    let mut fleet = Fleet::of(2);
    let (id, gate, first, second) = fleet.held_job().await;
    fleet.redis.kill();
    let late = fleet.pod(second);
    let submitted = late.submit(&fleet.ledger().script(0)).await;
    until(
        "the pod says that its store is away, and is ready",
        || async {
            let reply = late.get("/readyz?verbose").await;
            let checks = field(&reply.body, "checks").as_array()?;
            let store = checks.iter().find(|check| text(check, "name") == "store")?;
            let away = field(store, "ok") == &json!(false)
                && text(store, "detail").contains("cannot be used: ");
            (reply.status == 200 && away).then_some(())
        },
    )
    .await;
    gate.open();
    until("the job is over as far as its own pod knows", || async {
        let job = fleet.pod(first).job(&id).await;
        (text(&job, "status") == "succeeded").then_some(())
    })
    .await;
    fleet.redis.start_again();
    let ids = [id, submitted];
    for id in &ids {
        fleet.pod(second).succeeded(id, 1).await;
    }
    fleet.assert_sound(second, &ids).await;
}

#[tokio::test]
async fn an_emptied_redis_is_filled_again_and_no_job_notices() {
    needs_redis!();
    let fleet = Fleet::start(2, Redis::start(), |_, builder| {
        builder.env("AGENTICORE_MAX_PARALLEL_JOBS", "1")
    });
    let gate = fleet.gate("go");
    let over = fleet.pod(0).submit(&fleet.ledger().script(0)).await;
    fleet.pod(0).ended(&over).await;
    let mut ids = vec![over];
    for n in 0..5 {
        ids.push(
            fleet
                .pod(n % 2)
                .submit(&fleet.waiting(&n.to_string(), &gate))
                .await,
        );
    }
    until("two run", || async {
        let running = fleet.pod(0).get("/jobs?status=running").await;
        (number(&running.body, "count") == 2).then_some(())
    })
    .await;
    fleet.redis.flush();
    until("the queue is there again", || async {
        let waiting: usize = fleet.redis.ask(&["LLEN", "agenticore:queue"]);
        (waiting == 3).then_some(())
    })
    .await;
    gate.open();
    for id in &ids {
        fleet.pod(1).succeeded(id, 1).await;
    }
    fleet.assert_sound(0, &ids).await;
}

/// A `git` in front of the machine's that writes down each fetch and holds it while `hold` exists.
fn slow_git(folder: &Path, log: &Path, hold: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let real = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("git"))
        .find(|path| path.is_file())
        .expect("git");
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' fetch '*) echo \"$$\" >> '{}'; while [ -e '{}' ]; do sleep 0.05; done;; esac\nexec '{}' \"$@\"\n",
        log.display(),
        hold.display(),
        real.display()
    );
    let path = folder.join("git");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn two_pods_that_clone_one_repository_clone_it_once_also_when_the_first_is_killed() {
    needs_redis!();
    let tools = tempfile::tempdir().unwrap();
    let (log, hold) = (tools.path().join("fetches"), tools.path().join("hold"));
    slow_git(&tools.path().join("bin"), &log, &hold);
    std::fs::write(&hold, "").unwrap();
    let mut fleet = Fleet::start(2, Redis::durable(), |_, builder| {
        builder
            .env("AGENTICORE_MAX_PARALLEL_JOBS", "1")
            .programs(&tools.path().join("bin"))
    });
    let repo = Repo::create(fleet.shared_path("remote"));
    let body = |n: usize| json!({"task": format!("cat README.md # {n}"), "profile": "shell", "repo_url": repo.url()});
    let first = fleet.pod(0).submit_body(&body(1)).await;
    let second = fleet.pod(0).submit_body(&body(2)).await;
    let cloning = until(
        "both jobs are at the clone, one of them waiting for the other",
        || async {
            let (a, b) = (
                fleet.pod(0).job(&first).await,
                fleet.pod(0).job(&second).await,
            );
            let both = [&a, &b].iter().all(|job| text(job, "status") == "running");
            let fetches = std::fs::read_to_string(&log).unwrap_or_default();
            let mut waits = Vec::new();
            for id in [&first, &second] {
                let events = fleet.pod(0).events(id).await;
                waits.push(events.iter().any(|e| text(e, "state") == "waiting"));
            }
            let one_waits = waits.iter().filter(|waits| **waits).count() == 1;
            let holder = if waits.first() == Some(&true) { b } else { a };
            (both && one_waits && fetches.lines().count() == 1).then_some(holder)
        },
    )
    .await;
    let holder = Fleet::number_of(&cloning).unwrap();
    let survivor = fleet.other(holder);
    fleet.pod_mut(holder).kill_pod();
    std::fs::remove_file(&hold).unwrap();
    for id in [&first, &second] {
        let job = fleet.pod(survivor).ended(id).await;
        assert_eq!(text(&job, "status"), "succeeded", "{job}");
        assert_eq!(text(&job, "output").trim(), "a readme", "{job}");
    }
    let clones = std::fs::read_dir(fleet.shared_path("repos"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().join("repo").exists())
        .count();
    assert_eq!(clones, 1, "one clone for both");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_in_trouble_loses_nothing_and_runs_nothing_twice_at_once() {
    needs_redis!();
    let plan = Plan {
        seed: 20,
        time: Duration::from_secs(45),
        pods: 4,
        jobs: 200,
        slots: 2,
        lease: 4,
        patience: Duration::from_secs(120),
    };
    let report = chaos::run(plan.clone()).await.expect("the fleet finishes");
    let shown = report.json(&plan);
    assert_eq!(report.violations, [], "{shown:#}");
    assert_eq!(report.accepted, 200, "{shown:#}");
    assert!(report.trouble.len() >= 5, "there was trouble: {shown:#}");
    assert!(
        report.attempts.keys().any(|n| *n > 1),
        "jobs were interrupted: {shown:#}"
    );
    let is_known = |why: &String| why.contains("max_attempts");
    assert!(report.failures.iter().all(is_known), "{shown:#}");
}

#[tokio::test]
async fn the_pods_and_the_queue_are_shown_by_any_pod() {
    needs_redis!();
    let fleet = Fleet::start(2, Redis::durable(), |_, builder| {
        builder.env("AGENTICORE_MAX_PARALLEL_JOBS", "1")
    });
    let gate = fleet.gate("go");
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(fleet.submit_waiting(&n.to_string(), &gate).await);
    }
    until("both pods are seen at work", || async {
        let pods = fleet.pod(1).get("/pods").await.body;
        let all = pods["pods"].as_array().cloned().unwrap_or_default();
        let busy = all.iter().filter(|pod| number(pod, "running") == 1).count();
        (busy == 2 && number(&pods, "count") == 2).then_some(())
    })
    .await;
    let queue = fleet.pod(0).get("/queue").await.body;
    assert_eq!(
        (number(&queue, "queued"), number(&queue, "running")),
        (1, 2),
        "{queue}"
    );
    assert_eq!(text(&queue["jobs"][0], "id"), ids[2], "{queue}");
    let shown = fleet.pod(1).cli(&["queue", "-o", "id"]).await;
    assert_eq!(shown.stdout.trim(), ids[2], "{shown:?}");

    drop(fleet.pod(1).cli(&["drain", "--timeout", "0"]).await);
    until("the drain is seen by the other pod", || async {
        let shown = fleet.pod(0).cli(&["pods", "--json"]).await.json();
        let pods = shown.as_array().cloned().unwrap_or_default();
        let drains = |pod: &&serde_json::Value| pod["draining"] == json!(true);
        let names: Vec<&str> = pods.iter().filter(drains).map(|p| text(p, "pod")).collect();
        (names == ["agenticore-1"]).then_some(())
    })
    .await;
    gate.open();
    fleet.assert_sound(0, &ids).await;
}

#[tokio::test]
async fn the_keys_that_are_listed_are_those_in_redis() {
    needs_redis!();
    let fleet = Fleet::start(1, Redis::durable(), |_, builder| {
        builder.env("REDIS_KEY_PREFIX", "other")
    });
    let gate = fleet.gate("go");
    let id = fleet.submit_waiting("x", &gate).await;
    fleet.runner(&id).await;
    let listed = fleet.pod(0).cli(&["keys", "--json"]).await.json();
    let families: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|key| {
            text(key, "key")
                .split('{')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert!(families.contains(&"other:queue".to_owned()), "{families:?}");
    let there: Vec<String> = fleet.redis.ask(&["KEYS", "*"]);
    for key in &there {
        assert!(
            families.iter().any(|family| key.starts_with(family)),
            "{key} is not listed"
        );
    }
    assert!(there.len() > 5, "{there:?}");
    gate.open();
    fleet.pod(0).ended(&id).await;
}

#[tokio::test]
async fn what_disagrees_is_found_and_repaired() {
    needs_redis!();
    let fleet = Fleet::start(1, Redis::durable(), |_, builder| {
        builder.env("AGENTICORE_MAX_PARALLEL_JOBS", "1")
    });
    let pod = fleet.pod(0);
    let gate = fleet.gate("go");
    let over = pod.submit(&fleet.ledger().script(0)).await;
    pod.ended(&over).await;
    let forgotten = pod.submit("true # forgotten").await;
    pod.ended(&forgotten).await;
    let running = pod.submit(&fleet.waiting("running", &gate)).await;
    fleet.runner(&running).await;
    let waits = pod.submit(&fleet.ledger().script(1)).await;
    assert_eq!(pod.cli(&["fsck"]).await.code, Some(0), "all is well");

    let nobody = "01890a5d-ac96-774b-bcce-b302099a8057";
    fleet
        .redis
        .ask::<()>(&["LREM", "agenticore:queue", "0", &waits]);
    fleet
        .redis
        .ask::<()>(&["RPUSH", "agenticore:queue", nobody]);
    fleet
        .redis
        .ask::<()>(&["SREM", "agenticore:demand", &running]);
    fleet
        .redis
        .ask::<()>(&["DEL", &format!("agenticore:job:{forgotten}")]);
    fleet
        .redis
        .ask::<()>(&["ZREM", "agenticore:index", &forgotten]);
    std::fs::remove_file(fleet.shared_path(&format!("job-state/{over}.json"))).unwrap();
    std::fs::create_dir_all(fleet.shared_path(&format!("jobs/{nobody}"))).unwrap();
    let found = pod.cli(&["fsck", "--json"]).await;
    assert_eq!(found.code, Some(1), "{found:?}");
    let mut kinds: Vec<(String, String)> = found
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (text(f, "kind").to_owned(), text(f, "subject").to_owned()))
        .collect();
    kinds.sort();
    let expected = [
        ("copy_behind", over.as_str()),
        ("demand", &running),
        ("only_on_volume", &forgotten),
        ("orphan_folder", nobody),
        ("queue_without_job", nobody),
        ("waits_nowhere", &waits),
    ];
    let expected = expected.map(|(kind, subject)| (kind.to_owned(), subject.to_owned()));
    assert_eq!(kinds, expected);

    let repaired = pod.cli(&["fsck", "--repair"]).await;
    assert_eq!(repaired.code, Some(0), "{repaired:?}");
    gate.open();
    for id in [&running, &waits] {
        assert_eq!(text(&pod.ended(id).await, "status"), "succeeded");
    }
    assert_eq!(text(&pod.job(&forgotten).await, "status"), "succeeded");
    assert!(!fleet.shared_path(&format!("jobs/{nobody}")).exists());
}

#[tokio::test]
async fn the_jobs_of_a_single_server_move_into_a_fleet_and_back() {
    needs_redis!();
    let mut single = World::builder()
        .env("AGENTICORE_MAX_PARALLEL_JOBS", "1")
        .start();
    let fleet = Fleet::of(2);
    let gate = fleet.gate("go");
    let over = single.submit("echo told once").await;
    let before = single.ended(&over).await;
    let running = single
        .submit(&format!("echo begun; {}; echo done", gate.wait()))
        .await;
    single.logged(&running, "begun").await;
    let waits = single.submit("echo later").await;
    let file = fleet.shared_path("export").display().to_string();
    let exported = single.cli(&["export", &file]).await;
    assert_eq!(exported.code, Some(0), "{exported:?}");
    single.kill_pod();

    let imported = fleet.pod(0).cli(&["import", &file, "--json"]).await;
    assert_eq!(
        imported.json(),
        json!({"imported": 3, "already_there": 0}),
        "{imported:?}"
    );
    gate.open();
    let after = fleet.pod(1).ended(&over).await;
    assert_eq!(text(&after, "output"), text(&before, "output"));
    for id in [&running, &waits] {
        let job = fleet.pod(1).ended(id).await;
        assert_eq!(text(&job, "status"), "succeeded", "{job}");
        let events = fleet.pod(0).events(id).await;
        let seqs: Vec<u64> = events.iter().map(|event| number(event, "seq")).collect();
        assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{seqs:?}");
    }
    let again = fleet.pod(0).cli(&["import", &file, "--json"]).await;
    assert_eq!(
        again.json(),
        json!({"imported": 0, "already_there": 3}),
        "{again:?}"
    );

    // And back, into a server that never saw them.
    let file = fleet.shared_path("back").display().to_string();
    assert_eq!(fleet.pod(1).cli(&["export", &file]).await.code, Some(0));
    let mut back = World::builder().idle();
    assert_eq!(back.cli(&["import", &file]).await.code, Some(0));
    back.boot();
    for id in [&over, &running, &waits] {
        assert_eq!(text(&back.job(id).await, "status"), "succeeded");
    }
}

/// Reads the fleet's stream until `wanted` is in it, and returns what came.
async fn stream_until(pod: &World, after: Option<&str>, wanted: &str) -> String {
    let mut request = pod.request(reqwest::Method::GET, "/events");
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let mut text = String::new();
    let reading = async {
        while !text.contains(wanted) {
            let chunk = response.chunk().await.unwrap().expect("the stream goes on");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    tokio::time::timeout(agenticore_tests::PATIENCE, reading)
        .await
        .unwrap_or_else(|_| panic!("{wanted:?} does not come"));
    text
}

#[tokio::test]
async fn the_stream_of_the_fleet_goes_on_at_another_pod_where_it_was() {
    needs_redis!();
    let fleet = Fleet::of(2);
    let (one, two) = (fleet.pod(0), fleet.pod(1));
    let gate = fleet.gate("go");
    let first = tokio::join!(stream_until(one, None, "\"kind\":\"status\""), async {
        one.submit(&fleet.waiting("x", &gate)).await
    });
    let (seen, id) = first;
    assert!(
        seen.contains("event: pods") || seen.contains("event: queue"),
        "{seen}"
    );
    let place = seen
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("id: "))
        .expect("a place");
    gate.open();
    two.ended(&id).await;
    // What was missed meanwhile is told by the other pod, and nothing twice.
    let later = two.submit("true # later").await;
    let rest = stream_until(two, Some(place), &later).await;
    assert!(rest.contains(&id), "the end of the first job: {rest}");
    assert!(!rest.contains("event: reset"), "{rest}");
    let ids: Vec<&str> = rest
        .lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .collect();
    let mut unique = ids.clone();
    unique.dedup();
    assert!(!ids.contains(&place) && unique == ids, "{ids:?}");
    let unknown = stream_until(two, Some("12-0"), "event: reset").await;
    assert!(unknown.contains("event: reset"));
}
