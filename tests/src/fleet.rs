//! Several servers as the pods of one fleet: one shared folder, one Redis, and a way to it for each pod that a test can cut.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::checker::{self, History, Seen};
use crate::ledger::Ledger;
use crate::{Builder, Gate, Proxy, Redis, World, free_port, number, text, until};

/// A fleet. The pods' names end in their numbers, from 0.
#[derive(Debug)]
pub struct Fleet {
    // Pods go first: they want to tell Redis that they leave.
    pods: Vec<World>,
    ways: Vec<Proxy>,
    /// The Redis of all.
    pub redis: Redis,
    shared: TempDir,
}

impl Fleet {
    /// Starts `pods` pods over a Redis, each set up further by `set_up`, which is given the pod's number.
    #[must_use]
    pub fn start(pods: usize, redis: Redis, set_up: impl Fn(usize, Builder) -> Builder) -> Self {
        let shared = tempfile::Builder::new()
            .prefix("agenticore-fleet-")
            .tempdir()
            .expect("a temporary folder");
        for below in ["job-state", "repos", "profiles", "jobs", "cache"] {
            std::fs::create_dir_all(shared.path().join(below)).expect("the shared folders");
        }
        let mut fleet = Self {
            pods: Vec::new(),
            ways: Vec::new(),
            redis,
            shared,
        };
        for number in 0..pods {
            let way = Proxy::to(fleet.redis.port());
            let builder = set_up(number, fleet.pod_settings(number, &way));
            fleet.ways.push(way);
            fleet.pods.push(builder.start());
        }
        fleet
    }

    /// A fleet as most tests want it, over a Redis that keeps what it has.
    #[must_use]
    pub fn of(pods: usize) -> Self {
        Self::start(pods, Redis::durable(), |_, builder| builder)
    }

    fn pod_settings(&self, number: usize, way: &Proxy) -> Builder {
        let shared = |below: &str| self.shared_path(below).display().to_string();
        let builder = World::builder();
        // What is compiled once need not be compiled by every pod.
        std::os::unix::fs::symlink(
            self.shared_path("cache"),
            builder.path("home/.agenticore/cache"),
        )
        .expect("the pods share a cache");
        builder
            .env("AGENTICORE_SHARED_FS_ROOT", &shared(""))
            .env("AGENTICORE_REPOS_ROOT", &shared("repos"))
            .env("AGENTICORE_JOBS_DIR", &shared("job-state"))
            .env("AGENTICORE_POD_NAME", &pod_name(number))
            .env("REDIS_URL", &self.redis.url_at(way.port()))
            .env("AGENTICORE_LEASE_SECONDS", "4")
            .port(free_port())
    }

    /// The number of pods.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// A pod.
    ///
    /// # Panics
    /// When there is none of this number.
    #[must_use]
    pub fn pod(&self, number: usize) -> &World {
        self.pods.get(number).expect("a pod of this number")
    }

    /// A pod, to start and end it.
    ///
    /// # Panics
    /// When there is none of this number.
    pub fn pod_mut(&mut self, number: usize) -> &mut World {
        self.pods.get_mut(number).expect("a pod of this number")
    }

    /// A pod's way to Redis.
    ///
    /// # Panics
    /// When there is none of this number.
    #[must_use]
    pub fn way(&self, number: usize) -> &Proxy {
        self.ways.get(number).expect("a pod of this number")
    }

    /// A path below the shared folder.
    #[must_use]
    pub fn shared_path(&self, below: &str) -> PathBuf {
        let root = self.shared.path();
        if below.is_empty() {
            root.to_owned()
        } else {
            root.join(below)
        }
    }

    /// The ledger of this fleet's agents.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger::at(self.shared_path("ledger"))
    }

    /// How processes of a pod are marked.
    #[must_use]
    pub fn instance(&self, number: usize) -> String {
        agenticore::process::Instance::of(&self.shared_path("job-state"), &pod_name(number))
            .to_string()
    }

    /// The number of the pod that a record names.
    #[must_use]
    pub fn number_of(record: &Value) -> Option<usize> {
        let name = record.get("pod_name")?.as_str()?;
        name.rsplit_once('-')?.1.parse().ok()
    }
}

/// Jobs that enter themselves in the ledger.
impl Fleet {
    /// A closed gate that every pod sees.
    ///
    /// # Panics
    /// When the shared folder cannot be written.
    #[must_use]
    pub fn gate(&self, name: &str) -> Gate {
        std::fs::create_dir_all(self.shared_path("gates")).expect("the folder of the gates");
        Gate::new(self.shared_path("gates").join(name))
    }

    /// A task that says that it began, and ends once the gate is open.
    #[must_use]
    pub fn waiting(&self, name: &str, gate: &Gate) -> String {
        let tick = gate
            .wait()
            .replace("do sleep 0.02", "do note tick; sleep 0.05");
        let begin = self.ledger().script(0).replace("; note end", "");
        format!("{begin}; echo begun {name}; {tick}; note end")
    }

    /// Submits such a task to the first pod.
    pub async fn submit_waiting(&self, name: &str, gate: &Gate) -> String {
        self.pod(0).submit(&self.waiting(name, gate)).await
    }

    /// A job, `long` by name, once it runs: its id, the gate that it waits for, the pod that runs it, and another pod.
    pub async fn held_job(&self) -> (String, Gate, usize, usize) {
        let gate = self.gate("go");
        let id = self.submit_waiting("long", &gate).await;
        let first = self.runner(&id).await;
        (id, gate, first, self.other(first))
    }

    /// Waits until a job runs; the number of the pod that runs it, as the first pod tells.
    pub async fn runner(&self, id: &str) -> usize {
        until(&format!("job {id} runs"), || self.running_on(0, id)).await
    }

    /// Waits until this pod runs the job, as `reader` tells.
    pub async fn runs_on(&self, reader: usize, id: &str, wanted: usize) {
        until(&format!("job {id} runs on pod {wanted}"), || async {
            (self.running_on(reader, id).await == Some(wanted)).then_some(())
        })
        .await;
    }

    async fn running_on(&self, reader: usize, id: &str) -> Option<usize> {
        let job = self.pod(reader).job(id).await;
        let runs = text(&job, "status") == "running" && number(&job, "pid") > 0;
        runs.then(|| Self::number_of(&job)).flatten()
    }

    /// Another pod than this one.
    #[must_use]
    pub fn other(&self, number: usize) -> usize {
        (number + 1) % self.len()
    }

    /// Holds these jobs, as this pod sees them, to every promise of the checker.
    ///
    /// # Panics
    /// When one is broken.
    pub async fn assert_sound(&self, reader: usize, ids: &[String]) {
        let mut history = History {
            accepted: ids.iter().cloned().collect(),
            ..History::default()
        };
        for id in ids {
            let record = self.pod(reader).ended(id).await;
            let events = self.pod(reader).events(id).await;
            history.jobs.insert(id.clone(), Seen { record, events });
        }
        history.ledger = self.ledger().read().0;
        assert_eq!(checker::check(&history), []);
    }
}

/// The name of a pod.
fn pod_name(number: usize) -> String {
    format!("agenticore-{number}")
}
