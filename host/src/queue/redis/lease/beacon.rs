//! What the volume hears of the pod.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::queue::guard;
use crate::queue::redis::Inner;
use crate::queue::redis::witness::Counter;

/// Shows on the volume that the pod lives, and does not wait for a volume that hangs.
pub(super) struct Beacon {
    counter: Arc<Mutex<Counter>>,
    /// A count that is on its way, and when it was there.
    writing: Option<JoinHandle<std::io::Result<Instant>>>,
    /// When the volume was written last.
    witnessed: Option<Instant>,
    /// When Redis renewed the lease last: until then nobody had to look at the volume.
    renewed: Option<Instant>,
    /// The longest time that the volume heard nothing since then.
    silence: Duration,
}

impl Beacon {
    pub(super) fn new(inner: &Inner) -> Self {
        Self::of(Counter::new(inner.mirror.dir(), &inner.life))
    }

    fn of(counter: Counter) -> Self {
        Self {
            counter: Arc::new(Mutex::new(counter)),
            writing: None,
            witnessed: None,
            renewed: None,
            silence: Duration::ZERO,
        }
    }

    /// Redis renewed the lease, when it was asked at this time.
    pub(super) fn renewed(&mut self, at: Instant) {
        self.renewed = Some(at);
        self.silence = Duration::ZERO;
    }

    /// Whether neither Redis nor the volume heard of the pod for this long, also where the volume heard nothing for a while only.
    pub(super) fn is_doubtful(&self, most: Duration) -> bool {
        let is_over = |at: Option<Instant>| at.is_none_or(|at| at.elapsed() >= most);
        let was_silent = self.silence >= most || is_over(self.witnessed);
        was_silent && is_over(self.renewed)
    }

    /// Counts on, unless the last count is on its way still.
    pub(super) async fn beat(&mut self) {
        self.settle(Duration::ZERO).await;
        if self.writing.is_none() {
            let counter = self.counter.clone();
            self.writing = Some(tokio::task::spawn_blocking(move || {
                guard(&counter).beat()?;
                Ok(Instant::now())
            }));
        }
    }

    /// Waits for a count that is on its way, and no longer than this.
    pub(super) async fn settle(&mut self, within: Duration) {
        let Some(writing) = &mut self.writing else {
            return;
        };
        let Ok(written) = tokio::time::timeout(within, writing).await else {
            return;
        };
        self.writing = None;
        match written.unwrap_or_else(|error| Err(error.into())) {
            Ok(at) => self.witnessed(at),
            Err(error) => {
                tracing::warn!(%error, "this pod cannot show on the volume that it lives")
            }
        }
    }

    fn witnessed(&mut self, at: Instant) {
        if let Some(before) = self.witnessed.replace(at).max(self.renewed) {
            self.silence = self.silence.max(at.saturating_duration_since(before));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MOST: Duration = Duration::from_secs(60);

    fn beacon() -> (tempfile::TempDir, Beacon) {
        let dir = tempfile::tempdir().unwrap();
        let beacon = Beacon::of(Counter::new(dir.path(), "a"));
        (dir, beacon)
    }

    fn ago(seconds: u64) -> Instant {
        Instant::now()
            .checked_sub(Duration::from_secs(seconds))
            .unwrap()
    }

    #[test]
    fn a_pod_is_doubtful_when_both_heard_nothing_for_long() {
        let (_dir, mut beacon) = beacon();
        assert!(beacon.is_doubtful(MOST), "nobody ever heard of it");
        beacon.renewed(Instant::now());
        assert!(!beacon.is_doubtful(MOST), "Redis did");
        beacon.renewed(ago(120));
        assert!(beacon.is_doubtful(MOST));
        // It slept, and the volume heard of it again only then.
        beacon.witnessed(Instant::now());
        assert!(beacon.is_doubtful(MOST));
    }

    #[test]
    fn the_volume_may_be_silent_as_long_as_redis_hears() {
        let (_dir, mut beacon) = beacon();
        // The volume hung for long while Redis renewed the lease; then it was back, and Redis was gone.
        beacon.witnessed(ago(900));
        beacon.renewed(ago(120));
        for seconds in [90, 45, 0] {
            beacon.witnessed(ago(seconds));
        }
        assert!(!beacon.is_doubtful(MOST), "it was silent before only");
    }

    #[tokio::test]
    async fn a_count_is_written_and_told_once_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pods")).unwrap();
        let mut beacon = Beacon::of(Counter::new(dir.path(), "a"));
        beacon.beat().await;
        beacon.settle(MOST).await;
        assert!(beacon.witnessed.is_some() && beacon.writing.is_none());
        let text = std::fs::read_to_string(dir.path().join("pods/a.beat")).unwrap();
        assert_eq!(text, "1");
    }
}
