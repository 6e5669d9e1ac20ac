//! The agent's session, before **materialize**: whether this attempt begins one, goes on with its own or with that of an earlier job.
//!
//! The host knows no agent's files. The plan of each attempt says where the agent records its session (a [`Transcript`]); here that
//! record is looked for, and brought along from an earlier job's directory.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::materialize::{Launch, host_failed, plugin_failed};
use super::{Attempt, Halt};
use crate::job::{Failure, FailureClass, SessionId, Transcript};
use crate::plugin::apply;
use crate::plugin::types::{Session, SessionStart};

impl Attempt<'_> {
    /// How the agent's session starts in this attempt.
    pub(super) async fn session_start(&self, config_dir: &Path) -> Result<SessionStart, Halt> {
        if self.job.attempt > 1
            && let Some(session) = self.interrupted_session(config_dir).await?
        {
            return Ok(SessionStart::Recover(session));
        }
        match &self.job.request.session_id {
            Some(id) => Ok(SessionStart::Continue(
                self.earlier_session(id, config_dir).await?,
            )),
            // The job's own id: chosen before the start, and the same on whichever pod goes on with it.
            None => Ok(SessionStart::Fresh(self.job.id.to_string())),
        }
    }

    /// The session that an earlier attempt of this job began, if it got so far that it can go on.
    async fn interrupted_session(&self, config_dir: &Path) -> Result<Option<Session>, Halt> {
        let run = &self.job.run;
        let (Some(id), Some(transcript)) = (&run.session_id, &run.transcript) else {
            return Ok(None);
        };
        let found = find(config_dir.to_owned(), transcript.clone()).await?;
        Ok(found.map(|path| Session {
            id: id.to_string(),
            transcript: Some(path),
        }))
    }

    /// The session of an earlier job, with its record brought into this job's config directory.
    async fn earlier_session(&self, id: &SessionId, config_dir: &Path) -> Result<Session, Halt> {
        let source = self
            .pod
            .last_job_of(id, Some(self.job.id))
            .await
            .map_err(|e| host_failed(e.to_string()))?
            .ok_or_else(|| gone(id))?;
        let session = |transcript| Session {
            id: id.to_string(),
            transcript,
        };
        // The agent keeps its sessions in a place of its own, and finds them there.
        let Some(transcript) = source.transcript.clone() else {
            return Ok(session(None));
        };
        let from = self.pod.session_dir(&source).ok_or_else(|| gone(id))?;
        bring(from, config_dir.to_owned(), transcript.keep.clone()).await?;
        let found = find(config_dir.to_owned(), transcript).await?;
        Ok(session(Some(found.ok_or_else(|| gone(id))?)))
    }

    /// Puts the plan's session on record.
    pub(super) fn note_session(&mut self, launch: &Launch) {
        let plan = &launch.plan.session;
        let known = match &launch.session {
            SessionStart::Fresh(_) => None,
            SessionStart::Continue(session) | SessionStart::Recover(session) => Some(&session.id),
        };
        let run = &mut self.job.run;
        run.session_id = plan.id.as_ref().or(known).and_then(|id| id.parse().ok());
        run.transcript = plan.transcript.as_ref().map(|transcript| Transcript {
            pattern: transcript.pattern.clone(),
            marker: transcript.marker.clone(),
            keep: launch.plan.keep.clone(),
        });
    }
}

fn gone(id: &SessionId) -> Failure {
    Failure::new(
        FailureClass::Host,
        format!("the record of the session {id} is gone: no job of this server has it any more"),
        "submit the job again without a session id; AGENTICORE_JOB_TTL says how long a server remembers its jobs",
    )
}

/// Copies what the session needs into a config directory that does not exist yet.
async fn bring(from: PathBuf, to: PathBuf, keep: Vec<String>) -> Result<(), Halt> {
    let brought = tokio::task::spawn_blocking(move || {
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|e| host_failed(format!("cannot create {}: {e}", parent.display())))?;
        }
        apply::bring(&from, &to, &keep).map_err(plugin_failed)?;
        Ok(())
    });
    brought
        .await
        .map_err(|e| host_failed(format!("copying the session was interrupted: {e}")))?
}

async fn find(config_dir: PathBuf, transcript: Transcript) -> Result<Option<String>, Halt> {
    tokio::task::spawn_blocking(move || transcript_to_go_on(&config_dir, &transcript))
        .await
        .map_err(|e| host_failed(format!("looking for the session was interrupted: {e}")).into())
}

/// The path of a file that matches the pattern and holds the marker. Files that match and do not hold it are removed: an agent
/// refuses to begin a session whose file is there already.
fn transcript_to_go_on(config_dir: &Path, transcript: &Transcript) -> Option<String> {
    let pattern = globset::GlobBuilder::new(&transcript.pattern)
        .literal_separator(true)
        .build()
        .ok()?;
    let matcher = pattern.compile_matcher();
    let depth = transcript.pattern.split('/').count();
    let mut found = None;
    for path in files_below(config_dir, depth) {
        let Some(relative) = path.strip_prefix(config_dir).ok().and_then(Path::to_str) else {
            continue;
        };
        if !matcher.is_match(relative) {
            continue;
        }
        if holds(&path, transcript.marker.as_bytes()) {
            found = Some(relative.to_owned());
        } else if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove an unfinished session");
        }
    }
    found
}

fn files_below(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // Links are not followed: what they point at is not the agent's record.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 1 => {
                found.extend(files_below(&entry.path(), depth - 1))
            }
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found.sort();
    found
}

fn holds(path: &Path, marker: &[u8]) -> bool {
    let Ok(file) = std::fs::File::open(path) else {
        return false;
    };
    let mut reader = std::io::BufReader::new(file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        if line
            .windows(marker.len().max(1))
            .any(|window| window == marker)
        {
            return true;
        }
        line.clear();
    }
    false
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_session_goes_on_only_from_a_record_with_its_marker() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("projects/-work/s1.jsonl");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let transcript = Transcript {
            pattern: "projects/*/s1.jsonl".into(),
            marker: r#""type":"user""#.into(),
            keep: vec!["projects".into()],
        };
        assert_eq!(transcript_to_go_on(dir.path(), &transcript), None);
        std::fs::write(&file, "{\"type\":\"queue\"}\n").unwrap();
        assert_eq!(transcript_to_go_on(dir.path(), &transcript), None);
        assert!(
            !file.exists(),
            "a session that never began is removed, so that it can begin"
        );
        std::fs::write(
            &file,
            "{\"type\":\"queue\"}\n{\"type\":\"user\",\"x\":1}\n{\"torn",
        )
        .unwrap();
        let found = transcript_to_go_on(dir.path(), &transcript);
        assert_eq!(found.as_deref(), Some("projects/-work/s1.jsonl"));
        assert!(file.exists());
    }
}
