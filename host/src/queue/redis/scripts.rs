//! The scripts that run inside Redis, and the values they take and give.
//!
//! Each is atomic: nobody sees half of a change. What a change *is* was decided before, in Rust, by [`crate::job::State::apply`];
//! a script compares what the decision was based on with what is there now, and sets.

use std::collections::HashMap;
use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, Script, ServerErrorKind, Value};

use super::keys::Keys;
use crate::job::JobId;
use crate::queue::KEY_LIFETIME;

macro_rules! script {
    ($name:ident, $file:literal) => {
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("scripts/", $file))));
    };
}

script!(COMMIT, "commit.lua");
script!(TAKE, "take.lua");
script!(GIVE_BACK, "give_back.lua");
script!(BEAT, "beat.lua");
script!(BURY, "bury.lua");
script!(CONDEMN, "condemn.lua");
script!(FORGET, "forget.lua");
script!(RESTORE, "restore.lua");
script!(UNLOCK, "unlock.lua");

/// What a change expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// No job of this id.
    New,
    /// Any version.
    Any,
    /// This version.
    Version(u64),
}

/// Where a change puts the job in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Stay,
    Back,
    Front,
    Out,
}

/// The new record of a job and what is derived from it.
#[derive(Debug, Clone)]
pub(super) struct NewRecord {
    pub(super) json: String,
    /// Empty while it waits.
    pub(super) status: &'static str,
    /// When it expires or is forgotten, in milliseconds of the epoch.
    pub(super) due: Option<i64>,
    /// Seconds until its keys expire; none while it is not over.
    pub(super) expires: Option<u64>,
    /// The agent's session.
    pub(super) session: Option<String>,
    pub(super) fence: Option<String>,
}

/// One change of one job.
#[derive(Debug, Clone)]
pub(super) struct Commit<'a> {
    pub(super) id: JobId,
    /// Its place in the index: microseconds of the epoch at its arrival.
    pub(super) score: i64,
    /// Names the change, so that it is not made twice when an answer was lost.
    pub(super) name: String,
    pub(super) expect: Expect,
    pub(super) fence: Option<String>,
    pub(super) record: Option<NewRecord>,
    pub(super) place: Place,
    /// The life whose list of claimed jobs is concerned, and its ordinal.
    pub(super) life: Option<(&'a str, Option<u32>)>,
    /// Whether the job leaves that list.
    pub(super) drop_claim: bool,
    pub(super) kind: Kind,
    pub(super) outstanding: Outstanding,
    /// The submission's key: its digest, and the job and request it stands for.
    pub(super) key: Option<(&'a str, String)>,
    pub(super) events: &'a [String],
}

/// Whether the job is counted as demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outstanding {
    Stay,
    In,
    Out,
}

/// What a change is to those who follow all changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A job joined the queue.
    Queued,
    /// Its status changed.
    Status,
    /// It is to be cancelled.
    Cancel,
    /// It has more events.
    Events,
    /// What is known of its run changed.
    Run,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Status => "status",
            Self::Cancel => "cancel",
            Self::Events => "events",
            Self::Run => "run",
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Committed {
    /// Made: the number of the job's last event.
    Ok {
        /// That number.
        seq: u64,
        /// It was made before, and the answer was lost: what came after it may have added events.
        before: bool,
    },
    /// The store was emptied and is not rebuilt yet.
    Emptied,
    /// A new job is there already.
    Exists,
    /// The submission's key stands for another job.
    Used,
    /// There is no such job.
    Missing,
    /// Its fence is another one.
    Fence,
    /// Its version is another one.
    Version,
}

/// How many events of a job are kept in Redis; older ones are in the job's file.
const EVENTS_KEPT: usize = 10_000;
/// How many keys `commit.lua` is given.
const KEYS: usize = 13;
/// How many words a call of it has before its events.
const ARGUMENTS: usize = 37;

