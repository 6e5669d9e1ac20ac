//! What the agent may do without asking, as the command line takes it.

use crate::operator::Operator;
use crate::settings::{Settings, add};

/// The tools that a profile without permission checks can count on, named one by one.
const ALL_TOOLS: [&str; 14] = [
    "Bash",
    "BashOutput",
    "KillShell",
    "Edit",
    "MultiEdit",
    "Write",
    "NotebookEdit",
    "Read",
    "Glob",
    "Grep",
    "WebFetch",
    "WebSearch",
    "Task",
    "Skill",
];
pub(crate) const BYPASS: &str = "bypassPermissions";
/// What replaces it where the command line refuses it.
pub(crate) const INSTEAD: &str = "acceptEdits";

/// The permissions of one launch.
#[derive(Debug, PartialEq)]
pub(crate) struct Permissions {
    pub(crate) mode: String,
    pub(crate) allowed: Vec<String>,
    pub(crate) denied: Vec<String>,
    pub(crate) note: Option<String>,
}

/// The permissions of a profile with these MCP servers, and with these deny rules in its settings files.
///
/// The command line refuses to run as root without permission checks, and every job of a default profile would fail there. So root
/// gets the checks, and rules that let every tool pass; deny rules win over both.
///
/// The deny rules of the settings files are given as arguments, too: a settings file that the command line cannot make sense of, for
/// example because it names a hook event of a later version, is ignored without a word, and its deny rules with it.
pub(crate) fn of(
    settings: &Settings,
    operator: &Operator,
    servers: &[String],
    file_denies: &[String],
) -> Permissions {
    let mut permissions = Permissions {
        mode: settings.permission_mode.clone(),
        allowed: settings.allowed_tools.clone(),
        denied: settings.disallowed_tools.clone(),
        note: None,
    };
    add(&mut permissions.denied, file_denies.to_vec());
    if permissions.mode == BYPASS && operator.bypass_is_refused() {
        INSTEAD.clone_into(&mut permissions.mode);
        add(
            &mut permissions.allowed,
            ALL_TOOLS.map(str::to_owned).to_vec(),
        );
        add(
            &mut permissions.allowed,
            servers
                .iter()
                .map(|server| format!("mcp__{server}"))
                .collect(),
        );
        permissions.note = Some(format!(
            "agents run as root, where `claude` refuses `permission_mode: {BYPASS}`; using `{INSTEAD}` with all tools allowed. Run \
             the server as another user, or set IS_SANDBOX=1 for its agents if it is in a container of its own"
        ));
    }
    permissions
}
