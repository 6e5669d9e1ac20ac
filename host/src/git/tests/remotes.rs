//! What remotes answer, what they are given, and what never leaves.

use std::sync::Mutex;

use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const TOKEN: &str = "ghp_t0psecret";

/// A server that answers every request with `status` and keeps the requests.
async fn server(status: &'static str) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(Mutex::new(String::new()));
    let kept = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 8192];
            let length = socket.read(&mut request).await.unwrap_or(0);
            kept.lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&request[..length]));
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = socket.write_all(head.as_bytes()).await;
        }
    });
    (authority, requests)
}

async fn checkout_from(world: &World, url: &str, options: GitOptions) -> GitError {
    let url = RepoUrl::stored(url).unwrap();
    let cache = world.cache_with(options);
    cache
        .checkout(wanted(&url, JOB), Watch::quiet(&world.cancel))
        .await
        .unwrap_err()
}

#[tokio::test]
async fn a_token_goes_to_its_host_only_and_shows_nowhere() {
    let world = World::new();
    let (authority, requests) =
        server("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"").await;
    let url = format!("http://{authority}/o/r.git");
    let log = world.dir.path().join("arguments");
    let program = world
        .wrapper(&format!("echo \"$*\" >> {}", log.display()))
        .into_os_string();
    let with = |host: &str| GitOptions {
        program: program.clone(),
        credentials: Arc::new(HostToken {
            authority: host.to_owned(),
            token: SecretString::from(TOKEN),
        }),
        ..world.options()
    };
    // printf %s "x-access-token:ghp_t0psecret" | base64
    let basic = "eC1hY2Nlc3MtdG9rZW46Z2hwX3QwcHNlY3JldA==";

    let denied = checkout_from(&world, &url, with("github.com")).await;
    assert!(matches!(denied, GitError::Denied { .. }), "{denied}");
    assert!(!requests.lock().unwrap().contains("Authorization"));

    let denied = checkout_from(&world, &url, with(&authority)).await;
    assert!(matches!(denied, GitError::Denied { .. }), "{denied}");
    assert!(
        requests
            .lock()
            .unwrap()
            .contains(&format!("Authorization: Basic {basic}")),
        "{requests:?}"
    );
    assert!(
        !format!("{denied} {denied:?}").contains(TOKEN)
            && denied.to_string().contains("GITHUB_TOKEN")
    );
    assert!(!fs::read_to_string(log).unwrap().contains(TOKEN));
}

#[tokio::test]
async fn a_redirect_takes_no_token_along() {
    let world = World::new();
    let (evil, stolen) = server("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"").await;
    let target =
        format!("302 Found\r\nLocation: http://{evil}/o/r.git/info/refs?service=git-upload-pack");
    let (authority, _) = server(target.leak()).await;
    let credentials = Arc::new(HostToken {
        authority: authority.clone(),
        token: SecretString::from(TOKEN),
    });
    let options = GitOptions {
        credentials,
        ..world.options()
    };
    checkout_from(&world, &format!("http://{authority}/o/r.git"), options).await;
    let stolen = stolen.lock().unwrap();
    assert!(
        stolen.contains("GET /o/r.git") && !stolen.contains("Authorization"),
        "{stolen}"
    );
}

#[tokio::test]
async fn git_gets_an_environment_of_its_own() {
    let world = World::new();
    let dump = world.dir.path().join("env");
    let program = world
        .wrapper(&format!("env >> {}", dump.display()))
        .into_os_string();
    let mut options = GitOptions {
        program,
        ..world.options()
    };
    for (name, value) in [
        ("SERVER_SECRET", "s3cret"),
        ("GIT_DIR", "/evil"),
        ("HTTPS_PROXY", "http://proxy:1"),
        ("LD_PRELOAD_X", "x"),
    ] {
        options.environment.insert(name.into(), value.into());
    }
    let cache = world.cache_with(options);
    let url = world.url();
    cache
        .checkout(wanted(&url, JOB), Watch::quiet(&world.cancel))
        .await
        .unwrap();
    let dump = fs::read_to_string(dump).unwrap();
    assert!(!dump.contains("s3cret") && !dump.contains("/evil") && !dump.contains("LD_PRELOAD_X"));
    for set in [
        "HTTPS_PROXY=http://proxy:1",
        "GIT_CONFIG_GLOBAL=/dev/null",
        "GIT_TERMINAL_PROMPT=0",
        "LC_ALL=C",
        "AGENTICORE_JOB=",
    ] {
        assert!(dump.contains(set), "{set}");
    }
}

#[tokio::test]
async fn failures_of_remotes_are_told_apart() {
    let world = World::new();
    let options = || world.options();
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let unreachable = checkout_from(&world, &format!("http://{closed}/o/r"), options()).await;
    assert!(
        matches!(unreachable, GitError::Unreachable { .. }),
        "{unreachable}"
    );
    assert!(unreachable.to_string().contains("check the address"));

    let (authority, _) = server("404 Not Found").await;
    let missing = checkout_from(&world, &format!("http://{authority}/o/r"), options()).await;
    assert!(matches!(missing, GitError::NotFound { .. }), "{missing}");
    let (authority, _) = server("503 Busy").await;
    let busy = checkout_from(&world, &format!("http://{authority}/o/r"), options()).await;
    assert!(matches!(busy, GitError::Unreachable { .. }), "{busy}");
    let nowhere = checkout_from(
        &world,
        &format!("file://{}/nowhere", world.dir.path().display()),
        options(),
    )
    .await;
    assert!(matches!(nowhere, GitError::NotFound { .. }), "{nowhere}");

    let forbidden = checkout_from(
        &world,
        world.url().as_str(),
        GitOptions {
            allow_file: false,
            ..options()
        },
    )
    .await;
    assert!(
        matches!(forbidden, GitError::Url(InvalidUrl::File)),
        "{forbidden}"
    );
    let no_git = checkout_from(
        &world,
        world.url().as_str(),
        GitOptions {
            program: "no-such-git".into(),
            ..options()
        },
    )
    .await;
    assert!(
        no_git
            .to_string()
            .contains("\"no-such-git\" was not found in PATH"),
        "{no_git}"
    );

    let empty = World::empty();
    let nothing = empty.try_checkout(JOB, None).await.unwrap_err();
    assert!(matches!(nothing, GitError::Empty { .. }), "{nothing}");
    empty.commit(&empty.origin(), "x", "x");
    git(
        &empty.origin(),
        &["symbolic-ref", "HEAD", "refs/heads/gone"],
    );
    let headless = empty.try_checkout(JOB, None).await.unwrap_err();
    assert!(
        headless
            .to_string()
            .contains("name one with base_ref; branches that exist: trunk"),
        "{headless}"
    );
}

#[tokio::test]
async fn a_push_is_done_once_and_overwrites_nobody() {
    let world = World::new();
    let cache = world.cache();
    let (url, cancel) = (world.url(), &world.cancel);
    let worktree = world.checkout(JOB).await;
    let commit = world.commit(&worktree.path, "work.txt", "work");
    assert_eq!(cache.push(&url, &worktree, cancel).await.unwrap(), commit);
    assert_eq!(cache.push(&url, &worktree, cancel).await.unwrap(), commit);
    assert_eq!(
        git(&world.origin(), &["rev-parse", &worktree.branch]),
        commit
    );

    // A reviewer pushes to the branch; the agent goes on from its own commit.
    git(&world.origin(), &["checkout", "--quiet", &worktree.branch]);
    let reviewed = world.commit(&world.origin(), "review.txt", "review");
    git(&world.origin(), &["checkout", "--quiet", "trunk"]);
    world.commit(&worktree.path, "more.txt", "more");
    let rejected = cache.push(&url, &worktree, cancel).await.unwrap_err();
    assert!(
        matches!(rejected, GitError::PushRejected { .. }),
        "{rejected}"
    );
    assert_eq!(
        git(&world.origin(), &["rev-parse", &worktree.branch]),
        reviewed
    );
}
