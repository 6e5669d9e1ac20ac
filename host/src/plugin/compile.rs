//! From a component's bytes to code: in a process of its own, or out of the cache of an earlier time.
//!
//! A compiler that runs on bytes from outside can need any amount of memory and time. As a child it can be killed, its memory is
//! gone when it ends, and the server itself never grows by it. The child is this same program (`agenticore compile-plugin`), so
//! what it writes is trusted as our own code is; what lies on disk later is trusted only with our [`cache`]'s seal.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::error::{Code, PluginError};
use super::limits::{Limits, millis};
use super::{Core, Digest, engine, metrics, text};
use crate::process::{Instance, JobMarker, Spawn};

pub(super) mod cache;

use self::cache::CompiledCache;

/// The most memory that a compiler may map, in bytes. A component of the largest allowed size stays far below it.
const MAX_MEMORY: u64 = 4 << 30;
/// The most code that a compiler may write, in bytes.
const MAX_CODE: u64 = 512 << 20;
const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();
/// How much of what a compiler says is kept.
const MAX_STDERR: usize = 4 * 1024;

/// Where components are compiled.
#[derive(Debug, Clone, Default)]
pub enum Compiler {
    /// In this process: for commands that end soon, and for programs that are not `agenticore`.
    #[default]
    InProcess,
    /// In a child process.
    Child(ChildCompiler),
}

/// How a compiling child is started.
#[derive(Debug, Clone)]
pub struct ChildCompiler {
    /// The `agenticore` binary.
    pub program: PathBuf,
    /// The server it belongs to.
    pub instance: Instance,
}

impl ChildCompiler {
    /// This very program, as the kernel knows it: also right when the file was replaced by an upgrade.
    #[must_use]
    pub fn this_program(instance: Instance) -> Self {
        Self {
            program: "/proc/self/exe".into(),
            instance,
        }
    }
}

/// The code of a component, from the cache or a compiler.
pub(super) async fn compile(
    core: &Core,
    bytes: Arc<[u8]>,
    digest: Digest,
) -> Result<Component, PluginError> {
    let begun = Instant::now();
    if let Some(cache) = &core.compiled
        && let Some(component) = load_cached(core, cache.clone(), digest).await
    {
        metrics::compiled(true, begun.elapsed());
        return Ok(component);
    }
    let compiled = compile_anew(core, bytes, digest).await;
    metrics::compiled(false, begun.elapsed());
    compiled
}

async fn compile_anew(
    core: &Core,
    bytes: Arc<[u8]>,
    digest: Digest,
) -> Result<Component, PluginError> {
    let closed = |_| PluginError::new(Code::Host, "the host is shutting down");
    let permit = Arc::clone(&core.compiles)
        .acquire_owned()
        .await
        .map_err(closed)?;
    match &core.compiler {
        Compiler::InProcess => {
            let (engine, cache) = (core.engine.clone(), core.compiled.clone());
            let task = tokio::task::spawn_blocking(move || {
                // Kept until the end: a compilation here cannot be ended from outside.
                let _permit = permit;
                let component = Component::from_binary(&engine, &bytes)
                    .map_err(|e| does_not_compile(&format!("{e:#}")))?;
                if let (Some(cache), Ok(code)) = (cache, component.serialize()) {
                    cache.store(&engine, digest, &code);
                }
                Ok(component)
            });
            in_time(core, async { task.await.map_err(failed)? }).await
        }
        Compiler::Child(child) => {
            let code = in_time(core, in_child(child, &core.limits, &bytes)).await?;
            drop(permit);
            let (engine, cache) = (core.engine.clone(), core.compiled.clone());
            let task = tokio::task::spawn_blocking(move || {
                let component =
                    deserialize(&engine, &code).map_err(|e| does_not_compile(&format!("{e:#}")));
                if let (Ok(_), Some(cache)) = (&component, cache) {
                    cache.store(&engine, digest, &code);
                }
                component
            });
            task.await.map_err(failed)?
        }
    }
}

async fn load_cached(core: &Core, cache: Arc<CompiledCache>, digest: Digest) -> Option<Component> {
    let engine = core.engine.clone();
    let task = tokio::task::spawn_blocking(move || {
        let code = cache.load(&engine, digest)?;
        match deserialize(&engine, &code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::debug!(%error, "cached code does not fit this engine");
                None
            }
        }
    });
    task.await.ok().flatten()
}

