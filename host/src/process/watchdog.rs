//! Ends what a server started when the server is killed and nothing else does it.
//!
//! In a container everything ends with its first process. Elsewhere, agents outlive a killed server until the same server starts
//! again; in a fleet another pod runs their jobs by then. So a server of a fleet has a child that waits for its end: the pipe
//! between them closes, however the server ends.

use std::io::{self, Read};
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::marker::Instance;
use super::registry::{self, Registration};
use super::tree::{KillReport, Tree};

/// The name of the variable that marks a watchdog; its value is the server's instance. The marker of jobs would not do: a watchdog
/// belongs to none, and must not be killed with one.
const VARIABLE: &str = "AGENTICORE_WATCHDOG";

/// The watchdog of this server. Dropped, as at an orderly end, it looks around once and ends.
#[derive(Debug)]
pub struct Watchdog {
    _child: Child,
    _registration: Registration,
}

/// Starts the watchdog of the server `instance`: this program again, with these arguments, which are to lead to [`watch`]. Call it
/// before the first job runs; one of an earlier life of the server, which would take this one's agents for its own, is ended.
///
/// # Errors
/// When it cannot be started.
pub fn start(instance: &Instance, arguments: &[&str]) -> io::Result<Watchdog> {
    Tree::marked(format!("{VARIABLE}={instance}").into_bytes()).kill();
    let mut command = Command::new("/proc/self/exe");
    // In a group of its own, so that Ctrl-C on a terminal does not reach it; and in no folder that somebody may want to unmount.
    command
        .args(arguments)
        .current_dir("/")
        .env_clear()
        .env(VARIABLE, instance.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0);
    let (child, registration) = registry::spawn(&mut command)?;
    Ok(Watchdog {
        _child: child,
        _registration: registration,
    })
}

/// Waits until the other end of standard input is closed, then kills what still carries the marker of the server `instance`. Blocks.
#[must_use]
pub fn watch(instance: &Instance) -> KillReport {
    // Nothing is ever sent; an error is an end, too.
    let _ = io::stdin().lock().read_to_end(&mut Vec::new());
    Tree::of_instance(instance).kill()
}
