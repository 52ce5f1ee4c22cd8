//! The validated settings of a Redis server, of a master that Sentinel names, or of a cluster.

use std::time::Duration;

use crate::plugin_api::consumers::{hex, sha256};
use crate::plugin_api::remote::Remote;

/// A validated configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisServer {
    pub(super) topology: Topology,
    pub(super) login: RedisLogin,
    pub(super) database: u32,
    /// Timeout of each response. That of connections is in [`Remote::timeout`].
    pub(super) response_timeout: Duration,
}

/// Where the data is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Topology {
    /// On one server.
    Server(Remote),
    /// On the master that these servers of Sentinel name.
    Sentinel { master_name: String, sentinels: Vec<Remote>, login: RedisLogin },
    /// On the nodes of a cluster, of which these are some.
    Cluster { nodes: Vec<Remote>, max_redirections: u32 },
}

/// Username and password.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct RedisLogin {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

impl RedisServer {
    /// Distinguishes servers without revealing passwords.
    pub fn fingerprint(&self) -> String {
        let RedisServer { topology, login, database, response_timeout } = self;
        let describe = |login: &RedisLogin| format!("{:?} {:?}", login.username, login.password);
        let topology = match topology {
            Topology::Server(remote) => format!("{remote:?}"),
            Topology::Sentinel { master_name, sentinels, login } => {
                format!("sentinel {master_name:?} {sentinels:?} {}", describe(login))
            }
            Topology::Cluster { nodes, max_redirections } => format!("cluster {nodes:?} {max_redirections}"),
        };
        let settings = format!("{topology} {} {database} {response_timeout:?}", describe(login));
        hex(&sha256(settings.as_bytes()))
    }

    /// The common prefix of keys that one call changes together. In a cluster, it is the hash tag of these keys, so
    /// that one node has all of them.
    pub fn key_group(&self, prefix: String) -> String {
        if self.is_cluster() { format!("{{{prefix}}}") } else { prefix }
    }

    /// Whether the server is a cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster { .. })
    }
}
