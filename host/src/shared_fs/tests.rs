//! The layout under repetition, company and sudden death.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use super::*;

/// Names the folder in which the child process of the kill test works.
const VICTIM: &str = "AGENTICORE_TEST_SHARED_FS_VICTIM";

const V1: Version = Version([1, 0, 0]);
const V2: Version = Version([2, 0, 0]);

fn root() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn files<'a>(list: &[(&'a str, &'a str)]) -> Vec<Source<'a>> {
    list.iter()
        .map(|(path, text)| Source {
            path,
            executable: path.ends_with(".sh"),
            bytes: text.as_bytes(),
        })
        .collect()
}

fn sources<'a>(text: &'a str) -> Sources<'a> {
    let list = files(&[
        ("profile.yml", text),
        ("home/hooks/run.sh", "#!"),
        ("home/a.md", text),
    ]);
    Sources::from([("code", list)])
}

fn run(root: &TempDir, text: &str, version: Version) -> Action {
    init_with(root.path(), &sources(text), version)
        .unwrap()
        .profiles
        .first()
        .unwrap()
        .action
}

fn text(root: &TempDir) -> String {
    fs::read_to_string(root.path().join("profiles/code/profile.yml")).unwrap()
}

/// Everything below the root, with folders.
fn tree(root: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            names.extend(tree(&entry.path()).iter().map(|n| format!("{name}/{n}")));
        }
        names.insert(name);
    }
    names
}

#[test]
fn the_bundled_profiles_are_copied_and_a_second_run_changes_nothing() {
    let root = root();
    let below = root.path().join("deep/shared");
    let first = init(&below).unwrap();
    assert_eq!(first.created.len(), FOLDERS.len());
    assert!(
        first.profiles.iter().all(|p| p.action == Action::Copied),
        "{first:?}"
    );
    for file in bundled::profiles() {
        let copy = below.join("profiles").join(file.path);
        assert_eq!(fs::read(&copy).unwrap(), file.bytes);
        let executable = fs::metadata(&copy).unwrap().permissions().mode() & 0o100 != 0;
        assert_eq!(executable, file.executable, "{}", file.path);
    }
    let before = tree(&below);
    assert!(
        before.contains(LAYOUT_FILE) && !before.iter().any(|n| n.ends_with(TEMPORARY)),
        "{before:?}"
    );
    let second = init(&below).unwrap();
    assert!(second.created.is_empty());
    assert!(
        second.profiles.iter().all(|p| p.action == Action::Current),
        "{second:?}"
    );
    assert_eq!(tree(&below), before);
}

