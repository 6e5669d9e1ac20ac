#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;

use super::*;
use crate::job::Status;
use crate::queue::suite::{self, all_events, assert_whole, job, keyed, log, pod};

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite_of_all_stores() {
    let root = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    suite::run(async || {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Embedded::open(&root.path().join(n.to_string())).unwrap()
    })
    .await;
}

/// A copy of the directory is what a crash at this moment would leave.
fn crash(dir: &Path) -> (tempfile::TempDir, Embedded) {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let store = Embedded::open(copy.path()).unwrap();
    (copy, store)
}

#[tokio::test]
async fn a_crash_at_any_point_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let first = store.submit(job("first")).await.unwrap();
    let second = store.submit(job("second")).await.unwrap();
    let held = store.claim(&pod()).await.unwrap();
    store
        .append(&held.lease, vec![log("a"), log("b")])
        .await
        .unwrap();

    let (_kept, after) = crash(dir.path());
    let id: JobId = first.id.parse().unwrap();
    let record = after.get(id).await.unwrap();
    assert_eq!(
        (record.status, record.attempt, record.interruptions),
        (Status::Queued, 1, 1)
    );
    assert_eq!(
        after.get(second.id.parse().unwrap()).await.unwrap().status,
        Status::Queued
    );
    let again = after.claim(&pod()).await.unwrap();
    assert_eq!(
        (again.job.id, again.job.attempt),
        (id, 2),
        "the interrupted job comes first"
    );
    after
        .finish(&again.lease, &again.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    let events = all_events(&after, id).await;
    assert_whole(&events);
    let old = all_events(&store, id).await;
    assert_eq!(
        events[..old.len()],
        old,
        "what watchers saw before the crash is still there"
    );
}

#[tokio::test]
async fn what_the_disk_refused_last_is_known_until_it_takes_something() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    assert_eq!(store.trouble(), None);
    let full = || QueueError::Storage {
        doing: "write",
        path: dir.path().to_owned(),
        source: std::io::ErrorKind::StorageFull.into(),
    };
    drop(store.store.change(|_| Err::<(), _>(full())));
    drop(store.store.change(|_| Err::<(), _>(QueueError::KeyInUse)));
    assert!(
        store
            .trouble()
            .is_some_and(|trouble| trouble.contains("write"))
    );
    store.submit(job("x")).await.unwrap();
    assert_eq!(store.trouble(), None);
}

#[tokio::test]
async fn whoever_waits_for_the_end_of_a_store_can_remove_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let other = store.clone();
    let closed = store.closed();
    let record = store.submit(job("x")).await.unwrap();
    drop(store);
    assert!(!closed.is_cancelled(), "somebody has it still");
    drop(other);
    assert!(closed.is_cancelled());
    let file = files::record_path(dir.path(), record.id.parse().unwrap());
    assert!(file.exists(), "nothing is left to be written");
    drop(Embedded::open(dir.path()).unwrap());
}

#[tokio::test]
async fn keys_and_counts_survive_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let first = store.submit(keyed("x", "k")).await.unwrap();
    let ended = store.submit(keyed("y", "l")).await.unwrap();
    store.cancel(ended.id.parse().unwrap()).await.unwrap();
    store.claim(&pod()).await.unwrap();

    let (_kept, after) = crash(dir.path());
    for (again, id) in [(keyed("x", "k"), &first.id), (keyed("y", "l"), &ended.id)] {
        assert_eq!(after.submit(again).await.unwrap().id, *id);
    }
    assert!(matches!(
        after.submit(keyed("z", "k")).await,
        Err(QueueError::KeyReused(_))
    ));
    let depth = after.depth().await;
    assert_eq!((depth.queued, depth.running), (1, 0));
}

#[tokio::test]
async fn a_crash_between_record_and_event_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let id: JobId = store.submit(job("x")).await.unwrap().id.parse().unwrap();
    let held = store.claim(&pod()).await.unwrap();
    store
        .finish(&held.lease, &held.job.run, Outcome::Succeeded, vec![])
        .await
        .unwrap();
    let path = files::events_path(dir.path(), id);
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();

    // The record says succeeded, but the `end` event was cut: not written, or written in part.
    for kept in [
        lines[..3].concat(),
        format!("{}{}", lines[..3].concat(), &lines[3][..20]),
    ] {
        fs::write(&path, kept).unwrap();
        let (_kept, after) = crash(dir.path());
        let events = all_events(&after, id).await;
        assert_whole(&events);
        assert!(matches!(
            events.last().unwrap().body,
            EventBody::End {
                status: Status::Succeeded,
                ..
            }
        ));
        assert_eq!(events.len(), 4);
    }

    // The record of a new job is there and its first event is not.
    let id: JobId = store.submit(job("y")).await.unwrap().id.parse().unwrap();
    fs::remove_file(files::events_path(dir.path(), id)).unwrap();
    let (_kept, after) = crash(dir.path());
    assert_eq!(all_events(&after, id).await.len(), 1);
}

#[tokio::test]
async fn damaged_records_and_leftovers_do_not_stop_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let id = JobId::random();
    fs::write(files::record_path(dir.path(), id), "{ half").unwrap();
    fs::write(dir.path().join(".tmp-x"), "").unwrap();
    fs::write(dir.path().join("notes.txt"), "").unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    assert!(matches!(
        store.get(id).await,
        Err(QueueError::Damaged { .. })
    ));
    assert!(!dir.path().join(".tmp-x").exists());
    assert!(
        files::record_path(dir.path(), id).exists(),
        "a damaged record is kept for people to look at"
    );
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::open(dir.path()).unwrap();
    let error = Embedded::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("AGENTICORE_JOBS_DIR"), "{error}");
    drop(first);
    Embedded::open(dir.path()).unwrap();
}

#[tokio::test]
async fn the_queue_keeps_its_order_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(store.submit(job(&n.to_string())).await.unwrap().id);
    }
    drop(store);
    let store = Embedded::open(dir.path()).unwrap();
    for id in ids {
        assert_eq!(store.claim(&pod()).await.unwrap().job.id.to_string(), id);
    }
}
