#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::*;

fn load(env: &[(&str, &str)], yaml: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yml");
    std::fs::write(&file, yaml).unwrap();
    let env: BTreeMap<String, String> = env
        .iter()
        .map(|(k, v)| ((*k).into(), (*v).into()))
        .collect();
    Config::from_parts(
        &Flags::default(),
        &|name| env.get(name).cloned(),
        "/home/u/.agenticore".into(),
        &file,
    )
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
    let config = load(
        &[("AGENTICORE_PORT", "9000")],
        "server: {port: 9100, host: 10.0.0.1}\n",
    )
    .unwrap();
    assert_eq!((config.port, config.host.as_str()), (9000, "10.0.0.1"));
    assert_eq!(config.max_parallel_jobs, 3);
    assert_eq!(config.repos_root, Path::new("/home/u/agenticore-repos"));
    assert_eq!(config.jobs_dir, Path::new("/home/u/.agenticore/jobs"));
}

#[test]
fn shared_mode_moves_repositories_and_records() {
    let config = load(&[("AGENTICORE_SHARED_FS_ROOT", "/shared")], "").unwrap();
    assert_eq!(config.repos_root, Path::new("/shared/repos"));
    assert_eq!(config.jobs_dir, Path::new("/shared/job-state"));
}

#[test]
fn bad_values_name_their_place() {
    let text = |r: Result<Config, ConfigError>| r.unwrap_err().to_string();
    assert_eq!(
        text(load(&[("AGENTICORE_PORT", "abc")], "")),
        "AGENTICORE_PORT is \"abc\": expected a port number from 0 to 65535"
    );
    assert!(
        text(load(&[], "repos: {max_parallel_jobs: 0}")).contains("repos.max_parallel_jobs in")
    );
    assert!(text(load(&[], "server: {prot: 1}")).contains("unknown key \"server.prot\""));
    assert!(text(load(&[], "server: [")).contains("cannot read"));
    assert!(text(load(&[("AGENTICORE_REPOS_ROOT", "rel")], "")).contains("absolute path"));
    assert!(text(load(&[("REDIS_URL", "http://x")], "")).contains("REDIS_URL"));
    let no_file = [
        ("REDIS_URL", "rediss://x"),
        ("REDIS_CA_FILE", "/nosuch.pem"),
    ];
    assert!(text(load(&no_file, "")).contains("/nosuch.pem"));
}

#[test]
fn compatibility_variables_reach_the_plugin_as_configuration() {
    let (variable, _) = (settings::named(settings::COMPATIBILITY[0].0).env, ());
    let config = load(&[(variable, "/opt/agent")], "agents: {other: {x: 1}}").unwrap();
    assert_eq!(
        config.for_plugin(settings::COMPATIBILITY_PLUGIN)["binary"],
        "/opt/agent"
    );
    assert_eq!(config.for_plugin("other")["x"], 1);
    assert!(config.for_plugin("other").get("binary").is_none());
}

#[test]
fn keys_that_may_do_less_need_one_that_may_do_all() {
    let keys = |more: &[(&str, &str)]| load(more, "");
    for variable in ["AGENTICORE_READ_KEYS", "AGENTICORE_SUBMIT_KEYS"] {
        let error = keys(&[(variable, "r")]).unwrap_err().to_string();
        assert!(error.contains("AGENTICORE_API_KEYS"), "{error}");
        let both = keys(&[(variable, "r"), ("AGENTICORE_API_KEYS", "a")]).unwrap();
        assert_eq!(both.read_keys.len() + both.submit_keys.len(), 1);
        assert!(!format!("{both:?}").contains("\"r\""));
    }
}

#[test]
fn an_open_address_needs_keys() {
    let open = load(&[("AGENTICORE_HOST", "0.0.0.0")], "").unwrap();
    assert!(
        open.check_bind()
            .unwrap_err()
            .to_string()
            .contains("AGENTICORE_API_KEYS")
    );
    load(
        &[("AGENTICORE_HOST", "0.0.0.0"), ("AGENTICORE_API_KEYS", "k")],
        "",
    )
    .unwrap()
    .check_bind()
    .unwrap();
    load(&[("AGENTICORE_HOST", "::1")], "")
        .unwrap()
        .check_bind()
        .unwrap();
}

