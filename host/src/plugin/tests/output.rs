//! Plans that break a rule: each is refused with its code, and nothing of it is left.

use bytesize::ByteSize;
use serde_json::{Value, json};

use super::support::{context, guest, host, lowered, materialize, request, serves_the_next_job};
use crate::plugin::{CallContext, Code, Grant, Grants, LimitsPatch, Origin};

async fn refused(config: Value, code: Code) -> crate::plugin::PluginError {
    let error = materialize(&context(), config.clone()).await.unwrap_err();
    assert_eq!(error.code, code, "{config}: {error}");
    assert!(!error.to_string().contains(char::is_control), "{error}");
    serves_the_next_job().await;
    error
}

#[tokio::test]
async fn bad_paths() {
    let (long, deep) = ("x".repeat(256), "d/".repeat(8) + "x");
    for path in [
        "",
        "/x",
        "../x",
        "x/../../y",
        "./x",
        "x//y",
        "x/",
        "x\\y",
        "x\0y",
        "x\ny",
        "x\u{1b}[2Jy",
        "x\u{202e}y",
        "x\u{200b}",
        long.as_str(),
        deep.as_str(),
    ] {
        refused(json!({"paths": [path]}), Code::Path).await;
        refused(json!({"keep": [path]}), Code::Path).await;
    }
    for path in ["/x", "../x", "x/../..", "x\0y"] {
        refused(json!({"argument-path": path}), Code::Path).await;
        refused(json!({"env-path": path}), Code::Path).await;
        refused(json!({"stop-file": path}), Code::Path).await;
        refused(json!({"transcript": path}), Code::Path).await;
    }
    for paths in [
        ["x", "x"],
        ["x", "X"],
        ["x", "x/y"],
        ["d/x", "D/y"],
        ["\u{e9}", "e\u{301}"],
    ] {
        refused(json!({"paths": paths}), Code::Path).await;
    }
}

#[tokio::test]
async fn counts_and_sizes_up_to_the_limit_and_not_one_more() {
    let patch = LimitsPatch {
        output_bytes: Some(ByteSize::mib(2)),
        files: Some(50),
        ..LimitsPatch::default()
    };
    let context = lowered(patch);
    for (config, limit) in [
        (
            json!({"plan": "files", "number": 51}),
            Some(("files", 51, 50)),
        ),
        (json!({"plan": "files", "number": 50}), None),
        (
            json!({"plan": "size", "number": (2 << 20) + 1}),
            Some(("output_bytes", (2 << 20) + 1, 2 << 20)),
        ),
        (json!({"plan": "size", "number": 2 << 20}), None),
        (
            json!({"plan": "stdin", "number": (2 << 20) + 1}),
            Some(("output_bytes", (2 << 20) + 1, 2 << 20)),
        ),
    ] {
        let ended = materialize(&context, config.clone()).await;
        match (ended, limit) {
            (Ok((plan, _)), None) => assert!(plan.tree.total_bytes() <= 2 << 20),
            (Err(error), Some((name, used, allowed))) => {
                let met = error.limit.as_ref().unwrap();
                assert_eq!(
                    (met.name.as_str(), met.used, met.allowed),
                    (name, used, allowed),
                    "{config}"
                );
            }
            (ended, limit) => panic!("{config}: {limit:?} {:?}", ended.map(|_| ())),
        }
    }
}

#[tokio::test]
async fn a_million_entries() {
    let error = materialize(&context(), json!({"plan": "files", "number": 1_000_000}))
        .await
        .unwrap_err();
    // Which of the two is met first depends on how the guest builds its list.
    assert!(
        matches!(error.code, Code::Memory | Code::Output | Code::Files),
        "{error}"
    );
    serves_the_next_job().await;
}

#[tokio::test]
async fn malformed_plans() {
    for config in [
        json!({"env": {"A=B": "x"}}),
        json!({"env": {"": "x"}}),
        json!({"env": {"AGENTICORE_JOB": "x"}}),
        json!({"env": {"A": "inherit:AGENTICORE_API_KEYS"}}),
        json!({"env": {"CONFIG": "x"}}),
        json!({"env": {"A": "a\0b"}}),
        json!({"env": {"A": "secret:not a name"}}),
        json!({"arguments": ["a\0b"]}),
        json!({"arguments": ["x".repeat(128 << 10)]}),
        json!({"program": "../sh"}),
        json!({"program": "bin/sh"}),
        json!({"program": "-sh"}),
        json!({"program": "sh -c"}),
        json!({"session": "--resume"}),
        json!({"session": ""}),
        json!({"keep": ["a"]}),
        json!({"keep": ["A/B.txt"]}),
        json!({"keep": ["kept/x"]}),
        json!({"stop-file": "a/b.txt"}),
        json!({"stop-file": ""}),
        json!({"copy": ["missing"]}),
        json!({"copy": ["a.md"], "layer": 7}),
    ] {
        refused(config, Code::Plan).await;
    }
}

