//! Profiles as they were written for the system before this one, folders and single files with every field used: each loads and is
//! laid out by the real plugin, and what comes of it is on record in `snapshots/`. A change there is a change for existing users.
//!
//! `INSTA_UPDATE=always cargo test -p agenticore-tests --test suites corpus` writes the records anew.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use agenticore::config::{Config, Flags};
use agenticore::job::JobId;
use agenticore::plugin::apply::{self, Sync};
use agenticore::plugin::{CheckedPlan, Compiler, Places, PlanRequest, ResolvedEnv, types};
use agenticore::plugins::Plugins;
use agenticore::profile::{Profile, ProfileRoot, ProfileStore, Source};
use agenticore_tests::{Repo, ScriptedAgent, World};
use serde_json::{Value, json};

use crate::{field, text};

const JOB: &str = "0198c0de-0000-7000-8000-000000000001";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus/profiles")
}

fn store() -> ProfileStore {
    let roots = vec![
        ProfileRoot::bundled(),
        ProfileRoot::folder(Source::User, root()),
    ];
    ProfileStore::new(roots).unwrap()
}

/// The names of the corpus.
fn names() -> Vec<String> {
    let entries = fs::read_dir(root()).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.trim_end_matches(".yml").to_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn plugins(home: &Path) -> Plugins {
    let none = |_: &str| None;
    let file = home.join("config.yml");
    let config = Config::from_parts(&Flags::default(), &none, home.to_owned(), &file).unwrap();
    Plugins::new(&config, Compiler::InProcess).unwrap()
}

async fn plan(plugins: &Plugins, profile: &Profile) -> CheckedPlan {
    let job: JobId = JOB.parse().unwrap();
    let plugin = plugins.load(&profile.plugin).await.unwrap();
    let context = plugins.context(&plugin, &profile.plugin, job).unwrap();
    let request = PlanRequest {
        job: types::Job {
            id: JOB.to_owned(),
            attempt: 1,
            task: "Fix the login".to_owned(),
            repo_url: Some("https://example.com/app.git".to_owned()),
            base_ref: Some("main".to_owned()),
            branch: Some("agenticore/0198c0de-fix-the-login".to_owned()),
            profile: profile.name.to_string(),
        },
        layers: plugins.layers(profile),
        config: profile.plugin.config.clone(),
        operator: json!({"uid": 10001}),
        session: types::SessionStart::Fresh(JOB.to_owned()),
        spent: types::Spent {
            cost_usd: 0.0,
            turns: 0,
            seconds: 0,
        },
    };
    let made = plugins
        .host()
        .materialize(&plugin, &context, &request)
        .await;
    match made {
        Ok((plan, _)) => plan,
        Err(error) => panic!("{}: {error}", profile.name),
    }
}

/// What a user would see of a profile: what the host makes of it, how the agent starts, and every file.
fn shown(profile: &Profile, plan: &CheckedPlan) -> Value {
    let places = Places {
        config_dir: "/config".into(),
        work_dir: "/work".into(),
        temp_dir: "/temp".into(),
    };
    let resolved = plan.resolve(&places);
    // The records hold on every machine.
    let here = format!("{}/", root().display());
    let arguments: Vec<String> = resolved
        .arguments
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let values = resolved.env.iter().filter_map(|(name, value)| match value {
        ResolvedEnv::Value(value) => Some((name.clone(), value.to_string_lossy().into_owned())),
        _ => None,
    });
    json!({
        "description": profile.description,
        "auto_pr": profile.auto_pr,
        "layers": profile.layers.iter().map(|layer| layer.name.to_string()).collect::<Vec<_>>(),
        "warnings": profile.warnings.iter().map(|warning| warning.replace(&here, "")).collect::<Vec<_>>(),
        "program": resolved.program,
        "arguments": arguments,
        "variables": values.collect::<BTreeMap<_, _>>(),
        "stdin": plan.stdin.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        "seconds": plan.time_limit.map(|limit| limit.as_secs()),
        "turns": plan.budget.turns,
        "dollars": plan.budget.cost_usd,
        "resumable": plan.session.transcript.is_some(),
        "files": written(plan),
    })
}

/// The files as they are on disk, with their text and whether they may be executed.
fn written(plan: &CheckedPlan) -> BTreeMap<String, Value> {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("job");
    apply::apply(&plan.tree, &target, &plan.keep, Sync::None).unwrap();
    let mut found = BTreeMap::new();
    collect(&target, &target, &mut found);
    found
}

fn collect(top: &Path, folder: &Path, found: &mut BTreeMap<String, Value>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(top, &path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let content = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let executable = fs::metadata(&path).unwrap().permissions().mode() & 0o100 != 0;
        let name = path.strip_prefix(top).unwrap().display().to_string();
        let value = if executable {
            json!({"executable": content})
        } else {
            content
        };
        found.insert(name, value);
    }
}

#[tokio::test]
async fn every_profile_of_the_corpus_is_laid_out_as_it_always_was() {
    let home = tempfile::tempdir().unwrap();
    let (plugins, store) = (plugins(home.path()), store());
    let names = names();
    assert!(names.len() >= 12, "{names:?}");
    for name in names {
        let profile = store.load(&name).unwrap();
        let plan = plan(&plugins, &profile).await;
        insta::assert_json_snapshot!(format!("corpus-{name}"), shown(&profile, &plan));
    }
}

/// What the records above are worth depends on the corpus: no field, file or way to inherit may be missing from it.
#[test]
fn the_corpus_uses_every_field() {
    let mut all = String::new();
    let mut paths = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_some_and(|extension| extension == "yml") {
                all.push_str(&fs::read_to_string(&path).unwrap());
            }
            paths.push(path.strip_prefix(root()).unwrap().display().to_string());
        }
    }
    for key in [
        "name",
        "description",
        "extends",
        "auto_pr",
        "model",
        "max_turns",
        "permission_mode",
        "no_session_persistence",
        "output_format",
        "worktree",
        "effort",
        "timeout",
        "max_budget_usd",
        "fallback_model",
        "append_prompt",
        "{{TASK}}",
        "{{REPO_URL}}",
        "{{BASE_REF}}",
        "{{JOB_ID}}",
    ] {
        assert!(all.contains(key), "no profile uses {key}");
    }
    for part in [
        "/.claude/settings.json",
        "/.claude/CLAUDE.md",
        "/.claude/agents/",
        "/.claude/skills/",
        "/.claude/commands/",
        "/.claude/hooks/",
        "/.mcp.json",
    ] {
        assert!(
            paths.iter().any(|path| path.contains(part)),
            "no profile has {part}"
        );
    }
    assert!(
        paths.iter().filter(|path| !path.contains('/')).count() >= 2,
        "single files"
    );
}

