//! The folder `k8s/`, and the page that tells people how to use it.

use std::fs;

use agenticore_tests::{Manifests, container, pod_template, tool, workspace};
use serde_json::{Value, json};

use super::{env, k8s, render, value_file};

/// The files that the page names, and what is in them.
const FILES: [(&str, &[(&str, &str)]); 6] = [
    (
        "pvc-shared.yaml",
        &[("PersistentVolumeClaim", "agenticore-shared")],
    ),
    ("init-profiles.yaml", &[("Job", "agenticore-init-profiles")]),
    ("statefulset.yaml", &[("StatefulSet", "agenticore")]),
    (
        "headless-service.yaml",
        &[("Service", "agenticore-headless")],
    ),
    ("service.yaml", &[("Service", "agenticore")]),
    (
        "keda-scaledobject.yaml",
        &[
            ("ScaledObject", "agenticore"),
            ("TriggerAuthentication", "agenticore-redis"),
        ],
    ),
];

fn file(name: &str) -> Manifests {
    Manifests::file(&workspace().join("k8s").join(name))
}

#[test]
fn the_documented_files_hold_what_they_promise() {
    for (name, objects) in FILES {
        for (kind, object) in objects {
            assert!(
                file(name).find(kind, object).is_some(),
                "{name}: {kind} {object}"
            );
        }
    }
    let claim = file("pvc-shared.yaml");
    let claim = &claim.the("PersistentVolumeClaim")["spec"];
    assert_eq!(claim["accessModes"], json!(["ReadWriteMany"]));
    assert_eq!(claim["resources"]["requests"]["storage"], "100Gi");
    let set = file("statefulset.yaml");
    let set = set.the("StatefulSet");
    assert_eq!(set["spec"]["replicas"], 2);
    let pod = pod_template(set).unwrap();
    assert_eq!(pod["metadata"]["labels"]["app"], "agenticore");
    let server = container(pod, "agenticore");
    for (name, value) in [
        ("AGENTICORE_SHARED_FS_ROOT", "/shared"),
        ("AGENTICORE_REPOS_ROOT", "/shared/repos"),
        ("AGENTICORE_JOBS_DIR", "/shared/job-state"),
        ("AGENTICORE_TRANSPORT", "sse"),
    ] {
        assert_eq!(env(server, name), Some(value), "{name}");
    }
    let service = file("service.yaml");
    let service = &service.the("Service")["spec"];
    assert_eq!(
        (&service["type"], &service["ports"][0]["port"]),
        (&json!("LoadBalancer"), &json!(8200))
    );
    let scaled = file("keda-scaledobject.yaml");
    let scaled = &scaled.the("ScaledObject")["spec"];
    assert_eq!(
        (&scaled["minReplicaCount"], &scaled["maxReplicaCount"]),
        (&json!(1), &json!(10))
    );
    let queue = scaled["triggers"].as_array().unwrap();
    let queue = queue
        .iter()
        .find(|t| t["metadata"]["listName"] == "agenticore:queue")
        .unwrap();
    assert_eq!(
        (&queue["type"], &queue["metadata"]["listLength"]),
        (&json!("redis"), &json!("5"))
    );
}

/// The secret of the page has four keys, and they must be enough.
#[test]
fn the_documented_secret_is_enough() {
    let documented = [
        "redis-url",
        "redis-address",
        "github-token",
        "anthropic-api-key",
    ];
    let mut used = Vec::new();
    for object in k8s().all() {
        collect_keys(object, &mut used);
    }
    for (key, optional) in &used {
        assert!(
            documented.contains(&key.as_str()) || *optional,
            "{key} is needed and not documented"
        );
    }
    for key in documented {
        assert!(
            used.iter().any(|(used, _)| used == key),
            "{key} is not used"
        );
    }
}

/// The keys of `agenticore-secrets` that an object names, and whether they may be missing.
fn collect_keys(value: &Value, into: &mut Vec<(String, bool)>) {
    match value {
        Value::Object(map) => {
            if map.get("name").is_some_and(|n| n == "agenticore-secrets")
                && let Some(key) = map.get("key").and_then(Value::as_str)
            {
                let optional = map.get("optional").is_some_and(|o| o == true);
                into.push((key.to_owned(), optional));
            }
            map.values().for_each(|v| collect_keys(v, into));
        }
        Value::Array(items) => items.iter().for_each(|v| collect_keys(v, into)),
        _ => {}
    }
}

