//! Connects one client connection to an endpoint, or to another one if that fails. A connection carries no request, so
//! nothing is sent twice.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::admission::{Admission, Overloaded, in_turn};
use super::outcome::{Outcome, OutcomeClass};
use super::outcome_observers::OutcomeObservers;
use super::socket_budget::client_slots::ClientSlot;
use super::{ConnectError, ConnectionPools, EndpointSearch, NoEndpoint, RawConnection, Upstream};

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
    /// When no further one is tried. One that is being connected has its own timeout.
    pub no_other_after: Option<Instant>,
}

impl RawDestination<'_> {
    /// Connects to the next endpoint that can be reached, of the upstream or of one that takes its place. Calls
    /// `on_attempt` with each one that is tried. The error is that of the last one.
    pub async fn connect<B>(
        &self,
        pools: &ConnectionPools<B>,
        mut on_attempt: impl FnMut(SocketAddr),
    ) -> Result<RawConnection, RawConnectError> {
        let admit = |upstream: &Upstream| upstream.admit_connection(self.client);
        let Some(alternatives) = self.upstream.alternatives() else {
            let admission = in_turn(admit(self.upstream)).await;
            return self.connect_to(self.upstream, admission, pools, &mut on_attempt).await;
        };
        let (upstream, admission) = alternatives.admit(self.upstream, admit).await;
        let mut connected = self.connect_to(upstream, admission, pools, &mut on_attempt).await;
        let mut tried = vec![self.upstream, upstream];
        while let Err(error) = &connected
            && error.is_outage()
            && let Some(next) = alternatives.after(&tried)
        {
            tried.push(next);
            let admission = in_turn(admit(next)).await;
            connected = self.connect_to(next, admission, pools, &mut on_attempt).await;
        }
        connected
    }

    async fn connect_to<B>(
        &self,
        upstream: &Arc<Upstream>,
        admission: Result<Admission, Overloaded>,
        pools: &ConnectionPools<B>,
        on_attempt: &mut impl FnMut(SocketAddr),
    ) -> Result<RawConnection, RawConnectError> {
        let mut admission = admission.map_err(RawConnectError::Overloaded)?;
        let mut search = EndpointSearch::new(None, self.hash);
        let may_repeat = false;
        let mut failure = None;
        let mut no_endpoint = NoEndpoint::None;
        for _ in 0..self.max_endpoints {
            let address = match search.next(pools, upstream, may_repeat) {
                Ok(address) => address,
                Err(reason) => {
                    no_endpoint = reason;
                    break;
                }
            };
            on_attempt(address);
            let error = match pools.open_raw(upstream, address, self.client, self.proxy_header).await {
                Ok(mut connection) => {
                    // What it shows about the endpoint was reported when it was opened, or failed.
                    OutcomeObservers::of_service(upstream, &mut admission)
                        .report(&Outcome::of(OutcomeClass::Responded));
                    connection.hold(admission);
                    return Ok(connection);
                }
                Err(error) => error,
            };
            tracing::debug!(%error, upstream = %upstream.key, "Cannot connect");
            if error.is_shortage() {
                // Another endpoint would need a connection as well.
                return Err(RawConnectError::Failed(error));
            }
            OutcomeObservers::of_service(upstream, &mut admission).report(&Outcome::of(OutcomeClass::ConnectFailed));
            failure = Some(error);
            if self.no_other_after.is_some_and(|time| Instant::now() >= time) {
                break;
            }
            search.avoid(address);
        }
        Err(match (failure, no_endpoint) {
            (Some(error), _) => RawConnectError::Failed(error),
            (None, NoEndpoint::OverLimit) => RawConnectError::Overloaded(Overloaded::OverLimit),
            (None, NoEndpoint::None | NoEndpoint::Unavailable) => RawConnectError::NoEndpoints,
        })
    }
}

/// Why a client connection has no endpoint.
#[derive(Debug)]
pub enum RawConnectError {
    NoEndpoints,
    /// The upstream takes no connection now.
    Overloaded(Overloaded),
    /// The last endpoint that was tried.
    Failed(ConnectError),
}

impl RawConnectError {
    /// Whether no endpoint could be reached, which an alternative may help against.
    fn is_outage(&self) -> bool {
        match self {
            RawConnectError::NoEndpoints => true,
            RawConnectError::Overloaded(_) => false,
            RawConnectError::Failed(error) => !error.is_shortage() && !matches!(error, ConnectError::OwnSocket(_)),
        }
    }
}
