//! One process that serves: the queue, the workers and the HTTP face, started and stopped together.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::config::Config;
use crate::drain::{Drain, HAND_OFF_TIME};
use crate::git::{CloneLock, FlockLock, Git, GitOptions, HostToken, NoCredentials, RepoCache};
use crate::github::GitHub;
use crate::housekeeping;
use crate::job::{Event, EventBody, JobId, Record, RequestBody};
use crate::plugin::{ChildCompiler, Compiler};
use crate::plugins::Plugins;
use crate::pod::{LOCAL_CONFIG_DIR, Pod};
use crate::process::{self, Instance};
use crate::profile::{ProfileRoot, ProfileStore, Source};
use crate::queue::embedded::Embedded;
use crate::queue::redis::{self, RedisStore};
use crate::queue::{Cursor, Queue};
use crate::service::Service;
use crate::telemetry;
use crate::worker;

/// How much longer than its time a drain may take before the server gives up on it.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// How long open connections get once the jobs are gone.
const CONNECTION_GRACE: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT, then drains. Prints one line with the bound address on standard error once it accepts connections.
///
/// # Errors
/// When an address, directory or store cannot be used; nothing is bound or started then.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    config.check_bind()?;
    let address = (config.host.trim_matches(['[', ']']), config.port);
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {}:{}; choose another address with AGENTICORE_HOST and AGENTICORE_PORT", address.0, address.1)
    })?;
    let bound = listener
        .local_addr()
        .context("the bound address is unknown")?;
    // The handlers are there before the address is told, so that a signal that follows at once is not lost.
    let signals = Signals::listen()?;
    let host = Host::start(config).await?;
    eprintln!("agenticore listening on {}", url(bound));
    host.serve(listener, signals).await
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// How long the run of a job that is over may take to give back what it holds.
const WRAP_UP: Duration = Duration::from_secs(10);
/// How long the store of a local run may take to close.
const CLOSING: Duration = Duration::from_secs(5);

/// A pod for one job, in this process and without a face. Dropping it kills the agent; [`Local::close`] also clears away what it made.
pub struct Local {
    host: Host,
    worker: AbortOnDrop,
    store: TempDir,
    /// Cancelled when nothing of the store is at work any more.
    closed: CancellationToken,
    job: Option<JobId>,
    /// Whether the job is over.
    over: bool,
}

impl Local {
    /// Starts the pod, over a store of its own: the jobs of the user's server are not this run's business, and may be in use.
    ///
    /// # Errors
    /// When its directories or its store cannot be used.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let local = config.home.join("local");
        std::fs::create_dir_all(&local)
            .with_context(|| format!("cannot create {}", local.display()))?;
        let store = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(&local)
            .context("cannot make a store for this run")?;
        let config = Config {
            jobs_dir: store.path().to_owned(),
            redis: None,
            ..config
        };
        let queue = embedded(&config).await?;
        let closed = queue.closed();
        let host = Host::over(config, Arc::new(queue), None).await?;
        let worker = tokio::spawn(worker::run(host.pod.clone(), host.drain.clone()));
        Ok(Self {
            host,
            worker: AbortOnDrop(worker),
            store,
            closed,
            job: None,
            over: false,
        })
    }

    /// Runs a job to its end and hands every event to `watch` as it comes.
    ///
    /// # Errors
    /// When the request is refused or the store cannot be used.
    pub async fn run(
        &mut self,
        request: RequestBody,
        mut watch: impl FnMut(&Event) + Send,
    ) -> anyhow::Result<Record> {
        let id = self.host.service.submit(request).await?.id.parse()?;
        self.job = Some(id);
        let queue = &self.host.pod.queue;
        let mut changes = queue.watch(id).await?;
        let mut cursor = Cursor::default();
        loop {
            let (events, next) = queue.events(id, cursor).await?;
            cursor = next;
            let ended = events
                .iter()
                .any(|event| matches!(event.body, EventBody::End { .. }));
            events.iter().for_each(&mut watch);
            if ended {
                self.over = true;
                return Ok(queue.get(id).await?);
            }
            if events.is_empty() {
                changes.changed().await.context("the store is gone")?;
            }
        }
    }

    /// Ends the pod: first whoever works, then the store, and only then the folders they worked in. What the agent made stays.
    pub async fn close(mut self) {
        self.host.drain.close();
        let is_busy = self.job.is_some() && !self.over;
        if is_busy
            || tokio::time::timeout(WRAP_UP, &mut self.worker.0)
                .await
                .is_err()
        {
            self.worker.0.abort();
        }
        let pod = &self.host.pod;
        let temp_root = pod.temp_root();
        let scratch = self.job.map(|job| pod.repos.scratch_path(&job.to_string()));
        drop((self.host, self.worker));
        if tokio::time::timeout(CLOSING, self.closed.cancelled())
            .await
            .is_err()
        {
            tracing::warn!(
                "the store of this run is still in use; its folder is removed all the same"
            );
        }
        let cleared = tokio::task::spawn_blocking(move || {
            drop(std::fs::remove_dir_all(temp_root));
            if let Some(scratch) = scratch {
                remove_if_unused(&scratch);
            }
            drop(self.store);
        });
        drop(cleared.await);
    }
}

