//! The record `redis` that plugins have in their configuration.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugin::kind::{BuildCx, Invalid};
use crate::plugin::services::{Remote, RemoteTls};

/// Where a Redis server is, and how to talk to it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// Its address or name: a Service of the cluster, such as `redis.shop` or `redis.shop.svc`, or a name of DNS.
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// How long it may take to connect, and to answer, in milliseconds.
    pub timeout: u32,
    /// The user to log in as; the default user if it is not given.
    pub username: Option<String>,
    /// The password to log in with.
    pub password: Option<String>,
    /// The number of the database.
    pub database: u32,
    /// Whether to use TLS.
    pub ssl: bool,
    /// Whether to check its certificate. If not, anybody may pretend to be the server.
    pub ssl_verify: bool,
    /// The name to ask for and to look for in the certificate; `host` if it is not given.
    pub server_name: Option<String>,
}

impl Default for RedisConfig {
    fn default() -> Self {
        RedisConfig {
            host: None,
            port: 6379,
            timeout: 2000,
            username: None,
            password: None,
            database: 0,
            ssl: false,
            ssl_verify: false,
            server_name: None,
        }
    }
}

/// A configuration that can be used.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    pub remote: Remote,
    pub username: Option<String>,
    pub password: Option<String>,
    pub database: u32,
}

impl RedisConfig {
    /// `path` is that of the record, for what is refused.
    pub fn checked(self, path: &str, cx: &BuildCx<'_>) -> Result<Server, Vec<Invalid>> {
        let mut invalid = Vec::new();
        let at = |field: &str| format!("{path}.{field}");
        let host = self.host.filter(|host| !host.is_empty());
        if host.is_none() {
            let remedy = "name the server, such as redis.shop.svc";
            invalid.push(Invalid::new(at("host"), "is missing", remedy));
        }
        invalid.extend(host.as_deref().and_then(|host| cx.unreachable(at("host"), host)));
        if self.port == 0 {
            invalid.push(Invalid::new(at("port"), "0 is no port", "use the server's, which is 6379 as a rule"));
        }
        if self.timeout == 0 {
            let message = "0 leaves no time for an answer";
            invalid.push(Invalid::new(at("timeout"), message, "use milliseconds, such as 2000"));
        }
        if self.username.is_some() && self.password.is_none() {
            let message = "is of no use without a password";
            invalid.push(Invalid::new(at("username"), message, "set `password` too, or remove it"));
        }
        let (Some(host), true) = (host, invalid.is_empty()) else { return Err(invalid) };
        let tls = self.ssl.then_some(RemoteTls { server_name: self.server_name, verify: self.ssl_verify });
        let namespace = cx.namespace().map(str::to_owned);
        let timeout = Duration::from_millis(self.timeout.into());
        let remote = Remote { host, port: self.port, namespace, tls, timeout };
        Ok(Server { remote, username: self.username, password: self.password, database: self.database })
    }
}
