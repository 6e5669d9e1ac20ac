//! Starts a child and follows it to its end.

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::SpawnError;
use super::lookup;
use super::marker::{JOB_VARIABLE, JobMarker};
use super::output::{LineLimits, Output};
use super::pump::{Sink, pump};
use super::registry::{self, Registration};
use super::table::{self, Identity};
use super::tree::{KillReport, Tree};

/// How long a killed child may take to be gone before it is given up. Only one that hangs inside the kernel takes longer.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// Something that a child needs for as long as any process of its tree lives, such as a lock.
pub(super) type Held = Option<Arc<dyn Any + Send + Sync>>;

/// What to start.
#[derive(Clone)]
pub struct Spawn {
    /// The program: a path, or a name to be found in the `PATH` of `env`.
    pub program: OsString,
    /// Its arguments, without the program's name.
    pub arguments: Vec<OsString>,
    /// Its whole environment; nothing is inherited. The job's marker is added.
    pub env: BTreeMap<OsString, OsString>,
    /// The directory it runs in.
    pub cwd: PathBuf,
    /// What it reads from its standard input, which is empty if there is none.
    pub stdin: Option<Vec<u8>>,
    /// Whose it is.
    pub marker: JobMarker,
}

/// How a process ended. One of the two is set; both are empty if that could not be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
}

impl Exit {
    /// Whether it ended with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// A child that has ended, and its whole tree with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How the child itself ended.
    pub exit: Exit,
    /// What it had left behind and was killed.
    pub cleanup: KillReport,
}

/// How to ask a child to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

/// A child that runs. Dropping it kills its tree in the background.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    stopper: Stopper,
    ended: watch::Receiver<Option<Ended>>,
    kill: DropGuard,
}

/// Asks a child to stop, from anywhere. It does not keep the child alive.
#[derive(Debug, Clone)]
pub struct Stopper {
    handle: Option<Arc<OwnedFd>>,
    identity: Identity,
}

