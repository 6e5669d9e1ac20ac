//! Every hostile behaviour in one table: what happens, the code it ends with, how soon the next job is served, and what stays in memory.
//!
//! The table is `docs/plugins/hostile.md`. A run with `AGENTICORE_UPDATE_DOCS=1` writes it; every other run holds its behaviours and codes
//! to it, while times and memory are of the machine that wrote it.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use serde_json::{Value, json};

use super::loading::{component, started};
use super::support::{
    context, describing, guest, guest_bytes, host, job, layers, lowered, materialize, options,
    request, serves_the_next_job,
};
use crate::plugin::types::{Line, OutputStream, Passage, PassageKind};
use crate::plugin::{
    CallContext, Code, Grants, Limits, LimitsPatch, PluginError, PluginHost, RunRequest,
};

/// What a behaviour is done with.
enum Act {
    /// `materialize` with this configuration.
    Plan(Value),
    /// The same, without any grant.
    Ungranted(Value),
    /// The same, for a task of this many bytes.
    Task(usize),
    PreJob(Value),
    Redact(Value),
    /// A line that the agent prints.
    Line(&'static str),
    /// Loading these bytes.
    Load(Arc<[u8]>),
    /// Loading so many bytes, which nobody holds before and after.
    LoadLarge(usize),
    /// Loading bytes that must have another digest.
    Swapped,
}

struct Behaviour(&'static str, Code, Act);

fn calls() -> Vec<Behaviour> {
    use Act::{Line, Plan, PreJob, Redact, Task, Ungranted};
    let act = |name: &str| Plan(json!({"do": name}));
    let paths = |paths: &[&str]| Plan(json!({"paths": paths}));
    vec![
        Behaviour("endless loop in a call", Code::Time, act("loop")),
        Behaviour("endless loop in realloc", Code::Time, Task(424_242)),
        Behaviour(
            "endless loop in a pre hook",
            Code::Time,
            PreJob(json!({"do": "loop"})),
        ),
        Behaviour(
            "endless loop in a redacting hook",
            Code::Time,
            Redact(json!({"do": "loop"})),
        ),
        Behaviour(
            "endless loop while it reads the agent's output",
            Code::Time,
            Line("do:loop"),
        ),
        Behaviour("sleeps for an hour", Code::Time, act("sleep")),
        Behaviour("sleeps for ever", Code::Time, act("sleep-forever")),
        Behaviour(
            "fills its memory piece by piece",
            Code::Memory,
            act("memory"),
        ),
        Behaviour(
            "asks for a gigabyte at once",
            Code::Memory,
            act("memory-at-once"),
        ),
        Behaviour(
            "fills its memory while it reads the agent's output",
            Code::Memory,
            Line("do:memory"),
        ),
        Behaviour("recurses without end", Code::Stack, act("recurse")),
        Behaviour(
            "panics with terminal escapes in its message",
            Code::Trap,
            act("panic"),
        ),
        Behaviour(
            "panics with a message of 10 MiB",
            Code::Trap,
            Plan(json!({"do": "panic", "size": 10 << 20})),
        ),
        Behaviour("exits instead of answering", Code::Trap, act("exit")),
        Behaviour(
            "traps after its answer was taken",
            Code::Trap,
            Plan(json!({"plan": "size", "number": 242_424})),
        ),
        Behaviour("hoards handles of the host", Code::Handles, act("handles")),
        Behaviour(
            "hoards handles of its own",
            Code::Handles,
            act("own-handles"),
        ),
        Behaviour(
            "calls the host 20,000 times",
            Code::HostCalls,
            act("host-calls"),
        ),
        Behaviour(
            "asks for a terabyte of random bytes",
            Code::Bytes,
            act("random-huge"),
        ),
        Behaviour("logs a line of 2 MiB", Code::Bytes, act("log-huge")),
        Behaviour("floods its log", Code::Log, act("log-flood")),
        Behaviour("opens a connection", Code::Network, act("connect")),
        Behaviour("looks a host name up", Code::Network, act("resolve")),
        Behaviour("binds a socket", Code::Network, act("bind")),
        Behaviour(
            "answers with an error of 45 MiB",
            Code::Output,
            Plan(json!({"error": "huge"})),
        ),
        Behaviour(
            "writes more bytes than allowed",
            Code::Output,
            Plan(json!({"plan": "size", "number": (32 << 20) + 1})),
        ),
        Behaviour(
            "writes 2,001 files",
            Code::Files,
            Plan(json!({"plan": "files", "number": 2_001})),
        ),
        Behaviour("path that climbs out", Code::Path, paths(&["../x"])),
        Behaviour(
            "path that climbs out from within",
            Code::Path,
            paths(&["x/../../y"]),
        ),
        Behaviour("absolute path", Code::Path, paths(&["/x"])),
        Behaviour("path with an empty name", Code::Path, paths(&["a//b"])),
        Behaviour("path that ends in a slash", Code::Path, paths(&["x/"])),
        Behaviour("empty path", Code::Path, paths(&[""])),
        Behaviour("path with a NUL", Code::Path, paths(&["x\0y"])),
        Behaviour(
            "path with terminal escapes",
            Code::Path,
            paths(&["x\u{1b}[2Jy"]),
        ),
        Behaviour(
            "path that reads backwards",
            Code::Path,
            paths(&["x\u{202e}y"]),
        ),
        Behaviour(
            "path with a name of 256 bytes",
            Code::Path,
            Plan(json!({"paths": ["x".repeat(256)]})),
        ),
        Behaviour(
            "path of nine levels",
            Code::Path,
            paths(&["d/d/d/d/d/d/d/d/x"]),
        ),
        Behaviour("the same path twice", Code::Path, paths(&["x", "x"])),
        Behaviour(
            "two paths that differ in case",
            Code::Path,
            paths(&["x", "X"]),
        ),
        Behaviour(
            "two paths that differ in normalization",
            Code::Path,
            paths(&["\u{e9}", "e\u{301}"]),
        ),
        Behaviour(
            "one name as file and directory",
            Code::Path,
            paths(&["x", "x/y"]),
        ),
        Behaviour(
            "stop file above the config directory",
            Code::Path,
            Plan(json!({"stop-file": "../x"})),
        ),
        Behaviour(
            "variable that loads a library into the agent",
            Code::Grant,
            Ungranted(json!({"env": {"LD_PRELOAD": "x"}})),
        ),
        Behaviour(
            "secret that nobody granted",
            Code::Grant,
            Ungranted(json!({"env": {"A": "secret:TOKEN"}})),
        ),
        Behaviour(
            "variable of the server that nobody granted",
            Code::Grant,
            Ungranted(json!({"env": {"A": "inherit:HOME"}})),
        ),
        Behaviour(
            "program that nobody granted",
            Code::Grant,
            Ungranted(json!({"program": "bash"})),
        ),
        Behaviour(
            "hook that writes over a file of the plan",
            Code::Path,
            PreJob(json!({"verdict": "overwrite"})),
        ),
        Behaviour(
            "hook that writes a twin of a file of the plan",
            Code::Path,
            PreJob(json!({"verdict": "twin"})),
        ),
        Behaviour(
            "hook that writes where sessions are kept",
            Code::Plan,
            PreJob(json!({"verdict": "kept"})),
        ),
        Behaviour(
            "redacting hook that gives too few answers",
            Code::Answer,
            Redact(json!({"redact": "short"})),
        ),
    ]
}

fn components() -> Vec<Behaviour> {
    let load = |name, code, bytes: Vec<u8>| Behaviour(name, code, Act::Load(bytes.into()));
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let whole = guest_bytes();
    let mut flipped = whole.to_vec();
    flipped[9] ^= 0x40;
    let instances = "(core instance (instantiate $m))";
    let import = |name: &str| {
        wat(&format!(
            r#"(component (import "{name}" (instance (export "f" (func)))))"#
        ))
    };
    vec![
        load("empty file", Code::Format, Vec::new()),
        load("core module", Code::Format, wat("(module)")),
        load(
            "text in place of a component",
            Code::Format,
            b"(component)".to_vec(),
        ),
        load(
            "component that is cut off",
            Code::Format,
            whole[..whole.len() / 2].to_vec(),
        ),
        load("component with a flipped bit", Code::Format, flipped),
        Behaviour("component of 33 MiB", Code::Size, Act::LoadLarge(33 << 20)),
        load(
            "101 components in one",
            Code::Complexity,
            component(&"(component)".repeat(101), ""),
        ),
        load(
            "endless loop in a start function",
            Code::Time,
            started("(func $start (loop br 0))"),
        ),
        load(
            "trap in a start function",
            Code::Trap,
            started("(func $start unreachable)"),
        ),
        load(
            "recursion in a start function",
            Code::Stack,
            started("(func $start call $start)"),
        ),
        load(
            "memory of 4 GiB in a start function",
            Code::Memory,
            started("(memory 1) (func $start (drop (memory.grow (i32.const 65535))))"),
        ),
        load(
            "table of 20,000 entries in a start function",
            Code::Tables,
            started(
                "(table 1 funcref) (func $start (drop (table.grow (ref.null func) (i32.const 20000))))",
            ),
        ),
        load(
            "bulk copies in a loop",
            Code::Time,
            started(
                "(memory 900) (func $start (loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 58000000)) (br 0)))",
            ),
        ),
        load(
            "many memories, each small",
            Code::Memory,
            component("(core module $m (memory 300))", &instances.repeat(4)),
        ),
        load(
            "many tables, each small",
            Code::Tables,
            component(
                "(core module $m (table 4000 funcref))",
                &instances.repeat(3),
            ),
        ),
        load(
            "17 instances",
            Code::Instances,
            component("(core module $m)", &instances.repeat(17)),
        ),
        load(
            "no export of the contract",
            Code::Export,
            wat("(component)"),
        ),
        load("functions of other types", Code::Export, component("", "")),
        load(
            "built for a contract of the future",
            Code::Api,
            import("agenticore:plugin/host@9.0.0"),
        ),
        load(
            "imports what the host does not offer",
            Code::Import,
            import("acme:secrets/store@1.0.0"),
        ),
        Behaviour(
            "endless loop in describe",
            Code::Time,
            Act::Load(describing("loop")),
        ),
        Behaviour(
            "name with terminal escapes in describe",
            Code::Describe,
            Act::Load(describing("bad-name")),
        ),
        Behaviour(
            "bytes that were swapped under a pinned digest",
            Code::Digest,
            Act::Swapped,
        ),
    ]
}

/// A host that loads under short limits.
fn impatient() -> Arc<PluginHost> {
    let mut options = options();
    options.limits = Limits {
        describe_time: Duration::from_millis(1_500),
        ..options.limits
    };
    PluginHost::new(options).unwrap()
}

async fn done(act: &Act, impatient: &PluginHost) -> Result<(), PluginError> {
    let short = Some(Duration::from_millis(300));
    let quick = lowered(LimitsPatch {
        time: short,
        hook_time: short,
        ..LimitsPatch::default()
    });
    let is_endless = |config: &Value| {
        let does = config.get("do").and_then(Value::as_str).unwrap_or_default();
        matches!(does, "loop" | "sleep" | "sleep-forever")
    };
    let fitting = |config: &Value| {
        if is_endless(config) {
            quick.clone()
        } else {
            context()
        }
    };
    let (host, plugin) = (host(), guest().await);
    match act {
        Act::Plan(config) => materialize(&fitting(config), config.clone())
            .await
            .map(drop),
        Act::Ungranted(config) => {
            let nothing = CallContext {
                grants: Grants::default(),
                ..context()
            };
            materialize(&nothing, config.clone()).await.map(drop)
        }
        Act::Task(bytes) => {
            let mut request = request(json!({}));
            request.job.task = "x".repeat(*bytes);
            host.materialize(&plugin, &quick, &request).await.map(drop)
        }
        Act::PreJob(config) => {
            let (plan, _) = materialize(&context(), json!({})).await?;
            let context = fitting(config);
            let verdict = host.pre_job(&plugin, &context, &job(), config, &plan).await;
            verdict.map(drop)
        }
        Act::Redact(config) => {
            let passages = [Passage {
                kind: PassageKind::Output,
                text: "x".to_owned(),
            }];
            let context = fitting(config);
            let answers = host
                .redact(&plugin, &context, &job(), config, &passages)
                .await;
            answers.map(drop)
        }
        Act::Line(text) => {
            let context = if *text == "do:loop" { quick } else { context() };
            let start = RunRequest {
                job: job(),
                config: json!({}),
                layers: layers(),
                session: None,
            };
            let mut run = host.start_run(&plugin, &context, &start).await?;
            let line = Line {
                stream: OutputStream::Stdout,
                text: (*text).to_owned(),
                truncated: false,
            };
            run.observe(&[line]).await.map(drop)
        }
        Act::Load(bytes) => impatient.load(Arc::clone(bytes)).await.map(drop),
        Act::LoadLarge(bytes) => impatient.load(vec![0; *bytes]).await.map(drop),
        Act::Swapped => {
            let bytes = describing("swapped");
            host.load_pinned(bytes, plugin.digest()).await.map(drop)
        }
    }
}

/// Memory that is the process's own. Pages of files, such as the program's code, come and go as the kernel likes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|kib| kib.parse().ok())
        .unwrap();
    kib << 10
}

/// Does everything, and returns the table's rows.
async fn rows() -> Vec<String> {
    let impatient = impatient();
    for act in ["memory", "loop", "log-flood"] {
        let ended = done(&Act::Plan(json!({"do": act})), &impatient).await;
        assert!(ended.is_err(), "{act}");
    }
    serves_the_next_job().await;
    let all: Vec<Behaviour> = calls().into_iter().chain(components()).collect();
    let baseline = resident();
    let mut rows = Vec::new();
    for Behaviour(name, code, act) in all {
        let error = done(&act, &impatient)
            .await
            .err()
            .unwrap_or_else(|| panic!("{name}: it was let through"));
        assert_eq!(error.code, code, "{name}: {error} {}", error.detail);
        assert!(!error.remedy.is_empty(), "{name}");
        let failed = Instant::now();
        serves_the_next_job().await;
        let recovery = failed.elapsed();
        let grown = resident().saturating_sub(baseline);
        // Compiled code of the components that load stays for a while; a bomb's 64 MiB must not.
        assert!(grown < 48 << 20, "{name}: {grown} bytes more than before");
        assert!(recovery < Duration::from_secs(30), "{name}: {recovery:?}");
        rows.push(format!(
            "| {name} | `{code}` | {:.1} ms | +{} |",
            recovery.as_secs_f64() * 1e3,
            ByteSize(grown >> 20 << 20)
        ));
    }
    rows
}

fn page(rows: &[String]) -> String {
    let mut page = String::from(
        "# Hostile behaviours\n\n\
         What plugins do on purpose in the tests of this repository, the code that each ends with, how long after it the next job was\n\
         served, and how much more memory of its own the process held then than before all of them. `host/src/plugin/tests/table.rs` wrote this\n\
         page and holds its behaviours and codes; times and memory are of the machine that wrote it.\n\n\
         | behaviour | code | next job served after | memory |\n|---|---|---|---|\n",
    );
    for row in rows {
        let _ = writeln!(page, "{row}");
    }
    page
}

/// Behaviour and code of each row.
fn promises(page: &str) -> Vec<String> {
    page.lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| behaviour"))
        .map(|line| {
            line.split('|')
                .skip(1)
                .take(2)
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(" | ")
        })
        .collect()
}

/// Runs in a process of its own: other tests would be seen in its memory.
#[tokio::test]
async fn every_hostile_behaviour_ends_with_its_code_and_the_page_says_so() {
    const ALONE: &str = "AGENTICORE_TEST_TABLE";
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/plugins/hostile.md");
    if let Some(into) = std::env::var_os(ALONE) {
        fs::write(into, page(&rows().await)).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let written = dir.path().join("hostile.md");
    let name =
        "plugin::tests::table::every_hostile_behaviour_ends_with_its_code_and_the_page_says_so";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(ALONE, &written)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    let new = fs::read_to_string(&written).unwrap();
    if std::env::var_os("AGENTICORE_UPDATE_DOCS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &new).unwrap();
    }
    let old = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        promises(&old),
        promises(&new),
        "docs/plugins/hostile.md is old: run this test with AGENTICORE_UPDATE_DOCS=1"
    );
}
