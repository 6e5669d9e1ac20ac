//! How a command ends: the exit codes, which scripts depend on.

use std::io;

use crate::client::ClientError;
use crate::config::ConfigError;
use crate::job::{BadRequest, Status};
use crate::service::SubmitError;

/// The exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The command did what it was asked; a job that was waited for succeeded.
    Success = 0,
    /// The job failed, or something went wrong that no other code names.
    Failed = 1,
    /// The command line, a setting or the request is wrong.
    Usage = 2,
    /// The job that was waited for was cancelled or expired.
    Cancelled = 3,
    /// The API key is missing, wrong, or not allowed to do this.
    Auth = 4,
    /// There is no such job.
    NotFound = 5,
    /// The time to wait is over; the job goes on.
    TimedOut = 6,
    /// No server answers.
    Unreachable = 7,
    /// The pod is drained, and jobs went back to the queue unfinished.
    HandedOff = 8,
    /// Interrupted with Ctrl-C.
    Interrupted = 130,
}

impl ExitCode {
    /// The code of a command that waited for a job which ended like this; a job that is not over is no failure.
    #[must_use]
    pub fn of_job(status: Status) -> Self {
        match status {
            Status::Queued | Status::Running | Status::Succeeded => Self::Success,
            Status::Failed => Self::Failed,
            Status::Cancelled | Status::Expired => Self::Cancelled,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// The command line asks for something that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

/// The exit code of an error, by what caused it.
pub(super) fn code_of(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        if let Some(e) = cause.downcast_ref::<ClientError>() {
            return of_client(e);
        }
        if let Some(e) = cause.downcast_ref::<SubmitError>() {
            return of_submit(e);
        }
        if cause.is::<UsageError>() || cause.is::<ConfigError>() || cause.is::<BadRequest>() {
            return ExitCode::Usage;
        }
    }
    ExitCode::Failed
}

/// An error and what caused it, in one line. Many errors name their cause themselves, which then is not said again.
pub(super) fn chain(error: &anyhow::Error) -> String {
    let causes = error.chain().skip(1).map(ToString::to_string);
    causes.fold(error.to_string(), |text, cause| {
        if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

/// What one can do about an error, where the error itself cannot know.
pub(super) fn hint(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref::<ClientError>()? {
        ClientError::Unreachable { .. } => Some(
            "start a server with `agenticore serve`, name another one with --server URL, or do without: `agenticore run --local TASK`",
        ),
        ClientError::Refused { status: 401, .. } => {
            Some("give the API key with AGENTICORE_API_KEY or --api-key")
        }
        ClientError::Refused {
            code: Some(code), ..
        } if code == "store_unavailable" => Some(
            "nothing was changed: try again once Redis answers; jobs that run go on meanwhile and new ones are accepted, \
             and the server's operator finds the reason in its log",
        ),
        _ => None,
    }
}

/// Whether the reader of standard output went away, as `head` does; nothing is wrong then.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|c| c.downcast_ref::<io::Error>())
        .any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn of_client(error: &ClientError) -> ExitCode {
    match error {
        ClientError::Setup(_) => ExitCode::Usage,
        ClientError::Unreachable { .. } => ExitCode::Unreachable,
        ClientError::Unexpected(_) => ExitCode::Failed,
        ClientError::Refused { status, .. } => match status {
            401 | 403 => ExitCode::Auth,
            404 => ExitCode::NotFound,
            408 | 429 => ExitCode::Failed,
            400..=499 => ExitCode::Usage,
            _ => ExitCode::Failed,
        },
    }
}

fn of_submit(error: &SubmitError) -> ExitCode {
    match error {
        SubmitError::Stopping | SubmitError::Queue(_) => ExitCode::Failed,
        _ => ExitCode::Usage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16) -> anyhow::Error {
        let refused = ClientError::Refused {
            status,
            code: None,
            detail: "no".into(),
        };
        anyhow::Error::from(refused).context("while asking")
    }

    #[test]
    fn every_failure_has_its_code() {
        for (status, code) in [
            (400, 2),
            (401, 4),
            (403, 4),
            (404, 5),
            (409, 2),
            (413, 2),
            (422, 2),
            (429, 1),
            (500, 1),
            (503, 1),
            (507, 1),
        ] {
            assert_eq!(code_of(&refused(status)) as u8, code, "{status}");
        }
        assert_eq!(code_of(&UsageError("x".into()).into()), ExitCode::Usage);
        assert_eq!(
            code_of(&ConfigError::Conflict("x".into()).into()),
            ExitCode::Usage
        );
        assert_eq!(code_of(&BadRequest::EmptyTask.into()), ExitCode::Usage);
        let unknown = SubmitError::UnknownProfile {
            name: "x".into(),
            known: "code".into(),
        };
        assert_eq!(code_of(&unknown.into()), ExitCode::Usage);
        assert_eq!(code_of(&SubmitError::Stopping.into()), ExitCode::Failed);
        assert_eq!(code_of(&anyhow::anyhow!("x")), ExitCode::Failed);
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot write x: {source}")]
        struct Told {
            source: io::Error,
        }
        let source = io::Error::from_raw_os_error(30);
        let error = anyhow::Error::from(Told { source }).context("while packing");
        let text = "while packing: cannot write x: Read-only file system (os error 30)";
        assert_eq!(chain(&error), text);
        assert_eq!(chain(&anyhow::anyhow!("b").context("a")), "a: b");
    }

    #[test]
    fn a_store_that_is_away_comes_with_what_one_can_do() {
        let away = ClientError::Refused {
            status: 503,
            code: Some("store_unavailable".into()),
            detail: "no".into(),
        };
        assert!(hint(&away.into()).is_some_and(|hint| hint.contains("once Redis answers")));
        assert_eq!(hint(&refused(503)), None);
    }

    #[test]
    fn the_code_of_a_job_is_that_of_its_end() {
        let codes = Status::ALL.map(|s| ExitCode::of_job(s) as u8);
        assert_eq!(codes, [0, 0, 0, 1, 3, 3]);
    }
}
