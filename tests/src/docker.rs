//! A Docker daemon of the test's own, where a machine can run one: its images, networks and containers are gone with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::tools::{find_tool, output_of};
use crate::{poll, processes};

/// A running daemon.
#[derive(Debug)]
pub struct Docker {
    folder: TempDir,
    daemon: Child,
}

impl Docker {
    /// The programs that are needed and missing; none: they are all there.
    #[must_use]
    pub fn lacks() -> Option<String> {
        let missing: Vec<&str> = ["dockerd", "docker", "docker-compose"]
            .into_iter()
            .filter(|tool| find_tool(tool).is_none())
            .collect();
        let missing = missing.join(" and ");
        (!missing.is_empty()).then(|| format!("{missing} is not installed (.ci/run does it)"))
    }

    /// Starts a daemon.
    ///
    /// # Errors
    /// With why there can be none on this machine.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn start() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("a Docker daemon needs root".into());
        }
        let folder = tempfile::Builder::new()
            .prefix("agenticore-docker-")
            .tempdir()
            .expect("a temporary folder");
        let log = fs::File::create(folder.path().join("log")).expect("its log");
        let mut command = Command::new(find_tool("dockerd").unwrap_or_default());
        for (option, below) in [
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
        ] {
            command.arg(option).arg(folder.path().join(below));
        }
        let daemon = command
            .arg("--host")
            .arg(socket(folder.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| format!("the Docker daemon cannot be started: {e}"))?;
        let mut docker = Self { folder, daemon };
        docker.wait_until_ready()?;
        Ok(docker)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let ready = poll(|| {
            if output_of(&mut self.command("docker", &["info"])).is_ok() {
                return Some(true);
            }
            let ended = self.daemon.try_wait().expect("it can be waited for");
            ended.map(|_| false)
        });
        if ready == Some(true) {
            return Ok(());
        }
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(2).collect();
        Err(format!(
            "a Docker daemon does not run here: {}",
            last.join("; ")
        ))
    }

    /// A client of this daemon.
    ///
    /// # Panics
    /// When there is no such program.
    #[must_use]
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(find_tool(program).expect("the client"));
        command
            .args(arguments)
            .env("DOCKER_HOST", socket(self.folder.path()))
            .env("HOME", self.folder.path())
            .env_remove("DOCKER_CONTEXT");
        command
    }

    /// Runs `docker` and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        output_of(&mut self.command("docker", arguments))
            .unwrap_or_else(|e| panic!("docker {arguments:?}: {e}"))
    }

    /// Makes an image of programs of this machine and the libraries they need.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn import_programs(&self, image: &str, programs: &[PathBuf]) {
        let tar = self.folder.path().join("image.tar");
        let mut pack = Command::new("tar");
        pack.args([
            "--create",
            "--dereference",
            "--hard-dereference",
            "--directory",
            "/",
            "--file",
        ])
        .arg(&tar);
        let mut files: BTreeSet<String> = BTreeSet::new();
        for program in programs {
            let libraries = output_of(Command::new("ldd").arg(program)).expect("its libraries");
            files.insert(program.display().to_string());
            let paths = libraries.split_whitespace();
            files.extend(
                paths
                    .filter(|word| word.starts_with('/'))
                    .map(str::to_owned),
            );
        }
        pack.args(files.iter().map(|file| file.trim_start_matches('/')));
        output_of(&mut pack).expect("the image is packed");
        self.run(&["import", &tar.display().to_string(), image]);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let all =
            output_of(&mut self.command("docker", &["ps", "--all", "--quiet"])).unwrap_or_default();
        for container in all.split_whitespace() {
            drop(output_of(&mut self.command(
                "docker",
                &["rm", "--force", "--volumes", container],
            )));
        }
        processes::send(self.daemon.id(), rustix::process::Signal::TERM);
        drop(self.daemon.wait());
    }
}

fn socket(folder: &Path) -> String {
    format!("unix://{}", folder.join("sock").display())
}
