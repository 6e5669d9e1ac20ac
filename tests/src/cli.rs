//! Commands as a user types them.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::{PATIENCE, processes};

/// What a command printed and returned.
#[derive(Debug)]
pub struct Cli {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Cli {
    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is no JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }
}

/// A command that still runs; dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    seen: String,
}

impl Running {
    pub(crate) async fn start(mut command: Command, stdin: &str) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the command starts");
        let mut input = child.stdin.take().unwrap();
        // A command that does not read its input may be gone already.
        let _ = input.write_all(stdin.as_bytes()).await;
        drop(input);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdout,
            seen: String::new(),
        }
    }

    /// Waits until a line with `text` in it was printed.
    ///
    /// # Panics
    /// When the output ends without it, or nothing comes for too long.
    pub async fn saw(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let read = tokio::time::timeout(PATIENCE, self.stdout.read_line(&mut self.seen))
                .await
                .unwrap_or_else(|_| panic!("{text:?} is never printed, only {:?}", self.seen))
                .expect("the output is text");
            assert!(
                read > 0,
                "the output ended without {text:?}: {:?}",
                self.seen
            );
        }
    }

    /// Sends a signal.
    pub fn send(&self, signal: Signal) {
        if let Some(pid) = self.child.id() {
            processes::send(pid, signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end(mut self) -> Cli {
        let mut stderr = self.child.stderr.take().unwrap();
        let mut said = Vec::new();
        let mut rest = Vec::new();
        let all = async {
            let both = tokio::join!(
                self.stdout.read_to_end(&mut rest),
                stderr.read_to_end(&mut said)
            );
            both.0.expect("standard output is read");
            both.1.expect("standard error is read");
            self.child.wait().await.expect("the command ends")
        };
        let status = tokio::time::timeout(PATIENCE * 2, all)
            .await
            .expect("the command ends in time");
        self.seen.push_str(&String::from_utf8_lossy(&rest));
        Cli {
            code: status.code(),
            stdout: self.seen,
            stderr: String::from_utf8_lossy(&said).into_owned(),
        }
    }
}
