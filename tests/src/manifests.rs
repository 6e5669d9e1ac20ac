//! Kubernetes objects, read from YAML.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Objects as `kubectl apply` would send them.
#[derive(Debug, Clone)]
pub struct Manifests(Vec<Value>);

impl Manifests {
    /// The objects of the YAML files of a folder, without those of folders below it: what `kubectl apply -f FOLDER` takes.
    ///
    /// # Panics
    /// When a file cannot be read or is no YAML.
    #[must_use]
    pub fn folder(folder: &Path) -> Self {
        let mut files: Vec<_> = fs::read_dir(folder)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| {
                let extension = path.extension().unwrap_or_default();
                ["yaml", "yml", "json"].iter().any(|e| extension == *e)
            })
            .collect();
        files.sort();
        Self(files.iter().flat_map(|file| Self::file(file).0).collect())
    }

    /// The objects of one file.
    ///
    /// # Panics
    /// When it cannot be read or is no YAML.
    #[must_use]
    pub fn file(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Self::parse(&text)
    }

    /// The objects of a text of one or more documents.
    ///
    /// # Panics
    /// When it is no YAML.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let all: Vec<Value> =
            serde_saphyr::from_multiple(text).unwrap_or_else(|e| panic!("{e} in:\n{text}"));
        Self(all.into_iter().filter(|object| !object.is_null()).collect())
    }

    /// All objects.
    #[must_use]
    pub fn all(&self) -> &[Value] {
        &self.0
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The objects of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// The object of this kind and name.
    #[must_use]
    pub fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
    }

    /// The only object of a kind.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[must_use]
    pub fn the(&self, kind: &str) -> &Value {
        let all: Vec<&Value> = self.0.iter().filter(|o| o["kind"] == kind).collect();
        match all.as_slice() {
            [one] => one,
            other => panic!("{} objects of kind {kind} instead of one", other.len()),
        }
    }

    /// The objects that make pods of the server: the StatefulSet or the Deployment.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn server(&self) -> &Value {
        self.0
            .iter()
            .find(|o| o["kind"] == "StatefulSet" || o["kind"] == "Deployment")
            .expect("a StatefulSet or a Deployment")
    }
}

/// The pod (its `metadata` and `spec`) of an object that makes one; none: it makes none.
#[must_use]
pub fn pod_template(object: &Value) -> Option<&Value> {
    match object["kind"].as_str()? {
        "StatefulSet" | "Deployment" | "Job" => Some(&object["spec"]["template"]),
        "Pod" => Some(object),
        _ => None,
    }
}

/// A container of a pod by its name.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    ["containers", "initContainers"]
        .iter()
        .filter_map(|kind| pod["spec"][kind].as_array())
        .flatten()
        .find(|c| c["name"] == name)
        .unwrap_or_else(|| panic!("no container {name} in {pod}"))
}

/// What is at a JSON pointer; null: nothing.
#[must_use]
pub fn at<'a>(object: &'a Value, pointer: &str) -> &'a Value {
    object.pointer(pointer).unwrap_or(&Value::Null)
}

/// The `name` of each element of a list.
#[must_use]
pub fn names(list: &Value) -> Vec<&str> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|i| i["name"].as_str()).collect()
}

/// The elements of a list of texts.
#[must_use]
pub fn strings(list: &Value) -> Vec<&str> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).collect()
}
