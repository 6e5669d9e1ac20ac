//! **agent run**: starts the agent, streams its output through the plugin, holds its deadline and budget, and stops it when told to.

mod budget;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::materialize::{Launch, plugin_failed};
use super::reporter::persist;
use super::{Attempt, Halt, Interrupt};
use crate::git::Git;
use crate::job::{
    AgentEvent, EventBody, Failure, FailureClass, LogStream, Run, Stage, StageState, Usage, Verdict,
};
use crate::plugin::types::{
    Budget, Conclusion, Ending, Exit, Fact, FailureClass as PluginClass, Line, OutputStream,
    StopPlan,
};
use crate::plugin::{AgentRun, PluginError, ResolvedEnv, ResolvedPlan, RunRequest};
use crate::process::{
    Child, Ended, HeadTail, JobMarker, LineLimits, Output, Signal, Spawn, Stream,
};
use crate::telemetry::trace;

/// Bytes of output kept on the record, half from the beginning and half from the end.
const OUTPUT_BYTES: usize = 50 * 1000;
/// Bytes of what the agent said at its end kept on the record.
const MESSAGE_BYTES: usize = 20_000;
/// Bytes of standard error that the plugin sees at the end.
const STDERR_BYTES: usize = 8 * 1024;
/// How long an agent that is told to end may take before it is killed.
const TERMINATE_GRACE: Duration = Duration::from_secs(5);
/// How long an agent may take to reach its next tool boundary when it is asked to stop there.
const GENTLE_GRACE: Duration = Duration::from_secs(15);
/// Denials kept on the record.
const MAX_DENIALS: usize = 100;

/// Why the agent was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    By(Interrupt),
    /// Handed off, and the agent did not come to a tool boundary in time: it was terminated in the middle of something, and what
    /// it concludes from that is not to be trusted.
    CutOff,
    TimeLimit,
    Budget,
}

