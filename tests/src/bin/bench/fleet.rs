//! The store of a fleet, beside what the same Redis can do at all in the same run.
//!
//! No agent and no server: the rows call the store as a server does, so they measure its scripts and round trips. The copies on the
//! volume go to a temporary folder.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agenticore::git::UrlPolicy;
use agenticore::job::{EventBody, Job, JobId, LogStream, Outcome, RequestBody, RequestPolicy};
use agenticore::queue::redis::{Address, RedisStore, Settings};
use agenticore::queue::{Claim, Queue};
use agenticore_tests::{Fleet, Redis, until};
use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use redis::aio::MultiplexedConnection;

use crate::load::Times;
use crate::peers::Figures;
use crate::report::Measure;

/// How many submitters and executors work at once where there are many.
pub(crate) const MANY: usize = 50;
const JOBS: usize = 5_000;
/// The prefix of the keys.
const PREFIX: &str = "bench";

/// A Redis, a folder, and stores over them.
struct Bench {
    redis: Redis,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Result<Self> {
        ensure!(Redis::is_installed("bench"), "redis-server is needed");
        Ok(Self {
            redis: Redis::start(),
            folder: tempfile::tempdir()?,
        })
    }

    async fn pod(&self, name: &str, slots: usize) -> Result<RedisStore> {
        let settings = Settings {
            address: Address::plain(self.redis.url()),
            prefix: PREFIX.into(),
            jobs_dir: self.folder.path().to_owned(),
            shared: true,
            pod: name.parse().context("a pod's name")?,
            slots,
            lease: Duration::from_secs(8),
        };
        Ok(RedisStore::open(settings).await?)
    }

    async fn connection(&self) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(self.redis.url())?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    /// `PING`s a second from `clients` connections, one after the other each.
    async fn round_trips(&self, clients: usize) -> Result<f64> {
        const EACH: usize = 4_000;
        let mut connections = Vec::new();
        for _ in 0..clients {
            connections.push(self.connection().await?);
        }
        let each = EACH * 4 / clients.max(4);
        let started = Instant::now();
        let pings = connections.into_iter().map(|mut connection| async move {
            for _ in 0..each {
                let _: String = redis::cmd("PING").query_async(&mut connection).await?;
            }
            Ok::<(), redis::RedisError>(())
        });
        // Each client has a task of its own, as a server has.
        try_join_all(pings.map(tokio::spawn)).await?;
        Ok(per_second(each * clients, started))
    }
}

/// How many bytes a Redis uses.
pub(crate) fn memory(redis: &Redis) -> Result<f64> {
    let text: String = redis.ask(&["INFO", "memory"]);
    let line = text.lines().find_map(|l| l.strip_prefix("used_memory:"));
    let bytes = line.context("used_memory")?.trim();
    bytes.parse().context("a number")
}

/// How often each command was called since the last look, the benchmark's own left out.
fn commands(redis: &Redis) -> HashMap<String, u64> {
    let text: String = redis.ask(&["INFO", "commandstats"]);
    redis.ask::<()>(&["CONFIG", "RESETSTAT"]);
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls = rest.split(',').next()?.parse().ok()?;
            Some((name.to_owned(), calls))
        })
        .collect()
}

/// All commands, and those among them that a pod sends: the rest runs in scripts.
fn counted(commands: &HashMap<String, u64>) -> (f64, f64) {
    let is_call =
        |name: &str| name.starts_with("eval") || matches!(name, "blmove" | "xread" | "xrange");
    let sum = |calls: &mut dyn Iterator<Item = &u64>| {
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let sum = calls.sum::<u64>() as f64;
        sum
    };
    let calls = commands.iter().filter(|(name, _)| is_call(name));
    (
        sum(&mut commands.values()),
        sum(&mut calls.map(|(_, calls)| calls)),
    )
}

fn job(task: &str) -> Result<Job> {
    let policy = RequestPolicy {
        urls: UrlPolicy { allow_file: false },
        default_profile: "code".parse().context("a profile's name")?,
        ttl_seconds: 3_600,
    };
    let body = RequestBody {
        task: task.to_owned(),
        ..RequestBody::default()
    };
    let request = body.parse(&policy).map_err(|e| anyhow::anyhow!("{e:?}"))?;
    Ok(Job::new(JobId::random(), request, Timestamp::now()))
}

/// A task of about 200 bytes.
fn payload(number: usize) -> String {
    format!("{number:06} {}", "a task of two hundred bytes. ".repeat(7))
}

fn per_second(count: usize, since: Instant) -> f64 {
    count_of(count) / since.elapsed().as_secs_f64()
}

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
pub(crate) fn count_of(count: usize) -> f64 {
    count as f64
}

