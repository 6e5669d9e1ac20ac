//! What differs between two versions of a plugin: what they ask for, their interfaces, what they say of themselves, and what they
//! answer to the same sample jobs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};
use similar::TextDiff;

use super::document::{self};
use super::sample::Sample;
use super::trial::Failed;
use super::{Unusable, Workbench};
use crate::plugin::{CheckReport, Digest, PluginError, text};
use crate::profile::Component;

/// What differs. Empty parts are the same in both.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The digests.
    pub sha256: [Digest; 2],
    /// The sizes in bytes.
    pub size: [u64; 2],
    /// Capabilities that only the second one asks for; an operator should look at them.
    pub more_grants: Vec<String>,
    /// Capabilities that only the first one asks for.
    pub fewer_grants: Vec<String>,
    /// Imports that only the second one has.
    pub more_imports: Vec<String>,
    /// Imports that only the first one has.
    pub fewer_imports: Vec<String>,
    /// The description and the schema of the configuration, as a unified diff.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The interfaces, as a unified diff of WIT.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub wit: String,
    /// Answers to sample jobs that are not the same.
    pub answers: Vec<AnswerDiff>,
    /// How many sample jobs both were asked.
    pub samples: usize,
}

/// One sample job with two answers.
#[derive(Debug, Serialize)]
pub struct AnswerDiff {
    /// The sample.
    pub sample: String,
    /// The answers, as a unified diff.
    pub diff: String,
}

impl Comparison {
    /// Whether both are the same to everybody who uses them.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.description.is_empty()
            && self.wit.is_empty()
            && self.answers.is_empty()
            && self.more_grants.is_empty()
            && self.fewer_grants.is_empty()
            && self.more_imports.is_empty()
            && self.fewer_imports.is_empty()
    }
}

/// One side of a comparison.
struct Side {
    component: Component,
    report: CheckReport,
    wit: String,
}

/// Compares two components, and what they answer to `samples`.
///
/// # Errors
/// When one of them cannot be loaded, or a sample makes no sense.
pub async fn compare(
    bench: &Workbench,
    before: Component,
    after: Component,
    samples: &[PathBuf],
) -> Result<Comparison, Failed> {
    let before = side(bench, before).await?;
    let after = side(bench, after).await?;
    let grants = |side: &Side| -> BTreeSet<String> {
        let requests = side.report.requests.iter();
        requests
            .flat_map(|grants| grants.iter().map(|grant| grant.to_string()))
            .collect()
    };
    let imports = |side: &Side| -> BTreeSet<String> {
        side.report
            .imports
            .iter()
            .map(|import| text::line(&import.name, 200))
            .collect()
    };
    let (grants_before, grants_after) = (grants(&before), grants(&after));
    let (imports_before, imports_after) = (imports(&before), imports(&after));
    Ok(Comparison {
        sha256: [before.report.sha256, after.report.sha256],
        size: [before.report.size, after.report.size],
        more_grants: only(&grants_after, &grants_before),
        fewer_grants: only(&grants_before, &grants_after),
        more_imports: only(&imports_after, &imports_before),
        fewer_imports: only(&imports_before, &imports_after),
        description: unified(&said(&before.report), &said(&after.report)),
        wit: unified(&before.wit, &after.wit),
        answers: answers(bench, &before, &after, samples).await?,
        samples: samples.len(),
    })
}

async fn side(bench: &Workbench, component: Component) -> Result<Side, Failed> {
    let bytes = bench.bytes(&component).await?;
    let host = bench.plugins().host();
    let report = host.check(bytes.clone()).await;
    if let Some(error) = &report.error {
        return Err(named(&component, error).into());
    }
    let wit = host.interfaces(bytes).await?;
    Ok(Side {
        component,
        report,
        wit,
    })
}

fn named(component: &Component, error: &PluginError) -> PluginError {
    let mut error = error.clone();
    error.message = format!("{component}: {}", error.message);
    error
}

fn only(of: &BTreeSet<String>, without: &BTreeSet<String>) -> Vec<String> {
    of.difference(without).cloned().collect()
}

/// What a component says of itself, as text.
fn said(report: &CheckReport) -> String {
    let about = report.description.as_ref();
    let value = json!({
        "name": about.map(|d| &d.name), "version": about.map(|d| &d.version), "summary": about.map(|d| &d.summary),
        "reads": about.map(|d| &d.reads), "api": report.api, "config_schema": report.config_schema,
    });
    document::text(&value)
}

async fn answers(
    bench: &Workbench,
    before: &Side,
    after: &Side,
    samples: &[PathBuf],
) -> Result<Vec<AnswerDiff>, Failed> {
    let mut found = Vec::new();
    for path in samples {
        let sample = Sample::read(path)?;
        let first = answer(bench, &before.component, &sample, path).await?;
        let second = answer(bench, &after.component, &sample, path).await?;
        let diff = unified(&document::text(&first), &document::text(&second));
        if !diff.is_empty() {
            found.push(AnswerDiff {
                sample: path.display().to_string(),
                diff,
            });
        }
    }
    Ok(found)
}

async fn answer(
    bench: &Workbench,
    component: &Component,
    sample: &Sample,
    path: &Path,
) -> Result<Value, Unusable> {
    let ran = match bench.prepare(component, sample.clone(), path).await {
        Ok(trial) => Ok(bench.run(&trial).await),
        Err(failed) => Err(failed),
    };
    match ran {
        Ok(ran) => Ok(match ran.answer {
            Ok(answer) => answer.document(),
            Err(error) => document::refusal(&error),
        }),
        Err(Failed::Plugin(error)) => Ok(document::refusal(&error)),
        Err(Failed::Unusable(problem)) => Err(problem),
    }
}

fn unified(before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let diff = TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(2)
        .header("A", "B")
        .to_string();
    text::block(&diff, 64 * 1024)
}
