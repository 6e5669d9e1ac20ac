//! The direct children of this process that somebody waits for.
//!
//! It is process-wide because pids are. Every child is started through [`spawn`], so whoever looks at a process can tell one
//! of ours, which its owner reaps, from an orphan that was handed to us, which nobody waits for.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::process::{Child, Command};

static CHILDREN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// A child's place in the registry; dropping it gives the place up. Keep it until the child is reaped.
#[derive(Debug)]
pub(super) struct Registration {
    pid: u32,
}

impl Drop for Registration {
    fn drop(&mut self) {
        children().remove(&self.pid);
    }
}

/// Starts a child and registers it. The lock is held in between, so nobody sees a child of ours that is not registered.
pub(super) fn spawn(command: &mut Command) -> io::Result<(Child, Registration)> {
    let mut children = children();
    let child = command.spawn()?;
    let pid = child.id().unwrap_or_default();
    children.insert(pid);
    Ok((child, Registration { pid }))
}

/// The registered pids; no child can be started or given up while the guard lives.
pub(super) fn children() -> MutexGuard<'static, BTreeSet<u32>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}
