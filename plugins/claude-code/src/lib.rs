//! The `claude-code` plugin: turns a profile into a launch of the `claude` command line, and reads what that prints.
//!
//! [`Plugin`] is the component; everything it does is in modules without a word about components, so that plain tests can call them:
//! `settings` reads the profile's own keys, `files` lays the profile's files out, `plan` makes the command line, `stream` reads its
//! output and `outcome` judges its end. The facts about the command line that they rely on were measured with versions 2.1.100 and
//! 2.1.197.

mod files;
mod json;
mod operator;
mod outcome;
mod permissions;
mod plan;
mod prompt;
mod schema;
mod settings;
mod stream;
mod summary;
#[cfg(test)]
mod tests;

use agenticore_plugin::{
    About, Conclusion, Error, Exit, Fact, LaunchPlan, Line, Profile, Request, RunStart,
    WHATEVER_IS_GRANTED, export_profile, warn,
};
use serde_json::Value;

use crate::settings::Settings;
use crate::stream::Reader;

/// The component.
#[derive(Debug)]
pub struct Plugin;

impl Profile for Plugin {
    type Config = Value;
    type Run = Run;
    const ABOUT: About = About {
        name: "claude-code",
        version: env!("CARGO_PKG_VERSION"),
        summary: "Runs Claude Code through its command line.",
        reads: &files::READS,
        requests: WHATEVER_IS_GRANTED,
    };

    fn config_schema() -> Value {
        schema::config()
    }

    fn materialize(request: Request<Value>) -> Result<LaunchPlan, Error> {
        let (plan, notes) = plan::make(&request)?;
        for note in notes {
            warn(&note);
        }
        Ok(plan)
    }
}

export_profile!(Plugin);

/// One process of the agent.
#[derive(Debug)]
pub struct Run {
    settings: Settings,
    reader: Reader,
}

impl agenticore_plugin::Run for Run {
    fn start(start: RunStart) -> Self {
        // The same settings made the plan, so they can be read; a run is no place to refuse them.
        let settings = settings::of_run(&start.settings, &start.config).unwrap_or_else(|error| {
            warn(&error.message);
            Settings::default()
        });
        Self {
            settings,
            reader: Reader::default(),
        }
    }

    fn observe(&mut self, lines: Vec<Line>) -> Vec<Fact> {
        self.reader.read(&lines)
    }

    fn conclude(&mut self, exit: Exit) -> Conclusion {
        outcome::conclude(&self.settings, self.reader.result(), &exit)
    }
}
