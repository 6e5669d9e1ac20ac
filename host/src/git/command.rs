//! Runs the git program with a configuration of our own: nothing of the system's or the user's, no prompts, no hooks, no helpers.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::classify::classify;
use super::credentials::{self, Credentials, NoCredentials};
use super::error::GitError;
use super::lock::{LockError, LockGuard};
use super::redact;
use super::url::{InvalidUrl, RepoUrl, Transport};
use crate::process::{Captured, Instance, JobMarker, Spawn};

/// The variables of the server that git gets, beside those that we set.
const INHERITED: [&str; 20] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "CURL_CA_BUNDLE",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "HTTP_PROXY",
];

/// Configuration that wins over what a repository says of itself. Agents can write to the repository's configuration, and what
/// they plant there must not run with the server's rights.
const CONFIG: [&str; 14] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=keep",
    "core.pager=cat",
    "core.editor=false",
    "core.alternateRefsCommand=",
    "protocol.ext.allow=never",
    "safe.directory=*",
    "gc.autoDetach=false",
    "commit.gpgSign=false",
    "http.sslVerify=true",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "submodule.recurse=false",
];

/// Numbers the calls of this process. Every call's processes are found by their marker when they are killed, so no two calls may
/// share one, whichever [`Git`] made them.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// The most of git's standard output that is kept, in bytes. Longer output is an error, never a silent cut.
const MAX_OUTPUT: usize = 64 * 1024 * 1024;

/// The most of git's standard error that is kept, in bytes.
const MAX_STDERR: usize = 16 * 1024;

/// Who commits where a repository does not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub name: String,
    /// The e-mail address.
    pub email: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            name: "agenticore".to_owned(),
            email: "agenticore@users.noreply.github.com".to_owned(),
        }
    }
}

/// How git is run.
#[derive(Debug, Clone)]
pub struct GitOptions {
    /// The git program: a name or a path.
    pub program: OsString,
    /// The server's environment; git gets only `PATH`, `HOME`, ssh, certificate and proxy variables of it.
    pub environment: BTreeMap<OsString, OsString>,
    /// Whether `file://` remotes are allowed.
    pub allow_file: bool,
    /// The server, for the marker that lets a restarted server find a git that outlived it.
    pub instance: Instance,
    /// What remotes are given.
    pub credentials: Arc<dyn Credentials>,
    /// How long one exchange with a remote, or a checkout, may take.
    pub network_limit: Duration,
    /// How long anything else may take.
    pub local_limit: Duration,
    /// Who commits where the repository does not say it.
    pub identity: Identity,
}

impl GitOptions {
    /// Options for the server `instance` that runs in `environment`: git from the `PATH`, no `file://`, no credentials, ten
    /// minutes for the network and two for the rest.
    #[must_use]
    pub fn new(
        instance: Instance,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        Self {
            program: "git".into(),
            environment: environment.into_iter().collect(),
            allow_file: false,
            instance,
            credentials: Arc::new(NoCredentials),
            network_limit: Duration::from_mins(10),
            local_limit: Duration::from_mins(2),
            identity: Identity::default(),
        }
    }
}

/// Runs git.
#[derive(Debug, Clone)]
pub struct Git {
    options: Arc<GitOptions>,
}

/// What ends a git command early.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop<'a> {
    pub(super) cancel: &'a CancellationToken,
    /// The lock it works under, and the key of it.
    pub(super) lock: Option<(&'a LockGuard, &'a str)>,
}

impl Git {
    /// A runner with these options.
    #[must_use]
    pub fn new(options: GitOptions) -> Self {
        Self {
            options: Arc::new(options),
        }
    }

    /// What agents that run git themselves should find in their environment: no prompts, and trust in a shared volume whose files
    /// may belong to another user.
    #[must_use]
    pub fn agent_environment() -> [(&'static str, &'static str); 4] {
        [
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
        ]
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.options.identity
    }

    /// A call, described in words for errors, that runs in `cwd`.
    pub(super) fn call<'a>(
        &'a self,
        what: impl Into<String>,
        cwd: &'a Path,
        stop: Stop<'a>,
    ) -> Call<'a> {
        Call {
            git: self,
            what: what.into(),
            cwd,
            stop,
            arguments: Vec::new(),
            git_dir: None,
            work_tree: None,
            remote: None,
            others: false,
            slow: false,
            local_transport: false,
        }
    }
}

/// One run of git.
pub(super) struct Call<'a> {
    git: &'a Git,
    what: String,
    cwd: &'a Path,
    stop: Stop<'a>,
    arguments: Vec<OsString>,
    git_dir: Option<&'a Path>,
    work_tree: Option<&'a Path>,
    remote: Option<&'a RepoUrl>,
    /// Whether what goes wrong may be the fault of other remotes.
    others: bool,
    slow: bool,
    local_transport: bool,
}

impl<'a> Call<'a> {
    /// The repository. Without one, git works outside of any.
    pub(super) fn git_dir(mut self, path: &'a Path) -> Self {
        self.git_dir = Some(path);
        self
    }

    /// The work tree, where there is one.
    pub(super) fn work_tree(mut self, path: &'a Path) -> Self {
        self.work_tree = Some(path);
        self
    }

    /// It talks to this remote: it gets its credentials and more time.
    pub(super) fn remote(mut self, url: &'a RepoUrl) -> Self {
        self.remote = Some(url);
        self.slow()
    }

    /// It talks to other remotes as well, on behalf of this one.
    pub(super) fn remotes_of(mut self, url: &'a RepoUrl) -> Self {
        self.others = true;
        self.remote(url)
    }

    /// It may take as long as a transfer does.
    pub(super) fn slow(mut self) -> Self {
        self.slow = true;
        self
    }

