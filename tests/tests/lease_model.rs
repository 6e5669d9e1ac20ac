//! The protocol of claim, lease and fence, every order of events of it: pods that freeze and wake up, are cut off from Redis or
//! killed, and a Redis that is emptied.
//!
//! One job and two pods are enough to show every way in which two pods can believe that a job is theirs. Time passes in ticks; every
//! pod that runs renews its lease once a tick, and a lease lasts [`LEASE`] ticks, in Redis as on the volume. The copy of the record on
//! the volume is written together with it here: what happens between the two is the chaos suite's to find.
//!
//! The same model with one rule left out must be caught, or it would prove nothing.

use stateright::{Checker, Model, Property};

/// How many ticks a lease lasts.
const LEASE: u8 = 3;
/// After how many ticks of silence a pod judges itself: it renews once more at the most before others may take its jobs.
const SILENCE: u8 = LEASE - 1;
const PODS: usize = 2;
/// How many attempts a job has in the model; it bounds the states.
const ATTEMPTS: u8 = 3;

/// The protocol, as it is or with a rule left out.
#[derive(Debug, Clone, Copy)]
struct Protocol {
    /// A change of a run names its fence, and Redis refuses an old one.
    fenced: bool,
    /// Before a pod's jobs are taken back it is condemned, and a condemned pod that renews its lease gives up its agents.
    condemns: bool,
    /// Only a pod whose lease lasts until it has renewed once more can claim.
    claims_with_lease: bool,
    /// A pod that neither Redis nor the volume heard of for a lease gives up its agents.
    judges_itself: bool,
    /// A job of a pod that lost Redis is left alone while the pod counts on the volume.
    asks_witness: bool,
}

const AS_IT_IS: Protocol = Protocol {
    fenced: true,
    condemns: true,
    claims_with_lease: true,
    judges_itself: true,
    asks_witness: true,
};

/// The job, as Redis or the volume has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Record {
    attempt: u8,
    holder: Option<usize>,
    over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Pod {
    dead: bool,
    frozen: bool,
    /// It woke up, and its server has not looked around yet.
    waking: bool,
    /// It cannot reach Redis.
    cut: bool,
    /// It cannot reach the volume.
    dark: bool,
    /// The attempt that its agent runs.
    agent: Option<u8>,
    /// An end that Redis was not told of yet.
    spool: Option<u8>,
    /// Ticks since Redis heard of it.
    redis: u8,
    /// Ticks since the volume heard of it.
    volume: u8,
    /// Whether it renewed in this tick.
    renewed: bool,
    /// The attempt of the other pod that it is about to take back.
    suspects: Option<u8>,
    /// Redis has no lease of it, or it was decided that the lease is over; the pod was not told yet.
    lapsed: bool,
}

impl Pod {
    fn runs(&self) -> bool {
        !self.dead && !self.frozen
    }

    fn reaches_redis(&self) -> bool {
        self.runs() && !self.cut
    }

    fn give_up(&mut self) {
        self.agent = None;
        self.spool = None;
    }
}

/// How much trouble is left to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Trouble {
    kills: u8,
    freezes: u8,
    cuts: u8,
    flushes: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Fleet {
    redis: Option<Record>,
    volume: Record,
    pods: [Pod; PODS],
    left: Trouble,
    /// How many ends Redis took.
    ends: u8,
    /// Whether Redis took a change from a run that was not the job's any more.
    took_stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Claim(usize),
    /// The agent comes to its end; Redis is told, or the spool.
    Finish(usize),
    /// Redis is told what was spooled.
    Tell(usize),
    Renew(usize),
    /// The pod sees that the other's lease is over, and condemns it.
    Suspect(usize),
    /// It takes the job back.
    Reclaim(usize),
    Tick,
    Kill(usize),
    Freeze(usize),
    Thaw(usize),
    Cut(usize),
    /// Redis and the volume are out of its reach.
    Isolate(usize),
    Mend(usize),
    Flush,
}

impl Fleet {
    /// Redis hears of the end of an attempt.
    fn end(&mut self, pod: usize, attempt: u8, fenced: bool) {
        let Some(record) = &mut self.redis else {
            return;
        };
        let is_current = record.holder == Some(pod) && record.attempt == attempt && !record.over;
        if !is_current && fenced {
            return;
        }
        self.took_stale |= !is_current;
        self.ends = self.ends.saturating_add(1).min(2);
        record.over = true;
        record.holder = None;
        self.volume = *record;
    }

    /// Whoever finds Redis emptied puts back what the volume knows; a run that goes on gets a new lease.
    fn rebuild(&mut self) {
        self.redis = Some(self.volume);
        if let Some(holder) = self.volume.holder {
            (self.pods[holder].redis, self.pods[holder].lapsed) = (0, false);
        }
    }

