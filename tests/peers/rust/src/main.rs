//! `peers NAME MODE REDIS_URL COUNT [CONCURRENCY]`: other queues in Rust under the command line of `tests/peers/README.md`.

mod apalis_peer;
mod oxana_peer;
mod runs;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::runs::Runs;

/// How often a queue that polls looks for jobs while it has none.
const POLL: Duration = Duration::from_millis(10);
/// Jobs before those that are timed.
const WARM: usize = 10;
/// How long jobs are timed one by one.
const ENOUGH: Duration = Duration::from_secs(20);
/// How long nothing may happen before a queue counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A queue.
trait Peer: Clone + Send + Sync + 'static {
    /// Connects to the Redis of this address; a worker of it runs as many jobs at once.
    fn connect(url: &str, concurrency: usize) -> impl Future<Output = Result<Self>> + Send;

    /// Submits a job with this text.
    fn submit(&self, text: String) -> impl Future<Output = Result<()>> + Send;

    /// Runs jobs from now on; each calls [`runs::begun`] and does nothing else.
    fn work(&self) -> impl Future<Output = Result<()>> + Send;
}

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (&[name, mode, url, count], rest) = words
        .split_first_chunk::<4>()
        .context("NAME MODE REDIS_URL COUNT [CONCURRENCY]")
        .map(|(first, rest)| (first, rest))?;
    let count = count.parse().context("COUNT")?;
    let concurrency = rest
        .first()
        .map_or(Ok(50), |word| word.parse())
        .context("CONCURRENCY")?;
    match name {
        "apalis" => measure::<apalis_peer::Apalis>(mode, url, count, concurrency).await?,
        "oxana" => measure::<oxana_peer::Oxana>(mode, url, count, concurrency).await?,
        other => bail!("no peer {other}"),
    }
    // Not every queue stops its worker in good time.
    std::process::exit(0);
}

async fn measure<P: Peer>(mode: &str, url: &str, count: usize, concurrency: usize) -> Result<()> {
    let peer = P::connect(url, concurrency).await?;
    match mode {
        "enqueue" => {
            let began = Instant::now();
            for _ in 0..count {
                peer.submit(payload()).await?;
            }
            println!("{}", rate(count, began));
        }
        "through" => println!("{}", through(&peer, count, concurrency).await?),
        "pickup" => {
            let (p50, p99) = pickup(&peer, count).await?;
            println!("{p50} {p99}");
        }
        other => bail!("no mode {other}"),
    }
    Ok(())
}

async fn through<P: Peer>(peer: &P, count: usize, concurrency: usize) -> Result<f64> {
    let mut runs = Runs::listen();
    peer.work().await?;
    let began = Instant::now();
    let submitters: Vec<_> = (0..concurrency)
        .map(|first| {
            let peer = peer.clone();
            tokio::spawn(async move {
                for _ in (first..count).step_by(concurrency) {
                    peer.submit(payload()).await?;
                }
                Ok::<(), anyhow::Error>(())
            })
        })
        .collect();
    for submitter in submitters {
        submitter.await??;
    }
    for _ in 0..count {
        runs.next(PATIENCE).await?;
    }
    Ok(rate(count, began))
}

async fn pickup<P: Peer>(peer: &P, count: usize) -> Result<(f64, f64)> {
    let mut runs = Runs::listen();
    peer.work().await?;
    let mut taken = Vec::with_capacity(count);
    let started = Instant::now();
    for number in 0..WARM + count {
        // A queue that polls every second would take minutes.
        if started.elapsed() > ENOUGH && taken.len() > 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
        let began = Instant::now();
        peer.submit(payload()).await?;
        let time = runs.next(PATIENCE).await?.saturating_duration_since(began);
        if number >= WARM {
            taken.push(time.as_secs_f64() * 1_000.0);
        }
    }
    ensure!(!taken.is_empty(), "COUNT must be at least 1");
    taken.sort_by(f64::total_cmp);
    let quantile = |share: f64| taken[((taken.len() - 1) as f64 * share).round() as usize];
    Ok((quantile(0.5), quantile(0.99)))
}

fn payload() -> String {
    "a task of two hundred bytes. ".repeat(7)
}

fn rate(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}
