//! A core over the queue in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::memory::Memory;
use crate::api::Core;
use crate::config::{Config, Flags};
use crate::drain::Drain;
use crate::git::UrlPolicy;
use crate::job::{
    EventBody, Idempotency, Job, JobId, LogStream, Origin, Outcome, RequestBody, RequestPolicy,
    Run, TraceContext,
};
use crate::queue::redis::PodInfo;
use crate::queue::{Lease, Queue};
use crate::service::{Accepted, Check, Readiness, SubmitError};

/// A core over [`Memory`].
#[derive(Clone)]
pub(super) struct Fake {
    pub(super) store: Arc<Memory>,
    pub(super) stopping: CancellationToken,
    pub(super) drain: Drain,
    config: Arc<Config>,
    unready: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
}

impl Fake {
    /// A server on a loopback address without keys.
    pub(super) fn new() -> Self {
        Self::with(&[])
    }

    /// A server with these variables set.
    pub(super) fn with(env: &[(&str, &str)]) -> Self {
        let mut env: BTreeMap<&str, &str> = env.iter().copied().collect();
        env.entry("AGENTICORE_POD_NAME").or_insert("pod-0");
        let lookup = |name: &str| env.get(name).map(|v| (*v).to_owned());
        let (home, file) = ("/nowhere".into(), "/nowhere/config.yml".as_ref());
        let config = Config::from_parts(&Flags::default(), &lookup, home, file).unwrap();
        Self {
            store: Arc::default(),
            stopping: CancellationToken::new(),
            drain: Drain::default(),
            config: Arc::new(config),
            unready: Arc::default(),
            panics: Arc::default(),
        }
    }

    /// A queued job with a given id.
    pub(super) async fn queued(&self, id: &str) -> JobId {
        let id = id.parse().unwrap();
        let job = self.job(id, body("say hello")).unwrap();
        self.store.submit(job).await.unwrap();
        id
    }

    /// The job that waits longest, claimed.
    pub(super) async fn claim(&self) -> Lease {
        let pod = "pod-0".parse().unwrap();
        self.store.claim(&pod).await.unwrap().lease
    }

    /// A running job with a given id.
    pub(super) async fn running(&self, id: &str) -> Lease {
        self.queued(id).await;
        self.claim().await
    }

    /// A line of its output.
    pub(super) async fn log(&self, lease: &Lease, text: &str) {
        let body = EventBody::Log {
            stream: LogStream::Agent,
            text: text.into(),
        };
        self.store.append(lease, vec![body]).await.unwrap();
    }

    /// Its end.
    pub(super) async fn finish(&self, lease: &Lease) {
        let run = Run {
            pod: Some(self.config.pod_name.clone()),
            exit_code: Some(0),
            output: Some("hello".into()),
            ..Run::default()
        };
        let ended = self
            .store
            .finish(lease, &run, Outcome::Succeeded, vec![])
            .await;
        ended.unwrap();
    }

    /// Makes what is asked of it from now on panic.
    pub(super) fn panic(&self) {
        self.panics.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_unready(&self) {
        self.unready.store(true, Ordering::Relaxed);
    }

    fn job(&self, id: JobId, body: RequestBody) -> Result<Job, SubmitError> {
        let policy = RequestPolicy {
            urls: UrlPolicy { allow_file: true },
            default_profile: self.config.default_profile.clone(),
            ttl_seconds: 60,
        };
        Ok(Job::new(id, body.parse(&policy)?, self.store.now()))
    }
}

pub(super) fn body(task: &str) -> RequestBody {
    RequestBody {
        task: task.into(),
        ..RequestBody::default()
    }
}

#[async_trait]
impl Core for Fake {
    fn config(&self) -> &Config {
        &self.config
    }

    fn queue(&self) -> &dyn Queue {
        &*self.store
    }

    fn drain(&self) -> &Drain {
        &self.drain
    }

    fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    async fn submit_from(
        &self,
        body: RequestBody,
        origin: Origin,
    ) -> Result<Accepted, SubmitError> {
        assert!(!self.panics.load(Ordering::Relaxed), "asked to");
        if self.stopping.is_cancelled() {
            return Err(SubmitError::Stopping);
        }
        let mut job = self.job(JobId::random(), body)?;
        job.origin = origin;
        let id = job.id.to_string();
        let name = job.request.profile.to_string();
        match name.as_str() {
            "code" | "review" => {
                let record = self.store.submit(job).await?;
                let replayed = record.id != id;
                Ok(Accepted { record, replayed })
            }
            "shell" => Err(SubmitError::LocalOnly(name)),
            "broken" => Err(SubmitError::BrokenProfile {
                name,
                problem: "profile.yml: line 2".into(),
            }),
            _ => Err(SubmitError::UnknownProfile {
                name,
                known: "code, review".into(),
            }),
        }
    }

    async fn metrics(&self) -> String {
        String::new()
    }

    async fn retry(
        &self,
        id: JobId,
        key: Option<&str>,
        trace: Option<TraceContext>,
    ) -> Result<Accepted, SubmitError> {
        let record = self.store.get(id).await?;
        if !record.status.is_ended() {
            return Err(SubmitError::NotEnded(record.id));
        }
        let body = RequestBody::from(&record);
        let key = key.map(|key| Idempotency::of(key, &body, Some(id)));
        let origin = Origin {
            idempotency: key.transpose()?,
            retry_of: Some(id),
            trace,
        };
        self.submit_from(body, origin).await
    }

    fn pods(&self) -> Vec<PodInfo> {
        Vec::new()
    }

    async fn profiles(&self) -> Vec<Value> {
        assert!(!self.panics.load(Ordering::Relaxed), "asked to");
        vec![
            json!({"name": "code"}),
            json!({"name": "broken", "error": "profile.yml: line 2"}),
        ]
    }

    async fn plugins(&self) -> Vec<Value> {
        vec![json!({"name": "shell", "uses": []})]
    }

    async fn readiness(&self) -> Readiness {
        let ready = !self.unready.load(Ordering::Relaxed);
        let check = |name, ok| Check {
            name,
            ok,
            detail: "as told".into(),
        };
        Readiness {
            ready,
            checks: vec![check("plugins", true), check("store", ready)],
        }
    }
}
