//! What must hold of every deployment, whoever rendered it.

use std::collections::BTreeSet;

use agenticore::config::SETTINGS;
use agenticore_tests::{Manifests, at, container, names, pod_template, strings, tool};
use serde_json::{Value, json};

use super::{env, k8s, render, value_files};

/// The user of the image.
const USER: u64 = 10_001;
/// The least that the grace period is longer than the drain.
const MARGIN: u64 = 60;
/// Variables that are no settings of the server: the home, and what is handed to agents.
const NO_SETTINGS: [&str; 4] = [
    "HOME",
    "ANTHROPIC_API_KEY",
    "SLACK_TOKEN",
    "AGENTICORE_HOME",
];
/// What the server reads beside its table.
const BESIDE_THE_TABLE: [&str; 1] = ["AGENTICORE_CONFIG"];

/// Checks every rule.
fn check(what: &str, all: &Manifests) {
    for object in all.all() {
        if let Some(pod) = pod_template(object) {
            let label = format!("{what}: {} {}", object["kind"], object["metadata"]["name"]);
            let is_test = object["kind"] == "Pod";
            sandboxed(&label, pod, is_test);
        }
    }
    let server = all.server();
    let pod = pod_template(server).unwrap();
    time_to_go(what, pod);
    memory_follows_slots(what, pod);
    settings_exist(what, pod);
    probes_ask_inside(what, pod);
    selectors(what, all);
    references(what, all);
    if server["kind"] == "StatefulSet" {
        fleet(what, all, server);
    }
}

fn sandboxed(label: &str, pod: &Value, is_test: bool) {
    let spec = &pod["spec"];
    let security = &spec["securityContext"];
    assert_eq!(security["runAsNonRoot"], true, "{label}");
    // A name cannot be checked against root by the kubelet: it must be a number.
    for key in ["runAsUser", "runAsGroup"] {
        assert_eq!(security[key], USER, "{label}: {key}");
    }
    if !is_test {
        assert_eq!(security["fsGroup"], USER, "{label}");
        assert_eq!(security["fsGroupChangePolicy"], "OnRootMismatch", "{label}");
    }
    assert_eq!(
        at(security, "/seccompProfile/type"),
        "RuntimeDefault",
        "{label}"
    );
    assert_eq!(spec["automountServiceAccountToken"], false, "{label}");
    assert_eq!(spec["enableServiceLinks"], false, "{label}");
    let volumes = spec["volumes"].as_array().unwrap();
    let in_memory_or_empty = |name: &Value| {
        let volume = volumes.iter().find(|v| v["name"] == *name).unwrap();
        !volume["emptyDir"].is_null()
    };
    let containers = ["initContainers", "containers"]
        .iter()
        .filter_map(|kind| spec[kind].as_array())
        .flatten();
    for container in containers {
        let label = format!("{label}, container {}", container["name"]);
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true, "{label}");
        assert_eq!(security["allowPrivilegeEscalation"], false, "{label}");
        assert_eq!(
            security["capabilities"],
            json!({"drop": ["ALL"]}),
            "{label}"
        );
        let image = container["image"].as_str().unwrap();
        assert!(
            image.contains('@') || image.ends_with(&format!(":{}", env!("CARGO_PKG_VERSION"))),
            "{label}: {image}"
        );
        for resource in ["requests", "limits"] {
            let memory = &container["resources"][resource]["memory"];
            assert!(memory.is_string(), "{label}: no {resource} of memory");
        }
        // With a read-only root these two must be volumes, or git and agents cannot work.
        let home = env(container, "HOME").unwrap();
        for path in ["/tmp", home] {
            let mounts = container["volumeMounts"].as_array().unwrap();
            let mount = mounts.iter().find(|m| m["mountPath"] == path);
            let mount = mount.unwrap_or_else(|| panic!("{label}: nothing is mounted at {path}"));
            assert!(in_memory_or_empty(&mount["name"]), "{label}: {path}");
        }
    }
}

