//! The real command lines of agents, where they are installed.

use std::path::PathBuf;
use std::process::Command;

use crate::skip;

/// The agent's real CLI `program`: the one that the variable `variable` names, or the one that `.ci/run` installs. None, with a named
/// skip of `test`, where neither works.
#[must_use]
pub fn real_cli(program: &str, variable: &str, test: &str) -> Option<PathBuf> {
    let local = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../target/agent-cli/node_modules/.bin")
        .join(program);
    let given = std::env::var_os(variable).map(PathBuf::from);
    let found = given.or_else(|| local.exists().then_some(local));
    let works = |path: &PathBuf| {
        // Nothing of this machine's own agents may get into a test.
        let mut version = Command::new(path);
        version
            .arg("--version")
            .env_remove("CLAUDE_CONFIG_DIR")
            .env_remove("CODEX_HOME");
        version.output().is_ok_and(|output| output.status.success())
    };
    match found.filter(works) {
        Some(path) => Some(path.canonicalize().unwrap_or(path)),
        None => {
            let reason = format!(
                "no real agent CLI `{program}` (set {variable}, or install it into target/agent-cli as .ci/run does)"
            );
            skip(test, &reason);
            None
        }
    }
}
