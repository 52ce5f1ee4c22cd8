//! EndpointSlice: addresses, ports and readiness of a Service's endpoints.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    #[serde(default, deserialize_with = "endpoints_with_shared_places")]
    pub endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    pub ports: Option<Vec<EndpointPort>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "RawEndpoint")]
pub struct Endpoint {
    /// Usually one. Boxed, because lists that grow have room for four.
    pub addresses: Box<[Box<str>]>,
    pub conditions: EndpointConditions,
    pub target_ref: Option<EndpointTarget>,
    /// Where the endpoint is; `None` if that is unknown. A slice has few different ones, which its endpoints share.
    pub place: Option<Arc<EndpointPlace>>,
}

/// Where an endpoint is, and for whom it is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointPlace {
    pub zone: Option<Box<str>>,
    pub node: Option<Box<str>>,
    /// The zones and nodes whose clients should use the endpoint.
    pub zone_hints: Box<[Box<str>]>,
    pub node_hints: Box<[Box<str>]>,
}

/// An endpoint as the API has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEndpoint {
    addresses: Box<[Box<str>]>,
    #[serde(default)]
    conditions: EndpointConditions,
    target_ref: Option<EndpointTarget>,
    zone: Option<Box<str>>,
    node_name: Option<Box<str>>,
    hints: Option<RawHints>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHints {
    for_zones: Option<Vec<NamedPlace>>,
    for_nodes: Option<Vec<NamedPlace>>,
}

#[derive(Deserialize)]
struct NamedPlace {
    name: Box<str>,
}

impl From<RawEndpoint> for Endpoint {
    fn from(raw: RawEndpoint) -> Self {
        let RawEndpoint { addresses, conditions, target_ref, zone, node_name: node, hints } = raw;
        let RawHints { for_zones, for_nodes } = hints.unwrap_or_default();
        let names = |places: Option<Vec<NamedPlace>>| places.into_iter().flatten().map(|place| place.name).collect();
        let place = EndpointPlace { zone, node, zone_hints: names(for_zones), node_hints: names(for_nodes) };
        let place = (place != EndpointPlace::default()).then(|| Arc::new(place));
        Endpoint { addresses, conditions, target_ref, place }
    }
}

/// Endpoints of which those at the same place share its names. Takes no more memory than they need.
fn endpoints_with_shared_places<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Endpoint>>, D::Error> {
    let mut endpoints = Option::<Vec<Endpoint>>::deserialize(deserializer)?;
    let mut places: HashSet<Arc<EndpointPlace>> = HashSet::new();
    for place in endpoints.iter_mut().flatten().filter_map(|endpoint| endpoint.place.as_mut()) {
        match places.get(place) {
            Some(known) => *place = Arc::clone(known),
            None => {
                places.insert(Arc::clone(place));
            }
        }
    }
    if let Some(endpoints) = &mut endpoints {
        endpoints.shrink_to_fit();
    }
    Ok(endpoints)
}

/// The object of an endpoint, usually a Pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct EndpointTarget {
    pub uid: Option<Arc<str>>,
}

/// Absent conditions count as ready and serving.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPort {
    #[serde(default)]
    pub name: Option<String>,
    /// `None` stands for all ports in the API; such an entry yields no endpoints.
    pub port: Option<i32>,
    pub protocol: Option<String>,
    pub app_protocol: Option<String>,
}
