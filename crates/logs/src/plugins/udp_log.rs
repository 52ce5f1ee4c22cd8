//! `udp-log`: sends a datagram with a JSON object about each request to a UDP server.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: log
//! plugin: udp-log
//! config: {host: logs.example, port: 5170}
//! ```
//!
//! Requests never wait. Objects wait for a moment in a queue, which is also limited by `--max-queued-bytes`. Nothing
//! confirms a datagram, so some are lost without notice. An object that is longer than a datagram, 65,507 bytes, is not
//! sent. The metrics `portico_plugin_queue_…` count what is sent and what is dropped.
//!
//! The objects are those of the plugin `http-log`, without credentials.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::log_delivery::{DEFAULT_LOG_QUEUE, DatagramSender, DeliveryReports, Packing, parse_server};
use crate::plugin_api::batch_queue::BatchQueue;
use crate::plugin_api::remote::MAX_REMOTE_TIMEOUT;
use crate::plugin_api::{BuildCx, LogCx, Phases, Plugin, PluginKind};
use crate::plugin_kit::log_fields::CustomFields;

/// Sends logs of requests to a UDP server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Host of the server: a Service of the cluster, such as `logs.shop` or `logs.shop.svc`, another DNS name, or an IP
    /// address.
    host: Option<String>,
    /// Port of the server.
    port: Option<u16>,
    /// Timeout in milliseconds for looking up the host. At most 60000 takes effect.
    timeout: u32,
    /// Fields to add to the objects: the value of each field is that of an expression in a subset of Lua, as in
    /// http-log.
    custom_fields_by_lua: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { host: None, port: None, timeout: 10_000, custom_fields_by_lua: BTreeMap::new() }
    }
}

pub(crate) struct UdpLog {
    queue: Arc<BatchQueue>,
    custom_fields: CustomFields,
}

impl PluginKind for UdpLog {
    const NAME: &'static str = "udp-log";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 8;
    const PHASES: Phases = Phases::LOG;
    const FAIL_CLOSED: bool = false;
    const LOGS_SESSIONS: bool = true;
    type Config = Config;
    type Plugin = UdpLog;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let timeout = cx.limited_duration("timeout", config.timeout, MAX_REMOTE_TIMEOUT);
        let remote = parse_server(config.host.as_deref(), config.port, timeout, cx, &mut invalid);
        let custom_fields = CustomFields::parse(&config.custom_fields_by_lua, &mut invalid);
        let (Some(remote), true) = (remote, invalid.is_empty()) else { return Err(invalid) };
        let queue = cx.state.get_or_create(&format!("{} {remote:?}", cx.object), || {
            let sender = DatagramSender::new(remote.clone(), Packing::Whole, DeliveryReports::new("host", cx), cx);
            BatchQueue::start(DEFAULT_LOG_QUEUE, Arc::new(sender), cx)
        });
        Ok(UdpLog { queue, custom_fields })
    }
}

impl Plugin for UdpLog {
    fn log(&self, cx: &LogCx<'_>) {
        self.queue.push_for(&cx.names.namespace, Bytes::from(self.custom_fields.object(cx)));
    }

    fn logs_heads(&self) -> bool {
        true
    }
}