/// Submits `count` jobs from `submitters` tasks; a second's worth.
async fn enqueue(store: &RedisStore, submitters: usize, count: usize) -> Result<f64> {
    let started = Instant::now();
    let tasks = (0..submitters).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in (number..count).step_by(submitters) {
                store.submit(job(&payload(n))?).await?;
            }
            Ok::<(), anyhow::Error>(())
        })
    });
    for done in try_join_all(tasks).await? {
        done?;
    }
    Ok(per_second(count, started))
}

/// Claims and ends `count` jobs in `executors` tasks.
async fn execute(store: &RedisStore, executors: usize, count: usize) -> Result<()> {
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(count));
    let tasks = (0..executors).map(|_| {
        let (store, left) = (store.clone(), left.clone());
        tokio::spawn(async move {
            let take = |left: usize| left.checked_sub(1);
            let order = std::sync::atomic::Ordering::Relaxed;
            while left.fetch_update(order, order, take).is_ok() {
                finish(&store, store.claim(&pod_of("bench-0")?).await?).await?;
            }
            Ok::<(), anyhow::Error>(())
        })
    });
    for done in try_join_all(tasks).await? {
        done?;
    }
    Ok(())
}

/// What a run of nothing tells the store: its end, and the event that came before it.
async fn finish(store: &RedisStore, claim: Claim) -> Result<()> {
    let said = EventBody::Log {
        stream: LogStream::Agent,
        text: "done".into(),
    };
    store.confirm(&claim.lease).await?;
    let (lease, run) = (&claim.lease, &claim.job.run);
    store
        .finish(lease, run, Outcome::Succeeded, vec![said])
        .await?;
    Ok(())
}

/// Submits and ends [`JOBS`] jobs at the same time; a second's worth.
async fn end_to_end(store: &RedisStore) -> Result<f64> {
    let started = Instant::now();
    let (accepted, done) = tokio::join!(enqueue(store, MANY, JOBS), execute(store, MANY, JOBS));
    accepted?;
    done?;
    Ok(per_second(JOBS, started))
}

/// What [`crate::peers`] measures of other queues, of this store.
pub(crate) async fn own() -> Result<Figures> {
    let bench = Bench::new()?;
    let store = bench.pod("bench-0", MANY).await?;
    enqueue(&store, 1, 50).await?;
    execute(&store, 10, 50).await?;
    let before = memory(&bench.redis)?;
    let enqueued = enqueue(&store, 1, JOBS).await?;
    let bytes = (memory(&bench.redis)? - before) / count_of(JOBS);
    execute(&store, MANY, JOBS).await?;
    let through = end_to_end(&store).await?;
    let mut pickups = timed_pickups().await?;
    Ok(Figures {
        enqueued,
        through,
        bytes,
        pickup: (
            pickups.with_submission.quantile(0.5)?,
            pickups.with_submission.quantile(0.99)?,
        ),
    })
}

/// How many jobs are accepted and get through, and what each costs Redis.
pub(crate) async fn throughput() -> Result<Vec<Measure>> {
    let bench = Bench::new()?;
    let single = bench.round_trips(1).await?;
    let fifty = bench.round_trips(MANY).await?;
    let store = bench.pod("bench-0", MANY).await?;
    // Compiled scripts and warm connections.
    enqueue(&store, 1, 50).await?;
    execute(&store, 10, 50).await?;

    let before = memory(&bench.redis)?;
    let one = enqueue(&store, 1, JOBS / 5).await?;
    let bytes = (memory(&bench.redis)? - before) / count_of(JOBS / 5);
    execute(&store, MANY, JOBS / 5).await?;
    let many = enqueue(&store, MANY, JOBS).await?;
    execute(&store, MANY, JOBS).await?;

    commands(&bench.redis);
    let through = end_to_end(&store).await?;
    let (all, calls) = counted(&commands(&bench.redis));
    let (all, calls) = (all / count_of(JOBS), calls / count_of(JOBS));

    let raw = "50 clients of the same Redis";
    Ok(vec![
        Measure::new("raw round trips, one client", single, "/s"),
        Measure::new("raw round trips, 50 clients", fifty, "/s"),
        Measure::new("jobs enqueued, one submitter", one, "/s")
            .beside(single, "one client of the same Redis")
            .target(">= 0.5 x"),
        Measure::new("jobs enqueued, 50 submitters", many, "/s")
            .beside(fifty, raw)
            .target(">= 0.3 x"),
        Measure::new("no-op jobs end to end", through, "/s")
            .beside(fifty, raw)
            .target(">= 0.4 x"),
        Measure::new("calls of Redis per job", calls, "").target("<= 5 round trips"),
        Measure::new("commands in Redis per job, those in scripts too", all, ""),
        Measure::new("memory per queued job", bytes, "B").target("<= 1229 B"),
    ])
}

