//! The environment variable that marks every process of a job.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// The variable's name. Its value is `INSTANCE:JOB:ATTEMPT`.
pub const JOB_VARIABLE: &str = "AGENTICORE_JOB";

/// Which server a process belongs to. It is the same after a restart, and different for every other server on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Instance(String);

impl Instance {
    /// The instance of the server that keeps its jobs in `jobs_dir` and runs as `pod`.
    #[must_use]
    pub fn of(jobs_dir: &Path, pod: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(jobs_dir.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(pod.as_bytes());
        Self(
            hash.finalize()
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }

    /// The start of every marker of this instance, as it stands in an environment block.
    pub(super) fn prefix(&self) -> Vec<u8> {
        format!("{JOB_VARIABLE}={}:", self.0).into_bytes()
    }
}

impl FromStr for Instance {
    type Err = String;

    /// Takes what it is displayed as.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        if text.len() == 16 && text.chars().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err("it must be sixteen hexadecimal digits".to_owned())
        }
    }
}

impl fmt::Display for Instance {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The mark of one attempt of one job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobMarker {
    instance: Instance,
    job: String,
    attempt: u32,
}

impl JobMarker {
    /// The mark of `job`'s attempt number `attempt`. Characters other than letters, digits, `-` and `_` of the job's id are
    /// replaced by `_`.
    #[must_use]
    pub fn new(instance: &Instance, job: &(impl fmt::Display + ?Sized), attempt: u32) -> Self {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '_'
            }
        };
        Self {
            instance: instance.clone(),
            job: job.to_string().chars().map(plain).collect(),
            attempt,
        }
    }

    /// What all attempts of the job have in common, as it stands in an environment block. Earlier attempts count too: two
    /// attempts of one job must never run at once.
    pub(super) fn prefix(&self) -> Vec<u8> {
        format!("{JOB_VARIABLE}={}:{}:", self.instance.0, self.job).into_bytes()
    }
}

impl fmt::Display for JobMarker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.instance.0, self.job, self.attempt)
    }
}
