//! Checks that are not tests: dependencies, and words that do not belong into the host.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::sh;

/// How a check ended, when it did not fail.
#[derive(Debug)]
pub(crate) enum Checked {
    /// It passed.
    Passed,
    /// It could not run here, for this reason.
    Skipped(String),
}

/// Words of one agent; the host knows none.
const AGENT_WORDS: [&str; 2] = ["claude", "anthropic"];

/// The reader of settings may hold them: names of earlier versions, which are handed to the plugin as they are.
const COMPATIBILITY: [&str; 2] = ["config.rs", "config/settings.rs"];

/// The host names no agent, outside the documented compatibility variables.
///
/// # Errors
/// With every line that does.
pub(crate) fn words() -> Result<Checked> {
    let source = sh::root().join("host/src");
    let mut found = Vec::new();
    each_line(&source, &mut |path, number, line| {
        let lower = line.to_lowercase();
        let names_agent = AGENT_WORDS.iter().any(|word| lower.contains(word));
        let is_reader = path
            .strip_prefix(&source)
            .is_ok_and(|below| COMPATIBILITY.iter().any(|file| below == Path::new(file)));
        if names_agent && !is_reader {
            found.push(format!("{}:{number}: {}", path.display(), line.trim()));
        }
    })?;
    if found.is_empty() {
        return Ok(Checked::Passed);
    }
    bail!(
        "the host names an agent; move it to the plugin, or to the compatibility rows of the settings:\n{}",
        found.join("\n")
    )
}

fn each_line(folder: &Path, visit: &mut impl FnMut(&Path, usize, &str)) -> Result<()> {
    let problem = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(problem)? {
        let path = entry.with_context(problem)?.path();
        if path.is_dir() {
            each_line(&path, visit)?;
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for (index, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
            visit(&path, index + 1, line);
        }
    }
    Ok(())
}

/// Licences and advisories of every dependency, by `cargo deny`.
///
/// The tool takes a while to compile, so a machine without it skips them by name; continuous integration must have it. The advisories
/// come from a git repository that not every machine can reach, CI's among them, so a database that cannot be fetched is a named
/// skip everywhere.
///
/// # Errors
/// When a licence is not allowed or an advisory applies, and in CI when the tool is missing.
pub(crate) fn deny() -> Result<Checked> {
    if sh::read(&mut sh::cargo(["deny", "--version"])).is_err() {
        let missing = "cargo-deny is not installed (`cargo install --locked cargo-deny`)";
        if sh::is_ci() {
            bail!("{missing}");
        }
        return Ok(Checked::Skipped(missing.into()));
    }
    sh::run(&mut sh::cargo([
        "deny", "check", "licenses", "bans", "sources",
    ]))?;
    if let Err(error) = sh::read(&mut sh::cargo(["deny", "fetch", "db"])) {
        let reason = format!("{error:#}");
        let last = reason.lines().last().unwrap_or_default().trim();
        return Ok(Checked::Skipped(format!(
            "licences pass, but the advisory database cannot be fetched: {last}"
        )));
    }
    sh::run(&mut sh::cargo([
        "deny",
        "check",
        "--disable-fetch",
        "advisories",
    ]))?;
    Ok(Checked::Passed)
}
