//! The second witness of a pod's life: a counter on the shared volume.
//!
//! Redis alone cannot tell a dead pod from one whose network is cut. A pod that lost Redis and still counts on the volume keeps its
//! jobs: nobody takes them while its counter moves. A pod that can do neither knows that others may take its jobs, and kills its
//! agents. Counters are compared with what was read before, by the reader's own clock; clocks of machines are never compared.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The counters on one volume.
#[derive(Debug)]
pub(super) struct Witness {
    dir: PathBuf,
    count: u64,
    seen: HashMap<String, (Vec<u8>, Instant)>,
}

impl Witness {
    pub(super) fn new(jobs_dir: &Path) -> Self {
        Self {
            dir: jobs_dir.join("pods"),
            count: 0,
            seen: HashMap::new(),
        }
    }

    fn path(&self, life: &str) -> PathBuf {
        self.dir.join(format!("{life}.beat"))
    }

    /// Counts on.
    pub(super) fn beat(&mut self, life: &str) -> std::io::Result<()> {
        self.count += 1;
        // In place: a reader that meets half a number sees a change, which is the truth.
        fs::write(self.path(life), self.count.to_string())
    }

    /// Looks at the counters of others.
    pub(super) fn look(&mut self, lives: impl IntoIterator<Item = String>) {
        let now = Instant::now();
        let mut seen = HashMap::new();
        for life in lives {
            if seen.contains_key(&life) {
                continue;
            }
            let Ok(value) = fs::read(self.path(&life)) else {
                continue;
            };
            let entry = match self.seen.remove(&life) {
                Some((old, since)) if old == value => (old, since),
                _ => (value, now),
            };
            seen.insert(life, entry);
        }
        self.seen = seen;
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
        drop(fs::remove_file(self.path(life)));
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
        let (mut pod, mut other) = (Witness::new(dir.path()), Witness::new(dir.path()));
        let lives = || ["a".to_owned()];
        other.look(lives());
        assert!(!other.is_alive("a", Duration::MAX), "there is no counter");
        pod.beat("a").unwrap();
        other.look(lives());
        assert!(other.is_alive("a", Duration::MAX));
        assert!(!other.is_alive("a", Duration::ZERO));
        let since = other.seen.get("a").unwrap().1;
        other.look(lives().into_iter().chain(lives()));
        assert_eq!(other.seen.get("a").unwrap().1, since, "it did not move");
        pod.beat("a").unwrap();
        other.look(lives());
        assert!(other.seen.get("a").unwrap().1 > since);
        other.forget("a");
        other.look(lives());
        assert!(!other.is_alive("a", Duration::MAX));
    }
}
