//! What a server costs that has nothing to do.

use std::time::Instant;

use agenticore_tests::{Image, World, resident_memory, server_binary, until};
use anyhow::{Error, Result, bail};

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
        Measure::new(
            "memory of a running job (RSS), the agent's not counted",
            running().await?,
            "MiB",
        )
        .target("<= 1 MiB"),
    ])
}

/// What the server has more in memory for each job that runs and has said something.
async fn running() -> Result<f64> {
    const FEW: u32 = 2;
    const MANY: u32 = 34;
    let world = World::builder()
        .env("AGENTICORE_MAX_PARALLEL_JOBS", &MANY.to_string())
        .start();
    let gate = world.gate("held");
    let task = format!("echo begun; {}", gate.wait());
    let mut ids = Vec::new();
    let mut with = Vec::new();
    for count in [FEW, MANY] {
        while ids.len() < count as usize {
            ids.push(world.submit(&task).await);
        }
        for id in &ids {
            world.logged(id, "begun").await;
        }
        with.push(mebibytes(resident_memory(world.pid())));
    }
    gate.open();
    for id in &ids {
        world.ended(id).await;
    }
    match with.as_slice() {
        [few, many] => Ok((many - few) / f64::from(MANY - FEW)),
        _ => bail!("two looks were taken"),
    }
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
