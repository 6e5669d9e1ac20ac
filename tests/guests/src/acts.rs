//! What it does before it answers, and how it fails to answer.

use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::bindings::agenticore::plugin::host::{Level, log};
use crate::bindings::agenticore::plugin::types::{Error, ErrorCode};
use crate::bindings::exports::agenticore::plugin::agent::Run as RunHandle;

/// Does the thing of that name; returns if it is one that can be survived.
#[expect(clippy::panic, reason = "the point of it")]
pub(crate) fn act(name: &str, config: &Value) {
    match name {
        "loop" => spin(),
        "sleep" => std::thread::sleep(Duration::from_secs(3_600)),
        "sleep-forever" => std::thread::sleep(Duration::MAX),
        "memory" => fill_memory(),
        "memory-at-once" => drop(vec![1_u8; 1 << 30]),
        "recurse" => drop(recurse(u64::from(crate::calls()))),
        "panic" => panic!(
            "told to panic: {}\u{1b}[2J",
            "x".repeat(config_size(config, 100))
        ),
        "exit" => std::process::exit(3),
        "handles" => hoard_pollables(),
        "own-handles" => hoard_own_handles(config),
        "host-calls" => (0..20_000).for_each(|_| {
            let _ = std::hint::black_box(SystemTime::now());
        }),
        "log-flood" => (0..100_000).for_each(|_| log(Level::Info, &"x".repeat(100))),
        "log-huge" => log(Level::Info, &"x".repeat(2 << 20)),
        "log-forged" => log(Level::Warn, "one\nerror: forged\r\u{1b}[2J\u{202e}two"),
        "log-debug" => log(Level::Debug, "for the author"),
        "stdio-flood" => stdio_flood(),
        "random-huge" => drop(wasip2::random::random::get_random_bytes(1 << 40)),
        "connect" => drop(std::net::TcpStream::connect("127.0.0.1:1")),
        "resolve" => drop(std::net::ToSocketAddrs::to_socket_addrs("localhost:1")),
        "bind" => drop(std::net::UdpSocket::bind("127.0.0.1:0")),
        _ => {}
    }
}

/// Fails to answer in the way of that name.
pub(crate) fn fail(name: &str) -> Result<(), Error> {
    let error = |code, message: String| Err(Error { code, message });
    match name {
        "config" => error(
            ErrorCode::InvalidConfig,
            "`x` must be a number\u{1b}[2J".to_owned(),
        ),
        "profile" => error(ErrorCode::InvalidProfile, "no".to_owned()),
        "unsupported" => error(ErrorCode::Unsupported, "no".to_owned()),
        "internal" => error(ErrorCode::Internal, "no".to_owned()),
        "huge" => error(ErrorCode::Internal, "x".repeat(45 << 20)),
        "long" => error(ErrorCode::Internal, "x".repeat(1 << 20)),
        _ => Ok(()),
    }
}

/// What it can see of the world, one fact a line.
pub(crate) fn look() -> String {
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    let began = Instant::now();
    let random = RandomState::new().hash_one("x");
    let secure = wasip2::random::random::get_random_u64();
    let mut lines = vec![
        format!("wall {wall}"),
        format!("elapsed {}", began.elapsed().as_nanos()),
        format!("random {random} {secure}"),
        format!("env {}", std::env::vars().count()),
        format!("args {}", std::env::args().count()),
        format!("cwd {}", wasip2::cli::environment::initial_cwd().is_some()),
        format!(
            "preopens {}",
            wasip2::filesystem::preopens::get_directories().len()
        ),
        format!(
            "stdin {:?}",
            std::io::read_to_string(std::io::stdin()).map(|text| text.len())
        ),
        format!("calls {}", crate::calls()),
    ];
    for path in ["/", ".", "/etc/passwd", "/proc/self/environ", "../x"] {
        lines.push(format!(
            "read {path} {}",
            std::fs::read(path).is_ok() || std::fs::read_dir(path).is_ok()
        ));
        lines.push(format!(
            "write {path} {}",
            std::fs::write(path, "x").is_ok()
        ));
    }
    lines.join("\n")
}

fn config_size(config: &Value, default: usize) -> usize {
    config
        .get("size")
        .and_then(Value::as_u64)
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(default)
}

fn spin() {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

fn fill_memory() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

/// Keeps nothing in memory, so that it is the engine's stack that runs out and not the guest's own.
fn recurse(depth: u64) -> u64 {
    if crate::calls() == u32::MAX {
        return depth;
    }
    recurse(depth + 1)
        .rotate_left(1)
        .wrapping_sub(u64::from(crate::calls()))
}

fn hoard_pollables() {
    for _ in 0..1_000_000 {
        std::mem::forget(wasip2::clocks::monotonic_clock::subscribe_duration(1));
    }
}

fn hoard_own_handles(config: &Value) {
    for _ in 0..1_000_000 {
        let run = crate::Run {
            config: config.clone(),
            lines: Default::default(),
            texts: Default::default(),
        };
        std::mem::forget(RunHandle::new(run));
    }
}

fn stdio_flood() {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    for number in 0..200 {
        let _ = writeln!(out, "out {number} {}", "x".repeat(1_000));
        let _ = writeln!(err, "err {number} {}", "x".repeat(1_000));
    }
    let _ = writeln!(err, "the last words");
}
