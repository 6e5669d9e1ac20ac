#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
use std::fs;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::config::Flags;
use crate::job::{Admitted, PluginPlace};
use crate::plugin::types::{Exit, Job, Line, OutputStream};
use crate::plugin::{Digest, RunRequest};
use crate::profile::{ProfileRoot, Source};
use crate::trust::Target;
use crate::workbench::bundle::{Bundle, Packing};
use crate::workbench::signature::{Provenance, Signed, SigningKey};

/// A pod's folder with one profile, `mine`, whose plugin is a file.
struct Pod {
    dir: TempDir,
    grants: String,
    /// The public key of whoever may sign plugins; empty: anybody.
    key: String,
}

const GUEST: &str = "profiles/mine/guest.wasm";

impl Pod {
    fn new(ceiling: &str) -> Self {
        let pod = Self {
            dir: tempfile::tempdir().unwrap(),
            grants: ceiling.to_owned(),
            key: String::new(),
        };
        fs::create_dir_all(pod.dir.path().join("profiles/mine")).unwrap();
        pod.write("profiles/mine/profile.yml", b"name: mine\nplugin:\n  component: guest.wasm\n  grants: {program: [sh], settings: [hooks]}\n");
        pod.write(GUEST, &guest("normal"));
        pod
    }

    fn write(&self, below: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join(below), bytes).unwrap();
    }

    /// Puts a guest in the profile as its author's bundle would.
    async fn install(&self, describes: &str, key: &SigningKey) {
        let bytes = guest(describes);
        let report = self.plugins().host().check(bytes.clone()).await;
        let mut bundle = Bundle::pack(&report, bytes.clone().into(), &Packing::default()).unwrap();
        bundle.sign(key);
        let signed = Signed {
            manifest: bundle.text,
            signatures: bundle.signatures,
        };
        let provenance = Provenance {
            bundles: vec![signed],
        };
        self.write(GUEST, &bytes);
        let text = serde_json::to_vec(&provenance).unwrap();
        self.write(&format!("{GUEST}.json"), &text);
    }

    /// A process of this pod, or another pod with the same folders.
    fn plugins(&self) -> Plugins {
        Plugins::new(&self.config(), Compiler::InProcess).unwrap()
    }

    fn config(&self) -> Config {
        let lookup = |name: &str| match name {
            "AGENTICORE_GRANTS" => Some(self.grants.clone()),
            "AGENTICORE_PLUGIN_KEYS" => Some(self.key.clone()).filter(|key| !key.is_empty()),
            "AGENTICORE_PLUGIN_LIMITS" => {
                Some("compile_time=300s,describe_time=120s,time=120s,memory=48MiB".to_owned())
            }
            _ => None,
        };
        let home = self.dir.path().to_owned();
        Config::from_parts(&Flags::default(), &lookup, home, Path::new("/none")).unwrap()
    }

    fn profiles(&self) -> ProfileStore {
        let own = ProfileRoot::folder(Source::User, self.dir.path().join("profiles"));
        ProfileStore::new(vec![ProfileRoot::bundled(), own]).unwrap()
    }

    fn profile(&self) -> Arc<Profile> {
        self.profiles().load("mine").unwrap()
    }

    async fn admit(&self, plugins: &Plugins) -> Result<Vec<Admitted>, PluginError> {
        plugins.admit(&self.profile()).await
    }

    async fn ready(
        &self,
        plugins: &Plugins,
        admitted: &[Admitted],
    ) -> Result<admission::Ready, PluginError> {
        let (profile, place) = (self.profile(), PluginPlace::Plugin);
        plugins
            .ready(admitted, place, &profile.plugin, JobId::random())
            .await
    }
}

/// The guest that misbehaves, with another answer to `describe`; other bytes, and so another digest.
fn guest(describes: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist/test-guests.wasm");
    let mut bytes = fs::read(path).unwrap_or_else(|e| panic!("run `cargo xtask plugins`: {e}"));
    let marker = b"DESCRIBE-DOES:normal............";
    let mut windows = bytes.windows(marker.len());
    let at = windows.position(|window| window == marker).unwrap();
    let mut text = format!("DESCRIBE-DOES:{describes}").into_bytes();
    text.resize(marker.len(), b'.');
    bytes.splice(at..at + marker.len(), text);
    bytes
}

#[tokio::test]
async fn a_job_gets_what_is_asked_for_granted_and_allowed() {
    let pod = Pod::new("program:sh,program:other");
    let admitted = pod.admit(&pod.plugins()).await.unwrap();
    let [one] = admitted.as_slice() else {
        panic!("{admitted:?}")
    };
    assert_eq!(one.digest, Digest::of(&guest("normal")).to_string());
    assert_eq!(
        (one.name.as_str(), one.api.as_str()),
        ("test-guests", "1.1.0")
    );
    assert!(one.requested.contains(&"settings:*".to_owned()), "{one:?}");
    assert_eq!(one.granted, ["program:sh", "settings:hooks"]);
    assert_eq!(one.effective, ["program:sh"]);
    let memory = one.limits.get("memory").and_then(Value::as_u64);
    assert_eq!(memory, Some(48 << 20), "the operator's limit");
}

