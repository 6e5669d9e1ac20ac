//! The server under test, in a home of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::Server;
use crate::{Cli, Gate, Reply, Running, Sse, binary, http, processes, until};

/// What a server is started with.
#[derive(Debug)]
pub struct Builder {
    folder: TempDir,
    settings: BTreeMap<String, String>,
    arguments: Vec<String>,
    /// A program that starts the server as its child, with its arguments; empty: none.
    through: Vec<String>,
}

/// A running server, and what a user does with it.
///
/// Dropping it asks the server to stop and then looks for processes of its jobs: one that is left fails the test, except after
/// [`World::kill9`] without a restart.
#[derive(Debug)]
pub struct World {
    builder: Builder,
    server: Option<Server>,
    /// Whether the last server ended without a chance to clean up.
    crashed: bool,
    client: reqwest::Client,
    key: Option<String>,
}

impl Builder {
    fn new() -> Self {
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

    fn serve(&self) -> std::process::Command {
        let mut command = self.command();
        command.arg("serve").args(&self.arguments);
        let Some((program, words)) = self.through.split_first() else {
            return command;
        };
        let mut outer = std::process::Command::new(program);
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
    fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(binary::path());
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

/// Starting and ending.
impl World {
    /// Settings of a new world.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A server with the default settings of a laptop.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Starts the server again, in the same home.
    ///
    /// # Panics
    /// When one runs already or the new one does not listen.
    pub fn boot(&mut self) {
        assert!(self.server.is_none(), "a server runs already");
        match Server::start(self.builder.serve()) {
            Ok(mut server) => {
                if !self.builder.through.is_empty() {
                    server.is_the_child();
                }
                self.server = Some(server);
            }
            Err((status, said)) => panic!("the server does not start: {status}\n{said}"),
        }
        self.crashed = false;
    }

    /// Kills the server as a power cut would; its agents go on.
    ///
    /// # Panics
    /// When none runs.
    pub fn kill9(&mut self) {
        self.server.take().expect("a server runs").kill9();
        self.crashed = true;
    }

    /// Kills the server and everything it started, as the end of a container does.
    ///
    /// # Panics
    /// When none runs.
    pub fn kill_pod(&mut self) {
        self.kill9();
        self.signal_agents(Signal::KILL);
    }

    /// Stops the server and everything it started in the middle of whatever they do, until [`World::thaw`].
    pub fn freeze(&self) {
        self.running().send(Signal::STOP);
        self.signal_agents(Signal::STOP);
    }

    /// Lets a frozen server and its agents go on, the agents first.
    pub fn thaw(&self) {
        self.signal_agents(Signal::CONT);
        self.running().send(Signal::CONT);
    }

    /// Sends a signal to everything the server started, until it has reached also what was started meanwhile.
    fn signal_agents(&self, signal: Signal) {
        let server = self.server.as_ref().map_or(0, Server::pid);
        let mut reached = std::collections::BTreeSet::new();
        loop {
            let all = processes::touching(self.builder.folder.path(), server);
            let new: Vec<u32> = all
                .into_iter()
                .map(|(pid, _)| pid)
                .filter(|pid| !reached.contains(pid))
                .collect();
            if new.is_empty() {
                return;
            }
            for pid in new {
                processes::send(pid, signal);
                reached.insert(pid);
            }
        }
    }

    /// Sends SIGTERM and returns at once.
    pub fn sigterm(&self) {
        self.running().send(Signal::TERM);
    }

    /// Whether the server has ended after [`World::sigterm`]; one that has can be started again.
    ///
    /// # Panics
    /// When none runs, or it did not end cleanly.
    pub fn has_stopped(&mut self) -> bool {
        let server = self.server.as_mut().expect("a server runs");
        let Some(status) = server.try_wait() else {
            return false;
        };
        assert!(status.success(), "{status}: {}", server.log());
        self.server = None;
        true
    }

    /// Waits until the server has ended after [`World::sigterm`].
    ///
    /// # Panics
    /// When it does not end, or not cleanly.
    pub fn stopped(&mut self) {
        let mut server = self.server.take().expect("a server runs");
        let Some(status) = server.wait() else {
            panic!("the server does not stop; it said:\n{}", server.log());
        };
        assert!(status.success(), "{status}: {}", server.log());
    }

    /// Stops the server, as systemd or Kubernetes would, and starts it again.
    pub fn restart(&mut self) {
        self.sigterm();
        self.stopped();
        self.boot();
    }

    /// Whether a server runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.server.is_some()
    }

    fn running(&self) -> &Server {
        self.server.as_ref().expect("a server runs")
    }

    /// The server's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// The server's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.running().port
    }

    /// What the server wrote to standard error.
    #[must_use]
    pub fn log(&self) -> String {
        self.running().log()
    }

    /// A path below the world's folder.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.builder.path(below)
    }

    /// The text of a file below the world's folder; empty where it does not exist.
    #[must_use]
    pub fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap_or_default()
    }

    /// The command lines of processes of this world, the server and its compilers left out.
    #[must_use]
    pub fn agents(&self) -> Vec<String> {
        let server = self.server.as_ref().map_or(0, Server::pid);
        let all = processes::touching(self.builder.folder.path(), server);
        let lines = all.into_iter().map(|(_, line)| line);
        lines
            .filter(|line| !line.contains("compile-plugin"))
            .collect()
    }

    /// A closed gate.
    #[must_use]
    pub fn gate(&self, name: &str) -> Gate {
        Gate::new(self.path("gates").join(name))
    }

    /// Every file below a folder of the world, as paths relative to it, sorted.
    #[must_use]
    pub fn files(&self, below: &str) -> Vec<String> {
        let top = self.path(below);
        let mut found = Vec::new();
        collect(&top, &top, &mut found);
        found.sort();
        found
    }
}

