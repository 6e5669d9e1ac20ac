//! Finds and kills everything that belongs to a job.
//!
//! A process belongs to it if it descends from the job's root, is in the root's process group, carries the job's marker, or was
//! seen to belong before. Killing one by one loses against programs that start new processes meanwhile, so all are stopped
//! first: a stopped process starts nothing. Only when a whole pass over the table meets nobody new are they killed.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::spawn_blocking;

use super::marker::{Instance, JobMarker};
use super::registry;
use super::table::{self, Entry, Identity};

/// How long killing may take. More is only needed for processes that hang inside the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

/// The limit on passes that meet somebody new, before they are killed all the same.
const MAX_FREEZING_PASSES: usize = 100;

/// What killing a tree did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KillReport {
    /// How many processes were killed, without the root if it had ended before.
    pub killed: usize,
    /// The pids of those that were still there when patience ran out.
    pub survivors: Vec<u32>,
}

/// A job's processes.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    root: Option<Identity>,
    marker: Vec<u8>,
    /// Those that were seen to belong, by pid.
    known: BTreeMap<u32, u64>,
    /// This process and those above it: never killed, whatever their environment says.
    spared: BTreeSet<u32>,
    /// The group of this process.
    own_group: Option<u32>,
}

impl Tree {
    /// The tree below `root`, and whoever carries the marker of its job.
    pub(super) fn of(root: Identity, marker: &JobMarker) -> Self {
        Self::new(Some(root), marker.prefix())
    }

    fn new(root: Option<Identity>, marker: Vec<u8>) -> Self {
        let me = table::entry(std::process::id());
        let known = root.iter().map(|root| (root.pid, root.started)).collect();
        Self {
            root,
            marker,
            known,
            spared: above(me),
            own_group: me.map(|me| me.group),
        }
    }

    /// Kills them all and waits until they are gone. Blocks; one pass over the table if there is nobody.
    pub(super) fn kill(&mut self) -> KillReport {
        let deadline = Instant::now() + PATIENCE;
        let mut killed = BTreeSet::new();
        let mut pause = Duration::from_millis(1);
        loop {
            let living = self.freeze();
            if living.is_empty() || Instant::now() > deadline {
                let survivors = living.into_iter().map(|identity| identity.pid).collect();
                return KillReport {
                    killed: killed.len(),
                    survivors,
                };
            }
            for identity in living {
                if table::send(identity, Signal::KILL).is_ok() {
                    killed.insert(identity);
                }
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Stops all, pass by pass until one meets nobody new, and gives back those that live.
    fn freeze(&mut self) -> Vec<Identity> {
        let mut living = Vec::new();
        for _ in 0..MAX_FREEZING_PASSES {
            living.clear();
            let mut news = false;
            for entry in table::entries() {
                if !self.belongs(&entry) {
                    continue;
                }
                living.push(entry.identity);
                let new = self.known.insert(entry.pid(), entry.identity.started)
                    != Some(entry.identity.started);
                let root = Some(entry.identity) == self.root;
                if !matches!(entry.state, b'T' | b't')
                    && (new || root)
                    && table::send(entry.identity, Signal::STOP).is_ok()
                {
                    news |= new;
                }
            }
            if !news {
                break;
            }
        }
        living
    }

    /// Those that live now, without touching them.
    fn living(&mut self) -> Vec<u32> {
        let mut living = Vec::new();
        for entry in table::entries() {
            if self.belongs(&entry) {
                self.known.insert(entry.pid(), entry.identity.started);
                living.push(entry.pid());
            }
        }
        living
    }

    fn belongs(&self, entry: &Entry) -> bool {
        if entry.is_dead() || self.spared.contains(&entry.pid()) {
            return false;
        }
        if self.is_known(entry.identity) {
            return true;
        }
        // Nothing that is older than the root can belong to it, which saves reading most environments.
        if self
            .root
            .is_some_and(|root| entry.identity.started < root.started)
        {
            return false;
        }
        self.is_child_of_known(entry)
            || self.is_in_group(entry)
            || table::has_variable(entry.pid(), &self.marker)
            || self.is_stray(entry)
    }

    fn is_known(&self, identity: Identity) -> bool {
        self.known.get(&identity.pid) == Some(&identity.started)
    }

    fn is_child_of_known(&self, entry: &Entry) -> bool {
        self.known.contains_key(&entry.parent)
            && table::entry(entry.parent).is_some_and(|parent| self.is_known(parent.identity))
    }

    /// The root leads its group. A group outlives its leader, and as long as it does no new process gets its number.
    fn is_in_group(&self, entry: &Entry) -> bool {
        let same = |root: Identity| table::entry(root.pid).is_none_or(|now| now.identity == root);
        self.root
            .is_some_and(|root| entry.group == root.pid && same(root))
    }

    /// An orphan that was handed to us and that nobody else can have left behind, because no other child runs.
    fn is_stray(&self, entry: &Entry) -> bool {
        let adopted = entry.parent == std::process::id() && Some(entry.group) != self.own_group;
        self.root
            .is_some_and(|root| adopted && registry::children().iter().all(|pid| *pid == root.pid))
    }
}

/// A process and all its parents.
fn above(mut process: Option<Entry>) -> BTreeSet<u32> {
    let mut above = BTreeSet::new();
    while let Some(entry) = process {
        if !above.insert(entry.pid()) {
            break;
        }
        process = table::entry(entry.parent);
    }
    above
}

/// The pids that still carry the marker of the job.
pub async fn leftovers(marker: &JobMarker) -> Vec<u32> {
    let mut tree = Tree::new(None, marker.prefix());
    spawn_blocking(move || tree.living())
        .await
        .unwrap_or_default()
}

/// Kills every process that a former server of this instance left behind, such as one that was killed itself. Call it at start,
/// before the first job runs: it cannot tell its own children from those.
pub async fn sweep_stale(instance: &Instance) -> KillReport {
    let mut tree = Tree::new(None, instance.prefix());
    spawn_blocking(move || tree.kill())
        .await
        .unwrap_or_default()
}
