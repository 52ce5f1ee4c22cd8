//! `tcp-log`: writes a line with a JSON object about each request to a TCP server.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: log
//! plugin: tcp-log
//! config: {host: logs.example, port: 5170}
//! ```
//!
//! Requests never wait for the server. Lines wait in a queue of at most 10,000, which is also limited by
//! `--max-queued-bytes`, and are written together. If the server cannot be reached, they are sent again for a minute.
//! The metrics `portico_plugin_queue_…` count what is sent and what is dropped.
//!
//! The objects are those of the plugin `http-log`, without credentials.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::log_delivery::{DEFAULT_LOG_QUEUE, DeliveryReports, EntryFraming, StreamSender, parse_server};
use crate::plugin_api::batch_queue::BatchQueue;
use crate::plugin_api::remote::MAX_REMOTE_TIMEOUT;
use crate::plugin_api::{BuildCx, LogCx, Phases, Plugin, PluginKind, RemoteTls};
use crate::plugin_kit::log_fields::CustomFields;

/// Writes logs of requests to a TCP server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Host of the server: a Service of the cluster, such as `logs.shop` or `logs.shop.svc`, another DNS name, or an IP
    /// address.
    host: Option<String>,
    /// Port of the server.
    port: Option<u16>,
    /// Timeout in milliseconds for connecting, and for writing lines. At most 60000 takes effect.
    timeout: u32,
    /// How many milliseconds a connection without lines is used again. At most 600000 takes effect.
    keepalive: u32,
    /// Whether to use TLS.
    tls: bool,
    /// Server name for SNI and for the verification of the certificate; if unset, `host`. Requires `tls`.
    tls_sni: Option<String>,
    /// Whether to verify the certificate of the server with the system's root certificates. Kong does not verify it
    /// by default. Without verification, the logs are not protected against impersonation of the server.
    ssl_verify: bool,
    /// Fields to add to the objects: the value of each field is that of an expression in a subset of Lua, as in
    /// http-log.
    custom_fields_by_lua: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            host: None,
            port: None,
            timeout: 10_000,
            keepalive: 60_000,
            tls: false,
            tls_sni: None,
            ssl_verify: true,
            custom_fields_by_lua: BTreeMap::new(),
        }
    }
}

pub(crate) struct TcpLog {
    queue: Arc<BatchQueue>,
    custom_fields: CustomFields,
}

impl PluginKind for TcpLog {
    const NAME: &'static str = "tcp-log";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 7;
    const PHASES: Phases = Phases::LOG;
    const FAIL_CLOSED: bool = false;
    const LOGS_SESSIONS: bool = true;
    type Config = Config;
    type Plugin = TcpLog;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let timeout = cx.limited_duration("timeout", config.timeout, MAX_REMOTE_TIMEOUT);
        let remote = parse_server(config.host.as_deref(), config.port, timeout, cx, &mut invalid);
        if config.keepalive == 0 {
            let remedy = "use a number of milliseconds, such as 60000";
            invalid.push(Diagnostic::in_config("keepalive", "must not be 0", remedy));
        }
        if config.tls_sni.is_some() && !config.tls {
            let message = "has no effect without TLS, and the lines would not be encrypted";
            invalid.push(Diagnostic::in_config("tls_sni", message, "set `tls: true`, or remove it"));
        }
        let custom_fields = CustomFields::parse(&config.custom_fields_by_lua, &mut invalid);
        let (Some(mut remote), true) = (remote, invalid.is_empty()) else { return Err(invalid) };
        remote.tls = config.tls.then(|| RemoteTls {
            server_name: config.tls_sni.clone(),
            verify: config.ssl_verify,
            files: None,
        });
        let idle_limit = cx.limited_duration("keepalive", config.keepalive, MAX_KEEP_ALIVE);
        // Lines that wait are kept while the server stays the same.
        let name = format!("{} {remote:?} {idle_limit:?}", cx.object);
        let queue = cx.state.get_or_create(&name, || {
            let reports = DeliveryReports::new("host", cx);
            let sender = StreamSender::new(remote.clone(), EntryFraming::Lines, idle_limit, reports, cx);
            BatchQueue::start(DEFAULT_LOG_QUEUE, Arc::new(sender), cx)
        });
        Ok(TcpLog { queue, custom_fields })
    }
}

impl Plugin for TcpLog {
    fn log(&self, cx: &LogCx<'_>) {
        self.queue.push_for(&cx.names.namespace, Bytes::from(self.custom_fields.object(cx)));
    }

    fn logs_heads(&self) -> bool {
        true
    }
}

/// The longest time that an idle connection is kept open.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(600);
