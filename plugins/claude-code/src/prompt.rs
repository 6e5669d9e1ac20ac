//! What the agent is told.

use crate::bindings::types::{Job, SessionStart};

/// The longest task in the line about the job, in characters.
const TASK_LEN: usize = 200;

/// What goes to the agent's standard input.
pub(crate) fn of(job: &Job, session: &SessionStart) -> String {
    let prompt = match session {
        SessionStart::Fresh(_) | SessionStart::Continue(_) => job.task.clone(),
        SessionStart::Recover(_) => {
            let check = if job.repo_url.is_some() {
                "`git status` and what it did"
            } else {
                "what it did"
            };
            format!(
                "The host restarted while you were working. Your last command may have run in part: check {check}, then continue \
                 with the task where you left off. The task was: {}",
                one_line(&job.task, TASK_LEN)
            )
        }
    };
    // At the beginning of a prompt a slash calls a command.
    if prompt.starts_with('/') {
        format!(" {prompt}")
    } else {
        prompt
    }
}

/// One line about the job, and what the profile adds to it.
pub(crate) fn system(job: &Job, append: Option<&str>) -> String {
    let mut line = format!("Agenticore job {}", job.id);
    for (word, value) in [
        ("repository", &job.repo_url),
        ("branch", &job.branch),
        ("base", &job.base_ref),
    ] {
        if let Some(value) = value {
            line.push_str(&format!(", {word} {}", one_line(value, TASK_LEN)));
        }
    }
    line.push_str(&format!(", task: {}", one_line(&job.task, TASK_LEN)));
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

/// A text in one line of at most `len` characters.
pub(crate) fn one_line(text: &str, len: usize) -> String {
    let mut line = String::new();
    let words = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty());
    for (n, word) in words.enumerate() {
        if n > 0 {
            line.push(' ');
        }
        line.push_str(word);
        // No need to go through a megabyte for one line of it.
        if line.len() > 4 * len {
            break;
        }
    }
    match line.char_indices().nth(len) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
