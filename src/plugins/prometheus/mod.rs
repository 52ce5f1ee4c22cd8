//! Counts requests, bytes and time by route and service, under the names that Kong's dashboards know.
//!
//! ```yaml
//! plugin: prometheus
//! config: {status_code_metrics: true, latency_metrics: true, bandwidth_metrics: true, per_consumer: true}
//! ```
//!
//! The families stand in `/metrics`, beside those of Portico itself.

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

use crate::plugin::{BuildCx, Invalid, Kind, LogCx, Phases, Plugin, State};

pub use series::Series;
use series::{About, Code};
pub use text::{Connections, Facts, Form, Target, TargetState};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Tells consumers apart in `kong_http_requests_total` and `kong_bandwidth_bytes`.
    per_consumer: bool,
    /// Counts requests in `kong_http_requests_total`.
    status_code_metrics: bool,
    /// Has no effect: there are no plugins here that talk to models.
    ai_metrics: bool,
    /// Measures time in `kong_kong_latency_ms`, `kong_upstream_latency_ms` and `kong_request_latency_ms`.
    latency_metrics: bool,
    /// Counts bytes of bodies in `kong_bandwidth_bytes`.
    bandwidth_metrics: bool,
    /// Shows endpoints and their health in `kong_upstream_target_health`: `unhealthy` is one that could not be connected to,
    /// `dns_error` one whose name has no address.
    upstream_health_metrics: bool,
    /// Has no effect: there are no WebAssembly filters here.
    wasm_metrics: bool,
}

pub struct Prometheus {
    counts: Config,
    series: Arc<Series>,
    /// Held while endpoints are to be shown.
    _health: Option<Arc<ShowsHealth>>,
}

/// Is in [`State`] while some plugin wants endpoints to be shown.
struct ShowsHealth;

impl Kind for Prometheus {
    const NAME: &'static str = NAME;
    const PRIORITY: i32 = 13;
    const PHASES: Phases = Phases::LOG;
    const GUARD: bool = false;
    const PROTOCOLS: &'static [&'static str] =
        &["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"];
    type Config = Config;
    type Plugin = Prometheus;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let nothing = [
            ("ai_metrics", config.ai_metrics, "no plugin here talks to models"),
            ("wasm_metrics", config.wasm_metrics, "there are no WebAssembly filters here"),
        ];
        for (field, _, why) in nothing.iter().filter(|(_, is_set, _)| *is_set) {
            cx.note(Invalid::new(field, format!("has no effect: {why}"), "remove it"));
        }
        let series = cx.state.shared(NAME, Series::default);
        let health = config.upstream_health_metrics.then(|| cx.state.shared(NAME, || ShowsHealth));
        Ok(Prometheus { counts: config, series, _health: health })
    }
}

impl Plugin for Prometheus {
    fn log(&self, cx: &LogCx<'_>) {
        let consumer = cx.identity.consumer.as_ref().filter(|_| self.counts.per_consumer);
        let consumer = consumer.and_then(|consumer| consumer.username.as_deref()).unwrap_or_default();
        let about = About { service: &cx.names.service, route: &cx.names.route, consumer, code: None };
        if self.counts.status_code_metrics {
            self.series.count(&About {
                code: Some(Code { status: cx.ended.status.as_u16(), source: cx.ended.source }),
                ..about
            });
        }
        if self.counts.bandwidth_metrics {
            self.series.add(&about, cx.ended.bytes_in, cx.ended.bytes_out);
        }
        if self.counts.latency_metrics {
            self.series.measure(&About { consumer: "", ..about }, cx.ended.total, cx.ended.upstream);
        }
    }
}

/// What all plugins of this kind have counted, while there is one.
pub fn series(state: &State) -> Option<Arc<Series>> {
    state.existing(NAME)
}

/// Whether some plugin wants endpoints to be among the facts of a scrape.
pub fn shows_health(state: &State) -> bool {
    state.existing::<ShowsHealth>(NAME).is_some()
}

/// What counts everything but who was asking.
pub fn everything() -> Value {
    let flags = ["status_code_metrics", "latency_metrics", "bandwidth_metrics", "upstream_health_metrics"];
    Value::Object(flags.into_iter().map(|flag| (flag.to_owned(), Value::Bool(true))).collect())
}

/// As `plugin:` says it.
pub const KIND: &str = NAME;
/// In [`State`].
const NAME: &str = "prometheus";
