//! Prepares the server process to supervise children.

use std::time::Duration;

use rustix::process::{
    DumpableBehavior, WaitOptions, getpid, set_child_subreaper, set_dumpable_behavior, waitpid,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};

use super::error::InitError;
use super::registry;
use super::table::{self, Entry};

/// How often orphans are reaped at most: many of them often end at once, and one pass serves all.
const REAP_PAUSE: Duration = Duration::from_millis(50);

/// Reaps the orphans that are handed to this process, until it is dropped.
#[derive(Debug)]
pub struct Reaper {
    task: JoinHandle<()>,
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes this process the adoptive parent of its children's orphans and starts to reap them, and keeps other processes of the
/// same user from reading its memory and environment. Call it once at the start of the server, inside the runtime.
///
/// # Errors
/// [`InitError`] where the system refuses.
pub fn init() -> Result<Reaper, InitError> {
    let failed = |what| move |source: std::io::Error| InitError { what, source };
    set_child_subreaper(Some(getpid()))
        .map_err(|e| failed("adopt orphaned processes")(e.into()))?;
    // Children become readable again when they execute their program, so their markers can still be read.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| failed("protect the server's memory")(e.into()))?;
    let ended = signal(SignalKind::child()).map_err(failed("listen for ended children"))?;
    Ok(Reaper {
        task: tokio::spawn(reap_all(ended)),
    })
}

async fn reap_all(mut ended: Signal) {
    loop {
        // A panic in there would be a bug, and the next signal tries again.
        let _ = spawn_blocking(reap).await;
        tokio::time::sleep(REAP_PAUSE).await;
        if ended.recv().await.is_none() {
            return;
        }
    }
}

/// Reaps dead orphans. Waiting for any child would steal the exit of those that the runtime waits for, so only pids that nobody
/// registered are waited for. A child in our own process group was started by someone who does not use this module, such as a
/// library, and is theirs.
fn reap() {
    let me = std::process::id();
    let own_group = table::entry(me).map(|me| me.group);
    let orphan =
        |entry: &Entry| entry.parent == me && entry.is_dead() && Some(entry.group) != own_group;
    for entry in table::entries().filter(orphan) {
        let children = registry::children();
        if !children.contains(&entry.pid()) {
            // It fails if the process is gone, which is what we want.
            let _ = waitpid(table::as_pid(entry.pid()), WaitOptions::NOHANG);
        }
    }
}
