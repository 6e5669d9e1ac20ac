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

/// The name of the test that this stands in, as libtest has it.
#[macro_export]
macro_rules! this_test {
    () => {{
        fn here() {}
        $crate::test_of(std::any::type_name_of_val(&here))
    }};
}

/// Leaves the test where there is no Redis, by name.
#[macro_export]
macro_rules! needs_redis {
    () => {
        if !$crate::Redis::is_installed($crate::this_test!()) {
            return;
        }
    };
}

/// For [`this_test`]: the test that this function is defined in.
#[must_use]
pub fn test_of(function: &'static str) -> &'static str {
    let inside = function.strip_suffix("::here").unwrap_or(function);
    let test = inside.trim_end_matches("::{{closure}}");
    test.split_once("::").map_or(test, |(_, test)| test)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_test_knows_its_name_also_in_what_it_waits_for() {
        let name = "skip::tests::a_test_knows_its_name_also_in_what_it_waits_for";
        assert_eq!(this_test!(), name);
        assert_eq!(async { this_test!() }.await, name);
    }
}
