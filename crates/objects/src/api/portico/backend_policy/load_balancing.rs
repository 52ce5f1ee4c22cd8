//! `spec.loadBalancing`: how requests are divided among endpoints.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field_forms::{decimal, duration_between};
use super::request_hash::HashSpec;
use super::session::BackendSessionPersistence;
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;
use crate::api::gateway::schema::transforms::each;

/// How requests are divided among endpoints. `sessionPersistence` is a block of its own: the other fields may be those
/// of another policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "(has(self.algorithm) && self.algorithm in ['Maglev', 'RingHash']) \
     == (has(self.hash) && self.hash.keys.size() > 0)",
    "hash.keys is required for Maglev and RingHash and has no effect otherwise; add hash.keys, or change the algorithm",
))]
#[schemars(transform = rule(
    "!has(self.peakEwma) || (has(self.algorithm) && self.algorithm == 'PeakEwma')",
    "peakEwma has no effect with this algorithm; set algorithm to PeakEwma, or remove peakEwma",
))]
pub struct LoadBalancingSpec {
    /// The algorithm; defaults to RoundRobin. `RoundRobin` uses the endpoints in turn. `LeastRequests` prefers
    /// endpoints with few requests in progress, `PeakEwma` those with a low latency and few requests in progress.
    /// `Random` chooses at random. `Maglev` and `RingHash` send requests with the same `hash.keys` to the same
    /// endpoint.
    #[schemars(transform = form::one_of(BALANCING_ALGORITHMS))]
    pub algorithm: Option<String>,
    /// Settings of the algorithm PeakEwma.
    pub peak_ewma: Option<PeakEwmaSpec>,
    /// What the algorithms Maglev and RingHash hash.
    pub hash: Option<HashSpec>,
    /// Sends all requests of a client session to one endpoint.
    pub session_persistence: Option<BackendSessionPersistence>,
    /// Increases the share of an endpoint gradually after it has become available.
    pub slow_start: Option<SlowStartSpec>,
    /// Which endpoints are preferred because of where they are.
    pub locality: Option<LocalitySpec>,
    /// While a smaller share of the endpoints is healthy, in percent, `whenUnhealthy` applies; defaults to 0: only if
    /// none is healthy.
    #[schemars(range(min = 0, max = 100))]
    pub panic_threshold_percent: Option<i32>,
    /// What happens while too few endpoints are healthy; defaults to UseAll. `UseAll`: requests are sent to all
    /// endpoints, healthy or not. `Fail`: requests get status 503.
    #[schemars(transform = form::one_of(["UseAll", "Fail"]))]
    pub when_unhealthy: Option<String>,
}

/// The values of `algorithm`.
pub const BALANCING_ALGORITHMS: [&str; 6] = ["RoundRobin", "LeastRequests", "PeakEwma", "Random", "Maglev", "RingHash"];

/// Settings of the algorithm PeakEwma.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeakEwmaSpec {
    /// The time in which the influence of an old latency falls to about a third; defaults to 10s.
    #[schemars(transform = duration_between("1s", "1h"))]
    pub decay: Option<String>,
    /// A failed request counts as a response after this time, so that an endpoint that fails fast does not attract
    /// requests; defaults to 1s.
    #[schemars(transform = duration_between("0s", "60s"))]
    pub failure_penalty: Option<String>,
}

/// Increases the share of an endpoint gradually after it has become available.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlowStartSpec {
    /// The time after which the endpoint has its whole share.
    #[schemars(transform = duration_between("1s", "1h"))]
    pub window: String,
    /// The share at the beginning, in percent of the whole share; defaults to 10.
    #[schemars(range(min = 1, max = 100))]
    pub min_weight_percent: Option<i32>,
    /// How fast the share grows; defaults to `"1.0"`, linear growth. The share is that of the time to the power of
    /// 1/aggression. Above 0, at most 10.
    #[schemars(transform = decimal, transform = rule(
        "double(self) > 0.0 && double(self) <= 10.0",
        "the number is out of range; choose one above 0 and at most 10",
    ))]
    pub aggression: Option<String>,
}

/// Which endpoints are preferred because of where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalitySpec {
    /// What decides the preference; defaults to Auto. `Auto`: `trafficDistribution` of the Service, or else its
    /// annotation `service.kubernetes.io/topology-mode`, and the hints of its EndpointSlices. `Off`: no endpoint is
    /// near. `PreferSameZone` and `PreferSameNode`: the zone or node of Portico's Pod. `ZoneAware` is not supported
    /// yet.
    #[schemars(transform = form::one_of(["Auto", "Off", "PreferSameZone", "PreferSameNode", "ZoneAware"]))]
    pub mode: Option<String>,
    /// By how much the healthy preferred endpoints exceed what they need, in percent; defaults to 140: other endpoints
    /// get requests when less than 1/1.4 of the preferred ones is healthy.
    #[schemars(range(min = 100, max = 1000))]
    pub overprovisioning_percent: Option<i32>,
    /// Where requests go if too few of the endpoints are available that `mode` prefers: levels of endpoints, in this
    /// order, before all other endpoints. If `mode` prefers none, the first level is preferred.
    #[serde(default)]
    #[schemars(length(max = 4))]
    pub failover: Vec<LocalityLevel>,
}

/// Endpoints by their zone or region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "[has(self.matchLabels), has(self.zone), has(self.region)].filter(is_set, is_set).size() == 1",
    "a level needs exactly one of matchLabels, zone and region; keep one of them",
))]
pub struct LocalityLevel {
    /// Not supported yet: labels of Pods.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 8), transform = each(form::label_value))]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Name of a zone, as EndpointSlices have it.
    #[schemars(transform = zone_name)]
    pub zone: Option<String>,
    /// Name of a region: all zones whose names consist of it and a letter, or continue it after a hyphen, such as
    /// `eu-central-1a` or `europe-west1-b`. EndpointSlices have zones only.
    #[schemars(transform = zone_name)]
    pub region: Option<String>,
}

/// The value of a label that is not empty.
fn zone_name(schema: &mut schemars::Schema) {
    form::text(1, 63, "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")(schema);
}