impl Attempt<'_> {
    pub(super) async fn agent_run(&mut self, launch: Launch) -> Result<Verdict, Halt> {
        self.tell(Stage::AgentRun, StageState::Started, None).await;
        let span = trace::stage_span(Stage::AgentRun);
        let concluded = self.run_agent(launch).instrument(span).await;
        match &concluded {
            Ok(Verdict { failure: None }) => {
                self.tell(Stage::AgentRun, StageState::Done, None).await
            }
            Ok(Verdict {
                failure: Some(failure),
            })
            | Err(Halt::Failed(failure)) => {
                self.tell(
                    Stage::AgentRun,
                    StageState::Failed,
                    Some(failure.message.clone()),
                )
                .await;
            }
            Err(Halt::Interrupted(_)) => {}
        }
        concluded
    }

    async fn run_agent(&mut self, launch: Launch) -> Result<Verdict, Halt> {
        let limit = self.time_limit(&launch);
        let left = self.time_left(limit)?;
        let budget = launch.plan.budget;
        budget::check_left(&budget, &self.job.run)?;
        let reader = self.start_reader(&launch).await?;
        let resolved = launch.plan.resolve(&launch.places);
        let spawn = self.spawn(&launch, &resolved)?;
        let (mut child, output) = spawn.start(LineLimits::default()).map_err(spawn_failed)?;
        let started = Instant::now();
        self.started(child.pid(), &resolved.program).await?;

        let before = self.job.run.clone();
        let over_budget = CancellationToken::new();
        let mut reading = Reading::new(reader, before, budget, over_budget.clone());
        let control = control(
            &mut child,
            &self.interrupts,
            Limits {
                time: left,
                over_budget: &over_budget,
            },
            &launch.plan.stop,
            resolved.stop_file,
        );
        let ((), (ended, stopped)) = tokio::join!(self.read(output, &mut reading), control);

        self.job.run = reading.run.clone();
        self.job.run.agent_seconds += started.elapsed().as_secs_f64();
        self.job.run.pid = None;
        self.job.run.exit_code = ended.exit.code;
        let exited = AgentEvent::Exited {
            code: ended.exit.code,
            signal: ended.exit.signal,
        };
        self.reporter.send(EventBody::Agent(exited)).await;
        if !ended.cleanup.survivors.is_empty() {
            let warning = format!(
                "processes {:?} of this job could not be killed",
                ended.cleanup.survivors
            );
            self.job.run.warnings.push(warning);
        }
        self.warn_if_disabled(&launch);
        self.conclude(reading, ended, stopped, limit).await
    }

    /// A run that began before its plugin was switched off goes on to its end: its plan was checked, and only its output is still read.
    fn warn_if_disabled(&mut self, launch: &Launch) {
        let trust = self.pod.plugins.trust();
        if let Err(error) = trust.check_enabled(&launch.name, launch.plugin.digest()) {
            let warning = format!("while this job ran: {}", error.message);
            self.job.run.warnings.push(warning);
        }
    }

    /// The job's wall time over all attempts: the shortest of the plan's, the profile's and the operator's limit.
    fn time_limit(&self, launch: &Launch) -> Duration {
        let profile = launch
            .profile_timeout
            .map(|s| Duration::from_secs(s.into()));
        let limit = [launch.plan.time_limit, profile]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.pod.config.max_job_time);
        limit.min(self.pod.config.max_job_time)
    }

    /// What earlier attempts left of it.
    fn time_left(&self, limit: Duration) -> Result<Duration, Failure> {
        let left = limit.saturating_sub(Duration::from_secs_f64(self.job.run.agent_seconds));
        if left.is_zero() {
            Err(out_of_time(limit))
        } else {
            Ok(left)
        }
    }

    async fn start_reader(&self, launch: &Launch) -> Result<AgentRun, Failure> {
        let request = RunRequest {
            job: self.for_plugins(),
            config: launch.config.clone(),
            layers: launch.layers.clone(),
            session: launch.plan.session.id.clone(),
        };
        let host = self.pod.plugins.host();
        host.start_run(&launch.plugin, &launch.context, &request)
            .await
            .map_err(plugin_failed)
    }

    fn spawn(&self, launch: &Launch, resolved: &ResolvedPlan) -> Result<Spawn, Failure> {
        let mut env = base_environment(&launch.places.temp_dir);
        env.insert("AGENTICORE_JOB_ID".into(), self.job.id.to_string().into());
        env.insert(
            "AGENTICORE_ATTEMPT".into(),
            self.job.attempt.to_string().into(),
        );
        if self.job.request.repo_url.is_some() {
            env.extend(Git::agent_environment().map(|(name, value)| (name.into(), value.into())));
        }
        let (pod, otel) = (self.pod.config.pod_name.as_str(), &self.pod.config.otel);
        let trace = trace::for_agent(&self.job, pod, otel).into_iter();
        env.extend(trace.map(|(name, value)| (name.into(), value.into())));
        for (name, value) in &resolved.env {
            if let Some(value) = environment_value(value)? {
                env.insert(name.into(), value);
            }
        }
        Ok(Spawn {
            program: resolved.program.clone().into(),
            arguments: resolved.arguments.clone(),
            env,
            cwd: launch.places.work_dir.clone(),
            stdin: launch.plan.stdin.as_ref().map(|bytes| bytes.to_vec()),
            marker: JobMarker::new(&self.pod.instance, &self.job.id, self.job.attempt),
        })
    }

    /// Records the running agent before anything it does is read.
    async fn started(&mut self, pid: u32, program: &str) -> Result<(), Halt> {
        self.job.run.pid = Some(pid);
        let (queue, lease, run) = (&self.pod.queue, &self.lease, &self.job.run);
        let stored = persist("record the agent's start", || queue.update(lease, run));
        // The only error that is not tried again is the lost claim.
        tokio::select! {
            why = self.interrupts.next() => if why == Interrupt::Lost { return Err(Halt::Interrupted(why)) },
            stored = stored => stored.map_err(|_| Halt::Interrupted(Interrupt::Lost))?,
        }
        self.reporter
            .send(EventBody::Agent(AgentEvent::Started {
                pid,
                program: program.to_owned(),
            }))
            .await;
        Ok(())
    }

    async fn read(&self, mut output: Output, reading: &mut Reading) {
        while let Some(lines) = output.next().await {
            let lines: Vec<Line> = lines.into_iter().map(for_plugin).collect();
            reading.keep(&lines);
            match reading.observe(&lines).await {
                Some(facts) => self.learn(facts, reading).await,
                None => self.log_unread(&lines).await,
            }
        }
    }

    async fn learn(&self, facts: Vec<Fact>, reading: &mut Reading) {
        for fact in facts {
            match reading.learn(fact) {
                Learnt::Text(text) => self.reporter.log(LogStream::Agent, &text).await,
                Learnt::Event(event) => {
                    if matches!(event, AgentEvent::Session { .. }) {
                        self.record_session(reading.run.clone()).await;
                    }
                    self.reporter.send(EventBody::Agent(event)).await;
                }
                Learnt::Numbers => {}
            }
        }
    }

    /// An agent that chooses the id of its session itself says it once. Should the server die after that, the next one can only go
    /// on with the session if the id is on record.
    async fn record_session(&self, run: Run) {
        if run.session_id == self.job.run.session_id {
            return;
        }
        if let Err(error) = self.pod.queue.update(&self.lease, &run).await {
            // A lost claim ends the run from elsewhere; anything else is made up for at its end.
            tracing::warn!(%error, "the session's id could not be recorded yet");
        }
    }

    /// Lines that no plugin can read any more still reach the log.
    async fn log_unread(&self, lines: &[Line]) {
        for line in lines {
            self.reporter.log(LogStream::Stderr, &line.text).await;
        }
    }

    async fn conclude(
        &mut self,
        reading: Reading,
        ended: Ended,
        stopped: Option<Stopped>,
        limit: Duration,
    ) -> Result<Verdict, Halt> {
        let exit = Exit {
            code: ended.exit.code,
            signal: ended.exit.signal,
            stop_requested: stopped.is_some(),
            stderr_tail: reading.stderr.text(),
        };
        let budget = reading.budget;
        let mut output = (reading.stdout.text(), reading.stdout.cut());
        let mut rest = Reading::after(&reading);
        let verdict = match reading.reader {
            Ok(reader) => reader
                .conclude(&exit)
                .await
                .map(|(conclusion, _)| conclusion),
            Err(error) => Err(error),
        };
        let mut said = None;
        let result = match verdict {
            Ok(Conclusion {
                ending,
                output: given,
                message,
                facts,
            }) => {
                said = message.map(|text| {
                    let mut kept = HeadTail::tail(MESSAGE_BYTES);
                    kept.push(text.as_bytes());
                    kept.text()
                });
                if let Some(given) = given {
                    let mut kept = HeadTail::new(OUTPUT_BYTES / 2, OUTPUT_BYTES / 2);
                    kept.push(given.as_bytes());
                    output = (kept.text(), kept.cut());
                }
                self.learn(facts, &mut rest).await;
                self.take_numbers(rest.run);
                judged(ending)
            }
            Err(error) => Err(unread(error, &ended)),
        };
        (self.job.run.output, self.job.run.output_cut) = (Some(output.0), output.1);
        self.job.run.message = said;
        let run = &self.job.run;
        self.reporter
            .send(EventBody::Usage {
                usage: run.usage,
                cost_usd: run.cost_usd,
                turns: run.turns,
            })
            .await;
        match stopped {
            Some(Stopped::By(why)) if why != Interrupt::HandOff || result.is_err() => {
                Err(Halt::Interrupted(why))
            }
            Some(Stopped::CutOff) => Err(Halt::Interrupted(Interrupt::HandOff)),
            Some(Stopped::TimeLimit) if result.is_err() => Ok(Verdict {
                failure: Some(out_of_time(limit)),
            }),
            Some(Stopped::Budget) if result.is_err() => Ok(Verdict {
                failure: Some(budget::used_up(&budget, &self.job.run)),
            }),
            _ => Ok(Verdict {
                failure: result.err(),
            }),
        }
    }

    fn take_numbers(&mut self, run: Run) {
        let seconds = self.job.run.agent_seconds;
        let (pid, exit_code, warnings) = (
            self.job.run.pid,
            self.job.run.exit_code,
            self.job.run.warnings.clone(),
        );
        self.job.run = Run {
            agent_seconds: seconds,
            pid,
            exit_code,
            warnings,
            ..run
        };
    }
}

