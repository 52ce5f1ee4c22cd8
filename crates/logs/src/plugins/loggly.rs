//! `loggly`: sends a syslog message with a JSON object about each request to Loggly by UDP.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: log
//! plugin: loggly
//! config:
//!   key: {secretKeyRef: {name: loggly, key: token}}
//!   tags: [shop]
//! ```
//!
//! Requests never wait. Nothing confirms a datagram, so some are lost without notice, and the token is sent without
//! encryption, as Loggly's syslog endpoint requires. An object that is longer than a datagram, 65,507 bytes, is not
//! sent. The metrics `portico_plugin_queue_…` count what is sent and what is dropped.
//!
//! The objects are those of the plugin `http-log`, without credentials.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::log_delivery::{
    DEFAULT_LOG_QUEUE, DatagramSender, DeliveryReports, Packing, Severities, SyslogMessage, SyslogSeverity,
    parse_server,
};
use crate::plugin_api::batch_queue::BatchQueue;
use crate::plugin_api::remote::MAX_REMOTE_TIMEOUT;
use crate::plugin_api::{BuildCx, LogCx, Phases, Plugin, PluginKind};
use crate::plugin_kit::log_fields::CustomFields;

/// Sends logs of requests to Loggly.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Host of the server.
    host: String,
    /// Port of the server.
    port: u16,
    /// Customer token of the account at Loggly.
    key: Option<String>,
    /// Tags of each message. A tag has letters, digits and `-_.*`, and begins with a letter or digit.
    tags: Vec<String>,
    /// Requests with a lower severity than this one are not logged.
    log_level: SyslogSeverity,
    /// SyslogSeverity of requests with a status below 400.
    successful_severity: SyslogSeverity,
    /// SyslogSeverity of requests with a status from 400 to 499.
    client_errors_severity: SyslogSeverity,
    /// SyslogSeverity of requests with a status from 500.
    server_errors_severity: SyslogSeverity,
    /// Timeout in milliseconds for looking up the host. At most 60000 takes effect.
    timeout: u32,
    /// Fields to add to the objects: the value of each field is that of an expression in a subset of Lua, as in
    /// http-log.
    custom_fields_by_lua: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            host: "logs-01.loggly.com".to_owned(),
            port: 514,
            key: None,
            tags: vec!["kong".to_owned()],
            log_level: SyslogSeverity::Info,
            successful_severity: SyslogSeverity::Info,
            client_errors_severity: SyslogSeverity::Info,
            server_errors_severity: SyslogSeverity::Info,
            timeout: 10_000,
            custom_fields_by_lua: BTreeMap::new(),
        }
    }
}

pub(crate) struct Loggly {
    queue: Arc<BatchQueue>,
    custom_fields: CustomFields,
    severities: Severities,
    /// With the token and the tags.
    structured_data: String,
    node: String,
}

impl PluginKind for Loggly {
    const NAME: &'static str = "loggly";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 6;
    const PHASES: Phases = Phases::LOG;
    const FAIL_CLOSED: bool = false;
    const LOGS_SESSIONS: bool = true;
    type Config = Config;
    type Plugin = Loggly;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let timeout = cx.limited_duration("timeout", config.timeout, MAX_REMOTE_TIMEOUT);
        let remote = parse_server(Some(&config.host), Some(config.port), timeout, cx, &mut invalid);
        let structured_data = config.structured_data(&mut invalid);
        let custom_fields = CustomFields::parse(&config.custom_fields_by_lua, &mut invalid);
        let (Some(remote), true) = (remote, invalid.is_empty()) else { return Err(invalid) };
        let queue = cx.state.get_or_create(&format!("{} {remote:?}", cx.object), || {
            let sender = DatagramSender::new(remote.clone(), Packing::Whole, DeliveryReports::new("host", cx), cx);
            BatchQueue::start(DEFAULT_LOG_QUEUE, Arc::new(sender), cx)
        });
        let severities = Severities {
            log_level: config.log_level,
            successful: config.successful_severity,
            client_errors: config.client_errors_severity,
            server_errors: config.server_errors_severity,
        };
        Ok(Loggly { queue, custom_fields, severities, structured_data, node: cx.node.to_owned() })
    }
}

impl Plugin for Loggly {
    fn log(&self, cx: &LogCx<'_>) {
        let Some(severity) = self.severities.of(cx.summary.status) else { return };
        let message = SyslogMessage {
            facility: USER_FACILITY,
            severity,
            time: cx.request.started_at,
            hostname: &self.node,
            app: "kong",
            structured_data: &self.structured_data,
            text: &self.custom_fields.object(cx),
        };
        self.queue.push_for(&cx.names.namespace, Bytes::from(message.to_bytes()));
    }

    fn logs_heads(&self) -> bool {
        true
    }
}

impl Config {
    /// The element that Loggly reads the account and the tags from. No message contains the token.
    fn structured_data(&self, invalid: &mut Vec<Diagnostic>) -> String {
        let key = self.key.as_deref().unwrap_or_default();
        if key.is_empty() {
            let remedy = "set it to the customer token of your account at Loggly";
            invalid.push(Diagnostic::in_config("key", "is missing", remedy));
        } else if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            let remedy = "use the customer token as Loggly shows it, with letters, digits and hyphens";
            invalid.push(Diagnostic::in_config("key", "is not a customer token", remedy));
        }
        let mut element = format!("[{key}@{LOGGLY_ENTERPRISE}");
        for (index, tag) in self.tags.iter().enumerate() {
            let is_valid = tag.starts_with(|first: char| first.is_ascii_alphanumeric())
                && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte));
            if !is_valid {
                let remedy = "use letters, digits and `-_.*`, and begin with a letter or digit";
                invalid.push(Diagnostic::in_config(format!("tags[{index}]"), format!("{tag:?} is not a tag"), remedy));
            }
            element += &format!(" tag=\"{tag}\"");
        }
        element + "]"
    }
}

/// The facility `user` of RFC 5424, section 6.2.1.
const USER_FACILITY: u8 = 1;
/// The number of Loggly at IANA's registry of private enterprises.
const LOGGLY_ENTERPRISE: u32 = 41_058;
