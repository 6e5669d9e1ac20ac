//! Tests that cannot run on a machine say so by name.

use std::io::Write;

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
