//! A real Redis of the test's own, on a free port of this machine.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use redis::ConnectionLike as _;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{PATIENCE, processes, skip};

/// A Redis server; it ends with the test.
#[derive(Debug)]
pub struct Redis {
    folder: TempDir,
    arguments: Vec<String>,
    port: u16,
    child: Option<Child>,
    /// What comes between `redis://` and the host: a user and a password.
    user: String,
}

impl Redis {
    /// Whether there is a `redis-server` on this machine; says that `test` is skipped where there is none.
    #[must_use]
    pub fn is_installed(test: &str) -> bool {
        let there = Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !there {
            assert!(
                std::env::var_os("CI").is_none(),
                "{test}: redis-server is missing"
            );
            skip(test, "redis-server is not installed");
        }
        there
    }

    /// A server that keeps nothing when it ends.
    #[must_use]
    pub fn start() -> Self {
        Self::with("", &["--appendonly", "no"])
    }

    /// A server that has everything again after a restart.
    #[must_use]
    pub fn durable() -> Self {
        Self::with("", &["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// A server that wants this user and password, and gives the user the keys below `prefix` alone.
    #[must_use]
    pub fn guarded(user: &str, password: &str, prefix: &str) -> Self {
        let rule =
            format!("{user} on >{password} ~{prefix}:* &* +@all -@dangerous +info +time -@admin");
        let mut words: Vec<&str> = vec!["--user"];
        words.extend(rule.split(' '));
        words.extend(["--user", "default", "off"]);
        Self::with(&format!("{user}:{password}@"), &words)
    }

    /// A server with further arguments; `user` stands before the host in its address.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn with(user: &str, arguments: &[&str]) -> Self {
        let mut redis = Self {
            folder: tempfile::Builder::new()
                .prefix("agenticore-redis-")
                .tempdir()
                .expect("a temporary folder"),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            port: 0,
            child: None,
            user: user.to_owned(),
        };
        // Another process can take the port before Redis has it; then another one is tried.
        for _ in 0..20 {
            redis.port = free_port();
            if redis.boot() {
                return redis;
            }
        }
        panic!("redis-server does not start with {arguments:?}");
    }

    /// Starts it; false: it ended at once.
    fn boot(&mut self) -> bool {
        let data = self.folder.path().join("data");
        std::fs::create_dir_all(&data).expect("the folder of its data");
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(&data)
            .args(["--port", &self.port.to_string()])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        let child = self.child.insert(child);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if child.try_wait().expect("it can be waited for").is_some() {
                self.child = None;
                return false;
            }
            if ping(&url_of(&self.user, self.port)) {
                return true;
            }
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id, for looking at what it costs; none while it is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// Its address by way of another port, such as a [`crate::Proxy`]'s.
    #[must_use]
    pub fn url_at(&self, port: u16) -> String {
        url_of(&self.user, port)
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again after [`Redis::kill`], on the same port and with what it kept.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        // The kernel may need a moment to give the port back.
        let deadline = Instant::now() + PATIENCE;
        while !self.boot() {
            assert!(
                Instant::now() < deadline,
                "redis-server does not start again"
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Stops it in the middle of whatever it does, until [`Redis::go_on`].
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen server go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            processes::send(pid, signal);
        }
    }

    /// Forgets everything.
    pub fn flush(&self) {
        self.ask::<()>(&["FLUSHALL"]);
    }

    /// A command and its answer.
    ///
    /// # Panics
    /// When there is no such answer.
    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = redis::Client::open(self.url())
            .and_then(|client| client.get_connection())
            .expect("Redis is there");
        let (name, rest) = words.split_first().expect("a command");
        let mut command = redis::cmd(name);
        for word in rest {
            command.arg(*word);
        }
        command
            .query(&mut connection)
            .unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn url_of(user: &str, port: u16) -> String {
    format!("redis://{user}127.0.0.1:{port}/0")
}

fn ping(url: &str) -> bool {
    redis::Client::open(url)
        .and_then(|client| client.get_connection_with_timeout(std::time::Duration::from_secs(2)))
        .is_ok_and(|mut connection| connection.check_connection())
}

/// A port that nobody listens on, and that no connection of another process is given: those come from higher numbers.
///
/// # Panics
/// When this machine has none.
#[must_use]
pub fn free_port() -> u16 {
    let ports = std::iter::repeat_with(|| fastrand::u16(12_000..32_000));
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(1_000).find(is_free).expect("a free port")
}
