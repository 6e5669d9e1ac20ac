//! What the agent is told.

use agenticore_plugin::{Job, SessionStart};

/// What goes to the agent's standard input.
pub(crate) fn of(job: &Job, session: &SessionStart) -> String {
    let prompt = job.prompt(session);
    // At the beginning of a prompt a slash calls a command.
    if prompt.starts_with('/') {
        format!(" {prompt}")
    } else {
        prompt
    }
}

/// One line about the job, and what the profile adds to it.
pub(crate) fn system(job: &Job, append: Option<&str>) -> String {
    let line = job.line();
    match append {
        Some(template) if !template.trim().is_empty() => {
            format!("{line}\n\n{}", expand(template, job))
        }
        _ => line,
    }
}

/// Puts the job's values in the place of `{{NAME}}`. What a value brings along is not expanded again; unknown names stay as they are.
fn expand(template: &str, job: &Job) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let found = after
            .split_once("}}")
            .and_then(|(name, tail)| Some((variable(name.trim(), job)?, tail)));
        if let Some((value, tail)) = found {
            text.push_str(value);
            rest = tail;
        } else {
            text.push_str("{{");
            rest = after;
        }
    }
    text.push_str(rest);
    text
}

fn variable<'a>(name: &str, job: &'a Job) -> Option<&'a str> {
    let optional = |value: &'a Option<String>| Some(value.as_deref().unwrap_or_default());
    match name {
        "TASK" => Some(&job.task),
        "JOB_ID" => Some(&job.id),
        "PROFILE" => Some(&job.profile),
        "REPO_URL" => optional(&job.repo_url),
        "BASE_REF" => optional(&job.base_ref),
        "BRANCH" => optional(&job.branch),
        _ => None,
    }
}
