//! Where the binary under test is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary: `AGENTICORE_BIN` where it is set, which `cargo xtask test` does, else built once by cargo.
///
/// # Panics
/// When the plugins are missing or the build fails; the message says which command helps.
pub fn path() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        std::env::var_os("AGENTICORE_BIN").map_or_else(build, |given| {
            let path = PathBuf::from(given);
            assert!(
                path.exists(),
                "AGENTICORE_BIN is {}, which does not exist",
                path.display()
            );
            path
        })
    })
}

/// The root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn build() -> PathBuf {
    let shell = workspace().join("plugins/dist/shell.wasm");
    assert!(
        shell.exists(),
        "{} is missing: run `cargo xtask plugins` first, or everything with `cargo xtask test`",
        shell.display()
    );
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        // The selection of `cargo xtask`: with another one, dependencies would have other features and be compiled again.
        .args([
            "build",
            "--workspace",
            "--exclude",
            "test-guests",
            "--bin",
            "agenticore",
        ])
        .current_dir(workspace())
        .status()
        .expect("cargo starts");
    assert!(status.success(), "the binary does not build");
    // The test binary is target/debug/deps/NAME.
    let mine = std::env::current_exe().unwrap();
    let deps = mine.parent().unwrap();
    let folder = if deps.ends_with("deps") {
        deps.parent().unwrap()
    } else {
        deps
    };
    let binary = folder.join("agenticore");
    assert!(binary.exists(), "no {} after its build", binary.display());
    binary
}
