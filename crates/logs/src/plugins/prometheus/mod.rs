//! `prometheus`: exports metrics of requests, bytes and latencies by route and service, with Kong's metric names.
//!
//! ```yaml
//! plugin: prometheus
//! config: {status_code_metrics: true, latency_metrics: true, bandwidth_metrics: true, per_consumer: true}
//! ```
//!
//! The metrics are added to Portico's own at `/metrics`.

mod histogram;
mod series;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{BuildCx, LogCx, Phases, Plugin, PluginKind, PluginState};

pub use series::KongSeries;
use series::{SeriesLabelsRef, StatusLabel};
pub use text::{ConnectionCounts, HealthTarget, KongExpositionFormat, ProcessFacts, TargetState};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Set the label `consumer` in `kong_http_requests_total` and `kong_bandwidth_bytes`. If false, the label is empty.
    per_consumer: bool,
    /// Count requests in `kong_http_requests_total`.
    status_code_metrics: bool,
    /// No effect: Portico has no AI plugins.
    ai_metrics: bool,
    /// Measure latencies in `kong_kong_latency_ms`, `kong_upstream_latency_ms` and `kong_request_latency_ms`.
    latency_metrics: bool,
    /// Count the bytes of bodies in `kong_bandwidth_bytes`.
    bandwidth_metrics: bool,
    /// Export the health of endpoints in `kong_upstream_target_health`: `unhealthy` if the endpoint is ejected,
    /// `dns_error` if its name has no address, otherwise `healthy`, or `healthchecks_off` without health checks.
    upstream_health_metrics: bool,
    /// No effect: Portico has no WebAssembly filters.
    wasm_metrics: bool,
}

pub struct Prometheus {
    config: Config,
    series: Arc<KongSeries>,
    /// `None` if this plugin does not request the health of endpoints.
    _health: Option<Arc<HealthRequested>>,
}

/// Exists in [`PluginState`] while at least one plugin holds it to request the health of endpoints.
struct HealthRequested;

impl PluginKind for Prometheus {
    const NAME: &'static str = NAME;
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 13;
    const PHASES: Phases = Phases::LOG;
    const FAIL_CLOSED: bool = false;
    const PROTOCOLS: &'static [&'static str] =
        &["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"];
    type Config = Config;
    type Plugin = Prometheus;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let without_effect = [
            ("ai_metrics", config.ai_metrics, "Portico has no AI plugins"),
            ("wasm_metrics", config.wasm_metrics, "Portico has no WebAssembly filters"),
        ];
        for (field, _, reason) in without_effect.iter().filter(|(_, is_set, _)| *is_set) {
            cx.note(Diagnostic::in_config(field, format!("has no effect: {reason}"), "remove it"));
        }
        let series = cx.state.get_or_create(NAME, KongSeries::default);
        let health = config.upstream_health_metrics.then(|| cx.state.get_or_create(NAME, || HealthRequested));
        Ok(Prometheus { config, series, _health: health })
    }
}

impl Plugin for Prometheus {
    fn log(&self, cx: &LogCx<'_>) {
        let consumer = cx.identity.consumer.as_ref().filter(|_| self.config.per_consumer);
        let consumer = consumer.and_then(|consumer| consumer.username.as_deref()).unwrap_or_default();
        let labels = SeriesLabelsRef { service: &cx.names.service, route: &cx.names.route, consumer, code: None };
        if self.config.status_code_metrics {
            self.series.count_request(&SeriesLabelsRef {
                code: Some(StatusLabel { status: cx.summary.status.as_u16(), source: cx.summary.source }),
                ..labels
            });
        }
        if self.config.bandwidth_metrics {
            self.series.add_bandwidth(&labels, cx.summary.bytes_in, cx.summary.bytes_out);
        }
        if self.config.latency_metrics {
            self.series.observe_latency(
                &SeriesLabelsRef { consumer: "", ..labels },
                cx.summary.total,
                cx.summary.upstream,
            );
        }
    }
}

/// The series of all `prometheus` plugins; `None` if there is no such plugin.
pub fn series(state: &PluginState) -> Option<Arc<KongSeries>> {
    state.get(NAME)
}

/// Whether at least one plugin requests the health of endpoints in scrapes.
pub fn is_health_requested(state: &PluginState) -> bool {
    state.get::<HealthRequested>(NAME).is_some()
}

/// A configuration with all metrics, but without the label `consumer`.
pub fn all_metrics_config() -> Value {
    let flags = ["status_code_metrics", "latency_metrics", "bandwidth_metrics", "upstream_health_metrics"];
    Value::Object(flags.into_iter().map(|flag| (flag.to_owned(), Value::Bool(true))).collect())
}

/// The value of `plugin` in a KongPlugin.
pub const PLUGIN_NAME: &str = NAME;
/// The name of the plugin, and of its objects in [`PluginState`], which distinguishes them by type.
const NAME: &str = "prometheus";
