//! Bad input, keys and origins over HTTP: every refusal is a clear 4xx, and nothing is written for it.

use agenticore_tests::{Reply, World, raw, until};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{field, text};

/// A refusal: its status, a problem body with the fields old clients read, and a sentence that names `word`.
#[track_caller]
fn assert_refused(what: &str, reply: &Reply, status: u16, word: &str) {
    assert_eq!(reply.status, status, "{what}: {}", reply.text);
    assert!(
        reply
            .header("content-type")
            .starts_with("application/problem+json"),
        "{what}: {:?}",
        reply.headers
    );
    assert_eq!(
        reply.body["success"],
        json!(false),
        "{what}: {}",
        reply.text
    );
    assert_eq!(
        reply.body["status"],
        json!(status),
        "{what}: {}",
        reply.text
    );
    for name in ["title", "detail", "code", "error"] {
        assert!(
            !text(&reply.body, name).is_empty(),
            "{what}: no {name} in {}",
            reply.text
        );
    }
    assert!(
        text(&reply.body, "error").contains(word),
        "{what}: {word:?} is not named in {}",
        reply.text
    );
}

#[tokio::test]
async fn bad_submissions_are_refused_and_nothing_is_stored() {
    let world = World::start();
    let long = "x".repeat(600 * 1024);
    let cases: [(&str, Value, u16, &str); 17] = [
        ("no task", json!({"profile": "shell"}), 400, "task"),
        ("empty task", json!({"task": ""}), 400, "task"),
        ("blank task", json!({"task": " \n\t"}), 400, "task"),
        ("a NUL in the task", json!({"task": "a\u{0}b"}), 400, "NUL"),
        ("a long task", json!({"task": long}), 400, "bytes"),
        ("a task of another type", json!({"task": 7}), 400, "string"),
        ("no object", json!(["task"]), 400, ""),
        (
            "an unknown field",
            json!({"task": "x", "repo": "y"}),
            400,
            "repo_url",
        ),
        (
            "an unknown profile",
            json!({"task": "x", "profile": "nosuch"}),
            422,
            "shell",
        ),
        (
            "a profile that is a path",
            json!({"task": "x", "profile": "../shell"}),
            400,
            "profile",
        ),
        (
            "a profile with a slash",
            json!({"task": "x", "profile": "a/b"}),
            400,
            "profile",
        ),
        (
            "a profile with a NUL",
            json!({"task": "x", "profile": "a\u{0}b"}),
            400,
            "profile",
        ),
        (
            "a session that is an option",
            json!({"task": "x", "session_id": "--resume"}),
            400,
            "session",
        ),
        (
            "a ref without a repository",
            json!({"task": "x", "base_ref": "dev"}),
            400,
            "repo_url",
        ),
        (
            "an option as address",
            json!({"task": "x", "repo_url": "--upload-pack=touch /tmp/x"}),
            400,
            "starts with `-`",
        ),
        (
            "a command as address",
            json!({"task": "x", "repo_url": "ext::sh -c id"}),
            400,
            "address",
        ),
        (
            "an option as ref",
            json!({"task": "x", "repo_url": "https://localhost/x", "base_ref": "--all"}),
            400,
            "--all",
        ),
    ];
    let before = world.files("home");
    for (what, body, status, word) in &cases {
        let reply = world.post("/jobs", body).await;
        assert_refused(what, &reply, *status, word);
    }
    assert_eq!(world.jobs().await, Vec::<Value>::new());
    assert_eq!(
        world.files("home"),
        before,
        "nothing is written for a refused request"
    );
    assert_eq!(world.files("repos"), Vec::<String>::new());
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let world = World::start();
    let json_type = Some("application/json");
    let huge = format!("{{\"task\": \"{}\"}}", "x".repeat(2 << 20));
    let cases: [(&str, Option<&str>, &str, u16); 5] = [
        ("broken JSON", json_type, "{\"task\": ", 400),
        ("nothing", json_type, "", 400),
        ("another type", Some("text/plain"), "{\"task\": \"x\"}", 415),
        ("no type", None, "{\"task\": \"x\"}", 415),
        ("too much", json_type, &huge, 413),
    ];
    for (what, content_type, body, status) in cases {
        let mut request = world.request(Method::POST, "/jobs").body(body.to_owned());
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let reply = world.send(request).await;
        assert_refused(what, &reply, status, "");
    }
    assert_eq!(world.jobs().await, Vec::<Value>::new());
}

