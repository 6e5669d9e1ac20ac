//! Bytes that are no plugin, and components that go wrong before anyone calls them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;

use super::support::{describing, guest_bytes, host, limits, options, serves_the_next_job};
use crate::plugin::{Code, HostOptions, Limits, PluginError, PluginHost, read_component};

fn with(change: impl FnOnce(&mut Limits)) -> Arc<PluginHost> {
    let mut options = options();
    change(&mut options.limits);
    PluginHost::new(options).unwrap()
}

async fn refused(host: &PluginHost, bytes: impl Into<Arc<[u8]>>, code: Code) -> PluginError {
    let error = host.load(bytes).await.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    error
}

/// A component of these core modules, which exports hooks of some type; `modules` is WAT.
pub(super) fn component(modules: &str, instances: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            {modules}
            (core module $f (func (export "f")))
            {instances}
            (core instance $fi (instantiate $f))
            (func $f (canon lift (core func $fi "f")))
            (instance $hooks (export "pre-job" (func $f)) (export "post-job" (func $f)))
            (export "agenticore:plugin/hooks@1.0.0" (instance $hooks)))"#
    );
    wat::parse_str(text).unwrap()
}

pub(super) fn started(start: &str) -> Vec<u8> {
    let module = format!("(core module $m {start} (start $start))");
    component(&module, "(core instance (instantiate $m))")
}

#[tokio::test]
async fn what_is_not_a_component_is_named() {
    let whole = guest_bytes();
    let module = wat::parse_str("(module)").unwrap();
    let cases: [(&[u8], &str); 9] = [
        (b"", "empty"),
        (b"\0as", "cut off"),
        (&module, "core WebAssembly module"),
        (b"(component)", "WebAssembly text"),
        (b" \n(module)", "WebAssembly text"),
        (b"\x7fELF....", "not WebAssembly"),
        (b"\0asm\x09\0\x01\0", "version that is not known"),
        (&whole[..whole.len() / 2], "cut off"),
        (&whole[..whole.len() - 1], "cut off"),
    ];
    for (bytes, what) in cases {
        let error = refused(&host(), bytes, Code::Format).await;
        assert!(error.message.contains(what), "{what}: {error}");
    }
    serves_the_next_job().await;
}

#[tokio::test]
async fn mutated_components_are_errors_and_never_panics() {
    let whole = guest_bytes();
    // A walk through the file with changes at places that are far apart; the fuzz target does the rest.
    for step in 0..12_usize {
        let mut bytes = whole.to_vec();
        let at = 8 + step * 7_001 % (bytes.len() - 8);
        bytes[at] ^= 1 << (step % 8);
        let report = host().check(bytes).await;
        assert_eq!(report.ok, report.error.is_none());
    }
    serves_the_next_job().await;
}

#[tokio::test]
async fn size_and_complexity_are_bounded() {
    let host = with(|limits| limits.component_bytes = ByteSize::kib(1));
    let error = refused(&host, guest_bytes(), Code::Size).await;
    assert_eq!(error.limit.as_ref().unwrap().allowed, 1024);

    let functions = "(func)".repeat(101);
    let module = format!("(core module {functions})");
    let host = with(|limits| limits.component_functions = 100);
    let error = refused(&host, component(&module, ""), Code::Complexity).await;
    assert_eq!(error.limit.as_ref().unwrap().name, "component_functions");

    let host = with(|limits| limits.component_sections = 5);
    let error = refused(&host, guest_bytes(), Code::Complexity).await;
    assert_eq!(error.limit.as_ref().unwrap().name, "component_sections");

    let mut body = String::new();
    for _ in 0..2_000 {
        body.push_str("i32.const 1 drop ");
    }
    let module = format!("(core module (func {body}))");
    let host = with(|limits| limits.function_bytes = ByteSize::kib(1));
    let error = refused(&host, component(&module, ""), Code::Complexity).await;
    assert_eq!(error.limit.as_ref().unwrap().name, "function_bytes");

    let components = component(&"(component)".repeat(101), "");
    refused(&super::support::host(), components, Code::Complexity).await;
}

#[tokio::test]
async fn a_compile_bomb_ends_at_the_deadline() {
    // Within all counts, and slow to compile: many large functions.
    let mut body = String::new();
    for turn in 0..6_000 {
        write!(
            body,
            "local.get {} local.get {} i64.mul local.set {} ",
            turn % 50,
            turn % 49,
            turn % 47
        )
        .unwrap();
    }
    let locals = "i64 ".repeat(50);
    let function = format!("(func (local {locals}) {body})");
    let bomb = component(&format!("(core module {})", function.repeat(300)), "");
    let host = with(|limits| limits.compile_time = Duration::from_millis(20));
    let error = refused(&host, bomb, Code::CompileTime).await;
    assert_eq!(error.limit.as_ref().unwrap().name, "compile_time");
    // The deadline depends on the machine, so the answer is not kept and the host goes on.
    serves_the_next_job().await;
}

