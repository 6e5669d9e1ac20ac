//! **agent run**: starts the agent, streams its output through the plugin, holds its deadline and budget, and stops it when told to.

mod budget;
mod environment;
mod reading;
mod stop;

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::reading::{Learnt, Reading, for_plugin};
use self::stop::{Limits, Stopped, control};
use super::materialize::{Launch, plugin_failed};
use super::reporter::persist;
use super::{Attempt, Halt, Interrupt};
use crate::git::Git;
use crate::job::{
    AgentEvent, EventBody, Failure, FailureClass, LogStream, Run, Stage, StageState, Verdict,
};
use crate::plugin::types::{Conclusion, Ending, Exit, Fact, FailureClass as PluginClass, Line};
use crate::plugin::{AgentRun, PluginError, ResolvedPlan, RunRequest};
use crate::process::{Ended, HeadTail, JobMarker, LineLimits, Output, Spawn};
use crate::telemetry::trace;

/// Bytes of output kept on the record, half from the beginning and half from the end.
const OUTPUT_BYTES: usize = 50 * 1000;
/// Bytes of what the agent said at its end kept on the record.
const MESSAGE_BYTES: usize = 20_000;

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
        self.confirmed().await?;
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
        let mut env = environment::base(&launch.places.temp_dir);
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
            if let Some(value) = environment::value(value)? {
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

    /// Comes back once no other pod can have been given the job.
    async fn confirmed(&self) -> Result<(), Halt> {
        tokio::select! {
            biased;
            why = self.interrupts.next() => Err(Halt::Interrupted(why)),
            confirmed = self.pod.queue.confirm(&self.lease) => {
                confirmed.map_err(|_| Halt::Interrupted(Interrupt::Lost))
            }
        }
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
