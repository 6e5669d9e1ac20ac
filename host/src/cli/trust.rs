//! `agenticore plugin approvals`, `approve`, `revoke`, `disable` and `enable`: the operator's word about plugins.
//!
//! They write to the directory that all pods read, so they need the settings of a pod and no server.

use std::collections::BTreeSet;

use serde_json::json;

use super::context::Context;
use super::exit::{ExitCode, UsageError};
use super::output::{Format, Rows};
use super::text;
use crate::bundled;
use crate::config::{Config, Flags};
use crate::plugins::usable;
use crate::profile::{Component, ProfileStore};
use crate::server::profile_roots;
use crate::trust::{Approval, Standing, Target, Trust};

/// List the versions of plugins that are known, where each stands, and what is switched off
#[derive(Debug, clap::Args)]
pub(super) struct Approvals {
    /// Only versions that wait for approval
    #[arg(long)]
    waiting: bool,
}

/// Let jobs use a version of a plugin that asks for more than an approved one
///
/// Review it first: `agenticore plugin approvals` says what it asks for, `agenticore plugin check FILE` what it is.
#[derive(Debug, clap::Args)]
pub(super) struct Approve {
    /// The digest, at least its first 8 digits, or the name of a plugin whose waiting versions are meant
    plugin: String,
}

/// Take an approval back: no new job may use the version, and waiting ones fail
#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// The digest, at least its first 8 digits, or the name of a plugin whose every version is meant
    plugin: String,
}

/// Switch a plugin off on every pod within seconds
///
/// New jobs that need it are refused and waiting ones fail with the code plugin.disabled. A job whose agent runs already goes on to its
/// end, with a warning on its record; cancel it if it must not. A name that nobody knows here is switched off as well, with a warning.
#[derive(Debug, clap::Args)]
pub(super) struct Disable {
    /// The name or the digest
    plugin: String,
    /// Why, for those whose jobs are refused
    #[arg(long, default_value = "")]
    reason: String,
}

/// Switch a plugin on again
#[derive(Debug, clap::Args)]
pub(super) struct Enable {
    /// The name or the digest that was switched off
    plugin: String,
}

fn trust() -> anyhow::Result<Trust> {
    Ok(Trust::new(&Config::load(&Flags::default())?))
}

fn target(trust: &Trust, text: &str) -> anyhow::Result<Target> {
    let target = trust.decisions()?.target(text);
    target.map_err(|error| UsageError(error.to_string()).into())
}

pub(super) fn approvals(args: &Approvals, context: &Context) -> anyhow::Result<ExitCode> {
    let decisions = trust()?.decisions()?;
    let shown: Vec<&Approval> = decisions
        .approvals
        .values()
        .filter(|a| !args.waiting || a.standing == Standing::Waiting)
        .collect();
    let output = &context.output;
    if matches!(output.format, Format::Json | Format::Jsonl) {
        output.json(&json!({
            "approvals": shown,
            "disabled": decisions.disabled.values().collect::<Vec<_>>(),
        }))?;
        return Ok(ExitCode::Success);
    }
    output.list(&shown, |a| a.digest.to_string(), || rows(&shown))?;
    for disabled in decisions.disabled.values() {
        let reason = text::line(&disabled.reason, 200);
        output.note(&format!("switched off: {} {reason}", disabled.what));
    }
    Ok(ExitCode::Success)
}

fn rows(shown: &[&Approval]) -> Rows {
    let row = |approval: &&Approval| {
        let asks: Vec<String> = approval.requests.iter().map(|g| g.to_string()).collect();
        vec![
            approval.standing.as_str().to_owned(),
            text::line(&approval.name, 64),
            approval.digest.short(),
            text::line(&asks.join(" "), 200),
            text::line(&approval.why, 200),
        ]
    };
    Rows {
        heading: &["STANDING", "PLUGIN", "DIGEST", "ASKS FOR", "WHY"],
        rows: shown.iter().map(row).collect(),
    }
}