#[tokio::test]
async fn bad_queries_and_paths_are_refused() {
    let world = World::start();
    let none = "00000000-0000-4000-8000-000000000000";
    let cases = [
        ("/jobs?limit=abc", 400, "limit"),
        ("/jobs?limit=0", 400, "limit"),
        ("/jobs?limit=-1", 400, "limit"),
        ("/jobs?limit=100000", 400, "limit"),
        ("/jobs?status=nosuch", 400, "queued"),
        ("/jobs?since=yesterday", 400, "since"),
        ("/jobs?cursor=zzz", 400, "cursor"),
        ("/nosuch", 404, ""),
        ("/jobs/none", 400, ""),
    ];
    for (path, status, word) in cases {
        let reply = world.get(path).await;
        assert_refused(path, &reply, status, word);
    }
    let missing = world.get(&format!("/jobs/{none}")).await;
    assert_refused("an unknown id", &missing, 404, none);
    let missing = world.delete(&format!("/jobs/{none}")).await;
    assert_refused("cancelling an unknown id", &missing, 404, none);
    let method = world.send(world.request(Method::PUT, "/jobs")).await;
    assert_refused("a wrong method", &method, 405, "");
    assert!(
        method.header("allow").contains("POST"),
        "{:?}",
        method.headers
    );
}

#[tokio::test]
async fn ids_never_reach_the_file_system() {
    let world = World::builder()
        .file("secret.json", "{\"id\": \"canary\"}")
        .start();
    for id in [
        "../secret",
        "..%2fsecret",
        "..%2Fsecret",
        "%2e%2e/secret",
        "..%5csecret",
        "%00",
        "a%00b",
        "%ff%fe",
        ".",
        "%2fetc%2fpasswd",
        "../../../../../../etc/passwd",
    ] {
        for suffix in ["", "/events"] {
            for method in ["GET", "DELETE"] {
                let request = format!(
                    "{method} /jobs/{id}{suffix} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
                );
                let (status, answer) = raw(world.port(), request.as_bytes()).await;
                assert!(
                    (400..500).contains(&status),
                    "{method} {id}{suffix}: {answer}"
                );
                assert!(
                    !answer.contains("canary") && !answer.contains("root:"),
                    "{answer}"
                );
            }
        }
    }
    assert_eq!(world.get("/health").await.status, 200, "it is still well");
}

#[tokio::test]
async fn part_of_an_id_names_a_job_when_it_names_only_one() {
    let world = World::start();
    let id = world.submit("echo x").await;
    world.ended(&id).await;
    let short = id.get(..8).unwrap();
    let reply = world.get(&format!("/jobs/{short}")).await;
    assert_eq!(text(reply.job(), "id"), id);
    let job = world.cli(&["job", short, "--json"]).await.json();
    assert_eq!(text(&job, "id"), id);
}

