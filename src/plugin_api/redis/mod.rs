//! Client of a Redis server with counters that all replicas share. The only module that uses the Redis crate.
//!
//! ```text
//!   requests ──AddRequest──▶ bounded queue ──▶ background task ══one connection, pipelined══▶ server
//!      ▲                                             │
//!      └────────────────── oneshot ──────────────────┘
//! ```
//!
//! While the server is unavailable, calls fail immediately instead of delaying requests, and the task keeps trying to
//! reconnect.

mod config;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, Script};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

pub use config::{RedisConfig, RedisServer};

use super::consumers::{hex, sha256};
use super::kind::BuildCx;
use super::services::PluginServices;
use crate::diagnostic::Diagnostic;

/// A handle. The connection is closed when the last handle is dropped.
#[derive(Debug)]
pub struct Redis {
    requests: mpsc::Sender<AddRequest>,
}

/// An increment of one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterIncrement {
    pub key: String,
    pub by: u64,
    /// Time until the counter expires at the server.
    pub expires_in: Duration,
}

/// The server is unavailable. The condition of the object has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisUnavailable;

#[derive(Debug)]
struct AddRequest {
    increments: Vec<CounterIncrement>,
    result: oneshot::Sender<Vec<u64>>,
}

impl Redis {
    /// Returns the existing handle for the same object and server, also after a change of the object.
    pub fn connect(server: &RedisServer, field: &str, cx: &BuildCx<'_>) -> Arc<Redis> {
        let name = format!("{} redis {}", cx.object, server.fingerprint());
        // An object may switch servers: closing the old connection must not clear the diagnostic of the new one.
        let diagnostics =
            cx.state.get_or_create(&format!("{} redis diagnostics", cx.object), RedisDiagnostics::default);
        cx.state.get_or_create(&name, || {
            let (requests, queue) = mpsc::channel(MAX_PENDING);
            let (services, name) = (Arc::clone(cx.services), name.clone());
            let (object, field) = (cx.object.to_owned(), format!("config.{field}"));
            let task = RedisTask {
                server: server.clone(),
                name,
                object,
                field,
                services,
                diagnostics,
                reported_failure: None,
            };
            cx.services.spawn(Box::pin(task.run(queue)));
            Redis { requests }
        })
    }

    /// Increments all of these counters atomically and returns the new values.
    pub async fn add(&self, additions: Vec<CounterIncrement>) -> Result<Vec<u64>, RedisUnavailable> {
        let (result, totals) = oneshot::channel();
        self.requests.try_send(AddRequest { increments: additions, result }).map_err(|_| RedisUnavailable)?;
        totals.await.map_err(|_| RedisUnavailable)
    }
}

impl RedisServer {
    /// Distinguishes servers without revealing the password.
    pub fn fingerprint(&self) -> String {
        let RedisServer { remote, username, password, database } = self;
        let all = format!("{remote:?} {username:?} {password:?} {database}");
        hex(&sha256(all.as_bytes()))
    }

    fn address(&self) -> String {
        format!("{}:{}", self.remote.host, self.remote.port)
    }
}

/// Diagnostics of the connections of one object, by connection name.
type RedisDiagnostics = Mutex<BTreeMap<String, Diagnostic>>;

/// The background task that owns the connection.
struct RedisTask {
    server: RedisServer,
    name: String,
    object: String,
    field: String,
    services: Arc<dyn PluginServices>,
    diagnostics: Arc<RedisDiagnostics>,
    /// The state that was last reported; `None` before the first report.
    reported_failure: Option<bool>,
}

/// Why a connection ended.
enum RedisConnectionEnd {
    Lost(String),
    /// All handles were dropped.
    HandlesDropped,
}