    fn renew(&mut self, pod: usize, protocol: Protocol) {
        let gap = self.pods[pod].volume;
        if !self.pods[pod].dark {
            self.pods[pod].volume = 0;
        }
        if self.pods[pod].reaches_redis() {
            if self.redis.is_none() {
                self.rebuild();
            }
            if std::mem::take(&mut self.pods[pod].lapsed) {
                self.pods[pod].give_up();
            }
            self.pods[pod].redis = 0;
        } else if self.pods[pod].redis >= SILENCE && gap >= SILENCE && protocol.judges_itself {
            self.pods[pod].give_up();
        }
        self.pods[pod].renewed = true;
        self.pods[pod].waking = false;
    }

    fn take(&mut self, step: Step, protocol: Protocol) {
        match step {
            Step::Claim(pod) => {
                if let Some(record) = &mut self.redis {
                    record.attempt += 1;
                    record.holder = Some(pod);
                    self.volume = *record;
                    self.pods[pod].agent = Some(record.attempt);
                }
            }
            Step::Finish(pod) => {
                let agent = self.pods[pod].agent.take();
                let Some(attempt) = agent else { return };
                if self.pods[pod].reaches_redis() && self.redis.is_some() {
                    self.end(pod, attempt, protocol.fenced);
                } else {
                    self.pods[pod].spool = Some(attempt);
                }
            }
            Step::Tell(pod) => {
                if let Some(attempt) = self.pods[pod].spool.take() {
                    self.end(pod, attempt, protocol.fenced);
                }
            }
            Step::Renew(pod) => self.renew(pod, protocol),
            Step::Suspect(pod) => {
                self.pods[pod].suspects = self.redis.map(|record| record.attempt);
                self.pods[1 - pod].lapsed |= protocol.condemns;
            }
            Step::Reclaim(pod) => {
                let suspected = self.pods[pod].suspects.take();
                let other = 1 - pod;
                if let Some(record) = &mut self.redis
                    && record.holder == Some(other)
                    && Some(record.attempt) == suspected
                {
                    record.holder = None;
                    self.volume = *record;
                }
            }
            Step::Tick => {
                for pod in &mut self.pods {
                    pod.redis = (pod.redis + 1).min(LEASE);
                    pod.volume = (pod.volume + 1).min(LEASE);
                    pod.renewed = false;
                }
            }
            Step::Kill(pod) => {
                self.left.kills -= 1;
                let old = self.pods[pod];
                self.pods[pod] = Pod {
                    dead: true,
                    redis: old.redis,
                    volume: old.volume,
                    ..Pod::default()
                };
            }
            Step::Freeze(pod) => {
                self.left.freezes -= 1;
                self.pods[pod].frozen = true;
            }
            Step::Thaw(pod) => {
                self.pods[pod].frozen = false;
                self.pods[pod].waking = true;
            }
            Step::Cut(pod) => {
                self.left.cuts -= 1;
                self.pods[pod].cut = true;
            }
            Step::Isolate(pod) => {
                self.left.cuts -= 1;
                (self.pods[pod].cut, self.pods[pod].dark) = (true, true);
            }
            Step::Mend(pod) => (self.pods[pod].cut, self.pods[pod].dark) = (false, false),
            Step::Flush => {
                self.left.flushes -= 1;
                self.redis = None;
                // Who was about to take a job back meets a store without it; that it is put back in between is left out here.
                for pod in &mut self.pods {
                    (pod.lapsed, pod.suspects) = (true, None);
                }
            }
        }
    }

    /// What may happen to and in one pod.
    fn steps_of(&self, number: usize, protocol: Protocol, steps: &mut Vec<Step>) {
        let (pod, other) = (&self.pods[number], &self.pods[1 - number]);
        let mut may = |step: Step, if_so: bool| {
            if if_so {
                steps.push(step);
            }
        };
        let record = self.redis;
        let waits = record.is_some_and(|r| r.holder.is_none() && !r.over && r.attempt < ATTEMPTS);
        let is_idle = pod.agent.is_none() && pod.spool.is_none() && !pod.waking;
        let has_lease = pod.redis < SILENCE && !pod.lapsed || !protocol.claims_with_lease;
        let can_claim = pod.reaches_redis() && has_lease;
        may(Step::Claim(number), can_claim && waits && is_idle);
        may(Step::Finish(number), pod.runs() && pod.agent.is_some());
        let can_tell = pod.reaches_redis() && record.is_some() && !pod.waking;
        may(Step::Tell(number), can_tell && pod.spool.is_some());
        may(
            Step::Renew(number),
            pod.runs() && (!pod.renewed || pod.waking),
        );
        let is_over = other.redis >= LEASE && (other.volume >= LEASE || !protocol.asks_witness);
        let is_theirs = record.is_some_and(|r| r.holder == Some(1 - number));
        let suspects = is_over && is_theirs && pod.suspects.is_none();
        may(
            Step::Suspect(number),
            pod.reaches_redis() && suspects && !pod.waking,
        );
        let can_reclaim = pod.reaches_redis() && record.is_some() && pod.suspects.is_some();
        may(Step::Reclaim(number), can_reclaim);
        may(
            Step::Kill(number),
            self.left.kills > 0 && !pod.dead && !other.dead,
        );
        may(Step::Freeze(number), self.left.freezes > 0 && pod.runs());
        may(Step::Thaw(number), pod.frozen);
        let can_cut = self.left.cuts > 0 && !pod.cut && !pod.dead;
        may(Step::Cut(number), can_cut);
        may(Step::Isolate(number), can_cut);
        may(Step::Mend(number), pod.cut);
    }
}

