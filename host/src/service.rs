//! What the faces call: submitting, asking and steering, the same functions for REST, SSE and the local run.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use jiff::Timestamp;
use serde_json::Value;
use utoipa::ToSchema;

use crate::config::Config;
use crate::drain::Drain;
use crate::git::UrlPolicy;
use crate::job::{
    Admitted, BadRequest, Idempotency, InvalidKey, Job, JobId, Origin, Record, RequestBody,
    RequestPolicy, SessionId, TraceContext,
};
use crate::plugin::{PluginError, check_schema};
use crate::plugins;
use crate::pod::Pod;
use crate::profile::{Profile, ProfileSummary};
use crate::queue::redis::{PodFacts, PodInfo, ordinal};
use crate::queue::{Depth, Queue, QueueError};
use crate::telemetry::{metrics, trace};

/// How long a scrape waits for the store.
const STORE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a list of profiles waits for one to be examined: its plugin may have to be compiled.
const EXAMINATION_PATIENCE: Duration = Duration::from_secs(5);
/// Profiles that are examined at one time.
const EXAMINATIONS: usize = 4;

/// The check that makes no server unready: all servers of a fleet have the same store, and none would be left to say so.
const STORE_CHECK: &str = "store";

/// A running server's core.
#[derive(Clone)]
pub struct Service {
    pod: Arc<Pod>,
    drain: Drain,
    stopping: CancellationToken,
    /// Cancelled once every bundled plugin is loaded.
    warm: CancellationToken,
    started_at: Timestamp,
}

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The request itself is wrong.
    #[error(transparent)]
    Bad(#[from] BadRequest),
    /// The key of the submission is none.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// There is no such profile.
    #[error("unknown profile {name:?}; known profiles: {known}")]
    UnknownProfile {
        /// The name.
        name: String,
        /// The names that exist, joined by commas.
        known: String,
    },
    /// The profile exists but cannot be used.
    #[error("profile {name:?} cannot be used: {problem}")]
    BrokenProfile {
        /// The name.
        name: String,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// The operator has not let one of its plugins in.
    #[error("the profile {profile:?} cannot be used now: {error}")]
    Plugin {
        /// The profile.
        profile: String,
        /// Why, with what to do.
        error: Box<PluginError>,
    },
    /// The profile runs commands as they come and the server is open to others.
    #[error(
        "profile {0:?} is for servers on a loopback address only; the operator can allow it with AGENTICORE_ALLOW_LOCAL_PROFILES=true"
    )]
    LocalOnly(String),
    /// No job has the session that the request wants to go on with.
    #[error(
        "no job of this server has the session {0}; it may have been forgotten after its time to live (AGENTICORE_JOB_TTL)"
    )]
    UnknownSession(SessionId),
    /// A job is still at work in that session.
    #[error(
        "the job {job} is still at work in the session {session}; wait for its end or cancel it first"
    )]
    BusySession {
        /// The session.
        session: SessionId,
        /// The job.
        job: String,
    },
    /// The job is not over, so it cannot be run again.
    #[error("job {0} is not over yet: wait for its end or cancel it, then run it again")]
    NotEnded(String),
    /// The server is about to stop.
    #[error("this server is stopping and takes no new jobs; try again in a moment")]
    Stopping,
    /// The store failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// A request that was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The job.
    pub record: Record,
    /// Whether it was accepted before, under the same key.
    pub replayed: bool,
}

/// Whether the server should get traffic, and why not.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    /// Whether it is ready.
    pub ready: bool,
    /// Each check: its name, whether it passed, and a detail.
    pub checks: Vec<Check>,
}

/// One check of [`Readiness`].
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether it passed.
    pub ok: bool,
    /// More, for people.
    pub detail: String,
}

