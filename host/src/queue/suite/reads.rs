//! How events and lists are read.

use super::*;

/// However many are stored at once.
pub(super) async fn any_event_can_be_the_first_that_is_read(queue: &dyn Queue) {
    let id: JobId = queue.submit(job("one")).await.unwrap().id.parse().unwrap();
    let alone = all_events(queue, id).await;
    let Claim { job, lease } = claim(queue).await;
    let many = (0..50).map(|n| log(n.to_string())).collect();
    queue.append(&lease, many).await.unwrap();
    queue.append(&lease, vec![log("more")]).await.unwrap();
    queue
        .finish(&lease, &job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    let all = all_events(queue, id).await;
    assert_whole(&all);
    assert_eq!(alone, all[..1]);
    for seq in 0..=all.len() {
        let cursor = Cursor::after(seq as u64);
        let (events, next) = queue.events(id, cursor).await.unwrap();
        let last = seq + events.len();
        assert_eq!(events, all[seq..last], "after {seq}");
        assert_eq!(next.seq, last as u64);
        assert!(last > seq || seq == all.len());
    }
}

pub(super) async fn readers_see_every_event_once<Q: Queue>(queue: Arc<Q>) {
    let id: JobId = queue.submit(job("x")).await.unwrap().id.parse().unwrap();
    let held = claim(&*queue).await;
    let readers: Vec<_> = [0u64, 1, 5]
        .into_iter()
        .map(|after| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut watch = queue.watch(id).await.unwrap();
                let (mut cursor, mut seen) = (Cursor::after(after), Vec::new());
                loop {
                    let (events, next) = queue.events(id, cursor).await.unwrap();
                    cursor = next;
                    seen.extend(events.iter().map(|e| e.seq));
                    if events
                        .iter()
                        .any(|e| matches!(e.body, EventBody::End { .. }))
                    {
                        return (after, seen);
                    }
                    if events.is_empty() {
                        watch.changed().await.unwrap();
                    }
                }
            })
        })
        .collect();
    for n in 0..200 {
        // Lines of all lengths, some longer than a page.
        let text = "x".repeat(if n % 50 == 7 { 300_000 } else { n });
        queue
            .append(&held.lease, vec![log(text), log(format!("{n}"))])
            .await
            .unwrap();
    }
    queue
        .finish(&held.lease, &held.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    for reader in readers {
        let (after, seen) = reader.await.unwrap();
        assert_eq!(seen, (after + 1..=404).collect::<Vec<_>>());
    }
}

pub(super) async fn lists_are_paged_and_filtered(queue: &dyn Queue) {
    let mut ids = Vec::new();
    for n in 0..25 {
        let id = queue.submit(job(&format!("task {n}"))).await.unwrap().id;
        if n % 5 == 0 {
            queue.cancel(id.parse().unwrap()).await.unwrap();
        }
        ids.push(id);
    }
    ids.reverse();
    let mut filter = Filter {
        limit: 10,
        ..Filter::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = queue.list(&filter).await.unwrap();
        seen.extend(page.jobs.into_iter().map(|r| r.id));
        match page.next {
            Some(next) => filter.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ids);
    let cancelled = Filter {
        limit: 200,
        statuses: vec![Status::Cancelled],
        ..Filter::default()
    };
    assert_eq!(queue.list(&cancelled).await.unwrap().jobs.len(), 5);
    let text = Filter {
        limit: 200,
        text: Some("task 13".into()),
        ..Filter::default()
    };
    assert_eq!(queue.list(&text).await.unwrap().jobs.len(), 1);
    let other = Filter {
        limit: 200,
        profile: Some("other".into()),
        ..Filter::default()
    };
    assert!(queue.list(&other).await.unwrap().jobs.is_empty());
}