pub(super) fn approve(args: &Approve, context: &Context) -> anyhow::Result<ExitCode> {
    let trust = trust()?;
    let decided = trust.approve(&target(&trust, &args.plugin)?)?;
    say_where(&trust, context);
    tell(context, &decided)
}

pub(super) fn revoke(args: &Revoke, context: &Context) -> anyhow::Result<ExitCode> {
    let trust = trust()?;
    let decided = trust.revoke(&target(&trust, &args.plugin)?)?;
    say_where(&trust, context);
    tell(context, &decided)
}

/// No server is asked, so whoever has another one in mind must see which directory was meant.
fn say_where(trust: &Trust, context: &Context) {
    let directory = trust.dir().display();
    context.output.note(&format!(
        "written to {directory}: servers whose settings name it follow within seconds"
    ));
}

fn tell(context: &Context, decided: &[Approval]) -> anyhow::Result<ExitCode> {
    let output = &context.output;
    if output.format != Format::Table {
        output.json(&decided)?;
        return Ok(ExitCode::Success);
    }
    for approval in decided {
        let line = format!(
            "{} {} {}\n",
            approval.standing.as_str(),
            approval.digest,
            text::line(&approval.name, 64)
        );
        output.data(&line)?;
    }
    Ok(ExitCode::Success)
}

/// The names of the plugins that are part of the program, that jobs have used, or whose files profiles name.
fn known(config: &Config, trust: &Trust) -> anyhow::Result<BTreeSet<String>> {
    let mut known: BTreeSet<String> = bundled::plugin_names().map(str::to_owned).collect();
    let used = trust.decisions()?;
    let used = used.approvals.values().map(|a| a.name.clone());
    known.extend(used.filter(|name| !name.is_empty()));
    for profile in usable(&ProfileStore::new(profile_roots(config))?) {
        let hooks = profile.hooks.iter().map(|hook| &hook.plugin);
        for reference in hooks.chain([&profile.plugin]) {
            if let Component::File(path) = &reference.component {
                let stem = path.file_stem().map(|stem| stem.to_string_lossy());
                known.extend(stem.map(std::borrow::Cow::into_owned));
            }
        }
    }
    Ok(known)
}

/// A plugin may be switched off before it comes, but a name that is merely mistyped leaves the one that was meant switched on.
fn warn_of_unknown(name: &str, known: &BTreeSet<String>, context: &Context) {
    if known.contains(name) {
        return;
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    context.output.note(&format!(
        "warning: no plugin that is known here is called {name}; known are: {}. If it was mistyped, take it back with \
         `agenticore plugin enable {name}`",
        text::line(&known.join(", "), 1_000)
    ));
}

pub(super) fn disable(args: &Disable, context: &Context) -> anyhow::Result<ExitCode> {
    let config = Config::load(&Flags::default())?;
    let trust = Trust::new(&config);
    let target = target(&trust, &args.plugin)?;
    let disabled = trust.disable(&target, &args.reason)?;
    say_where(&trust, context);
    // The switch counts also where nobody can say which plugins there are.
    if let (Target::Name(name), Ok(known)) = (&target, known(&config, &trust)) {
        warn_of_unknown(name, &known, context);
    }
    if context.output.format != Format::Table {
        context.output.json(&disabled)?;
        return Ok(ExitCode::Success);
    }
    context
        .output
        .data(&format!("{} is switched off\n", disabled.what))?;
    Ok(ExitCode::Success)
}

pub(super) fn enable(args: &Enable, context: &Context) -> anyhow::Result<ExitCode> {
    let trust = trust()?;
    let target = target(&trust, &args.plugin)?;
    if !trust.enable(&target)? {
        let text =
            format!("{target} was not switched off; `agenticore plugin approvals` lists what is");
        return Err(UsageError(text).into());
    }
    say_where(&trust, context);
    context
        .output
        .data(&format!("{target} is switched on again\n"))?;
    Ok(ExitCode::Success)
}
