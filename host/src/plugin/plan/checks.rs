//! The form of a plan: what holds for its parts whatever the program is.

use std::collections::HashSet;

use crate::plugin::bindings::types::{
    Argument, Budget, EnvValue, EnvVar, Location, Place, SessionPlan, StopPlan, Transcript,
};
use crate::plugin::error::{Code, PluginError};
use crate::plugin::limits::Limits;
use crate::plugin::policy::env;
use crate::plugin::tree::CheckedTree;
use crate::plugin::{path, text};

/// Bytes of a program's path, as much as Linux takes.
const MAX_PROGRAM: usize = 4096;
/// Bytes of one argument or variable that Linux can pass to a program.
const MAX_ARGUMENT: usize = 128 * 1024 - 1;
/// Bytes of all of them together, well below what Linux allows.
const MAX_ARGUMENTS: usize = 1024 * 1024;
/// Arguments, and variables.
const MAX_ITEMS: usize = 1_000;
/// Kept paths.
const MAX_KEPT: usize = 100;
/// Variables that are the host's own.
const RESERVED_ENV: &str = "AGENTICORE_";

fn wrong(message: impl Into<String>) -> PluginError {
    PluginError::new(Code::Plan, message)
}

pub(super) fn check_program(program: &str) -> Result<(), PluginError> {
    let shown = text::line(program, 100);
    let refused = |why: &str| Err(wrong(format!("the program `{shown}` {why}")));
    // Its place is the operator's affair, however deep; only the grant can say whether it may be started.
    match program.strip_prefix('/') {
        None if program.contains('/') => {
            refused("is a relative path; use a name or an absolute path")
        }
        _ if program.is_empty() || program.ends_with('/') || program.starts_with('-') => {
            refused("is not the name of a program")
        }
        _ if program.len() > MAX_PROGRAM => refused("is longer than 4,096 bytes"),
        _ if program.chars().any(text::is_deceptive) => {
            refused("has a control, invisible or bidirectional character")
        }
        None if program.contains(char::is_whitespace) => refused("is a command line; use a name"),
        None if program == "." || program == ".." => refused("is not the name of a program"),
        Some(rest) if rest.split('/').any(|name| ["", ".", ".."].contains(&name)) => {
            refused("is not a plain path")
        }
        _ => Ok(()),
    }
}

fn check_location(what: &str, location: &Location) -> Result<(), PluginError> {
    if location.prefix.chars().any(text::is_deceptive) {
        return Err(wrong(format!(
            "{what} has a prefix with control or invisible characters"
        )));
    }
    if location.path.is_empty() {
        Ok(())
    } else {
        path::check(what, &location.path)
    }
}

fn check_text(what: impl Fn() -> String, text: &str) -> Result<usize, PluginError> {
    if text.contains('\0') {
        return Err(wrong(format!("{} has a NUL character", what())));
    }
    if text.len() > MAX_ARGUMENT {
        return Err(wrong(format!(
            "{} has {} bytes, and the system takes at most {MAX_ARGUMENT}; pass it over standard input or in a file",
            what(),
            text.len()
        )));
    }
    Ok(text.len())
}

fn check_total(what: &str, count: usize, bytes: usize) -> Result<(), PluginError> {
    if count > MAX_ITEMS {
        return Err(wrong(format!(
            "the plan has {count} {what}, at most {MAX_ITEMS} are allowed"
        )));
    }
    if bytes > MAX_ARGUMENTS {
        return Err(wrong(format!(
            "the {what} have {bytes} bytes, at most {MAX_ARGUMENTS} are allowed"
        )));
    }
    Ok(())
}

pub(super) fn check_arguments(arguments: &[Argument]) -> Result<(), PluginError> {
    let mut bytes = 0_usize;
    for argument in arguments {
        bytes += match argument {
            Argument::Literal(text) => check_text(|| "an argument".to_owned(), text)?,
            Argument::Path(location) => {
                check_location("the argument", location)?;
                location.prefix.len() + location.path.len()
            }
        };
    }
    check_total("arguments", arguments.len(), bytes)
}

pub(in crate::plugin) fn check_env(vars: &[EnvVar]) -> Result<(), PluginError> {
    let mut names = HashSet::new();
    let mut bytes = 0_usize;
    for EnvVar { name, value } in vars {
        if !env::is_name(name) {
            return Err(wrong(format!(
                "`{}` is not the name of a variable",
                text::line(name, 100)
            )));
        }
        if is_reserved(name) {
            return Err(wrong(format!("the variable `{name}` is the host's own")));
        }
        if !names.insert(name) {
            return Err(wrong(format!("the variable `{name}` is there twice")));
        }
        bytes += name.len() + check_env_value(name, value)?;
    }
    check_total("variables", vars.len(), bytes)
}