#[tokio::test]
async fn start_functions_are_under_the_limits() {
    let host = with(|limits| limits.describe_time = Duration::from_millis(500));
    let endless = started("(func $start (loop br 0))");
    let error = refused(&host, endless, Code::Time).await;
    assert_eq!(error.limit.as_ref().unwrap().name, "describe_time");

    let host = super::support::host();
    refused(&host, started("(func $start unreachable)"), Code::Trap).await;
    refused(&host, started("(func $start call $start)"), Code::Stack).await;
    let grow = "(memory 1) (func $start (drop (memory.grow (i32.const 65535))))";
    let error = refused(&host, started(grow), Code::Memory).await;
    assert!(
        error.limit.as_ref().unwrap().used > 4_000_000_000,
        "{error}"
    );
    let table =
        "(table 1 funcref) (func $start (drop (table.grow (ref.null func) (i32.const 20000))))";
    let error = refused(&host, started(table), Code::Tables).await;
    assert_eq!(error.limit.as_ref().unwrap().name, "table_entries");
    serves_the_next_job().await;
}

#[tokio::test]
async fn bulk_copies_in_a_loop_end_at_the_deadline() {
    let host = with(|limits| limits.describe_time = Duration::from_millis(500));
    let copies = "(memory 900) (func $start (loop
        (memory.copy (i32.const 0) (i32.const 1000) (i32.const 58000000))
        (memory.fill (i32.const 0) (i32.const 1) (i32.const 58000000)) (br 0)))";
    refused(&host, started(copies), Code::Time).await;
}

#[tokio::test]
async fn lengths_and_texts_that_lie_are_traps() {
    let logging = |pointer: u32, length: u32| {
        let text = format!(
            r#"(component
                (import "agenticore:plugin/host@1.0.0" (instance $host
                    (type $l (enum "debug" "info" "warn" "error"))
                    (export "level" (type $level (eq $l)))
                    (export "log" (func (param "level" $level) (param "message" string)))))
                (core module $memory (memory (export "m") 2) (data (i32.const 0) "\ff\fe"))
                (core instance $memory (instantiate $memory))
                (alias core export $memory "m" (core memory $m))
                (core func $log (canon lower (func $host "log") (memory $m)))
                (core module $f (import "h" "log" (func $log (param i32 i32 i32)))
                    (func $start (call $log (i32.const 1) (i32.const {pointer}) (i32.const {length})))
                    (func (export "f")) (start $start))
                (core instance $h (export "log" (func $log)))
                (core instance $fi (instantiate $f (with "h" (instance $h))))
                (func $f (canon lift (core func $fi "f")))
                (instance $hooks (export "pre-job" (func $f)) (export "post-job" (func $f)))
                (export "agenticore:plugin/hooks@1.0.0" (instance $hooks)))"#
        );
        wat::parse_str(text).unwrap()
    };
    let host = host();
    for (pointer, length) in [
        (0, u32::MAX),
        (u32::MAX, 1),
        (0, 1 << 30),
        (131_071, 2),
        (0, 2),
    ] {
        refused(&host, logging(pointer, length), Code::Trap).await;
    }
    // What it says of itself is honest, so this one only fails for its types.
    refused(&host, logging(4, 4), Code::Export).await;
    serves_the_next_job().await;
}

#[tokio::test]
async fn a_pinned_digest_must_fit() {
    let host = host();
    let digest = host.load(guest_bytes()).await.unwrap().digest();
    host.load_pinned(guest_bytes(), digest).await.unwrap();
    let error = host
        .load_pinned(describing("swapped"), digest)
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Digest, "{error}");
}

#[tokio::test]
async fn memories_tables_and_instances_are_counted_together() {
    let host = host();
    // Each is below the limit alone.
    let memories = component(
        "(core module $m (memory 300))",
        &"(core instance (instantiate $m))".repeat(4),
    );
    refused(&host, memories, Code::Memory).await;
    let tables = component(
        "(core module $m (table 4000 funcref))",
        &"(core instance (instantiate $m))".repeat(3),
    );
    refused(&host, tables, Code::Tables).await;
    let instances = component(
        "(core module $m)",
        &"(core instance (instantiate $m))".repeat(17),
    );
    refused(&host, instances, Code::Instances).await;
    let many = format!("(core module $m {})", "(memory 0)".repeat(17));
    refused(
        &host,
        component(&many, "(core instance (instantiate $m))"),
        Code::Instances,
    )
    .await;
    serves_the_next_job().await;
}

