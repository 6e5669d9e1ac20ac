//! The autoscaler's triggers: what they watch, how they reach it, and that the pods are told the same.

use std::collections::BTreeMap;

use agenticore_tests::{Manifests, at, container, pod_template, shared, tool};
use serde_json::Value;

use super::{env, k8s, render, value_files};

/// The triggers of a deployment by name; empty: it has none.
fn triggers(all: &Manifests) -> BTreeMap<&str, &Value> {
    let scaled = all.of_kind("ScaledObject").next();
    let triggers = scaled.and_then(|s| s["spec"]["triggers"].as_array());
    triggers
        .into_iter()
        .flatten()
        .map(|t| (t["name"].as_str().unwrap(), t))
        .collect()
}

/// The deployments that are scaled: the manifests, and what the chart renders where there is Helm.
fn scaled(test: &str) -> Vec<(String, Manifests)> {
    let mut all = vec![("k8s/".to_owned(), k8s())];
    if let Some(helm) = tool(test, "helm") {
        let rendered = value_files().into_iter().map(|file| {
            let manifests = render(&helm, Some(&file), &[]).unwrap();
            (file.display().to_string(), manifests)
        });
        all.extend(rendered);
    }
    all.retain(|(_, manifests)| !triggers(manifests).is_empty());
    assert!(!all.is_empty());
    all
}

/// The parameters that a trigger gets from its authentication.
fn authenticated<'a>(all: &'a Manifests, trigger: &Value) -> Vec<&'a str> {
    let Some(name) = at(trigger, "/authenticationRef/name").as_str() else {
        return Vec::new();
    };
    let authentication = all
        .find("TriggerAuthentication", name)
        .expect("the authentication");
    let references = authentication["spec"]["secretTargetRef"]
        .as_array()
        .unwrap();
    references
        .iter()
        .filter_map(|r| r["parameter"].as_str())
        .collect()
}

#[test]
fn three_wishes_decide_and_each_is_explicit() {
    for (what, all) in scaled("three_wishes_decide_and_each_is_explicit") {
        let triggers = triggers(&all);
        assert_eq!(
            triggers.keys().copied().collect::<Vec<_>>(),
            ["busy-floor", "demand", "queue"],
            "{what}"
        );
        let server = container(pod_template(all.server()).unwrap(), "agenticore");
        let slots = env(server, "AGENTICORE_MAX_PARALLEL_JOBS").unwrap();
        for (name, trigger) in &triggers {
            let metadata = &trigger["metadata"];
            assert_eq!(trigger["metricType"], "AverageValue", "{what}: {name}");
            assert_eq!(metadata["activationListLength"], "0", "{what}: {name}");
            assert!(metadata["databaseIndex"].is_string(), "{what}: {name}");
            // An address in the metadata wins over the authentication's: in one place, nobody can disagree.
            let sentinel = trigger["type"] == "redis-sentinel";
            let key = if sentinel { "addresses" } else { "address" };
            let places = usize::from(metadata[key].is_string())
                + authenticated(&all, trigger)
                    .iter()
                    .filter(|p| **p == key)
                    .count();
            assert_eq!(
                places, 1,
                "{what}: {name} has its address in {places} places"
            );
        }
        assert_eq!(
            triggers["demand"]["metadata"]["listLength"], slots,
            "{what}: demand counts jobs, a pod runs {slots}"
        );
        assert_eq!(
            triggers["busy-floor"]["metadata"]["listLength"], "1",
            "{what}: an element a pod"
        );
        let scaled = &all.the("ScaledObject")["spec"];
        let target = &scaled["scaleTargetRef"];
        assert_eq!(
            (&target["kind"], &target["name"]),
            (&all.server()["kind"], &all.server()["metadata"]["name"]),
            "{what}"
        );
        assert!(
            scaled["minReplicaCount"].as_u64() >= Some(1),
            "{what}: jobs are submitted to a pod"
        );
        let down = at(
            scaled,
            "/advanced/horizontalPodAutoscalerConfig/behavior/scaleDown",
        );
        assert!(
            down["stabilizationWindowSeconds"].as_u64() >= Some(300),
            "{what}"
        );
        assert_eq!(at(down, "/policies/0/value"), 1, "{what}");
    }
}

