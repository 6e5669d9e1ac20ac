//! Visits to the volume, on threads that may wait for it.
//!
//! Each visit is short and there are several a job, so what a pod pays for is less the files than the threads it wakes. A few go at a time,
//! and whoever comes back takes the next visit along.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::queue::guard;

/// How many visits go at a time: enough for a volume across a network, where each waits for milliseconds.
const MOST: usize = 8;

/// The visits of one pod. Clones are handles to the same.
#[derive(Clone, Default)]
pub(super) struct Visits(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Box<dyn FnOnce() + Send>>,
    threads: usize,
}

impl Visits {
    /// Does this on a thread that may wait; none: it panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        let work = Box::new(move || drop(done.send(work())));
        let is_one_more = {
            let mut state = guard(&self.0);
            state.waiting.push_back(work);
            let is_one_more = state.threads < MOST;
            state.threads += usize::from(is_one_more);
            is_one_more
        };
        if is_one_more {
            let visits = self.clone();
            tokio::task::spawn_blocking(move || while visits.next() {});
        }
        result.await.ok()
    }

    /// Does what waits longest; false: nothing does, and the thread is let go.
    fn next(&self) -> bool {
        let work = {
            let mut state = guard(&self.0);
            let work = state.waiting.pop_front();
            state.threads -= usize::from(work.is_none());
            work
        };
        match work {
            Some(work) => {
                // Whoever waits for it is told; the thread goes on for the others.
                drop(catch_unwind(AssertUnwindSafe(work)));
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_visit_is_made_also_when_some_panic() {
        let visits = Visits::default();
        let many = (0..200).map(|n| {
            let visits = visits.clone();
            tokio::spawn(async move {
                let work = move || if n % 50 == 7 { panic!("a visit") } else { n };
                visits.run(work).await
            })
        });
        for (n, visit) in many.collect::<Vec<_>>().into_iter().enumerate() {
            let made = visit.await.unwrap();
            assert_eq!(made, (n % 50 != 7).then_some(n));
        }
        let state = guard(&visits.0);
        assert_eq!((state.waiting.len(), state.threads <= MOST), (0, true));
    }
}
