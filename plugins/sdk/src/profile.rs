//! Profile plugins: the traits, their defaults, and the way from the contract's functions to them.

use std::cell::RefCell;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bindings::profile_plugin::exports::agenticore::plugin::agent::{
    Guest as AgentGuest, GuestRun,
};
use crate::bindings::profile_plugin::exports::agenticore::plugin::profile::{
    Description, Guest as ProfileGuest, MaterializeRequest,
};
pub use crate::bindings::profile_plugin::exports::agenticore::plugin::{
    agent::RunStart, profile::Spent,
};
use crate::bindings::types::{
    Argument, Budget, Conclusion, Content, Ending, Error, ErrorCode, Exit, Fact, Failure,
    FailureClass, FileEntry, FileMode, Job, LaunchPlan, Layer, Line, Location, Place, SessionPlan,
    SessionStart, StopPlan,
};

/// What a plugin says of itself.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name, kebab-case.
    pub name: &'static str,
    /// Its version, in the form of semantic versioning; `env!("CARGO_PKG_VERSION")` will do.
    pub version: &'static str,
    /// One sentence for people.
    pub summary: &'static str,
    /// Globs over the paths of a profile's files whose bytes it wants to read.
    pub reads: &'static [&'static str],
    /// Capabilities it asks for, each `KIND:NAME` such as `program:sh`.
    pub requests: &'static [&'static str],
}

/// One job's request for a launch plan, with its configuration parsed.
#[derive(Clone, Debug)]
pub struct Request<C> {
    /// The job.
    pub job: Job,
    /// The profile's `extends` chain, the root first and the profile itself last.
    pub layers: Vec<Layer>,
    /// The `plugin.config` object of the profile.
    pub config: C,
    /// What the operator set for this plugin.
    pub operator: Value,
    /// How the session starts.
    pub session: SessionStart,
    /// What earlier attempts used up.
    pub spent: Spent,
}

/// A plugin that turns a profile into a launch plan and reads the output of the agent it launches.
pub trait Profile: 'static {
    /// The `plugin.config` object of `profile.yml`, `{}` where there is none. [`NoConfig`] takes nothing.
    type Config: DeserializeOwned;
    /// Who reads the agent's output; [`Plain`] takes every line as text.
    type Run: Run;
    /// What it says of itself.
    const ABOUT: About;

    /// The JSON Schema of `plugin.config`. The default allows any object; what does not fit [`Profile::Config`] is refused anyway.
    fn config_schema() -> Value {
        json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"})
    }

    /// Makes the launch plan of one attempt. The same request must give the same plan.
    ///
    /// # Errors
    /// What is wrong, where, and what would be right; the job fails with it.
    fn materialize(request: Request<Self::Config>) -> Result<LaunchPlan, Error>;
}

/// Reads one process of the agent, from its start to its end.
pub trait Run: Sized + 'static {
    /// Called just before the process starts.
    fn start(start: RunStart) -> Self;

    /// Says what lines of output mean.
    fn observe(&mut self, lines: Vec<Line>) -> Vec<Fact>;

    /// Judges the run when the process has ended and all of its output has been observed.
    fn conclude(&mut self, exit: Exit) -> Conclusion;
}

/// The configuration of a plugin that has none; any key is refused.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Takes every line as text for the log and the exit code for the result.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Run for Plain {
    fn start(_: RunStart) -> Self {
        Self
    }

    fn observe(&mut self, lines: Vec<Line>) -> Vec<Fact> {
        lines
            .into_iter()
            .map(|line| Fact::Text(line.text))
            .collect()
    }

    fn conclude(&mut self, exit: Exit) -> Conclusion {
        Conclusion::of(&exit)
    }
}

impl Conclusion {
    /// What an exit code says: 0 is a success; after the host asked it to stop, any other end is an early one.
    #[must_use]
    pub fn of(exit: &Exit) -> Self {
        let ending = match (exit.code, exit.stop_requested) {
            (Some(0), _) => Ending::Succeeded,
            (_, true) => Ending::Stopped,
            (code, false) => Ending::Failed(Failure {
                class: FailureClass::Agent,
                message: match (code, exit.signal) {
                    (Some(code), _) => format!("exit code {code}: {}", exit.stderr_tail.trim_end()),
                    (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
                },
                remedy: String::new(),
            }),
        };
        Self {
            ending,
            output: None,
            message: None,
            facts: Vec::new(),
        }
    }
}

impl LaunchPlan {
    /// Starts this program without arguments, files or a session. It needs the grant `program:NAME`.
    #[must_use]
    pub fn new(program: &str) -> Self {
        Self {
            files: Vec::new(),
            keep: Vec::new(),
            program: program.to_owned(),
            arguments: Vec::new(),
            env: Vec::new(),
            stdin: None,
            time_limit: None,
            budget: Budget {
                cost_usd: None,
                turns: None,
            },
            session: SessionPlan {
                id: None,
                transcript: None,
            },
            stop: StopPlan::Terminate,
        }
    }