fn collect(top: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(top, &path, found);
        } else {
            let relative = path.strip_prefix(top).expect("it is below");
            found.push(relative.to_string_lossy().into_owned());
        }
    }
}

/// Requests.
impl World {
    /// The address of a path of the server.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    /// A request, with the world's key where it has one.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.bare_request(method, path);
        match &self.key {
            Some(key) => request.header("x-api-key", key),
            None => request,
        }
    }

    /// A request without any key.
    pub fn bare_request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// Sends a request.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        match request.send().await {
            Ok(response) => Reply::of(response).await,
            Err(error) => panic!("no answer: {error:?}; the server said:\n{}", self.log()),
        }
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Submits a job that runs `script` in a shell, and returns its id.
    pub async fn submit(&self, script: &str) -> String {
        self.submit_body(&json!({"task": script, "profile": "shell"}))
            .await
    }

    /// Submits a job and returns its id.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn submit_body(&self, body: &Value) -> String {
        let reply = self.post("/jobs", body).await;
        reply
            .job()
            .get("id")
            .and_then(Value::as_str)
            .expect("an id")
            .to_owned()
    }

    /// The record of a job.
    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/jobs/{id}")).await.job().clone()
    }

    /// Every job, the newest first.
    ///
    /// # Panics
    /// When there are more than a page holds.
    pub async fn jobs(&self) -> Vec<Value> {
        let reply = self.get("/jobs?limit=200").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let jobs = reply
            .body
            .get("jobs")
            .and_then(Value::as_array)
            .expect("jobs")
            .clone();
        assert!(jobs.len() < 200, "the list has another page");
        jobs
    }

    /// Waits until a job is over and returns its record.
    pub async fn ended(&self, id: &str) -> Value {
        until(&format!("job {id} ends"), || async {
            let job = self.job(id).await;
            let status = job.get("status").and_then(Value::as_str).expect("a status");
            (!matches!(status, "queued" | "running")).then_some(job)
        })
        .await
    }

    /// Waits until an event of the job satisfies `wanted`, and returns it.
    pub async fn event(&self, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{what} in the events of job {id}"), || async {
            self.events(id).await.into_iter().find(&wanted)
        })
        .await
    }

    /// Waits until the job's log holds `text`.
    pub async fn logged(&self, id: &str, text: &str) {
        self.event(id, text, |event| {
            let is_log = event.get("type").is_some_and(|t| t == "log");
            is_log
                && event
                    .get("text")
                    .and_then(Value::as_str)
                    .is_some_and(|t| t.contains(text))
        })
        .await;
    }

    /// Every event of a job so far, read page by page.
    ///
    /// # Panics
    /// When a page cannot be read.
    pub async fn events(&self, id: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let reply = self
                .get(&format!("/jobs/{id}/events?format=json&after={after}"))
                .await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            let page = reply
                .body
                .get("events")
                .and_then(Value::as_array)
                .expect("events")
                .clone();
            if page.is_empty() {
                return all;
            }
            after = page
                .last()
                .and_then(|e| e.get("seq"))
                .and_then(Value::as_u64)
                .expect("a seq");
            all.extend(page);
        }
    }

    /// Opens the event stream of a job, after an event where one is given.
    ///
    /// # Panics
    /// When the server does not answer with a stream.
    pub async fn sse(&self, id: &str, last_event_id: Option<u64>) -> Sse {
        let mut request = self.request(Method::GET, &format!("/jobs/{id}/events"));
        request = request.header("accept", "text/event-stream");
        if let Some(last) = last_event_id {
            request = request.header("last-event-id", last.to_string());
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200, "a stream");
        Sse::new(response)
    }
}

/// Commands.
impl World {
    /// Runs a command to its end.
    pub async fn cli(&self, arguments: &[&str]) -> Cli {
        self.cli_with(arguments, "").await
    }

    /// Runs a command with this text on its standard input.
    pub async fn cli_with(&self, arguments: &[&str], stdin: &str) -> Cli {
        Running::start(self.command(arguments), stdin)
            .await
            .end()
            .await
    }

    /// Starts a command.
    pub async fn cli_start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments), "").await
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = self.builder.command();
        command.args(arguments);
        if let Some(server) = &self.server {
            command.env(
                "AGENTICORE_URL",
                format!("http://127.0.0.1:{}", server.port),
            );
        }
        if let Some(key) = &self.key {
            command.env("AGENTICORE_API_KEY", key);
        }
        command.into()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mut problem = None;
        if self.server.is_some() {
            self.thaw();
        }
        if let Some(mut server) = self.server.take() {
            server.send(Signal::TERM);
            if server.wait().is_none() {
                problem = Some(format!("the server does not stop:\n{}", server.log()));
            }
            if std::thread::panicking() {
                // Not by `eprintln!`: this may run while the test's own output is printed.
                problem = Some(format!("the server said:\n{}", server.log()));
            }
        }
        let left = processes::touching(self.builder.folder.path(), 0);
        for (pid, _) in &left {
            processes::send(*pid, Signal::KILL);
        }
        if !left.is_empty() && !self.crashed && problem.is_none() {
            problem = Some(format!("processes are left behind: {left:?}"));
        }
        match problem {
            Some(text) if std::thread::panicking() => eprintln!("{text}"),
            Some(text) => panic!("{text}"),
            None => {}
        }
    }
}
