//! Lays the profile's files out in the config directory.
//!
//! What is below `.claude/` goes to the top of the directory, the child's file over its parent's. Settings files are merged instead:
//! rules of permissions and hooks add up, of everything else the child's is in force. MCP servers are merged by name.

mod merge;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::json;
use crate::permissions::{BYPASS, INSTEAD};
use agenticore_plugin::{Error, FileEntry, Layer, LayerFile};

/// The files whose bytes this module reads.
pub(crate) const READS: [&str; 3] = [SETTINGS_SOURCE, MCP_SOURCES[0], MCP_SOURCES[1]];
/// The MCP servers' file in the config directory. The agent does not look for it there and is given its path.
pub(crate) const MCP_FILE: &str = ".mcp.json";
/// The settings' file in the config directory.
pub(crate) const SETTINGS_FILE: &str = "settings.json";
/// Exists while the agent is asked to stop.
pub(crate) const STOP_FILE: &str = ".stop-requested";
/// Where the agent records its sessions.
pub(crate) const SESSIONS: &str = "projects";

const FOLDER: &str = ".claude/";
const SETTINGS_SOURCE: &str = ".claude/settings.json";
const MCP_SOURCES: [&str; 2] = [".claude/.mcp.json", ".mcp.json"];
/// Events that every version of the agent knows whose settings were looked at.
const HOOK_EVENTS: [&str; 11] = [
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "Notification",
    "UserPromptSubmit",
    "SessionStart",
    "SessionEnd",
    "Stop",
    "SubagentStart",
    "SubagentStop",
    "PreCompact",
];

/// The files of a launch.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// By path.
    pub(crate) entries: BTreeMap<String, FileEntry>,
    /// The names of the MCP servers.
    pub(crate) servers: Vec<String>,
    /// The deny rules of all settings files.
    pub(crate) denies: Vec<String>,
    /// What the profile's author should know.
    pub(crate) notes: Vec<String>,
}

/// The files of a chain, the root first. `no_bypass`: the agent refuses settings that turn permission checks off.
///
/// # Errors
/// A settings file that is not what the agent expects, or a file in a place that the agent itself writes to.
pub(crate) fn lay_out(layers: &[Layer], no_bypass: bool) -> Result<Files, Error> {
    let mut files = Files::default();
    let mut settings: Option<Map<String, Value>> = None;
    let mut mcp: Option<Map<String, Value>> = None;
    for (index, layer) in (0..).zip(layers) {
        for file in &layer.files {
            let place = format!("profile `{}`, {}", layer.name, file.path);
            if file.path == SETTINGS_SOURCE {
                let own = read(&place, file)?;
                check_settings(&place, &own, &mut files.notes)?;
                settings = Some(merge::settings(settings.take().unwrap_or_default(), own));
            } else if !MCP_SOURCES.contains(&file.path.as_str()) {
                files.copy(&place, index, file)?;
            }
        }
        for source in MCP_SOURCES {
            if let Some(file) = layer.files.iter().find(|file| file.path == source) {
                let place = format!("profile `{}`, {source}", layer.name);
                let own = check_servers(&place, read(&place, file)?, &mut files.notes)?;
                mcp = Some(merge::servers(mcp.take().unwrap_or_default(), own));
            }
        }
    }
    if let Some(mut settings) = settings {
        if no_bypass {
            refuse_bypass(&mut settings);
        }
        files.denies = rules(&settings, "deny");
        files.write(SETTINGS_FILE, &Value::Object(settings));
    }
    if let Some(mcp) = mcp {
        let servers = mcp.get("mcpServers").and_then(Value::as_object);
        files.servers = servers
            .map(|servers| servers.keys().cloned().collect())
            .unwrap_or_default();
        files.write(MCP_FILE, &Value::Object(mcp));
    }
    Ok(files)
}

impl Files {
    /// Adds a file with these bytes.
    pub(crate) fn add(&mut self, path: &str, bytes: Vec<u8>) {
        let entry = FileEntry::bytes(path, bytes);
        self.entries.insert(path.to_owned(), entry);
    }

    fn write(&mut self, path: &str, json: &Value) {
        self.add(path, format!("{json:#}\n").into_bytes());
    }

