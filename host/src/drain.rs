//! Draining: a pod that is about to go claims no more jobs, lets those it runs come to their end, and hands the rest off in time.
//!
//! `agenticore drain` and SIGTERM do the same thing, as often as they like: the shortest time that anybody gave holds. All of it is
//! local to the pod, so it needs no store and works when none answers. What a hand-off is belongs to the pipeline; here is when.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

/// How long before the end of the drain the jobs that still run are handed off: the agent's way to its next tool boundary, its end,
/// and the record.
pub const HAND_OFF_TIME: Duration = Duration::from_secs(30);

/// The longest that a drain may take: a week.
pub const LONGEST_DRAIN: Duration = Duration::from_secs(7 * 86_400);

/// The drain of one pod. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Drain {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// When the drain must be over; none: the pod claims jobs.
    deadline: Option<Instant>,
    /// Whether the pod waits for a job that it would then run.
    claiming: bool,
    /// Jobs that run here.
    running: usize,
    /// Jobs handed off in this drain.
    handed_off: usize,
    /// Cancelled when running jobs must be handed off.
    hand_off: CancellationToken,
    /// When the drain began.
    began: Option<Instant>,
    /// Whether the pod ends for good.
    closed: bool,
}

/// What a drain has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The pod claims jobs.
    Serving,
    /// It claims none, and still runs some.
    Draining,
    /// It claims none and runs none.
    Drained,
}

/// How far a drain is, for those who wait for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DrainStatus {
    /// What it has come to.
    pub phase: Phase,
    /// Jobs that run here.
    pub running: usize,
    /// Jobs handed off since the drain began.
    pub handed_off: usize,
    /// Seconds until the drain must be over; none while the pod serves.
    pub seconds_left: Option<f64>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State::default())),
        }
    }
}

impl Drain {
    /// Begins to drain, to be over in `timeout`. A drain that has begun only ever becomes shorter.
    pub fn begin(&self, timeout: Duration) {
        let now = Instant::now();
        let deadline = now + timeout;
        self.state.send_modify(|state| {
            if state.deadline.is_none() {
                state.handed_off = 0;
                state.began = Some(now);
                tracing::info!(
                    seconds = timeout.as_secs(),
                    "draining: no more jobs are claimed"
                );
            }
            let earlier = state
                .deadline
                .map_or(deadline, |before| before.min(deadline));
            state.deadline = Some(earlier);
        });
    }

    /// Claims jobs again. Jobs that are being handed off are not called back.
    pub fn cancel(&self) {
        self.state.send_modify(|state| {
            if state.deadline.take().is_some() {
                tracing::info!("the drain is cancelled: jobs are claimed again");
            }
            if state.hand_off.is_cancelled() {
                state.hand_off = CancellationToken::new();
            }
        });
    }

    /// Ends the loop that claims, for good.
    pub fn close(&self) {
        self.state.send_modify(|state| state.closed = true);
    }

    /// How far it is.
    #[must_use]
    pub fn status(&self) -> DrainStatus {
        let state = self.state.borrow();
        DrainStatus {
            phase: match state.deadline {
                None => Phase::Serving,
                Some(_) if state.is_idle() => Phase::Drained,
                Some(_) => Phase::Draining,
            },
            running: state.running,
            handed_off: state.handed_off,
            seconds_left: state.deadline.map(|deadline| {
                deadline
                    .saturating_duration_since(Instant::now())
                    .as_secs_f64()
            }),
        }
    }

    /// How long the drain has lasted, and how long it may; none while the pod serves.
    pub(crate) fn lasted(&self) -> Option<(Duration, Duration)> {
        let state = self.state.borrow();
        let (began, deadline) = (state.began?, state.deadline?);
        Some((began.elapsed(), deadline.saturating_duration_since(began)))
    }

