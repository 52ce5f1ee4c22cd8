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
pub struct EndpointSearch<'u> {
    upstream: &'u Arc<Upstream>,
    pinned: Option<SocketAddr>,
    may_repeat: bool,
    /// Does not allocate unless an attempt fails.
    failed: Vec<SocketAddr>,
}

impl<'u> EndpointSearch<'u> {
    /// `pinned` is for the first attempt only.
    pub fn new(upstream: &'u Arc<Upstream>, pinned: Option<SocketAddr>, may_repeat: bool) -> Self {
        EndpointSearch { upstream, pinned, may_repeat, failed: Vec::new() }
    }

    /// The next endpoint. `None` if there are no others.
    pub fn next<B>(&mut self, pools: &ConnectionPools<B>) -> Option<SocketAddr> {
        let (pinned, may_repeat) = (self.pinned.take(), self.may_repeat);
        pools.pick(self.upstream, &EndpointChoice { avoid: &self.failed, pinned, may_repeat })
    }

    /// The attempt at this endpoint has failed.
    pub fn avoid(&mut self, address: SocketAddr) {
        if self.failed.contains(&address) {
            // All were tried, so they are tried again in turn.
            self.failed.clear();
        }
        self.failed.push(address);
    }

    /// Whether there is an endpoint that has not failed yet.
    pub fn has_others(&self) -> bool {
        self.upstream.reachable().iter().any(|endpoint| !self.failed.contains(&endpoint.address))
    }
}
