//! One writer at a time, visible waiting, and prompt ends.

use std::sync::Mutex;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};

use super::*;
use crate::testing::until;

/// Set for the other process of a race: `ROOT|URL|JOB`.
const RACER: &str = "AGENTICORE_TEST_RACER";

#[tokio::test]
async fn many_jobs_share_one_clone() {
    let world = World::new();
    let log = world.dir.path().join("log");
    let cache = world.cache_behind(&format!("echo \"$*\" >> {}", log.display()));
    let url = world.url();
    let jobs: Vec<String> = (0..6)
        .map(|number| format!("{number}0000000-job"))
        .collect();
    let watch = Watch::quiet(&world.cancel);
    let checkouts = jobs
        .iter()
        .map(|job| cache.checkout(wanted(&url, job), watch));
    for worktree in join_all(checkouts).await {
        assert!(worktree.unwrap().path.join("two.txt").exists());
    }
    let log = fs::read_to_string(log).unwrap();
    assert_eq!(
        log.lines().filter(|line| line.contains(" init ")).count(),
        1,
        "{log}"
    );
}

#[tokio::test]
async fn no_two_calls_of_git_carry_one_marker() {
    let world = World::new();
    let log = world.dir.path().join("log");
    let program = world
        .wrapper(&format!("echo \"$AGENTICORE_JOB\" >> {}", log.display()))
        .into_os_string();
    for job in [JOB, "22222222-job"] {
        let cache = world.cache_with(GitOptions {
            program: program.clone(),
            ..world.options()
        });
        let url = world.url();
        let wanted = wanted(&url, job);
        cache
            .checkout(wanted, Watch::quiet(&world.cancel))
            .await
            .unwrap();
    }
    let log = fs::read_to_string(log).unwrap();
    let markers: std::collections::BTreeSet<&str> = log.lines().collect();
    assert!(markers.len() > 10, "{log}");
    // Whoever kills one call's processes would kill those of the other.
    assert_eq!(markers.len(), log.lines().count(), "{log}");
}

