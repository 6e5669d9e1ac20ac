//! Why a child could not be started.

use std::io;
use std::path::PathBuf;

/// A child that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program is in no directory of the child's `PATH`.
    #[error(
        "program {program:?} was not found in PATH ({path}): install it or correct the setting that names it"
    )]
    NotFound {
        /// The program's name.
        program: String,
        /// The value of `PATH` that was searched.
        path: String,
    },
    /// The program is named by a path, and there is no file.
    #[error("program {0} does not exist: install it there or correct the setting that names it")]
    NoFile(PathBuf),
    /// The path exists but cannot be executed.
    #[error("program {0} is not executable: it must be a file that this user may execute")]
    NotExecutable(PathBuf),
    /// The file is there, but what its first line names, or its loader, is not.
    #[error(
        "program {0} cannot be started: its interpreter does not exist, or it is made for another system"
    )]
    Interpreter(PathBuf),
    /// The directory to run in does not exist, or is none.
    #[error("the working directory {0} does not exist or is not a directory")]
    WorkingDirectory(PathBuf),
    /// Arguments and environment are more than the system takes.
    #[error(
        "the arguments and environment of {program:?} are too long for the system ({bytes} bytes; one argument may have 128 KiB)"
    )]
    TooLong {
        /// The program's name.
        program: String,
        /// Their size in bytes.
        bytes: usize,
    },
    /// A NUL character in the program's name, an argument or a variable.
    #[error("{0} holds a NUL character, which no program can be given")]
    Nul(&'static str),
    /// The name of a variable is empty or holds `=`.
    #[error("{0:?} is not a valid name for an environment variable")]
    VariableName(String),
    /// Anything else, such as no memory or too many processes.
    #[error("could not start {program:?}: {source}")]
    Io {
        /// The program's name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Why the process could not be prepared to supervise children.
#[derive(Debug, thiserror::Error)]
#[error("could not {what}: {source}")]
pub struct InitError {
    /// What was tried.
    pub(super) what: &'static str,
    /// What the system said.
    pub(super) source: io::Error,
}
