//! Runs a short program and keeps what it wrote.

use std::convert::Infallible;
use std::future::{Future, pending};

use tokio::sync::oneshot;

use super::child::{Ended, Held, Spawn};
use super::error::SpawnError;
use super::head_tail::HeadTail;
use super::pump::Sink;

/// What a program wrote until it ended.
#[derive(Debug)]
pub struct Captured {
    /// How it ended.
    pub ended: Ended,
    /// Its standard output: everything, or head and tail if it was more than the limit.
    pub stdout: HeadTail,
    /// The end of its standard error.
    pub stderr: HeadTail,
}

impl Spawn {
    /// Runs the program to its end. Dropping the future kills its tree.
    ///
    /// # Errors
    /// [`SpawnError`] if it cannot be started.
    pub async fn capture(self, stdout: usize, stderr: usize) -> Result<Captured, SpawnError> {
        match self
            .capture_until(stdout, stderr, None, pending::<Infallible>())
            .await?
        {
            Ok(captured) => Ok(captured),
            Err(never) => match never {},
        }
    }

    /// As [`Spawn::capture`], unless `stop` comes first. The program's tree is then killed, and is gone when this returns what
    /// `stop` gave: whoever let it work on something may hand that on. Should the future be dropped, `held` is dropped no sooner
    /// than the tree is gone.
    ///
    /// # Errors
    /// [`SpawnError`] if it cannot be started.
    pub(crate) async fn capture_until<S>(
        self,
        stdout: usize,
        stderr: usize,
        held: Held,
        stop: impl Future<Output = S>,
    ) -> Result<Result<Captured, S>, SpawnError> {
        let (stdout, out) = Keep::new(HeadTail::new(stdout - stdout / 2, stdout / 2));
        let (stderr, err) = Keep::new(HeadTail::tail(stderr));
        let mut child = self.begin_with(stdout, stderr, held)?;
        let ended = tokio::select! {
            biased;
            why = stop => {
                child.kill_tree().await;
                return Ok(Err(why));
            }
            ended = child.wait() => ended,
        };
        let none = |_| HeadTail::tail(0);
        Ok(Ok(Captured {
            ended,
            stdout: out.await.unwrap_or_else(none),
            stderr: err.await.unwrap_or_else(none),
        }))
    }
}

/// Keeps what it takes and hands it over at the end.
#[derive(Debug)]
struct Keep {
    kept: HeadTail,
    whole: oneshot::Sender<HeadTail>,
}

impl Keep {
    fn new(kept: HeadTail) -> (Self, oneshot::Receiver<HeadTail>) {
        let (whole, receiver) = oneshot::channel();
        (Self { kept, whole }, receiver)
    }
}

impl Sink for Keep {
    async fn take(&mut self, bytes: &[u8]) {
        self.kept.push(bytes);
    }

    async fn finish(self) {
        // Nobody listens if the future was dropped.
        let _ = self.whole.send(self.kept);
    }
}
