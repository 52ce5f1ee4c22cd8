//! One connection to one Redis server, with its background task.
//!
//! While the server is unavailable, calls fail immediately instead of delaying requests, and the task keeps trying to
//! reconnect. With Sentinel, each attempt first finds out which server is the master.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, ServerErrorKind, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::pending::PendingCommand;
use super::reply_limit::ReplyLimit;
use super::sentinel::Sentinels;
use super::server::RedisLogin;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::remote::Remote;
use crate::plugin_api::server_text::shorten;
use crate::plugin_api::services::PluginServices;
use crate::plugin_kit::server_diagnostics::ServerDiagnostic;

/// A handle of the connection. The connection is closed when the last handle is dropped.
#[derive(Clone, Debug)]
pub(super) struct RedisNode {
    calls: mpsc::Sender<Call>,
}

/// Why a command has no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// There is no connection, too many calls wait, or the server has rejected the command.
    Unavailable,
    /// The server does not know the script of this digest.
    NoScript,
    /// The key belongs to this node of the cluster, `host:port`, where an empty host means that of the server itself.
    Moved(String),
    /// The key is being moved to this node.
    Ask(String),
    /// Keys of the slot are being moved.
    TryAgain,
    /// Part of the cluster is not available.
    ClusterDown,
}

/// Which server is connected, and how.
#[derive(Clone)]
pub(super) struct NodeSettings {
    pub(super) target: NodeTarget,
    pub(super) link: LinkSettings,
    /// The field of the configuration that has the server, for diagnostics.
    pub(super) field: String,
}

/// How a connection logs in, and its limits.
#[derive(Clone)]
pub(super) struct LinkSettings {
    pub(super) login: RedisLogin,
    pub(super) database: u32,
    /// Timeout of each response.
    pub(super) response_timeout: Duration,
    pub(super) max_reply_bytes: usize,
}

/// The server of a connection.
#[derive(Clone)]
pub(super) enum NodeTarget {
    Server(Remote),
    /// The master that these servers name.
    Master(Arc<Sentinels>),
}

#[derive(Debug)]
struct Call {
    command: Arc<PendingCommand>,
    /// Whether the node gets `ASKING` first.
    is_asking: bool,
    result: oneshot::Sender<Result<Value, CallError>>,
}

impl RedisNode {
    pub(super) fn start(
        settings: NodeSettings,
        services: &Arc<dyn PluginServices>,
        diagnostic: ServerDiagnostic,
    ) -> RedisNode {
        let (calls, queue) = mpsc::channel(MAX_PENDING);
        let address = match &settings.target {
            NodeTarget::Server(remote) => address_of(remote),
            NodeTarget::Master(sentinels) => format!("the master {}", sentinels.master_name),
        };
        let services = Arc::clone(services);
        let task = NodeTask {
            settings,
            services: Arc::clone(&services),
            diagnostic,
            address,
            reported_failure: None,
            rejected_at: None,
        };
        services.spawn(Box::pin(task.run(queue)));
        RedisNode { calls }
    }

    /// Sends a command and waits for its reply.
    pub(super) async fn call(&self, command: &Arc<PendingCommand>, is_asking: bool) -> Result<Value, CallError> {
        let (result, reply) = oneshot::channel();
        let call = Call { command: Arc::clone(command), is_asking, result };
        self.calls.try_send(call).map_err(|_| CallError::Unavailable)?;
        reply.await.unwrap_or(Err(CallError::Unavailable))
    }
}

/// The background task that owns the connection.
struct NodeTask {
    settings: NodeSettings,
    services: Arc<dyn PluginServices>,
    diagnostic: ServerDiagnostic,
    /// The server, for messages.
    address: String,
    /// Whether the last report was a failure; `None` before the first report.
    reported_failure: Option<bool>,
    /// When the server has last rejected a command.
    rejected_at: Option<Instant>,
}

