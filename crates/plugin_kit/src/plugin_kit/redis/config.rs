//! The `redis` object in plugin configurations.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::server::{RedisLogin, RedisServer, Topology};
use super::slots::MAX_NODES;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::remote::{MAX_REMOTE_TIMEOUT, Remote, RemoteTls};

/// The Redis server to connect to: exactly one of `host`, `sentinel_nodes` and `cluster_nodes`.
/// `host: 127.0.0.1`, Kong's default, has no effect together with nodes.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// Host of the server: a Service of the cluster, such as `redis.shop` or `redis.shop.svc`, another DNS name, or an
    /// IP address.
    pub host: Option<String>,
    /// Port of the server.
    pub port: u16,
    /// Timeout in milliseconds for connecting, and for each response. At most 60000 takes effect.
    pub timeout: u32,
    /// Timeout in milliseconds for connecting; if unset, `timeout`.
    pub connect_timeout: Option<u32>,
    /// Timeout in milliseconds for sending a command. Commands are sent while others wait for responses, so the longer
    /// one of this and `read_timeout` is the timeout of a response.
    pub send_timeout: Option<u32>,
    /// Timeout in milliseconds for each response; if unset, `timeout`.
    pub read_timeout: Option<u32>,
    /// Username; if unset, the default user of the server. Requires `password`.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Number of the database. A cluster has only database 0.
    pub database: u32,
    /// Whether to use TLS, also for the servers of Sentinel and all nodes of a cluster.
    pub ssl: bool,
    /// Whether to verify the certificate of the server. Without verification, the connection is not protected against
    /// impersonation of the server.
    pub ssl_verify: bool,
    /// Server name for SNI and for the verification of the certificate; if unset, the host of the connection. With
    /// Sentinel or a cluster, that is usually the IP address that Sentinel or the cluster reports.
    pub server_name: Option<String>,
    /// The name of the master that the servers in `sentinel_nodes` monitor.
    pub sentinel_master: Option<String>,
    /// The role of the server to connect to. Only a master accepts writes, so `slave` and `any` are rejected.
    pub sentinel_role: Option<SentinelRole>,
    /// The servers of Redis Sentinel, which name the current master: after a failover, Portico connects to the new one.
    pub sentinel_nodes: Vec<SentinelNode>,
    /// Username for the servers of Sentinel. Requires `sentinel_password`.
    pub sentinel_username: Option<String>,
    /// Password for the servers of Sentinel.
    pub sentinel_password: Option<String>,
    /// Some nodes of a Redis cluster, from which Portico learns all others. At most 64 masters.
    pub cluster_nodes: Vec<ClusterNode>,
    /// The former name of `cluster_nodes`: each entry is `host:port`. Ignored if `cluster_nodes` is set too.
    pub cluster_addresses: Vec<String>,
    /// The former name of `sentinel_nodes`: each entry is `host:port`. Ignored if `sentinel_nodes` is set too.
    pub sentinel_addresses: Vec<String>,
    /// How often a command may be redirected to another node of the cluster.
    pub cluster_max_redirections: u32,
    /// Whether `host` is a proxy, such as Envoy. Then `database` must be 0. Portico uses no commands that a proxy for
    /// several servers rejects, except for plugins that change several counters at once.
    pub connection_is_proxied: bool,
    /// Without effect: Portico has one connection to each server for each object, and sends all commands over it
    /// without waiting for responses.
    pub keepalive_pool_size: u32,
    /// Without effect, as `keepalive_pool_size`.
    pub keepalive_backlog: Option<u32>,
}

impl Default for RedisConfig {
    fn default() -> Self {
        RedisConfig {
            host: None,
            port: 6379,
            timeout: 2000,
            connect_timeout: None,
            send_timeout: None,
            read_timeout: None,
            username: None,
            password: None,
            database: 0,
            ssl: false,
            ssl_verify: false,
            server_name: None,
            sentinel_master: None,
            sentinel_role: None,
            sentinel_nodes: Vec::new(),
            sentinel_username: None,
            sentinel_password: None,
            cluster_nodes: Vec::new(),
            cluster_addresses: Vec::new(),
            sentinel_addresses: Vec::new(),
            cluster_max_redirections: 5,
            connection_is_proxied: false,
            keepalive_pool_size: 256,
            keepalive_backlog: None,
        }
    }
}

