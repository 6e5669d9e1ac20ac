//! The newcomer's path: `docs/plugins/tutorial.md`, run as it is written, once for each language.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use agenticore::scaffold::Language as Lang;
use agenticore_tests::{World, binary, missing, path_with_toolchain, shared_target};
use serde_json::Value;

use crate::{field, text};

/// A build of everything from nothing, on a machine that does much else.
const BUILD_PATIENCE: Duration = Duration::from_secs(1200);
/// Compiling a component with all of Python in it takes a while where everything else runs too.
const LIMITS: &str = "compile_time=900s,hook_time=60s,describe_time=60s";

/// A language of the tutorial: what `--lang` calls it, and its fence.
struct Language {
    lang: Lang,
    name: &'static str,
    fence: &'static str,
}

const RUST: Language = Language {
    lang: Lang::Rust,
    name: "rust",
    fence: "rust",
};
const PYTHON: Language = Language {
    lang: Lang::Python,
    name: "python",
    fence: "python",
};
const JAVASCRIPT: Language = Language {
    lang: Lang::Javascript,
    name: "javascript",
    fence: "js",
};

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_writes_a_hook_in_rust() {
    walk(&RUST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_writes_a_hook_in_python() {
    walk(&PYTHON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_writes_a_hook_in_javascript() {
    walk(&JAVASCRIPT).await;
}

/// A project of each kind of plugin that the tutorial does not make: it builds, passes its test, and a job runs with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_profile_plugin_runs_a_job_in_each_language() {
    let world = World::builder()
        .env("AGENTICORE_PLUGIN_LIMITS", LIMITS)
        .start();
    for language in [RUST, JAVASCRIPT, PYTHON] {
        let Some(tools) = tools(&language, "plugin_author::profile") else {
            continue;
        };
        let name = format!("my-{}", language.name);
        let script = format!(
            "agenticore plugin new {name} --kind profile --lang {}\ncd {name}\n./build.sh\nagenticore plugin check plugin.wasm\n\
             agenticore plugin test cases\n\
             mkdir -p ~/.agenticore/profiles/{name}\ncp profile.yml plugin.wasm ~/.agenticore/profiles/{name}/\n\
             agenticore run 'echo \"$GREETING, world\"' --profile {name} --wait\n",
            language.name
        );
        let said = shell(&world, &script, &tools).await;
        assert!(said.contains("good morning, world"), "{said}");
    }
}

/// Does what the tutorial says, and looks at the two jobs of its last step.
async fn walk(language: &Language) {
    let Some(tools) = tools(language, &format!("plugin_author::{}", language.name)) else {
        return;
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plugins/tutorial.md");
    let script = script(&fs::read_to_string(page).unwrap(), language);
    let world = World::builder()
        .env("AGENTICORE_PLUGIN_LIMITS", LIMITS)
        .start();
    let begun = Instant::now();
    let said = shell(&world, &script, &tools).await;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    // Not by `println!`, which libtest keeps to itself when a test passes.
    let _ = writeln!(
        std::io::stderr(),
        "newcomer, {}: {minutes:.1} minutes from nothing to a job",
        language.name
    );

    let jobs = world.jobs().await;
    let [second, first] = jobs.as_slice() else {
        panic!("{jobs:?}\n{said}");
    };
    assert_eq!(text(first, "status"), "failed", "{said}");
    let reason = "rejected the job: the task names no ticket, such as SHOP-42";
    let first = world.job(text(first, "id")).await;
    assert!(
        text(field(&first, "failure"), "message").contains(reason),
        "{first}"
    );
    let second = world.job(text(second, "id")).await;
    assert_eq!(text(&second, "status"), "succeeded", "{second}");
    assert_eq!(
        field(field(&second, "annotations"), "changed-files"),
        &Value::from("0"),
        "{second}"
    );
}

/// The commands of the page in one script, and its files as commands that write them.
fn script(page: &str, language: &Language) -> String {
    let mut script = String::new();
    let mut lines = page.lines();
    let mut steps = 0;
    while let Some(line) = lines.next() {
        let Some(fence) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let (kind, rest) = fence.split_once(' ').unwrap_or((fence, ""));
        match (kind, rest.strip_prefix("file=")) {
            ("sh", None) if rest.is_empty() => {
                let commands = block
                    .join("\n")
                    .replace("--lang rust", &format!("--lang {}", language.name));
                script.push_str(&commands);
                script.push('\n');
            }
            // The test has its own server.
            ("sh", None) if rest == "server" => {}
            (kind, Some(file)) if kind == "yaml" || kind == language.fence => {
                let _ = writeln!(
                    script,
                    "cat > {file} <<'END-OF-FILE'\n{}\nEND-OF-FILE",
                    block.join("\n")
                );
            }
            ("rust" | "python" | "js", Some(_)) => continue,
            _ => panic!("the test does not know what to do with the block ```{fence}"),
        }
        steps += 1;
    }
    assert!(steps >= 10, "the page has lost most of its steps: {script}");
    script
}

/// The search path with the language's toolchain in it; none: it is missing and the test is skipped by name.
fn tools(language: &Language, test: &str) -> Option<OsString> {
    path_with_toolchain(language.lang)
        .inspect_err(|reason| missing(test, reason))
        .ok()
}

/// Runs a script as a user of the world's server would, in the user's home; all that it said.
///
/// Rust finds the machine's toolchain and the packages that the workspace has; projects share what they compile of them.
async fn shell(world: &World, script: &str, tools: &OsStr) -> String {
    let agenticore = binary().parent().unwrap().to_owned();
    let folders = std::iter::once(agenticore).chain(std::env::split_paths(tools));
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let or_home =
        |name: &str, below: &str| std::env::var_os(name).unwrap_or_else(|| home.join(below).into());
    let child = tokio::process::Command::new("bash")
        .args(["-euc", script])
        .env_clear()
        .env("PATH", std::env::join_paths(folders).unwrap())
        .env("LANG", "C.UTF-8")
        .env("HOME", world.path("home"))
        .env("TMPDIR", world.path("tmp"))
        .env("AGENTICORE_URL", world.url(""))
        .env("AGENTICORE_PLUGIN_LIMITS", LIMITS)
        .env("CARGO_HOME", or_home("CARGO_HOME", ".cargo"))
        .env("RUSTUP_HOME", or_home("RUSTUP_HOME", ".rustup"))
        .envs(std::env::var_os("RUSTUP_TOOLCHAIN").map(|toolchain| ("RUSTUP_TOOLCHAIN", toolchain)))
        .env("CARGO_TARGET_DIR", shared_target())
        .env("CARGO_NET_OFFLINE", "true")
        .current_dir(world.path("home"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("bash starts");
    let done = tokio::time::timeout(BUILD_PATIENCE, child.wait_with_output()).await;
    let done = done
        .expect("the script ends in time")
        .expect("the script is waited for");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(
        done.status.success(),
        "{}: {script}\n{said}\nthe server said:\n{}",
        done.status,
        world.log()
    );
    said
}
