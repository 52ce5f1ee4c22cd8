//! `datadog`: sends metrics of each request to a Datadog agent, as DogStatsD datagrams.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: metrics
//! plugin: datadog
//! config: {host: datadog-agent.monitoring, port: 8125}
//! ```
//!
//! Each metric has the tags of its `tags`, and the service, the status and the consumer. Requests never wait, and
//! nothing confirms a datagram. The metrics `portico_plugin_queue_…` count what is sent and what is dropped.
//!
//! Unlike Kong, Portico measures only the part `sample_rate` of the requests, which the server multiplies.

mod metric;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use self::metric::{Metric, MetricConfig, default_metrics};
use crate::diagnostic::Diagnostic;
use crate::log_delivery::{DatagramSender, DeliveryReports, Packing, parse_server};
use crate::plugin_api::batch_queue::{BatchQueue, DeprecatedQueueFields, QueueConfig};
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::{BuildCx, Identity, LogCx, Phases, Plugin, PluginKind, record};
use crate::statsd::{ConsumerIdentifier, StatLines, TagStyle};

/// Sends metrics of requests to a Datadog agent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Host of the agent: a Service of the cluster, another DNS name, or an IP address.
    host: String,
    /// Port of the agent.
    port: u16,
    /// The first part of the names of metrics.
    prefix: String,
    /// Name of the tag with the service; an empty text for no such tag.
    service_name_tag: String,
    /// Name of the tag with the status; an empty text for no such tag.
    status_tag: String,
    /// Name of the tag with the consumer; an empty text for no such tag.
    consumer_tag: String,
    /// The metrics. If unset, all of them.
    metrics: Option<Vec<MetricConfig>>,
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
            service_name_tag: "name".to_owned(),
            status_tag: "status".to_owned(),
            consumer_tag: "consumer".to_owned(),
            metrics: None,
            queue: QueueConfig::default(),
            retry_count: None,
            queue_size: None,
            flush_timeout: None,
        }
    }
}

pub(crate) struct Datadog {
    queue: Arc<BatchQueue>,
    metrics: Vec<Metric>,
    prefix: String,
    service_name_tag: String,
    status_tag: String,
    consumer_tag: String,
}

impl PluginKind for Datadog {
    const NAME: &'static str = "datadog";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 10;
    const PHASES: Phases = Phases::LOG;
    const FAIL_CLOSED: bool = false;
    const DUMPED_FIELDS: &'static [DumpedFields] =
        &[DumpedFields::new(&["route_name_tag"], DumpedValue::Nothing, "3.13")];
    const LOGS_SESSIONS: bool = true;
    type Config = Config;
    type Plugin = Datadog;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let remote = parse_server(Some(&config.host), Some(config.port), LOOKUP_TIMEOUT, cx, &mut invalid);
        let metrics = config.metrics.unwrap_or_else(default_metrics);
        let metrics: Vec<_> = metrics
            .into_iter()
            .enumerate()
            .filter_map(|(index, metric)| metric.parse(&format!("metrics[{index}]"), &mut invalid))
            .collect();
        let Config { retry_count, queue_size, flush_timeout, .. } = config;
        let deprecated = DeprecatedQueueFields { retry_count, queue_size, flush_timeout };
        let queue = deprecated.apply(&config.queue, cx).map_err(|errors| invalid.extend(errors)).ok();
        let (Some(remote), Some(settings), true) = (remote, queue, invalid.is_empty()) else { return Err(invalid) };
        let queue = cx.state.get_or_create(&format!("{} {remote:?} {settings:?}", cx.object), || {
            let reports = DeliveryReports::new("host", cx);
            let sender = DatagramSender::new(remote.clone(), Packing::Lines(0), reports, cx);
            BatchQueue::start(settings.clone(), Arc::new(sender), cx)
        });
        let Config { prefix, service_name_tag, status_tag, consumer_tag, .. } = config;
        Ok(Datadog { queue, metrics, prefix, service_name_tag, status_tag, consumer_tag })
    }
}

impl Plugin for Datadog {
    fn log(&self, cx: &LogCx<'_>) {
        let service = cx.names.service.replace('.', "_");
        let status = cx.summary.status;
        let mut lines = StatLines::default();
        for metric in self.metrics.iter().filter(|metric| metric.kind.takes()) {
            let Some(value) = metric.measurement.value(cx) else { continue };
            let mut tags = Vec::with_capacity(metric.tags.len() + 3);
            let consumer = metric.consumer_identifier.and_then(|identifier| consumer_tag(identifier, cx.identity));
            let values = [
                (&self.service_name_tag, Some(&*service)),
                (&self.status_tag, Some(status.as_str())),
                (&self.consumer_tag, consumer.as_deref()),
            ];
            let values = values.iter().filter(|(name, value)| !name.is_empty() && value.is_some());
            tags.extend(values.map(|(name, value)| (name.as_str(), *value)));
            tags.extend(metric.tags.iter().map(|(name, value)| (&**name, value.as_deref())));
            let name = format_args!("{}.{}", self.prefix, metric.measurement.suffix());
            lines.push(name, value, metric.kind, Some((TagStyle::Dogstatsd, &tags)));
        }
        if !lines.is_empty() {
            self.queue.push_for(&cx.names.namespace, Bytes::from(lines.into_bytes()));
        }
    }

    fn logs_heads(&self) -> bool {
        self.metrics.iter().any(|metric| metric.measurement.needs_heads())
    }
}

/// What identifies the consumer in its tag. As in Kong, identifiers have no hyphens there.
fn consumer_tag(identifier: ConsumerIdentifier, identity: &Identity) -> Option<Cow<'_, str>> {
    let consumer = identifier.of(identity)?;
    Some(match identifier {
        ConsumerIdentifier::ConsumerId => consumer.replace('-', "_").into(),
        ConsumerIdentifier::CustomId | ConsumerIdentifier::Username => consumer.into(),
    })
}

/// Timeout of looking up the host.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