#[tokio::test]
async fn what_a_job_may_do_never_grows_after_it_was_submitted() {
    let mut pod = Pod::new("program:sh");
    let admitted = pod.admit(&pod.plugins()).await.unwrap();
    pod.grants = "program:*,settings:*".to_owned();
    pod.write("profiles/mine/profile.yml", b"name: mine\nplugin:\n  component: guest.wasm\n  grants: {program: [sh, bash], settings: [hooks]}\n");
    let plugins = pod.plugins();
    let ready = pod.ready(&plugins, &admitted).await.unwrap();
    let got = plugins.grants_of(&ready);
    assert_eq!(got, ["program:sh"]);
    pod.grants = "settings:*".to_owned();
    let plugins = pod.plugins();
    let ready = pod.ready(&plugins, &admitted).await.unwrap();
    assert_eq!(
        plugins.grants_of(&ready),
        [""; 0],
        "the ceiling of now holds too"
    );
}

#[tokio::test]
async fn every_attempt_on_every_pod_runs_the_bytes_of_the_submission() {
    let pod = Pod::new("program:sh");
    let here = pod.plugins();
    let admitted = pod.admit(&here).await.unwrap();
    pod.write(GUEST, &guest("other"));
    for plugins in [here, pod.plugins()] {
        let ready = pod.ready(&plugins, &admitted).await.unwrap();
        assert_eq!(ready.plugin.digest(), Digest::of(&guest("normal")));
    }
    // A new job takes the new bytes.
    let new = pod.admit(&pod.plugins()).await.unwrap();
    assert_ne!(new, admitted);

    fs::remove_dir_all(pod.dir.path().join("plugin-trust/components")).unwrap();
    let error = pod.ready(&pod.plugins(), &admitted).await.unwrap_err();
    assert_eq!(error.code, Code::Pinned, "{error}");
    // The file itself is as good as a copy of it.
    pod.write(GUEST, &guest("normal"));
    pod.ready(&pod.plugins(), &admitted).await.unwrap();
}

#[tokio::test]
async fn a_kept_copy_that_was_swapped_is_not_run() {
    let pod = Pod::new("program:sh");
    let admitted = pod.admit(&pod.plugins()).await.unwrap();
    let digest = Digest::of(&guest("normal"));
    let kept = format!("plugin-trust/components/{digest}.wasm");
    pod.write(&kept, &guest("swapped"));
    pod.write(GUEST, &guest("swapped"));
    let error = pod.ready(&pod.plugins(), &admitted).await.unwrap_err();
    assert_eq!(error.code, Code::Pinned, "{error}");
}

#[tokio::test]
async fn a_waiting_job_runs_only_what_a_key_of_now_signed() {
    let mut pod = Pod::new("program:sh");
    let key = |name: &str| SigningKey::generate(&pod.dir.path().join(name)).unwrap();
    let (mine, other) = (key("mine"), key("other"));
    pod.key = mine.public();
    pod.install("normal", &mine).await;
    let admitted = pod.admit(&pod.plugins()).await.unwrap();
    // Another version in its place takes nothing from those that wait for the old one.
    pod.install("other", &mine).await;
    let plugins = pod.plugins();
    pod.ready(&plugins, &admitted).await.unwrap();

    pod.key = other.public();
    let plugins = pod.plugins();
    let error = pod.ready(&plugins, &admitted).await.unwrap_err();
    assert_eq!(error.code, Code::Signature, "{error}");
    assert!(
        error.message.contains("guest.wasm") && error.message.contains(&mine.public()),
        "{error}"
    );
    // Not even where another job has it loaded.
    plugins.host().load(guest("normal")).await.unwrap();
    let error = pod.ready(&plugins, &admitted).await.unwrap_err();
    assert_eq!(error.code, Code::Signature, "{error}");
}

#[tokio::test]
async fn a_job_runs_no_plugin_that_it_was_not_admitted_with() {
    let pod = Pod::new("program:sh");
    let plugins = pod.plugins();
    let admitted = pod.admit(&plugins).await.unwrap();
    pod.write("profiles/mine/another.wasm", &guest("normal"));
    pod.write(
        "profiles/mine/profile.yml",
        b"name: mine\nplugin: {component: another.wasm}\n",
    );
    let error = pod.ready(&plugins, &admitted).await.unwrap_err();
    assert_eq!(error.code, Code::Pinned, "{error}");
    assert!(error.message.contains("another.wasm"), "{error}");
}