    /// It copies from one folder of the cache to another, whatever remotes are allowed.
    pub(super) fn local_transport(mut self) -> Self {
        self.local_transport = true;
        self
    }

    /// Adds an argument.
    pub(super) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub(super) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self
    }

    /// Runs it and gives back its standard output.
    ///
    /// # Errors
    /// [`GitError`], also for any exit code but 0.
    pub(super) async fn run(self) -> Result<Vec<u8>, GitError> {
        let (what, remote) = (self.what.clone(), self.remote.filter(|_| !self.others));
        let captured = self.capture().await?;
        let exit = captured.ended.exit;
        let stderr = redact::stderr(&String::from_utf8_lossy(&captured.stderr.bytes()));
        if !exit.success() {
            return Err(classify(what, remote, exit, stderr));
        }
        if captured.stdout.cut() > 0 {
            return Err(GitError::Failed {
                what,
                exit,
                stderr: format!("its output is longer than {MAX_OUTPUT} bytes"),
            });
        }
        Ok(captured.stdout.bytes())
    }

    /// As [`Call::run`], as text without the line end.
    pub(super) async fn text(self) -> Result<String, GitError> {
        Ok(String::from_utf8_lossy(&self.run().await?)
            .trim_end_matches('\n')
            .to_owned())
    }

    /// As [`Call::text`], with none where git answers with a failure of its own.
    pub(super) async fn maybe(self) -> Result<Option<String>, GitError> {
        match self.text().await {
            Ok(text) => Ok(Some(text)),
            Err(GitError::Failed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn capture(self) -> Result<Captured, GitError> {
        let options = &self.git.options;
        if self
            .remote
            .is_some_and(|url| url.transport() == Transport::File)
            && !options.allow_file
        {
            return Err(InvalidUrl::File.into());
        }
        let limit = if self.slow {
            options.network_limit
        } else {
            options.local_limit
        };
        if self.stop.cancel.is_cancelled() {
            return Err(GitError::Cancelled { what: self.what });
        }
        // The lock is given up when this returns, so git must be gone by then; and not before git is gone when this is dropped.
        let lock = self.stop.lock.map(|(guard, _)| guard.keep());
        self.spawn()
            .capture_until(MAX_OUTPUT, MAX_STDERR, lock, self.stopped(limit))
            .await?
    }

    /// Comes back when git has to end early, with what is to be said of it.
    async fn stopped(&self, limit: Duration) -> GitError {
        let what = self.what.clone();
        let lost = self
            .stop
            .lock
            .map(|(guard, _)| guard.lost().clone())
            .unwrap_or_default();
        tokio::select! {
            biased;
            () = self.stop.cancel.cancelled() => GitError::Cancelled { what },
            () = lost.cancelled() => {
                let key = self.stop.lock.map(|(_, key)| key.to_owned()).unwrap_or_default();
                LockError::Lost { key }.into()
            }
            () = tokio::time::sleep(limit) => GitError::TimedOut { what, limit },
        }
    }

    fn spawn(&self) -> Spawn {
        let mut arguments: Vec<OsString> = Vec::new();
        for setting in CONFIG.into_iter().chain(credentials::CONFIG) {
            arguments.extend(["-c".into(), setting.into()]);
        }
        for (option, path) in [
            ("--git-dir=", self.git_dir),
            ("--work-tree=", self.work_tree),
        ] {
            if let Some(path) = path {
                let mut argument = OsString::from(option);
                argument.push(path);
                arguments.push(argument);
            }
        }
        arguments.extend(self.arguments.iter().cloned());
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        Spawn {
            program: self.git.options.program.clone(),
            arguments,
            env: self.environment(),
            cwd: self.cwd.to_owned(),
            stdin: None,
            marker: JobMarker::new(&self.git.options.instance, &format!("git-{number}"), 0),
        }
    }

    fn environment(&self) -> BTreeMap<OsString, OsString> {
        let options = &self.git.options;
        let inherited = INHERITED
            .into_iter()
            .filter_map(|name| options.environment.get_key_value(OsStr::new(name)));
        let mut env: BTreeMap<OsString, OsString> = inherited
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut set = |name: &str, value: &str| env.insert(name.into(), value.into());
        set("LC_ALL", "C");
        set("GIT_CONFIG_NOSYSTEM", "1");
        set("GIT_CONFIG_GLOBAL", "/dev/null");
        set("GIT_ATTR_NOSYSTEM", "1");
        set("GIT_TERMINAL_PROMPT", "0");
        set("GIT_ASKPASS", "");
        set("SSH_ASKPASS", "");
        set("GIT_OPTIONAL_LOCKS", "0");
        set("GIT_NO_REPLACE_OBJECTS", "1");
        set(
            "GIT_ALLOW_PROTOCOL",
            match (self.local_transport, options.allow_file) {
                (true, _) => "file",
                (false, true) => "https:http:ssh:file",
                (false, false) => "https:http:ssh",
            },
        );
        for (name, value) in self
            .remote
            .map(|url| credentials::variables(url, &*options.credentials))
            .unwrap_or_default()
        {
            set(name, &value);
        }
        if !options.environment.contains_key(OsStr::new("GIT_SSH")) {
            env.entry("GIT_SSH_COMMAND".into())
                .or_insert_with(|| "ssh -oBatchMode=yes".into());
        }
        if self.git_dir.is_none() {
            // Do not find a repository that the cache happens to lie in.
            let above = self
                .cwd
                .parent()
                .map_or_else(|| PathBuf::from("/"), Path::to_owned);
            env.insert("GIT_CEILING_DIRECTORIES".into(), above.into());
        }
        env
    }
}