impl Model for Protocol {
    type State = Fleet;
    type Action = Step;

    fn init_states(&self) -> Vec<Fleet> {
        let record = Record {
            attempt: 0,
            holder: None,
            over: false,
        };
        vec![Fleet {
            redis: Some(record),
            volume: record,
            pods: [Pod::default(); PODS],
            left: Trouble {
                kills: 1,
                freezes: 1,
                cuts: 1,
                flushes: 1,
            },
            ends: 0,
            took_stale: false,
        }]
    }

    fn actions(&self, fleet: &Fleet, steps: &mut Vec<Step>) {
        for number in 0..PODS {
            fleet.steps_of(number, *self, steps);
        }
        // A pod that runs renews once a tick: that is what time means to it.
        let in_time = |pod: &Pod| !pod.runs() || (pod.renewed && !pod.waking);
        if fleet.pods.iter().all(in_time) {
            steps.push(Step::Tick);
        }
        if fleet.left.flushes > 0 && fleet.redis.is_some() {
            steps.push(Step::Flush);
        }
    }

    fn next_state(&self, before: &Fleet, step: Step) -> Option<Fleet> {
        let mut fleet = before.clone();
        fleet.take(step, *self);
        (fleet != *before).then_some(fleet)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "no two agents of a job are awake at once",
                |_, fleet: &Fleet| {
                    let awake = |pod: &&Pod| pod.agent.is_some() && pod.runs() && !pod.waking;
                    fleet.pods.iter().filter(awake).count() < 2
                },
            ),
            Property::always("no change of an old run is taken", |_, fleet: &Fleet| {
                !fleet.took_stale
            }),
            Property::always("a job ends at most once", |_, fleet: &Fleet| fleet.ends < 2),
            Property::sometimes("a job ends after all the trouble", |_, fleet: &Fleet| {
                let left = fleet.left;
                fleet.ends == 1 && left.kills + left.freezes + left.cuts + left.flushes == 0
            }),
            Property::sometimes("a job is taken back and ends", |_, fleet: &Fleet| {
                fleet.ends == 1 && fleet.volume.attempt > 1
            }),
        ]
    }
}

/// Which promises are broken when this protocol meets every order of events.
fn broken(protocol: Protocol) -> Vec<&'static str> {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    let mut broken: Vec<&'static str> = checker
        .model()
        .properties()
        .iter()
        .filter(|p| matches!(p.expectation, stateright::Expectation::Always))
        .filter(|p| checker.discovery(p.name).is_some())
        .map(|p| p.name)
        .collect();
    broken.sort_unstable();
    broken
}

#[test]
fn every_order_of_events_keeps_the_promises() {
    let checker = AS_IT_IS.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    assert!(
        checker.unique_state_count() > 10_000,
        "{} states",
        checker.unique_state_count()
    );
}

#[test]
fn without_the_fence_a_pod_that_wakes_up_ends_a_job_that_is_another_s() {
    let broken = broken(Protocol {
        fenced: false,
        ..AS_IT_IS
    });
    assert!(
        broken.contains(&"no change of an old run is taken"),
        "{broken:?}"
    );
}

#[test]
fn a_pod_whose_jobs_are_taken_back_must_not_renew_its_lease_in_silence() {
    let broken = broken(Protocol {
        condemns: false,
        ..AS_IT_IS
    });
    assert_eq!(broken, ["no two agents of a job are awake at once"]);
}

#[test]
fn a_pod_whose_lease_is_about_to_end_must_not_claim() {
    let broken = broken(Protocol {
        claims_with_lease: false,
        ..AS_IT_IS
    });
    assert_eq!(broken, ["no two agents of a job are awake at once"]);
}

#[test]
fn a_pod_that_nobody_hears_of_must_judge_itself() {
    let broken = broken(Protocol {
        judges_itself: false,
        ..AS_IT_IS
    });
    assert_eq!(broken, ["no two agents of a job are awake at once"]);
}

#[test]
fn a_pod_that_only_lost_redis_must_be_left_its_jobs() {
    let broken = broken(Protocol {
        asks_witness: false,
        ..AS_IT_IS
    });
    assert!(
        broken.contains(&"no two agents of a job are awake at once"),
        "{broken:?}"
    );
}
