//! The cache over real repositories.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::process::Instance;

mod locking;
mod remotes;
mod repair;
mod world;

use world::{World, git, wanted};

const JOB: &str = "0b6ad2a4-6d0a-4f0e-9a49-3d7f4b8f2c11";
const OTHER: &str = "11111111-6d0a-4f0e-9a49-3d7f4b8f2c11";

#[tokio::test]
async fn a_job_gets_a_worktree_and_the_next_attempt_gets_it_back() {
    let world = World::new();
    let worktree = world.checkout(JOB).await;
    assert_eq!(worktree.path, world.home().join("worktrees").join(JOB));
    assert_eq!(
        (worktree.branch.as_str(), worktree.base_ref.as_str()),
        ("agenticore/0b6ad2a4-fix-the-login", "trunk")
    );
    assert_eq!(
        worktree.base_commit,
        git(&world.origin(), &["rev-parse", "trunk"])
    );
    assert!(!worktree.reused && worktree.path.join("two.txt").exists());

    // The agent works with plain git.
    fs::write(worktree.path.join("new.txt"), "x").unwrap();
    git(&worktree.path, &["add", "--all"]);
    git(&worktree.path, &["commit", "--quiet", "-m", "work"]);
    assert_eq!(
        git(&worktree.path, &["log", "-1", "--format=%an <%ae>"]),
        "agenticore <agenticore@users.noreply.github.com>"
    );
    assert_eq!(
        git(&worktree.path, &["branch", "--show-current"]),
        worktree.branch
    );
    assert_eq!(
        git(&worktree.path, &["diff", "--name-only", "origin/trunk"]),
        "new.txt"
    );
    fs::write(worktree.path.join("draft.txt"), "y").unwrap();

    world.commit(&world.origin(), "later.txt", "moved on");
    let again = world.checkout(JOB).await;
    assert_eq!(
        again,
        Worktree {
            reused: true,
            ..worktree.clone()
        }
    );
    assert_eq!(
        fs::read_to_string(again.path.join("draft.txt")).unwrap(),
        "y"
    );

    // Another job sees what the remote has now.
    let other = world.checkout(OTHER).await;
    assert!(other.path.join("later.txt").exists() && !other.path.join("new.txt").exists());
}

#[tokio::test]
async fn work_can_start_from_branches_tags_and_commits() {
    let world = World::new();
    let first = git(&world.origin(), &["rev-parse", "v1"]);
    for (number, base) in ["side", "v1", "refs/heads/side", &first, &first[..8]]
        .into_iter()
        .enumerate()
    {
        let worktree = world
            .try_checkout(&format!("{number}1111111-x"), Some(base))
            .await
            .unwrap();
        assert_eq!(
            (worktree.base_commit.as_str(), worktree.base_ref.as_str()),
            (first.as_str(), base)
        );
    }
    let head = world
        .try_checkout("a1111111-x", Some("HEAD"))
        .await
        .unwrap();
    assert_eq!(head.base_ref, "trunk");
    // A commit that no branch holds any more.
    let lost = world.commit(&world.origin(), "lost.txt", "lost");
    git(&world.origin(), &["reset", "--quiet", "--hard", "HEAD~1"]);
    git(
        &world.origin(),
        &["config", "uploadpack.allowAnySHA1InWant", "true"],
    );
    assert_eq!(
        world
            .try_checkout("b1111111-x", Some(&lost))
            .await
            .unwrap()
            .base_commit,
        lost
    );

    let missing = world
        .try_checkout(OTHER, Some("no-such"))
        .await
        .unwrap_err();
    let GitError::MissingRef { existing, .. } = &missing else {
        panic!("{missing}")
    };
    assert_eq!(
        existing.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        BTreeSet::from(["side", "trunk"])
    );
    let text = missing.to_string();
    assert!(
        text.starts_with("base_ref no-such does not exist in file://")
            && text.contains("branches that exist: "),
        "{text}"
    );
}

#[tokio::test]
async fn fetches_follow_the_remote_and_leave_jobs_alone() {
    let world = World::new();
    let worktree = world.checkout(JOB).await;
    git(&world.origin(), &["branch", "-D", "side"]);
    git(&world.origin(), &["branch", "side/below"]);
    world.checkout(OTHER).await;
    let refs = git(&world.repo(), &["for-each-ref", "--format=%(refname)"]);
    assert!(
        refs.contains("refs/remotes/origin/side/below")
            && !refs.lines().any(|r| r.ends_with("origin/side")),
        "{refs}"
    );
    assert!(
        refs.contains(&format!("refs/heads/{}", worktree.branch)),
        "{refs}"
    );
    assert!(refs.contains("refs/tags/v1"), "{refs}");
    assert_eq!(
        git(&world.repo(), &["config", "remote.origin.url"]),
        world.url().as_str()
    );
}

