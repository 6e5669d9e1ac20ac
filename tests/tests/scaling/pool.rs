//! A StatefulSet and the jobs on it, a second at a time: pods by ordinal, of which the highest goes first, and a queue from which the
//! lowest pod with a free slot takes.

use std::collections::BTreeMap;

use super::hpa::Trigger;

/// How long a pod takes to come up, a lease to run out, and a drain to hand jobs off.
const START: u64 = 20;
const LEASE: u64 = 8;
const DRAIN: u64 = 270;

/// What happens to the pool from outside.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// So many jobs come.
    Submit(u32),
    /// A job of this pod, or of one after it, ends.
    Finish(usize),
    /// So many jobs end, on pods all over.
    FinishMany(usize),
    /// The jobs of the pods below this one end, and all but one of its own.
    FinishBelow(u32),
    /// All jobs end, also those that wait.
    FinishAll,
    /// The pod dies with its node: its lease runs out, and another takes its place.
    Kill(u32),
    /// Time passes.
    Nothing,
}

#[derive(Debug, Clone, Default)]
struct Pod {
    /// When each of its jobs was claimed.
    jobs: Vec<u64>,
    /// When it is up.
    ready_at: u64,
    /// When it hands off what it runs and goes; none: it stays.
    leaves_at: Option<u64>,
}

/// A pod that was told to go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Removed {
    ordinal: u32,
    /// Jobs that it ran.
    pub(super) busy: usize,
    /// When the oldest of them was claimed.
    pub(super) oldest_claim: Option<u64>,
    /// When the autoscaler had looked.
    pub(super) sampled_at: u64,
}

/// The pool.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) now: u64,
    /// How many pods there shall be.
    pub(super) replicas: u32,
    /// Whether a dead pod is taken off the books.
    pub(super) reclaims: bool,
    slots: usize,
    queue: usize,
    pods: BTreeMap<u32, Pod>,
    /// Pods that died with jobs: ordinal, jobs, when the lease is over.
    dead: Vec<(u32, usize, u64)>,
    sample: Option<(u64, Vec<u64>)>,
}

impl Pool {
    pub(super) fn new(replicas: u32, slots: usize) -> Self {
        Self {
            now: 0,
            replicas,
            reclaims: true,
            slots,
            queue: 0,
            pods: (0..replicas)
                .map(|ordinal| (ordinal, Pod::default()))
                .collect(),
            dead: Vec::new(),
            sample: None,
        }
    }

    /// Jobs that wait or run; a dead pod's still count until its lease is over.
    pub(super) fn outstanding(&self) -> usize {
        let running: usize = self.pods.values().map(|pod| pod.jobs.len()).sum();
        let dead: usize = self.dead.iter().map(|(_, jobs, _)| jobs).sum();
        self.queue + running + dead
    }

    /// One more than the highest ordinal of a pod that works, as the books say.
    pub(super) fn floor(&self) -> u32 {
        let busy = self.pods.iter().filter(|(_, pod)| !pod.jobs.is_empty());
        let busy = busy.map(|(ordinal, _)| ordinal + 1);
        let dead = self.dead.iter().map(|(ordinal, ..)| ordinal + 1);
        busy.chain(dead).max().unwrap_or(0)
    }

    /// Whether jobs wait although every pod is at work.
    pub(super) fn is_behind(&self) -> bool {
        self.queue > 0 && self.pods.values().all(|pod| pod.jobs.len() >= self.slots)
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Submit(jobs) => self.queue += jobs as usize,
            Step::Finish(from) => {
                let mut busy = self
                    .pods
                    .values_mut()
                    .filter(|pod| !pod.jobs.is_empty())
                    .collect::<Vec<_>>();
                let count = busy.len();
                if count > 0 {
                    busy[from % count].jobs.remove(0);
                }
            }
            Step::FinishMany(jobs) => (0..jobs).for_each(|i| self.step(Step::Finish(i * 7))),
            Step::FinishBelow(ordinal) => {
                self.queue = 0;
                self.pods
                    .range_mut(..ordinal)
                    .for_each(|(_, pod)| pod.jobs.clear());
                if let Some(pod) = self.pods.get_mut(&ordinal) {
                    pod.jobs.truncate(1);
                }
            }
            Step::FinishAll => {
                self.queue = 0;
                self.pods.values_mut().for_each(|pod| pod.jobs.clear());
                // What a dead pod ran comes back to the queue first; it ends there.
                if self.reclaims {
                    self.dead.clear();
                }
            }
            Step::Kill(ordinal) => {
                if let Some(pod) = self.pods.remove(&ordinal)
                    && !pod.jobs.is_empty()
                {
                    self.dead.push((ordinal, pod.jobs.len(), self.now + LEASE));
                }
            }
            Step::Nothing => {}
        }
    }

    /// A second passes: leases run out, drains end, missing pods come, free pods take jobs.
    pub(super) fn second(&mut self) {
        self.now += 1;
        if self.reclaims {
            let now = self.now;
            let over: usize = self
                .dead
                .iter()
                .filter(|(.., at)| *at <= now)
                .map(|(_, jobs, _)| jobs)
                .sum();
            self.dead.retain(|(.., at)| *at > now);
            self.queue += over;
        }
        let leaving: Vec<u32> = self
            .pods
            .iter()
            .filter(|(_, pod)| {
                pod.leaves_at
                    .is_some_and(|at| at <= self.now || pod.jobs.is_empty())
            })
            .map(|(ordinal, _)| *ordinal)
            .collect();
        for ordinal in leaving {
            self.queue += self.pods.remove(&ordinal).unwrap().jobs.len();
        }
        for ordinal in 0..self.replicas {
            // A pod that still drains keeps its ordinal: the new one waits for it.
            let ready_at = self.now + START;
            self.pods.entry(ordinal).or_insert_with(|| Pod {
                ready_at,
                ..Pod::default()
            });
        }
        for pod in self
            .pods
            .values_mut()
            .filter(|pod| pod.leaves_at.is_none() && pod.ready_at <= self.now)
        {
            while self.queue > 0 && pod.jobs.len() < self.slots {
                self.queue -= 1;
                pod.jobs.push(self.now);
            }
        }
    }

    /// The autoscaler looks.
    pub(super) fn sample(&mut self, triggers: &[Trigger]) {
        let metric = |trigger: &Trigger| match trigger.key.rsplit(':').next().unwrap() {
            "queue" => self.queue as u64,
            "demand" => self.outstanding() as u64,
            "busy-floor" => u64::from(self.floor()),
            other => panic!("nobody writes {other}"),
        };
        self.sample = Some((self.now, triggers.iter().map(metric).collect()));
    }

    /// What it saw, and when.
    pub(super) fn sampled(&self) -> Option<(u64, Vec<u64>)> {
        self.sample.clone()
    }

    /// Sets how many pods there shall be; the highest go, and those are returned.
    pub(super) fn scale(&mut self, replicas: u32, sampled_at: u64) -> Vec<Removed> {
        self.replicas = replicas;
        let leaves_at = self.now + DRAIN;
        self.pods
            .range_mut(replicas..)
            .filter(|(_, pod)| pod.leaves_at.is_none())
            .map(|(ordinal, pod)| {
                pod.leaves_at = Some(leaves_at);
                Removed {
                    ordinal: *ordinal,
                    busy: pod.jobs.len(),
                    oldest_claim: pod.jobs.iter().min().copied(),
                    sampled_at,
                }
            })
            .collect()
    }
}