impl Commit<'_> {
    /// Makes the change.
    pub(super) async fn run(
        &self,
        keys: &Keys,
        connection: &mut MultiplexedConnection,
    ) -> Result<Committed, RedisError> {
        let call = self.command(keys);
        let made: Result<(String, u64), RedisError> = call.query_async(connection).await;
        let (word, seq) = match made {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                COMMIT.load_async(connection).await?;
                call.query_async(connection).await?
            }
            made => made?,
        };
        Ok(match word.as_str() {
            "ok" | "done" => Committed::Ok {
                seq,
                before: word == "done",
            },
            "emptied" => Committed::Emptied,
            "exists" => Committed::Exists,
            "used" => Committed::Used,
            "missing" => Committed::Missing,
            "fence" => Committed::Fence,
            _ => Committed::Version,
        })
    }

    /// The call of the script. A [`Script`] would make a buffer for each argument, of which there are three dozen.
    fn command(&self, keys: &Keys) -> Cmd {
        let life = self.life.map_or("-", |(life, _)| life);
        let record = self.record.as_ref();
        let session = record.and_then(|r| r.session.as_deref());
        let json = record.map_or("", |r| r.json.as_str());
        let bytes: usize = self.events.iter().map(String::len).sum();
        let mut call =
            Cmd::with_capacity(ARGUMENTS + self.events.len(), 1_024 + json.len() + bytes);
        // Keys that a change has nothing to do with are named by one that it has: all of them must be of one slot.
        let unused = || keys.schema().to_owned();
        call.arg("EVALSHA")
            .arg(COMMIT.get_hash())
            .arg(KEYS)
            .arg(keys.schema())
            .arg(keys.job(self.id))
            .arg(keys.queue())
            .arg(keys.index())
            .arg(keys.due())
            .arg(keys.outstanding())
            .arg(keys.events(self.id))
            .arg(keys.changes())
            .arg(self.life.map_or_else(unused, |_| keys.claimed(life)))
            .arg(keys.busy())
            .arg(keys.floor())
            .arg(session.map_or_else(unused, |session| keys.session(session)))
            .arg((self.key.as_ref()).map_or_else(unused, |(key, _)| keys.submission(key)));
        let text = |value: Option<String>| value.unwrap_or_default();
        call.arg(self.id.to_string())
            .arg(&self.name)
            .arg(match self.expect {
                Expect::New => "new".to_owned(),
                Expect::Any => "*".to_owned(),
                Expect::Version(version) => version.to_string(),
            })
            .arg(self.fence.as_deref().unwrap_or_default())
            .arg(json)
            .arg(record.map_or("", |r| r.status))
            .arg(record.and_then(|r| r.fence.as_deref()).unwrap_or_default())
            .arg(match self.place {
                Place::Stay => "",
                Place::Back => "back",
                Place::Front => "front",
                Place::Out => "out",
            })
            .arg(if self.drop_claim { "out" } else { "" })
            .arg(match self.kind {
                // It waits, runs or is over as before.
                Kind::Run => "-".to_owned(),
                _ => text(record.and_then(|r| r.due).map(|d| d.to_string())),
            })
            .arg(self.score)
            .arg(text(record.and_then(|r| r.expires).map(|e| e.to_string())))
            .arg(life)
            .arg(text(
                self.life
                    .and_then(|(_, ordinal)| ordinal)
                    .map(|o| o.to_string()),
            ))
            .arg(self.kind.as_str())
            .arg(match self.outstanding {
                Outstanding::Stay => "",
                Outstanding::In => "in",
                Outstanding::Out => "out",
            })
            .arg(EVENTS_KEPT)
            .arg(if session.is_some() { "1" } else { "" })
            .arg(self.key.as_ref().map_or("", |(_, value)| value.as_str()))
            .arg(KEY_LIFETIME.as_secs())
            .arg(keys.jobs());
        for event in self.events {
            call.arg(event);
        }
        call
    }
}

/// What [`TAKE`] gives.
#[derive(Debug)]
pub(super) enum Taken {
    /// Jobs: the id, the record and the version of each.
    Jobs(Vec<(String, String, u64)>),
    /// The pod's lease is over: what it takes would be taken back.
    Late,
    /// The store was emptied.
    Emptied,
}

impl Taken {
    pub(super) fn parse(answer: Vec<Value>) -> Result<Self, RedisError> {
        let mut answer = answer.into_iter();
        let word = String::from_redis_value(answer.next().unwrap_or(Value::Nil))?;
        match word.as_str() {
            "ok" => {}
            "late" => return Ok(Self::Late),
            _ => return Ok(Self::Emptied),
        }
        let mut jobs = Vec::new();
        while let (Some(id), Some(record), Some(version)) =
            (answer.next(), answer.next(), answer.next())
        {
            jobs.push((
                String::from_redis_value(id)?,
                String::from_redis_value(record)?,
                u64::from_redis_value(version)?,
            ));
        }
        Ok(Self::Jobs(jobs))
    }
}

/// What [`BEAT`] gives.
#[derive(Debug)]
pub(super) enum Beat {
    /// The lease is renewed.
    Alive {
        /// Whether the pod had none before, or was condemned: whatever it ran is another's now.
        is_new: bool,
        /// Differs after every rebuild of an emptied store.
        epoch: String,
        /// How many jobs are on the pod's list.
        claimed: usize,
        /// The lives whose lease is over.
        expired: Vec<String>,
        /// What each life says of itself, JSON.
        facts: HashMap<String, String>,
    },
    /// The store was emptied.
    Emptied,
}

impl Beat {
    pub(super) fn parse(answer: Vec<Value>) -> Result<Self, RedisError> {
        let mut answer = answer.into_iter();
        let mut next = || answer.next().unwrap_or(Value::Nil);
        let word = String::from_redis_value(next())?;
        if word == "emptied" {
            return Ok(Self::Emptied);
        }
        Ok(Self::Alive {
            is_new: word == "new",
            epoch: String::from_redis_value(next())?,
            claimed: usize::from_redis_value(next())?,
            expired: Vec::from_redis_value(next())?,
            facts: HashMap::from_redis_value(next())?,
        })
    }
}