/// When an agent that nobody interrupts is stopped all the same.
struct Limits<'a> {
    time: Duration,
    /// Cancelled when the job has spent more than its budget.
    over_budget: &'a CancellationToken,
}

/// Waits for the child's end, and brings it about when told to.
async fn control(
    child: &mut Child,
    interrupts: &super::Interrupts,
    limits: Limits<'_>,
    stop: &StopPlan,
    stop_file: Option<PathBuf>,
) -> (Ended, Option<Stopped>) {
    let why = tokio::select! {
        biased;
        ended = child.wait() => return (ended, None),
        why = interrupts.next() => Stopped::By(why),
        () = tokio::time::sleep(limits.time) => Stopped::TimeLimit,
        () = limits.over_budget.cancelled() => Stopped::Budget,
    };
    match why {
        Stopped::By(Interrupt::Lost) => (child.kill_tree().await, Some(why)),
        Stopped::By(Interrupt::HandOff) => match stop_gently(child, stop, stop_file).await {
            Some(ended) => (ended, Some(why)),
            None => (terminate(child).await, Some(Stopped::CutOff)),
        },
        Stopped::Budget => match stop_gently(child, stop, stop_file).await {
            Some(ended) => (ended, Some(why)),
            None => (terminate(child).await, Some(why)),
        },
        _ => (terminate(child).await, Some(why)),
    }
}

