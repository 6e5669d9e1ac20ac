//! A redis-server of the test's own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::testing;

/// A running server. Dropping it ends it.
pub(super) struct TestRedis {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl TestRedis {
    /// Starts a server on a free port; none where there is none, which counts as a skip and is a failure in continuous integration.
    pub(super) fn start() -> Option<Self> {
        if Command::new("redis-server")
            .arg("--version")
            .output()
            .is_err()
        {
            assert!(std::env::var_os("CI").is_none(), "redis-server is missing");
            if let Some(file) = std::env::var_os("AGENTICORE_TEST_SKIPS") {
                let name = std::thread::current().name().unwrap_or("a test").to_owned();
                let mut file = std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(file)
                    .unwrap();
                std::io::Write::write_all(
                    &mut file,
                    format!("{name}: redis-server is not installed\n").as_bytes(),
                )
                .unwrap();
            }
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = spawn(dir.path(), port);
        let server = Self { dir, port, child };
        server.wait();
        Some(server)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    fn cli(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(command)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn wait(&self) {
        let answers = || (self.cli(&["ping"]) == "PONG").then_some(());
        testing::poll("redis-server answers", answers);
    }

    /// Ends it after it saved what it has.
    pub(super) fn stop(&mut self) {
        self.cli(&["shutdown", "save"]);
        self.child.wait().unwrap();
    }

    /// Whether a lease is over by the clock of Redis.
    pub(super) fn is_over(&self, pods: &str, life: &str) -> bool {
        let script = "local t = redis.call('TIME') \
            return tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1])) <= t[1] * 1000 + math.floor(t[2] / 1000) and 1 or 0";
        self.cli(&["eval", script, "1", pods, life]) == "1"
    }

    /// Empties it, and keeps every pod from putting anything back for this long.
    pub(super) fn flush_for(&self, lock: &str, time: Duration) {
        let script = "redis.call('flushall') redis.call('set', KEYS[1], 'test', 'px', ARGV[1])";
        self.cli(&["eval", script, "1", lock, &time.as_millis().to_string()]);
    }

    /// Ends it and loses what it had.
    pub(super) fn lose(&mut self) {
        self.cli(&["shutdown", "nosave"]);
        self.child.wait().unwrap();
    }

    /// Starts it again with what it saved.
    pub(super) fn again(&mut self) {
        self.child = spawn(self.dir.path(), self.port);
        self.wait();
    }

    /// Who is connected, and what they do.
    pub(super) fn clients(&self) -> String {
        self.cli(&["client", "list"])
    }

    pub(super) fn flush(&self) {
        assert_eq!(self.cli(&["flushall"]), "OK");
    }
}

fn spawn(dir: &std::path::Path, port: u16) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--port")
        .arg(port.to_string())
        .arg("--dir")
        .arg(dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
