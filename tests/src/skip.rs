//! Tests that cannot run on a machine say so by name.

use std::io::Write;

/// As [`skip`], except in continuous integration, where what is missing is a failure.
///
/// # Panics
/// In continuous integration.
pub fn missing(name: &str, reason: &str) {
    let is_ci = std::env::var("CI").is_ok_and(|v| v == "true" || v == "1");
    assert!(
        !is_ci,
        "{name}: {reason}; continuous integration must have it"
    );
    skip(name, reason);
}

/// Says that the test `name` cannot run here, and why. The caller returns afterwards.
///
/// `cargo xtask test` names the file that collects these lines; it counts them and lists them at its end.
///
/// # Panics
/// When that file cannot be written.
pub fn skip(name: &str, reason: &str) {
    let line = format!("{name}: {reason}\n");
    match std::env::var_os("AGENTICORE_TEST_SKIPS") {
        Some(file) => {
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(file)
                .expect("the file of skips opens");
            file.write_all(line.as_bytes())
                .expect("the file of skips is written");
        }
        // Not by `eprint!`, which libtest keeps to itself when a test passes.
        None => std::io::stderr()
            .write_all(format!("skipped: {line}").as_bytes())
            .expect("standard error is written"),
    }
}
