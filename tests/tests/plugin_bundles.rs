//! Plugins that travel: packed, signed, pushed, pulled, installed, and what a server says of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use agenticore_tests::{World, skip, until};
use serde_json::{Value, json};

use crate::{field, text};

fn built(name: &str) -> String {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    workspace
        .join(format!("plugins/dist/{name}.wasm"))
        .display()
        .to_string()
}

fn at(world: &World, below: &str) -> String {
    world.path(below).display().to_string()
}

/// Runs a command that must succeed, and returns what it printed.
async fn done(world: &World, arguments: &[&str]) -> String {
    let ran = world.cli(arguments).await;
    assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
    ran.stdout.trim().to_owned()
}

/// A profile that uses the component under the name that it has once installed.
fn write_profile(world: &World) -> String {
    let folder = world.path("scripts");
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        folder.join("profile.yml"),
        "name: scripts\nplugin: {component: shell.wasm, grants: {program: [sh]}}\n",
    )
    .unwrap();
    fs::write(folder.join("notes.md"), "hello").unwrap();
    folder.display().to_string()
}

#[tokio::test]
async fn a_bundle_is_the_same_bytes_wherever_it_is_packed() {
    let world = World::builder().idle();
    let (profile, shell) = (write_profile(&world), built("shell"));
    let (one, two) = (at(&world, "one.tar"), at(&world, "two.tar"));
    let pack = [
        "plugin",
        "pack",
        &shell,
        "--profile",
        &profile,
        "-o",
        "id",
        "--to",
    ];
    let first = done(&world, &[&pack[..], &[&one]].concat()).await;
    // Another time and another owner's habits must not show.
    let notes = fs::File::options()
        .write(true)
        .open(world.path("scripts/notes.md"))
        .unwrap();
    notes
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let second = done(&world, &[&pack[..], &[&two]].concat()).await;
    assert_eq!(first, second);
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    fs::write(world.path("scripts/notes.md"), "other").unwrap();
    assert_ne!(first, done(&world, &[&pack[..], &[&two]].concat()).await);

    fs::write(world.path("scripts/profile.yml"), "name: scripts\n").unwrap();
    let wrong = world
        .cli(&["plugin", "pack", &shell, "--profile", &profile])
        .await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("component: shell.wasm"), "{wrong:?}");
}

