//! The Helm chart: what values make of it, and what it refuses.

use std::path::Path;

use agenticore_tests::{
    Manifests, at, container, output_of, pod_template, strings, tool, workspace,
};
use axum::Json;
use axum::http::{StatusCode, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{env, helm, render, value_file, value_files};

fn schema() -> Value {
    let text = std::fs::read_to_string(workspace().join("helm/agenticore/values.schema.json"));
    serde_json::from_str(&text.unwrap()).unwrap()
}

#[test]
fn the_chart_is_clean_and_can_be_packed() {
    let Some(program) = tool("the_chart_is_clean_and_can_be_packed", "helm") else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    for file in value_files() {
        let mut lint = helm(
            &program,
            home.path(),
            &["lint", "--strict", "helm/agenticore", "--values"],
        );
        output_of(lint.arg(&file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
    let mut package = helm(
        &program,
        home.path(),
        &["package", "helm/agenticore", "--destination"],
    );
    output_of(package.arg(home.path())).unwrap();
    let packed = format!("agenticore-{}.tgz", env!("CARGO_PKG_VERSION"));
    let packed = home.path().join(packed);
    assert!(packed.exists(), "the chart's version is the workspace's");
    // What was packed renders too, and without the chart's own tests.
    let packed = packed.display().to_string();
    let rendered = output_of(&mut helm(
        &program,
        home.path(),
        &["template", "x", &packed],
    ))
    .unwrap();
    assert!(rendered.contains("kind: Deployment"));
    let shown = output_of(&mut helm(
        &program,
        home.path(),
        &["show", "chart", &packed],
    ))
    .unwrap();
    assert!(
        shown.contains(&format!("appVersion: {}", env!("CARGO_PKG_VERSION"))),
        "{shown}"
    );
}

/// An object that takes anything would swallow a misspelt value.
#[test]
fn the_schema_of_values_is_strict_at_every_level() {
    fn walk(place: &str, schema: &Value) {
        assert!(
            schema["description"].is_string() || place.ends_with("[]") || place.ends_with(".*"),
            "{place} is not described"
        );
        let kinds = match &schema["type"] {
            Value::String(kind) => vec![kind.as_str()],
            list => strings(list),
        };
        if kinds.contains(&"object") && !place.ends_with(".*") {
            let more = &schema["additionalProperties"];
            assert!(
                *more == false
                    || more["type"].is_string()
                    || more["type"].is_array()
                    || more["properties"].is_object(),
                "{place} takes anything"
            );
            if more.is_object() {
                walk(&format!("{place}.*"), more);
            }
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{place}.{name}"), inner);
        }
        if schema["items"].is_object() {
            walk(&format!("{place}[]"), &schema["items"]);
        }
    }
    walk("values", &schema());
}

/// Every value has a default, and every default a place in the schema.
#[test]
fn the_values_and_their_schema_name_the_same() {
    fn compare(place: &str, values: &Value, schema: &Value) {
        let (Some(values), Some(properties)) =
            (values.as_object(), schema["properties"].as_object())
        else {
            return;
        };
        // A mapping that is empty by default is the user's to fill.
        if values.is_empty() {
            return;
        }
        for (name, value) in values {
            let inner = properties.get(name);
            compare(
                &format!("{place}.{name}"),
                value,
                inner.unwrap_or_else(|| panic!("{place}.{name} is not in the schema")),
            );
        }
        for name in properties.keys().filter(|name| *name != "global") {
            assert!(values.contains_key(name), "{place}.{name} has no default");
        }
    }
    let values = Manifests::file(&workspace().join("helm/agenticore/values.yaml"));
    compare("values", &values.all()[0], &schema());
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let Some(program) = tool("what_makes_no_sense_is_refused_with_its_reason", "helm") else {
        return;
    };
    let fleet = "mode=fleet,redis.host=r";
    for (set, reason) in [
        ("replica=3", "replica"),
        ("redis.prot=1", "prot"),
        ("keda.scaleDown.window=1", "window"),
        ("storage.storageClass=x", "storageClass"),
        ("config.sever.port=1", "sever"),
        ("mode=cluster", "mode"),
        ("slots=0", "slots"),
        ("slots=three", "slots"),
        ("keda.minReplicas=0", "minReplicas"),
        ("redis.port=70000", "port"),
        ("redis.keyPrefix=a b", "keyPrefix"),
        ("service.type=External", "type"),
        ("storage.size=big", "size"),
        ("image.digest=sha256:12", "digest"),
        ("env.BAD-NAME=1", "BAD-NAME"),
        ("drain.timeoutSeconds=10", "timeoutSeconds"),
        ("networkPolicy.blockedCidrs={everything}", "blockedCidrs"),
        (
            "drain.timeoutSeconds=270,terminationGracePeriodSeconds=300",
            "needs at least 330",
        ),
        ("mode=fleet", "needs a Redis"),
        ("keda.enabled=true", "needs mode fleet"),
        (
            &format!("{fleet},storage.accessMode=ReadWriteOnce"),
            "ReadWriteMany",
        ),
        (
            &format!("{fleet},keda.enabled=true,keda.minReplicas=5,keda.maxReplicas=2"),
            "maxReplicas",
        ),
        (
            &format!("{fleet},redis.auth.enabled=true"),
            "redis-password",
        ),
        (
            "mode=fleet,redis.sentinel.enabled=true",
            "redis.sentinel.addresses",
        ),
        ("ingress.enabled=true", "ingress.host"),
    ] {
        match render(&program, None, &[set]) {
            Ok(_) => panic!("{set} is rendered"),
            Err(said) => assert!(said.contains(reason), "{set}: {said}"),
        }
    }
}

#[test]
fn one_value_ties_the_drain_to_the_grace_period() {
    let Some(program) = tool("one_value_ties_the_drain_to_the_grace_period", "helm") else {
        return;
    };
    for (set, expected) in [
        ("drain.timeoutSeconds=31", ("31", 91)),
        ("drain.timeoutSeconds=3600", ("3600", 3660)),
        (
            "drain.timeoutSeconds=40,terminationGracePeriodSeconds=100",
            ("40", 100),
        ),
    ] {
        let all = render(&program, None, &[set]).unwrap();
        let pod = pod_template(all.server()).unwrap();
        let server = container(pod, "agenticore");
        assert_eq!(
            strings(at(server, "/lifecycle/preStop/exec/command"))[3],
            expected.0
        );
        assert_eq!(env(server, "AGENTICORE_DRAIN_TIMEOUT"), Some(expected.0));
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], expected.1);
    }
}

#[test]
fn the_simple_mode_is_one_server_with_its_own_volume() {
    let Some(program) = tool("the_simple_mode_is_one_server_with_its_own_volume", "helm") else {
        return;
    };
    let all = render(&program, Some(&value_file("default")), &[]).unwrap();
    let server = all.the("Deployment");
    assert_eq!(
        (
            &server["spec"]["replicas"],
            &server["spec"]["strategy"]["type"]
        ),
        (&json!(1), &json!("Recreate"))
    );
    let claim = all.the("PersistentVolumeClaim");
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(
        claim["metadata"]["annotations"]["helm.sh/resource-policy"],
        "keep"
    );
    assert!(
        claim["spec"].get("storageClassName").is_none(),
        "the cluster's default class is taken"
    );
    for kind in [
        "StatefulSet",
        "ScaledObject",
        "PodDisruptionBudget",
        "Ingress",
        "PodMonitor",
        "PrometheusRule",
        "ConfigMap",
    ] {
        assert_eq!(all.of_kind(kind).count(), 0, "{kind}");
    }
    // Its state is on the volume, and a pod that comes after it goes on under the same name.
    let server = container(pod_template(server).unwrap(), "agenticore");
    assert_eq!(env(server, "AGENTICORE_POD_NAME"), Some("agenticore"));
    for name in [
        "AGENTICORE_HOME",
        "AGENTICORE_REPOS_ROOT",
        "AGENTICORE_JOBS_DIR",
    ] {
        assert!(env(server, name).unwrap().starts_with("/data/"), "{name}");
    }
    assert!(env(server, "AGENTICORE_SHARED_FS_ROOT").is_none());
    assert!(env(server, "REDIS_URL").is_none());

    let gone = render(&program, Some(&value_file("grace-longer")), &[]).unwrap();
    assert!(
        gone.the("PersistentVolumeClaim")["metadata"]
            .get("annotations")
            .is_none()
    );
    let given = render(&program, Some(&value_file("simple-config")), &[]).unwrap();
    assert_eq!(
        given.of_kind("PersistentVolumeClaim").count(),
        0,
        "the claim is the user's"
    );
    assert_eq!(
        given.of_kind("Secret").count(),
        0,
        "the secret is the user's"
    );
}

#[test]
fn a_change_of_settings_makes_new_pods() {
    let Some(program) = tool("a_change_of_settings_makes_new_pods", "helm") else {
        return;
    };
    let sums = |set: &str| {
        let all = render(&program, None, &[set]).unwrap();
        let annotations = pod_template(all.server()).unwrap()["metadata"]["annotations"].clone();
        (
            annotations["checksum/config"].clone(),
            annotations["checksum/secret"].clone(),
        )
    };
    let before = sums("slots=3");
    assert!(before.0.is_string() && before.1.is_string());
    assert_ne!(sums("config.repos.job_ttl_seconds=7").0, before.0);
    assert_ne!(sums("secrets.apiKeys=new").1, before.1);
    assert_eq!(sums("service.port=80"), before, "and nothing else does");
}

#[test]
fn what_the_server_reads_is_what_the_values_say() {
    let Some(program) = tool("what_the_server_reads_is_what_the_values_say", "helm") else {
        return;
    };
    let all = render(&program, Some(&value_file("simple-config")), &[]).unwrap();
    let file = all.the("ConfigMap")["data"]["config.yml"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yml");
    std::fs::write(&path, file).unwrap();
    let config = agenticore::config::Config::from_parts(
        &agenticore::config::Flags::default(),
        &|_| None,
        folder.path().to_owned(),
        &path,
    )
    .unwrap();
    assert_eq!(config.job_ttl.as_secs(), 3600);
    assert_eq!(config.for_plugin("claude-code")["binary"], "claude");
}

/// The chart renders the files of `k8s/monitoring`; whether those are right is tested once, on the files.
#[test]
fn what_watches_a_release_is_what_k8s_monitoring_has() {
    let Some(program) = tool("what_watches_a_release_is_what_k8s_monitoring_has", "helm") else {
        return;
    };
    let folder = workspace().join("k8s/monitoring");
    let written = |file: &str| Manifests::file(&folder.join(file)).all()[0]["spec"].clone();
    let values = value_file("fleet-monitoring");
    let all = render(&program, Some(&values), &[]).unwrap();
    let alerts = all.the("PrometheusRule");
    assert_eq!(alerts["spec"], written("prometheusrule.yaml"));
    let monitor = all.the("PodMonitor");
    assert_eq!(
        monitor["spec"]["podMetricsEndpoints"],
        written("podmonitor.yaml")["podMetricsEndpoints"]
    );
    for object in [alerts, monitor] {
        assert_eq!(object["metadata"]["labels"]["release"], "prometheus");
    }
    let dashboard = all.the("ConfigMap");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(
        parsed(dashboard["data"]["agenticore.json"].as_str().unwrap()),
        parsed(&std::fs::read_to_string(folder.join("grafana-dashboard.json")).unwrap())
    );
    // Where the network decides who may ask, no key is shown.
    let open = "monitoring.podMonitor.keySecret=,monitoring.podMonitor.interval=1m";
    let open = render(&program, Some(&values), &[open]).unwrap();
    let endpoint = &open.the("PodMonitor")["spec"]["podMetricsEndpoints"][0];
    assert!(endpoint.get("authorization").is_none(), "{endpoint}");
    assert_eq!(endpoint["interval"], "1m");
}

/// Helm sets a field that was rendered before and is missing now to its default: without the number that the cluster has, turning the
/// autoscaler on would take a fleet of five down to one.
#[tokio::test(flavor = "multi_thread")]
async fn turning_the_autoscaler_on_keeps_the_pods_there_are() {
    let Some(program) = tool("turning_the_autoscaler_on_keeps_the_pods_there_are", "helm") else {
        return;
    };
    let values = value_file("seed");
    let fresh = render(&program, Some(&values), &[]).unwrap();
    assert!(
        fresh.server()["spec"].get("replicas").is_none(),
        "the number is the autoscaler's"
    );
    let fixed = render(&program, Some(&values), &["keda.enabled=false"]).unwrap();
    assert_eq!(fixed.server()["spec"]["replicas"], 2);

    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::start().await;
    std::fs::write(home.path().join("kubeconfig"), cluster.kubeconfig()).unwrap();
    let text = tokio::task::spawn_blocking(move || against_cluster(&program, home.path(), &values))
        .await
        .unwrap();
    let live = Manifests::parse(&text.unwrap());
    assert_eq!(live.the("StatefulSet")["spec"]["replicas"], 5);
}

fn against_cluster(program: &Path, home: &Path, values: &Path) -> Result<String, String> {
    let arguments = [
        "template",
        "agenticore",
        "helm/agenticore",
        "--dry-run=server",
        "--disable-openapi-validation",
    ];
    let mut command = helm(program, home, &arguments);
    command.args([
        "--show-only",
        "templates/statefulset.yaml",
        "--namespace",
        "default",
        "--values",
    ]);
    output_of(command.arg(values))
}

/// The kinds that the chart's objects are of.
const KINDS: [(&str, &[&str]); 5] = [
    (
        "v1",
        &[
            "Service",
            "ServiceAccount",
            "Secret",
            "PersistentVolumeClaim",
            "Pod",
        ],
    ),
    ("apps/v1", &["StatefulSet"]),
    ("policy/v1", &["PodDisruptionBudget"]),
    ("networking.k8s.io/v1", &["NetworkPolicy"]),
    (
        "keda.sh/v1alpha1",
        &["ScaledObject", "TriggerAuthentication"],
    ),
];

fn api_of(version: &str) -> String {
    let root = if version == "v1" { "/api" } else { "/apis" };
    format!("{root}/{version}")
}

fn resources(version: &str, kinds: &[&str]) -> Value {
    let resources: Vec<Value> = kinds
        .iter()
        .map(|kind| {
            let plural = kind.to_lowercase().replace("policy", "policie") + "s";
            json!({"name": plural, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get"]})
        })
        .collect();
    json!({"kind": "APIResourceList", "groupVersion": version, "resources": resources})
}

fn groups() -> Value {
    let groups: Vec<Value> = KINDS
        .iter()
        .filter_map(|(version, _)| {
            let (name, short) = version.split_once('/')?;
            let version = json!({"groupVersion": version, "version": short});
            Some(json!({"name": name, "versions": [version], "preferredVersion": version}))
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// As much of a cluster's API as a look at one StatefulSet needs.
struct Cluster {
    port: u16,
}

impl Cluster {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = axum::Router::new().fallback(Self::answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port }
    }

    async fn answer(uri: Uri) -> (StatusCode, Json<Value>) {
        let path = uri.path();
        let group = KINDS.iter().find(|(version, _)| path == api_of(version));
        let found = match (path, group) {
            (_, Some((version, kinds))) => resources(version, kinds),
            ("/version", _) => json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0"}),
            ("/api", _) => json!({"kind": "APIVersions", "versions": ["v1"]}),
            ("/apis", _) => groups(),
            ("/apis/apps/v1/namespaces/default/statefulsets/agenticore", _) => json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet",
                "metadata": {"name": "agenticore", "namespace": "default", "labels": {"app.kubernetes.io/managed-by": "Helm"},
                    "annotations": {"meta.helm.sh/release-name": "agenticore", "meta.helm.sh/release-namespace": "default"}},
                "spec": {"replicas": 5}}),
            _ => {
                let status = json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound"});
                return (StatusCode::NOT_FOUND, Json(status));
            }
        };
        (StatusCode::OK, Json(found))
    }

    fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{}", self.port)}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        })
        .to_string()
    }
}
