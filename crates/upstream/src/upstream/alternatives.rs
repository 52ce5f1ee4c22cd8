//! Which upstreams get the requests of another one that cannot take them.

use super::upstream_key::UpstreamKey;

/// The alternatives of an upstream, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlternativeBackends {
    /// The first of these that has enough endpoints gets the requests of an upstream that has too few.
    pub failover: Box<[UpstreamKey]>,
    /// An upstream has too few endpoints if a smaller percentage of them is available. 1 to 100.
    pub min_available_percent: u8,
    /// A response with one of these statuses is replaced by that of an alternative, if the request can be sent again.
    /// Sorted.
    pub on_statuses: Box<[u16]>,
    /// Gets the requests while the circuit is open.
    pub circuit_fallback: Option<UpstreamKey>,
}