impl RedisTask {
    async fn run(mut self, mut queue: mpsc::Receiver<AddRequest>) {
        let mut pause = MIN_BACKOFF;
        // Calls wait during the first attempt to connect or reconnect. During later attempts they fail immediately.
        let mut is_away = false;
        loop {
            let opened = {
                let open = self.connect();
                tokio::pin!(open);
                loop {
                    tokio::select! {
                        opened = &mut open => break opened,
                        // Dropping the request makes the call fail.
                        request = queue.recv(), if is_away => if request.is_none() { return },
                    }
                }
            };
            let failure = match opened {
                Ok((connection, driver)) => {
                    self.report(None);
                    let since = Instant::now();
                    match self.serve(connection, driver, &mut queue).await {
                        RedisConnectionEnd::HandlesDropped => return,
                        // A connection that lasted for a while is reopened immediately.
                        RedisConnectionEnd::Lost(error) if since.elapsed() > MAX_BACKOFF => {
                            self.report(Some(error));
                            (is_away, pause) = (false, MIN_BACKOFF);
                            continue;
                        }
                        RedisConnectionEnd::Lost(error) => error,
                    }
                }
                Err(error) => error,
            };
            is_away = true;
            self.report(Some(failure));
            let sleep = tokio::time::sleep(pause);
            tokio::pin!(sleep);
            loop {
                tokio::select! {
                    () = &mut sleep => break,
                    request = queue.recv() => if request.is_none() { return },
                }
            }
            pause = (pause * 2).min(MAX_BACKOFF);
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, BoxFuture<'static, ()>), String> {
        let limit = self.server.remote.timeout;
        let stream = self.services.connect(self.server.remote.clone()).await?;
        let mut info = RedisConnectionInfo::default().set_db(self.server.database.into());
        if let Some(username) = &self.server.username {
            info = info.set_username(username);
        }
        if let Some(password) = &self.server.password {
            info = info.set_password(password);
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(limit));
        let greeting = async {
            let (mut connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
            let mut driver: BoxFuture<'static, ()> = Box::pin(driver);
            // Without a login, PING is the first command that the server can reject.
            let ping = redis::cmd("PING");
            tokio::select! {
                () = &mut driver => {}
                pong = ping.query_async::<()>(&mut connection) => pong?,
            }
            Ok::<_, RedisError>((connection, driver))
        };
        match timeout(limit, greeting).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(format!("{} rejected the connection: {error}", self.server.address())),
            Err(_) => Err(format!("{} did not respond within {limit:?}", self.server.address())),
        }
    }

    async fn serve(
        &mut self,
        connection: MultiplexedConnection,
        mut driver: BoxFuture<'static, ()>,
        queue: &mut mpsc::Receiver<AddRequest>,
    ) -> RedisConnectionEnd {
        let mut in_flight = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = &mut driver => return RedisConnectionEnd::Lost(format!("{} closed the connection", self.server.address())),
                Some(result) = in_flight.next() => match result {
                    Ok(()) => self.report(None),
                    Err(error) => {
                        let error: RedisError = error;
                        let message = format!("{}: {error}", self.server.address());
                        // An error response of the server does not invalidate the connection.
                        if error.is_unrecoverable_error() || error.is_timeout() || error.is_io_error() {
                            return RedisConnectionEnd::Lost(message);
                        }
                        self.report(Some(message));
                    }
                },
                request = queue.recv(), if in_flight.len() < MAX_PENDING => match request {
                    Some(request) => in_flight.push(increment(connection.clone(), request)),
                    None => return RedisConnectionEnd::HandlesDropped,
                },
            }
        }
    }

    fn report(&mut self, error: Option<String>) {
        if self.reported_failure == Some(error.is_some()) {
            return;
        }
        self.reported_failure = Some(error.is_some());
        let remedy = "check that the server is running and reachable, and that username and password are correct";
        match &error {
            Some(error) => tracing::warn!(object = self.object, error, "Redis is unavailable"),
            None => tracing::info!(object = self.object, server = self.server.address(), "Connected to Redis"),
        }
        let mut diagnostics = self.diagnostics.lock();
        match error {
            Some(message) => {
                diagnostics.insert(self.name.clone(), Diagnostic::error(self.field.clone(), message, remedy));
            }
            None => _ = diagnostics.remove(&self.name),
        }
        self.services.report(&self.object, diagnostics.values().next().cloned());
    }
}

impl Drop for RedisTask {
    fn drop(&mut self) {
        let mut diagnostics = self.diagnostics.lock();
        if diagnostics.remove(&self.name).is_some() {
            self.services.report(&self.object, diagnostics.values().next().cloned());
        }
    }
}

async fn increment(mut connection: MultiplexedConnection, request: AddRequest) -> Result<(), RedisError> {
    let mut invocation = INCREMENT_SCRIPT.prepare_invoke();
    for CounterIncrement { key, by, expires_in } in &request.increments {
        // At least a second more than the window, so that a replica whose clock is behind still finds the counter.
        let seconds = expires_in.as_secs().saturating_add(1);
        invocation.key(key).arg(*by).arg(seconds);
    }
    let totals: Vec<u64> = invocation.invoke_async(&mut connection).await?;
    // The receiver is gone if the request was aborted.
    let _unreceived = request.result.send(totals);
    Ok(())
}

/// A script is atomic and a single command. A transaction takes five commands, and the client crate handles it badly if
/// the server rejects the first one.
static INCREMENT_SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local totals = {}
        for i, key in ipairs(KEYS) do
            totals[i] = redis.call('INCRBY', key, ARGV[2 * i - 1])
            redis.call('EXPIRE', key, ARGV[2 * i])
        end
        return totals",
    )
});

/// Limit of the requests in the queue, and of the requests in flight.
const MAX_PENDING: usize = 4096;
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
