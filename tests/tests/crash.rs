//! Kill -9 in the middle of everything: nothing that was accepted is lost, nothing runs twice at once, no event is lost or repeated.

use std::collections::BTreeMap;

use agenticore_tests::{Repo, World, is_alive, until};
use serde_json::{Value, json};

use crate::{field, number, text};

/// When, in the life of the job that is looked at, the server is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// As soon as the job is accepted.
    Accepted,
    /// Once this stage is seen to begin.
    Stage(&'static str),
    /// Once its agent has printed something.
    Output,
    /// As soon as its `end` is seen.
    End,
}

const MOMENTS: [Moment; 6] = [
    Moment::Accepted,
    Moment::Stage("clone"),
    Moment::Stage("materialize"),
    Moment::Stage("agent_run"),
    Moment::Output,
    Moment::End,
];

/// A task that tells of itself in files: a line for each start, and `overlaps` when an earlier attempt of it still lives.
fn witness(world: &World, name: &str, then: &str) -> String {
    let folder = world.path("gates");
    // A zombie does not live: who inherits it may take its time to bury it.
    format!(
        "for old in $(cat '{0}/{name}.runs' 2>/dev/null); do \
           case $(sed -n 's/^State:[[:space:]]*//p' /proc/$old/status 2>/dev/null) in \
             ''|Z*|X*) ;; *) cat /proc/$old/status >> '{0}/overlaps' ;; \
           esac; \
         done; \
         echo $$ >> '{0}/{name}.runs'; echo start of {name}; {then}; echo end of {name}",
        folder.display()
    )
}

async fn wait_for(world: &World, id: &str, moment: Moment) {
    match moment {
        Moment::Accepted => {}
        Moment::Stage(stage) => {
            world
                .event(id, stage, |event| text(event, "stage") == stage)
                .await;
        }
        Moment::Output => world.logged(id, "start of").await,
        Moment::End => {
            world
                .event(id, "the end", |event| text(event, "type") == "end")
                .await;
        }
    }
}

/// What must hold for every job, whatever happened.
async fn assert_sound(world: &World, id: &str, before: &[Value]) {
    let job = world.ended(id).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
    let events = world.events(id).await;
    let seqs: Vec<u64> = events.iter().map(|event| number(event, "seq")).collect();
    let expected: Vec<u64> = (1..=events.len() as u64).collect();
    assert_eq!(seqs, expected, "event ids of {id}");
    assert_eq!(
        events.get(..before.len()),
        Some(before),
        "what a reader saw before the kill is still so"
    );
    let ends = events
        .iter()
        .filter(|event| text(event, "type") == "end")
        .count();
    assert_eq!(ends, 1, "one end: {events:?}");
    assert_eq!(text(events.last().unwrap(), "type"), "end");
}

#[tokio::test]
async fn no_accepted_job_is_lost_whenever_the_server_is_killed() {
    let mut world = World::builder()
        .env("AGENTICORE_MAX_PARALLEL_JOBS", "2")
        .start();
    let repo = Repo::create(world.path("remote"));
    for (round, moment) in MOMENTS.into_iter().enumerate() {
        // The first can be held, two others end when they like, and the rest waits in the queue.
        let gate = world.gate(&format!("round-{round}"));
        let held = matches!(moment, Moment::Output | Moment::Stage("agent_run"));
        let then = if held { gate.wait() } else { "true".to_owned() };
        let mut jobs = BTreeMap::new();
        let first = witness(&world, &format!("r{round}-first"), &then);
        let body = json!({"task": first, "profile": "shell", "repo_url": repo.url()});
        let first = world.submit_body(&body).await;
        for number in 0..4 {
            let name = format!("r{round}-{number}");
            jobs.insert(
                world.submit(&witness(&world, &name, "sleep 0.05")).await,
                name,
            );
        }
        wait_for(&world, &first, moment).await;
        let seen = world.events(&first).await;
        world.kill9();

        world.boot();
        gate.open();
        assert_sound(&world, &first, &seen).await;
        let attempt = number(&world.job(&first).await, "attempt");
        match moment {
            Moment::End => assert_eq!(attempt, 1, "a job that is over does not run again"),
            _ if held => assert_eq!(attempt, 2, "{moment:?}: an interrupted job runs again"),
            _ => assert!((1..=2).contains(&attempt), "{moment:?}: {attempt} attempts"),
        }
        for (id, name) in &jobs {
            assert_sound(&world, id, &[]).await;
            assert!(
                !world.read(&format!("gates/{name}.runs")).is_empty(),
                "{name} never ran"
            );
        }
        assert_eq!(
            world.jobs().await.len(),
            (round + 1) * 5,
            "after {moment:?}"
        );
    }
    assert_eq!(
        world.read("gates/overlaps"),
        "",
        "an old agent lived beside the new one"
    );
}