impl Service {
    /// The core over a pod and its `drain`. `stopping` is cancelled when the server begins to stop, `warm` once its plugins are loaded.
    #[must_use]
    pub fn new(
        pod: Arc<Pod>,
        drain: Drain,
        stopping: CancellationToken,
        warm: CancellationToken,
    ) -> Self {
        Self {
            pod,
            drain,
            stopping,
            warm,
            started_at: Timestamp::now(),
        }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.pod.config
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &dyn Queue {
        &*self.pod.queue
    }

    /// The pod's drain.
    #[must_use]
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Cancelled when the server begins to stop: streams end within a second then.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Checks a request against the profiles and queues it.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is stored then.
    pub async fn submit(&self, body: RequestBody) -> Result<Record, SubmitError> {
        Ok(self.submit_from(body, Origin::default()).await?.record)
    }

    /// As [`Service::submit`], for a request that comes from somewhere.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is stored then.
    pub async fn submit_from(
        &self,
        body: RequestBody,
        origin: Origin,
    ) -> Result<Accepted, SubmitError> {
        if self.stopping.is_cancelled() {
            return Err(SubmitError::Stopping);
        }
        // Before anything else is looked at: since then the first job may have changed what the checks say.
        if let Some(key) = &origin.idempotency
            && let Some(record) = self.pod.queue.submitted(key).await?
        {
            return Ok(Accepted {
                record,
                replayed: true,
            });
        }
        let config = &self.pod.config;
        let policy = RequestPolicy {
            urls: UrlPolicy {
                allow_file: config.is_loopback(),
            },
            default_profile: config.default_profile.clone(),
            ttl_seconds: config.job_ttl.as_secs(),
        };
        let request = body.parse(&policy)?;
        if let Some(session) = &request.session_id {
            self.check_session(session).await?;
        }
        let profile = self.profile(request.profile.as_str()).await?;
        let (admitted, warnings) = self.check(&profile).await?;
        let mut job = Job::new(JobId::random(), request, Timestamp::now());
        job.origin = origin;
        job.run.admitted = admitted;
        job.run.warnings = warnings;
        // A span of ours is nearer than what the request came with.
        let trace = trace::current().or(job.origin.trace.take());
        job.origin.trace = Some(trace.unwrap_or_else(TraceContext::unrecorded));
        let id = job.id;
        let record = self.pod.queue.submit(job).await?;
        let replayed = record.id != id.to_string();
        tracing::info!(job = %record.id, profile = %profile.name, replayed, "job accepted");
        Ok(Accepted { record, replayed })
    }

    /// Queues a new job with the request of one that is over. It is checked anew: profiles and settings may have changed.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing is stored then.
    pub async fn retry(
        &self,
        id: JobId,
        key: Option<&str>,
        trace: Option<TraceContext>,
    ) -> Result<Accepted, SubmitError> {
        let record = self.pod.queue.get(id).await?;
        if !record.status.is_ended() {
            return Err(SubmitError::NotEnded(record.id));
        }
        let body = RequestBody::from(&record);
        let origin = Origin {
            idempotency: key
                .map(|key| Idempotency::of(key, &body, Some(id)))
                .transpose()?,
            retry_of: Some(id),
            trace,
        };
        self.submit_from(body, origin).await
    }

    /// Two agents in one session would each lose what the other says.
    async fn check_session(&self, session: &SessionId) -> Result<(), SubmitError> {
        match self.pod.last_job_of(session, None).await? {
            None => Err(SubmitError::UnknownSession(session.clone())),
            Some(job) if !job.status.is_ended() => Err(SubmitError::BusySession {
                session: session.clone(),
                job: job.id,
            }),
            Some(_) => Ok(()),
        }
    }

    async fn profile(&self, name: &str) -> Result<Arc<Profile>, SubmitError> {
        let (profiles, name) = (self.pod.profiles.clone(), name.to_owned());
        let broken = |name: &str, problem: String| SubmitError::BrokenProfile {
            name: name.to_owned(),
            problem,
        };
        let looked = tokio::task::spawn_blocking(move || match profiles.load(&name) {
            Ok(profile) => Ok(profile),
            Err(error) if error.is_unknown() => {
                let known: Vec<String> = profiles
                    .list()
                    .into_iter()
                    .filter(|p| p.error.is_none())
                    .map(|p| p.name)
                    .collect();
                Err(SubmitError::UnknownProfile {
                    name,
                    known: known.join(", "),
                })
            }
            Err(error) => Err(SubmitError::BrokenProfile {
                name,
                problem: error.full_message(),
            }),
        });
        looked
            .await
            .unwrap_or_else(|e| Err(broken("", e.to_string())))
    }

    /// What can be known to be wrong before the job runs: gives back its plugins and what the profile's author should change.
    async fn check(&self, profile: &Profile) -> Result<(Vec<Admitted>, Vec<String>), SubmitError> {
        let config = &self.pod.config;
        let name = profile.name.to_string();
        if profile.local_only && !config.is_loopback() && !config.allow_local_profiles {
            return Err(SubmitError::LocalOnly(name));
        }
        let references =
            std::iter::once(&profile.plugin).chain(profile.hooks.iter().map(|hook| &hook.plugin));
        let mut warnings = profile.warnings.clone();
        for reference in references {
            let checked = async {
                let plugin = self
                    .pod
                    .plugins
                    .load(reference)
                    .await
                    .map_err(|e| e.to_string())?;
                if let Some(schema) = plugin.config_schema() {
                    check_schema(schema, &reference.config)?;
                }
                Ok(plugin)
            };
            let plugin = checked
                .await
                .map_err(|problem| SubmitError::BrokenProfile {
                    name: name.clone(),
                    problem,
                })?;
            if std::ptr::eq(reference, &profile.plugin) {
                warnings.extend(profile.slips(plugin.profile_keys().as_deref()));
            }
        }
        let admitted = self.pod.plugins.admit(profile).await;
        let admitted = admitted.map_err(|error| SubmitError::Plugin {
            profile: name,
            error: Box::new(error),
        })?;
        Ok((admitted, warnings))
    }

    /// The pods of the fleet; without one, this server.
    #[must_use]
    pub fn pods(&self) -> Vec<PodInfo> {
        match &self.pod.fleet {
            Some(fleet) => fleet.pods(),
            None => vec![self.own_info()],
        }
    }

    fn own_info(&self) -> PodInfo {
        let (config, drain) = (self.config(), self.drain.status());
        let name = config.pod_name.to_string();
        PodInfo {
            life: name.clone(),
            facts: PodFacts {
                ordinal: ordinal(&name),
                pod: name,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                slots: config.max_parallel_jobs,
                running: drain.running,
                draining: drain.seconds_left.is_some(),
                started_at: self.started_at,
                seen_at: Timestamp::now(),
            },
            expired: false,
        }
    }

    /// Every profile, with what is wrong with it.
    pub async fn profiles(&self) -> Vec<Value> {
        let profiles = self.pod.profiles.clone();
        let listed = tokio::task::spawn_blocking(move || profiles.list())
            .await
            .unwrap_or_default();
        stream::iter(listed)
            .map(|summary| self.examined(summary))
            .buffered(EXAMINATIONS)
            .filter_map(async |summary| serde_json::to_value(summary).ok())
            .collect()
            .await
    }

    /// Adds what only its plugins can tell of a profile, as far as it is known in time.
    async fn examined(&self, mut summary: ProfileSummary) -> ProfileSummary {
        if summary.error.is_some() {
            return summary;
        }
        let Ok(profile) = self.profile(&summary.name).await else {
            return summary;
        };
        let examination = self.pod.plugins.examine(&profile, &self.pod.config);
        match tokio::time::timeout(EXAMINATION_PATIENCE, examination).await {
            Ok(found) => {
                summary.error = found.error;
                summary.warnings.extend(found.warnings);
            }
            Err(_) => summary.warnings.push(format!(
                "profile `{}`: it is not checked yet, because its plugins are still loaded; ask again in a moment",
                summary.name
            )),
        }
        summary
    }

    /// Every plugin: those that are part of the program, and those that a profile names.
    pub async fn plugins(&self) -> Vec<Value> {
        let profiles = self.pod.profiles.clone();
        let load = move || plugins::usable(&profiles);
        let profiles = tokio::task::spawn_blocking(load).await.unwrap_or_default();
        let listed = self.pod.plugins.overview(&profiles, Vec::new()).await;
        let values = listed.into_iter().map(serde_json::to_value);
        values.filter_map(Result::ok).collect()
    }

    /// The page of metrics. It answers soon, whatever the store does.
    pub async fn metrics(&self) -> String {
        let config = &self.pod.config;
        let queue = &self.pod.queue;
        let depth = tokio::time::timeout(STORE_PATIENCE, queue.depth()).await;
        // What was known last would hide that nothing is known now.
        let depth: Option<Depth> = depth.ok().filter(|_| queue.answers());
        metrics::render(&metrics::Now {
            depth,
            drain: &self.drain,
            ready: self.drain.is_serving() && self.warm.is_cancelled(),
            slots: config.max_parallel_jobs,
            drain_timeout: config.drain_timeout,
            pod: config.pod_name.as_str(),
        })
    }

    /// Whether the server should get traffic.
    pub async fn readiness(&self) -> Readiness {
        let depth = self.pod.queue.depth().await;
        let trouble = self.pod.queue.trouble();
        let claiming = self.drain.is_serving();
        let warm = self.warm.is_cancelled();
        let checks = vec![
            Check {
                name: "claiming",
                ok: claiming,
                detail: if claiming {
                    "takes jobs"
                } else {
                    "is draining and takes no jobs"
                }
                .into(),
            },
            Check {
                name: "plugins",
                ok: warm,
                detail: self.pod.plugins.warmth(),
            },
            Check {
                name: "queue",
                ok: true,
                detail: format!(
                    "{} queued, {} running, {} slots{}",
                    depth.queued,
                    depth.running,
                    self.pod.config.max_parallel_jobs,
                    if self.pod.queue.answers() {
                        ""
                    } else {
                        " when the store answered last"
                    }
                ),
            },
            Check {
                name: STORE_CHECK,
                ok: trouble.is_none(),
                detail: trouble.unwrap_or_else(|| "answers".into()),
            },
        ];
        Readiness {
            ready: checks
                .iter()
                .all(|check| check.ok || check.name == STORE_CHECK),
            checks,
        }
    }
}
