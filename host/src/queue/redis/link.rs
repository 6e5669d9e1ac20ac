//! The way to Redis: connections that come back by themselves, and what their failures are called.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisError, TlsCertificates, TlsMode,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use crate::queue::{QueueError, guard};

/// How long an answer may take before Redis counts as gone.
const ANSWER: Duration = Duration::from_secs(3);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a Redis that refused is left in peace; callers fail at once meanwhile, with what it said.
const PEACE: Duration = Duration::from_millis(200);
/// What the client calls a Redis that does not have the database.
const NO_DATABASE: &str = "Redis server refused to switch database";

/// Where Redis is and how it is spoken to.
#[derive(Debug, Clone)]
pub struct Address {
    /// `redis://` or `rediss://`, with user, password and database. With sentinels its host and port are not used.
    pub url: SecretString,
    /// `host:port` of sentinels; empty: none.
    pub sentinels: Vec<String>,
    /// What the sentinels call the master.
    pub master: String,
    /// The certificates, PEM, that a server's must be signed by; none: the system's.
    pub ca: Option<Vec<u8>>,
}

impl Address {
    /// An address without sentinels or certificates of its own.
    #[must_use]
    pub fn plain(url: impl Into<String>) -> Self {
        Self {
            url: SecretString::from(url.into()),
            sentinels: Vec::new(),
            master: String::new(),
            ca: None,
        }
    }

    /// The address without its secrets, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        if !self.sentinels.is_empty() {
            return format!("sentinels {} ({})", self.sentinels.join(","), self.master);
        }
        match url::Url::parse(self.url.expose_secret()) {
            Ok(url) => format!(
                "{}://{}:{}{}",
                url.scheme(),
                url.host_str().unwrap_or("?"),
                url.port().unwrap_or(6379),
                url.path()
            ),
            Err(_) => "REDIS_URL".to_owned(),
        }
    }

    /// Parses the address.
    ///
    /// # Errors
    /// A sentence that names the setting and says what is wrong, without the address itself.
    pub fn check(&self) -> Result<(), String> {
        self.source().map(drop)
    }

    fn source(&self) -> Result<Source, String> {
        let wrong = |e: RedisError| {
            format!(
                "REDIS_URL cannot be used: {}; it looks like redis://user:password@host:6379/0",
                e.category()
            )
        };
        let info = self
            .url
            .expose_secret()
            .into_connection_info()
            .map_err(wrong)?;
        let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let certificates = self.ca.clone().map(|pem| TlsCertificates {
            client_tls: None,
            root_cert: Some(pem),
        });
        if self.sentinels.is_empty() {
            let client = match certificates {
                Some(certificates) if tls => Client::build_with_tls(info, certificates),
                _ => Client::open(info),
            };
            return client
                .map(|client| Source::Plain(Box::new(client)))
                .map_err(wrong);
        }
        self.through_sentinels(&info, tls, certificates)
            .map(|client| Source::Sentinels(Arc::new(tokio::sync::Mutex::new(client))))
    }

    fn through_sentinels(
        &self,
        info: &ConnectionInfo,
        tls: bool,
        certificates: Option<TlsCertificates>,
    ) -> Result<SentinelClient, String> {
        let addresses = self
            .sentinels
            .iter()
            .map(|sentinel| {
                let (host, port) = sentinel.rsplit_once(':').unwrap_or((sentinel, "26379"));
                let port = port
                    .parse()
                    .map_err(|_| format!("REDIS_SENTINELS: {sentinel:?} is not host:port"))?;
                Ok(ConnectionAddr::Tcp(host.to_owned(), port))
            })
            .collect::<Result<Vec<_>, String>>()?;
        let settings = info.redis_settings();
        let wrong = |e: RedisError| format!("REDIS_SENTINELS cannot be used: {}", e.category());
        let mut builder =
            SentinelClientBuilder::new(addresses, self.master.clone(), SentinelServerType::Master)
                .map_err(wrong)?
                .set_client_to_redis_db(settings.db());
        if let Some(user) = settings.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = settings.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = certificates {
            builder = builder.set_client_to_redis_certificates(certificates);
        }
        builder.build().map_err(wrong)
    }
}

/// What makes connections.
#[derive(Clone)]
enum Source {
    Plain(Box<Client>),
    Sentinels(Arc<tokio::sync::Mutex<SentinelClient>>),
}

impl Source {
    async fn connect(&self, blocking: bool) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout((!blocking).then_some(ANSWER));
        let connecting = async {
            match self {
                Self::Plain(client) => {
                    client
                        .get_multiplexed_async_connection_with_config(&config)
                        .await
                }
                Self::Sentinels(client) => {
                    client
                        .lock()
                        .await
                        .get_async_connection_with_config(&config)
                        .await
                }
            }
        };
        let asked = async {
            let mut connection = connecting.await?;
            // A Redis that wants a password says so to this; a script it is sent without one makes it hang up wordlessly.
            let ping: Result<(), RedisError> =
                redis::cmd("PING").query_async(&mut connection).await;
            match ping {
                Err(error) if error.is_io_error() || error.code() == Some("NOAUTH") => Err(error),
                // A user that may not ping may do what matters.
                _ => Ok(connection),
            }
        };
        match tokio::time::timeout(CONNECT * 2, asked).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}

