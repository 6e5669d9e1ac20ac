//! A raw reader of the event stream, which shows what is on the wire.

use serde_json::Value;

use crate::PATIENCE;

/// One frame of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The `id:` line.
    pub id: Option<u64>,
    /// The `event:` line.
    pub event: String,
    /// The `data:` line, which is JSON.
    pub data: Value,
}

/// A stream that is being read.
#[derive(Debug)]
pub struct Sse {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// The `retry:` line, in milliseconds, once it came.
    pub retry: Option<u64>,
}

impl Sse {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        Self {
            response,
            buffer: Vec::new(),
            retry: None,
        }
    }

    /// The answer's headers.
    #[must_use]
    pub fn headers(&self) -> &reqwest::header::HeaderMap {
        self.response.headers()
    }

    /// The next frame that has data; none at the end of the stream, also where the connection broke.
    ///
    /// # Panics
    /// When nothing comes for too long, or a frame is malformed.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            while let Some(block) = self.take_block() {
                if let Some(frame) = self.parse(&block) {
                    return Some(frame);
                }
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk())
                .await
                .expect("the stream goes on or ends");
            match chunk {
                Ok(Some(bytes)) => self.buffer.extend_from_slice(&bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Every frame up to the end of the stream.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }

    fn take_block(&mut self) -> Option<String> {
        let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
        let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
        Some(String::from_utf8(block).expect("the stream is UTF-8"))
    }

    fn parse(&mut self, block: &str) -> Option<Frame> {
        let mut frame = Frame {
            id: None,
            event: String::new(),
            data: Value::Null,
        };
        for line in block
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with(':'))
        {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => frame.id = Some(value.parse().expect("an integer id")),
                "event" => frame.event = value.to_owned(),
                "data" => {
                    frame.data = serde_json::from_str(value).expect("data is one line of JSON")
                }
                "retry" => self.retry = Some(value.parse().expect("retry in milliseconds")),
                other => panic!("unknown field {other:?} in {block:?}"),
            }
        }
        (!frame.data.is_null()).then_some(frame)
    }
}
