//! `statsd`: sends metrics of each request to a StatsD server, by UDP or TCP.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: metrics
//! plugin: statsd
//! config: {host: statsd.monitoring, port: 8125, tag_style: dogstatsd}
//! ```
//!
//! Without `tag_style`, names contain the service, the consumer and the status, as in
//! `kong.service.default_cart_80.status.200`, and `kong.global.unmatched.…` if a request has no service. With a style,
//! names are short, such as `kong.request.count`, and the same values are tags; then metrics whose names contain a
//! status or a consumer are not sent, and neither is any metric of a request without a service.
//!
//! Requests never wait. The metrics `portico_plugin_queue_…` count what is sent and what is dropped. Unlike Kong,
//! Portico measures only the part `sample_rate` of the requests, which the server multiplies, and has no shared
//! dictionaries: `shdict_usage` has no effect.

mod metric;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use self::metric::{LineCx, Metric, MetricConfig, ServiceIdentifier, WorkspaceIdentifier, default_metrics};
use crate::diagnostic::Diagnostic;
use crate::log_delivery::{DatagramSender, DeliveryReports, EntryFraming, Packing, StreamSender, parse_server};
use crate::plugin_api::batch_queue::{BatchQueue, BatchSender, DeprecatedQueueFields, QueueConfig};
use crate::plugin_api::{BuildCx, LogCx, Phases, Plugin, PluginKind, Remote, record};
use crate::statsd::{ConsumerIdentifier, StatLines, TagStyle};

/// Sends metrics of requests to a StatsD server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Host of the server: a Service of the cluster, another DNS name, or an IP address.
    host: String,
    /// Port of the server.
    port: u16,
    /// The first part of the names of metrics.
    prefix: String,
    /// The metrics. If unset, all of them.
    metrics: Option<Vec<MetricConfig>>,
    /// Ranges of statuses, such as `200-299`. Requests with other statuses are not measured. If unset, all are.
    allow_status_codes: Option<Vec<String>>,
    /// Maximum size in bytes of a datagram with several metrics; 0 for one metric in each datagram.
    #[schemars(range(min = 0, max = 65_507))]
    udp_packet_size: usize,
    /// Whether to use TCP instead of UDP.
    use_tcp: bool,
    /// Whether names begin with the prefix, `node` and the name of this replica.
    hostname_in_prefix: bool,
    /// What identifies the consumer, unless a metric has its own `consumer_identifier`.
    consumer_identifier_default: ConsumerIdentifier,
    /// What identifies the service, unless a metric has its own `service_identifier`.
    service_identifier_default: ServiceIdentifier,
    /// What identifies the workspace, of which there is one, unless a metric has its own `workspace_identifier`.
    workspace_identifier_default: WorkspaceIdentifier,
    /// How tags are written. If unset, names contain their values.
    tag_style: Option<TagStyle>,
    /// How metrics are collected and sent. A datagram that was sent counts as accepted.
    #[serde(deserialize_with = "record")]
    queue: QueueConfig,
    /// No effect: `queue.max_retry_time` limits retries.
    retry_count: Option<u32>,
    /// Alias of `queue.max_batch_size`. If both are set, the alias is used.
    queue_size: Option<usize>,
    /// Alias of `queue.max_coalescing_delay`. If both are set, the alias is used.
    flush_timeout: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            host: "localhost".to_owned(),
            port: 8125,
            prefix: "kong".to_owned(),
            metrics: None,
            allow_status_codes: None,
            udp_packet_size: 0,
            use_tcp: false,
            hostname_in_prefix: false,
            consumer_identifier_default: ConsumerIdentifier::CustomId,
            service_identifier_default: ServiceIdentifier::NameOrHost,
            workspace_identifier_default: WorkspaceIdentifier::WorkspaceId,
            tag_style: None,
            queue: QueueConfig::default(),
            retry_count: None,
            queue_size: None,
            flush_timeout: None,
        }
    }
}

pub(crate) struct Statsd {
    queue: Arc<BatchQueue>,
    metrics: Vec<Metric>,
    /// `None` for all statuses.
    allowed_statuses: Option<Vec<(u16, u16)>>,
    prefix: String,
    /// The name of this replica, without dots.
    node: String,
    tag_style: Option<TagStyle>,
}

