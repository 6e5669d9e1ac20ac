//! `cargo xtask demo`: one job from its submission to its record, on a server that lives as long as the demo.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sh;

/// How long the server may take until it accepts connections, and how long until it has stopped.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the job does: a few lines with pauses, so that one sees them arrive.
const TASK: &str = "echo hello world; \
    for step in 1 2 3; do sleep 0.4; echo \"step $step of 3, in $(basename \"$PWD\")\"; done; \
    echo done";

/// Runs the demo.
///
/// # Errors
/// When anything it shows does not work.
pub(crate) fn run() -> Result<()> {
    note("building the plugins and the server (the first time takes a few minutes)");
    sh::build_binary(false)?;
    let started = Instant::now();
    let server = Server::start(&sh::binary(false))?;
    note(&format!(
        "a server with the embedded store runs at {} after {} ms; it forgets everything when the demo ends",
        server.url,
        started.elapsed().as_millis()
    ));
    println!("$ export AGENTICORE_URL={}", server.url);

    note("run a job and follow it until it ends");
    server.show(&["run", TASK, "--profile", "shell", "--wait"])?;
    note("what is kept of it");
    server.show(&["job", "@last"])?;
    note("every job of this server, and the profiles it knows");
    server.show(&["jobs"])?;
    server.show(&["profiles"])?;
    server.check_record()?;

    note("stop the server");
    server.stop()?;
    note(&format!(
        "all of it worked. Next: `{} serve`, then `agenticore run \"...\" --repo URL --wait`",
        sh::binary(false).display()
    ));
    Ok(())
}

fn note(text: &str) {
    let plain = std::env::var_os("NO_COLOR").is_some() || !std::io::stdout().is_terminal();
    if plain {
        println!("\n# {text}");
    } else {
        println!("\n\x1b[1;36m# {text}\x1b[0m");
    }
}

/// A server with a home of its own. Dropping it kills the process and removes the home.
struct Server {
    binary: PathBuf,
    home: PathBuf,
    url: String,
    child: Child,
}

impl Server {
    fn start(binary: &Path) -> Result<Self> {
        let home = std::env::temp_dir().join(format!("agenticore-demo-{}", std::process::id()));
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let mut command = client(binary, &home);
        command
            .args(["serve", "--host", "127.0.0.1", "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut server = Self {
            binary: binary.to_owned(),
            home,
            url: String::new(),
            child,
        };
        server.url = server.wait_for_address()?;
        Ok(server)
    }

    /// Reads the server's standard error until it names its address.
    fn wait_for_address(&mut self) -> Result<String> {
        let stderr = self
            .child
            .stderr
            .take()
            .context("the server has no output")?;
        let lines = lines_of(stderr);
        let deadline = Instant::now() + PATIENCE;
        let mut said = String::new();
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if let Some((_, address)) = line.split_once("listening on ") {
                return Ok(address
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned());
            }
            said.push_str(&line);
            said.push('\n');
        }
        bail!("the server did not start to listen; it said:\n{said}")
    }

    /// Prints a command as one would type it and runs it.
    fn show(&self, arguments: &[&str]) -> Result<()> {
        let typed: Vec<String> = arguments.iter().map(|word| quote(word)).collect();
        println!("$ agenticore {}", typed.join(" "));
        let mut command = client(&self.binary, &self.home);
        command.args(arguments).env("AGENTICORE_URL", &self.url);
        sh::run(command.stdin(Stdio::null()))
    }

    /// What was shown must also be what the record says.
    fn check_record(&self) -> Result<()> {
        let mut command = client(&self.binary, &self.home);
        command
            .args(["job", "@last", "--json"])
            .env("AGENTICORE_URL", &self.url);
        let record = sh::read(&mut command)?;
        for expected in ["\"succeeded\"", "hello world\\nstep 1 of 3"] {
            if !record.contains(expected) {
                bail!("the record of the job lacks {expected}:\n{record}");
            }
        }
        Ok(())
    }

    /// Asks the server to stop and waits until it has.
    fn stop(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        sh::run(Command::new("kill").args(["-TERM", &pid]))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self
                .child
                .try_wait()
                .context("cannot wait for the server")?
            {
                if status.success() {
                    return Ok(());
                }
                bail!("the server did not stop cleanly: {status}");
            }
            if Instant::now() > deadline {
                bail!("the server did not stop within {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// The binary with this machine's environment, but none of its settings.
fn client(binary: &Path, home: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let is_setting = ["AGENTICORE_", "REDIS_", "OTEL_", "GITHUB_TOKEN"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
        if is_setting {
            command.env_remove(&name);
        }
    }
    command
        .env("HOME", home)
        .env("AGENTICORE_HOME", home.join(".agenticore"))
        .current_dir(home);
    command
}

/// The lines of a child's output as they come, read to the end so that the child never waits for a reader.
fn lines_of(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(|line| line.ok()) {
            // Nobody listens after the address is known; the output is read all the same.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// A word as a shell takes it.
fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
