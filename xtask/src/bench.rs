//! `cargo xtask bench`: builds a release and hands over to the `bench` binary of the tests crate.

use anyhow::Result;

use crate::{plugins, sh};

/// Builds everything in release and runs the benchmark with these arguments.
///
/// # Errors
/// When a build fails or a row cannot be measured.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    plugins::build()?;
    let mut build = sh::cargo(["build", "--release", "--bins"]);
    build.args(sh::NATIVE);
    sh::run(&mut build)?;
    let mut bench = std::process::Command::new(sh::target_dir().join("release/bench"));
    bench
        .args(arguments)
        .env("AGENTICORE_BIN", sh::binary(true))
        .current_dir(sh::root());
    sh::run(&mut bench)
}
