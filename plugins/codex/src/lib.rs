//! The `codex` plugin: turns a profile into a launch of `codex exec`, and reads what that prints.
//!
//! [`Plugin`] is the component; what it does is in modules without a word about components, so that plain tests can call them:
//! `settings` reads `plugin.config`, `files` lays the profile's files out, `config` makes `config.toml`, `plan` the command line,
//! `stream` reads the output and `outcome` judges the end. The facts about the command line were measured with version 0.169.

mod bindings;
mod config;
mod files;
mod operator;
mod outcome;
mod plan;
mod prompt;
mod settings;
mod stream;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use bindings::types::{Conclusion, Error, ErrorCode, Exit, Fact, LaunchPlan, Line};
use bindings::{
    AgentGuest, Description, GuestRun, MaterializeRequest, ProfileGuest, RunStart, host,
};

use crate::settings::Settings;
use crate::stream::Reader;

/// The component.
#[derive(Debug)]
pub struct Plugin;

impl ProfileGuest for Plugin {
    fn describe() -> Description {
        Description {
            name: "codex".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Runs the Codex CLI without a person in front of it.".to_owned(),
            reads: files::READS.map(str::to_owned).to_vec(),
            // It carries out whatever a profile says, so what it may do is for the profile's grants and the operator to bound.
            requests: [
                "program",
                "settings",
                "mcp",
                "permissions",
                "env",
                "secrets",
            ]
            .map(|kind| format!("{kind}:*"))
            .to_vec(),
        }
    }

    fn config_schema() -> String {
        settings::schema().to_string()
    }

    fn materialize(request: MaterializeRequest) -> Result<LaunchPlan, Error> {
        let (plan, notes) = plan::make(&request)?;
        for note in notes {
            host::log(host::Level::Warn, &note);
        }
        Ok(plan)
    }
}

impl AgentGuest for Plugin {
    type Run = Run;
}

/// One process of the agent.
#[derive(Debug)]
pub struct Run {
    settings: Settings,
    reader: RefCell<Reader>,
}

impl GuestRun for Run {
    fn new(start: RunStart) -> Self {
        // The same settings made the plan, so they can be read; a run is no place to refuse them.
        let settings = Settings::read(&start.config).unwrap_or_else(|error| {
            host::log(host::Level::Warn, &error.message);
            Settings::default()
        });
        let reader = RefCell::new(Reader::new(settings.model.clone()));
        Self { settings, reader }
    }

    fn observe(&self, lines: Vec<Line>) -> Vec<Fact> {
        self.reader.borrow_mut().read(&lines)
    }

    fn conclude(&self, exit: Exit) -> Conclusion {
        outcome::conclude(&self.settings, &self.reader.borrow(), &exit)
    }
}

/// Something in the profile is wrong.
fn invalid_profile(message: String) -> Error {
    Error {
        code: ErrorCode::InvalidProfile,
        message,
    }
}
