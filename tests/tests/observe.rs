//! What operators see: metrics, probes, logs and traces of a live server.

use std::collections::{BTreeMap, BTreeSet};

use agenticore::telemetry::metrics::{METRICS, Presence};
use agenticore_tests::{CollectedSpan, Collector, Fleet, Repo, World, needs_redis, until};
use serde_json::{Value, json};

use crate::{field, text};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The samples of a scrape, by name and labels as they stand.
async fn scrape(world: &World) -> BTreeMap<String, f64> {
    let page = world.get("/metrics").await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(
        page.header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let samples = page
        .text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

fn value(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    *samples
        .get(name)
        .unwrap_or_else(|| panic!("{name} is not there: {samples:#?}"))
}

#[tokio::test]
async fn the_metrics_of_a_live_server_are_those_of_the_table_and_count_what_happened() {
    let world = World::start();
    let gate = world.gate("held");
    let repo = Repo::create(world.path("origin"));
    let done = world.submit("true").await;
    world.ended(&done).await;
    let failed = world.submit("exit 3").await;
    world.ended(&failed).await;
    let cloned = json!({"task": "true", "profile": "shell", "repo_url": repo.url()});
    let cloned = world.submit_body(&cloned).await;
    world.ended(&cloned).await;
    let task = format!("echo begun; {}", gate.wait());
    let held: Vec<String> = futures::future::join_all((0..4).map(|_| world.submit(&task))).await;
    // Jobs may run before every plugin is compiled; the pod is ready only then.
    until("the pod is ready, three jobs run and one waits", || async {
        let samples = scrape(&world).await;
        let is = |name: &str, expected: f64| value(&samples, name) == expected;
        (is("agenticore_ready", 1.0)
            && is("agenticore_jobs_running", 3.0)
            && is("agenticore_jobs_queued", 1.0))
        .then_some(())
    })
    .await;
    let stream = world.sse(&held[0], None).await;
    let samples = scrape(&world).await;
    let is = |name: &str, expected: f64| assert_eq!(value(&samples, name), expected, "{name}");
    is(r#"agenticore_jobs_total{outcome="succeeded"}"#, 2.0);
    is(r#"agenticore_jobs_total{outcome="failed"}"#, 1.0);
    is(r#"agenticore_jobs_total{outcome="expired"}"#, 0.0);
    is(r#"agenticore_slots{state="busy"}"#, 3.0);
    is(r#"agenticore_slots{state="free"}"#, 0.0);
    is("agenticore_sse_sessions", 1.0);
    is("agenticore_job_queue_seconds_count", 6.0);
    is("agenticore_job_run_seconds_count", 3.0);
    is(r#"agenticore_clone_seconds_count{result="ok"}"#, 1.0);
    is("agenticore_ready", 1.0);
    is("agenticore_draining", 0.0);
    is("agenticore_drain_seconds", 0.0);
    is("agenticore_drain_limit_seconds", 1.0);
    is("agenticore_lease_lost_total", 0.0);
    is(
        &format!(
            r#"agenticore_build_info{{version="{}",pod="test-pod"}}"#,
            env!("CARGO_PKG_VERSION")
        ),
        1.0,
    );
    assert!(value(&samples, "agenticore_queue_oldest_seconds") > 0.0);
    assert!(
        value(
            &samples,
            r#"agenticore_http_requests_total{method="POST",route="/jobs",status="200"}"#
        ) >= 7.0
    );
    assert!(
        value(
            &samples,
            r#"agenticore_http_request_seconds_count{route="/jobs/{id}"}"#
        ) >= 3.0
    );
    names_are_those_of_the_table(&world, false).await;
    let ids = [&done, &failed, &cloned, &held[0]];
    let page = world.get("/metrics").await.text;
    assert!(
        ids.iter().all(|id| !page.contains(id.as_str())),
        "no job is a label"
    );
    drop(stream);
    gate.open();
    for id in &held {
        world.ended(id).await;
    }
    until("the stream's end is counted", || async {
        (value(&scrape(&world).await, "agenticore_sse_sessions") == 0.0).then_some(())
    })
    .await;
}

/// Every name of the table is in the scrape, with its kind, and no other; those of Redis only where there is one.
async fn names_are_those_of_the_table(world: &World, has_redis: bool) {
    let page = world.get("/metrics").await.text;
    let seen: BTreeSet<(String, String)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    let of = |wanted: &dyn Fn(Presence) -> bool| -> BTreeSet<(String, String)> {
        let metrics = METRICS.iter().filter(|m| wanted(m.presence));
        metrics
            .map(|m| (m.name.to_owned(), m.kind.as_str().to_owned()))
            .collect()
    };
    let is_due = |p| match p {
        Presence::Always | Presence::OnceSeen => true,
        Presence::WithRedis => has_redis,
        Presence::Rarely => false,
    };
    let missing: Vec<_> = of(&is_due).difference(&seen).cloned().collect();
    assert!(
        missing.is_empty(),
        "in the table, but not in the scrape: {missing:?}"
    );
    let strange: Vec<_> = seen
        .difference(&of(&|p| is_due(p) || p == Presence::Rarely))
        .cloned()
        .collect();
    assert!(
        strange.is_empty(),
        "in the scrape, but not in the table: {strange:?}"
    );
    for metric in METRICS
        .iter()
        .filter(|m| seen.iter().any(|(name, _)| name == m.name))
    {
        let help = format!("# HELP {} {}", metric.name, metric.help);
        assert!(page.contains(&help), "{help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_a_fleet_tell_of_redis_of_lost_leases_and_of_what_went_back_to_the_queue() {
    needs_redis!();
    let fleet = Fleet::of(2);
    let [first, second] = [0, 1].map(|number| fleet.pod(number));
    let come_to = async |pod: &World, what: &str, expected: &[(&str, f64)]| {
        until(what, || async {
            let samples = scrape(pod).await;
            let is = |(name, expected): &(&str, f64)| value(&samples, name) == *expected;
            expected.iter().all(is).then_some(())
        })
        .await;
    };
    let repo = Repo::create(first.path("origin"));
    let cloned = json!({"task": "true", "profile": "shell", "repo_url": repo.url()});
    let cloned = first.submit_body(&cloned).await;
    second.ended(&cloned).await;

    let gate = first.gate("held");
    let task = format!("echo begun; {}", gate.wait());
    let held: Vec<String> = futures::future::join_all((0..7).map(|_| first.submit(&task))).await;
    for pod in [first, second] {
        let expected = [
            ("agenticore_ready", 1.0),
            ("agenticore_redis_up", 1.0),
            (r#"agenticore_slots{state="busy"}"#, 3.0),
            ("agenticore_jobs_running", 6.0),
            ("agenticore_jobs_queued", 1.0),
        ];
        come_to(pod, "every pod tells of the whole fleet", &expected).await;
    }
    let by_either: Vec<f64> = [scrape(first).await, scrape(second).await]
        .iter()
        .map(|samples| value(samples, r#"agenticore_clone_seconds_count{result="ok"}"#))
        .collect();
    assert_eq!(by_either.iter().sum::<f64>(), 1.0, "{by_either:?}");
    // The pod that cloned has had everything that waits for its first time.
    let cloner = if by_either[0] == 1.0 { first } else { second };
    names_are_those_of_the_table(cloner, true).await;

    fleet.way(1).cut();
    until("the pod that is cut off says so, and no depth", || async {
        let samples = scrape(second).await;
        let is_unknown = value(&samples, "agenticore_jobs_queued").is_nan()
            && value(&samples, "agenticore_jobs_running").is_nan();
        (value(&samples, "agenticore_redis_up") == 0.0 && is_unknown).then_some(())
    })
    .await;
    assert_eq!(value(&scrape(first).await, "agenticore_redis_up"), 1.0);
    fleet.way(1).open();
    let back = [
        ("agenticore_redis_up", 1.0),
        ("agenticore_jobs_queued", 1.0),
    ];
    come_to(second, "the pod is back", &back).await;

    second.freeze();
    let reclaimed = [(r#"agenticore_requeued_total{reason="reclaimed"}"#, 3.0)];
    come_to(first, "the frozen pod's jobs are taken back", &reclaimed).await;
    second.thaw();
    let lost = [("agenticore_lease_lost_total", 3.0)];
    come_to(second, "it is told that they are another's", &lost).await;

    first.post("/drain", &json!({"timeout_seconds": 0})).await;
    let handed = [
        (r#"agenticore_requeued_total{reason="hand_off"}"#, 3.0),
        ("agenticore_draining", 0.0),
        ("agenticore_ready", 0.0),
    ];
    come_to(first, "the drained pod's jobs are handed off", &handed).await;
    gate.open();
    for id in &held {
        let job = second.ended(id).await;
        assert_eq!(text(&job, "status"), "succeeded", "{job}");
    }
    let succeeded = [scrape(first).await, scrape(second).await];
    let succeeded = succeeded
        .iter()
        .map(|samples| value(samples, r#"agenticore_jobs_total{outcome="succeeded"}"#));
    assert_eq!(
        succeeded.sum::<f64>(),
        8.0,
        "each end is counted by one pod"
    );
}

#[tokio::test]
async fn metrics_want_a_key_unless_they_are_made_public() {
    let closed = World::builder().env("AGENTICORE_API_KEYS", "k").start();
    let bare = closed.bare_request(reqwest::Method::GET, "/metrics");
    assert_eq!(closed.send(bare).await.status, 401);
    assert_eq!(closed.get("/metrics").await.status, 200);
    let open = World::builder()
        .env("AGENTICORE_API_KEYS", "k")
        .env("AGENTICORE_METRICS_PUBLIC", "true")
        .start();
    let bare = open.bare_request(reqwest::Method::GET, "/metrics");
    assert_eq!(open.send(bare).await.status, 200);
    let jobs = open.bare_request(reqwest::Method::GET, "/jobs");
    assert_eq!(open.send(jobs).await.status, 401);
}

#[tokio::test]
async fn probes_tell_a_drain_from_a_death() {
    let world = World::start();
    until("the server is ready", || async {
        (world.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let checks = world.get("/readyz?verbose").await.body;
    let names: Vec<&str> = checks["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| text(c, "name"))
        .collect();
    assert_eq!(names, ["claiming", "plugins", "queue", "store"]);
    let gate = world.gate("held");
    let id = world.submit(&format!("echo begun; {}", gate.wait())).await;
    world.logged(&id, "begun").await;
    world
        .post("/drain", &json!({"timeout_seconds": 3000}))
        .await;
    assert_eq!(world.get("/readyz").await.status, 503);
    for path in ["/livez", "/health"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    let samples = scrape(&world).await;
    assert_eq!(value(&samples, "agenticore_draining"), 1.0);
    assert_eq!(value(&samples, "agenticore_ready"), 0.0);
    assert_eq!(value(&samples, "agenticore_drain_limit_seconds"), 3000.0);
    assert!(value(&samples, "agenticore_drain_seconds") > 0.0);
    gate.open();
    world.ended(&id).await;
    until("the drain is over", || async {
        (value(&scrape(&world).await, "agenticore_draining") == 0.0).then_some(())
    })
    .await;
}

/// The log as objects.
fn json_lines(log: &str) -> Vec<Value> {
    let lines = log.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[tokio::test]
async fn json_logs_name_job_pod_and_trace_and_no_secret() {
    let world = World::builder()
        .env("AGENTICORE_LOG_FORMAT", "json")
        .env("AGENTICORE_LOG", "info,agenticore=debug")
        .env("AGENTICORE_API_KEYS", "a-key-nobody-may-see")
        .start();
    let request = world
        .request(reqwest::Method::POST, "/jobs?api_key=a-key-nobody-may-see")
        .header("traceparent", PARENT)
        .json(&json!({"task": "true", "profile": "shell"}));
    let id = text(world.send(request).await.job(), "id").to_owned();
    world.ended(&id).await;
    let lines = until("the end is in the log", || async {
        let lines = json_lines(&world.log());
        let over = |l: &&Value| text(l, "message") == "the attempt is over";
        lines.iter().any(|l| over(&l)).then_some(lines)
    })
    .await;
    let of_job: Vec<&Value> = lines.iter().filter(|l| text(l, "job") == id).collect();
    let in_run: Vec<&&Value> = of_job
        .iter()
        .filter(|l| !field(l, "attempt").is_null())
        .collect();
    assert!(in_run.len() >= 3, "{lines:#?}");
    for line in in_run {
        assert_eq!(
            (text(line, "pod"), text(line, "trace_id")),
            ("test-pod", TRACE),
            "{line}"
        );
    }
    let access: Vec<&Value> = lines
        .iter()
        .filter(|l| text(l, "target") == "agenticore::access")
        .collect();
    let post = access
        .iter()
        .find(|l| text(l, "method") == "POST")
        .expect("the access log");
    assert_eq!(
        (text(post, "route"), &post["status"]),
        ("/jobs", &json!(200)),
        "{post}"
    );
    assert!(
        access.iter().any(|l| text(l, "method") == "GET"),
        "debug shows reads, too"
    );
    for line in world.log().lines().filter(|line| line.contains(&id)) {
        for key in ["job", "attempt", "pod", "stage", "message"] {
            let times = line.matches(&format!("\"{key}\":")).count();
            assert!(times <= 1, "{key} stands there twice: {line}");
        }
    }
    assert!(!world.log().contains("a-key-nobody-may-see"));
}

#[tokio::test]
async fn a_job_without_a_collector_still_carries_its_trace() {
    let world = World::start();
    let request = world
        .request(reqwest::Method::POST, "/jobs")
        .header("traceparent", PARENT)
        .header("tracestate", "vendor=1")
        .json(&json!({"task": "echo \"[$TRACEPARENT|$TRACESTATE|$OTEL_RESOURCE_ATTRIBUTES]\"", "profile": "shell"}));
    let id = text(world.send(request).await.job(), "id").to_owned();
    let job = world.ended(&id).await;
    assert_eq!(
        (text(&job, "trace_parent"), text(&job, "trace_state")),
        (PARENT, "vendor=1")
    );
    assert!(
        text(&job, "output").contains(&format!("[{PARENT}|vendor=1|]")),
        "{job}"
    );

    let id = world.submit("echo $TRACEPARENT").await;
    let job = world.ended(&id).await;
    let own = text(&job, "trace_parent");
    assert!(
        own.ends_with("-00") && text(&job, "output").contains(own),
        "{job}"
    );
}

fn named<'a>(spans: &'a [CollectedSpan], name: &str) -> &'a CollectedSpan {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found
        .next()
        .unwrap_or_else(|| panic!("no span {name}: {spans:#?}"));
    assert!(found.next().is_none(), "{name} is there twice");
    span
}

#[tokio::test]
async fn one_trace_leads_from_the_request_to_the_agent() {
    let collector = Collector::start().await;
    let world = World::builder()
        .env("AGENTICORE_OTEL_ENABLED", "true")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start();
    let repo = Repo::create(world.path("origin"));
    let request = world
        .request(reqwest::Method::POST, "/jobs")
        .header("traceparent", PARENT)
        .json(&json!({
            "task": "echo \"[$TRACEPARENT|$OTEL_RESOURCE_ATTRIBUTES]\"",
            "profile": "shell",
            "repo_url": repo.url(),
        }));
    let id = text(world.send(request).await.job(), "id").to_owned();
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
    let spans = until("the spans arrive", || async {
        let spans: Vec<CollectedSpan> = collector
            .spans()
            .into_iter()
            .filter(|s| s.trace == TRACE)
            .collect();
        spans.iter().any(|s| s.name == "job").then_some(spans)
    })
    .await;
    let request = named(&spans, "POST /jobs");
    assert_eq!(
        request.parent, "b7ad6b7169203331",
        "the caller's span is the parent"
    );
    assert_eq!(
        text(&job, "trace_parent"),
        format!("00-{TRACE}-{}-01", request.id)
    );
    let (queue, run) = (named(&spans, "queue"), named(&spans, "job"));
    for span in [queue, run] {
        assert_eq!(span.parent, request.id, "{}", span.name);
    }
    assert!(queue.time.0 <= queue.time.1 && queue.time.1 <= run.time.1);
    assert!(run.attributes.contains(&("job".to_owned(), id.clone())));
    for stage in ["clone", "materialize", "agent_run"] {
        let span = named(&spans, stage);
        assert_eq!(
            (&span.parent, span.service.as_str()),
            (&run.id, "agenticore"),
            "{stage}"
        );
    }
    let agent = named(&spans, "agent_run");
    let told = format!(
        "[00-{TRACE}-{}-01|agenticore.job={id},agenticore.attempt=1,agenticore.pod=test-pod,agenticore.profile=shell]",
        agent.id
    );
    assert!(
        text(&job, "output").contains(&told),
        "{told} is not in {job}"
    );
    let counted = scrape(&world).await;
    assert!(
        value(
            &counted,
            r#"agenticore_trace_spans_total{state="exported"}"#
        ) >= 6.0
    );
}

#[tokio::test]
async fn a_collector_that_is_gone_costs_spans_and_no_job() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let world = World::builder()
        .env("AGENTICORE_OTEL_ENABLED", "true")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "10")
        .start();
    let id = world.submit("true").await;
    assert_eq!(text(&world.ended(&id).await, "status"), "succeeded");
    until("the loss is counted", || async {
        let samples = scrape(&world).await;
        let failed = value(&samples, r#"agenticore_trace_spans_total{state="failed"}"#);
        (failed > 0.0).then_some(())
    })
    .await;
}
