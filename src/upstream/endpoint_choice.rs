//! Which endpoint of an upstream a request or connection may get, and how the endpoints that failed for it are avoided.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{ConnectionPools, Upstream};

/// What limits the choice of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointChoice<'a> {
    /// Endpoints that have failed, the last one last.
    pub avoid: &'a [SocketAddr],
    /// The endpoint of the session, which is used whatever the load balancing says.
    pub pinned: Option<SocketAddr>,
    /// Whether an endpoint of `avoid` may be chosen if there are no others. The last one is chosen only if it is the
    /// only one.
    pub may_repeat: bool,
}

/// The endpoints that one request or connection tries, one after the other.
#[derive(Debug)]
pub struct EndpointSearch {
    pinned: Option<SocketAddr>,
    /// Does not allocate unless an attempt fails.
    failed: Vec<SocketAddr>,
}

impl EndpointSearch {
    /// `pinned` is for the first attempt only.
    pub fn new(pinned: Option<SocketAddr>) -> Self {
        EndpointSearch { pinned, failed: Vec::new() }
    }

    /// The next endpoint. `None` if there are no others, or none at all if endpoints may be repeated.
    pub fn next<B>(
        &mut self,
        pools: &ConnectionPools<B>,
        upstream: &Arc<Upstream>,
        may_repeat: bool,
    ) -> Option<SocketAddr> {
        let choice = EndpointChoice { avoid: &self.failed, pinned: self.pinned.take(), may_repeat };
        pools.pick(upstream, &choice)
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
