//! What a server is started with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::Value;
use tempfile::TempDir;

use super::World;
use crate::server::Server;
use crate::{binary, http};

/// What a server is started with.
#[derive(Debug)]
pub struct Builder {
    pub(super) folder: TempDir,
    settings: BTreeMap<String, String>,
    arguments: Vec<String>,
    /// A program that starts the server as its child, with its arguments; empty: none.
    pub(super) through: Vec<String>,
}

impl Builder {
    pub(super) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("agenticore-test-")
            .tempdir()
            .expect("a temporary folder");
        let builder = Self {
            folder,
            settings: BTreeMap::new(),
            arguments: ["--host", "127.0.0.1", "--port", "0"]
                .map(str::to_owned)
                .into(),
            through: Vec::new(),
        };
        for below in ["home/.agenticore", "repos", "tmp", "gates"] {
            fs::create_dir_all(builder.path(below)).expect("the folders of the home");
        }
        // A test that ends while a job runs should not wait half a minute for it.
        builder
            .env("AGENTICORE_DRAIN_TIMEOUT", "1")
            .env("AGENTICORE_POD_NAME", "test-pod")
    }

    /// A path below the world's folder.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Sets a variable of the server's environment, and of the commands'.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Puts a folder in front of the server's `PATH`.
    #[must_use]
    pub fn programs(self, folder: &Path) -> Self {
        let machine = std::env::var("PATH").unwrap_or_default();
        self.env("PATH", &format!("{}:{machine}", folder.display()))
    }

    /// Listens on another address.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.arguments = ["--host", host, "--port", "0"].map(str::to_owned).into();
        self
    }

    /// Listens on this port, again after a restart.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.arguments = ["--host", "127.0.0.1", "--port", &port.to_string()]
            .map(str::to_owned)
            .into();
        self
    }

    /// Starts the server through another program, which gets the server's command line after these words and runs it as its only
    /// child. Signals go to the server itself.
    #[must_use]
    pub fn through(mut self, words: &[&str]) -> Self {
        self.through = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Adds an argument of `serve`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Writes a file below `~/.agenticore`.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(self, below: &str, text: &str) -> Self {
        let path = self.path("home/.agenticore").join(below);
        fs::create_dir_all(path.parent().unwrap()).expect("the folder of the file");
        fs::write(&path, text).expect("the file is written");
        self
    }

    /// Writes a user's profile: the text of its `profile.yml` without the name.
    #[must_use]
    pub fn profile(self, name: &str, yaml: &str) -> Self {
        self.file(
            &format!("profiles/{name}/profile.yml"),
            &format!("name: {name}\n{yaml}"),
        )
    }

    /// Lets agents find the real CLI at `cli` as `program`, and configures them like this.
    ///
    /// # Panics
    /// When the program cannot be put there.
    #[must_use]
    pub fn agent(self, program: &str, cli: &Path, config: &Value) -> Self {
        let programs = self.path("bin");
        fs::create_dir_all(&programs).expect("the folder of programs");
        std::os::unix::fs::symlink(cli, programs.join(program)).expect("the program is there");
        self.programs(&programs)
            .file("config.yml", &config.to_string())
    }

    /// Starts the server.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn start(self) -> World {
        let key = self
            .settings
            .get("AGENTICORE_API_KEYS")
            .and_then(|keys| keys.split(',').next());
        let mut world = World {
            key: key.map(str::to_owned),
            builder: self,
            server: None,
            crashed: false,
            client: http::client(),
        };
        world.boot();
        world
    }

    /// Starts a server that is expected to refuse; its exit status and what it said.
    ///
    /// # Panics
    /// When it listens all the same.
    #[must_use]
    pub fn refused(self) -> (ExitStatus, String) {
        match Server::start(self.serve()) {
            Ok(server) => panic!("the server listens on port {}", server.port),
            Err(refusal) => refusal,
        }
    }

    /// A world without a server, for commands that need none.
    pub fn idle(self) -> World {
        World {
            key: None,
            builder: self,
            server: None,
            crashed: false,
            client: http::client(),
        }
    }

    pub(super) fn serve(&self) -> Command {
        let mut command = self.command();
        command.arg("serve").args(&self.arguments);
        let Some((program, words)) = self.through.split_first() else {
            return command;
        };
        let mut outer = Command::new(program);
        outer
            .args(words)
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .current_dir(self.folder.path());
        for (name, value) in command.get_envs() {
            outer.env(name, value.unwrap_or_default());
        }
        outer
    }

    /// The binary with the world's environment and nothing of this machine's but its `PATH`.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(binary::path());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LANG", "C.UTF-8")
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("AGENTICORE_REPOS_ROOT", self.path("repos"))
            .envs(&self.settings)
            .current_dir(self.folder.path());
        command
    }
}
