//! The benchmark: what the server costs, beside what the machine can do at the same moment.
//!
//! Absolute figures of a shared machine are noise; a ratio of two figures from one run is not. So each row that can be is measured
//! beside a floor: the same requests without the work, or the same processes without the server.
//!
//! Files go to a temporary folder; `cargo xtask bench` puts it into memory (`/dev/shm`) unless `TMPDIR` names another.
//!
//! A row is a function from nothing to [`Measure`]s; [`ROWS`] lists them. `cargo xtask bench` builds a release and runs this.

mod fleet;
mod http;
mod jobs;
mod languages;
mod load;
mod peers;
mod plugin;
mod report;
mod resources;

use std::process::ExitCode;

use anyhow::{Result, bail};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::report::{Measure, Report};

/// That of the server, whose store and plugins run in here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One part of the benchmark.
struct Row {
    /// What `--only` calls it.
    name: &'static str,
    /// Whether it is left out unless it is named.
    on_demand: bool,
    run: fn() -> BoxFuture<'static, Result<Vec<Measure>>>,
}

/// Every row, in the order of the report.
const ROWS: [Row; 14] = [
    Row {
        name: "start",
        on_demand: false,
        run: || resources::start().boxed(),
    },
    Row {
        name: "memory",
        on_demand: false,
        run: || resources::memory().boxed(),
    },
    Row {
        name: "image",
        on_demand: false,
        run: || resources::image().boxed(),
    },
    Row {
        name: "plugin",
        on_demand: false,
        run: || plugin::materialize().boxed(),
    },
    Row {
        name: "languages",
        on_demand: false,
        run: || languages::languages().boxed(),
    },
    Row {
        name: "latency",
        on_demand: false,
        run: || jobs::latency().boxed(),
    },
    Row {
        name: "first",
        on_demand: false,
        run: || jobs::first().boxed(),
    },
    Row {
        name: "jobs",
        on_demand: false,
        run: || jobs::throughput().boxed(),
    },
    Row {
        name: "requests",
        on_demand: false,
        run: || http::requests().boxed(),
    },
    Row {
        name: "lists",
        on_demand: false,
        run: || http::lists().boxed(),
    },
    Row {
        name: "queue",
        on_demand: false,
        run: || fleet::throughput().boxed(),
    },
    Row {
        name: "pickup",
        on_demand: false,
        run: || fleet::pickup().boxed(),
    },
    Row {
        name: "recovery",
        on_demand: false,
        run: || fleet::recovery().boxed(),
    },
    Row {
        name: "peers",
        on_demand: true,
        run: || peers::peers().boxed(),
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().map_err(anyhow::Error::from);
    match runtime.and_then(|runtime| runtime.block_on(run(&arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[String]) -> Result<()> {
    let mut json = false;
    let mut only = None;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => json = true,
            "--only" => only = words.next(),
            other => bail!("unknown argument `{other}`; known: --json, --only ROW"),
        }
    }
    let is_chosen = |row: &&Row| only.map_or(!row.on_demand, |name| name == row.name);
    if !ROWS.iter().any(|row| is_chosen(&row)) {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        bail!("no such row; known: {}", names.join(", "));
    }
    let mut report = Report::default();
    let mut failed = Vec::new();
    for row in ROWS.iter().filter(is_chosen) {
        eprintln!("measuring {} ..", row.name);
        match (row.run)().await {
            Ok(measures) => report.add(row.name, measures),
            // The others took minutes, too.
            Err(error) => failed.push(format!("{}: {error:#}", row.name)),
        }
    }
    report.print(json);
    if !failed.is_empty() {
        bail!("not every row could be measured\n{}", failed.join("\n"));
    }
    Ok(())
}