/// The hook, the signal and the kubelet agree on how long a drain takes.
fn time_to_go(what: &str, pod: &Value) {
    let server = container(pod, "agenticore");
    let hook = strings(at(server, "/lifecycle/preStop/exec/command"));
    let ["agenticore", "drain", "--timeout", seconds] = hook.as_slice() else {
        panic!(
            "{what}: the hook is {hook:?}; a shell in it could fail, and a failing hook is a kill"
        );
    };
    assert_eq!(
        env(server, "AGENTICORE_DRAIN_TIMEOUT"),
        Some(*seconds),
        "{what}"
    );
    let drain: u64 = seconds.parse().unwrap();
    let grace = pod["spec"]["terminationGracePeriodSeconds"]
        .as_u64()
        .unwrap();
    assert!(
        grace >= drain + MARGIN,
        "{what}: {grace} s are too short for a drain of {drain} s"
    );
    let keep = "cluster-autoscaler.kubernetes.io/safe-to-evict";
    assert_eq!(pod["metadata"]["annotations"][keep], "false", "{what}");
}

fn mebibytes(quantity: &Value) -> u64 {
    let text = quantity.as_str().unwrap();
    text.strip_suffix("Mi")
        .unwrap_or_else(|| panic!("{text} is not in Mi"))
        .parse()
        .unwrap()
}

/// An agent has half a gibibyte at least, and memory that was asked for cannot be taken away.
fn memory_follows_slots(what: &str, pod: &Value) {
    let server = container(pod, "agenticore");
    let slots: u64 = env(server, "AGENTICORE_MAX_PARALLEL_JOBS")
        .unwrap()
        .parse()
        .unwrap();
    let asked = mebibytes(at(server, "/resources/requests/memory"));
    assert!(
        asked >= 256 + slots * 512,
        "{what}: {asked} Mi for {slots} slots"
    );
    assert_eq!(
        mebibytes(at(server, "/resources/limits/memory")),
        asked,
        "{what}"
    );
}

fn settings_exist(what: &str, pod: &Value) {
    let variables = names(&container(pod, "agenticore")["env"]);
    let unique: BTreeSet<&str> = variables.iter().copied().collect();
    assert_eq!(
        unique.len(),
        variables.len(),
        "{what}: a variable is there twice"
    );
    for name in unique {
        let known = SETTINGS.iter().any(|s| s.env == name)
            || NO_SETTINGS.contains(&name)
            || BESIDE_THE_TABLE.contains(&name);
        assert!(known, "{what}: {name} is no setting");
    }
}

/// A server without keys listens on loopback alone, where the kubelet's own requests do not reach it; and liveness must not depend on
/// anything outside the pod.
fn probes_ask_inside(what: &str, pod: &Value) {
    let server = container(pod, "agenticore");
    for (probe, command) in [
        ("startupProbe", &["agenticore", "status", "--live"][..]),
        ("livenessProbe", &["agenticore", "status", "--live"]),
        ("readinessProbe", &["agenticore", "status"]),
    ] {
        let found = strings(at(&server[probe], "/exec/command"));
        assert_eq!(found, command, "{what}: {probe}");
    }
}

fn selects(selector: &Value, labels: &Value) -> bool {
    selector
        .as_object()
        .is_some_and(|all| all.iter().all(|(name, value)| labels[name] == *value))
}

/// Services, the disruption budget, the network policy and whoever scrapes take the server's pods, and no Service takes another pod.
fn selectors(what: &str, all: &Manifests) {
    let server = all.server();
    let labels = &pod_template(server).unwrap()["metadata"]["labels"];
    let match_labels = at(server, "/spec/selector/matchLabels");
    assert!(selects(match_labels, labels), "{what}");
    for service in all.of_kind("Service") {
        let selector = at(service, "/spec/selector");
        assert!(selects(selector, labels), "{what}: {service}");
        for other in all.all().iter().filter(|o| *o != server) {
            if let Some(pod) = pod_template(other) {
                let labels = &pod["metadata"]["labels"];
                assert!(
                    !selects(selector, labels),
                    "{what}: a Service selects {other}"
                );
            }
        }
    }
    for budget in all.of_kind("PodDisruptionBudget") {
        assert!(
            selects(at(budget, "/spec/selector/matchLabels"), labels),
            "{what}"
        );
        assert_eq!(
            budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow",
            "{what}"
        );
        assert!(
            budget["spec"]["maxUnavailable"].as_u64() >= Some(1),
            "{what}"
        );
    }
    for monitor in all.of_kind("PodMonitor") {
        assert!(
            selects(at(monitor, "/spec/selector/matchLabels"), labels),
            "{what}"
        );
    }
    for account in all.of_kind("ServiceAccount") {
        assert_eq!(account["automountServiceAccountToken"], false, "{what}");
    }
}

