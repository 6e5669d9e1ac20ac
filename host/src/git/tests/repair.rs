//! What was killed half way or damaged is made whole again.

use super::*;

#[tokio::test]
async fn the_rest_of_a_killed_clone_is_replaced() {
    let world = World::new();
    // Everything but the fetch works; that one is killed in the middle.
    let cache = world.cache_behind("case \"$*\" in *' fetch '*) kill -9 $$;; esac");
    let url = world.url();
    let request = wanted(&url, JOB);
    let killed = cache
        .checkout(request, Watch::quiet(&world.cancel))
        .await
        .unwrap_err();
    assert!(
        killed.to_string().contains("killed by signal 9"),
        "{killed}"
    );
    assert!(!world.repo().exists());

    // A server that was killed itself leaves such a folder, and may leave one in the clone's place.
    git(
        &world.dir.path().join("cache"),
        &[
            "init",
            "--quiet",
            "--bare",
            &world.repo().display().to_string(),
        ],
    );
    assert!(world.checkout(JOB).await.path.join("one.txt").exists());
}

#[tokio::test]
async fn a_damaged_clone_is_made_again_and_jobs_keep_their_work() {
    let world = World::new();
    let worktree = world.checkout(JOB).await;
    let work = world.commit(&worktree.path, "work.txt", "work");
    fs::write(worktree.path.join("draft.txt"), "draft").unwrap();
    // The remote's branch points to nothing.
    let trunk = git(&world.origin(), &["rev-parse", "trunk"]);
    let nothing = "1234567812345678123456781234567812345678";
    git(&world.repo(), &["pack-refs", "--all"]);
    let packed = world.repo().join("packed-refs");
    let refs = fs::read_to_string(&packed).unwrap();
    fs::write(
        &packed,
        refs.replace(
            &format!("{trunk} refs/remotes"),
            &format!("{nothing} refs/remotes"),
        ),
    )
    .unwrap();

    let other = world.checkout(OTHER).await;
    assert_eq!(other.base_commit, trunk);
    let again = world.checkout(JOB).await;
    assert_eq!(
        again,
        Worktree {
            reused: true,
            ..worktree
        }
    );
    assert_eq!(git(&again.path, &["rev-parse", "HEAD"]), work);
    assert_eq!(git(&again.path, &["status", "--porcelain"]), "?? draft.txt");
}

#[tokio::test]
async fn lost_objects_are_met_and_cured() {
    let world = World::new();
    world.checkout(JOB).await;
    let tree = git(&world.origin(), &["rev-parse", "trunk^{tree}"]);
    // Unpack, then lose one tree.
    let objects = world.repo().join("objects");
    for pack in fs::read_dir(objects.join("pack"))
        .unwrap()
        .flatten()
        .filter(|f| f.path().extension().is_some_and(|e| e == "pack"))
    {
        let aside = world.dir.path().join("aside.pack");
        fs::rename(pack.path(), &aside).unwrap();
        let shell = format!(
            "git --git-dir={} unpack-objects -q < {}",
            world.repo().display(),
            aside.display()
        );
        assert!(
            Command::new("sh")
                .args(["-c", &shell])
                .status()
                .unwrap()
                .success()
        );
    }
    fs::remove_file(objects.join(&tree[..2]).join(&tree[2..])).unwrap();
    let other = world.checkout(OTHER).await;
    assert!(other.path.join("two.txt").exists());
}

#[tokio::test]
async fn a_broken_worktree_is_rebuilt_from_its_branch() {
    let world = World::new();
    let worktree = world.checkout(JOB).await;
    let work = world.commit(&worktree.path, "work.txt", "work");
    world.commit(&world.origin(), "later.txt", "moved on");
    for damage in ["folder", "gone", "marker", "git"] {
        match damage {
            "folder" => fs::remove_dir_all(&worktree.git_dir).unwrap(),
            "gone" => fs::remove_dir_all(&worktree.path).unwrap(),
            "marker" => {
                // As a checkout that was killed half way.
                fs::remove_file(worktree.git_dir.join("agenticore-ready")).unwrap();
                fs::remove_file(worktree.path.join("work.txt")).unwrap();
            }
            _ => fs::write(worktree.git_dir.join("HEAD"), "").unwrap(),
        }
        let again = world.checkout(JOB).await;
        assert_eq!(
            again,
            Worktree {
                reused: true,
                ..worktree.clone()
            },
            "{damage}"
        );
        assert_eq!(git(&again.path, &["rev-parse", "HEAD"]), work, "{damage}");
        assert!(
            again.path.join("work.txt").exists() && !again.path.join("later.txt").exists(),
            "{damage}"
        );
    }
}

