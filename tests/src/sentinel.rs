//! A real Redis Sentinel of the test's own.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{Redis, free_port};

/// What the sentinel calls the master.
pub const MASTER: &str = "jobs";

/// A sentinel that alone decides when its master is gone; it ends with the test.
#[derive(Debug)]
pub struct Sentinel {
    _folder: TempDir,
    port: u16,
    child: Child,
}

impl Sentinel {
    /// Starts one over this master; it finds the replicas itself.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn over(master: &Redis) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("agenticore-sentinel-")
            .tempdir()
            .expect("a temporary folder");
        let port = free_port();
        // It writes what it learns back into this file.
        let file = folder.path().join("sentinel.conf");
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", folder.path().display()),
            format!("sentinel monitor {MASTER} 127.0.0.1 {} 1", master.port()),
            format!("sentinel down-after-milliseconds {MASTER} 1000"),
            format!("sentinel failover-timeout {MASTER} 5000"),
        ];
        std::fs::write(&file, lines.join("\n")).expect("its configuration is written");
        let child = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the sentinel starts");
        Self {
            _folder: folder,
            port,
            child,
        }
    }

    /// Its address, as the setting takes it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port of the server that it takes for the master; none: it does not answer.
    #[must_use]
    pub fn master(&self) -> Option<u16> {
        let address: Vec<String> = self.ask("get-master-addr-by-name")?;
        address.get(1)?.parse().ok()
    }

    /// Whether it knows a replica that could take over.
    #[must_use]
    pub fn has_replica(&self) -> bool {
        let replicas: Option<Vec<Vec<String>>> = self.ask("replicas");
        let mut words = replicas.unwrap_or_default().into_iter().flatten();
        // The link of the replica to its master.
        words.any(|word| word == "master-link-status") && words.next().as_deref() == Some("ok")
    }

    fn ask<T: redis::FromRedisValue>(&self, question: &str) -> Option<T> {
        let client = redis::Client::open(format!("redis://{}/", self.address())).ok()?;
        let mut connection = client.get_connection().ok()?;
        let mut command = redis::cmd("SENTINEL");
        command
            .arg(question)
            .arg(MASTER)
            .query(&mut connection)
            .ok()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