/// The former names of the settings of a server, as fields of the plugin.
#[derive(Default)]
pub struct RedisAliases {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub timeout: Option<u32>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub database: Option<u32>,
    pub ssl: Option<bool>,
    pub ssl_verify: Option<bool>,
    pub server_name: Option<String>,
}

/// The role of a server that Sentinel monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SentinelRole {
    /// The server that accepts writes.
    Master,
    /// Rejected: a replica.
    Slave,
    /// Rejected: the master or a replica.
    Any,
}

/// A server of Redis Sentinel.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SentinelNode {
    /// Its host, as in `redis.host`.
    pub host: String,
    /// Its port, usually 26379.
    pub port: u16,
}

impl Default for SentinelNode {
    fn default() -> Self {
        SentinelNode { host: LOOPBACK.to_owned(), port: 6379 }
    }
}

/// A node of a Redis cluster.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterNode {
    /// Its IP address, or a host as in `redis.host`.
    pub ip: String,
    /// Its port.
    pub port: u16,
}

impl Default for ClusterNode {
    fn default() -> Self {
        ClusterNode { ip: LOOPBACK.to_owned(), port: 6379 }
    }
}

impl RedisConfig {
    /// Whether the settings name a server.
    pub fn has_servers(&self) -> bool {
        let nodes = [self.sentinel_nodes.len(), self.cluster_nodes.len()];
        let former = [self.sentinel_addresses.len(), self.cluster_addresses.len()];
        self.host.is_some() || nodes.into_iter().chain(former).any(|number| number > 0)
    }

    /// The settings with the values of former names in the fields that have replaced these.
    fn with_former_names(mut self, check: &mut RedisCheck<'_>) -> Self {
        if self.cluster_nodes.is_empty() {
            let addresses = check.addresses("cluster_addresses", &self.cluster_addresses);
            self.cluster_nodes = addresses.map(|(ip, port)| ClusterNode { ip, port }).collect();
        }
        if self.sentinel_nodes.is_empty() {
            let addresses = check.addresses("sentinel_addresses", &self.sentinel_addresses);
            self.sentinel_nodes = addresses.map(|(host, port)| SentinelNode { host, port }).collect();
        }
        self
    }

    /// The settings, where an alias replaces the field of its name.
    #[must_use]
    pub fn with_aliases(self, aliases: RedisAliases) -> Self {
        RedisConfig {
            host: aliases.host.or(self.host),
            port: aliases.port.unwrap_or(self.port),
            timeout: aliases.timeout.unwrap_or(self.timeout),
            username: aliases.username.or(self.username),
            password: aliases.password.or(self.password),
            database: aliases.database.unwrap_or(self.database),
            ssl: aliases.ssl.unwrap_or(self.ssl),
            ssl_verify: aliases.ssl_verify.unwrap_or(self.ssl_verify),
            server_name: aliases.server_name.or(self.server_name),
            ..self
        }
    }

    /// Validates the configuration. `path` is the path of the `redis` object, for diagnostics.
    pub fn validate(self, path: &str, cx: &BuildCx<'_>) -> Result<RedisServer, Vec<Diagnostic>> {
        let mut check = RedisCheck { path, cx, invalid: Vec::new() };
        let this = self.with_former_names(&mut check);
        this.validate_fields(check)
    }

