//! The server as adoptive parent, and what a killed server leaves. Each test has a process of its own, because these things are
//! properties of the whole process.

use std::os::unix::process::CommandExt;

use super::*;

fn in_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}

fn dead_children() -> Vec<u32> {
    table::entries()
        .filter(|entry| entry.parent == std::process::id() && entry.is_dead())
        .map(|entry| entry.pid())
        .collect()
}

#[test]
fn orphans_are_reaped_and_no_exit_is_stolen() {
    if !alone("process::tests::supervising::orphans_are_reaped_and_no_exit_is_stolen") {
        return;
    }
    in_runtime(async {
        let _reaper = init().unwrap();
        let dir = TempDir::new().unwrap();
        let runs = (0..120).map(|number| {
            let code = number % 50;
            // Each leaves an orphan that ends by itself.
            let spawn = shell(
                &dir,
                &format!("j{number}"),
                &format!("( ( exec sleep 0.0{} ) & ); exit {code}", number % 7),
            );
            async move { (run(spawn).await.0.exit.code, Some(code)) }
        });
        for (got, expected) in futures::future::join_all(runs).await {
            assert_eq!(got, expected);
        }
        until("the orphans are reaped", || dead_children().is_empty()).await;
        // What others start without us stays theirs to wait for.
        let mut foreign = Command::new("sh").args(["-c", "exit 9"]).spawn().unwrap();
        until("it is dead", || !lives(foreign.id())).await;
        run(shell(&dir, "j1", "( ( : ) & ); exit 0")).await;
        until("ours are reaped", || dead_children() == [foreign.id()]).await;
        assert_eq!(foreign.wait().unwrap().code(), Some(9));
    });
}

#[test]
fn strays_that_emptied_their_environment_go_with_the_last_job() {
    if !alone(
        "process::tests::supervising::strays_that_emptied_their_environment_go_with_the_last_job",
    ) {
        return;
    }
    in_runtime(async {
        let _reaper = init().unwrap();
        let dir = TempDir::new().unwrap();
        let script = "( env -i PATH=\"$PATH\" setsid sh -c 'echo $$ > pid; exec sleep 1000' >/dev/null 2>&1 & ); while [ ! -s pid ]; do sleep 0.01; done";
        let (mut other, _output) = shell(&dir, "other", "exec sleep 1000")
            .start(LineLimits::default())
            .unwrap();
        run(shell(&dir, "j1", script)).await;
        let stray = pids(&dir.path().join("pid"))[0];
        assert_eq!(table::entry(stray).unwrap().parent, std::process::id());
        // It could be the other job's.
        assert!(lives(stray));
        let ended = other.kill_tree().await;
        assert!(!lives(stray), "{ended:?}");
        assert_eq!(ended.cleanup.killed, 2);
    });
}

/// The part of a server: starts a job and hangs.
#[test]
fn server_to_be_killed() {
    let Ok(dir) = std::env::var("AGENTICORE_TEST_SERVER") else {
        return;
    };
    in_runtime(async {
        let _reaper = init().unwrap();
        let marker = JobMarker::new(&Instance::of(Path::new(&dir), "pod-0"), "j1", 1);
        let script = "setsid sh -c 'echo $$ >> pids; exec sleep 1000' & echo $$ >> pids; wait";
        let env = BTreeMap::from([("PATH".into(), std::env::var_os("PATH").unwrap())]);
        let arguments = vec!["-c".into(), script.into()];
        let spawn = Spawn {
            program: "sh".into(),
            arguments,
            env,
            cwd: dir.into(),
            stdin: None,
            marker,
        };
        let _child = spawn.start(LineLimits::default()).unwrap();
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn what_a_killed_server_left_is_swept_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "process::tests::supervising::server_to_be_killed",
        ])
        .env("AGENTICORE_TEST_SERVER", dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let file = dir.path().join("pids");
    until("its job runs", || pids(&file).len() == 2).await;
    let left = pids(&file);
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(left.iter().all(|pid| lives(*pid)));

    let report = sweep_stale(&Instance::of(dir.path(), "pod-1")).await;
    assert_eq!(report, KillReport::default());
    assert!(left.iter().all(|pid| lives(*pid)));
    let report = sweep_stale(&instance(&dir)).await;
    assert_eq!(
        report,
        KillReport {
            killed: 2,
            survivors: Vec::new()
        }
    );
    assert!(!left.into_iter().any(lives));
}

#[test]
fn a_server_does_not_sweep_itself_away() {
    // It may run inside of a job, and of one of its own instance.
    let dir = TempDir::new().unwrap();
    if std::env::var(ALONE).is_err() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args([
            "--exact",
            "process::tests::supervising::a_server_does_not_sweep_itself_away",
        ]);
        let marker = JobMarker::new(&instance(&dir), "j1", 1).to_string();
        again
            .env(ALONE, dir.path())
            .env(JOB_VARIABLE, marker)
            .stdout(std::process::Stdio::null());
        assert!(again.status().unwrap().success());
        return;
    }
    in_runtime(async {
        let instance = Instance::of(Path::new(&std::env::var(ALONE).unwrap()), "pod-0");
        assert_eq!(sweep_stale(&instance).await, KillReport::default());
    });
}

/// As an ordinary user, whom the kernel does not let read everything.
#[test]
fn the_server_is_closed_to_its_children_and_they_are_open_to_it() {
    const NAME: &str =
        "process::tests::supervising::the_server_is_closed_to_its_children_and_they_are_open_to_it";
    if std::env::var(ALONE).is_err() {
        let dir = TempDir::new().unwrap();
        let copy = dir.path().join("tests");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o777),
        )
        .unwrap();
        let mut again = Command::new(&copy);
        again
            .args(["--exact", NAME, "--nocapture"])
            .env(ALONE, NAME)
            .env("SERVER_SECRET", "s3cret")
            .env("TMPDIR", dir.path());
        if rustix::process::getuid().is_root() {
            again.uid(65534).gid(65534);
        }
        let output = again.current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    in_runtime(async {
        assert!(!rustix::process::getuid().is_root());
        let dir = TempDir::new().unwrap();
        let peek = "tr '\\0' '\\n' < /proc/$PPID/environ | grep -c s3cret";
        assert_eq!(run(shell(&dir, "j1", peek)).await.1[0].text, "1");
        let _reaper = init().unwrap();
        assert_ne!(run(shell(&dir, "j1", peek)).await.1[0].text, "1");
        // Neither by descent nor by group, only by its marker.
        let script = "( setsid sh -c 'echo $$ > pid; exec sleep 1000' >/dev/null 2>&1 & ); while [ ! -s pid ]; do sleep 0.01; done";
        let (mut other, _output) = shell(&dir, "other", "exec sleep 1000")
            .start(LineLimits::default())
            .unwrap();
        let (ended, _) = run(shell(&dir, "j1", script)).await;
        assert_eq!(ended.cleanup.killed, 1);
        assert!(!lives(pids(&dir.path().join("pid"))[0]));
        other.kill_tree().await;
    });
}
