//! Requests, and what comes back.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
    /// The body as JSON; null where it is none.
    pub body: Value,
}

impl Reply {
    pub(crate) async fn of(response: reqwest::Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.expect("the answer is complete");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self {
            status,
            headers,
            text,
            body,
        }
    }

    /// A header as text; empty where it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    }

    /// The job in an envelope.
    ///
    /// # Panics
    /// When the answer is no success with a job in it.
    #[must_use]
    pub fn job(&self) -> &Value {
        assert!(
            (200..300).contains(&self.status),
            "{} {}",
            self.status,
            self.text
        );
        assert_eq!(
            self.body.get("success"),
            Some(&Value::Bool(true)),
            "{}",
            self.text
        );
        self.body.get("job").expect("a job in the envelope")
    }
}

/// A client that never reads proxy settings and never gives up on a stream.
pub(crate) fn client() -> reqwest::Client {
    // A second installation is refused, and the first is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("the client can be built")
}

/// Sends `request` byte by byte to a port of this machine and returns the status code and everything that came back.
///
/// For requests that a well-behaved client would not send. The request should ask for `connection: close`.
///
/// # Panics
/// When the server does not answer with a status line.
pub async fn raw(port: u16, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("the server listens");
    stream
        .write_all(request)
        .await
        .expect("the request is taken");
    let mut answer = Vec::new();
    tokio::time::timeout(crate::PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the server closes the connection")
        .expect("the answer is complete");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok());
    (
        status.unwrap_or_else(|| panic!("no status line in {text:?}")),
        text,
    )
}