#[tokio::test]
async fn two_processes_share_one_clone() {
    let world = World::new();
    let racers: Vec<_> = (0..3)
        .map(|number| {
            let mut racer = Command::new(std::env::current_exe().unwrap());
            racer.args(["--exact", "git::tests::locking::racer", "--nocapture"]);
            racer.env(
                RACER,
                format!(
                    "{}|{}|{number}0000000-job",
                    world.dir.path().display(),
                    world.url()
                ),
            );
            racer.stdout(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    world.checkout(JOB).await;
    for racer in racers {
        let output = racer.wait_with_output().unwrap();
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("racer done"),
            "{output:?}"
        );
    }
    assert_eq!(git(&world.repo(), &["worktree", "list"]).lines().count(), 5);
    git(&world.repo(), &["fsck", "--no-dangling"]);
}

/// The other process of [`two_processes_share_one_clone`]; nothing on its own.
#[tokio::test]
async fn racer() {
    let Ok(what) = std::env::var(RACER) else {
        return;
    };
    let [dir, url, job] = what.split('|').collect::<Vec<_>>()[..] else {
        panic!("{what}")
    };
    let root = Path::new(dir).join("cache");
    let options = GitOptions {
        allow_file: true,
        ..GitOptions::new(Instance::of(Path::new(dir), job), std::env::vars_os())
    };
    let cache = RepoCache::new(
        &root,
        Git::new(options),
        Arc::new(FlockLock::new(&root)),
        &[],
    );
    let (url, cancel) = (RepoUrl::stored(url).unwrap(), CancellationToken::new());
    cache
        .checkout(wanted(&url, job), Watch::quiet(&cancel))
        .await
        .unwrap();
    println!("racer done");
}

#[tokio::test]
async fn waiting_is_told_and_ends_when_the_other_process_does() {
    let world = World::new();
    fs::create_dir_all(world.home()).unwrap();
    // Holds the lock until its input ends.
    let mut holder = Command::new("flock")
        .arg(world.home().join(".lock"))
        .args(["sh", "-c", "echo held; read x"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(holder.stdout.as_mut().unwrap()),
        &mut line,
    )
    .unwrap();
    assert_eq!(line, "held\n");

    let (url, cache) = (world.url(), world.cache());
    let input = Mutex::new(holder.stdin.take());
    let waits = Mutex::new(0);
    let on_wait = |_: Duration| {
        assert!(!world.repo().exists(), "work went on without the lock");
        *waits.lock().unwrap() += 1;
        drop(input.lock().unwrap().take());
    };
    let watch = Watch {
        cancel: &world.cancel,
        on_wait: &on_wait,
    };
    cache.checkout(wanted(&url, JOB), watch).await.unwrap();
    assert_eq!(*waits.lock().unwrap(), 1);
    holder.wait().unwrap();
}

#[tokio::test]
async fn a_waiter_can_give_up() {
    let world = World::new();
    let lock = FlockLock::new(world.root());
    let held = lock.acquire("key", &|_| {}, &world.cancel).await.unwrap();
    let cancel = CancellationToken::new();
    let on_wait = |_: Duration| cancel.cancel();
    let gave_up = lock.acquire("key", &on_wait, &cancel).await.unwrap_err();
    assert!(matches!(gave_up, LockError::Cancelled { .. }), "{gave_up}");
    drop(held);
    lock.acquire("key", &|_| panic!("it is free"), &world.cancel)
        .await
        .unwrap();
}

/// Runs a checkout whose git hangs, and `end`s it once it does.
async fn hang(
    world: &World,
    options: GitOptions,
    lock: Arc<dyn CloneLock>,
    end: impl FnOnce(),
) -> GitError {
    let hangs = world.dir.path().join("hangs");
    // The shell stays the parent of what hangs, which ignores polite signals.
    let script = format!(
        "trap '' TERM\ncase \"$*\" in *' fetch '*) echo $$ > {0}; sleep 1000; exit;; esac",
        hangs.display()
    );
    let git = Git::new(GitOptions {
        program: world.wrapper(&script).into_os_string(),
        ..options
    });
    let cache = RepoCache::new(world.root(), git, lock, &[]);
    let url = world.url();
    let job = cache.checkout(wanted(&url, JOB), Watch::quiet(&world.cancel));
    let ends = async {
        written(&hangs).await;
        end();
    };
    let both = async { tokio::join!(job, ends) };
    let (result, ()) = tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .unwrap();
    let pid = fs::read_to_string(&hangs).unwrap();
    // The lock is free by now, so nothing may be left that writes under it.
    let there = Path::new("/proc").join(pid.trim()).join("exe").exists();
    assert!(!there, "git is still there");
    result.unwrap_err()
}

/// Waits until a script wrote its pid into `file`.
async fn written(file: &Path) {
    let look = async || {
        let pid = fs::read_to_string(file).ok()?;
        pid.ends_with('\n').then_some(())
    };
    until("git has begun", look).await;
}

#[tokio::test]
async fn cancelling_kills_git_and_gives_the_lock_up() {
    let world = World::new();
    let cancel = world.cancel.clone();
    let error = hang(
        &world,
        world.options(),
        Arc::new(FlockLock::new(world.root())),
        move || cancel.cancel(),
    )
    .await;
    assert!(matches!(error, GitError::Cancelled { .. }), "{error}");
    let world = World {
        cancel: CancellationToken::new(),
        ..world
    };
    assert!(world.checkout(JOB).await.path.exists());
}

#[tokio::test]
async fn a_lock_outlives_its_holder_until_git_is_gone() {
    let world = World::new();
    let hangs = world.dir.path().join("hangs");
    let script = format!(
        "trap '' TERM\ncase \"$*\" in *' fetch '*) echo $$ > {0}; sleep 1000; exit;; esac",
        hangs.display()
    );
    let cache = world.cache_behind(&script);
    let url = world.url();
    let wanted = wanted(&url, JOB);
    tokio::select! {
        done = cache.checkout(wanted, Watch::quiet(&world.cancel)) => panic!("{done:?}"),
        () = written(&hangs) => {}
    }
    // The checkout was dropped in the middle, as a step is that an interrupt ends.
    let pid = fs::read_to_string(&hangs).unwrap();
    let lock = FlockLock::new(world.root());
    let (key, cancel) = (url.key(), CancellationToken::new());
    let taken = lock.acquire(&key, &|_| {}, &cancel);
    let taken = tokio::time::timeout(Duration::from_secs(60), taken)
        .await
        .unwrap();
    assert!(taken.is_ok());
    let there = Path::new("/proc").join(pid.trim()).join("exe").exists();
    assert!(!there, "the lock was free while git was still there");
}

#[tokio::test]
async fn a_limit_of_time_kills_git() {
    let world = World::new();
    let options = GitOptions {
        network_limit: Duration::from_millis(700),
        ..world.options()
    };
    let error = hang(
        &world,
        options,
        Arc::new(FlockLock::new(world.root())),
        || {},
    )
    .await;
    assert!(matches!(error, GitError::TimedOut { .. }), "{error}");
}

#[derive(Debug, Default)]
struct Losable {
    lost: CancellationToken,
}

impl CloneLock for Losable {
    fn acquire<'a>(
        &'a self,
        _: &'a str,
        _: OnWait<'a>,
        _: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<LockGuard, LockError>> {
        Box::pin(async { Ok(LockGuard::new(self.lost.clone(), ())) })
    }
}

#[tokio::test]
async fn a_lost_lock_stops_the_work_under_it() {
    let world = World::new();
    let lock = Arc::new(Losable::default());
    let lost = lock.lost.clone();
    let error = hang(&world, world.options(), lock, move || lost.cancel()).await;
    assert!(
        matches!(error, GitError::Lock(LockError::Lost { .. })),
        "{error}"
    );
}
