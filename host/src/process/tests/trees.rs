//! A job's processes are gone when it is, however they tried to stay.

use super::*;

/// What agents and their tools leave behind: a tool in its own session, one that ignores signals, an orphan, a daemon.
const FAMILY: &str = r#"
tool() { sh -c 'trap "" TERM INT HUP; echo $$ >> pids; while :; do sleep 1000; done' "$1"; }
tool here &
setsid sh -c 'echo $$ >> pids; exec sleep 1000' &
( setsid sh -c 'trap "" TERM; echo $$ >> pids; sleep 1000 & wait; while :; do sleep 1000; done' & )
setsid sh -c '( setsid sh -c "echo \$\$ >> pids; exec sleep 1000" & )' &
nohup sh -c 'echo $$ >> pids; exec sleep 1000' > /dev/null 2>&1 &
while [ "$(wc -l < pids)" -lt 5 ]; do sleep 0.01; done
"#;

async fn gone(dir: &TempDir, at_least: usize) {
    let all = pids(&dir.path().join("pids"));
    assert!(all.len() >= at_least, "{all:?}");
    assert_eq!(
        all.into_iter()
            .filter(|pid| lives(*pid))
            .collect::<Vec<_>>(),
        Vec::<u32>::new()
    );
    assert_eq!(
        leftovers(&JobMarker::new(&instance(dir), "j1", 9)).await,
        Vec::<u32>::new()
    );
}

#[tokio::test]
async fn killing_reaches_the_whole_family() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("pids"), "").unwrap();
    let (mut child, _output) = shell(&dir, "j1", &format!("{FAMILY} touch ready; sleep 1000"))
        .start(LineLimits::default())
        .unwrap();
    until("the family is complete", || {
        dir.path().join("ready").exists()
    })
    .await;
    assert!(
        leftovers(&JobMarker::new(&instance(&dir), "j1", 1))
            .await
            .len()
            >= 6
    );
    assert_eq!(
        leftovers(&JobMarker::new(&instance(&dir), "j", 1)).await,
        Vec::<u32>::new()
    );
    let ended = child.kill_tree().await;
    assert_eq!(ended.exit.signal, Some(9));
    assert!(
        ended.cleanup.killed >= 6 && ended.cleanup.survivors.is_empty(),
        "{ended:?}"
    );
    assert_eq!(child.wait().await, ended);
    gone(&dir, 5).await;
}

#[tokio::test]
async fn nothing_outlives_a_normal_end() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("pids"), "").unwrap();
    let (ended, _) = run(shell(&dir, "j1", &format!("{FAMILY} exit 4"))).await;
    assert_eq!(ended.exit.code, Some(4));
    assert!(
        ended.cleanup.killed >= 5 && ended.cleanup.survivors.is_empty(),
        "{ended:?}"
    );
    gone(&dir, 5).await;
    let (ended, _) = run(shell(&dir, "j1", "exit 0")).await;
    assert_eq!(ended.cleanup, KillReport::default());
}

#[tokio::test]
async fn dropping_a_child_kills_its_family() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("pids"), "").unwrap();
    let (child, output) = shell(&dir, "j1", &format!("{FAMILY} touch ready; sleep 1000"))
        .start(LineLimits::default())
        .unwrap();
    until("the family is complete", || {
        dir.path().join("ready").exists()
    })
    .await;
    drop(output);
    drop(child);
    let all = pids(&dir.path().join("pids"));
    until("all are gone", || !all.iter().any(|pid| lives(*pid))).await;
}

#[test]
fn a_runtime_that_shuts_down_kills_the_family() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("pids"), "").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let child = runtime.block_on(async {
        let child = shell(&dir, "j1", &format!("{FAMILY} touch ready; sleep 1000"))
            .start(LineLimits::default())
            .unwrap();
        until("the family is complete", || {
            dir.path().join("ready").exists()
        })
        .await;
        child
    });
    drop(runtime);
    drop(child);
    assert!(!pids(&dir.path().join("pids")).into_iter().any(lives));
}