#[tokio::test]
async fn programs_need_their_names() {
    refused(json!({"program": "curl"}), Code::Grant).await;
    refused(json!({"program": "/bin/sh"}), Code::Grant).await;
    // The ceiling of the test host names this one.
    materialize(&context(), json!({"program": "/bin/exact"}))
        .await
        .unwrap();
    let nothing = CallContext {
        grants: Grants::default(),
        ..context()
    };
    let error = materialize(&nothing, json!({})).await.unwrap_err();
    assert_eq!(
        (error.code, error.grant.as_deref()),
        (Code::Grant, Some("program:sh"))
    );
    assert!(
        error.remedy.contains("`plugin: {grants: {program: [sh]}}`"),
        "{}",
        error.remedy
    );
}

#[tokio::test]
async fn variables_and_secrets_need_grants() {
    let granted = |grants: &[&str]| CallContext {
        grants: grants
            .iter()
            .map(|grant| grant.parse::<Grant>().unwrap())
            .collect(),
        ..context()
    };
    for (env, needs) in [
        (json!({"LD_PRELOAD": "x"}), "env:LD_PRELOAD"),
        (json!({"LD_PRELOAD": "secret:LD_PRELOAD"}), "env:LD_PRELOAD"),
        (json!({"T": "secret:TOKEN"}), "secrets:TOKEN"),
        (json!({"T": "optional:TOKEN"}), "secrets:TOKEN"),
        (json!({"T": "inherit:SOME"}), "env:SOME"),
    ] {
        let config = json!({"env": env});
        let without = granted(&["program:sh", "secrets:LD_PRELOAD"]);
        let error = materialize(&without, config.clone()).await.unwrap_err();
        assert_eq!(error.grant.as_deref(), Some(needs), "{config}: {error}");
        let with = granted(&["program:sh", "secrets:LD_PRELOAD", needs]);
        materialize(&with, config).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_plugin_does_not_ask_for_it_does_not_get() {
    let plugin = host()
        .load(super::support::describing("no-requests"))
        .await
        .unwrap();
    let config = json!({"env": {"LD_PRELOAD": "x"}});
    let error = host()
        .materialize(&plugin, &context(), &request(config))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code, error.fixed_by),
        (Code::Grant, crate::plugin::Party::Author)
    );
    host()
        .materialize(&plugin, &context(), &request(json!({})))
        .await
        .unwrap();
}

#[tokio::test]
async fn json_of_a_plugin_is_strict_and_rewritten() {
    let deep = "[".repeat(65) + &"]".repeat(65);
    for text in [
        r#"{"a": 1, "a": 2}"#,
        "// x\n{}",
        "\u{feff}{}",
        deep.as_str(),
    ] {
        refused(json!({"files": {"x.json": text}}), Code::Json).await;
    }
    let config = json!({"files": {"x.json": r#"{"b":1,   "a":[ ]}"#}});
    let (plan, _) = materialize(&context(), config).await.unwrap();
    assert_eq!(
        &*plan.tree.get("x.json").unwrap().bytes,
        b"{\n  \"b\": 1,\n  \"a\": []\n}\n"
    );
}

#[tokio::test]
async fn layers_are_copied_by_the_host_and_read_only_where_declared() {
    let (plan, _) = materialize(&context(), json!({"plan": "layers"}))
        .await
        .unwrap();
    let seen = String::from_utf8(plan.tree.get("layers.txt").unwrap().bytes.to_vec()).unwrap();
    let expected = "root {\"name\":\"root\"} [a.md 3 Some(3), run.sh 5 None]\n\
                    child {\"name\":\"child\"} [data.bin 2 None, sub/b.md 1 Some(1)]";
    assert_eq!(seen, expected);

    let (plan, _) = materialize(&context(), json!({"plan": "copy-all"}))
        .await
        .unwrap();
    let copied = plan.tree.get("data.bin").unwrap();
    assert_eq!(&*copied.bytes, b"\0\x01");
    let origin = Origin::Copied {
        layer: "child".to_owned(),
        path: "data.bin".to_owned(),
    };
    assert_eq!(copied.origin, origin);
}

#[tokio::test]
async fn a_plan_without_files_is_a_plan() {
    let (plan, _) = materialize(&context(), json!({"plan": "empty"}))
        .await
        .unwrap();
    assert!(plan.tree.files().is_empty());
    assert!(guest().await.exports().profile);
}
