//! One server process: started, watched until it listens, ended by signals.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::Signal;

use crate::{PATIENCE, poll, processes};

/// A server that accepts connections.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// The server's own process, where `child` only started it.
    inner: Option<u32>,
    pub(crate) port: u16,
    log: Log,
}

/// What a server wrote to standard error so far.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Server {
    /// Starts `command` and waits until it names its address.
    ///
    /// # Errors
    /// With the exit status and standard error of a server that ended instead.
    pub(crate) fn start(mut command: Command) -> Result<Self, (ExitStatus, String)> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let log = Log::default();
        let lines = log.follow(child.stderr.take().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if let Some(port) = port_of(&line) {
                return Ok(Self {
                    child,
                    inner: None,
                    port,
                    log,
                });
            }
        }
        assert!(
            Instant::now() < deadline,
            "the server does not listen; it said:\n{}",
            log.text()
        );
        Err((child.wait().expect("the server ends"), log.text()))
    }

    /// The process that was started is not the server, but its only child is.
    pub(crate) fn is_the_child(&mut self) {
        let outer = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"));
        let child = children.expect("the process runs");
        self.inner = Some(child.trim().parse().expect("one child"));
    }

    pub(crate) fn pid(&self) -> u32 {
        self.inner.unwrap_or_else(|| self.child.id())
    }

    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Ends it as a power cut would, without touching the agents it started.
    pub(crate) fn kill9(mut self) {
        self.child.kill().expect("the server is killed");
        self.child.wait().expect("the server ends");
    }

    pub(crate) fn send(&self, signal: Signal) {
        processes::send(self.pid(), signal);
    }

    /// The exit status once it has ended by itself.
    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the server can be waited for")
    }

    /// Waits until it has ended by itself; none: it did not within [`PATIENCE`].
    pub(crate) fn wait(&mut self) -> Option<ExitStatus> {
        poll(|| self.try_wait())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// Collects the lines and hands them on, until the end of the output.
    fn follow(&self, output: impl std::io::Read + Send + 'static) -> Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut text = log.0.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
                drop(text);
                // Nobody listens once the port is known.
                let _ = sender.send(line);
            }
        });
        receiver
    }
}

/// The port in `.. listening on http://HOST:PORT`.
fn port_of(line: &str) -> Option<u16> {
    let (_, address) = line.split_once("listening on http://")?;
    let address = address.split_whitespace().next()?;
    let (_, port) = address.rsplit_once(':')?;
    let digits = port
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(port.len());
    port.get(..digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::port_of;

    #[test]
    fn the_port_is_read_from_the_line_that_names_the_address() {
        assert_eq!(
            port_of("INFO listening on http://[::1]:4711 (loopback)"),
            Some(4711)
        );
        assert_eq!(port_of("listening on http://127.0.0.1:80\x1b[0m"), Some(80));
        assert_eq!(port_of("not listening"), None);
    }
}
