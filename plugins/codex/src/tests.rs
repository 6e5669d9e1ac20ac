//! The plugin from the outside of its modules: a request in, a plan out; lines in, facts and an ending out.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod ending;
mod launch;
mod output;

use agenticore_plugin::{
    Argument, Content, EnvValue, Job, LaunchPlan, Layer, LayerFile, Line, OutputStream, Session,
    SessionStart,
};
use agenticore_plugin::{Request, Spent};
use serde_json::{Value, json};

use crate::plan;

const ID: &str = "01a21cdb-9dd3-7af0-a580-1b1e04d9640a";

/// A request for a job in a repository, with this `plugin.config` and these layers of files.
fn request(config: &str, layers: &[&[(&str, &str)]]) -> Request<Value> {
    let file = |(path, text): &(&str, &str)| LayerFile {
        path: (*path).to_owned(),
        size: text.len() as u64,
        executable: path.ends_with(".sh"),
        content: crate::files::READS
            .contains(path)
            .then(|| text.as_bytes().to_vec()),
    };
    let layers = layers.iter().enumerate().map(|(n, files)| Layer {
        name: format!("layer{n}"),
        settings: "{}".to_owned(),
        files: files.iter().map(file).collect(),
    });
    Request {
        job: Job {
            id: "job-1".to_owned(),
            attempt: 1,
            task: "Fix the\n\tbug --version".to_owned(),
            repo_url: Some("https://example.com/r.git".to_owned()),
            base_ref: Some("main".to_owned()),
            branch: Some("agenticore/fix".to_owned()),
            profile: "layer0".to_owned(),
        },
        layers: layers.collect(),
        config: config.parse().unwrap(),
        operator: json!({}),
        session: SessionStart::Fresh(ID.to_owned()),
        spent: Spent {
            cost_usd: 0.0,
            turns: 0,
            seconds: 0,
        },
    }
}

fn plan(request: &Request<Value>) -> LaunchPlan {
    plan::make(request).unwrap().0
}

fn error(request: &Request<Value>) -> String {
    plan::make(request).unwrap_err().message
}

fn words(plan: &LaunchPlan) -> Vec<&str> {
    fn word(argument: &Argument) -> &str {
        match argument {
            Argument::Literal(text) => text.as_str(),
            Argument::Path(_) => panic!("no argument is a path"),
        }
    }
    plan.arguments.iter().map(word).collect()
}

fn variable(plan: &LaunchPlan, name: &str) -> Option<EnvValue> {
    let found = plan.env.iter().find(|variable| variable.name == name);
    found.map(|variable| variable.value.clone())
}

/// What `config.toml` says.
fn config(plan: &LaunchPlan) -> toml::Table {
    let file = plan
        .files
        .iter()
        .find(|file| file.path == "config.toml")
        .unwrap();
    match &file.content {
        Content::Bytes(bytes) => toml::from_str(std::str::from_utf8(bytes).unwrap()).unwrap(),
        Content::Copy(_) => panic!("the settings are made, not copied"),
    }
}

fn session() -> Session {
    Session {
        id: ID.to_owned(),
        transcript: None,
    }
}

fn stdout(text: &str) -> Line {
    Line {
        stream: OutputStream::Stdout,
        text: text.to_owned(),
        truncated: false,
    }
}