/// Lets the agent come to its next tool boundary; none: it did not, or cannot be asked to.
async fn stop_gently(
    child: &mut Child,
    stop: &StopPlan,
    stop_file: Option<PathBuf>,
) -> Option<Ended> {
    let asked = match (stop, stop_file) {
        (StopPlan::CreateFile(_), Some(path)) => tokio::fs::write(&path, b"").await,
        (StopPlan::Interrupt, _) => child.stop(Signal::Interrupt),
        _ => return None,
    };
    if let Err(error) = asked {
        tracing::warn!(%error, "the agent cannot be asked to stop; it is terminated");
        return None;
    }
    tokio::time::timeout(GENTLE_GRACE, child.wait()).await.ok()
}

async fn terminate(child: &mut Child) -> Ended {
    if let Err(error) = child.stop(Signal::Terminate) {
        tracing::warn!(%error, "the agent cannot be signalled; it is killed");
        return child.kill_tree().await;
    }
    match tokio::time::timeout(TERMINATE_GRACE, child.wait()).await {
        Ok(ended) => ended,
        Err(_) => child.kill_tree().await,
    }
}

/// What has been read of one process.
struct Reading {
    /// The plugin's instance, or why it is gone.
    reader: Result<AgentRun, PluginError>,
    stdout: HeadTail,
    stderr: HeadTail,
    /// The job's numbers with those of this process.
    run: Run,
    /// The job's numbers before this process.
    before: Numbers,
    budget: Budget,
    over_budget: CancellationToken,
}

#[derive(Clone, Copy)]
struct Numbers {
    usage: Usage,
    cost_usd: f64,
    turns: u32,
}

enum Learnt {
    Text(String),
    Event(AgentEvent),
    Numbers,
}

impl Reading {
    fn new(reader: AgentRun, run: Run, budget: Budget, over_budget: CancellationToken) -> Self {
        Self {
            reader: Ok(reader),
            stdout: HeadTail::new(OUTPUT_BYTES / 2, OUTPUT_BYTES / 2),
            stderr: HeadTail::tail(STDERR_BYTES),
            before: Numbers {
                usage: run.usage,
                cost_usd: run.cost_usd,
                turns: run.turns,
            },
            run,
            budget,
            over_budget,
        }
    }