/// Removes the work directory of a job without a repository, if nothing is in it but what this program itself put there.
fn remove_if_unused(scratch: &Path) {
    let own = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name() == LOCAL_CONFIG_DIR)
    };
    if std::fs::read_dir(scratch).is_ok_and(|mut entries| entries.all(own)) {
        drop(std::fs::remove_dir_all(scratch));
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A started pod.
struct Host {
    pod: Arc<Pod>,
    service: Service,
    drain: Drain,
    stopping: CancellationToken,
    warm: CancellationToken,
    _reaper: process::Reaper,
    _watchdog: Option<process::Watchdog>,
}

impl Host {
    /// Opens the store that the settings name, and starts the pod over it.
    async fn start(config: Config) -> anyhow::Result<Self> {
        let (queue, fleet) = store(&config).await?;
        Self::over(config, queue, fleet).await
    }

    /// Opens everything else that a pod needs. Agents that an earlier life of this pod left behind are killed before any job can run again.
    async fn over(
        config: Config,
        queue: Arc<dyn Queue>,
        fleet: Option<RedisStore>,
    ) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let reaper = process::init()?;
        let instance = Instance::of(&config.jobs_dir, config.pod_name.as_str());
        let stale = process::sweep_stale(&instance).await;
        if stale.killed > 0 {
            tracing::warn!(
                killed = stale.killed,
                "killed processes that an earlier server had left behind"
            );
        }
        let watchdog = fleet.as_ref().and_then(|_| watchdog(&instance));
        let pod = Arc::new(Pod {
            queue,
            profiles: Arc::new(ProfileStore::new(profile_roots(&config))?),
            plugins: Arc::new(Plugins::new(&config, compiler(&instance))?),
            repos: repositories(&config, &instance, fleet.as_ref())?,
            fleet,
            instance,
            config,
        });
        warn_of_default_profile(&pod);
        // Nobody runs yet, so whatever is there was left behind.
        drop(std::fs::remove_dir_all(pod.temp_root()));
        let drain = Drain::default();
        let (stopping, warm) = (CancellationToken::new(), CancellationToken::new());
        let service = Service::new(pod.clone(), drain.clone(), stopping.clone(), warm.clone());
        Ok(Self {
            pod,
            service,
            drain,
            stopping,
            warm,
            _reaper: reaper,
            _watchdog: watchdog,
        })
    }

    async fn serve(self, listener: TcpListener, mut signals: Signals) -> anyhow::Result<()> {
        let (pod, warm) = (self.pod.clone(), self.warm.clone());
        let prewarm = tokio::spawn(async move {
            let pinned = pod.pinned_plugins().await;
            let time = pod.config.plugin_prewarm;
            pod.plugins.prewarm(&pod.profiles, pinned, time).await;
            pod.plugins
                .warn_of_absent(&pod.config.agents, &pod.profiles)
                .await;
            warm.cancel();
            if let Err(error) = process::memory::release_code() {
                tracing::debug!(%error, "code that only the start needed stays in memory");
            }
        });
        let worker = tokio::spawn(worker::run(self.pod.clone(), self.drain.clone()));
        let drain = self.drain.clone();
        let timekeeper = tokio::spawn(async move { drain.keep_time().await });
        let housekeeper = tokio::spawn(housekeeping::run(self.pod.clone()));
        let herald = tokio::spawn(tell_of_drains(self.pod.clone(), self.drain.clone()));
        let counting = tokio::spawn(telemetry::upkeep());
        let closed = CancellationToken::new();
        let router =
            api::router(self.service.clone()).into_make_service_with_connect_info::<SocketAddr>();
        let http =
            axum::serve(listener, router).with_graceful_shutdown(closed.clone().cancelled_owned());
        let http = tokio::spawn(http.into_future());

        let signal = signals.next().await;
        tracing::info!(signal, "stopping");
        self.stopping.cancel();
        self.drain(&mut signals).await;
        self.drain.close();
        herald.abort();
        if let Some(fleet) = &self.pod.fleet {
            fleet.leave().await;
        }
        worker.abort();
        timekeeper.abort();
        closed.cancel();
        prewarm.abort();
        housekeeper.abort();
        counting.abort();
        if let Ok(served) = tokio::time::timeout(CONNECTION_GRACE, http).await {
            served
                .context("the HTTP task panicked")?
                .context("the HTTP server failed")?;
        }
        Ok(())
    }

    /// Lets jobs end, then hands the rest back to the queue. A second signal hands them back at once.
    async fn drain(&self, signals: &mut Signals) {
        let timeout = self.pod.config.drain_timeout;
        self.drain.begin(timeout);
        let hurried = async {
            signals.next().await;
            self.drain.begin(HAND_OFF_TIME);
            std::future::pending::<()>().await;
        };
        let drained = tokio::time::timeout(
            timeout.max(HAND_OFF_TIME) + DRAIN_GRACE,
            self.drain.drained(),
        );
        tokio::select! {
            drained = drained => if drained.is_err() {
                tracing::error!("not every job could be handed off in time; the next start goes on with them");
            },
            () = hurried => {}
        }
    }
}

