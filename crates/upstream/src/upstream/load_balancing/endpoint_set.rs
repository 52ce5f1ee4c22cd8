//! The endpoints among which picks choose, with what depends on them and on the settings only. A change replaces the
//! whole set, so all parts of it belong together.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use super::endpoint_table::EndpointTable;
use super::weighted_draw::WeightedDraw;
use crate::upstream::endpoint_state::EndpointState;
use crate::upstream::settings::{Balancing, BalancingAlgorithm, SlowStart, WhenUnhealthy};

/// An endpoint at one of its addresses.
#[derive(Clone, Debug)]
pub struct ResolvedEndpoint {
    pub address: SocketAddr,
    /// Its share relative to the others. An endpoint of weight 0 gets only requests of its sessions.
    pub weight: u32,
    pub state: Arc<EndpointState>,
}

impl ResolvedEndpoint {
    /// Whether it may get requests: it is not ejected.
    pub(in crate::upstream) fn is_available(&self) -> bool {
        self.state.health.is_healthy()
    }

    /// Whether it is ejected because no connection could be opened.
    pub(in crate::upstream) fn is_connect_ejected(&self) -> bool {
        self.state.health.is_unreachable()
    }
}

/// The endpoints of an upstream, or the part of them that one worker uses. Sorted by address.
#[derive(Debug, Default)]
pub struct EndpointSet {
    endpoints: Vec<ResolvedEndpoint>,
    pub(super) settings: SetSettings,
    pub(super) draw: WeightedDraw,
    pub(super) table: Option<EndpointTable>,
    pub(super) total_weight: u64,
    /// The number of endpoints whose weight is positive.
    pub(super) weighted: usize,
}

/// The settings of picks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::upstream) struct SetSettings {
    pub(in crate::upstream) algorithm: BalancingAlgorithm,
    pub(in crate::upstream) bounded_load_percent: Option<u32>,
    /// Among how many endpoints of the table a pick is random; `None` for one.
    pub(in crate::upstream) subset_size: Option<NonZeroU32>,
    pub(in crate::upstream) slow_start: Option<SlowStart>,
    pub(in crate::upstream) panic_threshold_percent: u8,
    pub(in crate::upstream) must_exceed_threshold: bool,
    pub(in crate::upstream) when_unhealthy: WhenUnhealthy,
    /// How many requests in progress an endpoint may have.
    pub(in crate::upstream) max_requests: Option<u32>,
}

impl SetSettings {
    pub(in crate::upstream) fn new(balance: &Balancing, max_requests: Option<u32>) -> Self {
        let Balancing {
            algorithm,
            hash,
            slow_start,
            panic_threshold_percent,
            must_exceed_threshold,
            when_unhealthy,
            ..
        } = balance;
        SetSettings {
            algorithm: *algorithm,
            bounded_load_percent: hash.as_ref().and_then(|hash| hash.bounded_load_percent),
            subset_size: hash.as_ref().and_then(|hash| hash.subset_size),
            slow_start: *slow_start,
            panic_threshold_percent: *panic_threshold_percent,
            must_exceed_threshold: *must_exceed_threshold,
            when_unhealthy: *when_unhealthy,
            max_requests,
        }
    }

    /// Whether picks depend on the requests in progress.
    pub(in crate::upstream) fn needs_requests(&self) -> bool {
        self.algorithm.compares_requests() || self.bounded_load_percent.is_some() || self.max_requests.is_some()
    }
}

impl EndpointSet {
    /// The set of these endpoints, which are sorted by address. `identity`: the name of the endpoint at this position
    /// for consistent hashing; endpoints with one name share its keys.
    pub(in crate::upstream) fn new(
        endpoints: Vec<ResolvedEndpoint>,
        settings: SetSettings,
        identity: impl Fn(usize) -> String,
    ) -> Self {
        let table = settings.algorithm.hash_table().and_then(|table| {
            let endpoints = endpoints.iter().enumerate();
            let named = endpoints.map(|(index, endpoint)| (identity(index), endpoint.weight, index as u32));
            EndpointTable::build(table, named.collect())
        });
        let mut set = EndpointSet::without_table(endpoints, settings);
        set.table = table;
        set
    }

    /// A set whose picks do not depend on a hash.
    pub(in crate::upstream) fn without_table(endpoints: Vec<ResolvedEndpoint>, settings: SetSettings) -> Self {
        let draw = WeightedDraw::new(endpoints.iter().map(|endpoint| endpoint.weight));
        let total_weight = endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
        let weighted = endpoints.iter().filter(|endpoint| endpoint.weight > 0).count();
        EndpointSet { endpoints, settings, draw, table: None, total_weight, weighted }
    }

    pub(in crate::upstream) fn settings(&self) -> &SetSettings {
        &self.settings
    }

    /// Whether picks depend on a hash of the request.
    pub(in crate::upstream) fn has_table(&self) -> bool {
        self.table.is_some()
    }

    /// The position of the endpoint with this address.
    pub(in crate::upstream) fn position(&self, address: SocketAddr) -> Option<usize> {
        self.endpoints.binary_search_by_key(&address, |endpoint| endpoint.address).ok()
    }

    /// Whether all endpoints that get requests have the same weight.
    pub(super) fn has_equal_weights(&self) -> bool {
        self.draw.is_uniform()
    }

    #[cfg(test)]
    pub(in crate::upstream) fn table_bytes(&self) -> usize {
        self.table.as_ref().map_or(0, EndpointTable::bytes)
    }
}

impl Deref for EndpointSet {
    type Target = [ResolvedEndpoint];

    fn deref(&self) -> &[ResolvedEndpoint] {
        &self.endpoints
    }
}