#[tokio::test]
async fn a_version_that_asks_for_more_is_refused_until_it_is_approved() {
    let pod = Pod::new("program:sh");
    let plugins = pod.plugins();
    pod.write(GUEST, &guest("no-requests"));
    pod.admit(&plugins).await.unwrap();
    pod.write(GUEST, &guest("normal"));
    let error = pod.admit(&plugins).await.unwrap_err();
    assert_eq!(error.code, Code::Approval, "{error}");
    let digest = Digest::of(&guest("normal"));
    let command = format!("agenticore plugin approve {digest}");
    assert!(error.to_string().contains(&command), "{error}");
    plugins.trust().approve(&Target::Digest(digest)).unwrap();
    let admitted = pod.admit(&plugins).await.unwrap();
    plugins.trust().revoke(&Target::Digest(digest)).unwrap();
    let error = pod.ready(&plugins, &admitted).await.unwrap_err();
    assert_eq!(error.code, Code::Approval, "{error}");
}

#[tokio::test]
async fn a_plugin_that_is_switched_off_is_neither_admitted_nor_run() {
    let pod = Pod::new("program:sh");
    let plugins = pod.plugins();
    let admitted = pod.admit(&plugins).await.unwrap();
    for target in [
        Target::Name("test-guests".into()),
        Target::Digest(Digest::of(&guest("normal"))),
    ] {
        plugins.trust().disable(&target, "on fire").unwrap();
        let error = pod.admit(&plugins).await.unwrap_err();
        assert_eq!(error.code, Code::Disabled, "{error}");
        let error = pod.ready(&plugins, &admitted).await.unwrap_err();
        assert_eq!(error.code, Code::Disabled, "{error}");
        plugins.trust().enable(&target).unwrap();
    }
    pod.ready(&plugins, &admitted).await.unwrap();
    // A bundled one can be switched off as well.
    let bundled = pod.profiles().load("shell").unwrap();
    plugins.admit(&bundled).await.unwrap();
    let shell = Target::Name("shell".into());
    plugins.trust().disable(&shell, "").unwrap();
    let error = plugins.admit(&bundled).await.unwrap_err();
    assert_eq!(error.code, Code::Disabled, "{error}");
}

#[tokio::test]
async fn a_component_is_admitted_only_where_it_can_be_called() {
    let pod = Pod::new("program:sh");
    let plugins = pod.plugins();
    for (yaml, says) in [
        (
            "hooks: [{component: policy, on: [pre-job, redact]}]",
            "pre-job, post-job",
        ),
        ("hooks: [{component: shell, on: [post-job]}]", "is no hook"),
        ("plugin: {component: policy}", "`profile` and `agent`"),
    ] {
        let text = format!("name: mine\nextends: shell\n{yaml}\n");
        pod.write("profiles/mine/profile.yml", text.as_bytes());
        let error = pod.admit(&plugins).await.unwrap_err();
        assert_eq!(error.code, Code::Export, "{error}");
        assert!(error.message.contains(says), "{error}");
        assert_eq!(error.fixed_by, plugin::Party::Profile);
        let found = plugins.examine(&pod.profile(), &pod.config()).await;
        assert!(
            found.error.is_some_and(|error| error.contains(says)),
            "{yaml}"
        );
    }
    let good = "name: mine\nextends: shell\nhooks: [{component: redact, on: [pre-job, post-job, redact]}]\n";
    pod.write("profiles/mine/profile.yml", good.as_bytes());
    pod.admit(&plugins).await.unwrap();
}

#[tokio::test]
async fn a_profile_whose_jobs_would_fail_is_found_out_and_nothing_is_decided() {
    let pod = Pod::new("program:*,settings:*");
    let plugins = pod.plugins();
    let config = pod.config();
    for (yaml, says) in [
        ("plugin: {component: shell, limits: {foo: 1}}", "foo"),
        ("plugin: {component: shell, grants: {foo: [a]}}", "foo"),
        (
            "plugin: {component: shell, limits: {memory: 4GiB}}",
            "ceiling",
        ),
        (
            "plugin: {component: codex, config: {sandbox: nope}}",
            "sandbox",
        ),
        ("plugin: {component: shell}", "program:sh"),
        ("plugin: {component: text.wasm}", "WebAssembly"),
    ] {
        pod.write("profiles/mine/text.wasm", b"not a component");
        pod.write(
            "profiles/mine/profile.yml",
            format!("name: mine\n{yaml}\n").as_bytes(),
        );
        let found = plugins.examine(&pod.profile(), &config).await;
        let error = found.error.unwrap_or_default();
        assert!(error.contains(says), "{yaml}: {error}");
        let again = plugins.examine(&pod.profile(), &config).await;
        assert_eq!(again.error, Some(error), "the same when it is known");
    }
    pod.write(
        "profiles/mine/profile.yml",
        b"name: mine\nhook: []\nplugin: {component: guest.wasm, grants: {program: [sh]}}\n",
    );
    let found = plugins.examine(&pod.profile(), &config).await;
    assert_eq!(found.error, None);
    assert!(
        found.warnings.iter().any(|slip| slip.contains("`hooks`")),
        "{found:?}"
    );
    let digest = Digest::of(&guest("normal"));
    assert!(
        !plugins.trust().is_kept(digest),
        "only a submission keeps bytes"
    );
    assert!(plugins.trust().decisions().unwrap().approvals.is_empty());
}

