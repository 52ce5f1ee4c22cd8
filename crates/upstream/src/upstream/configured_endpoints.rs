//! What the configuration says about the endpoints of an upstream: their addresses or names, and the settings for
//! requests to them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::affinity::{AffinitySettings, EndpointIdentities};
use super::alternatives::AlternativeBackends;
use super::retry_budget::RetryLimits;
use super::settings::{Balancing, HealthSettings, OverloadSettings, RequestTimeouts, RetrySettings};

/// The address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointAddress {
    Ip(SocketAddr),
    /// A name to resolve by DNS. It is resolved again whenever the TTL expires.
    Name {
        host: Arc<str>,
        port: u16,
    },
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointAddress::Ip(address) => write!(formatter, "{address}"),
            EndpointAddress::Name { host, port } => write!(formatter, "{host}:{port}"),
        }
    }
}

/// The endpoints that may receive requests, sorted and without duplicates, and the settings for requests to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub addresses: Vec<EndpointAddress>,
    /// Endpoints that get no new connections because they are not ready. Sorted.
    pub unready: Vec<SocketAddr>,
    /// The levels of endpoints by address, sorted; 0 is preferred, and endpoints that are not listed come last. Empty
    /// if all are alike.
    pub levels: Box<[(SocketAddr, u8)]>,
    /// The weights of endpoints whose weight is not 1, sorted. All addresses of a name have its weight.
    pub weights: Box<[(EndpointAddress, u32)]>,
    pub balance: Balancing,
    pub identities: EndpointIdentities,
    pub traffic: BackendTraffic,
}

impl Endpoints {
    /// The weight of the endpoint at this position of `addresses`.
    pub(super) fn weight(&self, position: usize) -> u32 {
        let found = self.weights.binary_search_by(|(address, _)| address.cmp(&self.addresses[position]));
        found.map_or(1, |index| self.weights[index].1)
    }
}

/// The settings for all requests to a Service, whichever rule sends them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendTraffic {
    pub retry_limits: Option<RetryLimits>,
    /// The sessions of rules without sessions of their own.
    pub affinity: Option<Arc<AffinitySettings>>,
    /// `None` for the defaults.
    pub health: Option<Arc<HealthSettings>>,
    pub overload: OverloadSettings,
    /// Where requests go that the Service cannot take.
    pub alternatives: Option<Arc<AlternativeBackends>>,
    /// The retries of rules without retries of their own.
    pub retries: Option<Arc<RetrySettings>>,
    /// The timeouts of rules without timeouts of their own.
    pub timeouts: Option<Arc<RequestTimeouts>>,
    /// Ejections, limits and the circuit breaker are computed and counted, but without effect.
    pub is_dry_run: bool,
}
