//! What attempts, probes and active checks have shown about the endpoints of an upstream.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use super::Upstream;
use crate::endpoint_tls::UpstreamServerName;
use crate::upstream::endpoint_state::EndpointState;
use crate::upstream::outcome::{Outcome, OutcomeClass};
use crate::upstream::outlier_detection::{FollowUp, ObservedEndpoint};

impl Upstream {
    /// Records what an attempt has shown about the health of an endpoint.
    #[inline]
    pub(in crate::upstream) fn record_health(&self, address: SocketAddr, outcome: &Outcome) {
        if self.detection.concerns(outcome) {
            self.record(address, outcome, None);
        }
    }

    /// Whether the head of a response changes nothing, whatever its status: neither latency nor statuses count, and all
    /// endpoints are healthy.
    #[inline]
    pub fn ignores_responses(&self) -> bool {
        !self.measures_latency.load(Relaxed) && self.detection.ignores_responses()
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

    /// Whether the statuses of responses count for the health of endpoints, which gRPC calls have in their trailers.
    #[inline]
    pub fn counts_statuses(&self) -> bool {
        self.detection.counts_statuses()
    }

    /// Whether the statuses of responses count, for health or for limits and the circuit breaker.
    pub fn observes_statuses(&self) -> bool {
        self.counts_statuses() || self.overload.has_rules()
    }

    /// Whether connections to this endpoint that were idle at this number of marks are not to be used, because one of
    /// them looked dead since.
    #[inline]
    pub(in crate::upstream) fn is_marked(&self, address: SocketAddr, marks: u32) -> bool {
        marks != self.detection.marks() && self.is_marked_since(address, marks)
    }

    #[cold]
    fn is_marked_since(&self, address: SocketAddr, marks: u32) -> bool {
        // Numbers may wrap around.
        self.state(address).is_some_and(|state| state.health.mark().wrapping_sub(marks).cast_signed() > 0)
    }

    #[cold]
    fn record(&self, address: SocketAddr, outcome: &Outcome, error: Option<&dyn fmt::Display>) {
        let Some(state) = self.state(address) else { return };
        if self.detection.record(&self.observed(address, &state, error), outcome) == FollowUp::Probe {
            self.announce_health();
        }
    }

    pub(super) fn observed<'o>(
        &'o self,
        address: SocketAddr,
        state: &'o EndpointState,
        error: Option<&'o dyn fmt::Display>,
    ) -> ObservedEndpoint<'o> {
        ObservedEndpoint { upstream: &self.key, address, state, error }
    }

    /// The task of health checks is to look at the endpoints to be probed, and at how often rates are compared.
    pub(super) fn announce_health(&self) {
        if self.detection.is_probed() {
            self.probe_queue.add(&self.key);
        }
    }

    /// Whether an endpoint is not simply available.
    pub(super) fn has_ejected(&self) -> bool {
        self.detection.is_degraded()
    }
}
