//! Changes of a job: by the pod that runs it, or by anybody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::change::{self, Change, Next};
use super::held::{Held, HeldState};
use super::lease::RENEWALS;
use super::scripts::{Commit, Committed, Expect};
use super::{Inner, Mirror, copy, reads};
use crate::job::{Fence, Job, JobId, Record, State, Transition};
use crate::queue::{Lease, QueueError};

/// How long it is waited for a store that cannot say whose a claim is.
const PAUSE: Duration = Duration::from_millis(200);

/// What a change by the holder came to.
#[derive(Debug)]
pub(super) struct Done {
    /// The number of the last event that Redis has.
    pub(super) seq: u64,
    /// The record after the change.
    pub(super) record: Record,
}

/// Why a change was not made.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Redis cannot be reached, or was emptied: try again later.
    Outage(QueueError),
    /// Not by this caller.
    Final(QueueError),
}

impl From<Refusal> for QueueError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Outage(error) | Refusal::Final(error) => error,
        }
    }
}

/// Who makes a change.
#[derive(Debug, Default)]
pub(super) struct By<'a> {
    /// Names the change, so that it is not made twice when an answer was lost.
    pub(super) name: &'a str,
    /// The fence that the job must have, and the life it was given to; none: any, or none.
    pub(super) fence: Option<(Fence, &'a str)>,
    /// The life whose list the job joins or leaves, and its ordinal.
    pub(super) life: Option<(&'a str, Option<u32>)>,
}

/// Makes a change under a lease: in Redis, or in the spool where Redis is not there.
pub(super) async fn by_holder(
    inner: &Inner,
    lease: &Lease,
    change: Change,
) -> Result<Done, QueueError> {
    let held = inner
        .held
        .get(lease.id, lease.fence)
        .ok_or(QueueError::LostClaim(lease.id))?;
    let mut state = held.state.lock().await;
    if held.lost.is_cancelled() || state.over {
        return Err(QueueError::LostClaim(lease.id));
    }
    state.changes += 1;
    let name = format!("{}/{}/{}", inner.life, held.fence.0, state.changes);
    if state.spool.is_empty() {
        match tell(inner, &held, &mut state, &name, &change).await {
            Err(Refusal::Outage(error)) => {
                tracing::debug!(job = %held.id, %error, "spooled");
            }
            Err(Refusal::Final(error)) => return Err(error),
            Ok(done) => return Ok(done),
        }
    }
    keep(inner, &held, &mut state, name, change).await
}

/// Keeps a change for later.
async fn keep(
    inner: &Inner,
    held: &Arc<Held>,
    state: &mut HeldState,
    name: String,
    change: Change,
) -> Result<Done, QueueError> {
    if inner.is_in_doubt() {
        return Err(lost(inner, held, state).into());
    }
    let before = state.ahead.as_ref().unwrap_or(&state.job);
    let next = change.apply(before, state.version)?;
    let path = inner.spool_path(&inner.life, held.id);
    let over = change.ends_claim();
    state
        .spool
        .push(&path, name, held.fence, change, &next.job)?;
    let record = change::record(&next.job, state.version);
    state.ahead = Some(next.job);
    if over {
        state.over = true;
        let (id, version) = (held.id, record.version);
        let json = next.json;
        // What can be read meanwhile must say how it ended.
        let write = move |mirror: &Mirror| mirror.write_newer(id, version, &json);
        drop(inner.blocking(write).await);
    }
    Ok(Done {
        seq: state.mirrored,
        record,
    })
}

/// Tells Redis what was kept, in its order. Stops at the first change that cannot be told.
pub(super) async fn tell_spooled(inner: &Inner) {
    for held in inner.held.all() {
        let mut state = held.state.lock().await;
        while let Some((name, change)) = state.spool.front().cloned() {
            // Whoever took the job back tells what is in the file.
            if held.lost.is_cancelled() {
                break;
            }
            match tell(inner, &held, &mut state, &name, &change).await {
                Ok(_) => {
                    state.spool.pop();
                    if state.spool.is_empty() {
                        state.ahead = None;
                    }
                }
                Err(Refusal::Outage(_)) => return,
                Err(Refusal::Final(error)) => {
                    tracing::warn!(job = %held.id, %error, "what this pod kept of the job is not wanted any more");
                    state.spool.clear();
                }
            }
        }
    }
}

/// Makes a holder's change in Redis. What Redis says of the job is the truth; what the holder knows is brought up to it.
async fn tell(
    inner: &Inner,
    held: &Arc<Held>,
    state: &mut HeldState,
    name: &str,
    change: &Change,
) -> Result<Done, Refusal> {
    loop {
        let mut next = change
            .apply(&state.job, state.version)
            .map_err(|_| lost(inner, held, state))?;
        let by = By {
            name,
            fence: Some((held.fence, &inner.life)),
            life: next.drop_claim.then_some((&inner.life, inner.ordinal)),
        };
        let asked = Instant::now();
        match commit(inner, &next, state.version, by).await? {
            Committed::Ok { seq, before } => {
                change.count(&state.job, &next.job);
                next.forget_numbers(before);
                state.mirrored = copy::settle(inner, &next, seq, Some(state.mirrored), asked).await;
                // Counted here: what others changed meanwhile, such as a wish to cancel the job, is not known yet.
                if next.record.is_some() {
                    state.version += 1;
                    state.job = next.job;
                }
                state.heard = Some(asked);
                inner.hub.tell(held.id, seq);
                if change.ends_claim() {
                    state.over = true;
                    inner.held.remove(held);
                }
                let record = next
                    .record
                    .unwrap_or_else(|| change::record(&state.job, state.version.saturating_sub(1)));
                return Ok(Done { seq, record });
            }
            // Somebody else changed the job, such as a wish to cancel it.
            Committed::Version => match reads::load(inner, held.id).await {
                Ok((job, version)) if is_own(inner, held, &job) => {
                    if job.state.is_to_be_cancelled() {
                        held.cancelled.cancel();
                    }
                    (state.job, state.version) = (job, version);
                }
                Ok(_) | Err(QueueError::NotFound(_)) => return Err(lost(inner, held, state)),
                Err(error) => return Err(Refusal::Outage(error)),
            },
            _ => return Err(lost(inner, held, state)),
        }
    }
}

fn is_own(inner: &Inner, held: &Held, job: &Job) -> bool {
    job.state.fence() == Some(held.fence) && job.run.life.as_deref() == Some(&inner.life)
}

/// Comes back once Redis was heard, a moment ago, to have the claim that the volume has: from then on a store that is emptied gets it back.
pub(super) async fn confirm(inner: &Inner, lease: &Lease) -> Result<(), QueueError> {
    let lost_claim = || QueueError::LostClaim(lease.id);
    let held = inner
        .held
        .get(lease.id, lease.fence)
        .ok_or_else(lost_claim)?;
    loop {
        let mut state = held.state.lock().await;
        if held.lost.is_cancelled() || state.over {
            return Err(lost_claim());
        }
        let recently = inner.settings.lease / RENEWALS;
        if state.heard.is_some_and(|at| at.elapsed() < recently) {
            return Ok(());
        }
        let asked = Instant::now();
        match reads::fence(inner, held.id).await {
            Ok(Some(fence)) if fence == change::token(held.fence, &inner.life) => {
                state.heard = Some(asked);
            }
            Ok(Some(_)) => return Err(lost(inner, &held, &mut state).into()),
            // It was emptied, or it is gone: who may run the job shows when it is back.
            Ok(None) | Err(_) => {
                drop(state);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Lets go of the jobs that a store which was rebuilt, or forgot its last writes, does not have as this pod's. Returns whether all were
/// looked at.
pub(super) async fn look_at_held(inner: &Inner) -> bool {
    for held in inner.held.all() {
        let mut state = held.state.lock().await;
        if held.lost.is_cancelled() || state.over {
            continue;
        }
        let own = change::token(held.fence, &inner.life);
        match reads::holder(inner, held.id).await {
            Ok(Some(fence)) if fence != own => {
                tracing::warn!(job = %held.id, fence, "this pod's run of the job is not known any more");
                drop(lost(inner, &held, &mut state));
            }
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    true
}

fn lost(inner: &Inner, held: &Arc<Held>, state: &mut HeldState) -> Refusal {
    state.over = true;
    inner.held.remove(held);
    Refusal::Final(QueueError::LostClaim(held.id))
}

/// Gives Redis a change that was worked out from this version of a job; a store that was emptied is an outage.
pub(super) async fn commit(
    inner: &Inner,
    next: &Next,
    version: u64,
    by: By<'_>,
) -> Result<Committed, Refusal> {
    let stored = |record| change::stored(&next.job, record, &next.json).map_err(Refusal::Final);
    let record = next.record.as_ref().map(stored).transpose()?;
    let commit = Commit {
        id: next.job.id,
        score: change::score(&next.job),
        name: by.name.to_owned(),
        expect: match record {
            Some(_) => Expect::Version(version),
            None => Expect::Any,
        },
        fence: by.fence.map(|(fence, life)| change::token(fence, life)),
        record,
        place: next.place,
        life: by.life,
        drop_claim: next.drop_claim,
        kind: next.kind,
        outstanding: next.outstanding,
        key: None,
        events: &next.events,
    };
    let made = inner
        .link
        .call("change a job", async |c| commit.run(&inner.keys, c).await)
        .await;
    match made {
        Ok(Committed::Emptied) => Err(Refusal::Outage(inner.emptied())),
        Ok(made) => Ok(made),
        Err(error) => Err(Refusal::Outage(error)),
    }
}

/// Makes a change of a job that somebody else may run, or nobody.
pub(super) async fn by_anybody(
    inner: &Inner,
    id: JobId,
    change: &Change,
) -> Result<Record, QueueError> {
    loop {
        let (job, version) = reads::load(inner, id).await?;
        let cancels = matches!(change, Change::Move(moved) if matches!(moved.transition, Transition::Cancel { .. }));
        if job.state.is_ended() && cancels {
            // An earlier cancel may have had no answer.
            drop(copy::agree(inner, id, None).await);
            return Ok(change::record(&job, version - 1));
        }
        let next = change.apply(&job, version)?;
        let asked = Instant::now();
        match commit(inner, &next, version, By::default()).await? {
            Committed::Ok { seq, .. } => {
                change.count(&job, &next.job);
                inner.hub.tell(id, seq);
                // While a job runs, its holder alone writes the copy.
                if !matches!(next.job.state, State::Running { .. }) {
                    copy::settle(inner, &next, seq, None, asked).await;
                }
                return Ok(next
                    .record
                    .unwrap_or_else(|| change::record(&next.job, version)));
            }
            Committed::Missing => return Err(QueueError::NotFound(id)),
            _ => {}
        }
    }
}