#[tokio::test]
async fn profiles_of_the_corpus_run_jobs_unchanged() {
    let builder = World::builder();
    let agent = ScriptedAgent::write(&builder.path(""), "cat > /dev/null");
    let profiles = builder.path("home/.agenticore/profiles");
    copy(&root(), &profiles);
    let world = builder
        .env("AGENTICORE_CLAUDE_BINARY", &agent.program())
        .start();
    let repo = Repo::create(world.path("remote"));
    let listed = world.get("/profiles").await.body;
    for name in names() {
        let listed = field(&listed, "profiles").as_array().unwrap();
        let own = listed.iter().find(|profile| text(profile, "name") == name);
        assert!(
            own.is_some_and(|own| field(own, "error").is_null()),
            "{name}: {own:?}"
        );
    }
    let store = store();
    let plugins = plugins(&world.path("other-home"));
    for name in [
        "every-field",
        "backend-strict",
        "servers",
        "legacy-variables",
        "on-legacy",
    ] {
        let body = json!({"task": "Fix the login", "profile": name, "repo_url": repo.url()});
        let id = world.submit_body(&body).await;
        let job = world.ended(&id).await;
        assert_eq!(text(&job, "status"), "succeeded", "{name}: {job}");
        // The server runs as another user than the records are made for, which only changes how permissions are asked for.
        let call = agent.calls().join("\n");
        assert!(
            call.contains("--output-format=stream-json") && call.contains(&id),
            "{call}"
        );
        let expected = plan(&plugins, &store.load(name).unwrap()).await;
        let config = PathBuf::from(text(&job, "job_config_dir"));
        for (path, content) in written(&expected) {
            if path == "settings.json" {
                continue;
            }
            let bytes = fs::read_to_string(config.join(&path))
                .unwrap_or_else(|error| panic!("{name}: {path}: {error}"));
            let found = serde_json::from_str(&bytes).unwrap_or(Value::String(bytes));
            let content = content.get("executable").cloned().unwrap_or(content);
            assert_eq!(found, content, "{name}: {path}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}
