//! Measures job queues over Redis that are written in Rust.
//!
//! ```text
//! peers NAME MODE REDIS_URL COUNT [CONCURRENCY]
//! ```
//!
//! `NAME` is `apalis` or `oxana`. The modes are those of the other programs in the folder above: `enqueue` and
//! `through` print jobs per second, `pickup` prints the median and the 99th percentile in milliseconds.
//!
//! kiomq 0.2.1 is left out. It reads private fields of the Redis client through a pointer, so it crashes with the
//! version of the client that apalis needs, and with the oldest one it takes 63 submissions: each doubles its counter
//! of jobs, which then is too large for Redis.

mod apalis;
mod oxana;
mod peer;

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use peer::{OnJob, Peer, Producer};
use tokio::{
    sync::{
        mpsc::{self, UnboundedReceiver, UnboundedSender},
        oneshot,
    },
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

/// Bytes in the payload of a job.
const PAYLOAD: usize = 200;
/// Jobs that are run and not timed, before those of `pickup`.
const WARM: u64 = 30;
/// The pause before each job of `pickup`, in which the worker becomes idle.
const IDLE: Duration = Duration::from_millis(4);
/// The run fails if no job begins for so long.
const STALLED: Duration = Duration::from_secs(30);
/// The concurrency if none is given.
const CONCURRENCY: u64 = 50;
const USAGE: &str =
    "usage: peers apalis|oxana enqueue|through|pickup REDIS_URL COUNT [CONCURRENCY]";

/// The command line after the name of the peer.
struct Arguments {
    mode: String,
    url: String,
    count: u64,
    concurrency: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = env::args().skip(1);
    let name = words.next().context(USAGE)?;
    let arguments = Arguments {
        mode: words.next().context(USAGE)?,
        url: words.next().context(USAGE)?,
        count: number(&words.next().context(USAGE)?)?,
        concurrency: words.next().map_or(Ok(CONCURRENCY), |word| number(&word))?,
    };
    ensure!(words.next().is_none(), USAGE);
    match name.as_str() {
        "apalis" => run::<apalis::Apalis>(arguments).await,
        "oxana" => run::<oxana::Oxana>(arguments).await,
        _ => bail!("no peer {name:?}; {USAGE}"),
    }
}

/// A whole number above zero.
fn number(word: &str) -> Result<u64> {
    match word.parse() {
        Ok(0) | Err(_) => bail!("{word:?} is not a whole number above zero; {USAGE}"),
        Ok(number) => Ok(number),
    }
}

/// Measures one peer and prints the result.
async fn run<P: Peer>(arguments: Arguments) -> Result<()> {
    let Arguments {
        mode,
        url,
        count,
        concurrency,
    } = arguments;
    match mode.as_str() {
        "enqueue" => {
            let peer = P::connect(&url, 1).await?;
            println!("{}", enqueue(&peer, count).await?);
        }
        "through" => {
            let peer = P::connect(&url, usize::try_from(concurrency)?).await?;
            println!("{}", through(peer, count, concurrency).await?);
        }
        "pickup" => {
            let peer = P::connect(&url, 1).await?;
            let (median, p99) = pickup(peer, count).await?;
            println!("{median} {p99}");
        }
        _ => bail!("no mode {mode:?}; {USAGE}"),
    }
    Ok(())
}

/// What every job carries.
fn payload() -> String {
    "a task of two hundred bytes. "
        .chars()
        .cycle()
        .take(PAYLOAD)
        .collect()
}

/// Jobs per second of one producer, without a worker.
async fn enqueue<P: Peer>(peer: &P, count: u64) -> Result<f64> {
    let mut producer = peer.producer();
    // The first job opens the connection.
    producer.submit(payload()).await?;
    let began = Instant::now();
    for _ in 0..count {
        producer.submit(payload()).await?;
    }
    Ok(rate(count, began.elapsed()))
}

/// Jobs per second from the first submission to the start of the last handler, with `concurrency` producers and a
/// worker that runs as many jobs at once.
async fn through<P: Peer>(peer: P, count: u64, concurrency: u64) -> Result<f64> {
    let mut producer = peer.producer();
    let (sender, receiver) = mpsc::unbounded_channel();
    let begun = AtomicU64::new(0);
    // Only the first and the last job are told, so that the measurement costs the worker next to nothing.
    let mut worker = Worker::start(peer, receiver, move || {
        let number = begun.fetch_add(1, Ordering::Relaxed);
        if number == 0 || number == count {
            tell(&sender);
        }
    });
    // A worker that has run one job is up.
    producer.submit(payload()).await?;
    worker.next().await?;

    let began = Instant::now();
    let mut producers = JoinSet::new();
    for first in 0..concurrency.min(count) {
        let mut producer = producer.clone();
        producers.spawn(async move {
            for _ in (first..count).step_by(usize::try_from(concurrency)?) {
                producer.submit(payload()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(finished) = producers.join_next().await {
        finished??;
    }
    let last = worker.next().await?;
    worker.stop().await?;
    Ok(rate(count, last - began))
}

/// The median and the 99th percentile of the time from the begin of a submission to the begin of its handler, in
/// milliseconds, when the worker has nothing else to do.
async fn pickup<P: Peer>(peer: P, count: u64) -> Result<(f64, f64)> {
    let mut producer = peer.producer();
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut worker = Worker::start(peer, receiver, move || tell(&sender));
    let mut times = Vec::new();
    for number in 0..WARM + count {
        sleep(IDLE).await;
        let payload = payload();
        let began = Instant::now();
        producer.submit(payload).await?;
        let time = worker.next().await? - began;
        if number >= WARM {
            times.push(time);
        }
    }
    worker.stop().await?;
    times.sort_unstable();
    Ok((quantile(&times, 50), quantile(&times, 99)))
}

/// Sends the time. The receiver is gone only when the measurement has failed already.
fn tell(sender: &UnboundedSender<Instant>) {
    let _ = sender.send(Instant::now());
}

/// Jobs per second.
#[expect(clippy::cast_precision_loss, reason = "far fewer jobs than 2^52")]
fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The time at `percent` of the sorted `times`, in milliseconds.
fn quantile(times: &[Duration], percent: usize) -> f64 {
    let index = (times.len().saturating_sub(1) * percent).div_ceil(100);
    times
        .get(index)
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

/// A worker that runs in the background, and the times at which it began jobs.
struct Worker {
    task: JoinHandle<Result<()>>,
    stop: oneshot::Sender<()>,
    begun: UnboundedReceiver<Instant>,
}

impl Worker {
    /// Starts the worker of `peer`, whose handler calls `on_job`.
    fn start<P: Peer>(
        peer: P,
        begun: UnboundedReceiver<Instant>,
        on_job: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let on_job: OnJob = Arc::new(on_job);
        Self {
            task: tokio::spawn(peer.work(on_job, stopped)),
            stop,
            begun,
        }
    }

    /// The next time that the handler told. Fails if the worker ends or nothing comes.
    async fn next(&mut self) -> Result<Instant> {
        let begun = timeout(STALLED, self.begun.recv())
            .await
            .context("the worker has stalled")?;
        // The handler, which has the sender, is gone once the worker has ended.
        let Some(begun) = begun else {
            (&mut self.task).await??;
            bail!("the worker has ended too early");
        };
        Ok(begun)
    }

    /// Lets the worker finish what it has begun.
    async fn stop(self) -> Result<()> {
        // An error says that the worker has ended already.
        let _ = self.stop.send(());
        timeout(STALLED, self.task)
            .await
            .context("the worker does not stop")??
    }
}
