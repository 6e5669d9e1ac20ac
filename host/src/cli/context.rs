//! What a command works with: the outputs, the server, and the ids of jobs as people type them.

use std::time::Duration;

use secrecy::SecretString;

use super::Globals;
use super::exit::UsageError;
use super::output::Output;
use crate::client::{Client, ClientError, JobQuery, Patience};
use crate::config::{Config, ConfigError, Flags};
use crate::job::{JobId, Record};

/// Stands for the newest job.
const LAST: &str = "@last";

/// Where a command writes and whom it talks to.
pub(super) struct Context {
    pub(super) output: Output,
    globals: Globals,
}

impl Context {
    pub(super) fn new(globals: Globals, output: Output) -> Self {
        Self { output, globals }
    }

    /// A client of the server that the command line, the environment or the settings name, in this order.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        self.client_with(Patience::default())
    }

    /// As [`Context::client`], with this long an outage before a broken stream is given up.
    pub(super) fn patient_client(&self, outage: Duration) -> anyhow::Result<Client> {
        self.client_with(Patience {
            outage,
            ..Patience::default()
        })
    }

    fn client_with(&self, patience: Patience) -> anyhow::Result<Client> {
        let (base, key) = self.server(|| Config::load(&Flags::default()))?;
        Ok(Client::with_patience(&base, key.as_ref(), patience)?)
    }

    /// The server's address and the key to show. The settings are read only for what the command line leaves open.
    fn server(
        &self,
        load: impl FnOnce() -> Result<Config, ConfigError>,
    ) -> anyhow::Result<(String, Option<SecretString>)> {
        let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        let first_key = |config: &Config| config.api_keys.first().cloned();
        match (given(&self.globals.server), self.globals.api_key.clone()) {
            (Some(base), Some(key)) => Ok((base, Some(key))),
            (Some(base), None) => {
                // Settings that only a server needs must not keep a client from another one.
                let config = load()
                    .inspect_err(|e| tracing::warn!("settings are not used: {e}"))
                    .ok();
                Ok((base, config.as_ref().and_then(first_key)))
            }
            (None, key) => {
                let config = load()?;
                let key = key.or_else(|| first_key(&config));
                Ok((config.base_url(), key))
            }
        }
    }

    /// The record of the job that `id` names: a whole id, the beginning of one, or `@last`.
    pub(super) async fn record(&self, client: &Client, id: &str) -> anyhow::Result<Record> {
        if id == LAST {
            return newest(client).await;
        }
        let typed = id.to_ascii_lowercase();
        if typed.is_empty() || !typed.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
            return Err(UsageError(format!(
                "{id:?} is no job id: give a whole id, at least its first 6 characters, or {LAST}"
            ))
            .into());
        }
        Ok(client.get(&typed).await?)
    }

    /// The whole id of the job that `id` names. A whole id is not asked for.
    pub(super) async fn id(&self, client: &Client, id: &str) -> anyhow::Result<String> {
        match id.parse::<JobId>() {
            Ok(id) => Ok(id.to_string()),
            Err(_) => Ok(self.record(client, id).await?.id),
        }
    }
}

async fn newest(client: &Client) -> anyhow::Result<Record> {
    let query = JobQuery {
        limit: Some(1),
        ..JobQuery::default()
    };
    let page = client.list(&query).await?;
    page.jobs.into_iter().next().ok_or_else(|| {
        let detail = format!("{LAST} names no job: the server has none");
        ClientError::Refused {
            status: 404,
            code: None,
            detail,
        }
        .into()
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::io;
    use std::path::Path;

    use secrecy::ExposeSecret as _;

    use super::super::output::Format;
    use super::*;

    fn of(
        server: Option<&str>,
        key: Option<&str>,
        config: Result<Config, ConfigError>,
    ) -> (String, Option<String>) {
        let globals = Globals {
            server: server.map(str::to_owned),
            api_key: key.map(SecretString::from),
            output: Format::Table,
            json: false,
        };
        let context = Context::new(
            globals,
            Output::captured(Format::Table, io::sink(), io::sink()),
        );
        let (base, key) = context.server(|| config).unwrap();
        (base, key.map(|k| k.expose_secret().to_owned()))
    }

    fn config() -> Result<Config, ConfigError> {
        let lookup = |name: &str| match name {
            "AGENTICORE_PORT" => Some("9000".to_owned()),
            "AGENTICORE_API_KEYS" => Some("first,second".to_owned()),
            _ => None,
        };
        Config::from_parts(
            &Flags::default(),
            &lookup,
            "/home/u/.agenticore".into(),
            Path::new("/none"),
        )
    }

    #[test]
    fn what_is_typed_wins_over_the_settings() {
        let owned = |base: &str, key: &str| (base.to_owned(), Some(key.to_owned()));
        assert_eq!(
            of(None, None, config()),
            owned("http://127.0.0.1:9000", "first")
        );
        assert_eq!(
            of(Some("http://x"), None, config()),
            owned("http://x", "first")
        );
        assert_eq!(
            of(Some(""), Some("k"), config()),
            owned("http://127.0.0.1:9000", "k")
        );
        let broken = || Err(ConfigError::Conflict("only a server minds".into()));
        assert_eq!(
            of(Some("http://x"), Some("k"), broken()),
            owned("http://x", "k")
        );
        assert_eq!(
            of(Some("http://x"), None, broken()),
            ("http://x".to_owned(), None)
        );
    }
}
