//! `syslog`: sends a syslog message with a JSON object about each request, to a server or to the machine's own syslog.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: log
//! plugin: syslog
//! config: {host: logs.example, protocol: tls, facility: local0}
//! ```
//!
//! Kong writes to the syslog of its machine. A container usually has none, so Portico also sends the messages to a
//! server, in the format of RFC 5424: `host`, `port` and `protocol` are fields that Kong does not have. Messages on TCP
//! and TLS connections begin with their length (RFC 6587, section 3.4.1).
//!
//! Requests never wait. Messages wait in a queue of at most 10,000, which is also limited by `--max-queued-bytes`. By
//! UDP, nothing confirms a message, and objects longer than a datagram, 65,507 bytes, are not sent. The metrics
//! `portico_plugin_queue_…` count what is sent and what is dropped.
//!
//! The objects are those of the plugin `http-log`, without credentials.

mod facility;
mod local_socket;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::facility::Facility;
use self::local_socket::LocalSocket;
use crate::diagnostic::Diagnostic;
use crate::log_delivery::{
    DEFAULT_LOG_QUEUE, DatagramSender, DeliveryReports, EntryFraming, Packing, Severities, StreamSender, SyslogMessage,
    SyslogSeverity, parse_server,
};
use crate::plugin_api::batch_queue::{BatchQueue, BatchSender};
use crate::plugin_api::{BuildCx, LogCx, Phases, Plugin, PluginKind, Remote, RemoteTls};
use crate::plugin_kit::log_fields::CustomFields;

/// Sends logs of requests to a syslog server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Host of the syslog server: a Service of the cluster, another DNS name, or an IP address. If unset, messages are
    /// sent to `/dev/log` on the machine of the gateway.
    host: Option<String>,
    /// Port of the server; if unset, 514, and 6514 for `tls`. Requires `host`.
    port: Option<u16>,
    /// How messages are sent to the server. Requires `host`.
    protocol: Protocol,
    /// Whether to verify the certificate of the server with the system's root certificates. Without verification, the
    /// logs are not protected against impersonation of the server.
    ssl_verify: bool,
    /// Requests with a lower severity than this one are not logged.
    log_level: SyslogSeverity,
    /// SyslogSeverity of requests with a status below 400.
    successful_severity: SyslogSeverity,
    /// SyslogSeverity of requests with a status from 400 to 499.
    client_errors_severity: SyslogSeverity,
    /// SyslogSeverity of requests with a status from 500.
    server_errors_severity: SyslogSeverity,
    /// Facility of the messages.
    facility: Facility,
    /// Fields to add to the objects: the value of each field is that of an expression in a subset of Lua, as in
    /// http-log.
    custom_fields_by_lua: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            host: None,
            port: None,
            protocol: Protocol::Udp,
            ssl_verify: true,
            log_level: SyslogSeverity::Info,
            successful_severity: SyslogSeverity::Info,
            client_errors_severity: SyslogSeverity::Info,
            server_errors_severity: SyslogSeverity::Info,
            facility: Facility::User,
            custom_fields_by_lua: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Udp,
    Tcp,
    Tls,
}

pub(crate) struct Syslog {
    queue: Arc<BatchQueue>,
    custom_fields: CustomFields,
    severities: Severities,
    facility: Facility,
    node: String,
}

impl PluginKind for Syslog {
    const NAME: &'static str = "syslog";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 4;
    const PHASES: Phases = Phases::LOG;
    const FAIL_CLOSED: bool = false;
    const LOGS_SESSIONS: bool = true;
    type Config = Config;
    type Plugin = Syslog;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let server = config.server(cx, &mut invalid);
        let custom_fields = CustomFields::parse(&config.custom_fields_by_lua, &mut invalid);
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let name = format!("{} {server:?} {:?}", cx.object, config.protocol);
        let queue = cx
            .state
            .get_or_create(&name, || BatchQueue::start(DEFAULT_LOG_QUEUE, config.sender(server.as_ref(), cx), cx));
        let severities = Severities {
            log_level: config.log_level,
            successful: config.successful_severity,
            client_errors: config.client_errors_severity,
            server_errors: config.server_errors_severity,
        };
        Ok(Syslog { queue, custom_fields, severities, facility: config.facility, node: cx.node.to_owned() })
    }
}

impl Plugin for Syslog {
    fn log(&self, cx: &LogCx<'_>) {
        let Some(severity) = self.severities.of(cx.summary.status) else { return };
        let message = SyslogMessage {
            facility: self.facility.code(),
            severity,
            time: cx.request.started_at,
            hostname: &self.node,
            app: "kong",
            structured_data: "-",
            text: &self.custom_fields.object(cx),
        };
        self.queue.push_for(&cx.names.namespace, Bytes::from(message.to_bytes()));
    }

    fn logs_heads(&self) -> bool {
        true
    }
}

impl Config {
    /// The server, or `None` for the machine's own syslog.
    fn server(&self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Option<Remote> {
        let Some(host) = self.host.as_deref() else {
            let remedy = "set `host` to the name of the server, or remove it";
            let without_host = [("port", self.port.is_some()), ("protocol", self.protocol != Protocol::Udp)];
            for (field, _) in without_host.iter().filter(|(_, is_set)| *is_set) {
                invalid.push(Diagnostic::in_config(*field, "has no effect without `host`", remedy));
            }
            return None;
        };
        let default_port = if self.protocol == Protocol::Tls { SYSLOG_TLS_PORT } else { SYSLOG_PORT };
        let port = self.port.unwrap_or(default_port);
        let mut remote = parse_server(Some(host), Some(port), SERVER_TIMEOUT, cx, invalid)?;
        remote.tls = (self.protocol == Protocol::Tls).then_some(RemoteTls {
            server_name: None,
            verify: self.ssl_verify,
            files: None,
        });
        Some(remote)
    }

    fn sender(&self, server: Option<&Remote>, cx: &BuildCx<'_>) -> Arc<dyn BatchSender> {
        let reports = DeliveryReports::new("host", cx);
        match (server.cloned(), self.protocol) {
            (None, _) => Arc::new(LocalSocket::new("/dev/log", reports)),
            (Some(server), Protocol::Udp) => Arc::new(DatagramSender::new(server, Packing::Whole, reports, cx)),
            (Some(server), Protocol::Tcp | Protocol::Tls) => {
                Arc::new(StreamSender::new(server, EntryFraming::OctetCounting, MAX_IDLE, reports, cx))
            }
        }
    }
}

/// Timeout of connecting to the server, and of writing messages.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection without messages is used again.
const MAX_IDLE: Duration = Duration::from_secs(60);
const SYSLOG_PORT: u16 = 514;
/// RFC 5425, section 4.1.
const SYSLOG_TLS_PORT: u16 = 6514;