/// The CRD takes any metadata; KEDA only logs what it does not know.
#[test]
fn triggers_have_only_parameters_that_keda_knows() {
    let test = "triggers_have_only_parameters_that_keda_knows";
    let Some(path) = shared(test, "crds/keda-scalers.json") else {
        return;
    };
    let known: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for (what, all) in scaled(test) {
        for (name, trigger) in triggers(&all) {
            let scaler = known["scalers"].as_array().unwrap();
            let scaler = scaler
                .iter()
                .find(|s| s["type"] == trigger["type"])
                .unwrap();
            let parameters = scaler["parameters"].as_array().unwrap();
            let readable = |parameter: &str, from: &str| {
                parameters
                    .iter()
                    .any(|p| p["name"] == parameter && p[from] == true)
            };
            for key in trigger["metadata"].as_object().unwrap().keys() {
                assert!(
                    readable(key, "metadataVariableReadable"),
                    "{what}: {name}: {key}"
                );
            }
            for key in authenticated(&all, trigger) {
                assert!(
                    readable(key, "triggerAuthenticationVariableReadable"),
                    "{what}: {name}: {key}"
                );
            }
            for parameter in parameters
                .iter()
                .filter(|p| p["optional"] != true && p.get("default").is_none())
            {
                let needed = parameter["name"].as_str().unwrap();
                // Addresses can be told in several ways, each of which the list calls needed.
                if ["listName", "sentinelMaster"].contains(&needed)
                    && (needed == "listName" || trigger["type"] == "redis-sentinel")
                {
                    assert!(
                        trigger["metadata"][needed].is_string(),
                        "{what}: {name} lacks {needed}"
                    );
                }
            }
        }
    }
}

/// The pods' URL and the triggers say the same of database, encryption, address and user.
#[test]
fn pods_and_triggers_are_told_of_the_same_redis() {
    let Some(helm) = tool("pods_and_triggers_are_told_of_the_same_redis", "helm") else {
        return;
    };
    let mut seen = 0;
    for file in value_files() {
        let all = render(&helm, Some(&file), &[]).unwrap();
        let what = file.display();
        let server = container(pod_template(all.server()).unwrap(), "agenticore");
        let Some(url) = env(server, "REDIS_URL") else {
            continue;
        };
        let (scheme, rest) = url.split_once("://").unwrap();
        let (address, database) = rest.split_once('/').unwrap();
        assert!(!address.contains('@'), "{what}: no credentials in the URL");
        for (name, trigger) in triggers(&all) {
            seen += 1;
            let metadata = &trigger["metadata"];
            assert_eq!(metadata["databaseIndex"], database, "{what}: {name}");
            assert_eq!(
                metadata["enableTLS"] == "true",
                scheme == "rediss",
                "{what}: {name}"
            );
            if let Some(sentinels) = env(server, "REDIS_SENTINELS") {
                assert_eq!(metadata["addresses"], sentinels, "{what}: {name}");
                assert_eq!(
                    metadata["sentinelMaster"],
                    env(server, "REDIS_SENTINEL_MASTER").unwrap(),
                    "{what}"
                );
            } else {
                assert_eq!(metadata["address"], address, "{what}: {name}");
            }
            assert_eq!(
                metadata["username"].as_str(),
                env(server, "REDIS_USERNAME"),
                "{what}: {name}"
            );
            let password = secret_of(server, "REDIS_PASSWORD");
            let trigger_password = all.of_kind("TriggerAuthentication").find_map(|a| {
                let references = a["spec"]["secretTargetRef"].as_array()?;
                let password = references.iter().find(|r| r["parameter"] == "password")?;
                Some((password["name"].clone(), password["key"].clone()))
            });
            assert_eq!(password, trigger_password, "{what}: {name}");
            let list = metadata["listName"].as_str().unwrap();
            let prefix = env(server, "REDIS_KEY_PREFIX").unwrap();
            assert!(
                list.starts_with(&format!("{prefix}:")),
                "{what}: {name}: {list}"
            );
        }
    }
    assert!(
        seen >= 9,
        "three scaled deployments with three triggers each, not {seen} triggers"
    );
}

fn secret_of(container: &Value, variable: &str) -> Option<(Value, Value)> {
    let all = container["env"].as_array().unwrap();
    let reference = at(
        all.iter().find(|v| v["name"] == variable)?,
        "/valueFrom/secretKeyRef",
    );
    Some((reference["name"].clone(), reference["key"].clone()))
}

/// What the triggers watch is what the binary writes.
#[test]
fn the_watched_keys_are_the_binary_s() {
    for (what, all) in scaled("the_watched_keys_are_the_binary_s") {
        let server = container(pod_template(all.server()).unwrap(), "agenticore");
        let prefix = env(server, "REDIS_KEY_PREFIX").unwrap_or("agenticore");
        let written = written_keys(prefix);
        for (name, trigger) in triggers(&all) {
            let list = trigger["metadata"]["listName"].as_str().unwrap();
            assert!(
                written.iter().any(|key| key == list),
                "{what}: {name} watches {list}, which nobody writes: {written:?}"
            );
        }
    }
}

/// The keys of the binary under a prefix.
fn written_keys(prefix: &str) -> Vec<String> {
    let all = agenticore::queue::redis::Keys::new(prefix).all();
    all.into_iter().map(|info| info.key).collect()
}
