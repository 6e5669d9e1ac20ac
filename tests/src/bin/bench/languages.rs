//! What plugins cost by the language they are written in: the projects that `agenticore plugin new` makes, each built, loaded and
//! called as `agenticore plugin bench` does it. The same plugin in every language, beside the same work without one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use agenticore::config::{Config, Flags};
use agenticore::profile::Component;
use agenticore::scaffold::{self, Kind, Language};
use agenticore::workbench::sample::Sample;
use agenticore::workbench::{Workbench, bench};
use agenticore_tests::{path_with_toolchain, shared_target};
use anyhow::{Context, Result, ensure};

use crate::report::Measure;

/// The row of a hook's call.
const HOOK: &str = "hook call, p50";
/// Calls of each plugin; the middle one counts.
const CALLS: usize = 300;
/// A component with all of Python in it takes longer than a server allows on a small machine.
const LIMITS: &str = "compile_time=900s,describe_time=60s,hook_time=60s,time=60s";

/// Each language's profile plugin and hook plugin. One whose toolchain is missing is passed over by name.
pub(crate) async fn languages() -> Result<Vec<Measure>> {
    let mut measures = Vec::new();
    for language in [Language::Rust, Language::Javascript, Language::Python] {
        match path_with_toolchain(language) {
            Err(missing) => eprintln!("skipped plugins in {language:?}: {missing}"),
            Ok(path) => {
                for (kind, case) in [(Kind::Profile, "hello"), (Kind::Hooks, "proceeds")] {
                    let dir = tempfile::tempdir()?;
                    let project = dir.path().join("bench");
                    scaffold::create(&project, "bench", language, kind)?;
                    let status = Command::new(project.join("build.sh"))
                        .env("PATH", &path)
                        .env("CARGO_TARGET_DIR", shared_target())
                        .env("CARGO_NET_OFFLINE", "true")
                        // What is measured goes to standard output, and nothing else.
                        .stdout(std::io::stderr())
                        .status()
                        .context("build.sh of the project")?;
                    ensure!(status.success(), "{language:?} {kind:?}: {status}");
                    measures.extend(measure(language, kind, &project, case).await?);
                }
            }
        }
    }
    Ok(measures)
}

async fn measure(
    language: Language,
    kind: Kind,
    project: &Path,
    case: &str,
) -> Result<Vec<Measure>> {
    let set = BTreeMap::from([("AGENTICORE_PLUGIN_LIMITS", LIMITS.to_owned())]);
    let config = Config::from_parts(
        &Flags::default(),
        &|name| set.get(name).cloned(),
        project.join("home"),
        &project.join("config.yml"),
    )?;
    let sandbox = Workbench::new(config.clone())?;
    let component = Component::File(project.join("plugin.wasm"));
    let document = project.join("cases").join(case).join("case.yml");
    let sample = Sample::read(&document)?;
    let trial = sandbox.prepare(&component, sample, &document).await?;
    let measured = bench::measure(&sandbox, &config, &component, &trial, CALLS).await?;
    let rows = match kind {
        Kind::Profile => [
            (bench::COLD, "profile plugin, compiled"),
            (bench::WARM, "profile plugin, from the cache, p50"),
            (bench::WHOLE, "materialize and write, p50"),
        ],
        Kind::Hooks => [
            (bench::COLD, "hook plugin, compiled"),
            (bench::WARM, "hook plugin, from the cache, p50"),
            (bench::CALL, HOOK),
        ],
    };
    let measure = |(of, what): (&str, &str)| {
        let row = measured.rows.iter().find(|row| row.what == of);
        let row = row.with_context(|| format!("no row {of:?}"))?;
        let mut measure = Measure::new(format!("{language:?} {what}"), row.p50_us, "us");
        if let (Some(ratio), Some(beside)) = (row.ratio, row.beside) {
            measure = measure.beside(row.p50_us / ratio, beside);
        }
        if what == HOOK && language == Language::Rust {
            measure = measure.target("<= 100 us");
        }
        Ok(measure)
    };
    rows.into_iter().map(measure).collect()
}
