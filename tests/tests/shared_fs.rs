//! The shared file system: its layout, its set-up in any order and under kills, and where a job's files land.

use std::collections::BTreeMap;
use std::path::Path;

use agenticore_tests::{ScriptedAgent, World, until};
use futures::future::join_all;
use rustix::process::Signal;
use serde_json::json;

use crate::text;

/// Every file below the shared root that a user would miss, with its text; temporaries are left out.
fn profiles(world: &World, root: &str) -> BTreeMap<String, String> {
    let below = format!("{root}/profiles");
    world
        .files(&below)
        .into_iter()
        .filter(|file| !file.starts_with('.'))
        .map(|file| {
            let text = world.read(&format!("{below}/{file}"));
            (file, text)
        })
        .collect()
}

#[tokio::test]
async fn the_layout_is_made_once_and_making_it_again_changes_nothing() {
    let world = World::builder().idle();
    let root = world.path("shared").display().to_string();
    let first = world.cli(&["init-shared-fs", "--shared-root", &root]).await;
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    for folder in ["profiles", "repos", "jobs", "job-state"] {
        assert!(Path::new(&root).join(folder).is_dir(), "{folder}");
    }
    let made = profiles(&world, "shared");
    for profile in ["code", "review", "shell"] {
        assert!(
            made.contains_key(&format!("{profile}/profile.yml")),
            "{made:?}"
        );
    }
    let second = world.cli(&["init-shared-fs", "--shared-root", &root]).await;
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert_eq!(profiles(&world, "shared"), made);

    let edited = format!("{root}/profiles/code/profile.yml");
    std::fs::write(&edited, "name: code\ndescription: ours\n").unwrap();
    let third = world.cli(&["init-shared-fs", "--shared-root", &root]).await;
    assert_eq!(third.code, Some(0), "{}", third.stderr);
    assert!(
        world
            .read("shared/profiles/code/profile.yml")
            .contains("ours"),
        "an edited profile is left alone"
    );
    assert!(
        format!("{}{}", third.stdout, third.stderr).contains("code"),
        "and said so"
    );
}

#[tokio::test]
async fn it_fails_where_nothing_can_be_written_or_no_root_is_given() {
    let world = World::builder().idle();
    let usage = world.cli(&["init-shared-fs"]).await;
    assert_eq!(usage.code, Some(2), "{}", usage.stderr);
    std::fs::write(world.path("file"), "").unwrap();
    let below_a_file = world.path("file/shared").display().to_string();
    let failed = world
        .cli(&["init-shared-fs", "--shared-root", &below_a_file])
        .await;
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(failed.stderr.contains(&below_a_file), "{}", failed.stderr);
}

#[tokio::test]
async fn runs_at_the_same_time_all_succeed_with_one_result() {
    let world = World::builder().idle();
    let root = world.path("shared").display().to_string();
    let arguments = ["init-shared-fs", "--shared-root", root.as_str()];
    let runs = join_all((0..6).map(|_| world.cli(&arguments))).await;
    for run in runs {
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
    let reference = world.path("reference").display().to_string();
    world
        .cli(&["init-shared-fs", "--shared-root", &reference])
        .await;
    assert_eq!(profiles(&world, "shared"), profiles(&world, "reference"));
    let hidden: Vec<String> = world
        .files("shared/profiles")
        .into_iter()
        .filter(|f| f.starts_with('.'))
        .collect();
    assert!(hidden.is_empty(), "temporaries are left: {hidden:?}");
}

#[tokio::test]
async fn a_killed_run_leaves_whole_profiles_and_the_next_completes_them() {
    let world = World::builder().idle();
    let reference = world.path("reference").display().to_string();
    world
        .cli(&["init-shared-fs", "--shared-root", &reference])
        .await;
    let expected = profiles(&world, "reference");
    let root = world.path("shared").display().to_string();
    for round in 0..12_u64 {
        let run = world
            .cli_start(&["init-shared-fs", "--shared-root", &root])
            .await;
        // The kill hits another place each time; wherever it hits, the same must hold.
        tokio::time::sleep(std::time::Duration::from_millis(round * 2)).await;
        run.send(Signal::KILL);
        run.end().await;
        for (file, text) in profiles(&world, "shared") {
            assert_eq!(expected.get(&file), Some(&text), "{file} is torn");
        }
        let found = profiles(&world, "shared");
        for profile in ["code", "review", "shell"] {
            let of = |all: &BTreeMap<String, String>| {
                all.keys()
                    .filter(|file| file.starts_with(&format!("{profile}/")))
                    .count()
            };
            assert!(
                of(&found) == 0 || of(&found) == of(&expected),
                "{profile} is there in part: {found:?}"
            );
        }
    }
    let last = world.cli(&["init-shared-fs", "--shared-root", &root]).await;
    assert_eq!(last.code, Some(0), "{}", last.stderr);
    assert_eq!(profiles(&world, "shared"), expected);
}

#[tokio::test]
async fn files_of_a_job_are_at_the_documented_place() {
    let builder = World::builder();
    let root = builder.path("shared").display().to_string();
    let agent = ScriptedAgent::write(&builder.path(""), "echo \"config $CLAUDE_CONFIG_DIR\"");
    let world = builder
        .env("AGENTICORE_SHARED_FS_ROOT", &root)
        .env("AGENTICORE_REPOS_ROOT", &format!("{root}/repos"))
        .programs(agent.folder())
        .idle();
    let made = world.cli(&["init-shared-fs"]).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    // A profile of the shared volume, which every pod sees.
    for (file, content) in [
        ("profile.yml", "name: team\nextends: code\nauto_pr: false\n"),
        (".claude/CLAUDE.md", "be kind\n"),
        (".claude/settings.json", "{\"env\": {\"TEAM\": \"yes\"}}\n"),
        (
            ".mcp.json",
            "{\"mcpServers\": {\"docs\": {\"type\": \"http\", \"url\": \"http://127.0.0.1:1/mcp\"}}}\n",
        ),
    ] {
        let path = Path::new(&root).join("profiles/team").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let mut world = world;
    world.boot();
    let id = world
        .submit_body(&json!({"task": "x", "profile": "team"}))
        .await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
    let config = format!("{root}/jobs/{id}");
    assert_eq!(text(&job, "job_config_dir"), config);
    world.logged(&id, &format!("config {config}")).await;
    for (file, word) in [
        ("settings.json", "TEAM"),
        ("CLAUDE.md", "be kind"),
        (".mcp.json", "docs"),
    ] {
        let written = world.read(&format!("shared/jobs/{id}/{file}"));
        assert!(
            written.contains(word),
            "{file}: {written:?} of {:?}",
            world.files(&format!("shared/jobs/{id}"))
        );
    }
    // The file is a moment behind what the server answers.
    let record = format!("shared/job-state/{id}.json");
    until("the record's file tells of the end", || async {
        world.read(&record).contains("succeeded").then_some(())
    })
    .await;
}
