//! Programs that tests use where a machine has them; `.ci/run` installs all of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{binary, missing};

/// The program of this name for the test; none: it is missing, and the test says so by name.
#[must_use]
pub fn tool(test: &str, name: &str) -> Option<PathBuf> {
    let found = find_tool(name);
    if found.is_none() {
        missing(test, &format!("{name} is not installed (.ci/run does it)"));
    }
    found
}

/// The program of this name in the path, or among what `.ci/run` installs below the target folder.
#[must_use]
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let installed = workspace().join(target).join("tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([installed])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// The binary under test.
#[must_use]
pub fn server_binary() -> &'static Path {
    binary::path()
}

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    binary::workspace()
}

/// A file of the data to test against that lies beside a checkout and is not part of it; none: the test says so by name.
#[must_use]
pub fn shared(test: &str, below: &str) -> Option<PathBuf> {
    let path = workspace().join("../shared").join(below);
    if path.exists() {
        return Some(path);
    }
    crate::skip(test, &format!("{} is not there", path.display()));
    None
}

/// What a program prints when it succeeds, and what it said when it does not.
///
/// # Errors
/// With both outputs of a program that ends badly.
///
/// # Panics
/// When it cannot be started.
pub fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{}{}", text(&output.stdout), text(&output.stderr)))
}