    fn copy(&mut self, place: &str, layer: u32, file: &LayerFile) -> Result<(), Error> {
        // Beside `.claude/` a folder may have what it likes: notes, tests, a licence.
        let Some(path) = file.path.strip_prefix(FOLDER) else {
            return Ok(());
        };
        let first = path.split('/').next().unwrap_or(path);
        if [SESSIONS, STOP_FILE]
            .iter()
            .any(|own| first.eq_ignore_ascii_case(own))
        {
            return Err(Error::profile(format!(
                "{place}: `{first}` in the config directory is for the agent itself"
            )));
        }
        let entry = FileEntry::copy(path, layer, file);
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }
}

fn read(place: &str, file: &LayerFile) -> Result<Map<String, Value>, Error> {
    let bytes = file.content.as_deref().unwrap_or_default();
    json::object(bytes).map_err(|error| Error::profile(format!("{place}: {error}")))
}

/// The agent ignores a settings file that it cannot make sense of, so what it would trip over is said here.
fn check_settings(
    place: &str,
    settings: &Map<String, Value>,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let wrong = |key: &str, expected: &str, found: &Value| {
        Err(Error::profile(format!(
            "{place}: `{key}` must be {expected}, but it is {}",
            json::kind(found)
        )))
    };
    if let Some(permissions) = settings.get("permissions") {
        let Some(map) = permissions.as_object() else {
            return wrong("permissions", "a mapping", permissions);
        };
        for list in merge::ADDED_UP {
            let Some(rules) = map.get(list) else { continue };
            let texts = rules
                .as_array()
                .is_some_and(|rules| rules.iter().all(Value::is_string));
            if !texts {
                return wrong(&format!("permissions.{list}"), "a list of texts", rules);
            }
        }
    }
    let Some(hooks) = settings.get("hooks") else {
        return Ok(());
    };
    let Some(events) = hooks.as_object() else {
        return wrong("hooks", "a mapping of events to lists", hooks);
    };
    for (event, matchers) in events {
        let hooks_in = |matcher: &Value| matcher.get("hooks").and_then(Value::as_array).is_some();
        if !matchers
            .as_array()
            .is_some_and(|list| list.iter().all(hooks_in))
        {
            return wrong(
                &format!("hooks.{event}"),
                "a list of mappings with a list `hooks`",
                matchers,
            );
        }
        if !HOOK_EVENTS.contains(&event.as_str()) {
            notes.push(format!(
                "{place}: a version of the agent that does not know the hook event `{event}` ignores the whole file; events that \
                 are known everywhere are {}",
                HOOK_EVENTS.join(", ")
            ));
        }
    }
    Ok(())
}

fn rules(settings: &Map<String, Value>, list: &str) -> Vec<String> {
    let rules = settings
        .get("permissions")
        .and_then(|permissions| permissions.get(list))
        .and_then(Value::as_array);
    rules
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn refuse_bypass(settings: &mut Map<String, Value>) {
    let mode = settings
        .get_mut("permissions")
        .and_then(|permissions| permissions.get_mut("defaultMode"));
    if let Some(mode) = mode.filter(|mode| mode.as_str() == Some(BYPASS)) {
        *mode = INSTEAD.into();
    }
}

/// A server with a URL and no transport is dropped by the agent without a word; HTTP is what is meant today.
fn check_servers(
    place: &str,
    mut mcp: Map<String, Value>,
    notes: &mut Vec<String>,
) -> Result<Map<String, Value>, Error> {
    let wrong = |key: &str, expected: &str| {
        Err(Error::profile(format!(
            "{place}: `{key}` must be {expected}"
        )))
    };
    let Some(servers) = mcp.get_mut("mcpServers") else {
        return wrong("mcpServers", "there");
    };
    let Some(servers) = servers.as_object_mut() else {
        return wrong("mcpServers", "a mapping of names to servers");
    };
    for (name, server) in servers {
        let Some(server) = server.as_object_mut() else {
            return wrong(&format!("mcpServers.{name}"), "a mapping");
        };
        if server.contains_key("url") && !server.contains_key("type") {
            server.insert("type".to_owned(), "http".into());
            notes.push(format!(
                "{place}: the MCP server `{name}` has a `url` but no `type`; taken as `http`"
            ));
        }
    }
    Ok(mcp)
}
