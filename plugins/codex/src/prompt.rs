//! What the agent is told.

use crate::bindings::types::{Job, SessionStart};

/// The longest task in the line about the job, in characters.
const TASK_LEN: usize = 200;

/// What goes to the agent's standard input.
pub(crate) fn of(job: &Job, session: &SessionStart) -> String {
    match session {
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
    }
}

/// One line about the job, and what the profile adds to it.
pub(crate) fn instructions(job: &Job, append: Option<&str>) -> String {
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
    match append.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => format!("{line}\n\n{text}"),
        None => line,
    }
}

/// A text in one line of at most `len` characters.
pub(crate) fn one_line(text: &str, len: usize) -> String {
    // No need to go through a megabyte for one line of it.
    let head: String = text.chars().take(4 * len).collect();
    let words: Vec<&str> = head
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let line = words.join(" ");
    match line.char_indices().nth(len) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
