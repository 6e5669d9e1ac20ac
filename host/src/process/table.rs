//! The system's table of processes, read from `/proc` (proc(5)).
//!
//! `/proc/PID/task/TID/children` would be quicker but exists only on kernels built with `CONFIG_PROC_CHILDREN`; a pass over
//! `/proc/*/stat` works everywhere and costs about ten microseconds a process.

use std::fs::{self, File};
use std::io::{self, Read};

use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
};

/// Longest environment block that is searched, in bytes. The system's own limit for one is 6 MiB or less.
const MAX_ENVIRONMENT: u64 = 8 * 1024 * 1024;

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) pid: u32,
    /// When it started, in clock ticks since the system did.
    pub(super) started: u64,
}

/// One process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) identity: Identity,
    pub(super) parent: u32,
    pub(super) group: u32,
    /// The state's letter: `Z` and `X` are dead.
    pub(super) state: u8,
}

impl Entry {
    pub(super) fn pid(&self) -> u32 {
        self.identity.pid
    }

    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// All processes, in the order of their pids. The table is read while it is walked, so a process that is started meanwhile is
/// met too if its pid is higher.
pub(super) fn entries() -> impl Iterator<Item = Entry> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|name| name.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(entry)
}

/// One process, if it exists.
pub(super) fn entry(pid: u32) -> Option<Entry> {
    // The kernel writes the line whole, and it is always shorter.
    let mut line = [0; 1024];
    let length = File::open(format!("/proc/{pid}/stat"))
        .and_then(|mut file| file.read(&mut line))
        .ok()?;
    parse(pid, &String::from_utf8_lossy(line.get(..length)?))
}

/// The pid that was given last: the last field of `/proc/loadavg`.
pub(super) fn newest_pid() -> Option<u32> {
    fs::read_to_string("/proc/loadavg")
        .ok()?
        .split_ascii_whitespace()
        .next_back()?
        .parse()
        .ok()
}

/// Kills a process group. The caller has just seen that its leader belongs to it.
pub(super) fn kill_group(leader: u32) -> io::Result<()> {
    let group = as_pid(leader).ok_or(io::ErrorKind::NotFound)?;
    Ok(kill_process_group(group, Signal::KILL)?)
}

/// `PID (NAME) STATE PPID PGRP ...`, where the name may hold anything, even parentheses; field 22 is the start time.
fn parse(pid: u32, stat: &str) -> Option<Entry> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let started = fields.nth(16)?.parse().ok()?;
    Some(Entry {
        identity: Identity { pid, started },
        parent,
        group,
        state,
    })
}

/// Whether a variable of the process's environment, as it was when the program started, begins with `prefix`
/// (`NAME=...`). False where the environment cannot be read: a process of another user, or one that gained rights.
pub(super) fn has_variable(pid: u32, prefix: &[u8]) -> bool {
    let mut block = Vec::new();
    let read = File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(MAX_ENVIRONMENT).read_to_end(&mut block));
    read.is_ok()
        && block
            .split(|byte| *byte == 0)
            .any(|variable| variable.starts_with(prefix))
}

/// Sends a signal to exactly this process: never to another one that got its pid meanwhile.
pub(super) fn send(to: Identity, signal: Signal) -> io::Result<()> {
    let pid = as_pid(to.pid).ok_or(io::ErrorKind::NotFound)?;
    let handle = pidfd_open(pid, PidfdFlags::empty());
    if entry(to.pid).is_none_or(|now| now.identity != to) {
        return Err(io::ErrorKind::NotFound.into());
    }
    match handle {
        Ok(handle) => Ok(pidfd_send_signal(handle, signal)?),
        // Some sandboxed kernels have no pidfd; the check above is then as good as it gets.
        Err(rustix::io::Errno::NOSYS) => Ok(kill_process(pid, signal)?),
        Err(error) => Err(error.into()),
    }
}

/// A pid as the system calls take it.
pub(super) fn as_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_cannot_forge_fields() {
        let rest = "S 7 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let entry = parse(5, &format!("5 (a) Z 1 1 (b) {rest}")).unwrap();
        assert_eq!(
            (
                entry.state,
                entry.parent,
                entry.group,
                entry.identity.started
            ),
            (b'S', 7, 8, 4242)
        );
        assert!(parse(5, "5 (torn").is_none());
    }

    #[test]
    fn this_process_is_in_the_table() {
        let me = std::process::id();
        let entry = entries().find(|entry| entry.pid() == me).unwrap();
        assert_eq!(entry.parent, std::os::unix::process::parent_id());
        assert!(!entry.is_dead());
    }
}
