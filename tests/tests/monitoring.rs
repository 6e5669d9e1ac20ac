//! The alerts, the scrape configuration and the dashboard say nothing that the server does not: names, labels, kinds, documents.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use agenticore::telemetry::metrics::{Kind, METRICS};
use agenticore_tests::skip;
use serde_json::Value;

use crate::{field, text};

/// Labels that whoever scrapes adds, and those of buckets.
const SCRAPED: [&str; 3] = ["namespace", "pod", "le"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn rules() -> Vec<Value> {
    let document = yaml("k8s/monitoring/prometheusrule.yaml");
    let groups = document["spec"]["groups"]
        .as_array()
        .expect("groups")
        .clone();
    groups
        .into_iter()
        .flat_map(|g| g["rules"].as_array().expect("rules").clone())
        .collect()
}

/// Every expression of the dashboard, those of its variables too.
fn dashboard() -> Vec<String> {
    let document: Value =
        serde_json::from_str(&read("k8s/monitoring/grafana-dashboard.json")).expect("JSON");
    let panels = document["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .flat_map(|p| p["targets"].as_array().expect("targets"));
    let mut all: Vec<String> = targets.map(|t| text(t, "expr").to_owned()).collect();
    for variable in document["templating"]["list"]
        .as_array()
        .expect("variables")
    {
        all.extend(variable["definition"].as_str().map(str::to_owned));
    }
    all
}

/// The words of an expression, texts left out.
fn words(expression: &str) -> Vec<&str> {
    let outside = expression.split('"').step_by(2);
    let parts =
        outside.flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    parts.filter(|word| !word.is_empty()).collect()
}

/// The metric that a name in an expression belongs to.
fn known(name: &str) -> bool {
    METRICS.iter().any(|metric| match metric.kind {
        Kind::Histogram => {
            let suffix = name.strip_prefix(metric.name);
            suffix.is_some_and(|suffix| ["_bucket", "_sum", "_count"].contains(&suffix))
        }
        _ => metric.name == name,
    })
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_and_labels_that_exist() {
    let alerts: Vec<String> = rules().iter().map(|r| text(r, "expr").to_owned()).collect();
    let boards = dashboard();
    assert!(alerts.len() >= 6 && boards.len() >= 18);
    let labels: BTreeSet<&str> = METRICS
        .iter()
        .flat_map(|m| m.labels.iter().copied())
        .chain(SCRAPED)
        .collect();
    for expression in alerts.iter().chain(&boards) {
        let words = words(expression);
        let names: Vec<&&str> = words
            .iter()
            .filter(|w| w.starts_with("agenticore_"))
            .collect();
        assert!(!names.is_empty(), "{expression}");
        for name in names {
            assert!(known(name), "{name} does not exist: {expression}");
        }
        // What stands in braces or after `by` and is compared or grouped is a label.
        for part in expression.split('{').skip(1) {
            let inside = part.split('}').next().unwrap_or_default();
            for label in words_before_operators(inside) {
                assert!(
                    labels.contains(label),
                    "no metric has the label {label}: {expression}"
                );
            }
        }
        for part in expression.split(" by (").skip(1) {
            let inside = part.split(')').next().unwrap_or_default();
            for label in inside.split(',').map(str::trim) {
                assert!(
                    labels.contains(label),
                    "no metric has the label {label}: {expression}"
                );
            }
        }
    }
    // What is worth counting is worth seeing.
    let shown = boards.join("\n");
    for metric in METRICS {
        assert!(
            shown.contains(metric.name),
            "the dashboard does not show {}",
            metric.name
        );
    }
}

fn words_before_operators(matchers: &str) -> Vec<&str> {
    let outside = matchers.split('"').step_by(2);
    let labels = outside.map(|part| part.trim_matches([',', ' ', '=', '~', '!']));
    labels.filter(|label| !label.is_empty()).collect()
}

#[test]
fn every_alert_leads_to_a_chapter_that_exists() {
    let chapters = read("docs/operations/troubleshooting.md");
    let overview = read("docs/operations/monitoring.md");
    for rule in rules() {
        let name = text(&rule, "alert");
        let description = text(&rule["annotations"], "description");
        let chapter = description.split('"').nth(1).expect("a chapter");
        assert!(
            chapters.contains(&format!("\n## {chapter}\n")),
            "{name}: {chapter}"
        );
        assert!(
            overview.contains(&format!("`{name}`")),
            "{name} is not in the overview"
        );
        assert!(
            ["warning", "critical"].contains(&text(&rule["labels"], "severity")),
            "{name}"
        );
    }
}

/// The schemas of other projects' kinds are data to test against, and no part of this repository.
#[test]
fn the_operators_kinds_are_valid() {
    let folder = std::env::var_os("AGENTICORE_CRDS")
        .map_or_else(|| root().join("../shared/crds"), PathBuf::from);
    if !folder.is_dir() {
        skip(
            "the_operators_kinds_are_valid",
            "no schemas of the Prometheus Operator's kinds (AGENTICORE_CRDS)",
        );
        return;
    }
    for (file, schema) in [
        ("podmonitor.yaml", "podmonitor_v1.json"),
        ("prometheusrule.yaml", "prometheusrule_v1.json"),
    ] {
        let document = yaml(&format!("k8s/monitoring/{file}"));
        let schema = std::fs::read_to_string(folder.join(schema)).expect("the schema");
        let mut schema: Value = serde_json::from_str(&schema).expect("JSON");
        close(&mut schema);
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let problems: Vec<String> = validator
            .iter_errors(&document)
            .map(|e| format!("{} {e}", e.instance_path()))
            .collect();
        assert!(problems.is_empty(), "{file}: {problems:#?}");
    }
}

/// A server drops fields it does not know; a test must not.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let is_free = map.contains_key("additionalProperties")
                || map.contains_key("x-kubernetes-preserve-unknown-fields");
            let has_fields = map
                .get("properties")
                .and_then(Value::as_object)
                .is_some_and(|p| {
                    // The kind's own metadata is not spelled out.
                    !p.is_empty()
                });
            if has_fields && !is_free {
                map.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            map.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn the_alerts_fire_when_they_should() {
    let Some(promtool) = promtool() else {
        let missing = "promtool is not installed (package prometheus)";
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        skip("the_alerts_fire_when_they_should", missing);
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let document = yaml("k8s/monitoring/prometheusrule.yaml");
    // JSON is YAML.
    let groups = serde_json::to_string(field(&document, "spec")).unwrap();
    std::fs::write(folder.path().join("rules.yaml"), groups).unwrap();
    let tests = read("tests/alerts/rules_test.yaml");
    std::fs::write(folder.path().join("rules_test.yaml"), tests).unwrap();
    for arguments in [
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "rules_test.yaml"],
    ] {
        let mut command = Command::new(&promtool);
        let output = command
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

/// In the `PATH`, or where continuous integration puts its tools.
fn promtool() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([root().join("target/tools/bin")]);
    folders
        .map(|folder| folder.join("promtool"))
        .find(|file| file.is_file())
}
