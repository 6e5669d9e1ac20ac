//! Jobs in repositories: a worktree each, the ref that was asked for, and commits without anything of ours in them.

use agenticore_tests::{Repo, ScriptedAgent, World};
use serde_json::{Value, json};

use crate::{field, text};

/// What an agent's `git commit` needs, and nothing else.
const COMMIT: &str =
    "git -c user.name=Agent -c user.email=agent@localhost commit --quiet --message work";

fn in_repo(repo: &Repo, script: &str) -> Value {
    json!({"task": script, "profile": "shell", "repo_url": repo.url()})
}

#[tokio::test]
async fn a_job_works_on_a_branch_of_its_own_from_the_default_branch() {
    let world = World::start();
    let repo = Repo::create(world.path("remote"));
    let head = repo.git(&["rev-parse", "main"]).trim().to_owned();
    let id = world
        .submit_body(&in_repo(
            &repo,
            "cat README.md; git status --porcelain; git rev-parse HEAD; git branch --show-current",
        ))
        .await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
    let lines: Vec<&str> = text(&job, "output").lines().collect();
    assert_eq!(
        lines[..2],
        ["a readme", head.as_str()],
        "a clean tree at the tip of the default branch"
    );
    assert_eq!(lines.get(2).copied(), Some(text(&job, "branch")));
    assert!(text(&job, "branch") != "main" && !text(&job, "branch").is_empty());
    assert_eq!(text(&job, "base_commit"), head);
    assert_eq!(text(&job, "repo_url"), repo.url());
    assert_eq!(
        repo.git(&["rev-parse", "main"]).trim(),
        head,
        "the remote is untouched"
    );
}

#[tokio::test]
async fn the_ref_that_was_asked_for_is_what_the_job_gets() {
    let world = World::start();
    let repo = Repo::create(world.path("remote"));
    let first = repo.git(&["rev-parse", "main"]).trim().to_owned();
    let dev = repo.commit("dev", "dev.txt", "dev\n");
    repo.git(&["tag", "v1", &first]);
    repo.commit("main", "later.txt", "later\n");
    for (base_ref, commit) in [("dev", &dev), ("v1", &first), (dev.as_str(), &dev)] {
        let mut body = in_repo(&repo, "git rev-parse HEAD");
        body["base_ref"] = json!(base_ref);
        let id = world.submit_body(&body).await;
        let job = world.ended(&id).await;
        assert_eq!(text(&job, "status"), "succeeded", "{base_ref}: {job}");
        assert_eq!(text(&job, "output").trim(), commit, "{base_ref}");
    }
    let mut body = in_repo(&repo, "true");
    body["base_ref"] = json!("no-such-branch");
    let id = world.submit_body(&body).await;
    let job = world.ended(&id).await;
    let failure = field(&job, "failure");
    assert_eq!(
        (text(&job, "status"), text(failure, "class")),
        ("failed", "clone"),
        "{job}"
    );
    assert!(
        text(failure, "message").contains("no-such-branch"),
        "{failure}"
    );
}

