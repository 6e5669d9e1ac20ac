//! What a server costs that has nothing to do.

use std::time::Instant;

use agenticore_tests::{World, resident_memory, until};
use anyhow::Result;

use crate::load::Times;
use crate::report::Measure;

/// From exec to the first answer, with the plugin cache that an earlier start left.
pub(crate) async fn start() -> Result<Vec<Measure>> {
    let mut world = World::start();
    until("the server is ready", || async {
        (world.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let mut times = Times::default();
    for _ in 0..11 {
        world.sigterm();
        world.stopped();
        let started = Instant::now();
        world.boot();
        world.get("/health").await;
        times.add(started.elapsed());
    }
    let p50 = times.quantile(0.5)?;
    Ok(vec![
        Measure::new("exec to first 200 on /health, p50", p50, "ms").target("<= 50 ms"),
    ])
}

/// Resident memory with the bundled plugins loaded, before and after a job.
pub(crate) async fn memory() -> Result<Vec<Measure>> {
    let world = World::start();
    until("the server is ready", || async {
        (world.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let idle = mebibytes(resident_memory(world.pid()));
    let id = world.submit("true").await;
    world.ended(&id).await;
    let after = mebibytes(resident_memory(world.pid()));
    Ok(vec![
        Measure::new("idle memory (RSS)", idle, "MiB").target("<= 30 MiB"),
        Measure::new("memory after the first job (RSS)", after, "MiB"),
    ])
}

fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}
