//! The names of everything in Redis.
//!
//! Every key begins with the prefix (`REDIS_KEY_PREFIX`), so that fleets can share a Redis. A script touches keys of one prefix
//! alone: with a prefix in braces, such as `{agenticore}`, all of them hash to one slot of a cluster.

use serde::Serialize;

use crate::job::JobId;

/// The version of what is stored. A pod refuses to work on a newer one.
pub const SCHEMA: u32 = 1;

/// One key or family of keys, for people and for tests of manifests.
#[derive(Debug, Clone, Serialize)]
pub struct KeyInfo {
    /// The name; `{id}` and the like stand for what varies.
    pub key: String,
    /// Its type in Redis.
    pub r#type: &'static str,
    /// What it is for.
    pub about: &'static str,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $suffix:literal;)*) => {
        /// The names under one prefix.
        #[derive(Debug, Clone)]
        pub struct Keys {
            prefix: String,
            $($name: String,)*
        }

        impl Keys {
            /// The names under `prefix`.
            #[must_use]
            pub fn new(prefix: &str) -> Self {
                Self {
                    prefix: prefix.to_owned(),
                    $($name: format!("{prefix}:{}", $suffix),)*
                }
            }

            $($(#[$doc])* #[must_use] pub fn $name(&self) -> &str { &self.$name })*
        }
    };
}

names! {
    /// The version and the epoch of what is stored; a store without it was emptied.
    schema = "schema";
    /// The ids of the jobs that wait, the next one first. Autoscalers watch its length.
    queue = "queue";
    /// All jobs by their arrival.
    index = "index";
    /// Jobs by the time at which they expire or are forgotten.
    due = "due";
    /// The jobs that wait or run. Autoscalers watch its size.
    outstanding = "demand";
    /// As many elements as pods must not be removed: the highest busy ordinal and all below. Autoscalers watch its length.
    floor = "busy-floor";
    /// The ordinals of the pods that run jobs.
    busy = "busy";
    /// The changes of all jobs, the newest ten thousand.
    changes = "changes";
    /// The lives of pods by the end of their lease.
    pods = "pods";
    /// What the pods say of themselves.
    facts = "pod-facts";
    /// Held by the pod that puts back what Redis lost.
    rebuild = "lock:rebuild";
    /// The run of the server whose jobs were compared with the volume last.
    server = "server";
    /// The beginning of the keys of jobs.
    jobs = "job:";
}

impl Keys {
    /// A job: its record, version, fence and the number of its last event.
    #[must_use]
    pub fn job(&self, id: JobId) -> String {
        format!("{}:job:{id}", self.prefix)
    }

    /// A job's events.
    #[must_use]
    pub fn events(&self, id: JobId) -> String {
        format!("{}:events:{id}", self.prefix)
    }

    /// The jobs of an agent's session by their arrival.
    #[must_use]
    pub fn session(&self, session: &str) -> String {
        format!("{}:session:{session}", self.prefix)
    }

    /// The job that was submitted under a key, by the key's digest.
    #[must_use]
    pub fn submission(&self, digest: &str) -> String {
        format!("{}:submission:{digest}", self.prefix)
    }

    /// The jobs that a pod's life took out of the queue.
    #[must_use]
    pub fn claimed(&self, life: &str) -> String {
        format!("{}:claimed:{life}", self.prefix)
    }

    /// Set while a pod drains.
    #[must_use]
    pub fn draining(&self, pod: &str) -> String {
        format!("{}:pod:{pod}:draining", self.prefix)
    }

    /// The lock on a clone in the cache of repositories.
    #[must_use]
    pub fn clone_lock(&self, hash: &str) -> String {
        format!("{}:lock:clone:{hash}", self.prefix)
    }

    /// Every key, what it is and what it is for.
    #[must_use]
    pub fn all(&self) -> Vec<KeyInfo> {
        let info = |key: String, r#type, about| KeyInfo { key, r#type, about };
        let own = str::to_owned;
        let named = |suffix: &str| format!("{}:{suffix}", self.prefix);
        vec![
            info(
                own(self.schema()),
                "string",
                "version and epoch of what is stored",
            ),
            info(
                own(self.queue()),
                "list",
                "jobs that wait; autoscalers watch its length",
            ),
            info(
                own(self.outstanding()),
                "set",
                "jobs that wait or run; autoscalers watch its size",
            ),
            info(
                own(self.floor()),
                "list",
                "one element for each pod that must not be removed; autoscalers watch its length",
            ),
            info(
                own(self.busy()),
                "hash",
                "ordinals of the pods that run jobs",
            ),
            info(own(self.index()), "zset", "all jobs by arrival"),
            info(
                own(self.due()),
                "zset",
                "jobs by the time they expire or are forgotten",
            ),
            info(
                own(self.changes()),
                "stream",
                "changes of all jobs, the newest ten thousand",
            ),
            info(
                own(self.pods()),
                "zset",
                "lives of pods by the end of their lease",
            ),
            info(own(self.facts()), "hash", "what pods say of themselves"),
            info(
                own(self.rebuild()),
                "string",
                "held while what Redis lost is put back",
            ),
            info(
                own(self.server()),
                "string",
                "run of the Redis server whose jobs were compared with the volume last",
            ),
            info(
                named("job:{id}"),
                "hash",
                "a job: record, version, status, fence and number of the last event; expires after its end",
            ),
            info(
                named("events:{id}"),
                "stream",
                "a job's events; expires after its end",
            ),
            info(
                named("submission:{digest}"),
                "string",
                "the job that was submitted under an Idempotency-Key; expires after a day",
            ),
            info(
                named("session:{session}"),
                "zset",
                "jobs of an agent's session",
            ),
            info(
                named("claimed:{life}"),
                "list",
                "jobs that a life of a pod took out of the queue",
            ),
            info(
                named("pod:{pod_name}:draining"),
                "string",
                "set while a pod drains",
            ),
            info(
                named("lock:clone:{hash}"),
                "string",
                "the lock on a clone in the cache of repositories",
            ),
        ]
    }
}
