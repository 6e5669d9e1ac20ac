//! Other queues over Redis beside ours, in one run: how fast they take jobs and get through them, what a job that waits costs, and how
//! soon an idle worker has one.
//!
//! Each is a small program in `tests/peers` that answers the same command line, at the best settings its documentation has. Their
//! packages are installed below the target folder, from the registries of their languages; so this row runs only when it is asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agenticore_tests::{Redis, missing, output_of, workspace};
use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::fleet::{self, MANY};
use crate::report::Measure;

/// How many submissions to an idle worker are timed.
const PICKUPS: usize = 200;

/// A queue of others.
struct Peer {
    name: &'static str,
    program: Program,
    /// How many jobs go through it: seconds' worth.
    jobs: usize,
}

/// What its program is written for.
enum Program {
    /// A module beside a file of its requirements.
    Python(&'static str),
    Node,
    /// What the one program for all of these calls it.
    Rust(&'static str),
}

const PEERS: [Peer; 6] = [
    Peer {
        name: "BullMQ",
        program: Program::Node,
        jobs: 5_000,
    },
    Peer {
        name: "apalis-redis",
        program: Program::Rust("apalis"),
        jobs: 5_000,
    },
    Peer {
        name: "oxana, as Sidekiq",
        program: Program::Rust("oxana"),
        jobs: 5_000,
    },
    Peer {
        name: "arq",
        program: Program::Python("arq"),
        jobs: 2_000,
    },
    Peer {
        name: "RQ",
        program: Program::Python("rq"),
        jobs: 300,
    },
    Peer {
        name: "Celery",
        program: Program::Python("celery"),
        jobs: 2_000,
    },
];

/// Our store and every other queue that can be installed here.
pub(crate) async fn peers() -> Result<Vec<Measure>> {
    let own = fleet::own().await?;
    let mut measures = own.shown("agenticore");
    for peer in &PEERS {
        let figures = match peer.program.install() {
            Ok(command) => peer.measure(&command)?,
            Err(error) => {
                missing(peer.name, &format!("it cannot be installed: {error:#}"));
                continue;
            }
        };
        measures.extend(figures.beside(&own, peer.name));
    }
    Ok(measures)
}

/// What is measured of a queue.
pub(crate) struct Figures {
    /// Jobs a second from one submitter.
    pub(crate) enqueued: f64,
    /// Jobs a second submitted, run and ended.
    pub(crate) through: f64,
    /// Bytes of Redis for each job that waits.
    pub(crate) bytes: f64,
    /// Milliseconds from a submission's begin to its job's, the median and the 99th percentile.
    pub(crate) pickup: (f64, f64),
}

impl Figures {
    fn rows(&self) -> [(&'static str, f64, &'static str); 5] {
        [
            ("one submitter", self.enqueued, "/s"),
            ("end to end", self.through, "/s"),
            ("a job that waits", self.bytes, "B"),
            ("submitted to begun, p50", self.pickup.0, "ms"),
            ("submitted to begun, p99", self.pickup.1, "ms"),
        ]
    }

    fn shown(&self, name: &str) -> Vec<Measure> {
        let row = |(what, value, unit)| Measure::new(format!("{name}: {what}"), value, unit);
        self.rows().map(row).into()
    }

    fn beside(&self, own: &Self, name: &str) -> Vec<Measure> {
        let own = own.rows().map(|(_, value, _)| value);
        let rows = self.shown(name).into_iter().zip(own);
        rows.map(|(row, own)| row.beside(own, "ours")).collect()
    }
}

impl Peer {
    fn measure(&self, command: &dyn Fn() -> Command) -> Result<Figures> {
        let redis = Redis::start();
        let ask = |mode: &str, count: usize| -> Result<Vec<f64>> {
            let mut command = command();
            let count = count.to_string();
            command.args([mode, &redis.url(), &count, &MANY.to_string()]);
            let said = output_of(command.stderr(Stdio::inherit()))
                .map_err(|e| anyhow!("{} {mode}: {e}", self.name))?;
            let numbers = said.split_whitespace().map(str::parse);
            numbers
                .collect::<Result<_, _>>()
                .with_context(|| format!("{} {mode}: not numbers: {said:?}", self.name))
        };
        let clear = || redis.ask::<()>(&["FLUSHALL"]);
        let one = |numbers: Vec<f64>| numbers.first().copied().context("a number");
        let before = fleet::memory(&redis)?;
        let enqueued = one(ask("enqueue", self.jobs)?)?;
        let bytes = (fleet::memory(&redis)? - before) / fleet::count_of(self.jobs);
        clear();
        let through = one(ask("through", self.jobs)?)?;
        clear();
        let &[p50, p99] = ask("pickup", PICKUPS)?.as_slice() else {
            bail!("{} pickup: two numbers were expected", self.name);
        };
        Ok(Figures {
            enqueued,
            through,
            bytes,
            pickup: (p50, p99),
        })
    }
}

impl Program {
    /// Installs what it needs below the target folder, and gives the command that runs it.
    fn install(&self) -> Result<Box<dyn Fn() -> Command>> {
        let sources = workspace().join("tests/peers");
        match self {
            Self::Python(name) => {
                let place = installed("python").join(name);
                let sources = sources.join("python");
                run(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
                let python = place.join("bin/python");
                run(Command::new(&python)
                    .args(["-m", "pip", "install", "--quiet", "--requirement"])
                    .arg(sources.join(format!("{name}.txt"))))?;
                let module = sources.join(format!("{name}_peer.py"));
                Ok(Box::new(move || {
                    let mut command = Command::new(&python);
                    command.arg(&module).env("PYTHONDONTWRITEBYTECODE", "1");
                    command
                }))
            }
            Self::Node => {
                // A module finds the packages that are installed beside it.
                let place = installed("node");
                fs::create_dir_all(&place)?;
                for file in ["package.json", "bullmq.mjs"] {
                    fs::copy(sources.join("node").join(file), place.join(file))?;
                }
                run(Command::new("npm")
                    .args(["install", "--silent", "--no-audit", "--no-fund"])
                    .current_dir(&place))?;
                Ok(Box::new(move || {
                    let mut command = Command::new("node");
                    command.arg(place.join("bullmq.mjs"));
                    command
                }))
            }
            Self::Rust(name) => {
                let (name, place) = (*name, installed("rust"));
                run(Command::new("cargo")
                    .args(["build", "--quiet", "--release", "--locked"])
                    .arg("--manifest-path")
                    .arg(sources.join("rust/Cargo.toml"))
                    .env("CARGO_TARGET_DIR", &place))?;
                Ok(Box::new(move || {
                    let mut command = Command::new(place.join("release/peers"));
                    command.arg(name);
                    command
                }))
            }
        }
    }
}

/// Where packages of a language are installed.
fn installed(language: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace()
        .join(Path::new(&target))
        .join("peers")
        .join(language)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim_end());
    Ok(())
}
