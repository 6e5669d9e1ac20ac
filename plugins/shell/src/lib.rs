//! The `shell` plugin: runs the task as a shell script in the job's folder. For demos, smoke tests and a laptop's own errands.
//!
//! The task becomes the file `task.sh` in the job's config directory, so that its length meets no limit of arguments and its standard
//! input stays free. What the script prints is the log; its exit code is the verdict. There is no session, so an interrupted job
//! starts anew.

mod bindings;
mod plan;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use bindings::types::{Conclusion, Error, Exit, Fact, LaunchPlan, Line};
use bindings::{AgentGuest, Description, GuestRun, MaterializeRequest, ProfileGuest, RunStart};

/// The component.
#[derive(Debug)]
pub struct Plugin;

impl ProfileGuest for Plugin {
    fn describe() -> Description {
        Description {
            name: "shell".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Runs the task as a shell script.".to_owned(),
            reads: Vec::new(),
            requests: vec!["program:sh".to_owned(), "env:*".to_owned()],
        }
    }

    fn config_schema() -> String {
        plan::SCHEMA.to_owned()
    }

    fn materialize(request: MaterializeRequest) -> Result<LaunchPlan, Error> {
        plan::make(&request)
    }
}

impl AgentGuest for Plugin {
    type Run = Run;
}

/// One run of a script.
#[derive(Debug)]
pub struct Run {
    lines: RefCell<u64>,
}

impl GuestRun for Run {
    fn new(_: RunStart) -> Self {
        Self { lines: RefCell::new(0) }
    }

    fn observe(&self, lines: Vec<Line>) -> Vec<Fact> {
        *self.lines.borrow_mut() += lines.len() as u64;
        lines.into_iter().map(|line| Fact::Text(line.text)).collect()
    }

    fn conclude(&self, exit: Exit) -> Conclusion {
        plan::conclude(&exit, *self.lines.borrow())
    }
}