#[tokio::test]
async fn other_jobs_are_left_in_peace() {
    let dir = TempDir::new().unwrap();
    let (mut one, _out) = shell(&dir, "j1", "sleep 1000")
        .start(LineLimits::default())
        .unwrap();
    let (mut two, _out) = shell(&dir, "j11", "setsid sleep 1000")
        .start(LineLimits::default())
        .unwrap();
    one.kill_tree().await;
    assert!(lives(two.pid()));
    assert_eq!(two.kill_tree().await.exit.signal, Some(9));
}

/// Six runners, each of which starts its successor in a new session and ends, as fast as it can: whoever is signalled is gone.
/// They give up once the test's folder is gone, so that a test that fails does not leave them.
const RUNNERS: &str = r"
import os, time
for _ in range(6):
    if os.fork() == 0:
        n = 0
        while n < 20000:
            if os.fork() != 0:
                os._exit(0)
            os.setsid()
            n += 1
            if n == 20:
                open('running', 'a').write('x\n')
            if n % 20 == 0 and not os.path.exists('running'):
                break
        os._exit(0)
time.sleep(600)
";

#[test]
fn runners_that_never_stand_still_are_caught() {
    if !alone("process::tests::trees::runners_that_never_stand_still_are_caught") {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let _reaper = init().unwrap();
        let dir = TempDir::new().unwrap();
        let mut spawn = shell(&dir, "j1", "");
        (spawn.program, spawn.arguments) = ("python3".into(), vec!["-c".into(), RUNNERS.into()]);
        let started = spawn.start(LineLimits::default());
        if let Err(SpawnError::NotFound { .. }) = started {
            eprintln!("skipped: no python3");
            return;
        }
        let (mut child, _output) = started.unwrap();
        let running = dir.path().join("running");
        until("all run", || {
            fs::read_to_string(&running).is_ok_and(|text| text.lines().count() >= 6)
        })
        .await;
        let ended = child.kill_tree().await;
        assert_eq!(ended.cleanup.survivors, Vec::<u32>::new());
        // Some end by themselves: the system hangs up on those that are stopped and lose their parent.
        assert!(ended.cleanup.killed >= 1, "{ended:?}");
        assert_eq!(
            leftovers(&JobMarker::new(&instance(&dir), "j1", 1)).await,
            Vec::<u32>::new()
        );
    });
}

#[tokio::test]
async fn a_stop_is_for_the_child_alone() {
    let dir = TempDir::new().unwrap();
    let script = "sh -c 'trap \"touch signalled\" TERM INT; touch tool; while :; do sleep 0.01; done' & \
                  trap 'echo asked; exit 3' TERM; while [ ! -e tool ]; do sleep 0.01; done; touch ready; while :; do sleep 0.01; done";
    let (mut child, mut output) = shell(&dir, "j1", script)
        .start(LineLimits::default())
        .unwrap();
    until("it listens", || dir.path().join("ready").exists()).await;
    let stopper = child.stopper();
    stopper.stop(Signal::Terminate).unwrap();
    assert_eq!(output.next().await.unwrap().first().unwrap().text, "asked");
    assert_eq!(child.wait().await.exit.code, Some(3));
    assert!(!dir.path().join("signalled").exists());
    // The pid may be another's by now.
    stopper.stop(Signal::Terminate).unwrap();
    child.stop(Signal::Interrupt).unwrap();
}

#[tokio::test]
async fn waiting_may_be_given_up_and_taken_up_again() {
    let dir = TempDir::new().unwrap();
    let (mut child, mut output) = shell(&dir, "j1", "read x; echo got")
        .start(LineLimits::default())
        .unwrap();
    for _ in 0..3 {
        let _ = tokio::time::timeout(Duration::from_millis(1), child.wait()).await;
        let _ = tokio::time::timeout(Duration::from_millis(1), output.next()).await;
    }
    assert_eq!(child.wait().await, child.wait().await);
}
