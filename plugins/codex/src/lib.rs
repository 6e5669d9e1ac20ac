//! The `codex` plugin: turns a profile into a launch of `codex exec`, and reads what that prints.
//!
//! [`Plugin`] is the component; what it does is in modules without a word about components, so that plain tests can call them:
//! `settings` reads `plugin.config`, `files` lays the profile's files out, `config` makes `config.toml`, `plan` the command line,
//! `stream` reads the output and `outcome` judges the end. The facts about the command line were measured with version 0.169.

mod config;
mod files;
mod operator;
mod outcome;
mod plan;
mod settings;
mod stream;
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
        name: "codex",
        version: env!("CARGO_PKG_VERSION"),
        summary: "Runs the Codex CLI without a person in front of it.",
        reads: &files::READS,
        requests: WHATEVER_IS_GRANTED,
    };

    fn config_schema() -> Value {
        settings::schema()
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
        let settings = Settings::read(&start.config).unwrap_or_else(|error| {
            warn(&error.message);
            Settings::default()
        });
        let reader = Reader::new(settings.model.clone());
        Self { settings, reader }
    }

    fn observe(&mut self, lines: Vec<Line>) -> Vec<Fact> {
        self.reader.read(&lines)
    }

    fn conclude(&mut self, exit: Exit) -> Conclusion {
        outcome::conclude(&self.settings, &self.reader, &exit)
    }
}