#[tokio::test]
async fn small_damage_is_cured_in_place() {
    let world = World::new();
    let worktree = world.checkout(JOB).await;
    fs::write(worktree.path.join("draft.txt"), "draft").unwrap();
    fs::write(worktree.git_dir.join("index.lock"), "").unwrap();
    fs::write(worktree.git_dir.join("index"), "torn").unwrap();
    fs::write(worktree.path.join(".git"), "gitdir: /nowhere").unwrap();
    let again = world.checkout(JOB).await;
    assert_eq!(git(&again.path, &["status", "--porcelain"]), "?? draft.txt");
    world.commit(&again.path, "work.txt", "work");
}

#[tokio::test]
async fn the_rest_of_a_killed_worktree_is_replaced() {
    let world = World::new();
    world.checkout(OTHER).await;
    let cache =
        world.cache_behind("case \"$*\" in *' worktree add '*) git \"$@\"; kill -9 $$;; esac");
    let url = world.url();
    let request = wanted(&url, JOB);
    cache
        .checkout(request, Watch::quiet(&world.cancel))
        .await
        .unwrap_err();
    let commit = world.commit(&world.origin(), "later.txt", "moved on");
    let worktree = world.checkout(JOB).await;
    assert_eq!((worktree.base_commit, worktree.reused), (commit, false));
    assert!(worktree.path.join("later.txt").exists());
}

#[tokio::test]
async fn locks_that_a_killed_git_left_do_not_stop_a_fetch() {
    let world = World::new();
    world.checkout(JOB).await;
    fs::write(world.repo().join("refs/remotes/origin/trunk.lock"), "").unwrap();
    let commit = world.commit(&world.origin(), "later.txt", "moved on");
    assert_eq!(world.checkout(OTHER).await.base_commit, commit);
}

#[tokio::test]
async fn what_an_agent_plants_in_the_configuration_is_taken_out() {
    let world = World::new();
    let worktree = world.checkout(JOB).await;
    let proof = world.dir.path().join("proof");
    let touch = format!("touch {}", proof.display());
    for name in [
        "core.sshCommand",
        "core.fsmonitor",
        "core.alternateRefsCommand",
        "remote.origin.uploadpack",
        "credential.helper",
    ] {
        git(&worktree.path, &["config", name, &touch]);
    }
    git(
        &worktree.path,
        &[
            "config",
            "url.file:///nowhere.insteadOf",
            world.url().as_str(),
        ],
    );
    git(
        &worktree.path,
        &[
            "config",
            &format!("remote.{}.uploadpack", world.url()),
            &touch,
        ],
    );
    git(&worktree.path, &["config", "include.path", "/nowhere"]);
    git(&worktree.path, &["config", "user.name", "A Person"]);
    git(
        &worktree.path,
        &["config", "branch.x.merge", "refs/heads/x"],
    );
    fs::create_dir_all(world.repo().join("hooks")).unwrap();
    for hook in ["post-checkout", "reference-transaction", "post-commit"] {
        let file = world.repo().join("hooks").join(hook);
        fs::write(&file, format!("#!/bin/sh\n{touch}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let commit = world.commit(&world.origin(), "later.txt", "moved on");
    let other = world.checkout(OTHER).await;
    assert_eq!(other.base_commit, commit);
    world
        .cache()
        .changed_files(&other, &world.cancel)
        .await
        .unwrap();
    assert!(!proof.exists());
    let left = git(
        &world.repo(),
        &["config", "--local", "--name-only", "--list"],
    );
    assert!(
        left.contains("user.name") && left.contains("branch.x.merge"),
        "{left}"
    );
    for gone in [
        "sshcommand",
        "insteadof",
        "uploadpack",
        "include",
        "credential",
        "fsmonitor",
    ] {
        assert!(!left.contains(gone), "{left}");
    }
}