    fn validate_fields(self, mut check: RedisCheck<'_>) -> Result<RedisServer, Vec<Diagnostic>> {
        let cx = check.cx;
        let connect_timeout = check.timeout("connect_timeout", self.connect_timeout, self.timeout);
        let read_timeout = check.timeout("read_timeout", self.read_timeout, self.timeout);
        let send_timeout = check.timeout("send_timeout", self.send_timeout, self.timeout);
        let response_timeout = if self.send_timeout.is_some() { read_timeout.max(send_timeout) } else { read_timeout };
        check.login("", &self.username, &self.password);
        check.login("sentinel_", &self.sentinel_username, &self.sentinel_password);
        let template = Remote {
            host: String::new(),
            port: 0,
            namespace: cx.namespace().map(str::to_owned),
            tls: self.ssl.then(|| RemoteTls {
                server_name: self.server_name.clone(),
                verify: self.ssl_verify,
                files: None,
            }),
            timeout: connect_timeout,
        };
        let topology = self.topology(&template, &mut check);
        let login = RedisLogin { username: self.username, password: self.password };
        match topology {
            Some(topology) if check.invalid.is_empty() => {
                Ok(RedisServer { topology, login, database: self.database, response_timeout })
            }
            _ => Err(check.invalid),
        }
    }

    /// The server, the master of Sentinel or the cluster. Exactly one of them is configured.
    fn topology(&self, template: &Remote, check: &mut RedisCheck<'_>) -> Option<Topology> {
        let has_nodes = !self.sentinel_nodes.is_empty() || !self.cluster_nodes.is_empty();
        // Kong writes this host together with the nodes although it was not set.
        let is_default = |host: &str| has_nodes && host == LOOPBACK && self.port == 6379;
        let host = self.host.as_deref().filter(|host| !host.is_empty() && !is_default(host));
        let ways = [
            ("host", host.is_some()),
            ("sentinel_nodes", !self.sentinel_nodes.is_empty()),
            ("cluster_nodes", !self.cluster_nodes.is_empty()),
        ];
        let set: Vec<&str> = ways.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect();
        if let [first, second, ..] = set.as_slice() {
            let message = format!("cannot be combined with `{first}`");
            check.reject(second, message, "keep only one: `host`, `sentinel_nodes` or `cluster_nodes`");
            return None;
        }
        if self.sentinel_nodes.is_empty() {
            let has_fields = [
                ("sentinel_master", self.sentinel_master.is_some()),
                ("sentinel_role", self.sentinel_role.is_some()),
                ("sentinel_username", self.sentinel_username.is_some()),
                ("sentinel_password", self.sentinel_password.is_some()),
            ];
            for (name, _) in has_fields.into_iter().filter(|(_, is_set)| *is_set) {
                check.reject(name, "has no effect without `sentinel_nodes`", "set `sentinel_nodes` too, or remove it");
            }
        }
        if self.connection_is_proxied {
            if host.is_none() {
                check.reject("connection_is_proxied", "requires `host`", "set `host` to that of the proxy");
            } else if self.database != 0 {
                check.reject("database", "a proxy has only database 0", "set it to 0, or connect without the proxy");
            }
        }
        match set.first() {
            Some(&"sentinel_nodes") => self.sentinel(template, check),
            Some(&"cluster_nodes") => self.cluster(template, check),
            _ => {
                if host.is_none() {
                    check.reject("host", "is missing", "set it to the host name of the server, such as redis.shop.svc");
                }
                check.server("", "host", host?, self.port, template).map(Topology::Server)
            }
        }
    }

    fn sentinel(&self, template: &Remote, check: &mut RedisCheck<'_>) -> Option<Topology> {
        let master_name = self.sentinel_master.clone().filter(|name| !name.is_empty());
        if master_name.is_none() {
            let remedy = "set it to the name that Sentinel monitors, such as mymaster";
            check.reject("sentinel_master", "is missing", remedy);
        }
        if self.sentinel_role.is_some_and(|role| role != SentinelRole::Master) {
            let message = "a replica does not accept the writes of this plugin";
            check.reject("sentinel_role", message, "use `master`");
        }
        if self.sentinel_nodes.len() > MAX_NODES {
            check.reject("sentinel_nodes", format!("has more than {MAX_NODES} servers"), "list some of them");
        }
        let servers = self.sentinel_nodes.iter().enumerate();
        let sentinels: Vec<Remote> = servers
            .filter_map(|(index, node)| {
                check.server(&format!("sentinel_nodes[{index}]."), "host", &node.host, node.port, template)
            })
            .collect();
        let login = RedisLogin { username: self.sentinel_username.clone(), password: self.sentinel_password.clone() };
        Some(Topology::Sentinel { master_name: master_name?, sentinels, login })
    }

