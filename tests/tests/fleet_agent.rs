//! A job of the real agent CLI moves from one pod to another in its middle, and goes on with what it knew.

use std::path::Path;
use std::process::Command;

use agenticore_tests::{Builder, Fleet, Model, Redis, Repo, Turn, skip, this_test, tool, until};
use serde_json::json;

use crate::claude_cli::{bash, cli, with_agent};
use crate::{number, text};

/// Puts a mount of its own over the folder that all pods share. Kernels keep the locks of a FUSE mount by themselves where its
/// program does not, and bindfs does not, so no pod sees another's flock.
const OWN_MOUNT: &str = "env -i \"$0\" -o nonempty \"$AGENTICORE_SHARED_FS_ROOT\" \"$AGENTICORE_SHARED_FS_ROOT\" && \"$@\"; exit $?";

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_pod_hands_its_agent_to_another() {
    moves(this_test!(), |builder| builder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_pod_hands_its_agent_to_one_whose_mount_shares_no_lock() {
    let test = this_test!();
    let Some(bindfs) = tool(test, "bindfs") else {
        return;
    };
    let bindfs = bindfs.display().to_string();
    if let Err(reason) = mounts_apart(&bindfs) {
        return skip(test, &reason);
    }
    let through = ["unshare", "--mount", "sh", "-c", OWN_MOUNT, &bindfs];
    moves(test, |builder| builder.through(&through)).await;
}

/// Whether two mounts can be set up here that do not share locks.
fn mounts_apart(bindfs: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().display().to_string();
    // The lock is taken outside, and once more inside.
    let inside = ["sh", "-c", "exec 9>>\"$1/lock\"; flock -n 9", "sh", &path];
    let locked = Command::new("flock")
        .arg(format!("{path}/lock"))
        .args(["unshare", "--mount", "sh", "-c", OWN_MOUNT, bindfs])
        .args(inside)
        .env("AGENTICORE_SHARED_FS_ROOT", &path)
        .output()
        .map_err(|e| format!("flock cannot be started: {e}"))?;
    let said = String::from_utf8_lossy(&locked.stderr).into_owned();
    match locked.status.success() {
        true => Ok(()),
        false => Err(format!("no mount of its own can be made here: {said}")),
    }
}

async fn moves(test: &str, set_up: impl Fn(Builder) -> Builder) {
    let Some(cli) = cli(test) else {
        return;
    };
    if !Redis::is_installed(test) {
        return;
    }
    let model = Model::start([
        bash("echo known-result; echo work > work.txt"),
        Turn::Silence,
    ])
    .await;
    let fleet = Fleet::start(2, Redis::durable(), |_, builder| {
        set_up(with_agent(builder, &cli, &model.url()))
    });
    let repo = Repo::create(fleet.shared_path("remote"));
    let body = json!({"task": "Do the work.", "profile": "real", "repo_url": repo.url()});
    let id = fleet.pod(0).submit_body(&body).await;
    model.asked(2).await;
    let first = fleet.pod(1).job(&id).await;
    let from = Fleet::number_of(&first).expect("it runs on a pod");
    let to = 1 - from;
    let before = model.requests().len();
    let commit = "git add -A && git -c user.name=A -c user.email=a@localhost commit -qm work && git ls-tree --name-only HEAD";
    model.script([bash(commit), Turn::Text("Went on.".into())]);

    let drained = fleet.pod(from).cli(&["drain", "--timeout", "0"]).await;
    assert_eq!(drained.code, Some(8), "handed off: {drained:?}");
    until("nothing of it is left on the first pod", || async {
        let left = fleet.pod(from).agents();
        let is_gone = !left.iter().any(|line| line.contains("claude"));
        is_gone.then_some(())
    })
    .await;
    let job = fleet.pod(from).ended(&id).await;
    assert_eq!(
        (
            text(&job, "status"),
            number(&job, "attempt"),
            Fleet::number_of(&job)
        ),
        ("succeeded", 2, Some(to)),
        "{job}"
    );
    assert!(text(&job, "output").contains("Went on."), "{job}");
    for same in ["session_id", "worktree_path", "branch"] {
        assert_eq!(text(&job, same), text(&first, same), "{same}: {job}");
    }
    let requests = model.requests();
    let resumed = requests[before]["messages"].to_string();
    for words in ["Do the work.", "known-result", "may have run in part"] {
        assert!(resumed.contains(words), "{words:?} is not in {resumed}");
    }
    let last = requests.last().expect("it asked").to_string();
    assert!(
        last.contains("README.md\\nwork.txt"),
        "the work came along: {last}"
    );
    assert!(
        Path::new(text(&job, "worktree_path"))
            .join("work.txt")
            .exists()
    );
}