/// An error with the settings that it comes from, where it comes from them.
fn told(error: &RedisError, is_first_tls: bool) -> String {
    match remedy(error, is_first_tls) {
        Some(remedy) => format!("{}; {remedy}", error.to_string().trim_end_matches('.')),
        None => error.to_string(),
    }
}

fn remedy(error: &RedisError, is_first_tls: bool) -> Option<&'static str> {
    let is_silent = error.is_timeout() || (error.is_io_error() && !error.is_connection_refusal());
    if error.kind() == ErrorKind::AuthenticationFailed {
        return Some(
            "correct REDIS_USERNAME and REDIS_PASSWORD, or the user and the password in REDIS_URL",
        );
    }
    match error.code() {
        Some("NOAUTH") => {
            Some("set REDIS_PASSWORD, and REDIS_USERNAME where the user is not the default one")
        }
        Some("WRONGPASS") => Some(
            "correct REDIS_USERNAME and REDIS_PASSWORD, or the user and the password in REDIS_URL",
        ),
        Some("NOPERM") => {
            Some("the user of REDIS_USERNAME or REDIS_URL must be allowed to do this")
        }
        _ if error.to_string().starts_with(NO_DATABASE) => {
            Some("correct the database, the number at the end of REDIS_URL")
        }
        _ if is_first_tls && is_silent => Some(
            "REDIS_URL asks for TLS: check that this port speaks it, and that its certificate is signed by one of REDIS_CA_FILE",
        ),
        _ => None,
    }
}

/// The way to one Redis. Clones share it.
#[derive(Clone)]
pub(super) struct Link {
    source: Source,
    shown: Arc<str>,
    is_tls: bool,
    /// Whether Redis has answered once: what the settings say of it was right then.
    answered: Arc<AtomicBool>,
    shared: Wire,
    up: Arc<watch::Sender<bool>>,
    /// Why Redis cannot be used.
    trouble: Arc<Mutex<Option<String>>>,
}

/// One connection that is made again when it broke.
#[derive(Clone)]
pub(super) struct Wire {
    blocking: bool,
    state: Arc<tokio::sync::Mutex<Option<MultiplexedConnection>>>,
    refused: Arc<Mutex<Option<(Instant, RedisError)>>>,
    /// How often it was made.
    made: Arc<AtomicU64>,
    told: Arc<AtomicBool>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("redis", &self.shown)
            .finish_non_exhaustive()
    }
}

impl Wire {
    fn new(blocking: bool) -> Self {
        Self {
            blocking,
            state: Arc::default(),
            refused: Arc::default(),
            made: Arc::default(),
            told: Arc::default(),
        }
    }