#[tokio::test]
async fn a_server_uses_what_a_trusted_key_signed_and_lists_what_it_may_do() {
    let keys = tempfile::tempdir().unwrap();
    let key = |name: &str| keys.path().join(name).display().to_string();
    let (mine, other) = (key("mine"), key("other"));
    let author = World::builder().idle();
    let public = done(&author, &["plugin", "keygen", &mine]).await;
    done(&author, &["plugin", "keygen", &other]).await;
    let (profile, shell) = (write_profile(&author), built("shell"));
    let pack = ["plugin", "pack", &shell, "--profile", &profile, "--to"];
    let (signed, foreign, bare) = (key("signed.tar"), key("foreign.tar"), key("bare.tar"));
    done(&author, &[&pack[..], &[&signed, "--sign", &mine]].concat()).await;
    done(
        &author,
        &[&pack[..], &[&foreign, "--sign", &other]].concat(),
    )
    .await;
    done(&author, &[&pack[..], &[&bare]].concat()).await;

    let world = World::builder()
        .env("AGENTICORE_PLUGIN_KEYS", &public)
        .start();
    for refused in [&foreign, &bare] {
        let install = world.cli(&["plugin", "install", refused]).await;
        assert_eq!(install.code, Some(1), "{install:?}");
        assert!(install.stderr.contains("plugin.signature"), "{install:?}");
    }
    done(&world, &["plugin", "install", &signed]).await;
    let again = world.cli(&["plugin", "install", &signed]).await;
    assert_eq!(again.code, Some(1), "the profile is there: {again:?}");
    assert!(again.stderr.contains("--replace"), "{again:?}");
    let id = world
        .submit_body(&json!({"task": "echo installed", "profile": "scripts"}))
        .await;
    assert_eq!(text(&world.ended(&id).await, "status"), "succeeded");

    let plugins = world.get("/plugins").await.body;
    let named = |component: &str| {
        let all = field(&plugins, "plugins").as_array().unwrap();
        let found = all
            .iter()
            .find(|p| text(p, "component").ends_with(component));
        found
            .cloned()
            .unwrap_or_else(|| panic!("no {component} in {plugins:#}"))
    };
    let installed = named("_plugins/shell.wasm");
    assert_eq!(installed["uses"][0]["profile"], "scripts");
    assert_eq!(installed["uses"][0]["grants"], json!(["program:sh"]));
    assert_eq!(installed["uses"][0]["limits"]["files"], 2000);
    assert_eq!(installed["last_error"], Value::Null);
    assert_eq!(named("shell")["name"], "shell");
    let profiles = at(&world, "home/.agenticore/profiles");
    let state = async |local: bool| {
        let more = ["--profiles", profiles.as_str()];
        let list = ["plugin", "list"].into_iter();
        let list: Vec<&str> = list.chain(more.into_iter().filter(|_| local)).collect();
        let table = done(&world, &list).await;
        let row = table.lines().find(|line| line.contains("scripts"));
        row.unwrap_or_else(|| panic!("{table}")).to_owned()
    };
    for local in [true, false] {
        let row = state(local).await;
        assert!(
            row.contains("approved") && row.contains("program:sh"),
            "{row}"
        );
    }
    let off = ["plugin", "disable", "shell", "--reason", "a test"];
    done(&world, &off).await;
    assert!(state(true).await.contains("switched off"));
    until("the server knows it too", || async {
        state(false).await.contains("switched off").then_some(())
    })
    .await;
    done(&world, &["plugin", "enable", "shell"]).await;
    // What no profile names is in the folder all the same, and needs no server.
    let idle = World::builder().idle();
    let folder = at(&idle, "plugins");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(built("policy"), Path::new(&folder).join("mine.wasm")).unwrap();
    let listed = done(&idle, &["plugin", "list", "--profiles", &folder, "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let mine = listed.as_array().unwrap().iter();
    let mine = mine.filter(|p| text(p, "component").ends_with("mine.wasm"));
    assert_eq!(mine.count(), 1, "{listed:#}");
    let none = idle.cli(&["plugin", "list", "--profiles", "/none"]).await;
    assert_eq!(none.code, Some(2), "{none:?}");

    // Whatever else is put in its place is not used, and the list says why.
    let path = world.path("home/.agenticore/profiles/_plugins/shell.wasm");
    let mut bytes = fs::read(&path).unwrap();
    // A custom section with the name `x` and nothing in it.
    bytes.extend([0, 2, 1, b'x']);
    fs::write(&path, bytes).unwrap();
    let refused = world
        .post("/jobs", &json!({"task": "echo no", "profile": "scripts"}))
        .await;
    assert!(
        refused.status >= 400 && refused.text.contains("signed"),
        "{}",
        refused.text
    );
    let plugins = done(&world, &["plugin", "list", "--json"]).await;
    assert!(plugins.contains("plugin.signature"), "{plugins}");
}

#[tokio::test]
async fn a_bundle_that_was_tampered_with_is_refused() {
    let world = World::builder().idle();
    let (shell, bundle) = (built("shell"), at(&world, "one.tar"));
    done(&world, &["plugin", "pack", &shell, "--to", &bundle]).await;
    let mut bytes = fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let install = world.cli(&["plugin", "install", &bundle]).await;
    assert_eq!(install.code, Some(1), "{install:?}");
    assert!(install.stderr.contains("plugin.bundle"), "{install:?}");
    assert!(!world.path("home/.agenticore/profiles/_plugins").exists());
}

/// A registry on a free port of this machine.
struct Registry {
    child: Child,
    host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts Debian's registry; none where it is not installed.
async fn registry(folder: &Path) -> Option<Registry> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config: PathBuf = folder.join("registry.yml");
    let storage = folder.join("registry");
    fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            storage.display()
        ),
    )
    .unwrap();
    let started = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = match started {
        Ok(child) => child,
        Err(error) => {
            let reason = format!(
                "docker-registry does not start: {error} (apt-get install docker-registry)"
            );
            assert!(
                !std::env::var("CI").is_ok_and(|ci| ci == "true"),
                "{reason}"
            );
            skip(
                "a_bundle_goes_through_a_registry_and_comes_back_to_the_byte",
                &reason,
            );
            return None;
        }
    };
    let registry = Registry {
        child,
        host: format!("127.0.0.1:{port}"),
    };
    until("the registry listens", async || {
        std::net::TcpStream::connect(&registry.host).ok()
    })
    .await;
    Some(registry)
}

#[tokio::test]
async fn a_bundle_goes_through_a_registry_and_comes_back_to_the_byte() {
    let world = World::builder().idle();
    let Some(registry) = registry(&world.path("tmp")).await else {
        return;
    };
    let (profile, shell, key) = (write_profile(&world), built("shell"), at(&world, "key"));
    let (bundle, pulled) = (at(&world, "one.tar"), at(&world, "two.tar"));
    done(&world, &["plugin", "keygen", &key]).await;
    done(
        &world,
        &[
            "plugin",
            "pack",
            &shell,
            "--profile",
            &profile,
            "--sign",
            &key,
            "--to",
            &bundle,
        ],
    )
    .await;
    let tag = format!("{}/team/scripts:1.0.0", registry.host);
    let pinned = done(&world, &["plugin", "push", &bundle, &tag, "-o", "id"]).await;
    assert!(pinned.contains("/team/scripts@sha256:"), "{pinned}");
    assert_eq!(
        pinned,
        done(&world, &["plugin", "push", &bundle, &tag, "-o", "id"]).await
    );
    for reference in [&pinned, &tag] {
        done(&world, &["plugin", "pull", reference, "--to", &pulled]).await;
        assert_eq!(fs::read(&bundle).unwrap(), fs::read(&pulled).unwrap());
    }
    for (reference, code, words) in [
        (
            format!("{}/team/none:1", registry.host),
            1,
            "plugin.registry",
        ),
        (
            format!("{}/team/scripts@sha256:{}", registry.host, "0".repeat(64)),
            1,
            "plugin.registry",
        ),
        ("scripts:1".to_owned(), 2, "HOST/NAME"),
    ] {
        let pull = world.cli(&["plugin", "pull", &reference]).await;
        assert_eq!(pull.code, Some(code), "{pull:?}");
        assert!(pull.stderr.contains(words), "{pull:?}");
    }
    let host = registry.host.clone();
    drop(registry);
    // What was pulled needs no registry any more.
    done(&world, &["plugin", "install", &pulled]).await;
    let away = world
        .cli(&["plugin", "pull", &format!("{host}/team/scripts:1.0.0")])
        .await;
    assert_eq!(away.code, Some(1), "{away:?}");
}
