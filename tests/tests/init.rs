//! The server as process 1 of its container: no other init is there to reap orphans or to hand signals on.

use std::fs;

use agenticore_tests::{World, missing, output_of, until};

use crate::text;

/// Makes the server the first process of a namespace of its own.
const FIRST: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// A server as process 1; none: this machine gives nobody namespaces.
fn first(test: &str) -> Option<World> {
    let mut words: Vec<&str> = FIRST.into();
    if !rustix::process::geteuid().is_root() {
        words.splice(1..1, ["--user", "--map-root-user"]);
    }
    let mut probe = std::process::Command::new(words[0]);
    if let Err(said) = output_of(probe.args(&words[1..]).arg("true")) {
        missing(
            test,
            &format!("there are no process namespaces here: {}", said.trim()),
        );
        return None;
    }
    Some(World::builder().through(&words).start())
}

/// The dead children of a process that nobody has waited for.
fn zombies(parent: u32) -> usize {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let is_dead = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| rest.trim_start().starts_with('Z'))
        })
    };
    children.split_whitespace().filter(is_dead).count()
}

#[tokio::test]
async fn process_1_reaps_what_jobs_orphan() {
    let Some(world) = first("process_1_reaps_what_jobs_orphan") else {
        return;
    };
    let first = fs::read_to_string(format!("/proc/{}/status", world.pid())).unwrap();
    let ids = first
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .unwrap();
    assert_eq!(ids.split_whitespace().next_back(), Some("1"), "{first}");
    // Each shell in the background ends before what it started, in a group and session of its own.
    let gate = world.gate("orphans");
    let id = world
        .submit(&format!(
            "for i in $(seq 50); do (setsid sh -c 'sleep 0.1 & exit 0' &) ; done; echo orphaned; {}",
            gate.wait()
        ))
        .await;
    world.logged(&id, "orphaned").await;
    let sleeps = || {
        let all = fs::read_to_string(format!("/proc/{0}/task/{0}/children", world.pid()))
            .unwrap_or_default();
        all.split_whitespace().count()
    };
    // What is left is the job itself.
    until(
        "the orphans have ended and were reaped while the job runs",
        || async { (zombies(world.pid()) == 0 && sleeps() <= 2).then_some(()) },
    )
    .await;
    gate.open();
    assert_eq!(text(&world.ended(&id).await, "status"), "succeeded");
}

#[tokio::test]
async fn process_1_hands_a_running_job_off_when_the_container_is_stopped() {
    let Some(mut world) = first("process_1_hands_a_running_job_off_when_the_container_is_stopped")
    else {
        return;
    };
    world.stop_in_mid_job().await;
}
