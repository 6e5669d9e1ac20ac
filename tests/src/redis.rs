//! A real Redis of the test's own, on a free port of this machine.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use redis::ConnectionLike as _;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{poll, processes, skip};

/// A Redis server; it ends with the test.
#[derive(Debug)]
pub struct Redis {
    folder: TempDir,
    arguments: Vec<String>,
    port: u16,
    child: Option<Child>,
    /// What comes between `redis://` and the host: a user and a password.
    user: String,
    /// Whether it speaks TLS alone.
    tls: bool,
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

    /// A server that has everything again after a restart and follows this one, until a sentinel says otherwise.
    #[must_use]
    pub fn replica_of(master: &Self) -> Self {
        let port = master.port.to_string();
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        Self::with(
            "",
            &[&["--replicaof", "127.0.0.1", &port], &durable[..]].concat(),
        )
    }

    /// A server that speaks TLS alone, with a certificate that nobody but [`Redis::ca`] vouches for.
    ///
    /// # Panics
    /// When no certificate can be made.
    #[must_use]
    pub fn tls() -> Self {
        let mut redis = Self::unstarted("", &["--appendonly", "yes", "--appendfsync", "always"]);
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])
            .expect("a certificate is made");
        std::fs::write(redis.ca(), made.cert.pem()).expect("the certificate is written");
        let key = redis.folder.path().join("key.pem");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("the key is written");
        let (ca, key) = (redis.ca().display().to_string(), key.display().to_string());
        let words = [
            "--tls-cert-file",
            &ca,
            "--tls-ca-cert-file",
            &ca,
            "--tls-key-file",
            &key,
        ];
        redis.arguments.extend(words.map(str::to_owned));
        redis
            .arguments
            .extend(["--tls-auth-clients", "no"].map(str::to_owned));
        redis.tls = true;
        redis.started()
    }

    /// The file of the certificate of [`Redis::tls`].
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server with further arguments; `user` stands before the host in its address.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn with(user: &str, arguments: &[&str]) -> Self {
        Self::unstarted(user, arguments).started()
    }

    fn unstarted(user: &str, arguments: &[&str]) -> Self {
        Self {
            folder: tempfile::Builder::new()
                .prefix("agenticore-redis-")
                .tempdir()
                .expect("a temporary folder"),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            port: 0,
            child: None,
            user: user.to_owned(),
            tls: false,
        }
    }

    /// Another process can take the port before Redis has it; then another one is tried.
    fn started(mut self) -> Self {
        for _ in 0..20 {
            self.port = free_port();
            if self.boot() {
                return self;
            }
        }
        panic!("redis-server does not start with {:?}", self.arguments);
    }

    /// Starts it; false: it ended at once.
    fn boot(&mut self) -> bool {
        let data = self.folder.path().join("data");
        std::fs::create_dir_all(&data).expect("the folder of its data");
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(&data)
            .args(self.listening())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        self.child = Some(child);
        let booted = poll(|| {
            let child = self.child.as_mut().expect("it was started");
            if child.try_wait().expect("it can be waited for").is_some() {
                self.child = None;
                return Some(false);
            }
            let answers = |mut connection: redis::Connection| connection.check_connection();
            self.connect().is_ok_and(answers).then_some(true)
        });
        booted.expect("redis-server answers")
    }

    fn listening(&self) -> Vec<String> {
        let port = self.port.to_string();
        let words = match self.tls {
            true => vec!["--port", "0", "--tls-port", &port],
            false => vec!["--port", &port],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    fn connect(&self) -> redis::RedisResult<redis::Connection> {
        let client = if self.tls {
            let certificates = redis::TlsCertificates {
                client_tls: None,
                root_cert: std::fs::read(self.ca()).ok(),
            };
            redis::Client::build_with_tls(self.url(), certificates)?
        } else {
            redis::Client::open(self.url())?
        };
        client.get_connection_with_timeout(std::time::Duration::from_secs(2))
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
        let scheme = if self.tls { "rediss" } else { "redis" };
        format!("{scheme}://{}127.0.0.1:{port}/0", self.user)
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
        poll(|| self.boot().then_some(())).expect("redis-server starts again");
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
        self.try_ask(words)
            .unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// The same of a Redis that may be on its way up, or down, or to another role.
    ///
    /// # Errors
    /// When there is no such answer.
    pub fn try_ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut self.connect()?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
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