#[tokio::test]
async fn what_a_job_changed_is_known_and_the_hosts_folder_is_not_part_of_it() {
    let world = World::new();
    let (cache, cancel) = (world.cache(), &world.cancel);
    let worktree = world.checkout(JOB).await;
    assert_eq!(
        cache.changed_files(&worktree, cancel).await.unwrap(),
        Vec::<String>::new()
    );
    assert!(
        !cache.is_dirty(&worktree, cancel).await.unwrap()
            && !cache.has_commits(&worktree, cancel).await.unwrap()
    );

    fs::create_dir(worktree.path.join(".agenticore")).unwrap();
    fs::write(worktree.path.join(".agenticore/settings.json"), "secret").unwrap();
    assert!(!cache.is_dirty(&worktree, cancel).await.unwrap());
    assert!(
        !cache
            .commit_all(&worktree, "nothing", cancel)
            .await
            .unwrap()
    );

    fs::write(worktree.path.join("three.txt"), "3").unwrap();
    fs::remove_file(worktree.path.join("one.txt")).unwrap();
    git(&worktree.path, &["add", "--all"]);
    git(&worktree.path, &["commit", "--quiet", "-m", "work"]);
    fs::write(worktree.path.join("two.txt"), "changed").unwrap();
    fs::write(worktree.path.join("né\nw.txt"), "4").unwrap();
    assert_eq!(git(&worktree.path, &["ls-files", ".agenticore"]), "");
    let changed = cache.changed_files(&worktree, cancel).await.unwrap();
    assert_eq!(changed, ["né\nw.txt", "one.txt", "three.txt", "two.txt"]);
    assert!(
        cache.has_commits(&worktree, cancel).await.unwrap()
            && cache.is_dirty(&worktree, cancel).await.unwrap()
    );

    // Even an agent that takes the folder off the list of ignored ones does not get it into our commit.
    fs::write(world.repo().join("info/exclude"), "").unwrap();
    assert!(
        cache
            .commit_all(&worktree, "the rest\n\nof it", cancel)
            .await
            .unwrap()
    );
    assert!(!cache.is_dirty(&worktree, cancel).await.unwrap());
    assert_eq!(
        git(&worktree.path, &["log", "-1", "--format=%s"]),
        "the rest"
    );
    assert_eq!(git(&worktree.path, &["ls-files", ".agenticore"]), "");
}

#[tokio::test]
async fn a_repository_that_tracks_the_hosts_folder_is_refused() {
    let world = World::new();
    fs::create_dir(world.origin().join(".agenticore")).unwrap();
    world.commit(&world.origin(), ".agenticore/x", "x");
    let refused = world.try_checkout(JOB, None).await.unwrap_err();
    assert!(
        matches!(&refused, GitError::ReservedPath { path } if path == ".agenticore"),
        "{refused}"
    );
    world.try_checkout(JOB, Some("side")).await.unwrap();
}

#[tokio::test]
async fn jobs_that_are_over_are_cleared_away() {
    let world = World::new();
    let (cache, watch) = (world.cache(), Watch::quiet(&world.cancel));
    let (gone, kept) = (world.checkout(JOB).await, world.checkout(OTHER).await);
    let (scratch, busy) = (cache.scratch(JOB).unwrap(), cache.scratch(OTHER).unwrap());
    // As module caches do; root may write there all the same.
    fs::create_dir(gone.path.join("deps")).unwrap();
    fs::write(gone.path.join("deps/x"), "x").unwrap();
    fs::set_permissions(gone.path.join("deps"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::create_dir(world.home().join(".tmp-half")).unwrap();

    let removed = cache
        .prune(&BTreeSet::from([JOB.to_owned()]), watch)
        .await
        .unwrap();
    assert_eq!(removed, [JOB]);
    assert!(!gone.path.exists() && !scratch.exists() && kept.path.exists() && busy.exists());
    assert!(!world.home().join(".tmp-half").exists());
    assert_eq!(
        git(
            &world.repo(),
            &["for-each-ref", "--format=%(refname:short)", "refs/heads/"]
        ),
        kept.branch
    );
    assert!(!git(&world.repo(), &["worktree", "list"]).contains(JOB));

    // The note of a worktree that is gone names its job too.
    fs::write(world.home().join(format!("worktrees/{JOB}.json")), "{}").unwrap();
    assert!(cache.job_folders().iter().any(|folder| folder.job == JOB));
    let dead = BTreeSet::from([JOB.to_owned()]);
    assert_eq!(cache.prune(&dead, watch).await.unwrap(), [JOB]);
    assert!(cache.job_folders().iter().all(|folder| folder.job == OTHER));

    cache.remove(&world.url(), OTHER, watch).await.unwrap();
    cache.remove(&world.url(), OTHER, watch).await.unwrap();
    cache.remove_scratch(OTHER).await.unwrap();
    assert!(!kept.path.exists() && !busy.exists());
    for bad in ["", "..", "../x", "-x", "a/b", "a\0"] {
        assert!(
            matches!(cache.scratch(bad), Err(GitError::JobId(_))),
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn clones_that_no_job_uses_are_evicted_and_made_again() {
    let world = World::new();
    let (cache, watch) = (world.cache(), Watch::quiet(&world.cancel));
    let all = |age| CacheBounds { age, bytes: 0 };
    world.checkout(JOB).await;
    let none: [String; 0] = [];
    assert_eq!(cache.evict(all(Duration::ZERO), watch).await.unwrap(), none);
    assert!(world.repo().exists(), "a job uses it");
    assert!(cache.is_untouched(&world.url(), JOB).await.unwrap());
    let folder = cache.job_folders().pop().unwrap();
    assert_eq!((folder.job.as_str(), folder.is_worktree), (JOB, true));
    fs::write(world.checkout(JOB).await.path.join("new"), "x").unwrap();
    assert!(!cache.is_untouched(&world.url(), JOB).await.unwrap());

    cache.remove(&world.url(), JOB, watch).await.unwrap();
    let day = Duration::from_secs(86_400);
    assert_eq!(cache.evict(all(day), watch).await.unwrap(), none);
    let full = CacheBounds { age: day, bytes: 1 };
    assert_eq!(cache.evict(full, watch).await.unwrap(), [world.url().key()]);
    assert!(!world.repo().exists());
    world.checkout(OTHER).await;
    assert!(world.repo().exists());
}
