//! Requests per second and the latency of lists.

use std::time::{Duration, Instant};

use agenticore_tests::World;
use anyhow::{Result, ensure};
use futures::stream::{self, StreamExt};
use reqwest::Method;
use serde_json::json;

use crate::load::{CLIENTS, Times, per_second};
use crate::report::Measure;

const TIME: Duration = Duration::from_secs(3);

/// Sends a request and reads the answer to its end.
async fn ask(request: reqwest::RequestBuilder) -> Result<()> {
    let response = request.send().await?;
    ensure!(response.status().is_success(), "{}", response.status());
    response.bytes().await?;
    Ok(())
}

/// A server whose slots are taken, so that submitted jobs wait.
async fn busy() -> World {
    let world = World::builder()
        .env("AGENTICORE_MAX_PARALLEL_JOBS", "1")
        .start();
    let gate = world.gate("never");
    let id = world.submit(&format!("echo began; {}", gate.wait())).await;
    world.logged(&id, "began").await;
    world
}

/// Submissions and reads, beside the cheapest request there is.
pub(crate) async fn requests() -> Result<Vec<Measure>> {
    let world = busy().await;
    let body = json!({"task": "true", "profile": "shell"});
    let health = per_second(TIME, || ask(world.request(Method::GET, "/health"))).await?;
    let id = world.submit("true").await;
    let path = format!("/jobs/{id}");
    let get = per_second(TIME, || ask(world.request(Method::GET, &path))).await?;
    let post = per_second(TIME, || {
        ask(world.request(Method::POST, "/jobs").json(&body))
    })
    .await?;
    let beside = "GET /health";
    Ok(vec![
        Measure::new("GET /health, 8 clients", health, "/s"),
        Measure::new("GET /jobs/{id}, 8 clients", get, "/s").beside(health, beside),
        Measure::new("POST /jobs, 8 clients", post, "/s")
            .beside(health, beside)
            .target(">= 2000 /s"),
    ])
}

/// A page of twenty jobs out of a thousand and out of ten thousand.
pub(crate) async fn lists() -> Result<Vec<Measure>> {
    let world = busy().await;
    let mut stored = 1_usize;
    let mut row = Vec::new();
    let mut first = None;
    for wanted in [1_000_usize, 10_000] {
        let missing = wanted - stored;
        stream::iter(0..missing)
            .map(|_| world.submit("true"))
            .buffer_unordered(CLIENTS)
            .for_each(|_| async {})
            .await;
        stored = wanted;
        let mut times = Times::default();
        for _ in 0..200 {
            let started = Instant::now();
            ask(world.request(Method::GET, "/jobs?limit=20")).await?;
            times.add(started.elapsed());
        }
        let p50 = times.quantile(0.5)?;
        let what = format!("GET /jobs?limit=20 of {wanted} jobs, p50");
        let measure = Measure::new(what, p50, "ms").target("<= 2 ms");
        row.push(match first {
            Some(base) => measure.beside(base, "the smaller store; flat is 1"),
            None => measure,
        });
        first.get_or_insert(p50);
    }
    Ok(row)
}
