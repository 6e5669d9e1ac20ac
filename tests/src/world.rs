//! The server under test, in a home of its own.

mod builder;

use std::fs;
use std::path::{Path, PathBuf};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

pub use self::builder::Builder;
use crate::server::Server;
use crate::{Cli, Gate, Reply, Running, Sse, number, processes, text, until};

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
        text(reply.job(), "id").to_owned()
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
            (!matches!(text(&job, "status"), "queued" | "running")).then_some(job)
        })
        .await
    }

    /// As [`World::ended`], for a job that must have succeeded, and in this attempt.
    ///
    /// # Panics
    /// When it has not.
    pub async fn succeeded(&self, id: &str, attempt: u64) -> Value {
        let job = self.ended(id).await;
        assert_eq!(
            (text(&job, "status"), number(&job, "attempt")),
            ("succeeded", attempt),
            "{job}\n{:#?}",
            self.events(id).await
        );
        job
    }

    /// Waits until the record of a job names the agent's session.
    pub async fn session(&self, id: &str) -> String {
        until("the session is on the record", || async {
            Some(text(&self.job(id).await, "session_id").to_owned()).filter(|s| !s.is_empty())
        })
        .await
    }

    /// Waits until one of the agents' processes has these words in its command line.
    pub async fn runs(&self, words: &str) {
        until(&format!("`{words}` runs"), || async {
            let all = self.agents();
            all.iter().any(|line| line.contains(words)).then_some(())
        })
        .await;
    }

    /// Drains the server without time for its jobs; nothing of them may be left then.
    ///
    /// # Panics
    /// When jobs were not cut short, or something of them is left.
    pub async fn drain_at_once(&self) {
        let drained = self.cli(&["drain", "--timeout", "0"]).await;
        assert_eq!(drained.code, Some(8), "{drained:?}");
        assert_eq!(
            self.agents(),
            Vec::<String>::new(),
            "no process of a job is left"
        );
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
            crate::text(event, "type") == "log" && crate::text(event, "text").contains(text)
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
            after = number(page.last().expect("an event"), "seq");
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