/// A connection that is logged in.
struct NodeConnection {
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

impl NodeTask {
    async fn run(mut self, mut queue: mpsc::Receiver<Call>) {
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
                        // Dropping the call makes it fail.
                        call = queue.recv(), if fails_calls => if call.is_none() { return },
                    }
                }
            };
            let failure = match result {
                Ok((open, address)) => {
                    self.address = address;
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
                    call = queue.recv() => if call.is_none() { return },
                }
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// Opens a connection and logs in. Also returns the address of the server.
    async fn connect(&self) -> Result<(NodeConnection, String), String> {
        let (remote, is_master_expected) = match &self.settings.target {
            NodeTarget::Server(remote) => (remote.clone(), false),
            NodeTarget::Master(sentinels) => (sentinels.find_master(&*self.services).await?, true),
        };
        let address = address_of(&remote);
        let opening = open(&*self.services, remote, &self.settings.link, is_master_expected);
        Ok((opening.await?, address))
    }

    /// Sends the calls of the queue until the connection is lost or all handles are dropped.
    async fn serve(&mut self, open: NodeConnection, queue: &mut mpsc::Receiver<Call>) -> RedisConnectionEnd {
        let NodeConnection { connection, mut driver, is_exceeded } = open;
        let describe_close = |node: &NodeTask| describe_close(&node.address, &is_exceeded, &node.settings.link);
        let mut in_flight = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = &mut driver => return RedisConnectionEnd::Lost(describe_close(self)),
                Some(result) = in_flight.next() => match result {
                    // A server that rejects some commands, such as one without memory, is not available again because
                    // it accepts others.
                    Ok(()) if self.rejected_at.is_some_and(|at| at.elapsed() < REJECTION_HOLD) => {}
                    Ok(()) => self.report(None),
                    Err(error) => {
                        let error: RedisError = error;
                        if is_exceeded.load(Relaxed) {
                            return RedisConnectionEnd::Lost(describe_close(self));
                        }
                        let message = format!("{}: {}", self.address, shorten(&error.to_string()));
                        // An error response of the server does not invalidate the connection, unless the server is no
                        // longer the master.
                        let is_lost = error.is_unrecoverable_error() || error.is_timeout() || error.is_io_error();
                        if is_lost || is_read_only(&error) {
                            return RedisConnectionEnd::Lost(message);
                        }
                        self.rejected_at = Some(Instant::now());
                        self.report(Some(message));
                    }
                },
                call = queue.recv(), if in_flight.len() < MAX_PENDING => match call {
                    Some(call) => in_flight.push(run_call(connection.clone(), call)),
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
            Some(error) => tracing::warn!(object, error = &*self.diagnostic.shown(error), "Redis is unavailable"),
            None => tracing::info!(object, server = &*self.diagnostic.shown(&self.address), "Connected to Redis"),
        }
        self.diagnostic.set(error.map(|message| Diagnostic::error(self.settings.field.clone(), message, remedy)));
    }
}

/// Opens a connection to a server and logs in. If the server is expected to be a master, it must report that role.
async fn open(
    services: &dyn PluginServices,
    remote: Remote,
    settings: &LinkSettings,
    is_master_expected: bool,
) -> Result<NodeConnection, String> {
    let (limit, address) = (settings.response_timeout, address_of(&remote));
    let (stream, is_exceeded) = ReplyLimit::new(services.connect(remote).await?, settings.max_reply_bytes);
    let mut info = RedisConnectionInfo::default().set_db(settings.database.into());
    if let Some(username) = &settings.login.username {
        info = info.set_username(username);
    }
    if let Some(password) = &settings.login.password {
        info = info.set_password(password);
    }
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(limit));
    let handshake = async {
        let (mut connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
        let mut driver: BoxFuture<'static, ()> = Box::pin(driver);
        // If no password is configured, this is the first command that the server can reject.
        let check = redis::cmd(if is_master_expected { "ROLE" } else { "PING" });
        let reply = tokio::select! {
            // A finished future must not be polled again, so this connection cannot be used.
            () = &mut driver => return Ok(None),
            reply = check.query_async::<Value>(&mut connection) => reply?,
        };
        Ok::<_, RedisError>(Some((connection, driver, reply)))
    };
    match timeout(limit, handshake).await {
        Ok(Ok(Some((_, _, reply)))) if is_master_expected && !is_master(&reply) => {
            Err(format!("{address} is not a master yet, although Sentinel names it"))
        }
        Ok(Ok(Some((connection, driver, _)))) => Ok(NodeConnection { connection, driver, is_exceeded }),
        Ok(Ok(None)) => Err(describe_close(&address, &is_exceeded, settings)),
        Ok(Err(_)) if is_exceeded.load(Relaxed) => Err(describe_close(&address, &is_exceeded, settings)),
        Ok(Err(error)) => Err(format!("{address} rejected the connection: {}", shorten(&error.to_string()))),
        Err(_) => Err(format!("{address} did not respond within {limit:?}")),
    }
}

