//! What a server costs that has nothing to do.

use std::time::Instant;

use agenticore_tests::{Image, World, resident_memory, server_binary, until};
use anyhow::{Error, Result};

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

/// The image with the server alone, as the Dockerfile makes it of the binary that is measured.
pub(crate) async fn image() -> Result<Vec<Measure>> {
    if let Some(reason) = Image::unavailable() {
        eprintln!("skipped image: {reason}");
        return Ok(Vec::new());
    }
    let image = tokio::task::spawn_blocking(|| Image::build(server_binary())).await?;
    let image = image.map_err(Error::msg)?;
    let (all, base) = (mebibytes(image.size), mebibytes(image.base_size));
    let what = "layers of the image, base included";
    Ok(vec![
        Measure::new(what, all, "MiB").beside(base, "the base with git and ssh"),
        Measure::new("layers on top of the base", all - base, "MiB"),
    ])
}

fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}