/// What a pod names is part of the deployment, or the operator's.
fn references(what: &str, all: &Manifests) {
    let operators = [
        "agenticore-secrets",
        "team-volume",
        "team-a-secrets",
        "redis-ca",
        "mine",
        "slack",
        "shared",
    ];
    for object in all.all() {
        let Some(pod) = pod_template(object) else {
            continue;
        };
        let spec = &pod["spec"];
        let volumes = spec["volumes"].as_array().unwrap();
        let mut wanted: Vec<(&str, &Value)> = volumes
            .iter()
            .flat_map(|v| {
                [
                    (
                        "PersistentVolumeClaim",
                        at(v, "/persistentVolumeClaim/claimName"),
                    ),
                    ("ConfigMap", at(v, "/configMap/name")),
                    ("Secret", at(v, "/secret/secretName")),
                ]
            })
            .collect();
        wanted.push(("ServiceAccount", &spec["serviceAccountName"]));
        for container in spec["containers"].as_array().unwrap() {
            let variables = container["env"].as_array().into_iter().flatten();
            wanted.extend(variables.map(|v| ("Secret", at(v, "/valueFrom/secretKeyRef/name"))));
        }
        for (kind, name) in wanted {
            let Some(name) = name.as_str() else { continue };
            assert!(
                all.find(kind, name).is_some() || operators.contains(&name),
                "{what}: {} needs {kind} {name}, which nobody makes",
                object["metadata"]["name"]
            );
        }
    }
}

fn fleet(what: &str, all: &Manifests, server: &Value) {
    let spec = &server["spec"];
    assert_eq!(
        spec["podManagementPolicy"], "Parallel",
        "{what}: it cannot be changed later"
    );
    let headless = all
        .find("Service", spec["serviceName"].as_str().unwrap())
        .unwrap_or_else(|| panic!("{what}: no headless Service"));
    assert_eq!(headless["spec"]["clusterIP"], "None", "{what}");
    assert_eq!(headless["spec"]["publishNotReadyAddresses"], true, "{what}");
    let pod = pod_template(server).unwrap();
    let spread = at(
        pod,
        "/spec/topologySpreadConstraints/0/labelSelector/matchLabels",
    );
    assert!(selects(spread, &pod["metadata"]["labels"]), "{what}");
    assert_eq!(
        container(pod, "init-shared-fs")["args"],
        json!(["init-shared-fs"]),
        "{what}"
    );
    let variables = container(pod, "agenticore")["env"].as_array().unwrap();
    let name = variables
        .iter()
        .find(|v| v["name"] == "AGENTICORE_POD_NAME")
        .unwrap();
    assert_eq!(
        at(name, "/valueFrom/fieldRef/fieldPath"),
        "metadata.name",
        "{what}"
    );
    for claim in all.of_kind("PersistentVolumeClaim") {
        assert_eq!(
            claim["spec"]["accessModes"],
            json!(["ReadWriteMany"]),
            "{what}"
        );
    }
}

#[test]
fn the_manifests_keep_every_rule() {
    check("k8s/", &k8s());
}

#[test]
fn everything_the_chart_renders_keeps_every_rule() {
    let Some(helm) = tool("everything_the_chart_renders_keeps_every_rule", "helm") else {
        return;
    };
    let files = value_files();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let all = render(&helm, Some(&file), &[]).unwrap();
        check(&file.display().to_string(), &all);
    }
}
