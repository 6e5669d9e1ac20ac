//! Output: whole, bounded, and over when the tree is.

use super::*;

#[tokio::test]
async fn lines_of_both_streams_come_in_their_order() {
    let dir = TempDir::new().unwrap();
    let script =
        "i=0; while [ $i -lt 2000 ]; do echo out$i; echo err$i >&2; i=$((i+1)); done; printf last";
    let (_, lines) = run(shell(&dir, "j1", script)).await;
    for (stream, name) in [(Stream::Stdout, "out"), (Stream::Stderr, "err")] {
        let texts = lines
            .iter()
            .filter(|line| line.stream == stream)
            .map(|line| line.text.clone());
        let last = (stream == Stream::Stdout).then(|| "last".to_owned());
        assert!(texts.eq((0..2000).map(|i| format!("{name}{i}")).chain(last)));
    }
}

#[tokio::test]
async fn a_line_without_end_is_cut() {
    let dir = TempDir::new().unwrap();
    let script =
        "printf begin; head -c 5000000 /dev/zero | tr '\\0' x; printf end; echo; echo next";
    let (_, lines) = run(shell(&dir, "j1", script)).await;
    let [long, next] = lines.as_slice() else {
        panic!("{} lines", lines.len())
    };
    assert!(long.truncated && long.text.starts_with("beginxxx") && long.text.ends_with("xxxend"));
    assert!(
        (1_000_000..=1024 * 1024).contains(&long.text.len()),
        "{}",
        long.text.len()
    );
    assert_eq!((next.text.as_str(), next.truncated), ("next", false));
}

#[tokio::test]
async fn batches_hold_to_their_limits() {
    let dir = TempDir::new().unwrap();
    let limits = LineLimits {
        line_bytes: 1000,
        batch_lines: 10,
        batch_bytes: 4000,
    };
    let (mut child, mut output) = shell(&dir, "j1", "seq 1 50000; head -c 20000 /dev/zero")
        .start(limits)
        .unwrap();
    let (mut lines, mut largest) = (0, (0, 0));
    while let Some(batch) = output.next().await {
        lines += batch.len();
        largest = largest.max((batch.len(), batch.iter().map(|line| line.text.len()).sum()));
        assert!(
            batch.len() <= 600 && batch.iter().all(|line| line.text.len() <= 1000),
            "{}",
            batch.len()
        );
    }
    assert_eq!((lines, child.wait().await.exit.success()), (50001, true));
}

/// Resident memory of this process in KiB, now or at its highest.
fn resident(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .unwrap()
}

#[test]
fn memory_is_flat_at_any_output() {
    if !alone("process::tests::flow::memory_is_flat_at_any_output") {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let dir = TempDir::new().unwrap();
        let word = "x".repeat(180);
        // 400 MB in lines, 100 MB without a line end, and a consumer that is slower than the child.
        let script = format!(
            "yes {word} | head -c 400000000; echo; head -c 100000000 /dev/zero; echo; echo end"
        );
        let before = resident("VmRSS:");
        let (mut child, mut output) = shell(&dir, "j1", &script)
            .start(LineLimits::default())
            .unwrap();
        let mut kept = HeadTail::new(25_000, 25_000);
        let mut bytes = 0;
        while let Some(batch) = output.next().await {
            for line in batch {
                bytes += line.text.len() + 1;
                kept.push_line(&line.text);
            }
        }
        assert!(child.wait().await.exit.success());
        let grown = resident("VmHWM:") - before;
        assert!(
            bytes > 401_000_000 && kept.total() == bytes as u64,
            "{bytes}"
        );
        assert!(kept.bytes().len() == 50_000 && kept.text().ends_with("end\n"));
        assert!(grown < 40 * 1024, "memory grew by {grown} KiB");
    });
}

#[tokio::test]
async fn output_that_nobody_wants_does_not_hold_the_child() {
    let dir = TempDir::new().unwrap();
    let (mut child, output) = shell(&dir, "j1", "head -c 10000000 /dev/zero; echo; touch done")
        .start(LineLimits::default())
        .unwrap();
    drop(output);
    assert!(child.wait().await.exit.success());
    assert!(dir.path().join("done").exists());
}

#[tokio::test]
async fn output_that_waits_holds_the_child_and_is_not_lost() {
    let dir = TempDir::new().unwrap();
    let script = "echo first; touch started; head -c 2000000 /dev/zero | tr '\\0' '\\n'; echo last; touch done";
    let (mut child, mut output) = shell(&dir, "j1", script)
        .start(LineLimits::default())
        .unwrap();
    until("the child has started", || {
        dir.path().join("started").exists()
    })
    .await;
    // All that can be in between: batches, the reader's buffer, two pipes.
    let mut lines = 0;
    let first = output.next().await.unwrap();
    assert!(!dir.path().join("done").exists());
    lines += first.len();
    while let Some(batch) = output.next().await {
        lines += batch.len();
    }
    assert!(child.wait().await.exit.success());
    assert_eq!(lines, 2_000_002);
}

#[tokio::test]
async fn the_end_of_output_does_not_wait_for_a_stranger_that_holds_the_pipe() {
    let dir = TempDir::new().unwrap();
    // Another child runs, so the stranger cannot be told from what that one may have left.
    let (mut other, _output) = shell(&dir, "other", "sleep 1000")
        .start(LineLimits::default())
        .unwrap();
    let script = "env -i PATH=\"$PATH\" setsid sh -c 'echo $$ > pid; exec sleep 1000' & while [ ! -s pid ]; do :; done; echo said; exec sh -c :";
    // The shell's group is left by `setsid`, its environment is emptied, its parent ends.
    let script = format!("( {script} ) ; echo end");
    let run = tokio::time::timeout(Duration::from_secs(60), run(shell(&dir, "j1", &script)));
    let (ended, lines) = run.await.unwrap();
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!((texts, ended.exit.code), (vec!["said", "end"], Some(0)));
    for pid in pids(&dir.path().join("pid")) {
        // Without `init` it is not ours to find; here it only has to go.
        if let Some(entry) = table::entry(pid) {
            table::send(entry.identity, rustix::process::Signal::KILL).unwrap();
        }
    }
    other.kill_tree().await;
}

#[tokio::test]
async fn short_programs_are_captured() {
    let dir = TempDir::new().unwrap();
    let captured = shell(&dir, "j1", "seq 1 10000; seq 1 10000 >&2; exit 3")
        .capture(100, 50)
        .await
        .unwrap();
    assert_eq!(captured.ended.exit.code, Some(3));
    assert!(captured.stdout.text().starts_with("1\n2\n3\n") && captured.stdout.cut() > 40_000);
    assert!(
        captured.stderr.bytes().ends_with(b"9999\n10000\n") && captured.stderr.bytes().len() == 50
    );
}
