//! One host for all tests, the guest that misbehaves, and requests for it.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

use crate::plugin::types::{Job, RunResult, SessionStart, Spent, Usage};
use crate::plugin::{
    CallContext, CallReport, CheckedPlan, Grant, GrantKind, Grants, HostOptions, Layer, LayerFile,
    Limits, LimitsPatch, PlanRequest, Plugin, PluginError, PluginHost, Policies,
};

/// A job whose id is a UUID of version 7, of 2026-01-01T00:00:00Z.
pub(super) const JOB: &str = "019b76da-a800-7000-8000-000000000001";

/// Long enough for a machine under load; tests that wait for a deadline lower it.
pub(super) fn limits() -> Limits {
    Limits {
        compile_time: Duration::from_secs(300),
        describe_time: Duration::from_secs(120),
        time: Duration::from_secs(120),
        hook_time: Duration::from_secs(120),
        ..Limits::default()
    }
}

pub(super) fn options() -> HostOptions {
    let program = Grant::new(GrantKind::Program, "/bin/exact");
    HostOptions {
        limits: limits(),
        ceiling: Grants::all().union(&[program].into_iter().collect()),
        policies: Policies::bundled().unwrap(),
        ..HostOptions::default()
    }
}

pub(super) fn host() -> Arc<PluginHost> {
    static HOST: OnceLock<Arc<PluginHost>> = OnceLock::new();
    Arc::clone(HOST.get_or_init(|| PluginHost::new(options()).unwrap()))
}

pub(super) fn guest_bytes() -> Arc<[u8]> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/test-guests.wasm");
    match std::fs::read(&path) {
        Ok(bytes) => bytes.into(),
        Err(error) => panic!("{}: {error}; run `cargo xtask plugins`", path.display()),
    }
}

/// The guest with another answer to `describe`.
pub(super) fn describing(what: &str) -> Arc<[u8]> {
    let mut bytes = guest_bytes().to_vec();
    let marker = b"DESCRIBE-DOES:normal............";
    let at = bytes
        .windows(marker.len())
        .position(|window| window == marker)
        .unwrap();
    let mut text = format!("DESCRIBE-DOES:{what}").into_bytes();
    text.resize(marker.len(), b'.');
    bytes[at..at + marker.len()].copy_from_slice(&text);
    bytes.into()
}

pub(super) async fn guest() -> Arc<Plugin> {
    host().load(guest_bytes()).await.unwrap()
}

pub(super) fn context() -> CallContext {
    CallContext {
        job_id: JOB.to_owned(),
        limits: limits(),
        grants: Grants::all(),
    }
}

pub(super) fn lowered(patch: LimitsPatch) -> CallContext {
    CallContext {
        limits: limits().lower_to(&patch).unwrap(),
        ..context()
    }
}

pub(super) fn job() -> Job {
    Job {
        id: JOB.to_owned(),
        attempt: 1,
        task: "echo hello".to_owned(),
        repo_url: None,
        base_ref: None,
        branch: None,
        profile: "test".to_owned(),
    }
}

pub(super) fn layers() -> Arc<[Layer]> {
    let file = |path: &str, bytes: &'static [u8], executable| LayerFile {
        path: path.to_owned(),
        executable,
        bytes: bytes.into(),
    };
    let layer = |name: &str, files| Layer {
        name: name.to_owned(),
        settings: json!({"name": name}),
        files,
    };
    [
        layer(
            "root",
            vec![file("a.md", b"# a", false), file("run.sh", b"echo\n", true)],
        ),
        layer(
            "child",
            vec![
                file("data.bin", b"\0\x01", false),
                file("sub/b.md", b"b", false),
            ],
        ),
    ]
    .into()
}

pub(super) fn request(config: Value) -> PlanRequest {
    PlanRequest {
        job: job(),
        layers: layers(),
        config,
        operator: json!({}),
        session: SessionStart::Fresh("id-1".to_owned()),
        spent: Spent {
            cost_usd: 0.0,
            turns: 0,
            seconds: 0,
        },
    }
}

pub(super) async fn materialize(
    context: &CallContext,
    config: Value,
) -> Result<(CheckedPlan, CallReport), PluginError> {
    host()
        .materialize(&guest().await, context, &request(config))
        .await
}

/// What must hold after anything: the next job of the same plugin is served.
pub(super) async fn serves_the_next_job() {
    let (plan, _) = materialize(&context(), json!({})).await.unwrap();
    assert_eq!(plan.tree.files().len(), 2);
}

/// What post hooks are told of a run that succeeded and changed nothing.
pub(super) fn run_result() -> RunResult {
    RunResult {
        status: "succeeded".to_owned(),
        failure: String::new(),
        message: String::new(),
        output: String::new(),
        usage: Usage {
            input_tokens: 1,
            output_tokens: 2,
            cache_read_tokens: 3,
            cache_write_tokens: 4,
        },
        cost_usd: 0.5,
        turns: 1,
        changed_files: Vec::new(),
    }
}