/// How soon a pod that waits has a job.
#[derive(Default)]
struct Pickups {
    /// From the moment the job is accepted.
    accepted: Times,
    /// From the begin of its submission.
    with_submission: Times,
    /// One round trip to the same Redis.
    floor: Times,
}

async fn timed_pickups() -> Result<Pickups> {
    const WARM: usize = 30;
    const TIMED: usize = 500;
    let bench = Bench::new()?;
    let store = bench.pod("bench-0", 4).await?;
    let submitter = bench.pod("submitter", 0).await?;
    let mut pickups = Pickups::default();
    let mut connection = bench.connection().await?;
    for number in 0..WARM + TIMED {
        let waits = {
            let store = store.clone();
            tokio::spawn(async move {
                let claim = store.claim(&pod_of("bench-0")?).await?;
                Ok::<_, anyhow::Error>((claim, Instant::now()))
            })
        };
        // The claim waits in Redis before the job comes.
        tokio::time::sleep(Duration::from_millis(4)).await;
        let begun = Instant::now();
        submitter.submit(job(&payload(number))?).await?;
        let accepted = Instant::now();
        let (claim, at) = waits.await??;
        finish(&store, claim).await?;
        let started = Instant::now();
        let _: String = redis::cmd("PING").query_async(&mut connection).await?;
        if number >= WARM {
            let since = |earlier| at.saturating_duration_since(earlier);
            pickups.accepted.add(since(accepted));
            pickups.with_submission.add(since(begun));
            pickups.floor.add(started.elapsed());
        }
    }
    Ok(pickups)
}

/// From a submission to the claim of a pod that waits for it.
pub(crate) async fn pickup() -> Result<Vec<Measure>> {
    let Pickups {
        mut accepted,
        mut with_submission,
        mut floor,
    } = timed_pickups().await?;
    let beside = "one round trip";
    let mut row = Vec::new();
    for (share, name, target) in [(0.5, "p50", "<= 0.5 ms"), (0.99, "p99", "<= 1.5 ms")] {
        let what = format!("accepted to claimed by an idle pod, {name}");
        row.push(
            Measure::new(what, accepted.quantile(share)?, "ms")
                .beside(floor.quantile(share)?, beside)
                .target(target),
        );
        let what = format!("the same with the submission, {name}");
        row.push(Measure::new(what, with_submission.quantile(share)?, "ms"));
    }
    Ok(row)
}

fn pod_of(name: &str) -> Result<agenticore::job::PodName> {
    name.parse().context("a pod's name")
}

/// From kill -9 of a pod to the start of its job on another, and what an idle pod costs.
pub(crate) async fn recovery() -> Result<Vec<Measure>> {
    ensure!(Redis::is_installed("bench"), "redis-server is needed");
    let mut fleet = Fleet::start(2, Redis::start(), |_, builder| {
        builder.env("AGENTICORE_LEASE_SECONDS", "8")
    });
    const IDLE: Duration = Duration::from_secs(20);
    commands(&fleet.redis);
    tokio::time::sleep(IDLE).await;
    let (all, calls) = counted(&commands(&fleet.redis));
    let a_second = |count: f64| count / IDLE.as_secs_f64() / count_of(fleet.len());
    let (all, calls) = (a_second(all), a_second(calls));

    let script = fleet.ledger().script(4_000);
    let mut times = Times::default();
    for _ in 0..3 {
        let id = fleet.pod(0).submit(&script).await;
        let record = until("the job runs", || async {
            let job = fleet.pod(0).job(&id).await;
            let runs = job.get("pid").is_some_and(|pid| pid.as_u64() > Some(0));
            runs.then_some(job)
        })
        .await;
        let first = Fleet::number_of(&record).context("the job's pod")?;
        let second = (first + 1) % fleet.len();
        let killed = Instant::now();
        fleet.pod_mut(first).kill_pod();
        until("the job runs on the other pod", || async {
            let job = fleet.pod(second).job(&id).await;
            let moved = Fleet::number_of(&job) == Some(second);
            let runs = job.get("pid").is_some_and(|pid| pid.as_u64() > Some(0));
            (moved && runs).then_some(())
        })
        .await;
        times.add(killed.elapsed());
        fleet.pod(second).delete(&format!("/jobs/{id}")).await;
        fleet.pod(second).ended(&id).await;
        fleet.pod_mut(first).boot();
    }
    Ok(vec![
        Measure::new(
            "kill -9 to the job running elsewhere, worst of 3",
            times.quantile(1.0)? / 1_000.0,
            "s",
        )
        .target("<= 10 s with a lease of 8 s"),
        Measure::new("calls of Redis by an idle pod", calls, "/s")
            .target("<= 1 /s and a blocking one"),
        Measure::new("commands of an idle pod, those in scripts too", all, "/s"),
    ])
}
