//! `plugin bench`: what a call costs, beside the same work without a sandbox, in the same run.
//!
//! Absolute times of a shared machine are noise; the ratio of two times that were taken in turns is not.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::document::Answer;
use super::trial::{Failed, Trial};
use super::{Unusable, Workbench};
use crate::config::Config;
use crate::plugin::apply::{self, Sync};
use crate::plugin::{CheckedPlan, Code, PluginError};
use crate::profile::Component;

/// Calls before anything is measured.
const WARM_UP: usize = 3;

/// Loads out of the cache of compiled code.
const WARM_LOADS: usize = 11;

/// The row of a component that was loaded for the first time.
pub const COLD: &str = "loaded, compiled anew";
/// The row of a component whose compiled code was kept.
pub const WARM: &str = "loaded, compiled before";
/// The row of a call.
pub const CALL: &str = "a call, in a fresh instance";
/// The row of a call whose files were written.
pub const WHOLE: &str = "a call, and its files written";

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Calls of each kind.
    pub calls: usize,
    /// The rows, in the order they should be read.
    pub rows: Vec<Row>,
}

/// One kind of work.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub what: &'static str,
    /// The middle of all times, in microseconds.
    pub p50_us: f64,
    /// What 99 of 100 stay below, in microseconds; none: it was done once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// The middle one over the middle one of the native work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The native work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<&'static str>,
}

/// Times of one kind of work.
#[derive(Debug, Default)]
struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e6);
    }

    fn quantile(&mut self, part: usize) -> f64 {
        self.0.sort_by(f64::total_cmp);
        let at = (self.0.len() * part / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }

    fn row(mut self, what: &'static str, native: Option<(f64, &'static str)>) -> Row {
        let p50_us = self.quantile(50);
        Row {
            what,
            p50_us,
            p99_us: (self.0.len() > 1).then(|| self.quantile(99)),
            ratio: native.map(|(floor, _)| p50_us / floor),
            beside: native.map(|(_, what)| what),
        }
    }
}

/// Measures the call of a trial, and how long its component takes to be ready.
///
/// # Errors
/// When the call itself fails, or the temporary folder cannot be written.
pub async fn measure(
    bench: &Workbench,
    config: &Config,
    component: &Component,
    trial: &Trial,
    calls: usize,
) -> Result<Measured, Failed> {
    let mut rows = loading(bench, config, component).await?;
    let plan = answered(bench, trial).await?;
    let folder = tempfile::tempdir().map_err(|e| Unusable(format!("no temporary folder: {e}")))?;
    let (mut call, mut whole, mut native) = (Times::default(), Times::default(), Times::default());
    for run in 0..calls + WARM_UP {
        let began = Instant::now();
        let answer = answered(bench, trial).await?;
        let called = began.elapsed();
        // In turns, so that a noisy moment hits all alike.
        let written = match &answer {
            Some(plan) => {
                let target = folder.path().join(format!("plugin-{run}"));
                apply::apply(&plan.tree, &target, &[], Sync::None)?;
                Some(began.elapsed())
            }
            None => None,
        };
        let floor = match &plan {
            Some(plan) => natively(plan, &folder.path().join(format!("native-{run}")))?,
            None => round_trip(trial)?,
        };
        if run < WARM_UP {
            continue;
        }
        call.add(called);
        native.add(floor);
        written.into_iter().for_each(|time| whole.add(time));
    }
    let (floor, beside) = (
        native.quantile(50),
        if plan.is_some() {
            "the same files written natively"
        } else {
            "the same values through JSON natively"
        },
    );
    let is_plan = !whole.0.is_empty();
    rows.push(call.row(CALL, Some((floor, beside))));
    if is_plan {
        rows.push(whole.row(WHOLE, Some((floor, beside))));
    }
    rows.push(native.row(beside, None));
    Ok(Measured { calls, rows })
}

/// Compiled anew, and out of the cache of compiled code, each by a sandbox of its own.
async fn loading(
    bench: &Workbench,
    config: &Config,
    component: &Component,
) -> Result<Vec<Row>, Failed> {
    let home = tempfile::tempdir().map_err(|e| Unusable(format!("no temporary folder: {e}")))?;
    let config = Config {
        home: home.path().to_owned(),
        ..config.clone()
    };
    let bytes = bench.bytes(component).await?;
    let mut rows = Vec::new();
    for (what, loads) in [(COLD, 1), (WARM, WARM_LOADS)] {
        let mut times = Times::default();
        for _ in 0..loads {
            let fresh = Workbench::new(config.clone())?;
            let began = Instant::now();
            fresh.plugins().host().load(bytes.clone()).await?;
            times.add(began.elapsed());
        }
        rows.push(times.row(what, None));
    }
    Ok(rows)
}

/// The plan of a call; none for one that makes no plan.
async fn answered(bench: &Workbench, trial: &Trial) -> Result<Option<CheckedPlan>, Failed> {
    Ok(match bench.run(trial).await.answer? {
        Answer::Plan(plan) => Some(*plan),
        _ => None,
    })
}

/// What is left without a plugin: the files of a plan written beside their target and renamed.
fn natively(plan: &CheckedPlan, target: &Path) -> Result<Duration, PluginError> {
    let began = Instant::now();
    let written = || -> std::io::Result<()> {
        let beside = target.with_extension("tmp");
        fs::create_dir(&beside)?;
        for file in plan.tree.files() {
            let path = beside.join(&file.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::File::create(&path)?.write_all(&file.bytes)?;
        }
        fs::rename(beside, target)
    };
    written().map_err(|e| PluginError::new(Code::Write, e.to_string()))?;
    Ok(began.elapsed())
}

/// What is left of a hook without a plugin: its values turned into bytes and back.
fn round_trip(trial: &Trial) -> Result<Duration, PluginError> {
    let wrong = |e: serde_json::Error| PluginError::new(Code::Host, e.to_string());
    let request = trial.request();
    let began = Instant::now();
    let text = serde_json::to_string(&(&request.job, &request.config)).map_err(wrong)?;
    let back: serde_json::Value = serde_json::from_str(&text).map_err(wrong)?;
    std::hint::black_box(back);
    Ok(began.elapsed())
}
