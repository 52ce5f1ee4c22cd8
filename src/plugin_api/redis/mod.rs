//! A client that increments counters on a Redis server, which all replicas share. The only module that uses the Redis
//! crate.
//!
//! ```text
//!   requests ──AddRequest──▶ bounded queue ──▶ background task ══one connection, pipelined══▶ server
//!      ▲                                             │
//!      └────────────── new values (oneshot) ─────────┘
//! ```
//!
//! While the server is unavailable, calls fail immediately instead of delaying requests, and the task keeps trying to
//! reconnect.

mod config;
mod reply_limit;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, Script};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

pub use config::{RedisConfig, RedisServer};

use self::reply_limit::{MAX_REPLY_BYTES, ReplyLimit};
use super::consumers::{hex, sha256};
use super::kind::BuildCx;
use super::server_diagnostics::ServerDiagnostic;
use super::server_text::shorten;
use super::services::PluginServices;
use crate::diagnostic::Diagnostic;

/// A handle of the connection to a server. The connection is closed when the last handle is dropped.
#[derive(Debug)]
pub struct Redis {
    requests: mpsc::Sender<AddRequest>,
}

/// An increment of one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterIncrement {
    pub key: String,
    pub amount: u64,
    /// The counter is full if it has this value. If one counter of a call is full, none of them is incremented.
    pub limit: Option<u64>,
    /// Time until the counter expires at the server.
    pub expires_in: Duration,
}

/// The counters of a call after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterTotals {
    /// Whether the counters were incremented: none of them was full.
    pub is_counted: bool,
    /// The values, in the order of the increments.
    pub values: Vec<u64>,
}

/// The error of a call while the server is unavailable. The condition of the object has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisUnavailable;

#[derive(Debug)]
struct AddRequest {
    increments: Vec<CounterIncrement>,
    result: oneshot::Sender<CounterTotals>,
}

impl Redis {
    /// Returns the handle for an object and a server. A changed object keeps its connection if the server is the same.
    pub fn connect(server: &RedisServer, field: &str, cx: &BuildCx<'_>) -> Arc<Redis> {
        let name = format!("{} redis {}", cx.object, server.fingerprint());
        cx.state.get_or_create(&name, || {
            let diagnostic = ServerDiagnostic::new(cx);
            let (requests, queue) = mpsc::channel(MAX_PENDING);
            let (services, field) = (Arc::clone(cx.services), format!("config.{field}"));
            let task = RedisTask { server: server.clone(), field, services, diagnostic, reported_failure: None };
            cx.services.spawn(Box::pin(task.run(queue)));
            Redis { requests }
        })
    }

    /// Increments all of these counters, or none if one is full, in one atomic step.
    pub async fn add(&self, increments: Vec<CounterIncrement>) -> Result<CounterTotals, RedisUnavailable> {
        let (result, totals) = oneshot::channel();
        let count = increments.len();
        self.requests.try_send(AddRequest { increments, result }).map_err(|_| RedisUnavailable)?;
        totals.await.ok().filter(|totals| totals.values.len() == count).ok_or(RedisUnavailable)
    }
}

impl RedisServer {
    /// Distinguishes servers without revealing the password.
    pub fn fingerprint(&self) -> String {
        let RedisServer { remote, username, password, database } = self;
        let settings = format!("{remote:?} {username:?} {password:?} {database}");
        hex(&sha256(settings.as_bytes()))
    }

    fn address(&self) -> String {
        format!("{}:{}", self.remote.host, self.remote.port)
    }
}

/// The background task that owns the connection.
struct RedisTask {
    server: RedisServer,
    field: String,
    services: Arc<dyn PluginServices>,
    diagnostic: ServerDiagnostic,
    /// Whether the last report was a failure; `None` before the first report.
    reported_failure: Option<bool>,
}

/// A connection that is logged in.
struct RedisConnection {
    connection: MultiplexedConnection,
    /// Drives the connection.
    driver: BoxFuture<'static, ()>,
    /// Whether it was closed because of a reply that is too long.
    is_exceeded: Arc<AtomicBool>,
}

/// Why a connection ended.
enum RedisConnectionEnd {
    Lost(String),
    /// All handles were dropped.
    HandlesDropped,
}

