//! The tools that know Kubernetes: schemas of its kinds and of the operators', and the posture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use agenticore_tests::{Manifests, output_of, shared, tool, workspace};
use serde_json::Value;

use super::{k8s, render, value_files};

/// The version of Kubernetes that objects are checked against.
const KUBERNETES: &str = "1.34";

/// Everything that is deployed, by what it is called: the manifests with what lies below them, and each rendering of the chart.
fn everything(helm: &Path) -> Vec<(String, Manifests)> {
    let mut all = vec![("k8s".to_owned(), k8s())];
    let monitoring = workspace().join("k8s/monitoring");
    if monitoring.exists() {
        all.push(("k8s-monitoring".to_owned(), yaml_below(&monitoring)));
    }
    all.extend(value_files().into_iter().map(|file| {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        (name, render(helm, Some(&file), &[]).unwrap())
    }));
    all
}

/// The objects of a folder's YAML files; dashboards in JSON are none.
fn yaml_below(folder: &Path) -> Manifests {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .fold(Manifests::parse(""), |all, file| {
            all.and(Manifests::file(&file))
        })
}

fn write(folder: &Path, name: &str, objects: &Manifests) -> std::path::PathBuf {
    let path = folder.join(format!("{name}.yaml"));
    let yaml = |object| serde_saphyr::to_string(object).unwrap();
    let documents: Vec<String> = objects.all().iter().map(yaml).collect();
    fs::write(&path, documents.join("\n---\n")).unwrap();
    path
}

#[test]
fn built_in_kinds_have_no_unknown_or_wrong_field() {
    let test = "built_in_kinds_have_no_unknown_or_wrong_field";
    let (Some(helm), Some(validate)) = (tool(test, "helm"), tool(test, "kubernetes-validate"))
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = everything(&helm)
        .iter()
        .map(|(name, objects)| write(folder.path(), name, objects))
        .collect();
    let mut command = Command::new(&validate);
    command.args(["--strict", "-k", KUBERNETES]).args(&files);
    let said = output_of(&mut command).unwrap();
    drop(said);
    // The tool must see a fault, or the above says nothing.
    let mut broken = k8s().server().clone();
    broken["spec"]["replcas"] = 2.into();
    let broken = write(
        folder.path(),
        "broken",
        &Manifests::parse(&broken.to_string()),
    );
    let mut command = Command::new(&validate);
    command.args(["--strict", "-k", KUBERNETES]).arg(broken);
    let said = output_of(&mut command).expect_err("a misspelt field");
    assert!(said.contains("replcas"), "{said}");
}

#[test]
fn kinds_of_operators_fit_their_schemas() {
    let test = "kinds_of_operators_fit_their_schemas";
    let Some(folder) = shared(test, "crds") else {
        return;
    };
    let Some(helm) = tool(test, "helm") else {
        return;
    };
    let mut checked = BTreeSet::new();
    for (what, objects) in everything(&helm) {
        for object in objects.all() {
            let (kind, version) = (
                object["kind"].as_str().unwrap(),
                object["apiVersion"].as_str().unwrap(),
            );
            let is_built_in = !version.contains('.') || version.contains(".k8s.io/");
            if is_built_in || ["apps/v1", "batch/v1", "policy/v1"].contains(&version) {
                continue;
            }
            let (_, version) = version.split_once('/').unwrap();
            let file = folder.join(format!("{}_{version}.json", kind.to_lowercase()));
            let schema: Value = serde_json::from_str(
                &fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())),
            )
            .unwrap();
            let validator = jsonschema::validator_for(&schema).unwrap();
            let errors: Vec<String> = validator
                .iter_errors(object)
                .map(|e| format!("{}: {e}", e.instance_path()))
                .collect();
            assert_eq!(errors, Vec::<String>::new(), "{what}: {kind}");
            checked.insert(kind.to_owned());
        }
    }
    for kind in ["ScaledObject", "TriggerAuthentication", "PodMonitor"] {
        assert!(
            checked.contains(kind),
            "{kind} was not checked: {checked:?}"
        );
    }
}

/// What checkov finds is either mended or has a reason in `tests/checkov-reasons.yaml`, and no reason outlives its finding.
#[test]
fn every_finding_on_posture_has_a_reason() {
    let test = "every_finding_on_posture_has_a_reason";
    let (Some(helm), Some(checkov)) = (tool(test, "helm"), tool(test, "checkov")) else {
        return;
    };
    let text = fs::read_to_string(workspace().join("tests/checkov-reasons.yaml")).unwrap();
    let reasons: BTreeMap<String, Reason> = Manifests::parse(&text).all()[0]
        .as_object()
        .unwrap()
        .iter()
        .map(|(check, reason)| (check.clone(), Reason::of(reason)))
        .collect();
    // Hidden folders are passed over.
    let folder = tempfile::Builder::new()
        .prefix("posture-")
        .tempdir()
        .unwrap();
    for (name, objects) in everything(&helm) {
        write(folder.path(), &name, &objects);
    }
    let mut command = Command::new(checkov);
    command.arg("-d").arg(folder.path()).args([
        "--framework",
        "kubernetes",
        "--skip-download",
        "--quiet",
        "--soft-fail",
        "--output",
        "json",
    ]);
    let report: Value = serde_json::from_str(&output_of(&mut command).unwrap()).unwrap();
    let failed = report["results"]["failed_checks"].as_array().unwrap();
    assert!(
        report["summary"]["passed"].as_u64() > Some(500),
        "{}",
        report["summary"]
    );
    let mut used = BTreeSet::new();
    for finding in failed {
        let (check, resource) = (
            finding["check_id"].as_str().unwrap(),
            finding["resource"].as_str().unwrap(),
        );
        let about = format!(
            "{check} {} of {resource} in {}",
            finding["check_name"], finding["file_path"]
        );
        let reason = reasons
            .get(check)
            .unwrap_or_else(|| panic!("no reason for {about}"));
        assert!(reason.covers(resource), "the reason does not cover {about}");
        used.insert(check.to_owned());
    }
    for check in reasons.keys() {
        assert!(
            used.contains(check),
            "{check} has a reason, but nothing fails it any more"
        );
    }
}

/// Why a finding stays, and of which objects; none named: of any.
struct Reason(Option<String>);

impl Reason {
    fn of(value: &Value) -> Self {
        let why = value["reason"].as_str().expect("a reason");
        assert!(why.len() > 30, "{why:?} explains nothing");
        Self(value["only"].as_str().map(str::to_owned))
    }

    fn covers(&self, resource: &str) -> bool {
        self.0
            .as_ref()
            .is_none_or(|only| resource.contains(only.as_str()))
    }
}
