//! Trouble for a fleet, from a seed, and the proof that it kept its promises all the same.
//!
//! While clients submit jobs to random pods and cancel some, pods are killed, frozen beyond their lease, cut off from Redis, drained
//! and restarted, and Redis is restarted and emptied. Every decision comes from the seed; when a decision strikes depends on the
//! machine. At the end everything is healed, the fleet may finish, and the [`checker`] looks at all that happened.
//!
//! A pod is what it is in an orchestrator: the server and all its agents. They are frozen together, and killed together or the
//! server alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::checker::{self, Frozen, History, Seen, Violation};
use crate::ledger::{self, Deed};
use crate::{Fleet, Redis, http, number, text};

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where all decisions come from.
    pub seed: u64,
    /// How long there is trouble.
    pub time: Duration,
    /// How many pods there are.
    pub pods: usize,
    /// How many jobs are submitted over that time.
    pub jobs: usize,
    /// How many jobs each pod runs at once.
    pub slots: usize,
    /// The lease of the pods, in seconds.
    pub lease: u64,
    /// How long the fleet may take to finish once everything is healed.
    pub patience: Duration,
}

/// What happened.
#[derive(Debug)]
pub struct Report {
    /// Jobs that were accepted.
    pub accepted: usize,
    /// Jobs by their last status.
    pub ended: BTreeMap<String, usize>,
    /// Jobs by how many attempts they took.
    pub attempts: BTreeMap<u64, usize>,
    /// Agents that began.
    pub runs: usize,
    /// What was done to the fleet, by name.
    pub trouble: BTreeMap<&'static str, usize>,
    /// Why jobs failed, each reason once.
    pub failures: BTreeSet<String>,
    /// The promises that were broken.
    pub violations: Vec<Violation>,
    /// What is known of each job that they were broken to.
    pub evidence: BTreeMap<String, Value>,
    /// How long the fleet took to finish once everything was healed.
    pub settled_in: Duration,
}

impl Report {
    /// The report as JSON.
    #[must_use]
    pub fn json(&self, plan: &Plan) -> Value {
        let violations: Vec<Value> = self
            .violations
            .iter()
            .map(|v| json!({"job": v.job, "kind": format!("{:?}", v.kind), "detail": v.detail}))
            .collect();
        json!({
            "seed": plan.seed, "pods": plan.pods, "seconds": plan.time.as_secs(), "accepted": self.accepted,
            "ended": self.ended, "attempts": self.attempts, "agent_runs": self.runs, "trouble": self.trouble,
            "failures": self.failures, "settled_in_seconds": self.settled_in.as_secs_f64(), "violations": violations,
            "evidence": self.evidence,
        })
    }
}

/// Runs the plan.
///
/// # Errors
/// When the fleet does not finish, or something that is not the fleet's fault goes wrong. Broken promises are in the report.
pub async fn run(plan: Plan) -> Result<Report> {
    // Starting and stopping processes waits; the clients must not wait with it.
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || Chaos::new(&plan, handle).run())
        .await
        .context("the run panicked")?
}

/// Trouble, and how often it comes relative to the others.
const TROUBLE: [(Trouble, usize); 10] = [
    (Trouble::Kill, 3),
    (Trouble::KillServer, 3),
    (Trouble::Freeze, 4),
    (Trouble::Blink, 3),
    (Trouble::Cut, 5),
    (Trouble::Hold, 3),
    (Trouble::Drain, 3),
    (Trouble::Restart, 3),
    (Trouble::RedisRestart, 2),
    (Trouble::RedisFlush, 2),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The pod is killed, and started again after a while.
    Kill,
    /// The server is killed alone, and started again after a while.
    KillServer,
    /// The pod is frozen longer than its lease.
    Freeze,
    /// The pod is frozen for a part of its lease.
    Blink,
    /// The pod's connections to Redis break.
    Cut,
    /// The pod's connections to Redis stand still.
    Hold,
    /// The pod is drained and taken back.
    Drain,
    /// The pod is told to end, and started again.
    Restart,
    /// Redis is killed and started again, with what it kept.
    RedisRestart,
    /// Redis is emptied.
    RedisFlush,
}

