//! Jobs: how soon one starts, and how many get through.

use std::io::Read;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use agenticore_tests::{World, until};
use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::load::{CLIENTS, Times};
use crate::report::Measure;

/// From the request to the agent's first action, beside the same action started directly.
pub(crate) async fn latency() -> Result<Vec<Measure>> {
    const WARM: usize = 20;
    const TIMED: usize = 300;
    let world = World::start();
    let fifo = world.path("fifo");
    let signals = Signals::listen(&fifo).await?;
    let script = format!("echo x > '{}'", fifo.display());

    let (mut ours, mut floor) = (Times::default(), Times::default());
    for number in 0..WARM + TIMED {
        let started = Instant::now();
        let id = world.submit(&script).await;
        let seen = signals.next()?;
        world.ended(&id).await;
        let direct = Instant::now();
        let status = Command::new("sh").args(["-c", &script]).status().await?;
        ensure!(status.success(), "the floor's shell fails: {status}");
        let direct_seen = signals.next()?;
        if number >= WARM {
            ours.add(seen.saturating_duration_since(started));
            floor.add(direct_seen.saturating_duration_since(direct));
        }
    }
    let beside = "the same shell started directly";
    let mut row = Vec::new();
    for (share, name, target) in [(0.5, "p50", "<= 3 ms"), (0.99, "p99", "<= 6 ms")] {
        let (value, base) = (ours.quantile(share)?, floor.quantile(share)?);
        let what = format!("POST to the agent's first action, {name}");
        row.push(
            Measure::new(what, value, "ms")
                .beside(base, beside)
                .target(target),
        );
    }
    Ok(row)
}

/// The first job after a start, beside those after it; compiled plugins are in the cache.
pub(crate) async fn first() -> Result<Vec<Measure>> {
    const STARTS: usize = 9;
    const LATER: usize = 15;
    let mut world = World::start();
    let fifo = world.path("fifo");
    let signals = Signals::listen(&fifo).await?;
    let script = format!("echo x > '{}'", fifo.display());
    let (mut first, mut later, mut more) = (Times::default(), Times::default(), Times::default());
    for _ in 0..STARTS {
        world.sigterm();
        world.stopped();
        world.boot();
        until("the server is ready", || async {
            (world.get("/readyz").await.status == 200).then_some(())
        })
        .await;
        let (mut own, mut of_first) = (Times::default(), Duration::ZERO);
        for number in 0..=LATER {
            let started = Instant::now();
            let id = world.submit(&script).await;
            let took = signals.next()?.saturating_duration_since(started);
            world.ended(&id).await;
            if number == 0 {
                of_first = took;
                first.add(took);
            } else {
                own.add(took);
                later.add(took);
            }
        }
        let usual = Duration::from_secs_f64(own.quantile(0.5)? / 1_000.0);
        more.add(of_first.saturating_sub(usual));
    }
    let (first, later) = (first.quantile(0.5)?, later.quantile(0.5)?);
    Ok(vec![
        Measure::new("first job after a start to its agent, p50", first, "ms")
            .beside(later, "the jobs after it"),
        Measure::new(
            "what it takes more than those, p50",
            more.quantile(0.5)?,
            "ms",
        )
        .target("<= 5 ms"),
    ])
}

/// A named pipe, and when something was written to it.
struct Signals(Receiver<Instant>);

impl Signals {
    async fn listen(fifo: &Path) -> Result<Self> {
        let status = Command::new("mkfifo").arg(fifo).status().await?;
        ensure!(status.success(), "mkfifo fails: {status}");
        // Open for both, so that it never ends and never waits for a writer.
        let mut pipe = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(fifo)?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 2];
            while pipe.read_exact(&mut bytes).is_ok() && sender.send(Instant::now()).is_ok() {}
        });
        Ok(Self(receiver))
    }

    fn next(&self) -> Result<Instant> {
        self.0
            .recv_timeout(Duration::from_secs(60))
            .context("nothing is written to the pipe")
    }
}

/// Trivial jobs end to end, beside starting as many shells without any server.
pub(crate) async fn throughput() -> Result<Vec<Measure>> {
    const JOBS: usize = 1_000;
    const SLOTS: usize = 4;
    let world = World::builder()
        .env("AGENTICORE_MAX_PARALLEL_JOBS", &SLOTS.to_string())
        .start();
    let warm = world.submit("true").await;
    world.ended(&warm).await;

    let started = Instant::now();
    let submitted: Vec<String> = stream::iter(0..JOBS)
        .map(|_| world.submit("true"))
        .buffer_unordered(CLIENTS)
        .collect()
        .await;
    let accepted = per_second(JOBS, started);
    until("every job is over", || async {
        let left = world.get("/jobs?status=queued,running&limit=1").await;
        (left.body.get("count") == Some(&json!(0))).then_some(())
    })
    .await;
    let ours = per_second(JOBS, started);
    for id in submitted.iter().step_by(100) {
        let job = world.job(id).await;
        ensure!(
            job.get("status").and_then(Value::as_str) == Some("succeeded"),
            "{job}"
        );
    }

    let started = Instant::now();
    stream::iter(0..JOBS)
        .map(|_| async {
            let status = Command::new("sh").args(["-c", "true"]).status().await?;
            ensure!(status.success(), "the floor's shell fails: {status}");
            Ok(())
        })
        .buffer_unordered(SLOTS)
        .try_collect::<()>()
        .await?;
    let floor = per_second(JOBS, started);
    Ok(vec![
        Measure::new("fork and exec of a shell, the floor", floor, "/s"),
        Measure::new("jobs end to end", ours, "/s")
            .beside(floor, "the floor")
            .target(">= 5 x the Python server's 82-98 /s"),
        Measure::new("jobs accepted while others run", accepted, "/s"),
    ])
}

fn per_second(count: usize, since: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let count = count as f64;
    count / since.elapsed().as_secs_f64()
}
