//! The second witness of a pod's life: a counter on the shared volume.
//!
//! Redis alone cannot tell a dead pod from one whose network is cut. A pod that lost Redis and still counts on the volume keeps its
//! jobs: nobody takes them while its counter moves. A pod that can do neither knows that others may take its jobs, and kills its
//! agents. Counters are compared with what was read before, by the reader's own clock; clocks of machines are never compared.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A life's counter, which shows that it lives.
#[derive(Debug)]
pub(super) struct Counter {
    path: PathBuf,
    count: u64,
}

impl Counter {
    pub(super) fn new(jobs_dir: &Path, life: &str) -> Self {
        Self {
            path: path(jobs_dir, life),
            count: 0,
        }
    }

    /// Counts on. Blocks for as long as the volume does.
    pub(super) fn beat(&mut self) -> std::io::Result<()> {
        self.count += 1;
        // In place: a reader that meets half a number sees a change, which is the truth.
        fs::write(&self.path, self.count.to_string())
    }

    /// Shows no more that the life goes on.
    pub(super) fn remove(&self) {
        drop(fs::remove_file(&self.path));
    }
}

fn path(jobs_dir: &Path, life: &str) -> PathBuf {
    jobs_dir.join("pods").join(format!("{life}.beat"))
}

/// What this pod saw of the counters of others.
#[derive(Debug, Default)]
pub(super) struct Witness {
    jobs_dir: PathBuf,
    seen: HashMap<String, (Vec<u8>, Instant)>,
}

impl Witness {
    pub(super) fn new(jobs_dir: &Path) -> Self {
        Self {
            jobs_dir: jobs_dir.to_owned(),
            seen: HashMap::new(),
        }
    }

    /// Looks at the counters of these lives, and at no others from now on.
    pub(super) fn look(&mut self, lives: impl IntoIterator<Item = String>) {
        let lives: HashSet<String> = lives.into_iter().collect();
        self.seen.retain(|life, _| lives.contains(life));
        for life in lives {
            self.look_at(&life);
        }
    }

    /// Looks at the counter of one life.
    pub(super) fn look_at(&mut self, life: &str) {
        let Ok(value) = fs::read(path(&self.jobs_dir, life)) else {
            self.seen.remove(life);
            return;
        };
        match self.seen.get(life) {
            Some((old, _)) if *old == value => {}
            _ => drop(self.seen.insert(life.to_owned(), (value, Instant::now()))),
        }
    }

    /// Whether a life's counter moved within the last `lease`.
    pub(super) fn is_alive(&self, life: &str, lease: Duration) -> bool {
        self.seen
            .get(life)
            .is_some_and(|(_, since)| since.elapsed() < lease)
    }

    /// Forgets a life that is over.
    pub(super) fn forget(&mut self, life: &str) {
        self.seen.remove(life);
        drop(fs::remove_file(path(&self.jobs_dir, life)));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_counter_that_moves_is_a_pod_that_lives() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pods")).unwrap();
        let (mut pod, mut other) = (Counter::new(dir.path(), "a"), Witness::new(dir.path()));
        let lives = || ["a".to_owned()];
        other.look(lives());
        assert!(!other.is_alive("a", Duration::MAX), "there is no counter");
        pod.beat().unwrap();
        other.look(lives());
        assert!(other.is_alive("a", Duration::MAX));
        assert!(!other.is_alive("a", Duration::ZERO));
        let since = other.seen.get("a").unwrap().1;
        other.look(lives().into_iter().chain(lives()));
        assert_eq!(other.seen.get("a").unwrap().1, since, "it did not move");
        pod.beat().unwrap();
        other.look(lives());
        assert!(other.seen.get("a").unwrap().1 > since);
        other.forget("a");
        other.look(lives());
        assert!(!other.is_alive("a", Duration::MAX));
    }
}