    /// Whether the pod takes jobs.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.state.borrow().deadline.is_none()
    }

    /// Waits until the pod drains and runs nothing.
    pub async fn drained(&self) {
        self.wait(|state| state.deadline.is_some() && state.is_idle())
            .await;
    }

    /// Waits until jobs may be claimed; none: they never will again.
    pub(crate) async fn serving(&self) -> Option<()> {
        self.wait(|state| state.deadline.is_none() || state.closed)
            .await;
        (!self.state.borrow().closed).then_some(())
    }

    /// Waits until no jobs may be claimed.
    pub(crate) async fn begun(&self) {
        self.wait(|state| state.deadline.is_some() || state.closed)
            .await;
    }

    /// Announces a claim; none while no jobs may be claimed. Until it is dropped or becomes a run, the pod does not count as drained.
    pub(crate) fn claiming(&self) -> Option<Claiming> {
        let mut allowed = false;
        self.state.send_modify(|state| {
            allowed = state.deadline.is_none() && !state.closed;
            state.claiming = allowed;
        });
        allowed.then(|| Claiming(self.clone()))
    }

    /// Hands running jobs off when the time for it has come, drain after drain. Never ends.
    pub(crate) async fn keep_time(&self) {
        let mut changes = self.state.subscribe();
        loop {
            let due = changes.borrow_and_update().hand_off_at();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = at(due) => self.hand_off(),
            }
        }
    }

    fn hand_off(&self) {
        self.state.send_modify(|state| {
            if state.running > 0 {
                tracing::info!(
                    jobs = state.running,
                    "handing running jobs back to the queue"
                );
            }
            state.hand_off.cancel();
        });
    }

    async fn wait(&self, until: impl FnMut(&State) -> bool) {
        // The sender lives as long as this handle, so the wait cannot fail.
        drop(self.state.subscribe().wait_for(until).await);
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.running == 0 && !self.claiming
    }

    /// When running jobs must be handed off; none: not yet known, or done.
    fn hand_off_at(&self) -> Option<Instant> {
        let deadline = self.deadline?;
        if self.hand_off.is_cancelled() {
            return None;
        }
        deadline.checked_sub(HAND_OFF_TIME).or(Some(deadline))
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// A pod that waits for a job.
#[derive(Debug)]
pub(crate) struct Claiming(Drain);

impl Claiming {
    /// The claim has come.
    pub(crate) fn run(self) -> Running {
        let mut hand_off = CancellationToken::new();
        self.0.state.send_modify(|state| {
            state.running += 1;
            hand_off = state.hand_off.clone();
        });
        Running {
            drain: self.0.clone(),
            hand_off,
        }
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.claiming = false);
    }
}

/// A job that runs here.
#[derive(Debug)]
pub(crate) struct Running {
    drain: Drain,
    /// Cancelled when the job must be handed off.
    pub(crate) hand_off: CancellationToken,
}

impl Running {
    /// Notes that the job went back to the queue.
    pub(crate) fn handed_off(&self) {
        self.drain.state.send_modify(|state| state.handed_off += 1);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.drain.state.send_modify(|state| state.running -= 1);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn keep_time(drain: &Drain) {
        let drain = drain.clone();
        tokio::spawn(async move { drain.keep_time().await });
    }

    #[test]
    fn jobs_may_end_until_half_a_minute_before_the_time_is_over() {
        let now = Instant::now();
        let state = |seconds| State {
            deadline: Some(now + Duration::from_secs(seconds)),
            ..State::default()
        };
        let at = |seconds| Some(now + Duration::from_secs(seconds));
        assert_eq!(state(100).hand_off_at(), at(70));
        assert_eq!(state(30).hand_off_at(), at(0));
        assert_eq!(State::default().hand_off_at(), None);
    }

    #[tokio::test]
    async fn what_still_runs_when_the_time_is_short_is_handed_off() {
        let drain = Drain::default();
        keep_time(&drain);
        let run = drain.claiming().unwrap().run();
        drain.begin(Duration::from_secs(1));
        assert!(drain.claiming().is_none(), "nothing more is claimed");
        run.hand_off.cancelled().await;
        assert_eq!(drain.status().phase, Phase::Draining);
        run.handed_off();
        drop(run);
        drain.drained().await;
        assert_eq!(
            (drain.status().phase, drain.status().handed_off),
            (Phase::Drained, 1)
        );
    }

    #[tokio::test]
    async fn a_drain_only_becomes_shorter_and_can_be_taken_back() {
        let drain = Drain::default();
        keep_time(&drain);
        let run = drain.claiming().unwrap().run();
        drain.begin(Duration::from_secs(1_000));
        drain.begin(Duration::from_secs(5_000));
        assert!(drain.status().seconds_left.unwrap() <= 1_000.0);
        assert!(!run.hand_off.is_cancelled());
        drain.begin(Duration::ZERO);
        run.hand_off.cancelled().await;

        drain.cancel();
        assert!(drain.is_serving());
        let next = drain.claiming().unwrap().run();
        assert!(
            !next.hand_off.is_cancelled(),
            "a later job is not handed off"
        );
    }

    #[tokio::test]
    async fn a_claim_under_way_is_waited_for() {
        let drain = Drain::default();
        let claiming = drain.claiming().unwrap();
        drain.begin(Duration::from_secs(1));
        assert_eq!(drain.status().phase, Phase::Draining);
        drop(claiming);
        drain.drained().await;
        drain.close();
        assert_eq!(drain.serving().await, None);
    }
}
