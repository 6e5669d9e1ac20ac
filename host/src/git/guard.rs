//! Keeps a clone's configuration free of what an agent may have planted in it.
//!
//! Agents work in worktrees of the clone and can write to its configuration. Git reads it with the server's rights: an entry can
//! name a program to run (`core.sshCommand`, filters, helpers), send traffic elsewhere (`url.*.insteadOf`, proxies) or turn checks
//! off. So before git talks to a remote, every entry that is not known to be harmless is taken out.

use std::path::Path;

use super::command::{Git, Stop};
use super::error::GitError;

/// Entries that stay.
const HARMLESS: [&str; 19] = [
    "core.repositoryformatversion",
    "core.filemode",
    "core.bare",
    "core.logallrefupdates",
    "core.ignorecase",
    "core.precomposeunicode",
    "core.symlinks",
    "core.autocrlf",
    "core.eol",
    "extensions.worktreeconfig",
    "extensions.objectformat",
    "extensions.refstorage",
    "remote.origin.url",
    "remote.origin.fetch",
    "gc.auto",
    "lfs.repositoryformatversion",
    "maintenance.auto",
    "user.name",
    "user.email",
];

/// Takes every other entry out of the configuration of the clone at `repo`.
pub(super) async fn clean(git: &Git, repo: &Path, stop: Stop<'_>) -> Result<(), GitError> {
    for file in ["config", "config.worktree"].map(|name| repo.join(name)) {
        if !file.exists() {
            continue;
        }
        let edit = || {
            git.call("checking the clone's configuration", repo, stop)
                .arg("config")
                .arg("--file")
                .arg(&file)
        };
        let names = edit()
            .args(["--no-includes", "--name-only", "--list", "-z"])
            .run()
            .await?;
        let names = String::from_utf8_lossy(&names).into_owned();
        let mut foreign: Vec<&str> = names
            .split('\0')
            .filter(|name| !name.is_empty() && !is_harmless(name))
            .collect();
        foreign.dedup();
        for name in foreign {
            tracing::warn!(entry = name, clone = %repo.display(), "an entry was taken out of the clone's configuration");
            // Listed twice, it is gone the second time.
            edit().args(["--unset-all", name]).maybe().await?;
        }
    }
    Ok(())
}

/// Names are `SECTION.SUBSECTION.KEY`, of which git has put the first and the last in lower case.
fn is_harmless(name: &str) -> bool {
    let tracks =
        name.starts_with("branch.") && (name.ends_with(".remote") || name.ends_with(".merge"));
    HARMLESS.contains(&name) || tracks
}
