//! The `redis` object in plugin configurations.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::remote::{MAX_REMOTE_TIMEOUT, Remote, RemoteTls};

/// The Redis server to connect to.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// Host of the server: a Service of the cluster, such as `redis.shop` or `redis.shop.svc`, another DNS name, or an
    /// IP address.
    pub host: Option<String>,
    /// Port of the server.
    pub port: u16,
    /// Timeout in milliseconds for connecting, and for each response. At most 60000 takes effect.
    pub timeout: u32,
    /// Username; if unset, the default user of the server. Requires `password`.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Number of the database.
    pub database: u32,
    /// Whether to use TLS.
    pub ssl: bool,
    /// Whether to verify the certificate of the server. Without verification, the connection is not protected against
    /// impersonation of the server.
    pub ssl_verify: bool,
    /// Server name for SNI and for the verification of the certificate; if unset, `host`.
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

/// A validated configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisServer {
    pub remote: Remote,
    pub username: Option<String>,
    pub password: Option<String>,
    pub database: u32,
}

impl RedisConfig {
    /// Validates the configuration. `path` is the path of the `redis` object, for diagnostics.
    pub fn validate(self, path: &str, cx: &BuildCx<'_>) -> Result<RedisServer, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let field_path = |field: &str| format!("{path}.{field}");
        let host = self.host.filter(|host| !host.is_empty());
        if host.is_none() {
            let remedy = "set it to the host name of the server, such as redis.shop.svc";
            invalid.push(Diagnostic::in_config(field_path("host"), "is missing", remedy));
        }
        invalid.extend(host.as_deref().and_then(|host| cx.check_host(field_path("host"), host)));
        if self.port == 0 {
            invalid.push(Diagnostic::in_config(
                field_path("port"),
                "0 is not a valid port",
                "use the port of the server, usually 6379",
            ));
        }
        if self.timeout == 0 {
            let message = "0 is not a valid timeout";
            invalid.push(Diagnostic::in_config(
                field_path("timeout"),
                message,
                "use a number of milliseconds, such as 2000",
            ));
        }
        if self.username.is_some() && self.password.is_none() {
            let message = "has no effect without a password";
            invalid.push(Diagnostic::in_config(
                field_path("username"),
                message,
                "set `password` too, or remove `username`",
            ));
        }
        let (Some(host), true) = (host, invalid.is_empty()) else { return Err(invalid) };
        let tls = self.ssl.then_some(RemoteTls { server_name: self.server_name, verify: self.ssl_verify });
        let namespace = cx.namespace().map(str::to_owned);
        let timeout = cx.limited_duration(field_path("timeout"), self.timeout, MAX_REMOTE_TIMEOUT);
        let remote = Remote { host, port: self.port, namespace, tls, timeout };
        Ok(RedisServer { remote, username: self.username, password: self.password, database: self.database })
    }
}
