//! The plans it answers with, good and bad.

use serde_json::Value;

use crate::bindings::agenticore::plugin::types::{
    Argument, Budget, Content, EnvValue, EnvVar, FileEntry, FileMode, LaunchPlan, Location, Place,
    SessionPlan, Source, StopPlan, Transcript,
};
use crate::bindings::exports::agenticore::plugin::profile::MaterializeRequest;
use crate::{acts, file, text};

/// A good plan, and what the configuration puts into it.
pub(crate) fn plan(config: &Value, request: &MaterializeRequest) -> LaunchPlan {
    let mut plan = good();
    match text(config, "plan") {
        "empty" => plan.files.clear(),
        "look" => plan.files = vec![file("seen.txt", &acts::look())],
        "layers" => plan.files = vec![file("layers.txt", &seen_layers(request))],
        "copy-all" => plan.files = copies(request),
        "files" => plan.files = numbered(number(config)),
        "size" => plan.files = sized(number(config)),
        "stdin" => plan.stdin = Some(vec![b'x'; number(config)]),
        _ => {}
    }
    for (path, bytes) in objects(config, "files") {
        plan.files.push(file(path, bytes));
    }
    for path in list(config, "paths") {
        plan.files.push(file(path, "x"));
    }
    for path in list(config, "copy") {
        let source = Source {
            layer: number_of(config, "layer"),
            path: path.to_owned(),
        };
        plan.files.push(FileEntry {
            path: path.to_owned(),
            content: Content::Copy(source),
            mode: FileMode::Regular,
        });
    }
    plan.arguments
        .extend(list(config, "arguments").map(|text| Argument::Literal(text.to_owned())));
    plan.keep.extend(list(config, "keep").map(str::to_owned));
    for (name, value) in objects(config, "env") {
        plan.env.push(EnvVar {
            name: name.to_owned(),
            value: env(value),
        });
    }
    places(&mut plan, config);
    plan
}

fn good() -> LaunchPlan {
    LaunchPlan {
        files: vec![file("task.sh", "echo done\n"), file("a/b.txt", "b")],
        keep: vec!["kept".to_owned()],
        program: "sh".to_owned(),
        arguments: vec![Argument::Path(Location {
            prefix: String::new(),
            place: Place::ConfigDir,
            path: "task.sh".to_owned(),
        })],
        env: vec![EnvVar {
            name: "CONFIG".to_owned(),
            value: EnvValue::Path(Location {
                prefix: "x=".to_owned(),
                place: Place::ConfigDir,
                path: String::new(),
            }),
        }],
        stdin: Some(b"input".to_vec()),
        time_limit: Some(600),
        budget: Budget {
            cost_usd: None,
            turns: None,
        },
        session: SessionPlan {
            id: Some("id-1".to_owned()),
            transcript: Some(Transcript {
                pattern: "kept/*.jsonl".to_owned(),
                marker: "x".to_owned(),
            }),
        },
        stop: StopPlan::Terminate,
    }
}

/// What the configuration changes of the rest of the plan.
fn places(plan: &mut LaunchPlan, config: &Value) {
    let place = |path: &str| Location {
        prefix: String::new(),
        place: Place::WorkDir,
        path: path.to_owned(),
    };
    if let Some(path) = config.get("argument-path").and_then(Value::as_str) {
        plan.arguments.push(Argument::Path(place(path)));
    }
    if let Some(path) = config.get("env-path").and_then(Value::as_str) {
        plan.env.push(EnvVar {
            name: "P".to_owned(),
            value: EnvValue::Path(place(path)),
        });
    }
    if let Some(path) = config.get("stop-file").and_then(Value::as_str) {
        plan.stop = StopPlan::CreateFile(Location {
            place: Place::ConfigDir,
            ..place(path)
        });
    }
    if let Some(program) = config.get("program").and_then(Value::as_str) {
        plan.program = program.to_owned();
    }
    if let Some(id) = config.get("session").and_then(Value::as_str) {
        plan.session.id = Some(id.to_owned());
    }
    if let Some(pattern) = config.get("transcript").and_then(Value::as_str) {
        plan.session.transcript = Some(Transcript {
            pattern: pattern.to_owned(),
            marker: "x".to_owned(),
        });
    }
}

/// `secret:NAME`, `optional:NAME`, `inherit:NAME`, or a text.
fn env(value: &str) -> EnvValue {
    match value.split_once(':') {
        Some(("secret", name)) => EnvValue::Secret(name.to_owned()),
        Some(("optional", name)) => EnvValue::OptionalSecret(name.to_owned()),
        Some(("inherit", name)) => EnvValue::Inherit(name.to_owned()),
        _ => EnvValue::Literal(value.to_owned()),
    }
}

fn numbered(count: usize) -> Vec<FileEntry> {
    (0..count)
        .map(|number| file(&format!("f{number}"), ""))
        .collect()
}

fn sized(bytes: usize) -> Vec<FileEntry> {
    vec![FileEntry {
        content: Content::Bytes(vec![b'x'; bytes]),
        ..file("big", "")
    }]
}

fn copies(request: &MaterializeRequest) -> Vec<FileEntry> {
    let layers = request.layers.iter().zip(0..);
    let copy = |layer: u32, path: &str, executable: bool| FileEntry {
        path: path.to_owned(),
        content: Content::Copy(Source {
            layer,
            path: path.to_owned(),
        }),
        mode: if executable {
            FileMode::Executable
        } else {
            FileMode::Regular
        },
    };
    layers
        .flat_map(|(layer, at)| {
            layer
                .files
                .iter()
                .map(move |file| copy(at, &file.path, file.executable))
        })
        .collect()
}

fn seen_layers(request: &MaterializeRequest) -> String {
    let layers = request.layers.iter().map(|layer| {
        let files: Vec<_> = layer
            .files
            .iter()
            .map(|file| {
                format!(
                    "{} {} {:?}",
                    file.path,
                    file.size,
                    file.content.as_ref().map(Vec::len)
                )
            })
            .collect();
        format!("{} {} [{}]", layer.name, layer.settings, files.join(", "))
    });
    layers.collect::<Vec<_>>().join("\n")
}

fn number(config: &Value) -> usize {
    config
        .get("number")
        .and_then(Value::as_u64)
        .and_then(|number| usize::try_from(number).ok())
        .unwrap_or(0)
}

fn number_of(config: &Value, key: &str) -> u32 {
    config
        .get(key)
        .and_then(Value::as_u64)
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or(0)
}

fn list<'a>(config: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    config
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn objects<'a>(config: &'a Value, key: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let object = config
        .get(key)
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    object.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}
