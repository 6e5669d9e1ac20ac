//! Builds the guests for WebAssembly and puts them where the host's build and the tests look for them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::gates::Checked;
use crate::{foreign, sh};

/// The target of every guest.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// Each guest: its package, and its file's name below `plugins/dist`.
const GUESTS: [(&str, &str); 6] = [
    ("plugin-claude-code", "claude-code"),
    ("plugin-codex", "codex"),
    ("plugin-policy", "policy"),
    ("plugin-redact", "redact"),
    ("plugin-shell", "shell"),
    ("test-guests", "test-guests"),
];

/// The packages that are built for WebAssembly only.
pub(crate) fn packages() -> impl Iterator<Item = &'static str> {
    GUESTS.into_iter().map(|(package, _)| package)
}

/// Builds every guest and copies those that changed to `plugins/dist`. Those in other languages than Rust are skipped by name where
/// their toolchain is missing.
///
/// A file whose bytes are the same keeps its time, so that the host is not built again for nothing.
///
/// # Errors
/// When the target cannot be installed, a guest does not build, or a file cannot be written.
pub(crate) fn build() -> Result<Checked> {
    ensure_target()?;
    let mut arguments = vec!["build", "--target", TARGET, "--profile", "guest"];
    for package in packages() {
        arguments.extend(["--package", package]);
    }
    sh::run(&mut sh::cargo(arguments))?;
    let dist = sh::root().join("plugins/dist");
    fs::create_dir_all(&dist).with_context(|| format!("cannot create {}", dist.display()))?;
    for (package, name) in GUESTS {
        let built = sh::target_dir()
            .join(TARGET)
            .join("guest")
            .join(format!("{}.wasm", package.replace('-', "_")));
        copy_if_changed(&built, &dist.join(format!("{name}.wasm")))?;
    }
    foreign::build()
}

/// Installs the target where it is missing. Without rustup the build itself tells what is missing.
fn ensure_target() -> Result<()> {
    let Ok(installed) = sh::read(sh::tool("rustup").args(["target", "list", "--installed"])) else {
        return Ok(());
    };
    if installed.lines().any(|line| line.trim() == TARGET) {
        return Ok(());
    }
    sh::run(sh::tool("rustup").args(["target", "add", TARGET]))
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let size = bytes.len() / 1024;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        eprintln!("{} is up to date ({size} KiB)", to.display());
        return Ok(());
    }
    let beside = to.with_extension("wasm.new");
    fs::write(&beside, &bytes).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, to).with_context(|| format!("cannot write {}", to.display()))?;
    eprintln!("wrote {} ({size} KiB)", to.display());
    Ok(())
}
