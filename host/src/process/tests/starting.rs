//! What a child is started with, and what keeps one from starting.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn file(dir: &TempDir, name: &str, text: &str, mode: u32) -> std::ffi::OsString {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.into_os_string()
}

#[tokio::test]
async fn a_child_gets_what_it_was_given_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let mut spawn = shell(&dir, "j1", "pwd; cat; env | sort");
    spawn.env.insert("NAME".into(), "value".into());
    spawn.stdin = Some(b"the input\n".to_vec());
    assert!(!format!("{spawn:?}").contains("value"));
    let marker = spawn.marker.to_string();
    let (ended, lines) = run(spawn).await;
    assert!(ended.exit.success());
    let texts: Vec<&str> = lines
        .iter()
        .map(|line| line.text.as_str())
        .filter(|line| !line.starts_with("PATH="))
        .collect();
    let pwd = dir.path().canonicalize().unwrap().display().to_string();
    assert_eq!(
        texts,
        [
            &pwd,
            "the input",
            &format!("AGENTICORE_JOB={marker}"),
            "NAME=value",
            &format!("PWD={pwd}")
        ]
    );
    assert!(marker.ends_with(":j1:1"), "{marker}");
}

#[tokio::test]
async fn exits_are_codes_or_signals() {
    let dir = TempDir::new().unwrap();
    let exit = async |script| run(shell(&dir, "j1", script)).await.0.exit;
    assert_eq!(
        exit("exit 7").await,
        Exit {
            code: Some(7),
            signal: None
        }
    );
    assert_eq!(
        exit("kill -9 $$").await,
        Exit {
            code: None,
            signal: Some(9)
        }
    );
}

#[tokio::test]
async fn what_cannot_be_started_is_explained() {
    let dir = TempDir::new().unwrap();
    let base = shell(&dir, "j1", "exit");
    let error = |change: &dyn Fn(&mut Spawn)| {
        let mut spawn = base.clone();
        change(&mut spawn);
        spawn.start(LineLimits::default()).unwrap_err()
    };
    let named =
        |program: std::ffi::OsString| error(&move |spawn| spawn.program.clone_from(&program));
    let missing = named("no-such-program".into());
    assert!(
        missing
            .to_string()
            .starts_with("program \"no-such-program\" was not found in PATH (/"),
        "{missing}"
    );
    let no_file = named("./no-such".into());
    assert!(matches!(no_file, SpawnError::NoFile(_)));
    let no_file = no_file.to_string();
    assert!(
        no_file.contains("/no-such does not exist") && !no_file.contains("PATH"),
        "{no_file}"
    );
    assert!(matches!(named("".into()), SpawnError::NotFound { .. }));
    assert!(matches!(
        named(file(&dir, "data", "x", 0o644)),
        SpawnError::NotExecutable(_)
    ));
    assert!(matches!(
        named(dir.path().into()),
        SpawnError::NotExecutable(_)
    ));
    assert!(matches!(
        named(file(&dir, "script", "#!/no/such/shell\n", 0o755)),
        SpawnError::Interpreter(_)
    ));
    assert!(matches!(
        named(file(&dir, "noise", "\x01\x02", 0o755)),
        SpawnError::Interpreter(_)
    ));
    assert!(matches!(
        error(&|spawn| spawn.cwd.push("no-such")),
        SpawnError::WorkingDirectory(_)
    ));
    assert!(matches!(
        error(&|spawn| spawn.arguments.push("a\0b".into())),
        SpawnError::Nul("an argument")
    ));
    assert!(matches!(
        error(&|spawn| drop(spawn.env.insert("A=B".into(), "x".into()))),
        SpawnError::VariableName(_)
    ));
    let long = error(&|spawn| spawn.arguments.push("x".repeat(200 * 1024).into()));
    assert!(long.to_string().contains("128 KiB"), "{long}");
}

#[tokio::test]
async fn programs_are_not_found_in_the_directory_worked_in() {
    let dir = TempDir::new().unwrap();
    file(&dir, "planted", "#!/bin/sh\necho planted\n", 0o755);
    let mut spawn = shell(&dir, "j1", "");
    spawn.program = "planted".into();
    spawn.env.insert("PATH".into(), ".::bin:/usr/bin".into());
    assert!(matches!(
        spawn.clone().start(LineLimits::default()),
        Err(SpawnError::NotFound { .. })
    ));
    spawn.env.insert("PATH".into(), dir.path().into());
    assert_eq!(run(spawn).await.1.first().unwrap().text, "planted");
}
