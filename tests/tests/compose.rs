//! `docker-compose.yml`: what it promises, and that it runs where a daemon can be started.

use std::process::Command;

use agenticore::config::SETTINGS;
use agenticore_tests::{
    Docker, Image, Manifests, find_tool, missing, output_of, server_binary, skip, until, workspace,
};
use serde_json::{Value, json};

use crate::{number, text};

const KEY: &str = "compose-key";

fn file() -> Value {
    Manifests::file(&workspace().join("docker-compose.yml")).all()[0].clone()
}

fn seconds(text: &Value) -> u64 {
    text.as_str()
        .unwrap()
        .trim_end_matches('s')
        .parse()
        .unwrap()
}

#[test]
fn the_server_has_time_to_drain_and_keeps_its_state() {
    let file = file();
    let server = &file["services"]["agenticore"];
    let environment = server["environment"].as_object().unwrap();
    for name in environment.keys() {
        let is_known = SETTINGS.iter().any(|s| s.env == name)
            || ["ANTHROPIC_API_KEY", "AGENTICORE_HOME"].contains(&name.as_str());
        assert!(is_known, "{name} is no setting");
    }
    let drain: u64 = environment["AGENTICORE_DRAIN_TIMEOUT"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(seconds(&server["stop_grace_period"]) >= drain + 60);
    assert!(
        environment["AGENTICORE_API_KEYS"]
            .as_str()
            .unwrap()
            .contains(":?"),
        "without keys it says so"
    );
    for place in [
        "AGENTICORE_HOME",
        "AGENTICORE_REPOS_ROOT",
        "AGENTICORE_JOBS_DIR",
    ] {
        assert!(
            environment[place].as_str().unwrap().starts_with("/data"),
            "{place}"
        );
    }
    assert!(
        environment.get("AGENTICORE_SHARED_FS_ROOT").is_none(),
        "no shared file system"
    );
    assert_eq!(server["volumes"], json!(["data:/data"]));
    assert_eq!(
        (&server["read_only"], &server["cap_drop"]),
        (&json!(true), &json!(["ALL"]))
    );
    assert!(
        server["ports"][0]
            .as_str()
            .unwrap()
            .contains(":-127.0.0.1:"),
        "published on loopback alone"
    );
    for service in ["agenticore", "redis"] {
        assert!(
            file["services"][service]["healthcheck"]["test"].is_array(),
            "{service}"
        );
    }
    let redis: Vec<&str> = agenticore_tests::strings(&file["services"]["redis"]["command"]);
    assert!(
        redis.contains(&"noeviction") && redis.contains(&"--appendonly"),
        "{redis:?}"
    );
    assert_eq!(
        file["services"]["collector"]["profiles"],
        json!(["telemetry"]),
        "only on demand"
    );
}

/// Compose with this daemon, the project's file and what a test changes.
struct Compose {
    docker: Docker,
    folder: tempfile::TempDir,
}

impl Compose {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self
            .docker
            .command("docker-compose", &["--project-name", "agenticore-test"]);
        command
            .arg("--file")
            .arg(workspace().join("docker-compose.yml"))
            .arg("--file")
            .arg(self.folder.path().join("test.yml"))
            .args(arguments)
            .env("AGENTICORE_API_KEYS", KEY)
            .env("AGENTICORE_PUBLISH", "127.0.0.1:")
            .env("AGENTICORE_IMAGE", "agenticore-test")
            .env("REDIS_IMAGE", "redis-test");
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        output_of(&mut self.command(arguments))
            .unwrap_or_else(|e| panic!("docker-compose {arguments:?}: {e}"))
    }

    /// The server's address on this machine, once it is healthy.
    async fn address(&self) -> String {
        let id = self.run(&["ps", "--quiet", "agenticore"]);
        until("the server is healthy", || async {
            let state =
                self.docker
                    .run(&["inspect", "--format", "{{.State.Health.Status}}", id.trim()]);
            (state.trim() == "healthy").then_some(())
        })
        .await;
        let port = self.run(&["port", "agenticore", "8200"]);
        format!("http://{}", port.trim())
    }

    /// The command line against the server.
    fn agenticore(&self, address: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(server_binary());
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.folder.path())
            .env("AGENTICORE_URL", address)
            .env("AGENTICORE_API_KEY", KEY);
        output_of(&mut command)
    }

    fn job(&self, address: &str, id: &str) -> Value {
        let text = self.agenticore(address, &["job", id, "--json"]).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compose_runs_a_job_and_a_stop_hands_it_off_to_the_next_start() {
    let test = "compose_runs_a_job_and_a_stop_hands_it_off_to_the_next_start";
    let redis = ["redis-server", "redis-cli"].map(find_tool);
    let [Some(server), Some(client)] = redis else {
        return missing(test, "redis-server is not installed (.ci/run does it)");
    };
    if let Some(reason) = Docker::lacks().or_else(Image::unavailable) {
        return missing(test, &reason);
    }
    let docker = match Docker::start() {
        Ok(docker) => docker,
        Err(reason) => return skip(test, &reason),
    };
    let compose = tokio::task::spawn_blocking(move || prepare(docker, &[server, client]))
        .await
        .unwrap();
    compose.run(&["up", "--detach", "--no-build"]);
    let address = compose.address().await;
    assert!(
        compose
            .agenticore(&address, &["jobs", "--api-key", "wrong"])
            .is_err(),
        "the key is needed"
    );
    let done = compose
        .agenticore(
            &address,
            &[
                "run",
                "id -u; git --version",
                "--profile",
                "shell",
                "--wait",
            ],
        )
        .unwrap();
    assert!(
        done.contains("10001") && done.contains("git version"),
        "{done}"
    );

    let id = compose
        .agenticore(
            &address,
            &[
                "run",
                "[ -e /data/first ] || { touch /data/first; echo begun; sleep 600; }; echo over",
                "--profile",
                "shell",
                "-o",
                "id",
            ],
        )
        .unwrap();
    let id = id.trim();
    until("the job runs", || async {
        let log = compose
            .agenticore(&address, &["logs", id])
            .unwrap_or_default();
        log.contains("begun").then_some(())
    })
    .await;
    compose.run(&["stop", "agenticore"]);
    let container = compose.run(&["ps", "--quiet", "agenticore"]);
    let code = compose.docker.run(&[
        "inspect",
        "--format",
        "{{.State.ExitCode}}",
        container.trim(),
    ]);
    assert_eq!(code.trim(), "0", "it was not killed");
    compose.run(&["up", "--detach", "--no-build"]);
    let address = compose.address().await;
    until("the job has ended", || async {
        (text(&compose.job(&address, id), "status") == "succeeded").then_some(())
    })
    .await;
    assert_eq!(number(&compose.job(&address, id), "attempt"), 2);
}

/// Images of this machine's programs, and settings that make a test short.
fn prepare(docker: Docker, redis: &[std::path::PathBuf]) -> Compose {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("image.tar");
    Image::build(server_binary())
        .unwrap()
        .archive(&archive, "agenticore-test:latest");
    docker.run(&["load", "--quiet", "--input", &archive.display().to_string()]);
    docker.import_programs("redis-test", redis);
    // The profile `shell` is for servers that nobody else reaches; here it is the test's.
    let server = json!({"environment": {"AGENTICORE_ALLOW_LOCAL_PROFILES": "true", "AGENTICORE_DRAIN_TIMEOUT": "1"},
        "healthcheck": {"interval": "1s", "start_period": "0s"}});
    let changes =
        json!({"services": {"agenticore": server, "redis": {"healthcheck": {"interval": "1s"}}}});
    std::fs::write(folder.path().join("test.yml"), changes.to_string()).unwrap();
    Compose { docker, folder }
}