/// Whoever follows the steps applies single files: what is in the others must not be needed.
#[test]
fn the_steps_need_no_file_that_they_do_not_name() {
    let by_step = file("pvc-shared.yaml")
        .and(file("init-profiles.yaml"))
        .and(file("headless-service.yaml"))
        .and(file("service.yaml"))
        .and(file("statefulset.yaml"));
    for object in by_step.all() {
        let Some(pod) = pod_template(object) else {
            continue;
        };
        if let Some(account) = pod["spec"]["serviceAccountName"].as_str() {
            assert!(
                by_step.find("ServiceAccount", account).is_some(),
                "{account}"
            );
        }
        for volume in pod["spec"]["volumes"].as_array().unwrap() {
            if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
                assert!(
                    by_step.find("PersistentVolumeClaim", claim).is_some(),
                    "{claim}"
                );
            }
        }
    }
}

/// `kubectl apply -f k8s/` takes every YAML file in it: none may be anything else, nor need what a cluster may lack.
#[test]
fn the_folder_holds_nothing_that_breaks_its_use() {
    let folder = workspace().join("k8s");
    assert!(!folder.join("kustomization.yaml").exists());
    assert!(!folder.join("kustomization.yml").exists());
    let built_in = [
        "v1",
        "apps/v1",
        "batch/v1",
        "policy/v1",
        "networking.k8s.io/v1",
    ];
    for object in k8s().all() {
        let version = object["apiVersion"].as_str().unwrap();
        let is_scaling = version == "keda.sh/v1alpha1";
        assert!(
            built_in.contains(&version) || is_scaling,
            "{version}: {object}"
        );
        assert!(
            object["metadata"]["namespace"].is_null(),
            "the namespace is the user's to choose"
        );
    }
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let objects = if path.is_file() && name.ends_with(".yaml") {
            file(&name)
        } else {
            continue;
        };
        let scaling = objects
            .all()
            .iter()
            .any(|o| o["apiVersion"] == "keda.sh/v1alpha1");
        // On a cluster without KEDA this one file fails, and with it nothing else.
        assert_eq!(scaling, name == "keda-scaledobject.yaml", "{name}");
    }
}

/// The chart in its fleet mode is the same deployment.
#[test]
fn the_chart_in_fleet_mode_deploys_what_the_manifests_do() {
    let Some(helm) = tool(
        "the_chart_in_fleet_mode_deploys_what_the_manifests_do",
        "helm",
    ) else {
        return;
    };
    let chart = render(&helm, Some(&value_file("seed")), &[]).unwrap();
    let ours = k8s();
    assert_eq!(server(&chart), server(&ours));
    for (kind, name) in [
        ("Service", "agenticore"),
        ("Service", "agenticore-headless"),
        ("PodDisruptionBudget", "agenticore"),
        ("NetworkPolicy", "agenticore"),
        ("ServiceAccount", "agenticore"),
        ("PersistentVolumeClaim", "agenticore-shared"),
        ("ScaledObject", "agenticore"),
    ] {
        let of = |all: &Manifests| {
            let mut object = all
                .find(kind, name)
                .unwrap_or_else(|| panic!("{kind} {name}"))
                .clone();
            normalize(&mut object);
            object
        };
        assert_eq!(of(&chart), of(&ours), "{kind} {name}");
    }
}

/// The server's object without what is meant to differ: how many pods there are, and how Redis is named.
fn server(all: &Manifests) -> Value {
    let mut object = all.server().clone();
    object["spec"]["replicas"].take();
    let pod = &mut object["spec"]["template"];
    for container in pod["spec"]["containers"].as_array_mut().unwrap() {
        let variables = container["env"].as_array_mut().unwrap();
        variables.retain(|v| !v["name"].as_str().unwrap().starts_with("REDIS_"));
        for variable in variables {
            // In the chart every credential may be missing.
            if let Some(reference) = variable.pointer_mut("/valueFrom/secretKeyRef") {
                reference.as_object_mut().unwrap().shift_remove("optional");
            }
        }
    }
    normalize(&mut object);
    object
}

/// Without labels and annotations of the chart's own, and without where Redis is, which a secret tells the manifests.
fn normalize(object: &mut Value) {
    match object {
        Value::Object(map) => {
            let only_app = |labels: &mut Value| {
                if let Some(labels) = labels.as_object_mut() {
                    labels.retain(|name, _| !name.contains('/'));
                }
            };
            ["labels", "matchLabels", "selector"]
                .iter()
                .for_each(|key| map.get_mut(*key).into_iter().for_each(only_app));
            if let Some(annotations) = map.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.retain(|name, _| name.starts_with("cluster-autoscaler"));
            }
            for key in ["namespace", "address", "authenticationRef"] {
                map.shift_remove(key);
            }
            map.retain(|name, value| {
                let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
                !(is_empty && ["labels", "annotations"].contains(&name.as_str()))
            });
            map.values_mut().for_each(normalize);
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        _ => {}
    }
}