impl Trouble {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "pods killed",
            Self::KillServer => "servers killed alone",
            Self::Freeze => "pods frozen beyond the lease",
            Self::Blink => "pods frozen for a moment",
            Self::Cut => "pods cut off from Redis",
            Self::Hold => "connections held up",
            Self::Drain => "pods drained",
            Self::Restart => "pods restarted",
            Self::RedisRestart => "Redis restarts",
            Self::RedisFlush => "Redis emptied",
        }
    }
}

/// What makes a trouble good again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    Boot,
    Thaw { since: Duration },
    Open,
    Undrain,
    BootOnceStopped,
    RedisBoot,
}

/// How long after a frozen pod wakes up its agents' deeds do not count: its server must run, ask Redis and kill them.
const WAKING: Duration = Duration::from_secs(2);

struct Chaos<'a> {
    plan: &'a Plan,
    rng: Rng,
    fleet: Fleet,
    handle: tokio::runtime::Handle,
    clients: Arc<Clients>,
    frozen: Vec<Frozen>,
    trouble: BTreeMap<&'static str, usize>,
    /// What is due when; one for each pod that is in trouble, and one for Redis (none).
    due: Vec<(Instant, Option<usize>, Remedy)>,
}

impl<'a> Chaos<'a> {
    fn new(plan: &'a Plan, handle: tokio::runtime::Handle) -> Self {
        let fleet = Fleet::start(plan.pods, Redis::durable(), |_, builder| {
            builder
                .env("AGENTICORE_MAX_PARALLEL_JOBS", &plan.slots.to_string())
                .env("AGENTICORE_LEASE_SECONDS", &plan.lease.to_string())
        });
        let urls = (0..plan.pods).map(|n| fleet.pod(n).url("")).collect();
        let clients = Arc::new(Clients {
            http: http::client(),
            urls,
            accepted: Mutex::default(),
        });
        Self {
            plan,
            rng: Rng::with_seed(plan.seed),
            fleet,
            handle,
            clients,
            frozen: Vec::new(),
            trouble: BTreeMap::new(),
            due: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Report> {
        let submitting = self.submit_jobs();
        let end = Instant::now() + self.plan.time;
        while Instant::now() < end {
            let pause = Duration::from_millis(self.rng.u64(100..1_200));
            let next = (Instant::now() + pause).min(end);
            self.heal_until(next);
            self.strike();
        }
        // Remedies that take time are waited for.
        while !self.due.is_empty() {
            let next = self.due.iter().map(|(at, ..)| *at).max();
            self.heal_until(next.unwrap_or_else(Instant::now));
        }
        let healed = Instant::now();
        self.handle.block_on(submitting)?;
        let jobs = self.settled(healed)?;
        Ok(self.report(jobs, healed.elapsed()))
    }

    /// Clients that submit jobs at a steady pace and cancel some.
    fn submit_jobs(&self) -> impl Future<Output = Result<()>> + 'static {
        const CLIENTS: usize = 4;
        let ledger = self.fleet.ledger();
        let pace = self.plan.time.mul_f64(0.9) / u32::try_from(self.plan.jobs).unwrap_or(u32::MAX);
        let mut tasks = JoinSet::new();
        for client in 0..CLIENTS {
            let (clients, ledger) = (self.clients.clone(), ledger.clone());
            let seed = self.plan.seed ^ (client as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let share = (self.plan.jobs + CLIENTS - 1 - client) / CLIENTS;
            let pace = pace * u32::try_from(CLIENTS).unwrap_or(1);
            tasks.spawn_on(
                async move {
                    clients
                        .submit(Rng::with_seed(seed), client, share, pace, &ledger)
                        .await
                },
                &self.handle,
            );
        }
        async move {
            while let Some(done) = tasks.join_next().await {
                done.context("a client panicked")??;
            }
            Ok(())
        }
    }

    /// Does what is due until `until`.
    fn heal_until(&mut self, until: Instant) {
        loop {
            let now = Instant::now();
            let ready = self.due.iter().position(|(at, ..)| *at <= now);
            match ready {
                Some(index) => {
                    let (_, pod, remedy) = self.due.swap_remove(index);
                    self.heal(pod, remedy);
                }
                None if now >= until => return,
                None => std::thread::sleep(Duration::from_millis(20).min(until - now)),
            }
        }
    }

    /// One trouble, unless who it would strike is in trouble already. The decisions are made either way.
    fn strike(&mut self) {
        let total: usize = TROUBLE.iter().map(|(_, weight)| weight).sum();
        let mut point = self.rng.usize(0..total);
        let chosen = TROUBLE.iter().find(|(_, weight)| {
            let here = point < *weight;
            point = point.saturating_sub(*weight);
            here
        });
        let pod = self.rng.usize(0..self.plan.pods);
        let length = self.rng.f64();
        let Some((trouble, _)) = chosen else {
            return;
        };
        let is_redis = matches!(trouble, Trouble::RedisRestart | Trouble::RedisFlush);
        let target = (!is_redis).then_some(pod);
        let busy = |who: Option<usize>| self.due.iter().any(|(_, whose, _)| *whose == who);
        let in_trouble = self.due.iter().filter(|(_, pod, _)| pod.is_some()).count();
        if busy(target) || (!is_redis && in_trouble + 1 >= self.plan.pods) {
            return;
        }
        *self.trouble.entry(trouble.name()).or_default() += 1;
        let lease = Duration::from_secs(self.plan.lease);
        let (wait, remedy) = self.begin(*trouble, pod, length, lease);
        if let Some(remedy) = remedy {
            self.due.push((Instant::now() + wait, target, remedy));
        }
    }

    fn begin(
        &mut self,
        trouble: Trouble,
        pod: usize,
        length: f64,
        lease: Duration,
    ) -> (Duration, Option<Remedy>) {
        let since = ledger::now();
        match trouble {
            Trouble::KillServer => {
                self.fleet.pod_mut(pod).kill9();
                (lease.mul_f64(2.0 * length), Some(Remedy::Boot))
            }
            Trouble::Kill => {
                self.fleet.pod_mut(pod).kill_pod();
                (lease.mul_f64(2.0 * length), Some(Remedy::Boot))
            }
            Trouble::Freeze => {
                self.fleet.pod(pod).freeze();
                (lease.mul_f64(1.2 + length), Some(Remedy::Thaw { since }))
            }
            Trouble::Blink => {
                self.fleet.pod(pod).freeze();
                (lease.mul_f64(0.6 * length), Some(Remedy::Thaw { since }))
            }
            Trouble::Cut => {
                self.fleet.way(pod).cut();
                (lease.mul_f64(2.0 * length), Some(Remedy::Open))
            }
            Trouble::Hold => {
                self.fleet.way(pod).hold();
                (lease.mul_f64(2.0 * length), Some(Remedy::Open))
            }
            Trouble::Drain => {
                let drained = self.clients.drain(pod, Method::POST);
                drop(self.handle.block_on(drained));
                (lease.mul_f64(length), Some(Remedy::Undrain))
            }
            Trouble::Restart => {
                self.fleet.pod(pod).sigterm();
                (Duration::ZERO, Some(Remedy::BootOnceStopped))
            }
            Trouble::RedisRestart => {
                self.fleet.redis.kill();
                (lease.mul_f64(length), Some(Remedy::RedisBoot))
            }
            Trouble::RedisFlush => {
                self.fleet.redis.flush();
                (Duration::ZERO, None)
            }
        }
    }

    fn heal(&mut self, pod: Option<usize>, remedy: Remedy) {
        let Some(pod) = pod else {
            self.fleet.redis.start_again();
            return;
        };
        match remedy {
            Remedy::Boot => self.fleet.pod_mut(pod).boot(),
            Remedy::Thaw { since } => {
                self.fleet.pod(pod).thaw();
                self.frozen.push(Frozen {
                    instance: self.fleet.instance(pod),
                    from: since,
                    until: ledger::now() + WAKING,
                });
            }
            Remedy::Open => self.fleet.way(pod).open(),
            Remedy::Undrain => {
                let undrained = self.clients.drain(pod, Method::DELETE);
                drop(self.handle.block_on(undrained));
            }
            Remedy::BootOnceStopped if self.fleet.pod_mut(pod).has_stopped() => {
                self.fleet.pod_mut(pod).boot();
            }
            Remedy::BootOnceStopped | Remedy::RedisBoot => {
                let soon = Instant::now() + Duration::from_millis(100);
                self.due.push((soon, Some(pod), remedy));
            }
        }
    }

    /// Waits until every job is over and reads all of them.
    fn settled(&self, healed: Instant) -> Result<BTreeMap<String, Seen>> {
        let clients = self.clients.clone();
        let patience = self.plan.patience;
        self.handle.block_on(async move {
            while healed.elapsed() < patience && !clients.all_over().await {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            clients.read_all().await
        })
    }

    fn report(&self, jobs: BTreeMap<String, Seen>, settled_in: Duration) -> Report {
        let (ledger, unreadable) = self.fleet.ledger().read();
        let runs = ledger.iter().filter(|e| e.deed == Deed::Start).count();
        let (mut ended, mut attempts) = (BTreeMap::new(), BTreeMap::new());
        let mut failures = BTreeSet::new();
        for seen in jobs.values() {
            let status = text(&seen.record, "status").to_owned();
            if status == "failed" {
                failures.insert(text(&seen.record, "error").to_owned());
            }
            *ended.entry(status).or_default() += 1;
            *attempts.entry(number(&seen.record, "attempt")).or_default() += 1;
        }
        let history = History {
            accepted: self.clients.accepted(),
            jobs,
            ledger,
            frozen: self.frozen.clone(),
        };
        let mut violations = checker::check(&history);
        violations.extend(unreadable.into_iter().map(|line| Violation {
            job: String::new(),
            kind: checker::Kind::Unknown,
            detail: format!("a line of the ledger cannot be read: {line:?}"),
        }));
        let evidence = violations
            .iter()
            .map(|violation| (violation.job.clone(), evidence(&history, &violation.job)))
            .collect();
        Report {
            accepted: history.accepted.len(),
            ended,
            attempts,
            runs,
            trouble: self.trouble.clone(),
            failures,
            violations,
            evidence,
            settled_in,
        }
    }
}

/// The record and the events of a job, what its agents wrote down, and when which pods were frozen meanwhile.
fn evidence(history: &History, job: &str) -> Value {
    let own = history.ledger.iter().filter(|entry| entry.job == job);
    let deeds: Vec<_> = own
        .clone()
        .filter(|entry| entry.deed != Deed::Tick)
        .collect();
    let is_near = |frozen: &&Frozen| own.clone().any(|entry| frozen.instance == entry.instance);
    let frozen: Vec<_> = history.frozen.iter().filter(is_near).collect();
    let seen = history.jobs.get(job);
    json!({
        "record": seen.map(|seen| &seen.record),
        "events": seen.map(|seen| &seen.events),
        "ledger": deeds.iter().map(|deed| format!("{deed:?}")).collect::<Vec<_>>(),
        "frozen": frozen.iter().map(|frozen| format!("{frozen:?}")).collect::<Vec<_>>(),
    })
}

/// Those who use the fleet.
struct Clients {
    http: Client,
    urls: Vec<String>,
    accepted: Mutex<BTreeSet<String>>,
}

/// How long an answer may take before a client turns to another pod.
const ANSWER: Duration = Duration::from_secs(20);

impl Clients {
    fn accepted(&self) -> BTreeSet<String> {
        self.accepted.lock().unwrap().clone()
    }

    fn url(&self, rng: &mut Rng) -> &str {
        rng.choice(&self.urls).map_or("", String::as_str)
    }

    async fn ask(&self, method: Method, url: String, body: Option<Value>) -> Result<Value> {
        let mut request = self.http.request(method, url).timeout(ANSWER);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?.error_for_status()?;
        Ok(response.json().await?)
    }

    /// Submits `count` jobs. One whose answer is lost may exist or not, so another takes its place under another name.
    async fn submit(
        &self,
        mut rng: Rng,
        client: usize,
        count: usize,
        pace: Duration,
        ledger: &ledger::Ledger,
    ) -> Result<()> {
        let begun = Instant::now();
        let (mut done, mut tried) = (0_u32, 0_u64);
        while (done as usize) < count {
            tokio::time::sleep_until((begun + pace * done).into()).await;
            tried += 1;
            let ticks = if rng.u8(0..10) == 0 {
                rng.u32(20..120)
            } else {
                rng.u32(0..4)
            };
            let task = format!("{} # {client}/{tried}", ledger.script(ticks));
            let body = json!({"task": task, "profile": "shell"});
            let url = format!("{}/jobs", self.url(&mut rng));
            let cancels = rng.u8(0..25) == 0;
            match self.ask(Method::POST, url, Some(body)).await {
                Ok(answer) => {
                    done += 1;
                    let id = answer.pointer("/job/id").and_then(Value::as_str);
                    let id = id.context("an accepted job without an id")?.to_owned();
                    self.accepted.lock().unwrap().insert(id.clone());
                    if cancels {
                        let url = format!("{}/jobs/{id}", self.url(&mut rng));
                        // It may fail while its pod is in trouble; a job that is not cancelled is fine.
                        drop(self.ask(Method::DELETE, url, None).await);
                    }
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        Ok(())
    }

    async fn drain(&self, pod: usize, method: Method) -> Result<()> {
        let url = format!("{}/drain", self.urls.get(pod).map_or("", String::as_str));
        let body = (method == Method::POST).then(|| json!({"timeout_seconds": 31}));
        self.ask(method, url, body).await.map(drop)
    }

    /// Whether every pod says that no job waits or runs.
    async fn all_over(&self) -> bool {
        for url in &self.urls {
            let url = format!("{url}/jobs?status=queued,running&limit=1");
            let page = self.ask(Method::GET, url, None).await;
            if !page.is_ok_and(|page| page.get("count") == Some(&json!(0))) {
                return false;
            }
        }
        true
    }

    /// Every job with its events, from any pod.
    async fn read_all(&self) -> Result<BTreeMap<String, Seen>> {
        let url = self.urls.first().context("a pod")?;
        let mut jobs = BTreeMap::new();
        let mut after = String::new();
        loop {
            let page = self
                .ask(Method::GET, format!("{url}/jobs?limit=200{after}"), None)
                .await?;
            let records = page.get("jobs").and_then(Value::as_array);
            for record in records.into_iter().flatten() {
                let seen = Seen {
                    record: record.clone(),
                    events: Vec::new(),
                };
                jobs.insert(text(record, "id").to_owned(), seen);
            }
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => after = format!("&cursor={next}"),
                None => break,
            }
        }
        for (number, (id, seen)) in jobs.iter_mut().enumerate() {
            // Readers of different pods see the same.
            let url = self.urls.get(number % self.urls.len()).context("a pod")?;
            seen.events = self.events(url, id).await?;
        }
        Ok(jobs)
    }

    async fn events(&self, url: &str, id: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        loop {
            let after = all.len();
            let page = format!("{url}/jobs/{id}/events?format=json&after={after}");
            let page = self.ask(Method::GET, page, None).await?;
            match page.get("events").and_then(Value::as_array) {
                Some(events) if !events.is_empty() => all.extend(events.iter().cloned()),
                _ => return Ok(all),
            }
        }
    }
}