/// Profiles come and go while a server runs, so it starts without the one that jobs get by default; but it says so.
fn warn_of_default_profile(pod: &Pod) {
    let name = &pod.config.default_profile;
    if let Err(error) = pod.profiles.load(name.as_str()) {
        tracing::warn!(profile = %name, %error, "the profile of AGENTICORE_DEFAULT_PROFILE cannot be used; until it can, jobs that name none are refused");
    }
}

/// Opens the store that the settings name, and the fleet behind it.
async fn store(config: &Config) -> anyhow::Result<(Arc<dyn Queue>, Option<RedisStore>)> {
    let Some(settings) = redis::Settings::of(config) else {
        return Ok((Arc::new(embedded(config).await?), None));
    };
    let fleet = RedisStore::open(settings).await?;
    let up = fleet.up();
    tokio::spawn(telemetry::follow_redis(up));
    Ok((Arc::new(fleet.clone()), Some(fleet)))
}

async fn embedded(config: &Config) -> anyhow::Result<Embedded> {
    let jobs_dir = config.jobs_dir.clone();
    tokio::task::spawn_blocking(move || Embedded::open(&jobs_dir))
        .await?
        .context("the directory of AGENTICORE_JOBS_DIR cannot be used")
}

/// Sees to it that agents end with this server, should it be killed: another pod runs their jobs then. The first process of a
/// container needs none, because everything ends with it.
fn watchdog(instance: &Instance) -> Option<process::Watchdog> {
    if std::process::id() == 1 {
        return None;
    }
    match process::start_watchdog(instance, &["watchdog", &instance.to_string()]) {
        Ok(watchdog) => Some(watchdog),
        Err(error) => {
            tracing::warn!(%error, "agents will outlive this server, should it be killed: their watchdog could not be started");
            None
        }
    }
}

/// Tells the fleet when this pod begins and ceases to drain.
async fn tell_of_drains(pod: Arc<Pod>, drain: Drain) {
    let Some(fleet) = &pod.fleet else {
        return;
    };
    loop {
        drain.begun().await;
        fleet.set_draining(true).await;
        if drain.serving().await.is_none() {
            return;
        }
        fleet.set_draining(false).await;
    }
}

/// Later roots win.
pub(crate) fn profile_roots(config: &Config) -> Vec<ProfileRoot> {
    let mut roots = vec![ProfileRoot::bundled()];
    roots.extend(
        config
            .extra_profiles
            .clone()
            .map(|path| ProfileRoot::folder(Source::AgentiHooks, path)),
    );
    roots.push(ProfileRoot::folder(
        Source::User,
        config.home.join("profiles"),
    ));
    roots.extend(
        config
            .shared_root
            .as_ref()
            .map(|root| ProfileRoot::folder(Source::Shared, root.join("profiles"))),
    );
    roots
}

fn compiler(instance: &Instance) -> Compiler {
    Compiler::Child(ChildCompiler::this_program(instance.clone()))
}

fn repositories(
    config: &Config,
    instance: &Instance,
    fleet: Option<&RedisStore>,
) -> anyhow::Result<RepoCache> {
    std::fs::create_dir_all(&config.repos_root).with_context(|| {
        let root = config.repos_root.display();
        format!("the directory of AGENTICORE_REPOS_ROOT, {root}, cannot be used")
    })?;
    let mut options = GitOptions::new(instance.clone(), std::env::vars_os());
    options.allow_file = config.is_loopback();
    // An address that cannot be used was refused when the settings were read.
    let github_host = GitHub::repository_host(&config.github_api_url).unwrap_or_default();
    options.credentials = match &config.github_token {
        Some(token) => Arc::new(HostToken {
            authority: github_host,
            token: token.clone(),
        }),
        None => Arc::new(NoCredentials),
    };
    let lock: Arc<dyn CloneLock> = match fleet {
        Some(fleet) => Arc::new(fleet.clone_lock()),
        None => Arc::new(FlockLock::new(config.repos_root.clone())),
    };
    // What the host itself puts into a work directory must never land in a commit.
    Ok(RepoCache::new(
        config.repos_root.clone(),
        Git::new(options),
        lock,
        &["/.agenticore/", "/.agenticore-tmp.*"],
    ))
}

/// The signals that stop a server.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
