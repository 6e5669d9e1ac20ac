//! What `extends` adds up to.

use super::*;

#[test]
fn host_keys_inherit_and_explicit_values_win_even_when_they_equal_a_default() {
    let world = World::new();
    world
        .write(
            "a/profile.yml",
            "auto_pr: false\nmax_attempts: 5\non_interrupt: fail\nlocal_only: true\ntimeout: 60",
        )
        .write("b/profile.yml", "extends: a\nmax_attempts: 2")
        .write(
            "c/profile.yml",
            "extends: b\nauto_pr: true\non_interrupt: rerun\nlocal_only: false\ntimeout:",
        );
    let b = world.load("b");
    assert_eq!(
        (b.auto_pr, b.max_attempts, b.on_interrupt, b.local_only),
        (false, 2, OnInterrupt::Fail, true)
    );
    let c = world.load("c");
    assert_eq!(
        (c.auto_pr, c.max_attempts, c.on_interrupt, c.local_only),
        (true, 2, OnInterrupt::Rerun, false)
    );
    assert_eq!(c.timeout, Some(60), "a key without a value is not set");
    let names: Vec<_> = c.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(
        c.layers[1].settings.get("auto_pr"),
        None,
        "a layer has its own keys only"
    );
}

#[test]
fn grants_of_one_component_are_never_those_of_another() {
    let world = World::new();
    world
        .write("a/profile.yml", "plugin: {component: one, grants: {secrets: [TOKEN]}, config: {x: 1, y: 1}, limits: {time: 5s}}")
        .write("b/profile.yml", "extends: a\nplugin: {config: {y: 2}}")
        .write("c/profile.yml", "extends: a\nplugin: {grants: {}}")
        .write("d/profile.yml", "extends: a\nplugin: {component: two}");
    let b = &world.load("b").plugin;
    assert_eq!(
        (&b.component, &b.config),
        (
            &Component::Bundled("one".to_owned()),
            &json!({"x": 1, "y": 2})
        )
    );
    assert!(b.grants["secrets"].contains("TOKEN") && b.limits["time"] == "5s");
    assert!(world.load("c").plugin.grants.is_empty());
    let d = &world.load("d").plugin;
    assert!(
        d.grants.is_empty() && d.limits.is_empty() && d.config == json!({}),
        "{d:?}"
    );
}

#[test]
fn hooks_name_their_points_and_a_child_replaces_the_list() {
    let world = World::new();
    world
        .write("a/profile.yml", "hooks:\n- component: policy\n  on: [pre-job, post-job]\n- {component: x, on: [post-job], required: no}")
        .write("b/profile.yml", "extends: a")
        .write("c/profile.yml", "extends: a\nhooks: []");
    let hooks = &world.load("b").hooks;
    assert_eq!(
        hooks[0].on,
        BTreeSet::from([HookPoint::PreJob, HookPoint::PostJob])
    );
    assert_eq!((hooks[0].required, hooks[1].required), (true, false));
    assert!(world.load("c").hooks.is_empty());
}

#[test]
fn a_circle_breaks_its_own_chain_only() {
    let world = World::new();
    world
        .write("a/profile.yml", "extends: b")
        .write("b/profile.yml", "extends: a")
        .write("self/profile.yml", "extends: self")
        .write("child/profile.yml", "extends: a")
        .write("good/profile.yml", "extends: code");
    assert!(
        world.error("a").contains("a -> b -> a"),
        "{}",
        world.error("a")
    );
    assert!(world.error("self").contains("self -> self"));
    assert!(
        world.error("child").contains("child -> a -> b -> a"),
        "{}",
        world.error("child")
    );
    let broken: Vec<_> = world
        .store
        .list()
        .into_iter()
        .filter(|p| p.error.is_some())
        .map(|p| p.name)
        .collect();
    assert_eq!(broken, ["a", "b", "child", "self"]);
    assert_eq!(world.load("good").layers.len(), 2);
}

#[test]
fn two_profiles_may_share_a_parent() {
    let world = World::new();
    world
        .write("l/profile.yml", "extends: code")
        .write("r/profile.yml", "extends: code");
    let (l, r) = (world.load("l"), world.load("r"));
    assert!(
        Arc::ptr_eq(&l.layers[0], &r.layers[0]),
        "the shared layer is in memory once"
    );
    assert_ne!(l.digest, r.digest);
}

#[test]
fn a_broken_parent_is_named_with_its_own_fault() {
    let world = World::new();
    world
        .write("a/profile.yml", "auto_pr: 3")
        .write("b/profile.yml", "extends: a");
    let error = world.error("b");
    assert!(
        error.contains("user/b/profile.yml")
            && error.contains("user/a/profile.yml")
            && error.contains("auto_pr"),
        "{error}"
    );
}

#[test]
fn chains_have_an_end() {
    let world = World::new();
    world.write("p0/profile.yml", "");
    for n in 1..=16 {
        world.write(
            &format!("p{n}/profile.yml"),
            &format!("extends: p{}", n - 1),
        );
    }
    assert_eq!(world.load("p15").layers.len(), 16);
    assert!(world.error("p16").contains("longer than 16"));
}
