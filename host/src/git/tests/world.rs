//! A remote, a cache, and git as people run it.

use super::*;

/// A remote in a folder and a cache.
pub(super) struct World {
    pub(super) dir: TempDir,
    pub(super) cancel: CancellationToken,
}

impl World {
    /// A remote whose default branch is `trunk`, with two commits, a branch `side` and a tag `v1`.
    pub(super) fn new() -> Self {
        let world = Self::empty();
        let origin = world.origin();
        world.commit(&origin, "one.txt", "one");
        git(&origin, &["tag", "v1"]);
        git(&origin, &["branch", "side"]);
        world.commit(&origin, "two.txt", "two");
        world
    }

    pub(super) fn empty() -> Self {
        let world = Self {
            dir: TempDir::new().unwrap(),
            cancel: CancellationToken::new(),
        };
        fs::create_dir(world.origin()).unwrap();
        git(
            &world.origin(),
            &["init", "--quiet", "--initial-branch=trunk"],
        );
        // Pushes go to other branches than the one that is checked out.
        world
    }

    pub(super) fn origin(&self) -> PathBuf {
        self.dir.path().join("origin")
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    pub(super) fn url(&self) -> RepoUrl {
        RepoUrl::parse(
            &format!("file://{}", self.origin().display()),
            &UrlPolicy { allow_file: true },
        )
        .unwrap()
    }

    pub(super) fn home(&self) -> PathBuf {
        self.root().join(self.url().key())
    }

    pub(super) fn repo(&self) -> PathBuf {
        self.home().join("repo")
    }

    pub(super) fn options(&self) -> GitOptions {
        GitOptions {
            allow_file: true,
            ..GitOptions::new(Instance::of(self.dir.path(), "pod-0"), std::env::vars_os())
        }
    }

    pub(super) fn cache(&self) -> RepoCache {
        self.cache_with(self.options())
    }

    pub(super) fn cache_with(&self, options: GitOptions) -> RepoCache {
        RepoCache::new(
            self.root(),
            Git::new(options),
            Arc::new(FlockLock::new(self.root())),
            &["/.agenticore/"],
        )
    }

    /// A cache with such a program in git's place.
    pub(super) fn cache_behind(&self, lines: &str) -> RepoCache {
        self.cache_with(GitOptions {
            program: self.wrapper(lines).into_os_string(),
            ..self.options()
        })
    }

    /// A program in git's place that runs `lines` of shell first; `$*` are git's arguments.
    pub(super) fn wrapper(&self, lines: &str) -> PathBuf {
        let path = self.dir.path().join("git-wrapper");
        fs::write(&path, format!("#!/bin/sh\n{lines}\nexec git \"$@\"\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub(super) async fn try_checkout(
        &self,
        job: &str,
        base: Option<&str>,
    ) -> Result<Worktree, GitError> {
        let (url, base) = (
            self.url(),
            base.map(|base| base.parse::<BaseRef>().unwrap()),
        );
        let request = Checkout {
            url: &url,
            base_ref: base.as_ref(),
            ..wanted(&url, job)
        };
        self.cache()
            .checkout(request, Watch::quiet(&self.cancel))
            .await
    }

    pub(super) async fn checkout(&self, job: &str) -> Worktree {
        self.try_checkout(job, None).await.unwrap()
    }

    pub(super) fn commit(&self, at: &Path, file: &str, text: &str) -> String {
        fs::write(at.join(file), text).unwrap();
        git(at, &["add", "--all"]);
        git(
            at,
            &[
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.com",
                "commit",
                "--quiet",
                "-m",
                file,
            ],
        );
        git(at, &["rev-parse", "HEAD"])
    }
}

/// A checkout of the default branch, as most tests want it.
pub(super) fn wanted<'a>(url: &'a RepoUrl, job: &'a str) -> Checkout<'a> {
    Checkout {
        url,
        base_ref: None,
        job,
        task: "Fix the login",
        submodules: false,
        lfs: false,
    }
}

/// Plain git, as a person or an agent runs it, without what the machine's user has configured.
pub(super) fn git(at: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .current_dir(at)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command.envs(Git::agent_environment());
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
