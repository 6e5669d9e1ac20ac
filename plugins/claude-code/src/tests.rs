//! The plugin from the outside of its modules: a request in, a plan out; lines in, facts and an ending out.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod ending;
mod launch;
mod laying_out;
mod operator;
mod output;
mod profile_keys;

use agenticore_plugin::{
    Argument, Content, EnvValue, Job, LaunchPlan, Layer, LayerFile, Place, Request, Session,
    SessionStart,
};
use serde_json::{Value, json};

use crate::plan;

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

/// A request for a job in a repository, with these layers, each a `profile.yml` as JSON and its files.
fn request(layers: &[(&str, &[(&str, &str)])]) -> Request<Value> {
    let layers = layers
        .iter()
        .enumerate()
        .map(|(n, (settings, files))| Layer {
            name: format!("layer{n}"),
            settings: (*settings).to_owned(),
            files: files.iter().map(|(path, text)| file(path, text)).collect(),
        });
    Request {
        job: job(),
        layers: layers.collect(),
        config: json!({}),
        operator: json!({}),
        session: SessionStart::Fresh(ID.to_owned()),
        spent: agenticore_plugin::Spent {
            cost_usd: 0.0,
            turns: 0,
            seconds: 0,
        },
    }
}

fn job() -> Job {
    Job {
        id: "job-1".to_owned(),
        attempt: 1,
        task: "Fix the\n\tbug --version".to_owned(),
        repo_url: Some("https://example.com/r.git".to_owned()),
        base_ref: Some("main".to_owned()),
        branch: Some("agenticore/fix".to_owned()),
        profile: "layer0".to_owned(),
    }
}

fn file(path: &str, text: &str) -> LayerFile {
    let read = crate::files::READS.contains(&path);
    LayerFile {
        path: path.to_owned(),
        size: text.len() as u64,
        executable: path.ends_with(".sh"),
        content: read.then(|| text.as_bytes().to_vec()),
    }
}

fn plan(request: &Request<Value>) -> LaunchPlan {
    plan::make(request).unwrap().0
}

fn error(request: &Request<Value>) -> String {
    plan::make(request).unwrap_err().message
}

fn notes(request: &Request<Value>) -> String {
    plan::make(request).unwrap().1.join("\n")
}

/// The arguments as the host would resolve them, with places in braces.
fn arguments(plan: &LaunchPlan) -> Vec<String> {
    let shown = |argument: &Argument| match argument {
        Argument::Literal(text) => text.clone(),
        Argument::Path(at) => format!("{}{{{}}}/{}", at.prefix, place(at.place), at.path),
    };
    plan.arguments.iter().map(shown).collect()
}

fn place(place: Place) -> &'static str {
    match place {
        Place::ConfigDir => "config",
        Place::WorkDir => "work",
        Place::TempDir => "temp",
    }
}

/// The value of an option, none if it is not there.
fn option(plan: &LaunchPlan, option: &str) -> Option<String> {
    let prefix = format!("{option}=");
    arguments(plan)
        .iter()
        .find_map(|argument| argument.strip_prefix(&prefix).map(str::to_owned))
}

fn options(plan: &LaunchPlan, option: &str) -> Vec<String> {
    let prefix = format!("{option}=");
    arguments(plan)
        .iter()
        .filter_map(|argument| argument.strip_prefix(&prefix).map(str::to_owned))
        .collect()
}

fn variable(plan: &LaunchPlan, name: &str) -> Option<EnvValue> {
    plan.env
        .iter()
        .find(|variable| variable.name == name)
        .map(|variable| variable.value.clone())
}

fn literal(text: &str) -> Option<EnvValue> {
    Some(EnvValue::Literal(text.to_owned()))
}

/// What is written to a path, as text; a copy as `layer:path`.
fn written(plan: &LaunchPlan, path: &str) -> Option<String> {
    let entry = plan.files.iter().find(|entry| entry.path == path)?;
    Some(match &entry.content {
        Content::Bytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        Content::Copy(source) => format!("{}:{}", source.layer, source.path),
    })
}

fn written_json(plan: &LaunchPlan, path: &str) -> serde_json::Value {
    serde_json::from_str(&written(plan, path).unwrap()).unwrap()
}

/// A session whose record nobody has found.
fn session(id: &str) -> Session {
    Session {
        id: id.to_owned(),
        transcript: None,
    }
}
