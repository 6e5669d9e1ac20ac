//! Taking jobs out of the queue.
//!
//! One task of the pod takes jobs, as many as are asked for (a server asks for one at a time), for whoever asked first. A job that comes
//! when nobody waits for it any more goes back to the front of the queue. Pods of lower ordinals go first: a pod that sees one with a free slot waits a moment before it takes
//! a job, so that a fleet that shrinks from its highest ordinal has its busy pods below.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::change::Change;
use super::held::{Held, HeldState, Spool};
use super::lease::RENEWALS;
use super::link::Wire;
use super::scripts::{self, Committed, Taken};
use super::writes::{self, By};
use super::{Inner, copy, reads, reclaim};
use crate::job::{Fence, Job, JobId, Requeue, State, Transition};
use crate::queue::{Claim, Lease, QueueError, guard};

/// How long one wait for a job lasts at the most; then it is waited again.
const WAIT: Duration = Duration::from_secs(5);
/// How much longer than that an answer may take.
const LATE: Duration = Duration::from_secs(3);
/// How long a pod lets those below it go first.
const COURTESY: Duration = Duration::from_millis(15);
/// How long a pod that lets others go first waits for the news of a job before it looks by itself.
const LOOK: Duration = Duration::from_secs(3);
/// How long a Redis that failed is left in peace.
const PEACE: Duration = Duration::from_millis(500);

/// Who waits for a job.
type Request = oneshot::Sender<Claim>;

/// Serves claims until the store is closed.
pub(super) async fn fetch(inner: Arc<Inner>, mut requests: mpsc::UnboundedReceiver<Request>) {
    let wire = inner.link.wire();
    // Whether fewer were there the last time than were asked for: then it is waited at once, which costs an idle pod one command less.
    let mut idle = false;
    let mut waiting: VecDeque<Request> = VecDeque::new();
    // Claims on their way; one whose job was another's gives its request back.
    let mut claims: JoinSet<Option<Request>> = JoinSet::new();
    loop {
        while let Ok(request) = requests.try_recv() {
            waiting.push_back(request);
        }
        while let Some(claimed) = claims.try_join_next() {
            waiting.extend(claimed.ok().flatten());
        }
        waiting.retain(|request| !request.is_closed());
        let wanted = waiting.len();
        let Some(first) = waiting.front_mut() else {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => waiting.push_back(request),
                    None => return,
                },
                Some(claimed) = claims.join_next() => waiting.extend(claimed.ok().flatten()),
            }
            continue;
        };
        match next(&inner, &wire, first, wanted, idle).await {
            Ok(found) => {
                idle = found.len() < wanted;
                waiting.retain(|request| !request.is_closed());
                // What they need of Redis and the volume, the claims of several jobs need not do one after the other.
                for (job, version) in found {
                    let (inner, request) = (inner.clone(), waiting.pop_front());
                    claims.spawn(async move { hand_over(&inner, request, job, version).await });
                }
            }
            Err(error) => {
                tracing::debug!(%error, "no job can be claimed");
                tokio::select! {
                    () = first.closed() => {}
                    () = tokio::time::sleep(PEACE) => {}
                }
            }
        }
    }
}

/// Claims the job for the request; gives the request back when the job is another's.
async fn hand_over(
    inner: &Arc<Inner>,
    request: Option<Request>,
    job: Job,
    version: u64,
) -> Option<Request> {
    let id = job.id;
    let Some(request) = request.filter(|request| !request.is_closed()) else {
        give_back(inner, id).await;
        return None;
    };
    match claim(inner, job, version).await {
        Ok(Some(claim)) => {
            if let Err(claim) = request.send(claim) {
                decline(inner, claim).await;
            }
            None
        }
        Ok(None) => Some(request),
        Err(error) => {
            tracing::warn!(job = %id, %error, "a job could not be claimed");
            give_back(inner, id).await;
            tokio::time::sleep(PEACE).await;
            Some(request)
        }
    }
}

