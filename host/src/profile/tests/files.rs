//! What is read from a profile's folder, and when.

use super::*;

#[test]
fn components_are_looked_for_in_the_folder_then_beside_the_profiles() {
    let world = World::new();
    world
        .write("p/profile.yml", "plugin: {component: own.wasm}")
        .write("p/own.wasm", "x")
        .write("q/profile.yml", "plugin: {component: team/all.wasm}")
        .write_in("shared", "_plugins/team/all.wasm", "x");
    assert_eq!(
        world.load("p").plugin.component,
        Component::File(world.path("user/p/own.wasm"))
    );
    assert!(
        world.load("p").layers[0].files.is_empty(),
        "a component is no file of the layer"
    );
    assert_eq!(
        world.load("q").plugin.component,
        Component::File(world.path("shared/_plugins/team/all.wasm"))
    );
    // Nearer ones win as soon as they are there.
    world.write("_plugins/team/all.wasm", "x");
    assert_eq!(
        world.load("q").plugin.component,
        Component::File(world.path("user/_plugins/team/all.wasm"))
    );
    fs::remove_dir_all(world.path("user/_plugins")).unwrap();
    fs::remove_dir_all(world.path("shared/_plugins")).unwrap();
    assert!(
        world
            .error("q")
            .contains("`plugin.component` names `team/all.wasm`")
    );
    // `_plugins` is no profile.
    world.write("_plugins/x.wasm", "x");
    assert!(
        world
            .store
            .list()
            .iter()
            .all(|profile| !profile.name.starts_with('_'))
    );
}

#[test]
fn a_component_may_not_be_a_link_out_of_its_folder() {
    let world = World::new();
    world
        .write("p/profile.yml", "plugin: {component: x.wasm}")
        .write("elsewhere.wasm", "x");
    symlink(
        world.path("user/elsewhere.wasm"),
        world.path("user/p/x.wasm"),
    )
    .unwrap();
    let error = world.error("p");
    assert!(error.contains("x.wasm"), "{error}");
}

