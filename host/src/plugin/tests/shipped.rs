//! The plugins that are part of the product, under the policies that are.

use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::support::{context, host, layers, request};
use crate::plugin::types::{Session, SessionStart};
use crate::plugin::{CallContext, Grants, PlanRequest};

/// As far as `profiles/defaults.yml` matters here.
#[derive(Deserialize)]
struct Defaults {
    plugin: DefaultPlugin,
}

#[derive(Deserialize)]
struct DefaultPlugin {
    component: String,
    grants: Grants,
}

fn component(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/dist/{name}.wasm"));
    match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => panic!("{}: {error}; run `cargo xtask plugins`", path.display()),
    }
}

#[tokio::test]
async fn the_default_plugin_plans_under_the_default_grants() {
    let Defaults { plugin: default } = serde_saphyr::from_str(crate::bundled::defaults()).unwrap();
    let plugin = host().load(component(&default.component)).await.unwrap();
    assert!(
        plugin.imports().iter().all(|import| !import.refused),
        "{:?}",
        plugin.imports()
    );
    let context = CallContext {
        grants: default.grants,
        ..context()
    };
    let id = || "5f0c1c6e-2b4f-4c58-9d6a-0c6f1d2e3a4b".to_owned();
    let session = || Session {
        id: id(),
        transcript: Some(format!("projects/-work/{}.jsonl", id())),
    };
    let operators = [
        json!({"uid": 10001}),
        json!({"uid": 0, "otel": {"enabled": true, "endpoint": "http://127.0.0.1:4318"}}),
    ];
    for operator in operators {
        for session in [
            SessionStart::Fresh(id()),
            SessionStart::Recover(session()),
            SessionStart::Continue(session()),
        ] {
            let request = PlanRequest {
                session,
                operator: operator.clone(),
                layers: layers(),
                ..request(json!({}))
            };
            let (plan, report) = host()
                .materialize(&plugin, &context, &request)
                .await
                .unwrap();
            assert!(!plan.arguments.is_empty() && report.denials.is_empty());
        }
    }
}

#[tokio::test]
async fn the_shell_plans_with_the_grant_of_its_program_alone() {
    let plugin = host().load(component("shell")).await.unwrap();
    let grants = ["program:sh".parse().unwrap()].into_iter().collect();
    let context = CallContext {
        grants,
        ..context()
    };
    let (plan, _) = host()
        .materialize(&plugin, &context, &request(json!({})))
        .await
        .unwrap();
    assert_eq!(plan.program, "sh");
}

/// As far as `profiles/codex/profile.yml` matters here.
#[derive(Deserialize)]
struct Shipped {
    plugin: ShippedPlugin,
}

#[derive(Deserialize)]
struct ShippedPlugin {
    component: String,
    config: serde_json::Value,
    grants: Grants,
}

/// Every bundled profile that names a plugin of its own plans under exactly what it grants.
#[tokio::test]
async fn bundled_profiles_with_a_plugin_of_their_own_plan_under_their_grants() {
    let mut planned = 0;
    for file in crate::bundled::profiles() {
        let text = std::str::from_utf8(file.bytes).unwrap();
        let Ok(Shipped { plugin: own }) = serde_saphyr::from_str(text) else {
            continue;
        };
        let plugin = host().load(component(&own.component)).await.unwrap();
        let context = CallContext {
            grants: own.grants,
            ..context()
        };
        let request = PlanRequest {
            operator: json!({"base_url": "http://127.0.0.1:9/v1"}),
            config: own.config,
            layers: layers(),
            ..request(json!({}))
        };
        let made = host().materialize(&plugin, &context, &request).await;
        let (plan, report) = made.unwrap_or_else(|error| panic!("{}: {error}", file.path));
        assert!(
            !plan.program.is_empty() && report.denials.is_empty(),
            "{}",
            file.path
        );
        planned += 1;
    }
    assert!(planned >= 2, "only {planned} profiles were looked at");
}
