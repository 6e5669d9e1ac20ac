//! What a plugin says of itself, asked for at load and checked like everything else that comes from a guest.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use semver::Version;
use serde_json::Value;
use wasmtime::Store;

use super::{Plugin, mistyped};
use crate::plugin::bindings::types::Description;
use crate::plugin::call::Guest;
use crate::plugin::error::{Code, PluginError};
use crate::plugin::grants::{Grant, Grants};
use crate::plugin::state::State;
use crate::plugin::{Core, text};

/// Whose name the virtual clock of `describe` follows; it must not differ between hosts.
const NO_JOB: &str = "00000000-0000-0000-0000-000000000000";
/// What the metrics call a plugin that has not said its name.
const LOADING: &str = "(loading)";
/// Bytes of a configuration's schema.
const MAX_SCHEMA: usize = 256 * 1024;

/// Starts the component once, checks its types and asks what it is.
pub(super) async fn describe(core: &Core, plugin: &mut Plugin) -> Result<(), PluginError> {
    let guest = || {
        Guest::new(
            &core.engine,
            LOADING.to_owned(),
            NO_JOB,
            &core.limits,
            core.log_debug,
        )
    };
    let deadline = core.limits.describe_time;
    let call = async |store: &mut Store<State>| {
        let instance = plugin.pre.instantiate_async(&mut *store).await?;
        Ok(plugin.indices.check(store, &instance))
    };
    let (_, types, _) = guest()
        .call(&core.ticker, "start", "describe_time", deadline, call)
        .await?;
    types.map_err(|error| mistyped(&error))?;

    let Some(indices) = plugin.indices.profile.clone() else {
        return Ok(());
    };
    let call = async |store: &mut Store<State>| {
        let instance = plugin.pre.instantiate_async(&mut *store).await?;
        indices
            .load(&mut *store, &instance)?
            .call_describe(store)
            .await
    };
    let (_, description, _) = guest()
        .call(&core.ticker, "describe", "describe_time", deadline, call)
        .await?;
    let call = async |store: &mut Store<State>| {
        let instance = plugin.pre.instantiate_async(&mut *store).await?;
        indices
            .load(&mut *store, &instance)?
            .call_config_schema(store)
            .await
    };
    let (_, schema, _) = guest()
        .call(
            &core.ticker,
            "config-schema",
            "describe_time",
            deadline,
            call,
        )
        .await?;
    plugin.reads = reads(&description.reads)?;
    plugin.requests = requests(&description.requests)?;
    plugin.description = Some(checked(description)?);
    plugin.schema = Some(parse_schema(&schema)?);
    Ok(())
}

fn undescribed(message: impl Into<String>) -> PluginError {
    PluginError::new(Code::Describe, message)
}

fn checked(mut description: Description) -> Result<Description, PluginError> {
    let name = &description.name;
    let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 64;
    if !plain || !name.chars().all(kebab) {
        return Err(undescribed(format!(
            "the name `{}` is not kebab-case of at most 64 letters",
            text::line(name, 80)
        )));
    }
    if description.version.len() > 64 || Version::parse(&description.version).is_err() {
        let version = text::line(&description.version, 80);
        return Err(undescribed(format!(
            "the version `{version}` is not a semantic version"
        )));
    }
    description.summary = text::line(&description.summary, 500);
    Ok(description)
}

fn reads(patterns: &[String]) -> Result<GlobSet, PluginError> {
    if patterns.len() > 64 || patterns.iter().any(|pattern| pattern.len() > 256) {
        return Err(undescribed(
            "`reads` may have at most 64 patterns of 256 bytes",
        ));
    }
    let mut set = GlobSetBuilder::new();
    let wrong = |error: globset::Error| undescribed(text::line(&format!("`reads`: {error}"), 300));
    for pattern in patterns {
        set.add(
            GlobBuilder::new(pattern)
                .literal_separator(true)
                .build()
                .map_err(wrong)?,
        );
    }
    set.build().map_err(wrong)
}

fn requests(requests: &[String]) -> Result<Grants, PluginError> {
    if requests.len() > 1_000 {
        return Err(undescribed("`requests` may have at most 1,000 grants"));
    }
    let grants: Result<Vec<Grant>, _> = requests.iter().map(|request| request.parse()).collect();
    let grants = grants.map_err(|error| undescribed(format!("`requests`: {error}")))?;
    Ok(grants.into_iter().collect())
}

fn parse_schema(schema: &str) -> Result<Value, PluginError> {
    if schema.len() > MAX_SCHEMA {
        return Err(undescribed(format!(
            "the schema of the configuration has more than {MAX_SCHEMA} bytes"
        )));
    }
    let value: Value = serde_json::from_str(schema).map_err(|error| {
        undescribed(format!(
            "the schema of the configuration is not JSON: {error}"
        ))
    })?;
    if value.is_object() || value.is_boolean() {
        Ok(value)
    } else {
        Err(undescribed(
            "the schema of the configuration is neither an object nor a boolean",
        ))
    }
}