    /// For the facts of the conclusion, which come when the reader is used up.
    fn after(reading: &Self) -> Self {
        Self {
            reader: Err(PluginError::new(
                crate::plugin::Code::Ended,
                "the run has been judged",
            )),
            stdout: HeadTail::tail(0),
            stderr: HeadTail::tail(0),
            run: reading.run.clone(),
            before: reading.before,
            budget: reading.budget,
            over_budget: reading.over_budget.clone(),
        }
    }

    fn keep(&mut self, lines: &[Line]) {
        for line in lines {
            match line.stream {
                OutputStream::Stdout => self.stdout.push_line(&line.text),
                OutputStream::Stderr => self.stderr.push_line(&line.text),
            }
        }
    }

    /// The facts in the lines; none once the plugin has failed.
    async fn observe(&mut self, lines: &[Line]) -> Option<Vec<Fact>> {
        match self.reader.as_mut().ok()?.observe(lines).await {
            Ok(facts) => Some(facts),
            Err(error) => {
                tracing::warn!(%error, "the plugin cannot read the agent's output any more");
                self.reader = Err(error);
                None
            }
        }
    }

    fn learn(&mut self, fact: Fact) -> Learnt {
        let run = &mut self.run;
        match fact {
            Fact::Text(text) => return Learnt::Text(text),
            Fact::Usage(usage) => {
                run.usage = self.before.usage
                    + Usage {
                        input_tokens: usage.input_tokens,
                        output_tokens: usage.output_tokens,
                        cache_read_tokens: usage.cache_read_tokens,
                        cache_write_tokens: usage.cache_write_tokens,
                    };
            }
            Fact::CostUsd(cost) if cost.is_finite() && cost >= 0.0 => {
                run.cost_usd = self.before.cost_usd + cost
            }
            Fact::CostUsd(_) => {}
            Fact::Turns(turns) => run.turns = self.before.turns.saturating_add(turns),
            other => return Learnt::Event(noted(other, run)),
        }
        if budget::is_exceeded(&self.budget, run) {
            self.over_budget.cancel();
        }
        Learnt::Numbers
    }
}

/// The event for a fact, and its place on the record.
fn noted(fact: Fact, run: &mut Run) -> AgentEvent {
    match fact {
        Fact::Session(id) => {
            run.session_id = id.parse().ok().or_else(|| run.session_id.clone());
            AgentEvent::Session { id }
        }
        Fact::Model(model) => {
            run.model = Some(model.clone());
            AgentEvent::Model { model }
        }
        Fact::ToolCall(call) => {
            run.tool_calls += 1;
            AgentEvent::ToolCall {
                id: call.id,
                name: call.name,
                summary: call.summary,
            }
        }
        Fact::ToolResult(r) => AgentEvent::ToolResult {
            id: r.id,
            is_error: r.is_error,
            summary: r.summary,
        },
        Fact::Retry(retry) => {
            run.retries += 1;
            AgentEvent::Retry {
                attempt: retry.attempt,
                max_attempts: retry.max_attempts,
                delay_ms: retry.delay_ms,
                reason: retry.reason,
            }
        }
        Fact::Denial(denial) => {
            if run.denials.len() < MAX_DENIALS {
                run.denials
                    .push(format!("{}: {}", denial.tool, denial.summary));
            }
            AgentEvent::Denial {
                tool: denial.tool,
                summary: denial.summary,
            }
        }
        Fact::Other(other) => {
            let value =
                serde_json::from_str(&other.json).unwrap_or(serde_json::Value::String(other.json));
            AgentEvent::Other {
                name: other.name,
                value,
            }
        }
        // Handled by the caller.
        Fact::Text(text) => AgentEvent::Other {
            name: "text".into(),
            value: text.into(),
        },
        Fact::Usage(_) | Fact::CostUsd(_) | Fact::Turns(_) => AgentEvent::Other {
            name: "number".into(),
            value: serde_json::Value::Null,
        },
    }
}

