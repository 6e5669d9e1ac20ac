//! Whole stores over real folders.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::*;

mod chains;
mod files;

/// A user's and a shared root over the bundled one.
struct World {
    dir: TempDir,
    store: ProfileStore,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ProfileStore::new(vec![
            ProfileRoot::bundled(),
            ProfileRoot::folder(Source::User, dir.path().join("user")),
            ProfileRoot::folder(Source::Shared, dir.path().join("shared")),
        ]);
        Self {
            dir,
            store: store.unwrap(),
        }
    }

    /// Writes a file below the user's root.
    fn write(&self, path: &str, text: &str) -> &Self {
        self.write_in("user", path, text)
    }

    fn write_in(&self, root: &str, path: &str, text: &str) -> &Self {
        let path = self.path(root).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    fn load(&self, name: &str) -> Arc<Profile> {
        self.store
            .load(name)
            .map_err(|error| error.full_message())
            .unwrap()
    }

    fn error(&self, name: &str) -> String {
        self.store.load(name).unwrap_err().full_message()
    }
}

fn check_error(document: &str, parts: &[&str]) {
    let world = World::new();
    world.write("p/profile.yml", document);
    let error = world.error("p");
    for part in [&["user/p/profile.yml"], parts].concat() {
        assert!(
            error.contains(part),
            "{document}\ngives: {error}\nwithout: {part}"
        );
    }
}

#[test]
fn every_bundled_profile_loads() {
    let world = World::new();
    let list = world.store.list();
    assert!(
        list.len() >= 3 && list.iter().all(|profile| profile.error.is_none()),
        "{list:?}"
    );
    assert!(
        list.iter().all(|profile| !profile.description.is_empty()),
        "{list:?}"
    );
    assert!(world.load("code").auto_pr);
    assert!(!world.load("review").auto_pr);
    let shell = world.load("shell");
    assert!(shell.local_only);
    assert_eq!(
        shell.plugin.component,
        Component::Bundled("shell".to_owned())
    );
    assert_eq!(shell.plugin.grants.keys().collect::<Vec<_>>(), ["program"]);
}

#[test]
fn later_roots_win() {
    let world = World::new();
    assert_eq!(world.load("code").source, Source::Bundled);
    world.write("code/profile.yml", "description: mine");
    assert_eq!(world.load("code").source, Source::User);
    world.write_in("shared", "code/profile.yml", "description: ours");
    assert_eq!(world.load("code").description, "ours");
    fs::remove_dir_all(world.path("shared")).unwrap();
    assert_eq!(world.load("code").description, "mine");
}

#[test]
fn a_folder_without_a_plugin_block_gets_the_default_one() {
    let world = World::new();
    world
        .write("old/profile.yml", "agent:\n  model: m\n")
        .write("old/.agent/settings.json", "{}");
    let profile = world.load("old");
    let default = &world.load("code").plugin;
    assert_eq!(&profile.plugin, default);
    assert!(matches!(&default.component, Component::Bundled(_)));
    assert!(default.grants.contains_key("program"), "{default:?}");
    assert_eq!(
        profile.layers[0].settings.get("agent"),
        Some(&json!({"model": "m"}))
    );
    assert_eq!(profile.layers[0].files[0].path, ".agent/settings.json");
}

#[test]
fn errors_name_the_file_the_key_and_what_is_expected() {
    for (document, parts) in [
        ("a: [", &["line"][..]),
        ("auto_pr: true\nauto_pr: false", &["duplicate"]),
        ("- a list", &["mapping", "a list"]),
        (
            "auto_pr: maybe",
            &["`auto_pr`", "`true` or `false`", "`maybe`"],
        ),
        (
            "max_attempts: 0",
            &["`max_attempts`", "from 1 to 100", "`0`"],
        ),
        ("max_attempts: 1.5", &["`max_attempts`"]),
        ("timeout: 1h", &["`timeout`", "whole number"]),
        ("description: [x]", &["`description`", "a text", "a list"]),
        ("on_interrupt: again", &["`rerun` or `fail`"]),
        ("name: other", &["`other`", "stored as `p`"]),
        (
            "extends: [code, review]",
            &["`extends`", "a text", "a list"],
        ),
        ("extends: ../x", &["`extends`", "profile"]),
        (
            "extends: nope",
            &["`nope`", "code, codex, guarded, p, review, shell"],
        ),
        ("auto-pr: true", &["unknown key `auto-pr`", "`auto_pr`"]),
        ("plugin: shell", &["`plugin`", "a mapping"]),
        (
            "plugin: {components: x}",
            &["unknown key `plugin.components`", "component, sha256"],
        ),
        (
            "plugin: {component: ../x.wasm}",
            &["`plugin.component`", "relative path"],
        ),
        ("plugin: {component: /x.wasm}", &["`plugin.component`"]),
        ("plugin: {component: Shell}", &["`plugin.component`"]),
        ("plugin: {component: x, sha256: 12}", &["`plugin.sha256`"]),
        (
            "plugin: {component: x, sha256: ab}",
            &["`plugin.sha256`", "64"],
        ),
        (
            "plugin: {component: x, grants: [a]}",
            &["`plugin.grants`", "a mapping"],
        ),
        (
            "plugin: {component: x, grants: {secrets: TOKEN}}",
            &["`plugin.grants.secrets`", "a list"],
        ),
        (
            "plugin: {component: x, grants: {secrets: [1]}}",
            &["`plugin.grants.secrets`", "texts"],
        ),
        ("plugin: {component: x, config: 3}", &["`plugin.config`"]),
        ("hooks: {component: x}", &["`hooks`", "a list"]),
        ("hooks: [{on: [pre-job]}]", &["`hooks[0].component`"]),
        ("hooks: [{component: x}]", &["`hooks[0].on`"]),
        (
            "hooks: [{component: x, on: []}]",
            &["`hooks[0].on`", "at least one of", "an empty list"],
        ),
        (
            "hooks: [{component: x, on: [later]}]",
            &["`hooks[0].on`", "`later`"],
        ),
        (
            "hooks: [{component: x, on: [pre-job], when: now}]",
            &["`hooks[0].when`"],
        ),
    ] {
        check_error(document, parts);
    }
}