    /// The same, with this argument more.
    #[must_use]
    pub fn argument(mut self, text: &str) -> Self {
        self.arguments.push(Argument::Literal(text.to_owned()));
        self
    }

    /// The same, with the absolute path of a file of the plan as an argument more.
    #[must_use]
    pub fn file_argument(mut self, path: &str) -> Self {
        self.arguments.push(Argument::Path(Location {
            prefix: String::new(),
            place: Place::ConfigDir,
            path: path.to_owned(),
        }));
        self
    }

    /// The same, with a file to write below the config directory.
    #[must_use]
    pub fn file(mut self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push(FileEntry {
            path: path.to_owned(),
            content: Content::Bytes(bytes.into()),
            mode: FileMode::Regular,
        });
        self
    }
}

/// The component of a [`Profile`].
#[doc(hidden)]
#[derive(Debug)]
pub struct ProfileComponent<P>(PhantomData<P>);

impl<P: Profile> ProfileGuest for ProfileComponent<P> {
    fn describe() -> Description {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Description {
            name: P::ABOUT.name.to_owned(),
            version: P::ABOUT.version.to_owned(),
            summary: P::ABOUT.summary.to_owned(),
            reads: owned(P::ABOUT.reads),
            requests: owned(P::ABOUT.requests),
        }
    }

    fn config_schema() -> String {
        P::config_schema().to_string()
    }

    fn materialize(request: MaterializeRequest) -> Result<LaunchPlan, Error> {
        let config = serde_json::from_str(&request.config).map_err(|error| Error {
            code: ErrorCode::InvalidConfig,
            message: format!("plugin.config: {error}"),
        })?;
        P::materialize(Request {
            job: request.job,
            layers: request.layers,
            config,
            operator: serde_json::from_str(&request.operator).unwrap_or(Value::Null),
            session: request.session,
            spent: request.spent,
        })
    }
}

impl<P: Profile> AgentGuest for ProfileComponent<P> {
    type Run = RunComponent<P::Run>;
}

/// The resource of a [`Run`].
#[doc(hidden)]
#[derive(Debug)]
pub struct RunComponent<R>(RefCell<R>);

impl<R: Run> GuestRun for RunComponent<R> {
    fn new(start: RunStart) -> Self {
        Self(RefCell::new(R::start(start)))
    }

    fn observe(&self, lines: Vec<Line>) -> Vec<Fact> {
        self.0.borrow_mut().observe(lines)
    }

    fn conclude(&self, exit: Exit) -> Conclusion {
        self.0.borrow_mut().conclude(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Greeter;

    impl Profile for Greeter {
        type Config = NoConfig;
        type Run = Plain;
        const ABOUT: About = About {
            name: "greeter",
            version: "1.0.0",
            summary: "Greets.",
            reads: &[],
            requests: &["program:sh"],
        };

        fn materialize(request: Request<NoConfig>) -> Result<LaunchPlan, Error> {
            Ok(LaunchPlan::new("sh")
                .file("task.sh", request.job.task)
                .file_argument("task.sh"))
        }
    }

    fn request(config: &str) -> MaterializeRequest {
        MaterializeRequest {
            job: Job {
                id: String::new(),
                attempt: 1,
                task: "echo hello".to_owned(),
                repo_url: None,
                base_ref: None,
                branch: None,
                profile: "p".to_owned(),
            },
            layers: Vec::new(),
            config: config.to_owned(),
            operator: "{}".to_owned(),
            session: SessionStart::Fresh(String::new()),
            spent: Spent {
                cost_usd: 0.0,
                turns: 0,
                seconds: 0,
            },
        }
    }

    #[test]
    fn a_plan_is_made_and_a_configuration_that_does_not_fit_is_refused() {
        let plan = ProfileComponent::<Greeter>::materialize(request("{}"));
        assert_eq!(plan.map(|plan| plan.files.len()), Ok(1));
        let refused = ProfileComponent::<Greeter>::materialize(request(r#"{"x": 1}"#));
        assert_eq!(
            refused.map_err(|error| error.code),
            Err(ErrorCode::InvalidConfig)
        );
    }

    #[test]
    fn an_exit_code_says_how_the_run_ended() {
        let exit = |code, stop_requested| Exit {
            code,
            signal: None,
            stop_requested,
            stderr_tail: "boom\n".to_owned(),
        };
        assert_eq!(
            Conclusion::of(&exit(Some(0), false)).ending,
            Ending::Succeeded
        );
        assert_eq!(
            Conclusion::of(&exit(Some(143), true)).ending,
            Ending::Stopped
        );
        let Ending::Failed(failure) = Conclusion::of(&exit(Some(3), false)).ending else {
            unreachable!("it failed");
        };
        assert_eq!(failure.message, "exit code 3: boom");
    }
}