    async fn connection(&self, source: &Source) -> Result<MultiplexedConnection, RedisError> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &*state {
            return Ok(connection.clone());
        }
        if let Some((at, error)) = &*guard(&self.refused)
            && at.elapsed() < PEACE
        {
            return Err(error.clone());
        }
        match source.connect(self.blocking).await {
            Ok(connection) => {
                *state = Some(connection.clone());
                self.made.fetch_add(1, Ordering::Relaxed);
                Ok(connection)
            }
            Err(error) => {
                *guard(&self.refused) = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Gives a broken connection up; the next call makes another.
    pub(super) async fn reset(&self) {
        *self.state.lock().await = None;
    }
}

impl Link {
    pub(super) fn new(address: &Address) -> Result<Self, String> {
        Ok(Self {
            source: address.source()?,
            shown: address.shown().into(),
            is_tls: address.url.expose_secret().starts_with("rediss:"),
            answered: Arc::default(),
            shared: Wire::new(false),
            up: Arc::new(watch::Sender::new(true)),
            trouble: Arc::default(),
        })
    }

    /// A connection of its own for commands that block.
    pub(super) fn wire(&self) -> Wire {
        Wire::new(true)
    }

    /// How often the shared connection was made: after another time it may lead to another server, or to one that started anew.
    pub(super) fn connections(&self) -> u64 {
        self.shared.made.load(Ordering::Relaxed)
    }

    /// Whether Redis answered last.
    pub(super) fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Why Redis cannot be used, without secrets; none: it answered last.
    pub(super) fn trouble(&self) -> Option<String> {
        guard(&self.trouble).clone()
    }

    /// Runs one exchange on the shared connection.
    pub(super) async fn call<T>(
        &self,
        doing: &'static str,
        exchange: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, QueueError> {
        self.call_on(&self.shared, doing, exchange).await
    }

    /// Runs one exchange on this connection.
    pub(super) async fn call_on<T>(
        &self,
        wire: &Wire,
        doing: &'static str,
        exchange: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, QueueError> {
        let (done, is_connected) = match wire.connection(&self.source).await {
            Ok(mut connection) => (exchange(&mut connection).await, true),
            Err(error) => (Err(error), false),
        };
        match done {
            Ok(value) => {
                self.answered.store(true, Ordering::Relaxed);
                self.tell(wire, None);
                Ok(value)
            }
            Err(error) => {
                let is_first_tls = self.is_tls && !self.answered.load(Ordering::Relaxed);
                let detail = told(&error, is_first_tls);
                if !is_connected || is_outage(&error) {
                    wire.reset().await;
                    self.tell(wire, Some(&detail));
                }
                Err(QueueError::Redis {
                    doing,
                    address: self.shown.to_string(),
                    detail,
                })
            }
        }
    }

    /// Logs when Redis goes and comes, once each.
    fn tell(&self, wire: &Wire, error: Option<&str>) {
        let gone = error.is_some();
        if wire.told.swap(gone, Ordering::Relaxed) != gone && !wire.blocking {
            match error {
                Some(error) => {
                    tracing::error!(redis = %self.shown, error, "Redis cannot be used; jobs go on, and what they do is kept until it is back");
                }
                None => tracing::info!(redis = %self.shown, "Redis answers again"),
            }
        }
        if !wire.blocking {
            if gone || !*self.up.borrow() {
                *guard(&self.trouble) = error.map(str::to_owned);
            }
            self.up
                .send_if_modified(|up| std::mem::replace(up, !gone) == gone);
        }
    }
}

/// Whether the connection, and not the command, is to blame.
fn is_outage(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || matches!(
            error.code(),
            Some("LOADING" | "READONLY" | "MASTERDOWN" | "NOAUTH" | "WRONGPASS")
        )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let address = Address::plain("rediss://user:pw@redis.example:6380/3");
        assert_eq!(address.shown(), "rediss://redis.example:6380/3");
        address.check().unwrap();
        let wrong = Address::plain("http://user:pw@host").check().unwrap_err();
        assert!(
            wrong.contains("REDIS_URL") && !wrong.contains("pw"),
            "{wrong}"
        );
        let sentinels = Address {
            sentinels: vec!["a:1".into(), "b".into()],
            master: "m".into(),
            ..Address::plain("redis://:pw@ignored/0")
        };
        sentinels.check().unwrap();
        assert_eq!(sentinels.shown(), "sentinels a:1,b (m)");
        let wrong = Address {
            sentinels: vec!["a:x".into()],
            ..sentinels
        };
        assert!(wrong.check().unwrap_err().contains("REDIS_SENTINELS"));
    }

    /// A server that answers each command with what `answer` says of what was sent.
    async fn fake(answer: fn(&str) -> &'static str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut bytes = [0; 4_096];
                    while let Ok(read @ 1..) = socket.read(&mut bytes).await {
                        let sent = String::from_utf8_lossy(&bytes[..read]).into_owned();
                        for command in sent.split('*').skip(1) {
                            socket.write_all(answer(command).as_bytes()).await.unwrap();
                        }
                    }
                });
            }
        });
        address.to_string()
    }

    async fn refusal(address: Address) -> [String; 2] {
        let link = Link::new(&address).unwrap();
        let ask = async || {
            let asked = link.call("ask", async |c| {
                redis::cmd("GET").arg("x").query_async::<()>(c).await
            });
            asked.await.unwrap_err().to_string()
        };
        // The second is asked while Redis is left in peace.
        [ask().await, ask().await]
    }

    #[tokio::test]
    async fn what_the_settings_have_wrong_is_said_with_their_names() {
        let locked = fake(|_| "-NOAUTH Authentication required.\r\n").await;
        let full_of_users = fake(|sent| match sent.contains("AUTH") {
            true => "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
            false => "-NOAUTH Authentication required.\r\n",
        })
        .await;
        let small = fake(|sent| match sent.contains("SELECT") {
            true => "-ERR DB index is out of range\r\n",
            false => "+OK\r\n",
        })
        .await;
        for (url, says) in [
            (format!("redis://{locked}/0"), "set REDIS_PASSWORD"),
            (
                format!("redis://:no@{full_of_users}/0"),
                "correct REDIS_USERNAME and REDIS_PASSWORD",
            ),
            (format!("redis://{small}/99"), "at the end of REDIS_URL"),
        ] {
            for error in refusal(Address::plain(&url)).await {
                assert!(error.contains(says), "{url}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn a_port_without_tls_is_told_from_a_redis_that_is_away() {
        let plain = fake(|_| "-ERR unknown command\r\n").await;
        for error in refusal(Address::plain(format!("rediss://{plain}/0"))).await {
            assert!(error.contains("REDIS_CA_FILE"), "{error}");
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let free = listener.local_addr().unwrap();
        drop(listener);
        for error in refusal(Address::plain(format!("rediss://{free}/0"))).await {
            assert!(
                error.contains("refused") && !error.contains("REDIS_CA_FILE"),
                "{error}"
            );
        }
    }
}
