//! What attempts, probes and active checks have shown about the endpoints of an upstream.

use std::fmt;
use std::net::SocketAddr;

use http::HeaderValue;

use super::Upstream;
use crate::upstream::endpoint_state::EndpointState;
use crate::upstream::outcome::{Outcome, OutcomeClass};
use crate::upstream::outlier_detection::{FollowUp, Observed};
use crate::upstream::tls::UpstreamServerName;

impl Upstream {
    /// Reports what an attempt has shown about an endpoint.
    #[inline]
    pub fn report(&self, address: SocketAddr, outcome: &Outcome) {
        if self.detection.concerns(outcome) {
            self.record(address, outcome, None);
        }
    }

    /// Reports that no connection could be opened, because of an error of the endpoint. `server_name`: that of the
    /// handshake, with which the endpoint is probed.
    #[cold]
    pub(in crate::upstream) fn report_unreachable(
        &self,
        address: SocketAddr,
        server_name: Option<&UpstreamServerName>,
        error: &dyn fmt::Display,
    ) {
        if let Some(name) = server_name {
            self.probed_name.store(Some(name.header().clone().into()));
        }
        self.record(address, &Outcome::of(OutcomeClass::ConnectFailed), Some(error));
    }

    /// Reports the result of an active check, which has counted consecutive results. `is_first`: no check of the
    /// endpoint has ended before.
    pub fn record_check(&self, address: SocketAddr, passed: bool, is_first: bool, error: Option<&dyn fmt::Display>) {
        if let Some(state) = self.state(address) {
            self.detection.record_check(&self.observed(address, &state, error), passed, is_first);
        }
    }

    /// Whether the endpoints of gRPC calls are judged by the statuses in trailers.
    #[inline]
    pub fn counts_statuses(&self) -> bool {
        self.detection.counts_statuses()
    }

    /// Whether the end of a response is to be reported.
    #[inline]
    pub(in crate::upstream) fn awaits_completion(&self) -> bool {
        self.detection.awaits_completion()
    }

    /// The server name of the last handshake that has ejected an endpoint. Only names with a successful handshake
    /// before do.
    pub(in crate::upstream) fn probed_name(&self) -> Option<HeaderValue> {
        self.probed_name.load().as_deref().cloned()
    }

    #[cold]
    fn record(&self, address: SocketAddr, outcome: &Outcome, error: Option<&dyn fmt::Display>) {
        let Some(state) = self.state(address) else { return };
        if self.detection.record(&self.observed(address, &state, error), outcome) == FollowUp::Probe {
            self.announce_health();
        }
    }

    fn observed<'o>(
        &'o self,
        address: SocketAddr,
        state: &'o EndpointState,
        error: Option<&'o dyn fmt::Display>,
    ) -> Observed<'o> {
        Observed { upstream: &self.key, address, state, error }
    }

    pub(super) fn has_ejected(&self) -> bool {
        self.detection.is_degraded()
    }
}
