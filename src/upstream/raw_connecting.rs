//! Connects one client connection to an endpoint, or to another one if that fails. A connection carries no request, so
//! nothing is sent twice.

use std::net::SocketAddr;
use std::sync::Arc;

use super::socket_budget::client_slots::ClientSlot;
use super::{ConnectError, ConnectionPools, EndpointSearch, RawConnection, Upstream};

/// Where a client connection is forwarded to.
#[derive(Clone, Copy, Debug)]
pub struct RawDestination<'u> {
    pub upstream: &'u Arc<Upstream>,
    pub client: ClientSlot,
    /// The hash of the client, if the upstream hashes.
    pub hash: Option<u64>,
    /// The bytes with which the connection begins.
    pub proxy_header: &'u [u8],
    /// How many endpoints are tried.
    pub max_endpoints: usize,
}

impl RawDestination<'_> {
    /// Connects to the next endpoint that can be reached. Calls `on_attempt` with each one that is tried. The error is
    /// that of the last one; `None` if there are no endpoints.
    pub async fn connect<B>(
        &self,
        pools: &ConnectionPools<B>,
        mut on_attempt: impl FnMut(SocketAddr),
    ) -> Result<RawConnection, Option<ConnectError>> {
        let mut search = EndpointSearch::new(None).with_hash(self.hash);
        let may_repeat = false;
        let mut failure = None;
        for _ in 0..self.max_endpoints {
            let Ok(address) = search.next(pools, self.upstream, may_repeat) else { break };
            on_attempt(address);
            let error = match pools.open_raw(self.upstream, address, self.client, self.proxy_header).await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            tracing::debug!(%error, upstream = %self.upstream.key, "Cannot connect");
            if error.is_shortage() {
                // Another endpoint would need a connection as well.
                return Err(Some(error));
            }
            failure = Some(error);
            search.avoid(address);
        }
        Err(failure)
    }
}
