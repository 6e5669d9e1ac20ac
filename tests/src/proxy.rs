//! A way to a server that a test can cut, hold up and open again, for one client without touching the others.
//!
//! It runs on threads of its own, so that it works while a test blocks its runtime.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How the way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Connections stand, and nothing gets through.
    Held,
    /// Connections break, and no new one is made.
    Cut,
    /// The proxy is gone.
    Gone,
}

/// A proxy from a port of its own to another port of this machine.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    way: Mutex<Way>,
    changed: Condvar,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// An open way to `target`.
    ///
    /// # Panics
    /// When no port can be bound.
    #[must_use]
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            way: Mutex::new(Way::Open),
            changed: Condvar::new(),
            streams: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || accepting.accept(&listener, target));
        Self { port, shared }
    }

    /// The port that clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Breaks every connection and lets none through.
    pub fn cut(&self) {
        self.shared.set(Way::Cut);
    }

    /// Keeps connections and lets nothing through, as a network that drops packets.
    pub fn hold(&self) {
        self.shared.set(Way::Held);
    }

    /// Opens the way again.
    pub fn open(&self) {
        self.shared.set(Way::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.set(Way::Gone);
        // The thread that accepts looks at the way once somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn set(&self, way: Way) {
        *self.way.lock().unwrap() = way;
        self.changed.notify_all();
        if matches!(way, Way::Cut | Way::Gone) {
            for stream in self.streams.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, target: u16) {
        for client in listener.incoming().flatten() {
            let way = *self.way.lock().unwrap();
            match way {
                Way::Gone => return,
                Way::Cut => drop(client),
                Way::Open | Way::Held => self.join(&client, target),
            }
        }
    }

    fn join(self: &Arc<Self>, client: &TcpStream, target: u16) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else {
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        for (from, to) in [(client, &server), (&server, client)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
                return;
            };
            let shared = self.clone();
            std::thread::spawn(move || shared.copy(from, to));
        }
        let mut streams = self.streams.lock().unwrap();
        // Those that ended by themselves are no longer of interest.
        streams.retain(|stream| stream.peer_addr().is_ok());
        streams.extend(
            [client.try_clone(), server.try_clone()]
                .into_iter()
                .flatten(),
        );
        drop(streams);
        if *self.way.lock().unwrap() == Way::Cut {
            self.set(Way::Cut);
        }
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            self.wait_until_open();
            let Some(bytes) = buffer.get(..length) else {
                break;
            };
            if to.write_all(bytes).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    fn wait_until_open(&self) {
        let mut way = self.way.lock().unwrap();
        while *way == Way::Held {
            way = self
                .changed
                .wait_timeout(way, Duration::from_secs(60))
                .unwrap()
                .0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says everything back.
    fn echo() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut &stream, &mut &stream);
                });
            }
        });
        port
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(("127.0.0.1", proxy.port())).unwrap()
    }

    fn talk(stream: &mut TcpStream, timeout: Duration) -> bool {
        let mut answer = [0; 2];
        stream.set_read_timeout(Some(timeout)).unwrap();
        stream.write_all(b"hi").is_ok() && stream.read_exact(&mut answer).is_ok()
    }

    #[test]
    fn a_way_is_open_then_held_then_cut_then_open_again() {
        let proxy = Proxy::to(echo());
        let mut stream = connect(&proxy);
        assert!(talk(&mut stream, crate::PATIENCE));
        proxy.hold();
        assert!(!talk(&mut stream, Duration::from_millis(100)));
        proxy.open();
        let mut late = [0; 2];
        stream.set_read_timeout(Some(crate::PATIENCE)).unwrap();
        stream.read_exact(&mut late).unwrap();
        proxy.cut();
        assert!(!talk(&mut stream, crate::PATIENCE));
        assert!(!talk(&mut connect(&proxy), crate::PATIENCE));
        proxy.open();
        assert!(talk(&mut connect(&proxy), crate::PATIENCE));
    }
}