fn is_reserved(name: &str) -> bool {
    let start = name.as_bytes().get(..RESERVED_ENV.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_ENV.as_bytes()))
}

fn check_env_value(name: &str, value: &EnvValue) -> Result<usize, PluginError> {
    match value {
        EnvValue::Literal(text) => check_text(|| format!("the variable `{name}`"), text),
        EnvValue::Path(location) => {
            check_location(&format!("the variable `{name}`"), location)?;
            Ok(location.prefix.len() + location.path.len())
        }
        // These configure the server, its own keys among them; no grant hands them to an agent.
        EnvValue::Inherit(source) if is_reserved(source) => Err(wrong(format!(
            "the variable `{name}` takes its value from `{source}`, which is the host's own"
        ))),
        EnvValue::Secret(source) | EnvValue::OptionalSecret(source) | EnvValue::Inherit(source) => {
            if env::is_name(source) {
                Ok(0)
            } else {
                let source = text::line(source, 100);
                Err(wrong(format!(
                    "the variable `{name}` takes its value from `{source}`, which is not a name"
                )))
            }
        }
    }
}

pub(super) fn check_stdin(stdin: Option<&[u8]>, limits: &Limits) -> Result<(), PluginError> {
    let (used, allowed) = (stdin.map_or(0, <[u8]>::len) as u64, limits.output_bytes.0);
    if used > allowed {
        let message = "the standard input of the plan is too large";
        return Err(PluginError::limit(
            Code::Output,
            "output_bytes",
            used,
            allowed,
            message,
        ));
    }
    Ok(())
}

/// Kept paths and written files must not overlap: one of the two would be lost.
pub(super) fn check_keep(keep: &[String], tree: &CheckedTree) -> Result<(), PluginError> {
    if keep.len() > MAX_KEPT {
        return Err(wrong(format!(
            "the plan keeps {} paths, at most {MAX_KEPT} are allowed",
            keep.len()
        )));
    }
    let mut taken: Vec<_> = tree
        .files()
        .iter()
        .map(|file| path::fold(&file.path))
        .collect();
    for kept in keep {
        path::check("the kept path", kept)?;
        let folded = path::fold(kept);
        if let Some(other) = taken.iter().find(|other| overlaps(&folded, other)) {
            return Err(wrong(format!(
                "the kept path `{kept}` overlaps with `{other}`"
            )));
        }
        taken.push(folded);
    }
    Ok(())
}

fn overlaps(a: &str, b: &str) -> bool {
    let inside = |a: &str, b: &str| {
        a.strip_prefix(b)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    inside(a, b) || inside(b, a)
}

pub(super) fn check_budget(budget: &Budget) -> Result<(), PluginError> {
    match budget.cost_usd {
        Some(dollars) if !(dollars.is_finite() && dollars > 0.0) => Err(wrong(format!(
            "a budget of {dollars} dollars allows nothing; leave it out for no limit"
        ))),
        _ => Ok(()),
    }
}

pub(super) fn check_session(session: &SessionPlan) -> Result<(), PluginError> {
    if let Some(id) = &session.id {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if id.is_empty() || id.len() > 200 || id.starts_with('-') || !id.chars().all(plain) {
            return Err(wrong(format!(
                "`{}` is not a session id",
                text::line(id, 100)
            )));
        }
    }
    if let Some(Transcript { pattern, marker }) = &session.transcript {
        path::check("the transcript pattern", pattern)?;
        if globset::Glob::new(pattern).is_err() {
            return Err(wrong(format!(
                "the transcript pattern `{pattern}` is not a glob"
            )));
        }
        if marker.is_empty() || marker.len() > 1024 {
            return Err(wrong("the transcript marker must have 1 to 1,024 bytes"));
        }
    }
    Ok(())
}

pub(super) fn check_stop(stop: &StopPlan, tree: &CheckedTree) -> Result<(), PluginError> {
    let StopPlan::CreateFile(location) = stop else {
        return Ok(());
    };
    if location.path.is_empty() || !location.prefix.is_empty() {
        return Err(wrong("the stop file must have a path and no prefix"));
    }
    path::check("the stop file", &location.path)?;
    let folded = path::fold(&location.path);
    let written = tree
        .files()
        .iter()
        .any(|file| overlaps(&folded, &path::fold(&file.path)));
    if location.place == Place::ConfigDir && written {
        return Err(wrong(format!(
            "the stop file `{}` is also a file of the plan",
            location.path
        )));
    }
    Ok(())
}