#[tokio::test]
async fn an_interrupted_job_says_so_and_starts_after_its_old_agent_is_dead() {
    let mut world = World::start();
    let gate = world.gate("second");
    // The first attempt ignores the signals of a gentle stop and has a child in a session of its own.
    let then = format!(
        "setsid sh -c 'trap \"\" TERM INT HUP; echo $$ >> \"{0}\"; sleep 1000' & trap '' TERM INT HUP; \
         if [ $(wc -l < '{1}') = 1 ]; then sleep 1000; fi; {2}; kill -9 $!",
        world.path("gates/daemons").display(),
        world.path("gates/job.runs").display(),
        gate.wait()
    );
    let id = world.submit(&witness(&world, "job", &then)).await;
    world.logged(&id, "start of job").await;
    let seen = world.events(&id).await;
    world.kill9();
    world.boot();
    gate.open();
    assert_sound(&world, &id, &seen).await;
    assert_eq!(world.read("gates/overlaps"), "");
    let job = world.job(&id).await;
    assert_eq!(number(&job, "attempt"), 2);
    let events = world.events(&id).await;
    let requeued = events
        .iter()
        .find(|event| text(event, "reason") == "reclaimed");
    assert!(
        requeued.is_some(),
        "the stream says that the job was reclaimed: {events:?}"
    );
    for pid in world.read("gates/daemons").lines() {
        assert!(
            !is_alive(pid.parse().unwrap()),
            "{pid} of the first attempt lives"
        );
    }
}

#[tokio::test]
async fn a_job_that_kills_its_server_again_and_again_is_given_up() {
    let mut world = World::start();
    let id = world.submit(&witness(&world, "deadly", "sleep 1000")).await;
    for attempt in 1..=2 {
        until("the agent runs", || async {
            let runs = world.read("gates/deadly.runs").lines().count();
            (runs == attempt).then_some(())
        })
        .await;
        world.kill9();
        world.boot();
    }
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "failed", "{job}");
    assert_eq!(text(field(&job, "failure"), "class"), "lost", "{job}");
    assert!(!text(field(&job, "failure"), "remedy").is_empty(), "{job}");
    assert_eq!(number(&job, "interruptions"), 2, "{job}");
    assert_eq!(
        world.read("gates/deadly.runs").lines().count(),
        2,
        "it runs no third time"
    );
}

#[tokio::test]
async fn a_profile_can_ask_not_to_be_run_again() {
    let mut world = World::builder()
        .profile("once", "extends: shell\non_interrupt: fail\n")
        .start();
    let task = witness(&world, "once", "sleep 1000");
    let id = world
        .submit_body(&json!({"task": task, "profile": "once"}))
        .await;
    world.logged(&id, "start of once").await;
    world.kill9();
    world.boot();
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "failed", "{job}");
    assert_eq!(text(field(&job, "failure"), "class"), "lost", "{job}");
    assert!(!text(field(&job, "failure"), "remedy").is_empty(), "{job}");
    assert_eq!(
        world.read("gates/once.runs").lines().count(),
        1,
        "it ran once"
    );
}

#[tokio::test]
async fn a_torn_record_harms_no_other_job() {
    let mut world = World::start();
    let good = world.submit("echo good").await;
    world.ended(&good).await;
    let bad = world.submit("echo bad").await;
    world.ended(&bad).await;
    let tear = |world: &mut World| {
        world.sigterm();
        world.stopped();
        let record = world.path(&format!("home/.agenticore/jobs/{bad}.json"));
        std::fs::write(record, "{\"id\": \"").unwrap();
        world.boot();
    };
    // What a power cut has torn is mended from the journal of the life before.
    tear(&mut world);
    assert_eq!(text(&world.job(&bad).await, "status"), "succeeded");
    // What was torn later is nowhere else.
    tear(&mut world);
    assert_eq!(text(&world.job(&good).await, "status"), "succeeded");
    let next = world.submit("echo next").await;
    assert_eq!(text(&world.ended(&next).await, "status"), "succeeded");
    assert!(
        world.log().contains(&bad),
        "the damaged record is named:\n{}",
        world.log()
    );
}