fn for_plugin(line: crate::process::Line) -> Line {
    let stream = match line.stream {
        Stream::Stdout => OutputStream::Stdout,
        Stream::Stderr => OutputStream::Stderr,
    };
    Line {
        stream,
        text: line.text,
        truncated: line.truncated,
    }
}

fn judged(ending: Ending) -> Result<(), Failure> {
    match ending {
        Ending::Succeeded => Ok(()),
        Ending::Stopped => Err(Failure::new(
            FailureClass::Agent,
            "the agent stopped before its end",
            "look at the log for the reason and submit the job again",
        )),
        Ending::Failed(failure) => Err(Failure::new(
            match failure.class {
                PluginClass::Agent => FailureClass::Agent,
                PluginClass::Api => FailureClass::Api,
                PluginClass::Budget => FailureClass::Budget,
            },
            failure.message,
            if failure.remedy.is_empty() {
                "look at the log and the output of the job".into()
            } else {
                failure.remedy
            },
        )),
    }
}

/// The agent came to an end that no plugin could judge.
fn unread(error: PluginError, ended: &Ended) -> Failure {
    let mut failure = plugin_failed(error);
    let how = match (ended.exit.code, ended.exit.signal) {
        (Some(code), _) => format!("with code {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "in an unknown way".into(),
    };
    failure.message = format!(
        "the plugin could not judge the agent, which ended {how}: {}",
        failure.message
    );
    failure
}

fn out_of_time(limit: Duration) -> Failure {
    Failure::new(
        FailureClass::TimeLimit,
        format!(
            "the job ran longer than its time limit of {} s and was stopped",
            limit.as_secs()
        ),
        "raise `timeout` in the profile (the operator's ceiling is AGENTICORE_MAX_JOB_SECONDS), or split the task",
    )
}

fn spawn_failed(error: crate::process::SpawnError) -> Failure {
    Failure::new(
        FailureClass::Host,
        error.to_string(),
        "install the agent's program on the server, or name its path in the configuration; then submit the job again",
    )
}

/// What every agent gets from the host's environment, and nothing else.
fn base_environment(temp_dir: &std::path::Path) -> BTreeMap<OsString, OsString> {
    let mut env: BTreeMap<OsString, OsString> = ["PATH", "HOME", "LANG", "USER", "LC_ALL", "TZ"]
        .into_iter()
        .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
        .collect();
    env.entry("PATH".into())
        .or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".into());
    env.insert("TMPDIR".into(), temp_dir.into());
    env
}

fn environment_value(value: &ResolvedEnv) -> Result<Option<OsString>, Failure> {
    match value {
        ResolvedEnv::Value(value) => Ok(Some(value.clone())),
        ResolvedEnv::OptionalSecret(name) => Ok(std::env::var_os(name)),
        ResolvedEnv::Secret(name) => match std::env::var_os(name) {
            Some(value) => Ok(Some(value)),
            None => Err(Failure::new(
                FailureClass::Host,
                format!("the secret {name} does not exist on the server"),
                format!("set the variable {name} in the server's environment"),
            )),
        },
        ResolvedEnv::Inherit(name) if is_secret(name) => Err(Failure::new(
            FailureClass::Plugin,
            format!("the plugin wants to inherit the variable {name}, which looks like a secret"),
            "the plugin's author must ask for it as a secret, which the profile can grant by name",
        )),
        ResolvedEnv::Inherit(name) => Ok(std::env::var_os(name)),
    }
}

/// Whether a variable must be asked for as a secret, under a grant that names it.
fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 6] = [
        "KEY",
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "CREDENTIALS",
    ];
    let name = name.to_ascii_uppercase();
    let own = crate::config::SETTINGS
        .iter()
        .any(|s| s.secret && s.env == name);
    own || name.starts_with("AGENTICORE_") || name.split('_').any(|word| WORDS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_inherited() {
        for name in [
            "AWS_SECRET_ACCESS_KEY",
            "GITHUB_TOKEN",
            "db_password",
            "AGENTICORE_API_KEYS",
            "REDIS_URL",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["HTTP_PROXY", "MAX_OUTPUT_TOKENS", "EDITOR"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