/// Gives a claim back that nobody takes.
async fn decline(inner: &Inner, claim: Claim) {
    let id = claim.lease.id;
    let given = Change::requeue(claim.lease.fence, None, Requeue::HandOff, Vec::new());
    if let Err(error) = writes::by_holder(inner, &claim.lease, given).await {
        tracing::warn!(job = %id, %error, "a claimed job could not be given back; its lease will");
    }
}

/// Waits for a claim. One that comes when nobody waits any more is given back, also in the moment between its arrival and its use.
pub(super) struct Waiting {
    inner: Arc<Inner>,
    claim: oneshot::Receiver<Claim>,
}

impl Waiting {
    /// Asks for a claim; none: the store is closed.
    pub(super) async fn claim(inner: &Arc<Inner>) -> Option<Claim> {
        let (request, claim) = oneshot::channel();
        inner.fetch.send(request).ok()?;
        let inner = inner.clone();
        let mut waiting = Self { inner, claim };
        (&mut waiting.claim).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.claim.close();
        let Ok(claim) = self.claim.try_recv() else {
            return;
        };
        let inner = self.inner.clone();
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { decline(&inner, claim).await })),
            Err(_) => inner.held.forget(&claim.lease),
        }
    }
}

/// The next jobs on this pod's list, at most as many as are wanted; none: there was none for a while, or the request is gone.
async fn next(
    inner: &Inner,
    wire: &Wire,
    request: &mut Request,
    wanted: usize,
    idle: bool,
) -> Result<Vec<(Job, u64)>, QueueError> {
    if inner.outdated.load(Ordering::Relaxed) {
        return Err(inner.cannot("claim a job", "the store was written by a newer version"));
    }
    // Listened for before the look, so that no job that joins in between is missed.
    let queued = inner.hub.queued.notified();
    let polite = lower_is_free(inner);
    if polite {
        tokio::time::sleep(COURTESY).await;
    }
    if polite || !idle {
        let found = take(inner, None, wanted).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    if polite {
        tokio::select! {
            () = request.closed() => {}
            () = queued => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        return Ok(Vec::new());
    }
    match wait(inner, wire).await? {
        Some(id) => take(inner, Some(id), wanted).await,
        None => Ok(Vec::new()),
    }
}

/// Waits for a job and moves it to this pod's list.
async fn wait(inner: &Inner, wire: &Wire) -> Result<Option<String>, QueueError> {
    let (queue, claimed) = (inner.keys.queue(), inner.keys.claimed(&inner.life));
    // Over before anybody can take a pod for dead that fell silent meanwhile: a job that Redis moved later would be on a list of nobody.
    let wait = WAIT.min(inner.settings.lease / 2);
    let waiting = inner.link.call_on(wire, "wait for a job", async |c| {
        redis::cmd("BLMOVE")
            .arg(queue)
            .arg(&claimed)
            .arg("LEFT")
            .arg("RIGHT")
            .arg(wait.as_secs_f64())
            .query_async(c)
            .await
    });
    match tokio::time::timeout(WAIT + LATE, waiting).await {
        Ok(answer) => answer,
        Err(_) => {
            // Whatever it moved all the same is found on the list.
            wire.reset().await;
            Ok(None)
        }
    }
}

/// Moves up to `wanted` jobs to this pod's list, the one that was moved already among them.
pub(super) async fn take(
    inner: &Inner,
    moved: Option<String>,
    wanted: usize,
) -> Result<Vec<(Job, u64)>, QueueError> {
    let answer = inner
        .link
        .call("take a job", async |c| {
            scripts::TAKE
                .key(inner.keys.schema())
                .key(inner.keys.queue())
                .key(inner.keys.claimed(&inner.life))
                .key(inner.keys.pods())
                .arg(inner.keys.jobs())
                .arg(moved.as_deref().unwrap_or_default())
                .arg(&inner.life)
                .arg((inner.settings.lease / RENEWALS).as_millis() as u64)
                .arg(wanted)
                .invoke_async(c)
                .await
                .and_then(Taken::parse)
        })
        .await?;
    let taken = match answer {
        Taken::Jobs(taken) => taken,
        Taken::Late => {
            return Err(inner.cannot(
                "claim a job",
                "the lease of this pod is over and not renewed yet",
            ));
        }
        Taken::Emptied => return Err(inner.emptied()),
    };
    let mut jobs = Vec::new();
    for (id, json, version) in taken {
        match reads::parse(&id, &json) {
            Ok(job) => jobs.push((job, version)),
            Err(error) => {
                tracing::error!(job = id, %error, "a job that cannot be read is left out of the queue");
                // Where that fails, the list is tidied with the next renewals; the jobs beside it must not wait for them.
                drop(drop_claimed(inner, &id).await);
            }
        }
    }
    Ok(jobs)
}

async fn drop_claimed(inner: &Inner, id: &str) -> Result<(), QueueError> {
    inner
        .link
        .call("leave a job out", async |c| {
            redis::cmd("LREM")
                .arg(inner.keys.claimed(&inner.life))
                .arg(0)
                .arg(id)
                .query_async(c)
                .await
        })
        .await
}

/// Claims a job that is on the pod's list; none: it is not waiting any more.
pub(super) async fn claim(
    inner: &Inner,
    job: Job,
    version: u64,
) -> Result<Option<Claim>, QueueError> {
    let (id, cancelled) = (job.id, CancellationToken::new());
    guard(&inner.claiming).insert(id, cancelled.clone());
    let claimed = write_down(inner, job, version, cancelled).await;
    guard(&inner.claiming).remove(&id);
    claimed
}

async fn write_down(
    inner: &Inner,
    mut job: Job,
    version: u64,
    cancelled: CancellationToken,
) -> Result<Option<Claim>, QueueError> {
    if !matches!(job.state, State::Queued { .. }) {
        drop_claimed(inner, &job.id.to_string()).await?;
        return Ok(None);
    }
    // The attempts of one job are counted; together with the life their number is a fence.
    let fence = Fence(u64::from(job.attempt) + 1);
    job.run.life = Some(inner.life.clone());
    let claim = Change::transition(
        Transition::Claim {
            pod: inner.settings.pod.clone(),
            fence,
            at: Timestamp::now(),
        },
        None,
    );
    let mut next = claim.apply(&job, version)?;
    let id = job.id;
    let by = By {
        name: &format!("claim/{}/{}", inner.life, fence.0),
        fence: None,
        life: Some((&inner.life, inner.ordinal)),
    };
    let asked = Instant::now();
    let made = writes::commit(inner, &next, version, by).await?;
    let Committed::Ok { seq, before } = made else {
        drop_claimed(inner, &id.to_string()).await?;
        return Ok(None);
    };
    claim.count(&job, &next.job);
    next.forget_numbers(before);
    inner.hub.tell(id, seq);
    // Before the agent starts, the volume knows that it does.
    let mirrored = copy::settle(inner, &next, seq, None, asked).await;
    if asked.elapsed() >= inner.patience() {
        return Err(inner.cannot("claim a job", "this pod slept longer than its lease lasts"));
    }
    let lost = CancellationToken::new();
    let lease = Lease {
        id,
        fence,
        cancelled,
        lost,
    };
    Ok(Some(hold(inner, next.job, lease, version + 1, mirrored)))
}

fn hold(inner: &Inner, job: Job, lease: Lease, version: u64, mirrored: u64) -> Claim {
    let held = Arc::new(Held {
        id: lease.id,
        fence: lease.fence,
        cancelled: lease.cancelled.clone(),
        lost: lease.lost.clone(),
        state: tokio::sync::Mutex::new(HeldState {
            job: job.clone(),
            version,
            ahead: None,
            changes: 0,
            mirrored,
            heard: None,
            spool: Spool::default(),
            over: false,
        }),
    });
    inner.held.insert(held);
    Claim { job, lease }
}

/// Puts a job back that was taken and not claimed.
pub(super) async fn give_back(inner: &Inner, id: JobId) {
    if let Err(error) = unlist(inner, id, &inner.life, false).await {
        tracing::warn!(job = %id, %error, "a job could not be given back; it is when Redis answers");
    }
}

/// Takes a job that waits off a life's list and puts it to the front of the queue; `any`: one that does not wait leaves the list too. A
/// job that runs under that very life stays, and false is returned.
pub(super) async fn unlist(
    inner: &Inner,
    id: JobId,
    life: &str,
    any: bool,
) -> Result<bool, QueueError> {
    let unlisted: i8 = inner
        .link
        .call("give a job back", async |c| {
            scripts::GIVE_BACK
                .key(inner.keys.job(id))
                .key(inner.keys.queue())
                .key(inner.keys.claimed(life))
                .arg(id.to_string())
                .arg(u8::from(any))
                .arg(format!("@{life}"))
                .invoke_async(c)
                .await
        })
        .await?;
    Ok(unlisted >= 0)
}

/// Whether a pod of a lower ordinal that takes jobs has a free slot.
fn lower_is_free(inner: &Inner) -> bool {
    let Some(own) = inner.ordinal else {
        return false;
    };
    guard(&inner.pods).iter().any(|pod| {
        !pod.expired
            && !pod.facts.draining
            && pod.facts.running < pod.facts.slots
            && pod.facts.ordinal.is_some_and(|ordinal| ordinal < own)
    })
}

/// Gives back what is on this pod's list and that it does not run: answers were lost, or the pod was just about to.
pub(super) async fn tidy(inner: &Inner) {
    if let Ok(ids) = unheld(inner).await {
        give_back_all(inner, ids).await;
    }
}

/// What is on this pod's list and that it neither runs nor claims. A job that was just moved there is among it for a moment.
pub(super) async fn unheld(inner: &Inner) -> Result<HashSet<JobId>, QueueError> {
    let ids = listed(inner, &inner.life).await?;
    let is_unheld =
        |id: &JobId| !guard(&inner.claiming).contains_key(id) && inner.held.any(*id).is_none();
    Ok(ids.into_iter().filter(is_unheld).collect())
}

/// Gives these back, but those that the pod runs.
pub(super) async fn give_back_all(inner: &Inner, ids: impl IntoIterator<Item = JobId>) {
    for id in ids {
        let is_own = || guard(&inner.claiming).contains_key(&id) || inner.held.any(id).is_some();
        if is_own() {
            continue;
        }
        match reads::load(inner, id).await {
            // Claimed in this moment.
            Ok(_) if is_own() => {}
            Ok((job, _)) if matches!(job.state, State::Queued { .. }) => give_back(inner, id).await,
            Ok((job, _))
                if job.run.life.as_deref() == Some(&inner.life) && job.state.fence().is_some() =>
            {
                // The claim was made and its answer was lost: no agent has started.
                if let Err(error) = reclaim::job(inner, id, &inner.life, inner.ordinal).await {
                    tracing::warn!(job = %id, %error, "a job could not be given back");
                }
            }
            Ok(_) | Err(QueueError::NotFound(_)) => {
                drop(drop_claimed(inner, &id.to_string()).await)
            }
            Err(_) => return,
        }
    }
}

/// The jobs on a life's list.
pub(super) async fn listed(inner: &Inner, life: &str) -> Result<Vec<JobId>, QueueError> {
    let ids: Vec<String> = inner
        .link
        .call("look at a pod's jobs", async |c| {
            redis::cmd("LRANGE")
                .arg(inner.keys.claimed(life))
                .arg(0)
                .arg(-1)
                .query_async(c)
                .await
        })
        .await?;
    Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
}
