//! What attempts have shown about the endpoints of an upstream.

use std::net::SocketAddr;
use std::sync::atomic::{Ordering::SeqCst, fence};

use super::Upstream;
use crate::upstream::outcome::{Outcome, OutcomeClass};
use crate::upstream::upstream_availability::UpstreamAvailability;

impl Upstream {
    /// Reports what an attempt has shown about an endpoint.
    #[inline]
    pub fn report(&self, address: SocketAddr, outcome: &Outcome) {
        self.record_latency(address, outcome);
        match outcome.class {
            OutcomeClass::ConnectFailed => self.record_failure(address),
            // The endpoints are not searched for ejected ones after each response of a healthy one.
            _ if !self.has_ejected() => {}
            // The connection of an attempt that has opened one was reported already.
            OutcomeClass::Responded if outcome.connect_time.is_some() => {}
            class => self.record_while_ejected(address, class),
        }
    }

    #[cold]
    pub(super) fn record_failure(&self, address: SocketAddr) {
        if let Some(state) = self.state(address) {
            state.health.record_failure(self.clock.now());
            self.update_ejected();
        }
    }

    #[cold]
    fn record_while_ejected(&self, address: SocketAddr, class: OutcomeClass) {
        let Some(state) = self.state(address) else { return };
        let health = &state.health;
        match class {
            OutcomeClass::Connected | OutcomeClass::Responded => {
                if !health.is_healthy() {
                    health.record_success();
                    self.update_ejected();
                }
            }
            OutcomeClass::Inconclusive => health.record_inconclusive(self.clock.now()),
            OutcomeClass::Abandoned => health.record_abandoned(self.clock.now()),
            OutcomeClass::ConnectFailed
            | OutcomeClass::NotProcessed
            | OutcomeClass::NoResponse
            | OutcomeClass::TimedOut
            | OutcomeClass::Failed => {}
        }
    }

    pub(super) fn has_ejected(&self) -> bool {
        self.availability.load() != UpstreamAvailability::All
    }

    /// Recomputes how many endpoints are available, and the loads of levels. Repeated if an endpoint has changed
    /// meanwhile: the fences make sure that the last of several concurrent updates sees the changes of all.
    pub(super) fn update_ejected(&self) {
        if let Some(levels) = &*self.levels.load() {
            levels.update_loads();
        }
        let current = || {
            fence(SeqCst);
            UpstreamAvailability::of(&self.reachable.load())
        };
        loop {
            let availability = current();
            self.availability.store(availability);
            if current() == availability {
                return;
            }
        }
    }
}
