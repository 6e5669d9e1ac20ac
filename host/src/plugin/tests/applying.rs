//! Writing trees: all or nothing, with what is kept carried over.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use crate::plugin::apply::{Sync, apply, collect_stale};
use crate::plugin::types::{Content, FileEntry, FileMode};
use crate::plugin::{CheckedTree, Code, Limits};

fn tree(files: &[(&str, &str)]) -> CheckedTree {
    let entry = |(path, text): &(&str, &str)| FileEntry {
        path: (*path).to_owned(),
        content: Content::Bytes(text.as_bytes().to_vec()),
        mode: if path.ends_with(".sh") {
            FileMode::Executable
        } else {
            FileMode::Regular
        },
    };
    CheckedTree::new(files.iter().map(entry).collect(), &[], &Limits::default()).unwrap()
}

/// All files below a directory, with their text.
fn read(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    found
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_new_directory_has_the_files_and_their_modes() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("config");
    let files = [
        ("a/b/c.txt", "c"),
        ("a/b/d/e.txt", "e"),
        ("a/z.txt", "z"),
        ("run.sh", "echo"),
        ("b.txt", "b"),
    ];
    for sync in [Sync::Full, Sync::Kept, Sync::None] {
        let applied = apply(&tree(&files), &target, &[], sync).unwrap();
        assert_eq!(applied.files, 5);
        let expected = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
        assert_eq!(read(&target), expected);
        assert_eq!(names(dir.path()), ["config"]);
    }
    let mode = |path: &str| {
        fs::metadata(target.join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("run.sh") & 0o700, 0o700);
    assert_eq!(mode("b.txt") & 0o711, 0o600);
    assert_eq!(mode("") & 0o077, 0);
}

#[test]
fn what_is_kept_is_carried_over_and_the_rest_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("config");
    apply(
        &tree(&[("old.txt", "old"), ("same.txt", "1")]),
        &target,
        &[],
        Sync::Full,
    )
    .unwrap();
    fs::create_dir_all(target.join("kept/deep")).unwrap();
    fs::write(target.join("kept/deep/log.jsonl"), "line").unwrap();
    fs::write(target.join("kept/run"), "x").unwrap();
    fs::set_permissions(target.join("kept/run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(target.join("x/y")).unwrap();
    fs::write(target.join("x/y/one"), "1").unwrap();
    fs::write(target.join("x/y/two"), "2").unwrap();
    fs::write(dir.path().join("outside"), "secret").unwrap();
    symlink(dir.path().join("outside"), target.join("kept/link")).unwrap();
    symlink(dir.path(), target.join("linked")).unwrap();

    let keep = ["kept", "x/y/one", "linked/outside", "absent"].map(str::to_owned);
    let applied = apply(&tree(&[("same.txt", "2")]), &target, &keep, Sync::Full).unwrap();
    let expected = [
        ("kept/deep/log.jsonl", "line"),
        ("kept/run", "x"),
        ("same.txt", "2"),
        ("x/y/one", "1"),
    ];
    let expected = expected
        .into_iter()
        .map(|(path, text)| (path.to_owned(), text.to_owned()))
        .collect();
    assert_eq!(read(&target), expected);
    assert_eq!(applied.skipped, 1);
    assert_eq!(
        fs::metadata(target.join("kept/run"))
            .unwrap()
            .permissions()
            .mode()
            & 0o100,
        0o100
    );
    let mut left = names(dir.path());
    left.sort();
    assert_eq!(left, ["config", "outside"]);
}

#[test]
fn a_failure_leaves_the_target_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("config");
    // A target that is a link or a file is not ours to replace.
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    symlink(dir.path().join("elsewhere"), &target).unwrap();
    assert_eq!(
        apply(&tree(&[("a", "a")]), &target, &[], Sync::None)
            .unwrap_err()
            .code,
        Code::Write
    );
    assert!(names(&dir.path().join("elsewhere")).is_empty());
    fs::remove_file(&target).unwrap();
    fs::write(&target, "file").unwrap();
    assert_eq!(
        apply(&tree(&[("a", "a")]), &target, &[], Sync::None)
            .unwrap_err()
            .code,
        Code::Write
    );
    assert_eq!(fs::read_to_string(&target).unwrap(), "file");
    let missing = dir.path().join("none/config");
    assert_eq!(
        apply(&tree(&[("a", "a")]), &missing, &[], Sync::None)
            .unwrap_err()
            .code,
        Code::Write
    );
    let mut left = names(dir.path());
    left.sort();
    assert_eq!(left, ["config", "elsewhere"], "no temporary is left");
}

#[test]
fn a_kept_path_that_meets_a_file_of_the_tree_fails_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("config");
    apply(&tree(&[("a", "old")]), &target, &[], Sync::None).unwrap();
    let error = apply(
        &tree(&[("a", "new")]),
        &target,
        &["a".to_owned()],
        Sync::None,
    )
    .unwrap_err();
    assert_eq!(error.code, Code::Write);
    assert_eq!(read(&target)["a"], "old");
    assert_eq!(names(dir.path()), ["config"]);
}

#[test]
fn temporaries_of_a_crash_are_collected() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("config");
    let stale = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.join("half")).unwrap();
        fs::write(path.join("half/file"), "x").unwrap();
    };
    stale(".agenticore-tmp.config.1");
    stale("somebody-elses");
    apply(&tree(&[("a", "a")]), &target, &[], Sync::None).unwrap();
    let mut left = names(dir.path());
    left.sort();
    assert_eq!(
        left,
        [".agenticore-tmp.config.1", "config", "somebody-elses"]
    );
    assert_eq!(
        collect_stale(dir.path(), Duration::from_secs(3_600)).unwrap(),
        0
    );
    assert_eq!(collect_stale(dir.path(), Duration::ZERO).unwrap(), 1);
    let mut left = names(dir.path());
    left.sort();
    assert_eq!(left, ["config", "somebody-elses"]);
}

#[test]
fn whoever_looks_sees_the_old_or_the_new_directory_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("config");
    let generation = |text: &str| {
        let files: Vec<_> = (0..20).map(|number| format!("d{number}/f")).collect();
        tree(
            &files
                .iter()
                .map(|path| (path.as_str(), text))
                .collect::<Vec<_>>(),
        )
    };
    let (old, new) = (generation("old"), generation("new"));
    apply(&old, &target, &[], Sync::None).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // One handle names one directory, whatever is renamed meanwhile. It may be emptied while it is read, after it
                // was replaced; then the target is another one.
                let dir = rustix::fs::open(
                    &target,
                    rustix::fs::OFlags::DIRECTORY,
                    rustix::fs::Mode::empty(),
                )
                .expect("there always is a directory");
                let open = |path: &str| {
                    rustix::fs::openat(
                        &dir,
                        path,
                        rustix::fs::OFlags::RDONLY,
                        rustix::fs::Mode::empty(),
                    )
                    .is_ok()
                };
                let files = (0..20)
                    .filter(|number| open(&format!("d{number}/f")))
                    .count();
                let before = rustix::fs::fstat(&dir).unwrap().st_ino;
                let now = rustix::fs::stat(&target).unwrap().st_ino;
                assert!(
                    files == 20 || before != now,
                    "a directory with {files} files was in place"
                );
                looks += 1;
            }
            looks
        });
        for turn in 0..200 {
            apply(
                if turn % 2 == 0 { &new } else { &old },
                &target,
                &[],
                Sync::None,
            )
            .unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(watch.join().unwrap() > 0);
    });
}
