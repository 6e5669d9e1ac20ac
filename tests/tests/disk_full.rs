//! A full disk: new jobs are refused, and the end of a running one is not lost.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use agenticore_tests::{World, skip, until};
use serde_json::{Value, json};

use crate::{field, number, text};

/// A small file system in memory; it goes away when this is dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// None where this user may not mount.
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(&at)
            .stderr(std::process::Stdio::null())
            .status();
        status.is_ok_and(|s| s.success()).then_some(Self(at))
    }

    /// Writes until not one byte more fits.
    fn fill(&self) {
        let mut file = fs::File::create(self.filler()).unwrap();
        for size in [65_536, 4_096, 1] {
            while file.write_all(&vec![0_u8; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_new_jobs_and_loses_no_end() {
    let builder = World::builder();
    let Some(disk) = Tmpfs::mount(builder.path("state")) else {
        skip(
            "disk_full::a_full_disk_refuses_new_jobs_and_loses_no_end",
            "this user may not mount a file system",
        );
        return;
    };
    let jobs_dir = disk.0.join("jobs");
    let world = builder
        .env("AGENTICORE_JOBS_DIR", &jobs_dir.display().to_string())
        .start();
    let gate = world.gate("held");
    let script = format!("echo began; {}; echo over", gate.wait());
    let id = world.submit(&script).await;
    world.logged(&id, "began").await;
    until("the server is ready", || async {
        (world.get("/readyz").await.status == 200).then_some(())
    })
    .await;

    disk.fill();
    let before = names(&jobs_dir);
    let reply = world
        .post("/jobs", &json!({"task": "echo no", "profile": "shell"}))
        .await;
    assert_eq!(
        (reply.status, text(&reply.body, "code")),
        (507, "storage_full"),
        "{}",
        reply.text
    );
    assert_eq!(
        names(&jobs_dir),
        before,
        "nothing is left of the refused job"
    );
    assert_eq!(world.jobs().await.len(), 1);
    let store = store_check(&world).await;
    assert_eq!(field(&store, "ok"), &json!(false), "{store}");
    assert!(text(&store, "detail").contains("No space"), "{store}");
    let run = world.cli(&["run", "echo no", "--profile", "shell"]).await;
    assert_eq!(run.code, Some(1), "{}", run.stderr);

    // The job ends while its end cannot be written.
    gate.open();
    until("the agent is gone", || async {
        let reply = world.get("/health").await;
        assert_eq!(reply.status, 200);
        world.agents().is_empty().then_some(())
    })
    .await;
    assert_eq!(
        text(&world.job(&id).await, "status"),
        "running",
        "not over before it is stored"
    );
    disk.free();
    let job = world.ended(&id).await;
    assert_eq!(
        (text(&job, "status"), number(&job, "attempt")),
        ("succeeded", 1),
        "{job}"
    );
    assert!(text(&job, "output").contains("over"), "{job}");
    let events = world.events(&id).await;
    let seqs: Vec<u64> = events.iter().map(|event| number(event, "seq")).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(text(events.last().unwrap(), "type"), "end");

    let next = world.submit("echo next").await;
    assert_eq!(text(&world.ended(&next).await, "status"), "succeeded");
    assert_eq!(field(&store_check(&world).await, "ok"), &json!(true));
    drop(world);
    drop(disk);
}

/// What a ready server says of its store.
async fn store_check(world: &World) -> Value {
    let reply = world.get("/readyz?verbose").await;
    assert_eq!(
        reply.status, 200,
        "a store in trouble is no reason to be taken out: {}",
        reply.text
    );
    let checks = field(&reply.body, "checks").as_array().unwrap();
    let store = checks.iter().find(|check| text(check, "name") == "store");
    store.unwrap().clone()
}

/// The names of all files below a folder.
fn names(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(names(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}
