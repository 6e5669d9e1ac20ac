//! Lays the profile's files out in the agent's home.
//!
//! What is below `.codex/` goes to the top of it, the child's file over its parent's. `config.toml` is merged instead, table by
//! table, and the servers of `.mcp.json` files are added to it.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};

use agenticore_plugin::{Error, FileEntry, Layer, LayerFile};

/// The files whose bytes this module reads.
pub(crate) const READS: [&str; 2] = [CONFIG_SOURCE, MCP_SOURCE];
/// The settings' file in the agent's home.
pub(crate) const CONFIG_FILE: &str = "config.toml";
/// Where the agent records its sessions.
pub(crate) const SESSIONS: &str = "sessions";

const FOLDER: &str = ".codex/";
const CONFIG_SOURCE: &str = ".codex/config.toml";
const MCP_SOURCE: &str = ".mcp.json";

/// The files of a launch.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// By path, without the settings.
    pub(crate) entries: BTreeMap<String, FileEntry>,
    /// The settings of all layers.
    pub(crate) config: Table,
}

/// The servers of an `.mcp.json`.
#[derive(Deserialize)]
struct McpFile {
    #[serde(rename = "mcpServers")]
    servers: BTreeMap<String, McpServer>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct McpServer {
    #[serde(rename = "type")]
    transport: Option<String>,
    command: Option<String>,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    url: Option<String>,
    headers: BTreeMap<String, String>,
}

/// The files of a chain, the root first.
///
/// # Errors
/// A file that is not what the agent expects, or one in a place that the agent itself writes to.
pub(crate) fn lay_out(layers: &[Layer]) -> Result<Files, Error> {
    let mut files = Files::default();
    for (index, layer) in (0..).zip(layers) {
        for file in &layer.files {
            let place = format!("profile `{}`, {}", layer.name, file.path);
            match file.path.as_str() {
                CONFIG_SOURCE => {
                    let own = toml::from_str(text(&place, file)?)
                        .map_err(|error| Error::profile(format!("{place}: {error}")))?;
                    merge(&mut files.config, own);
                }
                MCP_SOURCE => merge(&mut files.config, servers(&place, file)?),
                _ => files.copy(&place, index, file)?,
            }
        }
    }
    Ok(files)
}

/// Lays a table over another, table by table; what is no table on both sides is the child's.
pub(crate) fn merge(parent: &mut Table, child: Table) {
    for (key, value) in child {
        match (parent.get_mut(&key), value) {
            (Some(Value::Table(ours)), Value::Table(theirs)) => merge(ours, theirs),
            (_, value) => {
                parent.insert(key, value);
            }
        }
    }
}

/// The servers of an `.mcp.json` as the agent's own settings name them.
fn servers(place: &str, file: &LayerFile) -> Result<Table, Error> {
    let wrong = |what: String| Error::profile(format!("{place}: {what}"));
    let mcp: McpFile =
        serde_json::from_str(text(place, file)?).map_err(|error| wrong(error.to_string()))?;
    let mut servers = Table::new();
    for (name, server) in mcp.servers {
        let mut own = Table::new();
        match (server.command, server.url) {
            (Some(command), None) => {
                own.insert("command".to_owned(), command.into());
                own.insert("args".to_owned(), server.args.into());
                own.insert("env".to_owned(), strings(server.env));
            }
            (None, Some(_)) if server.transport.as_deref() == Some("sse") => {
                return Err(wrong(format!(
                    "the agent cannot talk to the server `{name}` over `sse`; use its streamable HTTP address"
                )));
            }
            (None, Some(url)) => {
                own.insert("url".to_owned(), url.into());
                own.insert("http_headers".to_owned(), strings(server.headers));
            }
            _ => {
                return Err(wrong(format!(
                    "the server `{name}` must have either `command` or `url`"
                )));
            }
        }
        servers.insert(name, own.into());
    }
    Ok(Table::from_iter([(
        "mcp_servers".to_owned(),
        servers.into(),
    )]))
}

fn strings(map: BTreeMap<String, String>) -> Value {
    Value::Table(
        map.into_iter()
            .map(|(key, text)| (key, text.into()))
            .collect(),
    )
}

fn text<'a>(place: &str, file: &'a LayerFile) -> Result<&'a str, Error> {
    std::str::from_utf8(file.content.as_deref().unwrap_or_default())
        .map_err(|error| Error::profile(format!("{place}: {error}")))
}

impl Files {
    fn copy(&mut self, place: &str, layer: u32, file: &LayerFile) -> Result<(), Error> {
        // Beside `.codex/` a folder may have what it likes: notes, tests, files of another agent.
        let Some(path) = file.path.strip_prefix(FOLDER) else {
            return Ok(());
        };
        if path
            .split('/')
            .next()
            .is_some_and(|first| first.eq_ignore_ascii_case(SESSIONS))
        {
            return Err(Error::profile(format!(
                "{place}: `{SESSIONS}` in the agent's home is for the agent itself"
            )));
        }
        let entry = FileEntry::copy(path, layer, file);
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }
}
