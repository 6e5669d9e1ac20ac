//! What is deployed: the manifests in `k8s/` and what the Helm chart renders.
//!
//! - `rules`: what must hold of any deployment, looked at in the YAML of all of them.
//! - `seed`: the folder `k8s/` and the page that tells how to apply it.
//! - `chart`: what values make of the chart, and what is refused.
//! - `autoscaler`: triggers, keys and addresses.
//! - `validators`: the tools that know Kubernetes.

mod autoscaler;
mod chart;
mod rules;
mod seed;
mod validators;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agenticore_tests::{Manifests, output_of, workspace};

/// What `kubectl apply -f k8s/` applies.
fn k8s() -> Manifests {
    Manifests::folder(&workspace().join("k8s"))
}

/// A variable of a container's environment, if it has a literal value.
fn env<'a>(container: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    let all = container["env"].as_array()?;
    all.iter().find(|e| e["name"] == name)?["value"].as_str()
}

/// The value files that the chart is tested with.
fn value_files() -> Vec<PathBuf> {
    let folder = workspace().join("helm/agenticore/ci");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn value_file(name: &str) -> PathBuf {
    workspace().join(format!("helm/agenticore/ci/{name}-values.yaml"))
}

/// Helm with a home of its own, so that it neither reads nor writes the user's.
fn helm(program: &Path, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("HOME", home)
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"))
        .env("KUBECONFIG", home.join("kubeconfig"))
        .current_dir(workspace());
    command
}

/// Renders the chart as the release `agenticore`, with a value file and settings on top of it.
fn render(program: &Path, values: Option<&Path>, set: &[&str]) -> Result<Manifests, String> {
    let home = tempfile::tempdir().unwrap();
    let mut command = helm(
        program,
        home.path(),
        &["template", "agenticore", "helm/agenticore"],
    );
    if let Some(values) = values {
        command.arg("--values").arg(values);
    }
    for setting in set {
        command.args(["--set", setting]);
    }
    output_of(&mut command).map(|text| Manifests::parse(&text))
}