#[test]
fn the_host_auto_is_open_only_with_keys_or_the_unsafe_flag() {
    let host = |more: &[(&str, &str)]| {
        let config = load(&[&[("AGENTICORE_HOST", "auto")], more].concat(), "").unwrap();
        config.check_bind().unwrap();
        (config.host.clone(), config.base_url())
    };
    let local = "http://127.0.0.1:8200".to_owned();
    assert_eq!(host(&[]), ("127.0.0.1".to_owned(), local.clone()));
    // An optional key of a secret that is there and empty is no key.
    assert_eq!(host(&[("AGENTICORE_API_KEYS", "")]).0, "127.0.0.1");
    let open = ("0.0.0.0".to_owned(), local);
    assert_eq!(host(&[("AGENTICORE_API_KEYS", "k")]), open);
    assert_eq!(host(&[("AGENTICORE_UNSAFE_NO_AUTH", "true")]), open);
}

#[test]
fn a_password_of_redis_may_stand_beside_its_url_as_it_is() {
    use secrecy::ExposeSecret as _;
    let url = |more: &[(&str, &str)]| {
        let config = load(
            &[&[("REDIS_URL", "redis://host:7000/2")], more].concat(),
            "",
        );
        config
            .unwrap()
            .redis
            .unwrap()
            .url
            .expose_secret()
            .to_owned()
    };
    assert_eq!(url(&[]), "redis://host:7000/2");
    let password = ("REDIS_PASSWORD", "p@ss/w:#%");
    assert_eq!(url(&[password]), "redis://:p%40ss%2Fw%3A%23%25@host:7000/2");
    let both = url(&[password, ("REDIS_USERNAME", "team")]);
    assert_eq!(both, "redis://team:p%40ss%2Fw%3A%23%25@host:7000/2");
}

#[test]
fn the_page_of_settings_is_this_table() {
    let page = include_str!("../../../docs/configuration.md");
    assert!(
        page.contains(&reference()),
        "write the output of `agenticore config reference` there"
    );
}

#[test]
fn numbers_that_nothing_can_work_with_are_refused_with_their_bounds() {
    for (variable, says) in [
        ("AGENTICORE_MAX_PARALLEL_JOBS", "from 1 to 10000"),
        ("AGENTICORE_PLUGIN_MAX_CALLS", "from 1 to 10000"),
        ("AGENTICORE_DRAIN_TIMEOUT", "from 0 to 604800"),
        ("AGENTICORE_JOB_TTL", "from 0 to 315360000"),
        ("AGENTICORE_MAX_JOB_SECONDS", "from 0 to 315360000"),
        ("AGENTICORE_WORKTREE_RETENTION", "from 0 to 315360000"),
        ("AGENTICORE_LEASE_SECONDS", "from 1 to 3600"),
    ] {
        for value in [
            "18446744073709551615",
            "9223372036854775807",
            "99999999999999999999",
        ] {
            let error = load(&[(variable, value)], "").unwrap_err().to_string();
            assert!(
                error.starts_with(variable) && error.ends_with(says),
                "{error}"
            );
        }
    }
    assert!(load(&[("AGENTICORE_LEASE_SECONDS", "0")], "").is_err());
    let longest = load(&[("AGENTICORE_JOB_TTL", "315360000")], "").unwrap();
    assert!(
        jiff::Timestamp::now()
            .checked_sub(2 * longest.job_ttl)
            .is_ok()
    );
}

#[test]
fn a_transport_that_is_not_there_is_refused() {
    for transport in ["stdio", "http", "SSE"] {
        let error = load(&[("AGENTICORE_TRANSPORT", transport)], "").unwrap_err();
        assert!(error.to_string().contains("expected sse"), "{error}");
    }
    load(&[("AGENTICORE_TRANSPORT", "sse")], "").unwrap();
    load(&[], "server: {transport: sse}").unwrap();
}