/// Opens a connection for one command, such as a question to Sentinel, and closes it.
pub(super) async fn ask_once(
    services: &dyn PluginServices,
    remote: Remote,
    settings: &LinkSettings,
    command: &redis::Cmd,
) -> Result<Value, String> {
    let address = address_of(&remote);
    let NodeConnection { mut connection, mut driver, is_exceeded } = open(services, remote, settings, false).await?;
    tokio::select! {
        () = &mut driver => Err(describe_close(&address, &is_exceeded, settings)),
        reply = command.query_async::<Value>(&mut connection) => {
            reply.map_err(|error| format!("{address}: {}", shorten(&error.to_string())))
        }
    }
}

/// Whether a reply to `ROLE` is that of a master.
fn is_master(reply: &Value) -> bool {
    let Value::Array(parts) = reply else { return false };
    matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master")
}

/// Why a connection was closed.
fn describe_close(address: &str, is_exceeded: &AtomicBool, settings: &LinkSettings) -> String {
    if is_exceeded.load(Relaxed) {
        let limit = settings.max_reply_bytes / 1024;
        format!("{address} sent a reply of more than {limit} KiB, so the connection was closed")
    } else {
        format!("{address} closed the connection")
    }
}

/// Sends a command, and its reply to the caller. Returns errors that concern the server and not only this command.
async fn run_call(mut connection: MultiplexedConnection, call: Call) -> Result<(), RedisError> {
    let Call { command, is_asking, result } = call;
    let reply: Result<Value, RedisError> = if is_asking {
        let mut pipeline = redis::pipe();
        pipeline.cmd("ASKING").ignore().add_command(command.command().clone());
        pipeline.query_async::<(Value,)>(&mut connection).await.map(|(reply,)| reply)
    } else {
        command.command().query_async(&mut connection).await
    };
    let (reply, outcome) = match reply {
        Ok(reply) => (Ok(reply), Ok(())),
        Err(error) => {
            let call_error = CallError::from_server(&error);
            let is_of_command = call_error != CallError::Unavailable;
            (Err(call_error), if is_of_command { Ok(()) } else { Err(error) })
        }
    };
    // The receiver no longer exists if the request was aborted.
    let _unreceived = result.send(reply);
    outcome
}

impl CallError {
    fn from_server(error: &RedisError) -> Self {
        let redirect = || error.redirect_node().map(|(address, _)| address.to_owned());
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::NoScript) => CallError::NoScript,
            ErrorKind::Server(ServerErrorKind::Moved) => redirect().map_or(CallError::Unavailable, CallError::Moved),
            ErrorKind::Server(ServerErrorKind::Ask) => redirect().map_or(CallError::Unavailable, CallError::Ask),
            ErrorKind::Server(ServerErrorKind::TryAgain) => CallError::TryAgain,
            ErrorKind::Server(ServerErrorKind::ClusterDown) => CallError::ClusterDown,
            _ => CallError::Unavailable,
        }
    }
}

/// Whether the server is a replica. Before version 7, the error of a script has this in its text only.
fn is_read_only(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        || error.detail().is_some_and(|detail| detail.contains("READONLY"))
}

/// An address as in messages.
pub(super) fn address_of(remote: &Remote) -> String {
    format!("{}:{}", remote.host, remote.port)
}

/// Limit of the calls in the queue, and of the calls in flight.
const MAX_PENDING: usize = 4096;
/// How long a rejected command is reported at least.
const REJECTION_HOLD: Duration = Duration::from_secs(5);
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
