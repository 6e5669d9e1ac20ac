//! How jobs are claimed, and what becomes of claims that nobody takes or that are lost.

use super::*;

pub(super) async fn jobs_are_claimed_in_order_and_once<Q: Queue>(queue: Arc<Q>) {
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(queue.submit(job(&format!("{n}"))).await.unwrap().id);
    }
    let first = claim(&*queue).await;
    assert_eq!(first.job.id.to_string(), ids[0]);
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                while let Ok(claim) =
                    tokio::time::timeout(Duration::from_millis(500), queue.claim(&pod())).await
                {
                    mine.push(claim.unwrap().job.id.to_string());
                }
                mine
            })
        })
        .collect();
    let mut seen = vec![first.job.id.to_string()];
    for worker in workers {
        seen.extend(worker.await.unwrap());
    }
    assert_eq!(seen.len(), 40);
    assert_eq!(
        seen.into_iter().collect::<HashSet<_>>(),
        ids.into_iter().collect()
    );
    assert_eq!(
        (queue.depth().await.queued, queue.depth().await.running),
        (0, 40)
    );
}

pub(super) async fn a_waiting_claim_gets_the_next_job<Q: Queue>(queue: Arc<Q>) {
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { claim(&*queue).await.job.id }
    });
    tokio::task::yield_now().await;
    let id = queue.submit(job("x")).await.unwrap().id;
    assert_eq!(waiting.await.unwrap().to_string(), id);
}

pub(super) async fn a_dropped_claim_claims_nothing(queue: &dyn Queue) {
    for _ in 0..50 {
        drop(tokio::time::timeout(Duration::ZERO, queue.claim(&pod())).await);
    }
    let id = queue.submit(job("x")).await.unwrap().id;
    for _ in 0..50 {
        if let Ok(claim) = tokio::time::timeout(Duration::ZERO, queue.claim(&pod())).await {
            assert_eq!(claim.unwrap().job.id.to_string(), id);
            return;
        }
    }
    assert_eq!(claim(queue).await.job.id.to_string(), id);
}

pub(super) async fn a_claim_that_nobody_takes_goes_back(queue: &dyn Queue) {
    // The store's own task is about to deliver it, or has: each round lets it go a little further.
    for steps in 0..20 {
        let id: JobId = queue.submit(job("x")).await.unwrap().id.parse().unwrap();
        nobody_takes(queue, id, steps).await;
    }
}

async fn nobody_takes(queue: &dyn Queue, id: JobId, steps: usize) {
    // Asked for, and delivered to somebody who turns to something else in that moment.
    let name = pod();
    let waiting = loop {
        let mut waiting = queue.claim(&name);
        match (&mut waiting).now_or_never() {
            None => break waiting,
            // Too fast: it has it.
            Some(claimed) => {
                let Claim { job, lease } = claimed.unwrap();
                let why = Requeue::HandOff;
                queue.requeue(&lease, &job.run, why, vec![]).await.unwrap();
            }
        }
    };
    until("it is claimed", async || {
        let status = queue.get(id).await.unwrap().status;
        (status == Status::Running).then_some(())
    })
    .await;
    for _ in 0..steps {
        tokio::task::yield_now().await;
    }
    drop(waiting);
    let again = claim(queue).await;
    assert_eq!(again.job.id, id);
    let run = &again.job.run;
    let ended = queue
        .finish(&again.lease, run, Outcome::Succeeded, vec![])
        .await;
    ended.unwrap();
}

pub(super) async fn a_lost_claim_writes_nothing(queue: &dyn Queue) {
    let id = queue.submit(job("x")).await.unwrap().id;
    let old = claim(queue).await;
    queue
        .requeue(&old.lease, &old.job.run, Requeue::Reclaimed, vec![])
        .await
        .unwrap();
    assert!(old.lease.lost.is_cancelled());
    let new = claim(queue).await;
    assert_eq!((new.job.attempt, new.job.run.interruptions), (2, 1));
    assert!(new.lease.fence > old.lease.fence);
    let run = &old.job.run;
    assert!(matches!(
        queue.update(&old.lease, run).await,
        Err(QueueError::LostClaim(_))
    ));
    assert!(matches!(
        queue.append(&old.lease, vec![log("x")]).await,
        Err(QueueError::LostClaim(_))
    ));
    assert!(matches!(
        queue
            .finish(&old.lease, run, Outcome::Succeeded, vec![])
            .await,
        Err(QueueError::LostClaim(_))
    ));
    assert!(matches!(
        queue
            .requeue(&old.lease, run, Requeue::HandOff, vec![])
            .await,
        Err(QueueError::LostClaim(_))
    ));
    queue
        .finish(&new.lease, &new.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    let events = all_events(queue, id.parse().unwrap()).await;
    assert_whole(&events);
    assert_eq!(
        statuses(&events),
        [
            "queued/0",
            "running/1",
            "queued/1/reclaimed",
            "running/2",
            "succeeded/2",
            "end succeeded"
        ]
    );
}