#[test]
fn files_keep_their_bytes_their_order_and_their_execute_bit() {
    let world = World::new();
    world
        .write("p/profile.yml", "")
        .write("p/b/x.sh", "#!/bin/sh\n")
        .write("p/a.bin", "\u{0}")
        .write("p/.git/config", "x");
    fs::set_permissions(
        world.path("user/p/b/x.sh"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let profile = world.load("p");
    let files: Vec<_> = profile.layers[0]
        .files
        .iter()
        .map(|f| (f.path.as_str(), f.size, f.executable))
        .collect();
    assert_eq!(files, [("a.bin", 1, false), ("b/x.sh", 10, true)]);
    assert_eq!(&*profile.layers[0].files[0].bytes, b"\0");
}

#[test]
fn links_are_followed_inside_the_folder_only() {
    let world = World::new();
    world
        .write("secret", "s")
        .write("p/profile.yml", "")
        .write("p/real/a", "a");
    symlink("real/a", world.path("user/p/inside")).unwrap();
    assert_eq!(world.load("p").layers[0].files.len(), 2);
    for target in ["../secret", "/etc/passwd", "nowhere", "../../user/secret"] {
        let link = world.path("user/p/link");
        symlink(target, &link).unwrap();
        let error = world.error("p");
        assert!(
            error.contains("user/p/link") && error.contains("not followed"),
            "{target}: {error}"
        );
        fs::remove_file(link).unwrap();
    }
    symlink("..", world.path("user/p/up")).unwrap();
    assert!(world.error("p").contains("not followed"));
    fs::remove_file(world.path("user/p/up")).unwrap();
    symlink(".", world.path("user/p/round")).unwrap();
    assert!(
        world.error("p").contains("too deeply"),
        "{}",
        world.error("p")
    );
    fs::remove_file(world.path("user/p/round")).unwrap();
    fs::create_dir(world.path("outside")).unwrap();
    fs::write(world.path("outside/profile.yml"), "").unwrap();
    symlink(world.path("outside"), world.path("user/linked")).unwrap();
    assert!(
        world.error("linked").contains("not followed"),
        "{}",
        world.error("linked")
    );
    assert!(
        world
            .store
            .list()
            .iter()
            .any(|p| p.name == "linked" && p.error.is_some())
    );
}

/// A ConfigMap volume: the names are links into a folder that is replaced as a whole.
#[test]
fn a_config_map_volume_is_a_profile_folder() {
    let world = World::new();
    world
        .write("p/..2026_01/profile.yml", "description: mapped")
        .write("p/..2026_01/NOTES.md", "x");
    let p = world.path("user/p");
    symlink("..2026_01", p.join("..data")).unwrap();
    symlink("..data/profile.yml", p.join("profile.yml")).unwrap();
    symlink("..data/NOTES.md", p.join("NOTES.md")).unwrap();
    let profile = world.load("p");
    assert_eq!(
        (profile.description.as_str(), profile.layers[0].files.len()),
        ("mapped", 1)
    );
}

#[test]
fn what_is_no_regular_file_is_refused_without_being_opened() {
    let world = World::new();
    world.write("p/profile.yml", "");
    let fifo = world.path("user/p/pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(world.error("p").contains("regular files"));
}

#[test]
fn large_profiles_are_refused() {
    let world = World::new();
    world.write("files/profile.yml", "");
    for n in 0..2_001 {
        fs::write(world.path("user/files").join(format!("{n}")), "").unwrap();
    }
    assert!(
        world.error("files").contains("2000"),
        "{}",
        world.error("files")
    );
    world.write("bytes/profile.yml", "");
    fs::File::create(world.path("user/bytes/huge"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    assert!(world.error("bytes").contains("32 MiB"));
    world
        .write("deep/profile.yml", "")
        .write("deep/1/2/3/4/5/6/7/8/file", "x");
    assert!(
        world.error("deep").contains("8 levels"),
        "{}",
        world.error("deep")
    );
    world.write(
        "document/profile.yml",
        &format!("description: {}", "x".repeat(300 * 1024)),
    );
    assert!(world.error("document").contains("256 KiB"));
}

#[test]
fn nothing_is_read_again_until_it_changes() {
    let world = World::new();
    world
        .write("p/profile.yml", "description: one")
        .write("p/file", "aaaa");
    let first = world.load("p");
    assert!(Arc::ptr_eq(&first, &world.load("p")));
    assert!(Arc::ptr_eq(&world.load("code"), &world.load("code")));
    // Same size, within the same tick of the clock perhaps: seen all the same.
    for text in ["bbbb", "cccc", "dddd"] {
        world.write("p/file", text);
        assert_eq!(&*world.load("p").layers[0].files[0].bytes, text.as_bytes());
    }
    world.write("p/file", "aaaa");
    assert_eq!(
        world.load("p").digest,
        first.digest,
        "the digest is about contents"
    );
    fs::set_permissions(world.path("user/p/file"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(world.load("p").layers[0].files[0].executable);
    fs::remove_file(world.path("user/p/file")).unwrap();
    assert!(world.load("p").layers[0].files.is_empty());
}

#[test]
fn a_settled_profile_comes_from_memory() {
    let world = World::new();
    world.write("p/profile.yml", "");
    let place = |name: &str| {
        let root = ProfileRoot::folder(Source::User, world.path("user"));
        folder::Place::open(&root, &name.parse().unwrap(), root::Form::Folder).unwrap()
    };
    let mark = place("p").mark().unwrap();
    let now = std::time::SystemTime::now();
    assert!(
        !mark.settled(now),
        "a file that was just written may change within the same tick"
    );
    assert!(mark.settled(now + std::time::Duration::from_secs(10)));
    assert!(place("p").is_as(&mark));
}

#[test]
fn whatever_changes_in_a_profile_is_seen_without_reading_it() {
    let world = World::new();
    let at = |path: &str| world.path(&format!("user/p/{path}"));
    world
        .write("p/profile.yml", "")
        .write("p/d/e/file", "a")
        .write("p/other", "a");
    symlink("d/e/file", at("link")).unwrap();
    symlink("d", at("folder")).unwrap();
    let root = ProfileRoot::folder(Source::User, world.path("user"));
    let place = || folder::Place::open(&root, &"p".parse().unwrap(), root::Form::Folder).unwrap();
    let changes: [(&str, &dyn Fn()); 8] = [
        ("a longer file", &|| {
            fs::write(at("d/e/file"), "aaa").unwrap()
        }),
        ("a file more", &|| fs::write(at("d/e/more"), "").unwrap()),
        ("a file less", &|| fs::remove_file(at("d/e/more")).unwrap()),
        ("a folder more", &|| fs::create_dir(at("d/f")).unwrap()),
        ("another mode", &|| {
            fs::set_permissions(at("other"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("another file of that name", &|| {
            fs::write(at("new"), "a").unwrap();
            fs::rename(at("new"), at("other")).unwrap();
        }),
        ("a link that leads elsewhere", &|| {
            fs::remove_file(at("link")).unwrap();
            symlink("other", at("link")).unwrap();
        }),
        ("a link that leads out", &|| {
            fs::remove_file(at("folder")).unwrap();
            symlink("/etc", at("folder")).unwrap();
        }),
    ];
    for (what, change) in changes {
        let mark = place().mark().unwrap();
        assert!(place().is_as(&mark), "before {what}");
        // Stamps are as coarse as the clock's ticks, which is why a mark counts once it is settled.
        let stamp = || {
            fs::write(world.path("clock"), "").unwrap();
            let metadata = fs::metadata(world.path("clock")).unwrap();
            (metadata.ctime(), metadata.ctime_nsec())
        };
        let now = stamp();
        while stamp() == now {}
        change();
        assert!(!place().is_as(&mark), "{what}");
    }
}
