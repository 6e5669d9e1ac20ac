//! Makes `config.toml`: what the profile brings, what its `plugin.config` says, and what an agent without a person needs.

use toml::{Table, Value};

use crate::files;
use crate::operator::Operator;
use crate::settings::Settings;
use agenticore_plugin::Job;

/// The name of the model's service where it is not the usual one.
const PROVIDER: &str = "configured";
/// The variable that the agent reads its key from.
pub(crate) const KEY_VARIABLE: &str = "CODEX_API_KEY";

/// The settings' text. `brought` is what the profile's files say.
pub(crate) fn make(brought: Table, settings: &Settings, operator: &Operator, job: &Job) -> String {
    let mut config = defaults();
    files::merge(&mut config, brought);
    files::merge(&mut config, own(settings, operator));
    let append = [
        config.get("developer_instructions").and_then(Value::as_str),
        settings.append_prompt.as_deref(),
    ];
    let append = append
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("\n\n");
    let instructions = match append.trim() {
        "" => job.line(),
        text => format!("{}\n\n{text}", job.line()),
    };
    config.insert("developer_instructions".to_owned(), instructions.into());
    config.to_string()
}

/// What holds unless the profile says otherwise: nobody is asked, nothing is fetched from or told to anybody but the model's
/// service, and commands write to the workspace alone.
fn defaults() -> Table {
    let off = |key: &str| Value::Table(Table::from_iter([(key.to_owned(), false.into())]));
    Table::from_iter([
        ("approval_policy".to_owned(), "never".into()),
        ("sandbox_mode".to_owned(), "workspace-write".into()),
        ("web_search".to_owned(), "disabled".into()),
        ("check_for_update_on_startup".to_owned(), false.into()),
        ("analytics".to_owned(), off("enabled")),
        ("feedback".to_owned(), off("enabled")),
        ("features".to_owned(), off("plugins")),
    ])
}

fn own(settings: &Settings, operator: &Operator) -> Table {
    let mut own = Table::new();
    for (key, value) in [
        ("model", &settings.model),
        ("model_reasoning_effort", &settings.effort),
        ("sandbox_mode", &settings.sandbox),
    ] {
        if let Some(value) = value {
            own.insert(key.to_owned(), value.clone().into());
        }
    }
    if let Some(search) = settings.web_search {
        own.insert(
            "web_search".to_owned(),
            if search { "live" } else { "disabled" }.into(),
        );
    }
    if !settings.trusts_repository() {
        // The instructions that a repository brings are a part of its text that the agent would take for its user's.
        own.insert("project_doc_max_bytes".to_owned(), 0.into());
    }
    if let Some(url) = settings.base_url.as_ref().or(operator.base_url.as_ref()) {
        let provider = Table::from_iter([
            ("name".to_owned(), Value::from(PROVIDER)),
            ("base_url".to_owned(), url.clone().into()),
            ("env_key".to_owned(), KEY_VARIABLE.into()),
            ("wire_api".to_owned(), "responses".into()),
        ]);
        own.insert("model_provider".to_owned(), PROVIDER.into());
        own.insert(
            "model_providers".to_owned(),
            Table::from_iter([(PROVIDER.to_owned(), Value::Table(provider))]).into(),
        );
    }
    own
}
