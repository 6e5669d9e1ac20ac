//! What a server clears away by itself, and what it keeps.

use std::path::{Path, PathBuf};

use agenticore_tests::{Repo, ScriptedAgent, World, until};
use serde_json::json;

use crate::text;

#[tokio::test]
async fn worktrees_go_when_their_work_is_safe_and_sessions_stay() {
    let builder = World::builder()
        .env("AGENTICORE_WORKTREE_RETENTION", "1")
        .env("AGENTICORE_REPO_CACHE_MAX_AGE", "0")
        .profile("talk", "extends: code\nauto_pr: false\n");
    let agent = ScriptedAgent::write(
        &builder.path(""),
        r#"task=$(cat)
        case "$session" in */*) file=$session ;; *) mkdir -p "$CLAUDE_CONFIG_DIR/projects/-w"; file=$CLAUDE_CONFIG_DIR/projects/-w/$session.jsonl ;; esac
        echo "on record: $(cat "$file" 2>/dev/null)"; printf '{"type":"user","text":"%s"}\n' "$task" >> "$file"
        case "$task" in change) echo x > changed.txt ;; fail) exit 1 ;; esac"#,
    );
    let world = builder
        .env("AGENTICORE_CLAUDE_BINARY", &agent.program())
        .start();
    let repo = Repo::create(world.path("remote"));
    let mut jobs = Vec::new();
    for task in ["look at the blue door", "change", "fail"] {
        let body = json!({"task": task, "profile": "talk", "repo_url": repo.url()});
        let id = world.submit_body(&body).await;
        jobs.push(world.ended(&id).await);
    }
    let path = |n: usize| PathBuf::from(text(&jobs[n], "worktree_path"));
    until("the worktree that holds nothing new is gone", || async {
        (!path(0).exists()).then_some(())
    })
    .await;
    assert!(
        path(1).join("changed.txt").exists(),
        "work that is nowhere else"
    );
    assert!(path(2).exists(), "for whoever looks for the reason");
    let clone = Path::new(&path(0))
        .ancestors()
        .nth(2)
        .map(|p| p.join("repo"));
    assert!(clone.is_some_and(|clone| clone.exists()), "two jobs use it");

    // The session outlives the worktree.
    let body = json!({"task": "which door", "profile": "talk", "session_id": text(&jobs[0], "session_id")});
    let id = world.submit_body(&body).await;
    assert_eq!(text(&world.ended(&id).await, "status"), "succeeded");
    world.logged(&id, "blue door").await;
}

#[tokio::test]
async fn what_attempts_left_unfinished_goes_once_it_is_old() {
    let builder = World::builder();
    let jobs = builder.path("shared/jobs");
    let unfinished = |name: &str| {
        let folder = jobs.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("half"), "x").unwrap();
        folder
    };
    let (old, young) = (
        unfinished(".agenticore-tmp.one.1"),
        unfinished(".agenticore-tmp.other.1"),
    );
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(7_200);
    std::fs::File::open(&old)
        .unwrap()
        .set_modified(past)
        .unwrap();
    let shared = builder.path("shared").display().to_string();
    let world = builder.env("AGENTICORE_SHARED_FS_ROOT", &shared).start();
    until("the old one is gone", || async {
        (!old.exists()).then_some(())
    })
    .await;
    assert!(young.exists(), "somebody may be writing it");
    drop(world);
}