#[tokio::test]
async fn imports_and_exports_must_fit_the_contract() {
    let host = host();
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let import = |name: &str| {
        wat(&format!(
            r#"(component (import "{name}" (instance (export "f" (func)))))"#
        ))
    };
    refused(&host, import("acme:secrets/store@1.0.0"), Code::Import).await;
    refused(
        &host,
        import("agenticore:plugin/secrets@1.0.0"),
        Code::Import,
    )
    .await;
    for version in ["2.0.0", "1.2.0", "0.9.0"] {
        let error = refused(
            &host,
            import(&format!("agenticore:plugin/host@{version}")),
            Code::Api,
        )
        .await;
        assert!(error.message.contains("1.1.0"), "{error}");
    }
    let error = refused(
        &host,
        import("wasi:http/outgoing-handler@0.2.0"),
        Code::Export,
    )
    .await;
    assert!(error.message.contains("exports none"), "{error}");
    refused(&host, wat("(component)"), Code::Export).await;
    let empty =
        r#"(component (instance $i) (export "agenticore:plugin/hooks@1.0.0" (instance $i)))"#;
    refused(&host, wat(empty), Code::Export).await;
    let newer =
        r#"(component (instance $i) (export "agenticore:plugin/hooks@1.7.0" (instance $i)))"#;
    refused(&host, wat(newer), Code::Api).await;
    // The functions are there and have other types.
    let error = refused(&host, component("", ""), Code::Export).await;
    assert!(error.message.contains("does not fit"), "{error}");
    // The host's function with another type.
    let log = wat(
        r#"(component (import "agenticore:plugin/host@1.0.0" (instance (export "log" (func (param "x" u32))))))"#,
    );
    assert!(matches!(
        host.load(log).await.unwrap_err().code,
        Code::Import | Code::Export
    ));
}

#[tokio::test]
async fn failures_are_kept_and_successes_shared() {
    let host = host();
    let bytes = describing("bad-version");
    let first = host.load(Arc::clone(&bytes)).await.unwrap_err();
    assert_eq!(
        first,
        host.load(bytes).await.unwrap_err(),
        "the same answer, report included"
    );
    let plugin = host.load(guest_bytes()).await.unwrap();
    assert!(Arc::ptr_eq(&plugin, &host.loaded(plugin.digest()).unwrap()));
}

#[tokio::test]
async fn the_cache_forgets_and_running_plugins_stay() {
    let host = PluginHost::new(HostOptions {
        limits: limits(),
        ..options()
    })
    .unwrap();
    let plugin = host.load(guest_bytes()).await.unwrap();
    for number in 0..100_u32 {
        // Not components, and each a digest of its own.
        drop(host.load(number.to_le_bytes().to_vec()).await);
    }
    assert!(host.loaded(plugin.digest()).is_none());
    let again = host.load(guest_bytes()).await.unwrap();
    assert_eq!(again.digest(), plugin.digest());
}

#[tokio::test]
async fn a_check_says_what_a_component_is() {
    let report = host().check(guest_bytes()).await;
    assert!(report.ok, "{:?}", report.error);
    let exports = report.exports.unwrap();
    assert!(exports.profile && exports.agent && exports.hooks);
    assert_eq!(
        (report.api.as_deref(), report.host_api.as_str()),
        (Some("1.1.0"), "1.1.0")
    );
    assert!(report.imports.iter().any(|import| import.refused));
    assert!(
        report
            .imports
            .iter()
            .any(|import| !import.refused && import.name.starts_with("agenticore:plugin/host@"))
    );
    let description = report.description.unwrap();
    assert_eq!(description.summary, "misbehaves\\u{1b}[2J on purpose");
    let json = serde_json::to_string(&host().check(guest_bytes()).await).unwrap();
    assert!(
        json.contains("\"sha256\":\"") && json.contains("\"requests\":{"),
        "{json}"
    );
}

#[tokio::test]
async fn files_are_read_once_and_never_beyond_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.wasm");
    std::fs::write(&path, vec![0; 2_000]).unwrap();
    let small = Limits {
        component_bytes: ByteSize::b(1_999),
        ..Limits::default()
    };
    assert_eq!(
        read_component(&path, &small).await.unwrap_err().code,
        Code::Size
    );
    assert_eq!(
        read_component(&path, &Limits::default())
            .await
            .unwrap()
            .len(),
        2_000
    );
    assert_eq!(
        read_component(&dir.path().join("none"), &small)
            .await
            .unwrap_err()
            .code,
        Code::File
    );
    assert_eq!(
        read_component(dir.path(), &small).await.unwrap_err().code,
        Code::File
    );
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    assert_eq!(
        read_component(&pipe, &small).await.unwrap_err().code,
        Code::File
    );
}
