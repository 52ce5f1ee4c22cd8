//! The probes of endpoints to which no connection can be opened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::Upstream;
use crate::transport_protocol::TransportProtocol;
use crate::upstream::endpoint_state::EndpointState;
use crate::upstream::outcome::{Outcome, OutcomeClass};

/// An endpoint that is to be probed.
#[derive(Clone, Debug)]
pub(in crate::upstream) struct ProbeOrder {
    pub(in crate::upstream) address: SocketAddr,
    state: Arc<EndpointState>,
    /// Which order of the endpoint this is: later ones replace it.
    number: u32,
}

impl Upstream {
    /// From now on, endpoints to which no connection can be opened are probed. Datagrams have no connections, so that
    /// the endpoints of such a port are tried with those of clients.
    pub(in crate::upstream) fn set_probed(&self) {
        if self.key.transport == TransportProtocol::Tcp {
            self.detection.set_probed();
            self.announce_health();
        }
    }

    /// The endpoints that are to be probed from now on. Each is returned once.
    pub(in crate::upstream) fn take_probe_orders(&self) -> Vec<ProbeOrder> {
        let reachable = self.reachable.load();
        let orders = reachable.iter().filter_map(|endpoint| {
            let number = endpoint.state.health.take_probe_order()?;
            Some(ProbeOrder { address: endpoint.address, state: Arc::clone(&endpoint.state), number })
        });
        orders.collect()
    }

    /// Whether this upstream has the endpoint that is to be probed.
    pub(in crate::upstream) fn has_probed(&self, order: &ProbeOrder) -> bool {
        self.state(order.address).is_some_and(|state| Arc::ptr_eq(&state, &order.state))
    }

    /// How long to wait before the next probe.
    pub(in crate::upstream) fn probe_delay(&self, order: &ProbeOrder) -> Duration {
        Duration::from_millis(order.state.health.probe_delay(self.detection.clock.now()))
    }

    /// A probe or a check has opened a connection.
    pub(in crate::upstream) fn record_connected(&self, address: SocketAddr) {
        self.report(address, &Outcome::of(OutcomeClass::Connected));
    }

    /// The server name of the last handshake that has ejected an endpoint. Only names with a successful handshake
    /// before do.
    pub(in crate::upstream) fn probed_name(&self) -> Option<HeaderValue> {
        self.probed_name.load().as_deref().cloned()
    }

    /// How often the rates of the endpoints are compared; `None` if they are not.
    pub(in crate::upstream) fn sweep_interval(&self) -> Option<Duration> {
        self.detection.sweep_interval()
    }

    /// Compares the rates of the endpoints.
    pub(in crate::upstream) fn sweep_endpoints(&self) {
        self.detection.sweep(&self.key);
    }

    /// What distinguishes the endpoints of this upstream from those of all others.
    pub(in crate::upstream) fn detector(&self) -> usize {
        Arc::as_ptr(&self.detection).addr()
    }
}

impl ProbeOrder {
    /// Whether the endpoint still has to be probed.
    pub(in crate::upstream) fn is_current(&self) -> bool {
        self.state.health.needs_probe(self.number)
    }

    /// No upstream has the endpoint now. It is probed again if it returns.
    pub(in crate::upstream) fn give_back(&self) {
        self.state.health.order_probe();
    }
}