#[test]
fn grants_and_keys_of_the_operator_are_settings_like_others() {
    for (variable, says) in [
        ("AGENTICORE_GRANTS", "one of the kinds program"),
        ("AGENTICORE_PLUGIN_KEYS", "neither a public Ed25519 key"),
        ("AGENTICORE_PLUGIN_LIMITS", "NAME=VALUE"),
    ] {
        let error = load(&[(variable, "xyz")], "").unwrap_err();
        assert!(matches!(error, ConfigError::Value { .. }), "{error}");
        let error = error.to_string();
        assert!(
            error.starts_with(variable) && error.contains(says),
            "{error}"
        );
    }
    let ceiling = load(&[("AGENTICORE_GRANTS", "program:sh, mcp:*")], "").unwrap();
    assert_eq!(ceiling.ceiling.unwrap().len(), 2);
}

#[test]
fn an_empty_host_is_refused_where_it_was_given() {
    let host = |host: &str| Flags {
        host: Some(host.to_owned()),
        ..Flags::default()
    };
    let load = |flags: &Flags| {
        Config::from_parts(
            flags,
            &|_| None,
            "/home/u/.agenticore".into(),
            Path::new("/none"),
        )
    };
    for empty in ["", "  "] {
        let error = load(&host(empty)).unwrap_err().to_string();
        assert!(error.starts_with("--host is"), "{error}");
    }
    load(&host("::1")).unwrap();
    let error = self::load(&[], "server: {host: ''}")
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("server.host in"), "{error}");
}

#[test]
fn a_file_of_settings_that_somebody_names_must_be_there() {
    let home = Path::new("/home/u/.agenticore");
    let named = |name: Option<&str>| file(&|_| name.map(str::to_owned), home);
    let by_itself = home.join("config.yml");
    assert_eq!(named(None).unwrap(), by_itself);
    assert_eq!(named(Some("")).unwrap(), by_itself);
    let error = named(Some("/nosuch/config.yml")).unwrap_err().to_string();
    assert!(
        error.contains("AGENTICORE_CONFIG") && error.contains("/nosuch"),
        "{error}"
    );
    assert_eq!(named(Some("/dev/null")).unwrap(), Path::new("/dev/null"));
}

#[test]
fn what_is_no_file_of_settings_is_told_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("config.yml");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, 0o600.into(), 0).unwrap();
    let home = dir.path().to_owned();
    let error = Config::from_parts(&Flags::default(), &|_| None, home, &pipe).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");

    let text = |yaml| load(&[], yaml).unwrap_err().to_string();
    let number = text("server: 5");
    assert!(
        number.contains("`server` is 5: expected a mapping"),
        "{number}"
    );
    let group = text("sever: {port: 1}");
    assert!(
        group.contains("\"sever\"") && group.contains("server"),
        "{group}"
    );
    // Everything below it may be commented out.
    load(&[], "server:\nredis:\n").unwrap();
}

#[test]
fn a_file_of_certificates_must_hold_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let path = file.display().to_string();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (text, says) in [
        ("root:x:0:0\n", "no certificate"),
        (broken, "cannot be used"),
    ] {
        std::fs::write(&file, text).unwrap();
        let redis = [
            ("REDIS_URL", "rediss://x"),
            ("REDIS_CA_FILE", path.as_str()),
        ];
        let error = load(&redis, "").unwrap_err().to_string();
        assert!(
            error.contains("REDIS_CA_FILE") && error.contains(says),
            "{error}"
        );
    }
}

#[test]
fn every_row_has_a_default_that_parses_and_secrets_do_not_print() {
    let config = load(&[("AGENTICORE_API_KEYS", "sesame")], "").unwrap();
    assert!(!format!("{config:?}").contains("sesame"));
    for setting in SETTINGS {
        assert!(reference().contains(setting.env), "{}", setting.env);
    }
}