impl Stopper {
    /// Sends a signal to the child alone, not to what it has started. A child that has ended is left in peace.
    ///
    /// # Errors
    /// What the system says, where it refuses.
    pub fn stop(&self, signal: Signal) -> io::Result<()> {
        let signal = match signal {
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Interrupt => rustix::process::Signal::INT,
        };
        let sent = match &self.handle {
            Some(handle) => pidfd_send_signal(handle, signal).map_err(io::Error::from),
            None => table::send(self.identity, signal),
        };
        match sent {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

impl Child {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the child has ended and nothing of its tree is left. Its [`Output`] must be read meanwhile, or be dropped.
    /// Cancel-safe, and may be called again.
    pub async fn wait(&mut self) -> Ended {
        match self.ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            Err(_) => None,
        }
        // The task that follows the child only vanishes with the runtime.
        .unwrap_or(Ended {
            exit: Exit {
                code: None,
                signal: None,
            },
            cleanup: KillReport::default(),
        })
    }

    /// Asks the child to stop. See [`Stopper::stop`].
    ///
    /// # Errors
    /// What the system says, where it refuses.
    pub fn stop(&self, signal: Signal) -> io::Result<()> {
        self.stopper.stop(signal)
    }

    /// Something to ask the child to stop with, for another task.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Kills the child and everything it has started, and waits until all are gone. A dropped call goes on in the background.
    pub async fn kill_tree(&mut self) -> Ended {
        self.kill.token().cancel();
        self.wait().await
    }
}

impl Spawn {
    /// Starts the child, in a process group of its own.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub fn start(self, limits: LineLimits) -> Result<(Child, Output), SpawnError> {
        let (stdout, stderr, output) = Output::new(limits);
        Ok((self.begin(stdout, stderr)?, output))
    }

    /// Starts the child and reads its output into the two sinks.
    pub(super) fn begin(
        self,
        stdout: impl Sink + 'static,
        stderr: impl Sink + 'static,
    ) -> Result<Child, SpawnError> {
        self.begin_with(stdout, stderr, None)
    }

    /// As [`Spawn::begin`]; `held` is dropped when the child's tree is gone, however that comes about.
    pub(super) fn begin_with(
        mut self,
        stdout: impl Sink + 'static,
        stderr: impl Sink + 'static,
        held: Held,
    ) -> Result<Child, SpawnError> {
        self.check()?;
        let (program, mut command) = self.command()?;
        let (mut process, registration) =
            registry::spawn(&mut command).map_err(|e| self.explain(e, program))?;
        let pid = process.id().unwrap_or_default();
        // The child is not reaped before `follow` runs, so this is really it.
        let identity =
            table::entry(pid).map_or(Identity { pid, started: 0 }, |entry| entry.identity);
        let handle = table::as_pid(pid)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            .map(Arc::new);
        let gone = CancellationToken::new();
        if let (Some(pipe), Some(bytes)) = (process.stdin.take(), self.stdin.take()) {
            tokio::spawn(feed(pipe, bytes, gone.clone()));
        }
        if let Some(pipe) = process.stdout.take() {
            tokio::spawn(pump(pipe, gone.clone(), stdout));
        }
        if let Some(pipe) = process.stderr.take() {
            tokio::spawn(pump(pipe, gone.clone(), stderr));
        }
        let kill = CancellationToken::new();
        let (sender, ended) = watch::channel(None);
        let running = Running {
            process,
            _registration: registration,
            tree: Some(Tree::of(identity, &self.marker)),
            gone,
            _held: held,
        };
        tokio::spawn(running.follow(kill.clone(), sender));
        Ok(Child {
            pid,
            stopper: Stopper { handle, identity },
            ended,
            kill: kill.drop_guard(),
        })
    }

    fn command(&self) -> Result<(PathBuf, Command), SpawnError> {
        let program = lookup::program(
            &self.program,
            self.env.get(OsStr::new("PATH")).map(OsString::as_os_str),
            &self.cwd,
        )?;
        let mut command = Command::new(&program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.env)
            .env(JOB_VARIABLE, self.marker.to_string());
        command
            .current_dir(&self.cwd)
            .process_group(0)
            .kill_on_drop(true);
        command.stdin(if self.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok((program, command))
    }

    fn check(&self) -> Result<(), SpawnError> {
        let nul = |text: &OsStr| text.as_encoded_bytes().contains(&0);
        if nul(&self.program) {
            return Err(SpawnError::Nul("the program's name"));
        }
        if self.arguments.iter().any(|argument| nul(argument)) {
            return Err(SpawnError::Nul("an argument"));
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.as_encoded_bytes().contains(&b'=') || nul(name) {
                return Err(SpawnError::VariableName(
                    name.to_string_lossy().into_owned(),
                ));
            }
            if nul(value) {
                return Err(SpawnError::Nul("an environment variable"));
            }
        }
        if self.cwd.is_dir() {
            Ok(())
        } else {
            Err(SpawnError::WorkingDirectory(self.cwd.clone()))
        }
    }

    fn explain(&self, source: io::Error, program: PathBuf) -> SpawnError {
        let name = self.program.to_string_lossy().into_owned();
        match source.kind() {
            io::ErrorKind::NotFound if !self.cwd.is_dir() => {
                SpawnError::WorkingDirectory(self.cwd.clone())
            }
            io::ErrorKind::NotFound => SpawnError::Interpreter(program),
            io::ErrorKind::PermissionDenied => SpawnError::NotExecutable(program),
            io::ErrorKind::ArgumentListTooLong => {
                let variables = self
                    .env
                    .iter()
                    .map(|(name, value)| name.len() + value.len() + 2)
                    .sum::<usize>();
                SpawnError::TooLong {
                    program: name,
                    bytes: variables + self.arguments.iter().map(|a| a.len() + 1).sum::<usize>(),
                }
            }
            _ if source.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
                SpawnError::Interpreter(program)
            }
            _ => SpawnError::Io {
                program: name,
                source,
            },
        }
    }
}

impl fmt::Debug for Spawn {
    /// Without the values of variables and without the input: they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawn")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .field("env", &self.env.keys())
            .field("cwd", &self.cwd)
            .field("stdin", &self.stdin.as_ref().map(Vec::len))
            .field("marker", &self.marker)
            .finish()
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        Self {
            code: status.code(),
            signal: status.signal(),
        }
    }
}

/// Writes a child's input. A child that does not read it to its end is no error.
async fn feed(mut pipe: ChildStdin, bytes: Vec<u8>, gone: CancellationToken) {
    tokio::select! {
        _ = pipe.write_all(&bytes) => {}
        () = gone.cancelled() => {}
    }
}

/// A child between its start and its end. Dropped before that, which only a runtime that shuts down does, it kills the tree.
struct Running {
    process: tokio::process::Child,
    _registration: Registration,
    tree: Option<Tree>,
    gone: CancellationToken,
    _held: Held,
}

impl Running {
    async fn follow(mut self, kill: CancellationToken, sender: watch::Sender<Option<Ended>>) {
        let mut cleanup = KillReport::default();
        let status = tokio::select! {
            biased;
            status = self.process.wait() => Some(status),
            () = kill.cancelled() => None,
        };
        // A child that ended by itself may have left something behind: the same cure, which costs one look if it has not.
        self.kill(&mut cleanup).await;
        let status = match status {
            Some(status) => Some(status),
            None => tokio::time::timeout(LAST_WAIT, self.process.wait())
                .await
                .ok(),
        };
        self.tree = None;
        self.gone.cancel();
        let exit = match status {
            Some(Ok(status)) => status.into(),
            _ => Exit {
                code: None,
                signal: None,
            },
        };
        sender.send_replace(Some(Ended { exit, cleanup }));
        if exit
            == (Exit {
                code: None,
                signal: None,
            })
        {
            // Reap it whenever the kernel lets go of it.
            let _ = self.process.wait().await;
        }
    }

    async fn kill(&mut self, cleanup: &mut KillReport) {
        if let Some(mut tree) = self.tree.clone() {
            *cleanup = spawn_blocking(move || tree.kill())
                .await
                .unwrap_or_default();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut tree) = self.tree.take() {
            tree.kill();
        }
    }
}
