//! How requests are divided among the endpoints of an upstream.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{BalancingAlgorithm, RequestHash, json_form};

/// The load balancing of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Balancing {
    #[serde(flatten)]
    pub algorithm: BalancingAlgorithm,
    /// What [`BalancingAlgorithm::ConsistentHash`] hashes of a request. `None`: it is not used.
    pub hash: Option<Arc<RequestHash>>,
    pub slow_start: Option<SlowStart>,
    pub locality: Locality,
    /// If a smaller percentage of the endpoints is available, ejections are ignored, or no request is sent, as
    /// `when_unhealthy` says. 0: only if none is available.
    pub panic_threshold_percent: u8,
    /// Whether exactly the threshold is too few as well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub must_exceed_threshold: bool,
    pub when_unhealthy: WhenUnhealthy,
}

/// How the share of an endpoint grows after it has become available: its weight is multiplied by
/// `max(min_weight_percent / 100, (time / window) ^ (1 / aggression))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowStart {
    #[serde(serialize_with = "json_form::duration")]
    pub window: Duration,
    pub min_weight_percent: u8,
    /// In thousandths; 1000 for linear growth.
    #[serde(serialize_with = "json_form::thousandths")]
    pub aggression: u32,
}

/// Which endpoints are preferred because of where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Locality {
    pub mode: LocalityMode,
    /// Where requests go next, in this order: before all other endpoints, and after those that `mode` prefers.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub failover: Arc<[FailoverLevel]>,
    /// By how much the available endpoints of a level exceed what it needs: with 140, a level gets all requests until
    /// less than 1/1.4 of its endpoints is available.
    pub overprovisioning_percent: u32,
}

/// Endpoints of one zone or region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FailoverLevel {
    Zone(Box<str>),
    Region(Box<str>),
    /// No endpoint, for a level that is not served, so that the others keep their places.
    #[serde(untagged, serialize_with = "json_form::empty_object")]
    Nothing,
}

/// What decides the preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum LocalityMode {
    /// `spec.trafficDistribution` of the Service and the hints of its EndpointSlices.
    #[default]
    Auto,
    Off,
    PreferSameZone,
    PreferSameNode,
}

/// What happens to requests if no endpoint is available, or fewer than the panic threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum WhenUnhealthy {
    /// They are sent to all endpoints, as if none were ejected.
    #[default]
    UseAll,
    /// They fail with 503.
    Fail,
}

impl Default for Locality {
    fn default() -> Self {
        Locality { mode: LocalityMode::default(), failover: Arc::default(), overprovisioning_percent: 140 }
    }
}

impl FailoverLevel {
    /// Whether endpoints in this zone are on the level. Nothing says in which region a zone is except its name, which
    /// begins with that of the region: `eu-central-1a`, `europe-west1-b`, `westeurope-1`, `us-west-2-lax-1a`.
    pub fn contains_zone(&self, zone: &str) -> bool {
        match self {
            FailoverLevel::Zone(name) => **name == *zone,
            FailoverLevel::Region(name) => match zone.strip_prefix(&**name).map(str::as_bytes) {
                Some([] | [b'-', ..] | [b'a'..=b'z']) => true,
                Some(_) | None => false,
            },
            FailoverLevel::Nothing => false,
        }
    }

    /// Whether all endpoints of the other level are on this one as well.
    pub fn contains(&self, other: &FailoverLevel) -> bool {
        match (self, other) {
            (_, FailoverLevel::Zone(zone)) => self.contains_zone(zone),
            (FailoverLevel::Region(name), FailoverLevel::Region(other)) => {
                other.strip_prefix(&**name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_belong_to_the_region_with_which_their_names_begin() {
        for (region, zone, expected) in [
            ("eu-central-1", "eu-central-1a", true),
            ("europe-west1", "europe-west1-b", true),
            ("westeurope", "westeurope-1", true),
            ("us-west-2", "us-west-2-lax-1a", true),
            ("rack", "rack", true),
            ("europe-west1", "europe-west10-b", false),
            ("westus", "westus2-1", false),
            ("eu-central-1", "eu-central-1A", false),
            ("eu-central-1", "eu-central-2a", false),
            ("eu-central-1a", "eu-central-1", false),
            ("eu-central-1", "eu-central-1é", false),
        ] {
            assert_eq!(FailoverLevel::Region(region.into()).contains_zone(zone), expected, "{zone} in {region}");
        }
        assert!(FailoverLevel::Zone("a".into()).contains_zone("a"));
        assert!(!FailoverLevel::Zone("a".into()).contains_zone("ab"), "a zone has no zones");
        assert!(!FailoverLevel::Nothing.contains_zone(""));
    }

    #[test]
    fn levels_contain_others() {
        let (zone, region) = (FailoverLevel::Zone("a-1".into()), FailoverLevel::Region("a".into()));
        assert_eq!([zone.contains(&zone), region.contains(&region), region.contains(&zone)], [true; 3]);
        assert!(region.contains(&FailoverLevel::Region("a-1".into())));
        let others = [zone.contains(&region), region.contains(&FailoverLevel::Nothing)];
        assert_eq!(others, [false; 2]);
    }
}
