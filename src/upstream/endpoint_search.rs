//! How the endpoints that failed for a request or connection are avoided.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{ConnectionPools, EndpointChoice, NoEndpoint, PickedBecause, Upstream};

/// The endpoints that one request or connection gets, one after the other.
#[derive(Debug)]
pub struct EndpointSearch {
    pinned: Option<SocketAddr>,
    /// The hash of the request, if the upstream hashes.
    hash: Option<u64>,
    /// Why the last endpoint was picked.
    picked_because: Option<PickedBecause>,
    /// Does not allocate unless an attempt fails.
    failed: Vec<SocketAddr>,
}

impl EndpointSearch {
    /// `pinned` is for the first attempt only.
    pub fn new(pinned: Option<SocketAddr>) -> Self {
        EndpointSearch { pinned, hash: None, picked_because: None, failed: Vec::new() }
    }

    /// The search of a request with this hash.
    pub fn with_hash(self, hash: Option<u64>) -> Self {
        EndpointSearch { hash, ..self }
    }

    /// The next endpoint. If endpoints may be repeated, that there are no others is no error.
    pub fn next<B>(
        &mut self,
        pools: &ConnectionPools<B>,
        upstream: &Arc<Upstream>,
        may_repeat: bool,
    ) -> Result<SocketAddr, NoEndpoint> {
        let choice = EndpointChoice { avoid: &self.failed, pinned: self.pinned.take(), hash: self.hash, may_repeat };
        let picked = pools.pick(upstream, &choice)?;
        self.picked_because = Some(picked.because);
        Ok(picked.address)
    }

    /// Why the last endpoint was picked.
    pub fn picked_because(&self) -> Option<PickedBecause> {
        self.picked_because
    }

    /// The attempt at this endpoint has failed.
    pub fn avoid(&mut self, address: SocketAddr) {
        if self.failed.contains(&address) {
            // All were tried, so they are tried again in turn.
            self.failed.clear();
        }
        self.failed.push(address);
    }

    /// Whether the upstream has an endpoint that has not failed yet.
    pub fn has_others(&self, upstream: &Upstream) -> bool {
        upstream.reachable().iter().any(|endpoint| !self.failed.contains(&endpoint.address))
    }
}
