//! A client of Redis for all plugins: counters and values that all replicas share. The only module that uses the Redis
//! crate.
//!
//! ```text
//!   requests ──Call──▶ bounded queue ──▶ background task ══one connection, pipelined══▶ server
//!      ▲                                       │
//!      └─────────── reply (oneshot) ───────────┘
//! ```
//!
//! A single server has one such connection, and so does the master that Sentinel names: `sentinel` finds its address
//! whenever the connection is opened. A cluster has one for each node that has keys; `cluster` finds the node of a
//! key and follows redirections.

mod cluster;
mod config;
mod counters;
pub mod dumped_fields;
mod node;
mod pending;
mod reply_limit;
mod sentinel;
mod server;
mod slots;
mod store;

use std::fmt;
use std::sync::{Arc, OnceLock};

use redis::{Cmd, FromRedisValue, Script, Value};

pub use config::{RedisAliases, RedisConfig};
pub use counters::{CounterIncrement, CounterTotals};
pub use server::RedisServer;
pub use store::{RedisStore, RedisStoreError, ReplacedValue};

use self::cluster::Cluster;
use self::node::{CallError, LinkSettings, NodeSettings, NodeTarget, RedisNode};
use self::pending::{PendingBytes, PendingCommand};
use self::reply_limit::MAX_REPLY_BYTES;
use self::sentinel::Sentinels;
use self::server::Topology;
use super::server_diagnostics::ServerDiagnostic;
use crate::plugin_api::kind::BuildCx;

/// A handle of the connection to a server or cluster. The connections are closed when the last handle is dropped.
pub struct Redis {
    link: ServerLink,
    pending: PendingBytes,
}

enum ServerLink {
    Node(RedisNode),
    Cluster(Cluster),
}

/// The error of a call while the server is unavailable. The condition of the object has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisUnavailable;

/// A script, which a server keeps after its first use. It changes only its keys.
#[derive(Debug)]
pub(crate) struct RedisScript {
    source: &'static str,
    /// The digest of the source, by which servers find the script.
    digest: OnceLock<String>,
}

impl RedisScript {
    pub(crate) const fn new(source: &'static str) -> Self {
        RedisScript { source, digest: OnceLock::new() }
    }

    fn digest(&self) -> &str {
        self.digest.get_or_init(|| Script::new(self.source).get_hash().to_owned())
    }
}

impl Redis {
    /// Returns the handle for an object and a server. A changed object keeps its connection if the server is the same.
    pub fn connect(server: &RedisServer, field: &str, cx: &BuildCx<'_>) -> Arc<Redis> {
        Self::connect_with_limit(server, field, MAX_REPLY_BYTES, cx)
    }

    /// As `connect`, for replies of this size.
    fn connect_with_limit(server: &RedisServer, field: &str, max_reply_bytes: usize, cx: &BuildCx<'_>) -> Arc<Redis> {
        let name = format!("{} redis {max_reply_bytes} {}", cx.object, server.fingerprint());
        cx.state.get_or_create(&name, || {
            let diagnostic = ServerDiagnostic::new(cx);
            let link = LinkSettings {
                login: server.login.clone(),
                database: server.database,
                response_timeout: server.response_timeout,
                max_reply_bytes,
            };
            let field = format!("config.{field}");
            let link = match &server.topology {
                Topology::Server(remote) => {
                    let settings = NodeSettings { target: NodeTarget::Server(remote.clone()), link, field };
                    ServerLink::Node(RedisNode::start(settings, cx.services, diagnostic))
                }
                Topology::Sentinel { master_name, sentinels, login } => {
                    let sentinel_link = LinkSettings {
                        login: login.clone(),
                        database: 0,
                        max_reply_bytes: MAX_REPLY_BYTES,
                        ..link.clone()
                    };
                    let sentinels = Sentinels::new(master_name.clone(), sentinels.clone(), sentinel_link);
                    let settings = NodeSettings { target: NodeTarget::Master(Arc::new(sentinels)), link, field };
                    ServerLink::Node(RedisNode::start(settings, cx.services, diagnostic))
                }
                Topology::Cluster { nodes, max_redirections } => ServerLink::Cluster(Cluster::start(
                    nodes.clone(),
                    *max_redirections,
                    link,
                    field,
                    cx.services,
                    diagnostic,
                )),
            };
            Redis { link, pending: PendingBytes::default() }
        })
    }

    /// Runs a command on the server of this key.
    async fn query<T: FromRedisValue>(&self, key: &str, command: Cmd) -> Result<T, RedisUnavailable> {
        let reply = self.call(key.as_bytes(), command).await.map_err(|_| RedisUnavailable)?;
        redis::from_redis_value(reply).map_err(|_| RedisUnavailable)
    }

    /// Runs a script whose arguments and results are integers, in one atomic step. In a cluster, the keys must have the
    /// same hash tag, see [`RedisServer::key_group`].
    pub(crate) async fn run_integers(
        &self,
        script: &RedisScript,
        keys: &[String],
        arguments: &[u64],
    ) -> Result<Vec<u64>, RedisUnavailable> {
        let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        let add_arguments = |command: &mut Cmd| {
            for argument in arguments {
                command.arg(*argument);
            }
        };
        self.run_script(script, &keys, add_arguments).await
    }

    /// Runs a script on the server of these keys. A server that does not know the script yet gets its source.
    async fn run_script<T: FromRedisValue>(
        &self,
        script: &RedisScript,
        keys: &[&[u8]],
        add_arguments: impl Fn(&mut Cmd),
    ) -> Result<T, RedisUnavailable> {
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len());
            for key in keys {
                command.arg(*key);
            }
            add_arguments(&mut command);
            command
        };
        let first = keys.first().copied().unwrap_or_default();
        let reply = match self.call(first, command("EVALSHA", script.digest())).await {
            Err(CallError::NoScript) => self.call(first, command("EVAL", script.source)).await,
            reply => reply,
        };
        redis::from_redis_value(reply.map_err(|_| RedisUnavailable)?).map_err(|_| RedisUnavailable)
    }

    async fn call(&self, key: &[u8], command: Cmd) -> Result<Value, CallError> {
        let command = PendingCommand::new(command, &self.pending).ok_or(CallError::Unavailable)?;
        match &self.link {
            ServerLink::Node(node) => node.call(&command, false).await,
            ServerLink::Cluster(cluster) => cluster.call(key, &command).await,
        }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Redis").finish_non_exhaustive()
    }
}