#[tokio::test]
async fn new_commits_of_the_remote_are_seen_by_the_next_job() {
    let world = World::start();
    let repo = Repo::create(world.path("remote"));
    let id = world.submit_body(&in_repo(&repo, "ls")).await;
    assert!(!text(&world.ended(&id).await, "output").contains("new.txt"));
    repo.commit("main", "new.txt", "new\n");
    let id = world.submit_body(&in_repo(&repo, "ls")).await;
    assert!(text(&world.ended(&id).await, "output").contains("new.txt"));
    let cloned: Vec<_> = std::fs::read_dir(world.path("repos"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(cloned.len(), 1, "one clone for each repository: {cloned:?}");
}

#[tokio::test]
async fn jobs_of_one_repository_do_not_see_each_other() {
    let world = World::start();
    let repo = Repo::create(world.path("remote"));
    let gate = world.gate("both");
    let script = format!(
        "echo mine > $AGENTICORE_MARK; echo x > f; git add -A; {COMMIT}; echo committed; {}; git log --oneline | wc -l; git status --porcelain",
        gate.wait()
    );
    let script = script.replace("$AGENTICORE_MARK", "mark");
    let first = world.submit_body(&in_repo(&repo, &script)).await;
    let second = world.submit_body(&in_repo(&repo, &script)).await;
    for id in [&first, &second] {
        world.logged(id, "committed").await;
    }
    let (one, two) = (world.job(&first).await, world.job(&second).await);
    assert_ne!(text(&one, "worktree_path"), text(&two, "worktree_path"));
    assert!(
        std::path::Path::new(text(&one, "worktree_path"))
            .join("mark")
            .exists(),
        "the recorded path is true"
    );
    gate.open();
    for id in [&first, &second] {
        let job = world.ended(id).await;
        assert_eq!(text(&job, "status"), "succeeded", "{job}");
        assert_eq!(
            text(&job, "output").trim(),
            "committed\n2",
            "one commit over the base, and a clean tree"
        );
    }
    assert_ne!(
        text(&world.job(&first).await, "branch"),
        text(&world.job(&second).await, "branch")
    );
}

#[tokio::test]
async fn submodules_are_checked_out_where_the_profile_says_so() {
    let world = World::builder()
        .profile("with", "extends: shell\nrepository: {submodules: true}\n")
        .start();
    let (outer, middle, inner) = (
        Repo::create(world.path("outer")),
        Repo::create(world.path("middle")),
        Repo::create(world.path("inner")),
    );
    inner.commit("main", "inner.txt", "deep\n");
    middle.add_submodule("sub", &inner);
    outer.add_submodule("lib", &middle);
    let show = "cat lib/sub/inner.txt 2>/dev/null || echo none; git status --porcelain";
    for (profile, found) in [("shell", "none\n"), ("with", "deep\n")] {
        let body = json!({"task": show, "profile": profile, "repo_url": outer.url()});
        let id = world.submit_body(&body).await;
        let job = world.ended(&id).await;
        assert_eq!(text(&job, "status"), "succeeded", "{job}");
        assert_eq!(text(&job, "output"), found, "{profile}: {job}");
    }
    // A submodule that cannot be had fails the job before it starts.
    std::fs::remove_dir_all(inner.path()).unwrap();
    let body = json!({"task": show, "profile": "with", "repo_url": outer.url()});
    let id = world.submit_body(&body).await;
    let job = world.ended(&id).await;
    let failure = crate::field(&job, "failure");
    assert_eq!(text(failure, "class"), "clone", "{job}");
    assert!(text(failure, "message").contains("submodule"), "{job}");
}

#[tokio::test]
async fn files_of_the_profile_never_enter_a_commit() {
    let builder = World::builder();
    let tree = builder.path("tree");
    let seen = builder.path("seen");
    let body = format!(
        "ls -A . .claude > '{1}' 2>&1; echo work > work.txt; git add -A; {COMMIT}; git ls-tree -r --name-only HEAD > '{0}'; git status --porcelain >> '{0}'",
        tree.display(),
        seen.display()
    );
    let agent = ScriptedAgent::write(&builder.path(""), &body);
    let world = builder
        .programs(agent.folder())
        .profile("mine", "extends: code\nauto_pr: false\n")
        .file("profiles/mine/.claude/CLAUDE.md", "be brief\n")
        .file(
            "profiles/mine/.claude/settings.json",
            "{\"permissions\": {\"deny\": [\"WebFetch\"]}}\n",
        )
        .file("profiles/mine/.mcp.json", "{\"mcpServers\": {}}\n")
        .start();
    let repo = Repo::create(world.path("remote"));
    let id = world
        .submit_body(&json!({"task": "do it", "profile": "mine", "repo_url": repo.url()}))
        .await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
    assert_eq!(
        world.read("tree"),
        "README.md\nwork.txt\n",
        "what the commit holds; it saw: {}",
        world.read("seen")
    );
    // They were there: the agent is told of a directory that holds them.
    let config = std::path::Path::new(text(&job, "job_config_dir"));
    assert!(!agent.calls().is_empty());
    assert!(config.is_absolute(), "{job}");
}

#[tokio::test]
async fn a_repository_cannot_configure_the_host() {
    let world = World::start();
    let repo = Repo::create(world.path("remote"));
    let canary = world.path("canary");
    // Attributes of the repository ask for a filter, and the agent's worktree configures one and a hook.
    repo.commit("main", ".gitattributes", "* filter=evil\n");
    let script = format!(
        "git config filter.evil.smudge 'touch {0}; cat'; git config core.fsmonitor 'touch {0}'; \
         mkdir -p $(git rev-parse --git-common-dir)/hooks; \
         printf '#!/bin/sh\\ntouch {0}\\n' > $(git rev-parse --git-common-dir)/hooks/post-checkout; \
         chmod +x $(git rev-parse --git-common-dir)/hooks/post-checkout; rm -f '{0}'",
        canary.display()
    );
    let id = world.submit_body(&in_repo(&repo, &script)).await;
    world.ended(&id).await;
    let id = world.submit_body(&in_repo(&repo, "cat README.md")).await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
    assert!(
        !canary.exists(),
        "the host ran what an agent left in the clone"
    );
}

#[tokio::test]
async fn a_path_on_the_command_line_is_a_repository() {
    let world = World::start();
    let repo = Repo::create(world.path("remote"));
    let path = repo.path().display().to_string();
    let run = world
        .cli(&[
            "run",
            "cat README.md",
            "--repo",
            &path,
            "--profile",
            "shell",
            "--wait",
        ])
        .await;
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (Some(0), "a readme\n"),
        "{}",
        run.stderr
    );
}
