//! The ejections of an upstream's endpoints, for metrics and events.

use super::Upstream;
use crate::upstream::health::{Availability, EjectionCause};
use crate::upstream::upstream_availability::UpstreamAvailability;

impl Upstream {
    /// How often endpoints were ejected so far, by cause. Those of a dry run count as well.
    pub fn ejections(&self) -> [(EjectionCause, u64); EjectionCause::ALL.len()] {
        self.detection.ejections()
    }

    /// The endpoints that are ejected now, by cause. Each has one, the first of [`EjectionCause::ALL`].
    pub fn ejected_endpoints(&self) -> [(EjectionCause, u64); EjectionCause::ALL.len()] {
        let mut counts = EjectionCause::ALL.map(|cause| (cause, 0));
        if self.has_ejected() {
            let now = self.detection.clock.now();
            for endpoint in self.reachable().iter() {
                if let Availability::Ejected(cause) = endpoint.state.health.availability(now) {
                    counts[cause as usize].1 += 1;
                }
            }
        }
        counts
    }

    /// Whether so few endpoints are available that the panic threshold applies, so that ejections are ignored or
    /// requests fail.
    pub fn is_below_panic_threshold(&self) -> bool {
        match self.availability() {
            UpstreamAvailability::All | UpstreamAvailability::Some => false,
            UpstreamAvailability::Panic | UpstreamAvailability::None | UpstreamAvailability::NoneConnectable => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use crate::upstream::settings::Balancing;
    use crate::upstream::{EjectionCause, EndpointAddress, Endpoints, Outcome, OutcomeClass, Upstream, UpstreamKey};

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    #[tokio::test(start_paused = true)]
    async fn ejections_are_counted_by_cause() {
        let upstream = Upstream::new(UpstreamKey::default());
        let set = |balance: Balancing| {
            let addresses = (1..=4).map(|number| EndpointAddress::Ip(address(number))).collect();
            upstream.set_endpoints(Endpoints { addresses, balance, ..Endpoints::default() });
        };
        set(Balancing::default());
        assert!(!upstream.is_below_panic_threshold());
        for number in 1..=2 {
            upstream.report(address(number), &Outcome::of(OutcomeClass::ConnectFailed));
        }
        let connect = EjectionCause::Connect as usize;
        assert_eq!(upstream.ejections()[connect], (EjectionCause::Connect, 2));
        assert_eq!(upstream.ejected_endpoints()[connect], (EjectionCause::Connect, 2));
        upstream.report(address(1), &Outcome::of(OutcomeClass::Connected));
        assert_eq!((upstream.ejections()[connect].1, upstream.ejected_endpoints()[connect].1), (2, 1));

        let is_below = |panic_threshold_percent, must_exceed_threshold| {
            set(Balancing { panic_threshold_percent, must_exceed_threshold, ..Balancing::default() });
            upstream.is_below_panic_threshold()
        };
        // Three of four are available.
        assert_eq!([is_below(0, false), is_below(75, false), is_below(76, false)], [false, false, true]);
        assert_eq!([is_below(74, true), is_below(75, true)], [false, true]);
        for number in 1..=4 {
            upstream.report(address(number), &Outcome::of(OutcomeClass::ConnectFailed));
        }
        assert!(is_below(0, false), "none is available");
    }
}