    fn cluster(&self, template: &Remote, check: &mut RedisCheck<'_>) -> Option<Topology> {
        if self.database != 0 {
            check.reject("database", "a cluster has only database 0", "set it to 0");
        }
        if self.cluster_max_redirections > MAX_REDIRECTIONS {
            let message = format!("{} is above {MAX_REDIRECTIONS}", self.cluster_max_redirections);
            check.reject("cluster_max_redirections", message, "use a number such as 5");
        }
        if self.cluster_nodes.len() > MAX_NODES {
            check.reject("cluster_nodes", format!("has more than {MAX_NODES} nodes"), "list some of them");
        }
        let listed = self.cluster_nodes.iter().enumerate();
        let nodes = listed
            .filter_map(|(index, node)| {
                check.server(&format!("cluster_nodes[{index}]."), "ip", &node.ip, node.port, template)
            })
            .collect();
        Some(Topology::Cluster { nodes, max_redirections: self.cluster_max_redirections })
    }
}

/// Collects what is wrong with a configuration.
struct RedisCheck<'a> {
    path: &'a str,
    cx: &'a BuildCx<'a>,
    invalid: Vec<Diagnostic>,
}

impl RedisCheck<'_> {
    fn reject(&mut self, field: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.invalid.push(Diagnostic::in_config(format!("{}.{field}", self.path), message, remedy));
    }

    /// The value of a timeout, or the common one.
    fn timeout(&mut self, name: &str, value: Option<u32>, common: u32) -> Duration {
        let (field, milliseconds) = value.map_or(("timeout", common), |value| (name, value));
        if milliseconds == 0 {
            // The common timeout is checked several times, and reported once.
            let path = format!("{}.{field}", self.path);
            if !self.invalid.iter().any(|diagnostic| diagnostic.field.ends_with(&path)) {
                self.reject(field, "0 is not a valid timeout", "use a number of milliseconds, such as 2000");
            }
            return Duration::ZERO;
        }
        if value.is_none() && name != "connect_timeout" {
            // The note about a long timeout is written once.
            return Duration::from_millis(milliseconds.into()).min(MAX_REMOTE_TIMEOUT);
        }
        self.cx.limited_duration(format!("{}.{field}", self.path), milliseconds, MAX_REMOTE_TIMEOUT)
    }

    /// The hosts and ports in a list of `host:port`.
    fn addresses(&mut self, field: &str, listed: &[String]) -> std::vec::IntoIter<(String, u16)> {
        let mut addresses = Vec::new();
        for (index, text) in listed.iter().enumerate() {
            let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
            match parts {
                Some(address) => addresses.push(address),
                None => self.reject(&format!("{field}[{index}]"), "is not host:port", "write it like 10.0.0.1:6379"),
            }
        }
        addresses.into_iter()
    }

    fn login(&mut self, prefix: &str, username: &Option<String>, password: &Option<String>) {
        if username.is_some() && password.is_none() {
            let remedy = format!("set `{prefix}password` too, or remove `{prefix}username`");
            self.reject(&format!("{prefix}username"), "has no effect without a password", remedy);
        }
    }

    /// The address of a server, if it is valid.
    fn server(&mut self, prefix: &str, host_field: &str, host: &str, port: u16, template: &Remote) -> Option<Remote> {
        let before = self.invalid.len();
        if host.is_empty() {
            self.reject(&format!("{prefix}{host_field}"), "is empty", "set it to the host of the server");
        } else {
            let host_path = format!("{}.{prefix}{host_field}", self.path);
            self.invalid.extend(self.cx.check_host(host_path, host));
        }
        if port == 0 {
            self.reject(&format!("{prefix}port"), "0 is not a valid port", "use the port of the server, usually 6379");
        }
        let is_valid = self.invalid.len() == before;
        is_valid.then(|| Remote { host: host.to_owned(), port, ..template.clone() })
    }
}

/// The address of nodes for which none is configured, as in Kong.
const LOOPBACK: &str = "127.0.0.1";
/// More redirections than this only occur in a cluster that is broken.
const MAX_REDIRECTIONS: u32 = 16;