#[tokio::test]
async fn keys_are_taken_in_three_spellings_and_never_logged() {
    let world = World::builder()
        .env("AGENTICORE_API_KEYS", "first-key,second-key")
        .start();
    until("the server is ready", || async {
        (world.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let bare = |path: &str| world.bare_request(Method::GET, path);
    until("the server is ready", || async {
        let ready = world.send(bare("/readyz")).await;
        (ready.status == 200).then_some(())
    })
    .await;
    for public in ["/health", "/livez"] {
        assert_eq!(world.send(bare(public)).await.status, 200, "{public}");
    }
    let good = [
        bare("/jobs").header("x-api-key", "first-key"),
        bare("/jobs").header("authorization", "Bearer second-key"),
        bare("/jobs?api_key=second-key"),
    ];
    for request in good {
        let reply = world.send(request).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    let bad = [
        bare("/jobs"),
        bare("/profiles"),
        bare("/nosuch"),
        bare("/jobs").header("x-api-key", "first-key,second-key"),
        bare("/jobs").header("x-api-key", "first-ke"),
        bare("/jobs").header("x-api-key", ""),
        bare("/jobs").header("authorization", "Basic second-key"),
        bare("/jobs?api_key=wrong-key"),
    ];
    for request in bad {
        let shown = format!("{request:?}");
        let reply = world.send(request).await;
        assert_eq!(reply.status, 401, "{shown}: {}", reply.text);
        assert_eq!(
            text(&reply.body, "error"),
            "Invalid or missing API key",
            "{shown}"
        );
        assert!(!reply.header("www-authenticate").is_empty(), "{shown}");
    }
    for secret in ["first-key", "second-key", "wrong-key"] {
        assert!(
            !world.log().contains(secret),
            "{secret} is in the log:\n{}",
            world.log()
        );
    }
    // The command line sends the key it is given, and says what is wrong with a bad one.
    assert_eq!(world.cli(&["jobs"]).await.code, Some(0));
    let refused = world.cli(&["--api-key", "nope", "jobs"]).await;
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
}

#[tokio::test]
async fn a_key_may_what_its_scope_says_and_no_more_often_than_the_limit() {
    let world = World::builder()
        .env("AGENTICORE_API_KEYS", "admin-key")
        .env("AGENTICORE_SUBMIT_KEYS", "submit-key")
        .env("AGENTICORE_READ_KEYS", "read-key")
        .env("AGENTICORE_RATE_LIMIT", "30")
        .start();
    let with = |key: &str, method: Method, path: &str| {
        world.bare_request(method, path).header("x-api-key", key)
    };
    let task = json!({"task": "true", "profile": "shell"});
    let refused = world.send(with("read-key", Method::POST, "/jobs").json(&task));
    assert_refused("a reader submits", &refused.await, 403, "read");
    let accepted = world.send(with("submit-key", Method::POST, "/jobs").json(&task));
    let id = text(accepted.await.job(), "id").to_owned();
    let seen = world
        .send(with("read-key", Method::GET, &format!("/jobs/{id}")))
        .await;
    assert_eq!(seen.status, 200, "{}", seen.text);
    let refused = world.send(with("submit-key", Method::POST, "/drain"));
    assert_refused("a submitter drains", &refused.await, 403, "submit");

    // One request in two seconds comes back, so a client that does not pause meets the limit.
    let too_many = loop {
        let reply = world.send(with("read-key", Method::GET, "/jobs")).await;
        if reply.status != 200 {
            break reply;
        }
    };
    assert_refused(
        "one request too many",
        &too_many,
        429,
        "AGENTICORE_RATE_LIMIT",
    );
    assert_eq!(text(&too_many.body, "code"), "rate_limited");
    let seconds: u64 = too_many.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    // The limit is each key's own, and none for those who watch the server.
    for (key, path) in [
        ("admin-key", "/jobs"),
        ("read-key", "/metrics"),
        ("read-key", "/livez"),
    ] {
        let reply = world.send(with(key, Method::GET, path)).await;
        assert_eq!(reply.status, 200, "{key} {path}: {}", reply.text);
    }
}

#[tokio::test]
async fn a_web_page_cannot_use_a_laptops_server() {
    let world = World::start();
    let body = json!({"task": "touch /tmp/x", "profile": "shell"});
    let post = || world.request(Method::POST, "/jobs").json(&body);
    for origin in [
        "https://evil.example",
        "null",
        "http://127.0.0.1.evil.example",
    ] {
        let reply = world.send(post().header("origin", origin)).await;
        assert_refused(origin, &reply, 403, "");
    }
    for host in [
        "evil.example",
        "evil.example:8200",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
    ] {
        let request = format!("GET /jobs HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let (status, answer) = raw(world.port(), request.as_bytes()).await;
        assert_eq!(status, 403, "{host}: {answer}");
    }
    for host in ["127.0.0.1", "localhost:1234", "[::1]:8200", "LOCALHOST"] {
        let request = format!("GET /jobs HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let (status, answer) = raw(world.port(), request.as_bytes()).await;
        assert_eq!(status, 200, "{host}: {answer}");
    }
    assert_eq!(world.jobs().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_repository_that_cannot_be_reached_fails_its_job_alone() {
    let world = World::start();
    let closed =
        json!({"task": "x", "profile": "shell", "repo_url": "http://127.0.0.1:1/none.git"});
    let missing = format!("file://{}", world.path("none.git").display());
    let missing = json!({"task": "x", "profile": "shell", "repo_url": missing});
    for body in [closed, missing] {
        let reply = world.post("/jobs", &body).await;
        if (400..500).contains(&reply.status) {
            continue;
        }
        let job = world.ended(text(reply.job(), "id")).await;
        assert_eq!(text(&job, "status"), "failed");
        let failure = field(&job, "failure");
        assert_eq!(text(failure, "class"), "clone", "{failure}");
        assert!(!text(failure, "remedy").is_empty(), "{failure}");
    }
    let id = world.submit("echo fine").await;
    assert_eq!(text(&world.ended(&id).await, "status"), "succeeded");
}

#[tokio::test]
async fn profiles_that_no_job_could_run_say_so_and_slips_are_warned_of() {
    let world = World::builder()
        .profile("limits", "extends: shell\nplugin: {component: shell, grants: {program: [sh]}, limits: {foo: 1}}\n")
        .profile("sandbox", "extends: codex\nplugin: {config: {sandbox: nope}}\n")
        .profile("model", "claude: {modle: x}\n")
        .profile("point", "extends: shell\nhooks: [{component: policy, on: [redact]}]\n")
        .profile("slip", "extends: shell\nhook: []\ntimout: 3\n")
        .start();
    until("the plugins are loaded", || async {
        (world.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let reply = world.get("/profiles").await;
    let profiles = field(&reply.body, "profiles").as_array().unwrap();
    let of = |name: &str| profiles.iter().find(|p| text(p, "name") == name).unwrap();
    for (name, says) in [
        ("limits", "foo"),
        ("sandbox", "sandbox"),
        ("model", "modle"),
        ("point", "pre-job, post-job"),
    ] {
        let error = text(of(name), "error");
        assert!(error.contains(says), "{name}: {error}");
    }
    for name in ["code", "codex", "guarded", "review", "shell"] {
        assert_eq!(text(of(name), "error"), "", "{name}");
        assert_eq!(field(of(name), "warnings"), &json!([]), "{name}");
    }
    assert_eq!(text(of("slip"), "error"), "", "a slip is no error");
    let shown = world.cli(&["profiles"]).await;
    assert!(
        shown.stderr.contains("did you mean `hooks`?"),
        "{}",
        shown.stderr
    );

    // A hook is not found out in the middle of a job, and a slip stands on the record.
    let body = json!({"task": "echo x", "profile": "point"});
    let refused = world.post("/jobs", &body).await;
    assert!((400..500).contains(&refused.status), "{}", refused.text);
    assert!(
        text(&refused.body, "error").contains("pre-job, post-job"),
        "{}",
        refused.text
    );
    let id = world
        .submit_body(&json!({"task": "echo x", "profile": "slip"}))
        .await;
    let job = world.ended(&id).await;
    assert_eq!(text(&job, "status"), "succeeded", "{job}");
    let warnings = field(&job, "warnings").to_string();
    assert!(
        warnings.contains("`hooks`") && warnings.contains("`timeout`"),
        "{warnings}"
    );
    assert_eq!(
        field(&job, "warnings").as_array().unwrap().len(),
        2,
        "{warnings}"
    );
}

#[tokio::test]
async fn a_wrong_setting_for_an_agent_is_named_as_the_operator_wrote_it() {
    let world = World::builder()
        .env("AGENTICORE_CLAUDE_TIMEOUT", "abc")
        .file("config.yml", "agents: {claude-cod: {binary: x}}\n")
        .start();
    let id = world
        .submit_body(&json!({"task": "x", "profile": "code"}))
        .await;
    let job = world.ended(&id).await;
    let failure = field(&job, "failure").to_string();
    assert!(
        failure.contains("AGENTICORE_CLAUDE_TIMEOUT") && !failure.contains("profile.yml"),
        "{failure}"
    );
    until("the start warns of settings for nobody", || async {
        world.log().contains("`agents.claude-cod`").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_broken_profile_is_listed_with_its_error_and_harms_no_other() {
    let world = World::builder()
        .profile("good", "extends: shell\ndescription: works\n")
        .file(
            "profiles/badyaml/profile.yml",
            "name: badyaml\nextends: [unclosed\n",
        )
        .profile("badtype", "auto_pr: [1, 2]\n")
        .profile("loop-a", "extends: loop-b\n")
        .profile("loop-b", "extends: loop-a\n")
        .profile("orphan", "extends: nosuch\n")
        .start();
    let reply = world.get("/profiles").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let profiles = reply.body["profiles"].as_array().unwrap();
    assert_eq!(reply.body["count"], json!(profiles.len()));
    let error_of = |name: &str| {
        let found = profiles.iter().find(|p| text(p, "name") == name);
        text(
            found.unwrap_or_else(|| panic!("{name} is not listed: {}", reply.text)),
            "error",
        )
        .to_owned()
    };
    for name in ["good", "code", "review", "shell"] {
        assert_eq!(error_of(name), "", "{name}");
    }
    for (name, word) in [
        ("badyaml", "profile.yml"),
        ("badtype", "auto_pr"),
        ("loop-a", "loop-b"),
        ("loop-b", "loop-a"),
        ("orphan", "nosuch"),
    ] {
        assert!(error_of(name).contains(word), "{name}: {}", error_of(name));
        let refused = world
            .post("/jobs", &json!({"task": "x", "profile": name}))
            .await;
        assert!(
            (400..500).contains(&refused.status),
            "{name}: {} {}",
            refused.status,
            refused.text
        );
        assert!(
            text(&refused.body, "error").contains(name),
            "{}",
            refused.text
        );
    }
    let id = world
        .submit_body(&json!({"task": "echo ok", "profile": "good"}))
        .await;
    assert_eq!(text(&world.ended(&id).await, "status"), "succeeded");
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let world = World::start();
    let mut ids = Vec::new();
    for number in 0..5 {
        let script = if number == 3 {
            "echo needle; exit 1"
        } else {
            "echo hay"
        };
        let id = world.submit(script).await;
        world.ended(&id).await;
        ids.insert(0, id);
    }
    let mut seen = Vec::new();
    let mut path = "/jobs?limit=2".to_owned();
    loop {
        let reply = world.get(&path).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let jobs = reply.body["jobs"].as_array().unwrap();
        assert_eq!(reply.body["count"], json!(jobs.len()));
        seen.extend(jobs.iter().map(|job| text(job, "id").to_owned()));
        let Some(cursor) = reply.body["next_cursor"].as_str() else {
            break;
        };
        path = format!("/jobs?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ids, "the newest first, each once");
    let failed = world.get("/jobs?status=failed").await;
    assert_eq!(failed.body["count"], 1, "{}", failed.text);
    let both = world.get("/jobs?status=failed,succeeded").await;
    assert_eq!(both.body["count"], 5, "{}", both.text);
    let found = world.get("/jobs?text=needle").await;
    assert_eq!(text(&found.body["jobs"][0], "id"), ids[1]);
    let elsewhere = world.get("/jobs?pod=other").await;
    assert_eq!(elsewhere.body["count"], 0, "{}", elsewhere.text);
}

#[tokio::test]
async fn health_and_readiness_are_told_apart() {
    let world = World::start();
    let health = world.get("/health").await;
    assert_eq!(
        (text(&health.body, "status"), text(&health.body, "service")),
        ("ok", "agenticore")
    );
    until("the server is ready", || async {
        (world.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let status = world.cli(&["status"]).await;
    assert_eq!(status.code, Some(0), "{}", status.stderr);
}
