//! What the sandbox costs: a profile's files laid out by its plugin, beside the same files read and written natively.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use agenticore::config::{Config, Flags};
use agenticore::job::JobId;
use agenticore::plugin::apply::{self, Sync};
use agenticore::plugin::{Compiler, PlanRequest, types};
use agenticore::plugins::Plugins;
use agenticore::profile::{ProfileRoot, ProfileStore, Source};
use anyhow::{Context, Result, anyhow};
use cap_std::ambient_authority;
use cap_std::fs::Dir;

use crate::load::Times;
use crate::report::Measure;

/// Runs of each kind; the middle one counts.
const RUNS: usize = 300;

/// Files of the default profile's shape.
const FILES: [(&str, usize); 5] = [
    ("settings.json", 400),
    ("INSTRUCTIONS.md", 2_000),
    ("agents/reviewer.md", 1_500),
    ("skills/test/SKILL.md", 1_500),
    ("commands/check.md", 500),
];

/// Materializes a profile of five files and one of two hundred, with and without its layers in memory.
pub(crate) async fn materialize() -> Result<Vec<Measure>> {
    let five = FILES.map(|(path, size)| (path.to_owned(), size)).to_vec();
    let many = (0..200)
        .map(|n| (format!("skills/s{n}/SKILL.md"), 1_000))
        .collect();
    let mut measures = measure("5 files", five, "<= 1.3x cold, <= 1.0x from memory").await?;
    measures.extend(measure("200 files", many, "<= 1.2x").await?);
    Ok(measures)
}

async fn measure(name: &str, files: Vec<(String, usize)>, target: &str) -> Result<Vec<Measure>> {
    let dir = tempfile::tempdir()?;
    let profile = dir.path().join("profiles/bench");
    for (path, size) in &files {
        let path = profile.join(".claude").join(path);
        fs::create_dir_all(path.parent().context("a parent")?)?;
        let text = if path.ends_with("settings.json") {
            "{}".to_owned()
        } else {
            "x".repeat(*size)
        };
        fs::write(path, text)?;
    }
    fs::write(profile.join("profile.yml"), "name: bench\n")?;
    let plugins = plugins(dir.path())?;
    let (mut native, mut cold, mut warm) = (Times::default(), Times::default(), Times::default());
    let kept = store(dir.path())?;
    // In turns, so that a noisy moment hits all three alike.
    for run in 0..RUNS {
        let target = dir.path().join(format!("native-{run}"));
        native.add(timed(|| {
            natively(&profile.join(".claude"), &files, &target)
        })?);
        // Nothing is removed meanwhile: ext4 passes over inodes that were freed in the last seconds, one by one.
        for (kind, times, store) in [("cold", &mut cold, None), ("warm", &mut warm, Some(&kept))] {
            let target = dir.path().join(format!("{kind}-{run}"));
            let started = Instant::now();
            match store {
                Some(store) => by_plugin(&plugins, store, &target).await?,
                None => by_plugin(&plugins, &self::store(dir.path())?, &target).await?,
            }
            times.add(started.elapsed());
        }
    }
    let floor = native.quantile(0.5)?;
    let beside = format!("the same files by cap-std, {:.0} us", floor * 1e3);
    let row = |what: String, p50: f64| {
        Measure::new(what, p50 * 1e3, "us")
            .beside(floor * 1e3, &beside)
            .target(target)
    };
    Ok(vec![
        row(
            format!("materialize {name}, profile read anew, p50"),
            cold.quantile(0.5)?,
        ),
        row(
            format!("materialize {name}, profile in memory, p50"),
            warm.quantile(0.5)?,
        ),
    ])
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}

fn natively(from: &Path, files: &[(String, usize)], to: &Path) -> Result<()> {
    let from = Dir::open_ambient_dir(from, ambient_authority())?;
    let beside = to.with_extension("tmp");
    fs::create_dir(&beside)?;
    let dir = Dir::open_ambient_dir(&beside, ambient_authority())?;
    for (path, _) in files {
        let mut bytes = Vec::new();
        from.open(path)?.read_to_end(&mut bytes)?;
        if let Some(parent) = Path::new(path).parent() {
            dir.create_dir_all(parent)?;
        }
        dir.create(path)?.write_all(&bytes)?;
    }
    Ok(fs::rename(beside, to)?)
}

async fn by_plugin(plugins: &Plugins, profiles: &ProfileStore, target: &Path) -> Result<()> {
    let profile = profiles.load("bench")?;
    let job = JobId::random();
    let plugin = plugins.load(&profile.plugin).await?;
    let context = plugins.context(&plugin, &profile.plugin, job)?;
    let request = PlanRequest {
        job: types::Job {
            id: job.to_string(),
            attempt: 1,
            task: "bench".to_owned(),
            repo_url: None,
            base_ref: None,
            branch: None,
            profile: "bench".to_owned(),
        },
        layers: plugins.layers(&profile),
        config: profile.plugin.config.clone(),
        operator: serde_json::json!({}),
        session: types::SessionStart::Fresh(job.to_string()),
        spent: types::Spent {
            cost_usd: 0.0,
            turns: 0,
            seconds: 0,
        },
    };
    let (plan, _) = plugins
        .host()
        .materialize(&plugin, &context, &request)
        .await?;
    apply::apply(&plan.tree, target, &plan.keep, Sync::None).map_err(|e| anyhow!("{e}"))?;
    Ok(())
}

fn plugins(home: &Path) -> Result<Plugins> {
    let none = BTreeMap::<String, String>::new();
    let lookup = |name: &str| none.get(name).cloned();
    let config = Config::from_parts(
        &Flags::default(),
        &lookup,
        home.to_owned(),
        &home.join("config.yml"),
    )?;
    Ok(Plugins::new(&config, Compiler::InProcess)?)
}

fn store(root: &Path) -> Result<ProfileStore> {
    Ok(ProfileStore::new(vec![
        ProfileRoot::bundled(),
        ProfileRoot::folder(Source::User, root.join("profiles")),
    ])?)
}