impl RedisTask {
    async fn run(mut self, mut queue: mpsc::Receiver<AddRequest>) {
        let mut backoff = MIN_BACKOFF;
        // Calls wait during the first attempt to connect or reconnect. During later attempts they fail immediately.
        let mut fails_calls = false;
        loop {
            let result = {
                let connecting = self.connect();
                tokio::pin!(connecting);
                loop {
                    tokio::select! {
                        result = &mut connecting => break result,
                        // Dropping the request makes the call fail.
                        request = queue.recv(), if fails_calls => if request.is_none() { return },
                    }
                }
            };
            let failure = match result {
                Ok(open) => {
                    self.report(None);
                    let start = Instant::now();
                    match self.serve(open, &mut queue).await {
                        RedisConnectionEnd::HandlesDropped => return,
                        // A connection that lasted for a while is reopened immediately.
                        RedisConnectionEnd::Lost(error) if start.elapsed() > MAX_BACKOFF => {
                            self.report(Some(error));
                            (fails_calls, backoff) = (false, MIN_BACKOFF);
                            continue;
                        }
                        RedisConnectionEnd::Lost(error) => error,
                    }
                }
                Err(error) => error,
            };
            fails_calls = true;
            self.report(Some(failure));
            let sleep = tokio::time::sleep(backoff);
            tokio::pin!(sleep);
            loop {
                tokio::select! {
                    () = &mut sleep => break,
                    request = queue.recv() => if request.is_none() { return },
                }
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// Opens a connection and logs in.
    async fn connect(&self) -> Result<RedisConnection, String> {
        let limit = self.server.remote.timeout;
        let (stream, is_exceeded) = ReplyLimit::new(self.services.connect(self.server.remote.clone()).await?);
        let mut info = RedisConnectionInfo::default().set_db(self.server.database.into());
        if let Some(username) = &self.server.username {
            info = info.set_username(username);
        }
        if let Some(password) = &self.server.password {
            info = info.set_password(password);
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(limit));
        let handshake = async {
            let (mut connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
            let mut driver: BoxFuture<'static, ()> = Box::pin(driver);
            // If no password is configured, PING is the first command that the server can reject.
            let ping = redis::cmd("PING");
            tokio::select! {
                // A finished future must not be polled again, so this connection cannot be used.
                () = &mut driver => return Ok(None),
                pong = ping.query_async::<()>(&mut connection) => pong?,
            }
            Ok::<_, RedisError>(Some((connection, driver)))
        };
        match timeout(limit, handshake).await {
            Ok(Ok(Some((connection, driver)))) => Ok(RedisConnection { connection, driver, is_exceeded }),
            Ok(Ok(None)) => Err(self.describe_close(&is_exceeded)),
            Ok(Err(_)) if is_exceeded.load(Relaxed) => Err(self.describe_close(&is_exceeded)),
            Ok(Err(error)) => {
                let error = error.to_string();
                Err(format!("{} rejected the connection: {}", self.server.address(), shorten(&error)))
            }
            Err(_) => Err(format!("{} did not respond within {limit:?}", self.server.address())),
        }
    }

    /// Why a connection was closed.
    fn describe_close(&self, is_exceeded: &AtomicBool) -> String {
        let address = self.server.address();
        if is_exceeded.load(Relaxed) {
            let limit = MAX_REPLY_BYTES / 1024;
            format!("{address} sent a reply of more than {limit} KiB, so the connection was closed")
        } else {
            format!("{address} closed the connection")
        }
    }

    /// Sends the requests of the queue until the connection is lost or all handles are dropped.
    async fn serve(&mut self, open: RedisConnection, queue: &mut mpsc::Receiver<AddRequest>) -> RedisConnectionEnd {
        let RedisConnection { connection, mut driver, is_exceeded } = open;
        let mut in_flight = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = &mut driver => {
                    return RedisConnectionEnd::Lost(self.describe_close(&is_exceeded));
                }
                Some(result) = in_flight.next() => match result {
                    Ok(()) => self.report(None),
                    Err(error) => {
                        let error: RedisError = error;
                        if is_exceeded.load(Relaxed) {
                            return RedisConnectionEnd::Lost(self.describe_close(&is_exceeded));
                        }
                        let message = format!("{}: {}", self.server.address(), shorten(&error.to_string()));
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

    /// Logs and reports a failure, or with `None` that the server is available. Only a change between the two is
    /// reported, so a second failure in a row is not, even if its message differs.
    fn report(&mut self, error: Option<String>) {
        if self.reported_failure == Some(error.is_some()) {
            return;
        }
        self.reported_failure = Some(error.is_some());
        let remedy = "check that the server is running and reachable, and that username and password are correct";
        let object = self.diagnostic.object();
        match &error {
            Some(error) => tracing::warn!(object, error, "Redis is unavailable"),
            None => tracing::info!(object, server = self.server.address(), "Connected to Redis"),
        }
        self.diagnostic.set(error.map(|message| Diagnostic::error(self.field.clone(), message, remedy)));
    }
}

/// Runs the increments of a request, and sends it the new values.
async fn increment(mut connection: MultiplexedConnection, request: AddRequest) -> Result<(), RedisError> {
    let mut invocation = INCREMENT_SCRIPT.prepare_invoke();
    for CounterIncrement { key, amount, limit, expires_in } in &request.increments {
        // Up to a second is added, so that a replica whose clock is behind still finds the counter.
        let seconds = expires_in.as_secs().saturating_add(1);
        // An empty argument is no number to the script.
        let limit = limit.map(|limit| limit.to_string()).unwrap_or_default();
        invocation.key(key).arg(*amount).arg(seconds).arg(limit);
    }
    let (is_counted, values): (bool, Vec<u64>) = invocation.invoke_async(&mut connection).await?;
    // The receiver no longer exists if the request was aborted.
    let _unreceived = request.result.send(CounterTotals { is_counted, values });
    Ok(())
}

/// A script is atomic and a single command. A transaction would take five commands, and the client crate does not
/// return a clear error if the server rejects the first one.
static INCREMENT_SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local totals = {}
        local is_counted = 1
        for i, key in ipairs(KEYS) do
            local limit = tonumber(ARGV[3 * i])
            if limit then
                totals[i] = tonumber(redis.call('GET', key) or 0)
                if totals[i] >= limit then
                    is_counted = 0
                end
            end
        end
        if is_counted == 1 then
            for i, key in ipairs(KEYS) do
                totals[i] = redis.call('INCRBY', key, ARGV[3 * i - 2])
                redis.call('EXPIRE', key, ARGV[3 * i - 1])
            end
        end
        return {is_counted, totals}",
    )
});

/// Limit of the requests in the queue, and of the requests in flight.
const MAX_PENDING: usize = 4096;
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
