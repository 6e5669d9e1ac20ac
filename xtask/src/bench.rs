//! `cargo xtask bench`, `cargo xtask chaos` and `cargo xtask image`: build a release and hand over to a binary of the tests crate.

use std::path::Path;

use anyhow::Result;

use crate::{plugins, sh};

/// Builds everything in release and runs this binary with these arguments.
///
/// # Errors
/// When a build fails, or the binary does.
pub(crate) fn run(binary: &str, arguments: &[&str]) -> Result<()> {
    plugins::build()?;
    let mut build = sh::cargo(["build", "--release", "--bins"]);
    build.args(sh::NATIVE);
    sh::run(&mut build)?;
    let mut measuring = std::process::Command::new(sh::target_dir().join("release").join(binary));
    measuring
        .args(arguments)
        .env("AGENTICORE_BIN", sh::binary(true))
        .current_dir(sh::root());
    // What the product costs is measured, and not how this machine's disk makes files: some take a millisecond for one.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() && std::env::var_os("TMPDIR").is_none() {
        measuring.env("TMPDIR", memory);
    }
    sh::run(&mut measuring)
}
