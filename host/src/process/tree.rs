//! Finds and kills everything that belongs to a job.
//!
//! A process belongs to it if it descends from the job's root, is in the root's process group, carries the job's marker, or was
//! seen to belong before. Killing one by one loses against programs that start new processes meanwhile, so all are stopped
//! first: a stopped process starts nothing. When a pass over the table meets nobody new, or several passes have not helped, they
//! are killed. What runs away from pass to pass, by starting its successor and ending, is hunted where new pids appear.

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
const FREEZING_PASSES: usize = 4;

/// How often in a row nobody must be seen after some ran away from pass to pass.
const LOOKS_AFTER_RUNNERS: usize = 12;

/// How long new pids are watched at a time.
const HUNT: Duration = Duration::from_millis(100);

/// How far around the newest pid they are looked for.
const HUNTING_GROUND: u32 = 24;

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

    /// Whoever carries the marker of any job of this server.
    pub(super) fn of_instance(instance: &Instance) -> Self {
        Self::marked(instance.prefix())
    }

    /// Whoever has a variable that begins like this in its environment.
    pub(super) fn marked(marker: Vec<u8>) -> Self {
        Self::new(None, marker)
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
        let (mut empty, mut enough) = (0, 1);
        let mut newest = table::newest_pid();
        for round in 0.. {
            let (living, at_rest) = self.freeze();
            empty = if living.is_empty() { empty + 1 } else { 0 };
            // Once there was somebody, one look is not enough: a runner may have slipped through it, and one that runs from pass to
            // pass slips through many.
            enough = match (at_rest, living.is_empty()) {
                (false, _) => LOOKS_AFTER_RUNNERS,
                (true, false) => enough.max(2),
                (true, true) => enough,
            };
            if empty >= enough {
                break;
            }
            for identity in &living {
                self.strike(*identity, &mut killed);
            }
            // Passes can miss a runner for long. Where somebody was killed and new processes still appear, whoever they are, one may
            // be among them.
            let newest_now = table::newest_pid();
            let appear = !killed.is_empty() && newest_now != newest;
            newest = newest_now;
            if !at_rest || (round > 1 && !living.is_empty()) || (living.is_empty() && appear) {
                let before = killed.len();
                self.hunt(&mut killed);
                if killed.len() > before {
                    (empty, enough) = (0, LOOKS_AFTER_RUNNERS);
                }
            }
            if Instant::now() > deadline {
                let survivors = self.living();
                return KillReport {
                    killed: killed.len(),
                    survivors,
                };
            }
            sleep(Duration::from_millis(1 << round.min(5)));
        }
        KillReport {
            killed: killed.len(),
            survivors: Vec::new(),
        }
    }

    /// Stops all, and gives back those that live and whether the last pass met nobody new.
    fn freeze(&mut self) -> (Vec<Identity>, bool) {
        let mut living = Vec::new();
        for _ in 0..FREEZING_PASSES {
            living.clear();
            let mut news = false;
            for entry in table::entries() {
                if !self.belongs(&entry) {
                    continue;
                }
                living.push(entry.identity);
                news |= self.know(entry.identity);
                if !matches!(entry.state, b'T' | b't') {
                    // It may be gone, which is as good.
                    let _ = table::send(entry.identity, Signal::STOP);
                }
            }
            if !news {
                return (living, true);
            }
        }
        (living, false)
    }

    /// Kills whoever belongs and shows up among the newest pids.
    fn hunt(&mut self, killed: &mut BTreeSet<Identity>) {
        let end = Instant::now() + HUNT;
        while Instant::now() < end {
            let Some(newest) = table::newest_pid() else {
                return;
            };
            for pid in newest.saturating_sub(HUNTING_GROUND)..newest + HUNTING_GROUND {
                if let Some(entry) = table::entry(pid)
                    && self.belongs(&entry)
                {
                    self.know(entry.identity);
                    self.strike(entry.identity, killed);
                }
            }
        }
    }

    /// Kills one, with its group if it leads one: a child that it has just started is still in there.
    fn strike(&self, identity: Identity, killed: &mut BTreeSet<Identity>) {
        let leads = |entry: Entry| {
            entry.identity == identity
                && entry.group == identity.pid
                && Some(entry.group) != self.own_group
        };
        let group = table::entry(identity.pid).is_some_and(leads)
            && table::kill_group(identity.pid).is_ok();
        if table::send(identity, Signal::KILL).is_ok() || group {
            killed.insert(identity);
        }
    }

    /// Remembers one that belongs. Says whether it is new.
    fn know(&mut self, identity: Identity) -> bool {
        self.known.insert(identity.pid, identity.started) != Some(identity.started)
    }

    /// Those that live now, without touching them.
    fn living(&mut self) -> Vec<u32> {
        let mut living = Vec::new();
        for entry in table::entries() {
            if self.belongs(&entry) {
                self.know(entry.identity);
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
    let mut tree = Tree::marked(marker.prefix());
    spawn_blocking(move || tree.living())
        .await
        .unwrap_or_default()
}

/// Kills every process that a former server of this instance left behind, such as one that was killed itself. Call it at start,
/// before the first job runs: it cannot tell its own children from those.
pub async fn sweep_stale(instance: &Instance) -> KillReport {
    let mut tree = Tree::of_instance(instance);
    spawn_blocking(move || tree.kill())
        .await
        .unwrap_or_default()
}