#[test]
fn unknown_and_impossible_names_are_told_apart_from_broken_profiles() {
    let world = World::new();
    world.write("bad/profile.yml", "auto_pr: 3");
    for name in ["../code", "", "a/b", "nope", "code\0"] {
        assert!(world.store.load(name).unwrap_err().is_unknown(), "{name:?}");
    }
    assert!(
        world
            .error("nope")
            .contains("bad, code, codex, guarded, review, shell")
    );
    assert!(!world.store.load("bad").unwrap_err().is_unknown());
}

#[test]
fn the_list_shows_what_is_no_profile_with_the_reason() {
    let world = World::new();
    world
        .write("empty/notes.txt", "x")
        .write("with space/profile.yml", "")
        .write("README.md", "x")
        .write(".hidden/x", "x");
    let list = world.store.list();
    let error = |name: &str| {
        list.iter()
            .find(|p| p.name == name)
            .and_then(|p| p.error.clone())
    };
    assert!(error("empty").unwrap().contains("profile.yml"));
    assert!(error("with space").unwrap().contains("is not valid"));
    assert_eq!(
        list.iter().find(|p| p.name == "with space").unwrap().source,
        Source::User
    );
    assert!(
        !list
            .iter()
            .any(|p| p.name.contains("README") || p.name.starts_with('.')),
        "{list:?}"
    );
}

#[test]
fn a_single_file_of_the_older_form_loads_with_a_warning() {
    let world = World::new();
    world.write("old.yml", "name: old\nappend_prompt: 'Do {{TASK}}'\n");
    let profile = world.load("old");
    assert_eq!(
        profile.layers[0].settings.get("append_prompt"),
        Some(&json!("Do {{TASK}}"))
    );
    assert!(profile.layers[0].files.is_empty());
    assert!(
        profile.warnings[0].contains("deprecated"),
        "{:?}",
        profile.warnings
    );
    world.write("old/profile.yml", "");
    assert!(world.load("old").warnings.is_empty(), "the folder wins");
}

#[test]
fn keys_that_nothing_reads_are_warned_of_and_harm_nothing() {
    let world = World::new();
    world.write(
        "p/profile.yml",
        "extends: shell\nextnds: shell\nhook: []\nagnet: {}\nfoo: 1\nagent: {}\n",
    );
    let slips = world.load("p").slips(Some(&["agent"]));
    assert_eq!(slips.len(), 4, "{slips:?}");
    for (slip, meant) in slips
        .iter()
        .zip(["`extends`", "`hooks`", "`agent`", "known are: agent"])
    {
        assert!(
            slip.contains("profile `p`") && slip.contains(meant),
            "{slip}"
        );
    }
    // A plugin that does not say what it reads may read `foo`.
    let slips = world.load("p").slips(None);
    assert_eq!(slips.len(), 2, "{slips:?}");

    // What a parent says to its own plugin is no slip of a child that names another; a misspelt key of the host is.
    world.write("parent/profile.yml", "agent: {}\nhoks: []\n");
    world.write(
        "child/profile.yml",
        "extends: parent\nplugin: {component: shell}\n",
    );
    let slips = world.load("child").slips(Some(&[]));
    assert!(
        slips.len() == 1 && slips[0].contains("profile `parent`"),
        "{slips:?}"
    );
    for name in ["code", "codex", "guarded", "review", "shell"] {
        let slips = world.load(name).slips(None);
        assert!(slips.is_empty(), "{name}: {slips:?}");
    }
}

#[test]
fn missing_roots_are_empty_and_unreadable_ones_hide_nothing() {
    let store = ProfileStore::new(vec![ProfileRoot::folder(Source::User, "/nonexistent")]).unwrap();
    assert!(store.list().is_empty());
    assert!(
        store
            .load("code")
            .unwrap_err()
            .to_string()
            .contains("no profiles at all")
    );
    // A root that fails must not let the bundled profile of that name through.
    let world = World::new();
    symlink("shared", world.path("shared")).unwrap();
    assert!(world.store.load("code").is_err());
    assert!(Path::new(&world.path("shared")).is_symlink());
}

#[test]
fn documents_of_any_form_are_read_or_refused() {
    let seeds = [
        "name: a\nextends: b\nplugin: {component: x.wasm, sha256: ab, grants: {program: [sh]}, limits: {time: 5s}}\n",
        "hooks: [{component: p, on: [pre-job, redact], required: no}]\npull_request: {title: x, labels: [a]}\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n<<: {d: 1}\n? [k]\n: v\n",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % (most.max(1) as u64)).unwrap_or(0)
    };
    for seed in seeds {
        for _ in 0..400 {
            let mut bytes = seed.as_bytes().to_vec();
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                match next(3) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, b"[]{}:-&*?\n\xff\0"[next(12)]),
                    _ => bytes.insert(at, u8::try_from(next(256)).unwrap_or(0)),
                }
            }
            super::fuzz_document(&bytes);
        }
    }
}