impl PluginKind for Statsd {
    const NAME: &'static str = "statsd";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 11;
    const PHASES: Phases = Phases::LOG;
    const FAIL_CLOSED: bool = false;
    const LOGS_SESSIONS: bool = true;
    type Config = Config;
    type Plugin = Statsd;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let remote = parse_server(Some(&config.host), Some(config.port), SERVER_TIMEOUT, cx, &mut invalid);
        if config.prefix.is_empty() {
            invalid.push(Diagnostic::in_config("prefix", "is empty", "write a name, or remove it for `kong`"));
        }
        let allowed_statuses = config.allowed_statuses(&mut invalid);
        if config.udp_packet_size > MAX_DATAGRAM {
            let message = format!("{} is more than a datagram carries", config.udp_packet_size);
            invalid.push(Diagnostic::in_config("udp_packet_size", message, "use 65507 or less"));
        }
        let Config { retry_count, queue_size, flush_timeout, .. } = config;
        let deprecated = DeprecatedQueueFields { retry_count, queue_size, flush_timeout };
        let queue = deprecated.apply(&config.queue, cx).map_err(|errors| invalid.extend(errors)).ok();
        let metrics = config.metrics(&mut invalid, cx);
        let (Some(remote), Some(settings), true) = (remote, queue, invalid.is_empty()) else { return Err(invalid) };
        let transport = (config.use_tcp, config.udp_packet_size);
        let queue = cx.state.get_or_create(&format!("{} {remote:?} {transport:?} {settings:?}", cx.object), || {
            BatchQueue::start(settings.clone(), config.sender(remote.clone(), cx), cx)
        });
        let node = cx.node.replace('.', "_");
        let prefix = if config.hostname_in_prefix && config.tag_style.is_none() {
            format!("{}.node.{node}", config.prefix)
        } else {
            config.prefix
        };
        Ok(Statsd { queue, metrics, allowed_statuses, prefix, node, tag_style: config.tag_style })
    }
}

impl Plugin for Statsd {
    fn log(&self, cx: &LogCx<'_>) {
        let status = cx.summary.status.as_u16();
        let is_allowed =
            |ranges: &Vec<(u16, u16)>| ranges.iter().any(|(first, last)| (first..=last).contains(&&status));
        if !self.allowed_statuses.as_ref().is_none_or(is_allowed) {
            return;
        }
        let line_cx = LineCx { cx, prefix: &self.prefix, node: &self.node, tag_style: self.tag_style };
        let mut lines = StatLines::default();
        for metric in self.metrics.iter().filter(|metric| metric.kind.takes()) {
            metric.write(&line_cx, &mut lines);
        }
        if !lines.is_empty() {
            self.queue.push_for(&cx.names.namespace, Bytes::from(lines.into_bytes()));
        }
    }

    fn logs_heads(&self) -> bool {
        self.metrics.iter().any(Metric::needs_heads)
    }
}

impl Config {
    fn metrics(&self, invalid: &mut Vec<Diagnostic>, cx: &BuildCx<'_>) -> Vec<Metric> {
        let defaults =
            (self.consumer_identifier_default, self.service_identifier_default, self.workspace_identifier_default);
        let configured = self.metrics.clone().unwrap_or_else(default_metrics);
        let mut metrics = Vec::new();
        for (index, metric) in configured.into_iter().enumerate() {
            let path = format!("metrics[{index}]");
            // Kong's default has this metric, so it needs no note.
            if self.metrics.is_some() && metric.is_of_shared_dictionaries() {
                let message = "has no effect: Portico has no shared dictionaries";
                cx.note(Diagnostic::in_config(format!("{path}.name"), message, "remove the metric"));
            }
            metrics.extend(metric.parse(&path, defaults, cx, invalid));
        }
        metrics
    }

    fn allowed_statuses(&self, invalid: &mut Vec<Diagnostic>) -> Option<Vec<(u16, u16)>> {
        let ranges = self.allow_status_codes.as_ref()?.iter().enumerate().filter_map(|(index, text)| {
            let status = |text: &str| text.parse().ok().filter(|status| *status <= 999_u16);
            let range = text.split_once('-').and_then(|(first, last)| Some((status(first)?, status(last)?)));
            let range = range.filter(|(first, last)| first <= last);
            if range.is_none() {
                let message = format!("{text:?} is not a range of statuses");
                let remedy = "write the first and the last status, such as 200-299";
                invalid.push(Diagnostic::in_config(format!("allow_status_codes[{index}]"), message, remedy));
            }
            range
        });
        Some(ranges.collect())
    }

    fn sender(&self, server: Remote, cx: &BuildCx<'_>) -> Arc<dyn BatchSender> {
        let reports = DeliveryReports::new("host", cx);
        if self.use_tcp {
            Arc::new(StreamSender::new(server, EntryFraming::Lines, MAX_IDLE, reports, cx))
        } else {
            Arc::new(DatagramSender::new(server, Packing::Lines(self.udp_packet_size), reports, cx))
        }
    }
}

/// Timeout of looking up the host, connecting, and writing metrics.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection without metrics is used again.
const MAX_IDLE: Duration = Duration::from_secs(60);
/// The most that an IPv4 datagram carries.
const MAX_DATAGRAM: usize = 65_507;