#[test]
fn folders_can_be_read_by_every_pod() {
    let root = root();
    run(&root, "1", V1);
    for path in ["profiles/code", "profiles/code/home/hooks"] {
        let mode = fs::metadata(root.path().join(path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o500, 0o500);
        assert_eq!(mode & 0o022, 0, "{path} {mode:o}");
        assert_ne!(mode & 0o055, 0, "{path} {mode:o}");
    }
}

#[test]
fn an_unedited_copy_is_upgraded_and_an_edited_one_is_left_alone() {
    let root = root();
    assert_eq!(run(&root, "1", V1), Action::Copied);
    assert_eq!(run(&root, "2", V2), Action::Upgraded);
    assert_eq!(text(&root), "2");
    fs::write(root.path().join("profiles/code/own.md"), "mine").unwrap();
    assert_eq!(run(&root, "3", V2), Action::KeptEdited);
    assert_eq!(text(&root), "2");
    // Once it is moved away, the bundled one comes back.
    fs::rename(root.path().join("profiles/code"), root.path().join("mine")).unwrap();
    assert_eq!(run(&root, "3", V2), Action::Copied);
    assert_eq!(text(&root), "3");
}

#[test]
fn a_copy_by_a_newer_version_is_not_downgraded() {
    let root = root();
    run(&root, "2", V2);
    assert_eq!(run(&root, "1", V1), Action::KeptNewer);
    assert_eq!(text(&root), "2");
}

#[test]
fn what_we_never_make_counts_as_edited() {
    let root = root();
    run(&root, "1", V1);
    let place = root.path().join("profiles/code");
    fs::rename(&place, root.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(root.path().join("elsewhere"), &place).unwrap();
    assert_eq!(run(&root, "2", V2), Action::KeptEdited);
    fs::remove_file(&place).unwrap();
    fs::write(&place, "").unwrap();
    assert_eq!(run(&root, "2", V2), Action::KeptEdited);
}

#[test]
fn a_newer_layout_and_a_damaged_file_are_refused_before_anything_is_written() {
    let root = root();
    let file = root.path().join(LAYOUT_FILE);
    fs::write(&file, r#"{"layout": 2, "profiles": 7}"#).unwrap();
    let error = init(root.path()).unwrap_err();
    assert!(
        matches!(
            error,
            InitError::Newer {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    fs::write(&file, "{").unwrap();
    let error = init(root.path()).unwrap_err();
    assert!(matches!(error, InitError::Damaged { .. }), "{error}");
    assert_eq!(tree(root.path()).len(), 1);
}

#[test]
fn failing_to_write_is_an_error_that_names_the_place() {
    let root = root();
    fs::write(root.path().join("profiles"), "a file").unwrap();
    let error = init(root.path()).unwrap_err().to_string();
    assert!(error.contains("profiles"), "{error}");
    assert!(matches!(
        init_with(root.path(), &Sources::new(), V1),
        Err(InitError::NoProfiles)
    ));
}

#[test]
fn stale_temporaries_are_removed_and_young_ones_are_not() {
    let root = root();
    run(&root, "1", V1);
    let old = root.path().join(format!("profiles/.code.x{TEMPORARY}"));
    let young = root.path().join(format!("profiles/.code.y{TEMPORARY}"));
    for path in [&old, &young] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("half"), "x").unwrap();
    }
    let long_ago = SystemTime::now() - STALE - Duration::from_secs(60);
    fs::File::open(&old)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    let report = init_with(root.path(), &sources("1"), V1).unwrap();
    assert_eq!(report.temporaries_removed, 1);
    assert!(!old.exists() && young.exists());
}

/// Two versions run `step` on one root, several threads each: what they did. One whole profile is left and nothing else.
fn crowd(
    root: &TempDir,
    step: fn(&Path, &Sources<'_>, Version) -> Result<Report, InitError>,
) -> Vec<Action> {
    let actions = |text, version| {
        let report = step(root.path(), &sources(text), version).unwrap();
        report.profiles.first().unwrap().action
    };
    let mut all = Vec::new();
    thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|n| {
                let (text, version) = if n % 2 == 0 { ("1", V1) } else { ("2", V2) };
                scope.spawn(move || (0..10).map(|_| actions(text, version)).collect::<Vec<_>>())
            })
            .collect();
        for run in runs {
            all.extend(run.join().unwrap());
        }
    });
    let whole = ["1", "2"].map(|text| {
        let sources = sources(text);
        let files = sources.get("code").unwrap().iter();
        State::Folder(profile_dir::digest(files.map(|f| (f.path, f.bytes))))
    });
    let state = profile_dir::state(&root.path().join("profiles/code")).unwrap();
    assert!(whole.contains(&state), "{state:?}");
    let left = tree(root.path());
    assert!(!left.iter().any(|n| n.ends_with(TEMPORARY)), "{left:?}");
    all
}

#[test]
fn runs_of_two_versions_at_once_take_turns() {
    let root = root();
    let all = crowd(&root, init_with);
    assert!(
        !all.contains(&Action::KeptEdited),
        "a copy of ours was taken for an edited one"
    );
    assert_eq!(all.iter().filter(|a| **a == Action::Copied).count(), 1);
    run(&root, "2", V2);
    assert_eq!(text(&root), "2");
}

#[test]
fn runs_that_cannot_lock_leave_whole_profiles_too() {
    let root = root();
    make_folders(root.path()).unwrap();
    crowd(&root, copy);
}

#[test]
fn a_run_waits_for_another() {
    let root = root();
    make_folders(root.path()).unwrap();
    let held = lock(root.path()).unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| run(&root, "1", V1));
        // Elsewhere a whole run takes place meanwhile.
        let elsewhere = self::root();
        assert_eq!(self::run(&elsewhere, "1", V1), Action::Copied);
        assert!(!root.path().join(LAYOUT_FILE).exists());
        drop(held);
        assert_eq!(run.join().unwrap(), Action::Copied);
    });
}

fn big<'a>(paths: &'a [String], text: &'a str) -> Sources<'a> {
    let list: Vec<_> = paths.iter().map(|p| (p.as_str(), text)).collect();
    Sources::from([("code", files(&list))])
}

fn paths() -> Vec<String> {
    (0..40)
        .map(|n| format!("home/d{}/f{n}.md", n % 4))
        .collect()
}

/// Not a test by itself: the process that `a_run_that_is_killed_leaves_a_whole_tree` kills.
#[test]
fn victim() {
    let Some(root) = std::env::var_os(VICTIM) else {
        return;
    };
    let root = Path::new(&root);
    let paths = paths();
    for n in 0_u64.. {
        let text = n.to_string();
        init_with(root, &big(&paths, &text), Version([n, 0, 0])).unwrap();
        fs::write(root.join("rounds"), text).unwrap();
        if n % 3 == 0 {
            let _ = fs::remove_dir_all(root.join("aside"));
            fs::rename(root.join("profiles/code"), root.join("aside")).unwrap();
        }
    }
}

#[test]
fn a_run_that_is_killed_leaves_a_whole_tree() {
    let paths = paths();
    for round in 0..12 {
        let root = root();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shared_fs::tests::victim", "--nocapture"])
            .env(VICTIM, root.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // The first round is done, so the kill falls anywhere into a later one.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !root.path().join("rounds").exists() {
            assert!(
                std::time::Instant::now() < deadline,
                "the child does nothing"
            );
            assert!(child.try_wait().unwrap().is_none(), "the child ended");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(round * 700));
        child.kill().unwrap();
        child.wait().unwrap();

        let place = root.path().join("profiles/code");
        if place.exists() {
            let texts: BTreeSet<_> = paths
                .iter()
                .map(|p| fs::read_to_string(place.join(p)).expect(p))
                .collect();
            assert_eq!(texts.len(), 1, "files of several versions: {texts:?}");
        }
        // Whatever version was killed, its copy is known as ours, and a newer run replaces it.
        let report =
            init_with(root.path(), &big(&paths, "last"), Version([u64::MAX, 0, 0])).unwrap();
        let action = report.profiles.first().unwrap().action;
        assert!(
            matches!(action, Action::Copied | Action::Upgraded),
            "{action:?}"
        );
    }
}