#[tokio::test]
async fn settings_for_a_plugin_that_is_not_here_are_told_of() {
    let pod = Pod::new("program:sh");
    let agents = |name: &str| BTreeMap::from([(name.to_owned(), Map::new())]);
    let plugins = pod.plugins();
    for known in ["codex", "shell", "test-guests"] {
        let absent = plugins.absent(&agents(known), &pod.profiles()).await;
        assert!(absent.is_empty(), "{absent:?}");
    }
    let absent = plugins.absent(&agents("codx"), &pod.profiles()).await;
    let [told] = absent.as_slice() else {
        panic!("{absent:?}")
    };
    assert!(
        told.contains("`agents.codx`") && told.contains("test-guests"),
        "{told}"
    );
}

#[tokio::test]
async fn a_run_that_began_with_the_old_bytes_ends_with_them() {
    let pod = Pod::new("program:sh");
    let plugins = pod.plugins();
    let admitted = pod.admit(&plugins).await.unwrap();
    let old = pod.ready(&plugins, &admitted).await.unwrap();
    let start = RunRequest {
        job: job(),
        config: json!({}),
        layers: plugins.layers(&pod.profile()),
        session: None,
    };
    let host = plugins.host();
    let mut run = host
        .start_run(&old.plugin, &old.context, &start)
        .await
        .unwrap();
    pod.write(GUEST, &guest("other"));
    let admitted = pod.admit(&plugins).await.unwrap();
    let new = pod.ready(&plugins, &admitted).await.unwrap();
    assert_ne!(new.plugin.digest(), old.plugin.digest());
    let line = Line {
        stream: OutputStream::Stdout,
        text: "still here".to_owned(),
        truncated: false,
    };
    run.observe(&[line]).await.unwrap();
    let exit = Exit {
        code: Some(0),
        signal: None,
        stop_requested: false,
        stderr_tail: String::new(),
    };
    let (conclusion, _) = run.conclude(&exit).await.unwrap();
    assert_eq!(conclusion.output.as_deref(), Some("1 lines, 1 calls"));
}

fn job() -> Job {
    Job {
        id: JobId::random().to_string(),
        attempt: 1,
        task: "x".to_owned(),
        repo_url: None,
        base_ref: None,
        branch: None,
        profile: "mine".to_owned(),
    }
}

#[tokio::test]
async fn a_broken_plugin_keeps_no_other_from_being_ready() {
    let pod = Pod::new("program:sh");
    fs::create_dir_all(pod.dir.path().join("profiles/broken")).unwrap();
    pod.write(
        "profiles/broken/profile.yml",
        b"name: broken\nplugin: {component: broken.wasm}\n",
    );
    pod.write("profiles/broken/broken.wasm", b"not a component");
    let plugins = pod.plugins();
    let pinned = vec![Digest::of(b"gone")];
    let time = Duration::from_secs(300);
    plugins.prewarm(&pod.profiles(), pinned, time).await;
    let warmth = plugins.warmth();
    assert!(warmth.contains("broken.wasm (plugin.format)"), "{warmth}");
    assert!(warmth.contains("(plugin.pinned)"), "{warmth}");
    let loaded = plugins.host().loaded(Digest::of(&guest("normal")));
    assert!(loaded.is_some(), "{warmth}");
    pod.admit(&plugins).await.unwrap();
}

#[tokio::test]
async fn a_prewarm_ends_at_its_deadline() {
    let pod = Pod::new("program:sh");
    let plugins = pod.plugins();
    plugins
        .prewarm(&pod.profiles(), Vec::new(), Duration::ZERO)
        .await;
    // What was not loaded ahead is loaded when it is wanted.
    pod.admit(&plugins).await.unwrap();
}

impl Plugins {
    /// What a job's plugin may do in the end.
    fn grants_of(&self, ready: &admission::Ready) -> Vec<String> {
        let role = crate::plugin::Role::Plugin;
        let grants = self
            .host
            .effective_grants(&ready.plugin, &ready.context.grants, role);
        grants.effective.iter().map(|g| g.to_string()).collect()
    }
}
