//! Real processes.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::testing;

mod flow;
mod starting;
mod supervising;
mod trees;

/// Set for a test that has a process of its own, to its name.
const ALONE: &str = "AGENTICORE_TEST_ALONE";

fn instance(dir: &TempDir) -> Instance {
    Instance::of(dir.path(), "pod-0")
}

/// A shell that runs `script` in `dir`, marked as job `job`.
fn shell(dir: &TempDir, job: &str, script: &str) -> Spawn {
    Spawn {
        program: "sh".into(),
        arguments: vec!["-c".into(), script.into()],
        env: BTreeMap::from([("PATH".into(), std::env::var_os("PATH").unwrap())]),
        cwd: dir.path().to_owned(),
        stdin: None,
        marker: JobMarker::new(&instance(dir), job, 1),
    }
}

async fn run(spawn: Spawn) -> (Ended, Vec<Line>) {
    let (mut child, mut output) = spawn.start(LineLimits::default()).unwrap();
    let mut lines = Vec::new();
    while let Some(batch) = output.next().await {
        assert!(!batch.is_empty());
        lines.extend(batch);
    }
    (child.wait().await, lines)
}

/// Waits until `holds`.
async fn until(what: &str, holds: impl Fn() -> bool) {
    testing::until(what, async || holds().then_some(())).await;
}

/// The pids that scripts wrote, one a line, into `file`.
fn pids(file: &Path) -> Vec<u32> {
    fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect()
}

fn lives(pid: u32) -> bool {
    table::entry(pid).is_some_and(|entry| !entry.is_dead())
}

/// Runs the calling test again in a process of its own, where it may change what the whole process is. True in there.
fn alone(name: &str) -> bool {
    if std::env::var(ALONE).is_ok_and(|test| test == name) {
        return true;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    let output = again
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ALONE, name)
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    false
}