async fn in_time<T>(
    core: &Core,
    work: impl Future<Output = Result<T, PluginError>>,
) -> Result<T, PluginError> {
    let deadline = core.limits.compile_time;
    tokio::time::timeout(deadline, work)
        .await
        .unwrap_or_else(|_| {
            let allowed = millis(deadline);
            let used = allowed.saturating_add(1);
            let message = "compiling did not end in time";
            Err(PluginError::limit(
                Code::CompileTime,
                "compile_time",
                used,
                allowed,
                message,
            ))
        })
}

fn does_not_compile(cause: &str) -> PluginError {
    let cause = text::line(cause, 500);
    PluginError::new(
        Code::Compile,
        format!("the component does not compile: {cause}"),
    )
}

fn failed(problem: impl std::fmt::Display) -> PluginError {
    PluginError::new(Code::Host, format!("the compiler failed: {problem}"))
}

/// Compiles in a child. Dropping the future kills it.
async fn in_child(
    child: &ChildCompiler,
    limits: &Limits,
    bytes: &[u8],
) -> Result<Vec<u8>, PluginError> {
    let dir = tempfile::Builder::new()
        .prefix("agenticore-compile-")
        .tempdir()
        .map_err(failed)?;
    let output = dir.path().join("code");
    let spawn = Spawn {
        program: child.program.clone().into(),
        arguments: vec![
            "compile-plugin".into(),
            "--stack".into(),
            limits.stack.0.to_string().into(),
            output.clone().into(),
        ],
        env: BTreeMap::new(),
        cwd: dir.path().to_owned(),
        stdin: Some(bytes.to_vec()),
        // One of its own: what has the same marker is taken for the same tree, and killed with it.
        marker: JobMarker::new(&child.instance, &format!("compile-{}", Uuid::new_v4()), 0),
    };
    let done = spawn.capture(0, MAX_STDERR).await.map_err(failed)?;
    if done.ended.exit.success() {
        return tokio::fs::read(&output).await.map_err(failed);
    }
    let said = done.stderr.text();
    Err(match (done.ended.exit.code, said.trim()) {
        (Some(1), said) if !said.is_empty() => does_not_compile(said),
        // Somebody else's doing, so the next try may do better.
        (None, _) if done.ended.exit.signal == Some(SIGKILL) => {
            failed("it was killed, perhaps because the machine is short of memory")
        }
        (code, said) => does_not_compile(&format!(
            "the compiler ended with code {code:?}, signal {:?}; it may use {} MiB of memory: {said}",
            done.ended.exit.signal,
            MAX_MEMORY >> 20
        )),
    })
}

/// The child's side: reads a component from `input`, writes its code to the file `output`.
///
/// # Errors
/// Why the component does not compile, or what the system refused.
pub fn compile_here(input: impl Read, output: &Path, stack: u64) -> Result<(), PluginError> {
    limit_resources()?;
    let limits = Limits {
        stack: bytesize::ByteSize(stack),
        ..Limits::default()
    };
    let mut bytes = Vec::new();
    let mut input = input;
    input.read_to_end(&mut bytes).map_err(failed)?;
    let engine = engine::engine(&limits)?;
    let code = engine
        .precompile_component(&bytes)
        .map_err(|e| PluginError::new(Code::Compile, format!("{e:#}")))?;
    let mut file = std::fs::File::create_new(output).map_err(failed)?;
    file.write_all(&code).map_err(failed)
}

fn limit_resources() -> Result<(), PluginError> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    for (resource, most) in [
        (Resource::As, MAX_MEMORY),
        (Resource::Fsize, MAX_CODE),
        (Resource::Core, 0),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).map_err(failed)?;
    }
    Ok(())
}

/// Takes compiled code as our own.
#[expect(
    unsafe_code,
    reason = "the engine cannot check compiled code; both callers know where it came from"
)]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes were written by `Engine::precompile_component` of this same program: they come over a private file straight
    // from our child, or from the cache, whose seal is made with a key that only this user's processes can read.
    unsafe { Component::deserialize(engine, code) }
}
