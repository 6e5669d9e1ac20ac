//! A client of the router, without a socket.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, Request, StatusCode, request};
use futures::StreamExt;
use serde_json::Value;
use tower::ServiceExt;

use super::fake::Fake;
use crate::api::router;

/// Nothing here takes long; a test that hangs says so.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `future` gives; it must not take long.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("{what} hangs"))
}

#[derive(Clone)]
pub(super) struct Client(Router);

/// An answer whose body has arrived.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// An answer whose body is still arriving.
pub(super) struct Stream {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: BodyDataStream,
    text: String,
}

impl Client {
    pub(super) fn new(fake: &Fake) -> Self {
        Self(router(fake.clone()))
    }

    pub(super) async fn open(&self, request: Request<Body>) -> Stream {
        let answer = within("the answer", self.0.clone().oneshot(request))
            .await
            .unwrap();
        Stream {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: answer.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let mut stream = self.open(request).await;
        stream.rest().await;
        Answer {
            status: stream.status,
            headers: stream.headers,
            body: stream.text,
        }
    }

    pub(super) async fn get(&self, uri: &str) -> Answer {
        self.send(get(uri).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn delete(&self, uri: &str) -> Answer {
        let request = Request::delete(uri).body(Body::empty()).unwrap();
        self.send(request).await
    }

    pub(super) async fn post(&self, body: impl Into<Body>) -> Answer {
        self.send(post(body)).await
    }

    pub(super) async fn stream(&self, uri: &str) -> Stream {
        self.open(get(uri).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn resume(&self, uri: &str, last_event_id: &str) -> Stream {
        let request = get(uri).header("last-event-id", last_event_id);
        self.open(request.body(Body::empty()).unwrap()).await
    }
}

pub(super) fn get(uri: &str) -> request::Builder {
    Request::get(uri)
}

pub(super) fn post(body: impl Into<Body>) -> Request<Body> {
    Request::post("/jobs")
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

impl Stream {
    /// One more chunk; none at the end.
    pub(super) async fn chunk(&mut self) -> Option<String> {
        let chunk = self.body.next().await?.unwrap();
        let chunk = String::from_utf8(chunk.to_vec()).unwrap();
        self.text.push_str(&chunk);
        Some(chunk)
    }

    /// Everything up to and with `needle`.
    pub(super) async fn until(&mut self, needle: &str) -> &str {
        let read = async {
            while !self.text.contains(needle) {
                assert!(self.chunk().await.is_some(), "no {needle} in {}", self.text);
            }
        };
        within("the stream", read).await;
        &self.text
    }

    /// Everything.
    pub(super) async fn rest(&mut self) -> &str {
        let read = async { while self.chunk().await.is_some() {} };
        within("the stream", read).await;
        &self.text
    }

    /// The numbers of the events that have arrived.
    pub(super) fn ids(&self) -> Vec<u64> {
        let lines = self.text.lines();
        let ids = lines.filter_map(|line| line.strip_prefix("id: "));
        ids.map(|id| id.parse().unwrap()).collect()
    }
}
