//! Events about what happens to the endpoints of Services while they are served: ejections, recoveries, too few
//! available endpoints, and circuit breakers that open.
//!
//! Each replica watches its own view. The leader's queue reports it; the queues of the others drop it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::api::{Kind, ObjectId, ObjectKey};
use crate::status::{Occurrence, StatusQueue};
use crate::upstream::{
    Availability, CircuitPhase, EjectionCause, EndpointCounts, EndpointReport, Upstream, UpstreamKey, UpstreamRegistry,
    UpstreamSource,
};

/// Reports to the queue. Does not end.
pub(super) async fn report_upstream_events(upstreams: Arc<UpstreamRegistry>, queue: StatusQueue) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut observer = UpstreamObserver::default();
    loop {
        ticks.tick().await;
        for (id, occurrence) in observer.observe(&upstreams.all()) {
            queue.report_occurrence(id, occurrence);
        }
    }
}

/// How often upstreams are compared with what they were before.
const PERIOD: Duration = Duration::from_secs(1);

/// What was last seen of each upstream.
#[derive(Debug, Default)]
struct UpstreamObserver {
    /// `None` before the first observation, which has nothing to be compared with.
    seen: Option<BTreeMap<UpstreamKey, SeenUpstream>>,
}

/// What an upstream was at the last observation.
#[derive(Clone, Copy, Debug, Default)]
struct SeenUpstream {
    /// By [`EjectionCause`].
    ejections: [u64; EjectionCause::ALL.len()],
    ejected: usize,
    is_below_panic_threshold: bool,
    /// How often the circuit has opened.
    openings: u64,
}

impl UpstreamObserver {
    /// What has happened since the last observation.
    fn observe(&mut self, upstreams: &[Arc<Upstream>]) -> Vec<(ObjectId, Occurrence)> {
        let is_first = self.seen.is_none();
        let mut before = self.seen.take().unwrap_or_default();
        let mut seen = BTreeMap::new();
        let mut occurrences = Vec::new();
        for upstream in upstreams {
            let previous = before.remove(&upstream.key).unwrap_or_default();
            let current = SeenUpstream::of(upstream, &previous);
            if !is_first {
                let found = current.occurrences(upstream, &previous);
                occurrences.extend(found.into_iter().map(|occurrence| (object(&upstream.key), occurrence)));
            }
            seen.insert(upstream.key.clone(), current);
        }
        self.seen = Some(seen);
        occurrences
    }
}

impl SeenUpstream {
    fn of(upstream: &Upstream, previous: &SeenUpstream) -> SeenUpstream {
        let ejections = upstream.ejections().map(|(_, count)| count);
        // The endpoints of an upstream are looked at only if one was ejected since, or is ejected still.
        let ejected = match ejections == previous.ejections && previous.ejected == 0 {
            true => 0,
            false => upstream.ejected_endpoints().iter().map(|(_, count)| *count as usize).sum(),
        };
        SeenUpstream {
            ejections,
            ejected,
            is_below_panic_threshold: ejected > 0 && upstream.is_below_panic_threshold(),
            openings: upstream
                .overload_report()
                .and_then(|report| report.circuit)
                .map_or(0, |circuit| circuit.transitions[CircuitPhase::Open as usize]),
        }
    }

    fn occurrences(&self, upstream: &Upstream, previous: &SeenUpstream) -> Vec<Occurrence> {
        let mut occurrences = Vec::new();
        let name = &upstream.key;
        let increased = EjectionCause::ALL.into_iter().filter(|cause| {
            // A counter that is lower belongs to another upstream with the same key.
            self.ejections[*cause as usize] > previous.ejections[*cause as usize]
        });
        for cause in increased {
            // Ejections that have ended already, or are those of a dry run, are in the metrics only.
            if let Some(note) = describe_ejected(upstream, cause) {
                occurrences.push(Occurrence { warning: true, reason: "EndpointEjected", cause: cause.name(), note });
            }
        }
        if self.ejected < previous.ejected {
            let EndpointCounts { healthy, ejected } = upstream.endpoint_counts();
            let note = format!("{healthy} of {} endpoints of {name} are available.", healthy + ejected);
            occurrences.push(Occurrence { warning: false, reason: "EndpointRecovered", cause: "", note });
        }
        if self.is_below_panic_threshold && !previous.is_below_panic_threshold {
            let EndpointCounts { healthy, ejected } = upstream.endpoint_counts();
            let note = format!(
                "Only {healthy} of {} endpoints of {name} are available, so ejections are ignored or requests fail; \
                 /debug/upstreams?name={}/{} of the admin listener shows why.",
                healthy + ejected,
                name.namespace,
                name.service
            );
            occurrences.push(Occurrence { warning: true, reason: "UpstreamPanic", cause: "", note });
        }
        if self.openings > previous.openings {
            let note = format!("The circuit breaker of {name} has opened, because too many of its requests fail.");
            occurrences.push(Occurrence { warning: true, reason: "CircuitOpened", cause: "", note });
        }
        occurrences
    }
}

/// Names the endpoints that are ejected for a cause, the first of them, with the last error. `None` if there are none.
fn describe_ejected(upstream: &Upstream, cause: EjectionCause) -> Option<String> {
    let is_ejected = |report: &EndpointReport| {
        report.health.as_ref().is_some_and(|health| health.availability == Availability::Ejected(cause))
    };
    let reports = upstream.endpoint_reports();
    let ejected: Vec<_> = reports.iter().filter(|report| is_ejected(report)).collect();
    let error = ejected.first()?.health.as_ref()?.transitions.last().and_then(|transition| transition.error.as_deref());
    let named: Vec<_> = ejected.iter().filter_map(|report| report.address).take(MAX_NAMED).collect();
    let mut text = named.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if ejected.len() > named.len() {
        text = format!("{text} and {} more", ejected.len() - named.len());
    }
    let noun = if ejected.len() == 1 { "Endpoint" } else { "Endpoints" };
    let verb = if ejected.len() == 1 { "is" } else { "are" };
    let error = error.map(|error| format!(": {error}")).unwrap_or_default();
    Some(format!("{noun} {text} of {} {verb} ejected ({}){error}.", upstream.key, cause.name()))
}

/// The object that the owner of an upstream looks at.
fn object(key: &UpstreamKey) -> ObjectId {
    let kind = match key.source {
        UpstreamSource::Service => Kind::Service,
        UpstreamSource::XBackend => Kind::XBackend,
    };
    ObjectId::new(kind, ObjectKey { namespace: key.namespace.clone(), name: key.service.clone() })
}

/// How many endpoints an event names.
const MAX_NAMED: usize = 3;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::upstream::{EndpointAddress, Endpoints, Outcome, OutcomeClass};

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    fn reasons(occurrences: &[(ObjectId, Occurrence)]) -> Vec<(&str, &str)> {
        occurrences.iter().map(|(_, occurrence)| (occurrence.reason, occurrence.cause)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn changes_of_endpoints_are_reported_once() {
        let registry = UpstreamRegistry::default();
        let key = UpstreamKey { namespace: "shop".into(), service: "cart".into(), port: 80, ..UpstreamKey::default() };
        let upstream = registry.upstream(&key);
        let addresses = (1..=5).map(|number| EndpointAddress::Ip(address(number))).collect();
        upstream.set_endpoints(Endpoints { addresses, ..Endpoints::default() });
        let fail = |number| upstream.report(address(number), &Outcome::of(OutcomeClass::ConnectFailed));
        let recover = |number| upstream.report(address(number), &Outcome::of(OutcomeClass::Connected));
        let mut observer = UpstreamObserver::default();
        let mut observe = || observer.observe(&registry.all());

        fail(1);
        assert_eq!(reasons(&observe()), [], "what happened before is not known");
        fail(2);
        let found = observe();
        assert_eq!(reasons(&found), [("EndpointEjected", "connect")]);
        let (id, occurrence) = &found[0];
        assert_eq!(id.to_string(), "Service shop/cart");
        let note = "Endpoints 10.0.0.1:80, 10.0.0.2:80 of shop/cart:80 are ejected (connect)";
        assert!(occurrence.warning && occurrence.note.starts_with(note), "{}", occurrence.note);
        assert_eq!(reasons(&observe()), []);

        for number in 3..=5 {
            fail(number);
        }
        let found = observe();
        assert_eq!(reasons(&found), [("EndpointEjected", "connect"), ("UpstreamPanic", "")]);
        assert!(found[0].1.note.contains("10.0.0.3:80 and 2 more"), "{}", found[0].1.note);
        recover(1);
        let found = observe();
        assert_eq!(reasons(&found), [("EndpointRecovered", "")]);
        assert!(!found[0].1.warning);
        assert_eq!(found[0].1.note, "1 of 5 endpoints of shop/cart:80 are available.");
        assert_eq!(reasons(&observe()), []);
    }

    #[test]
    fn events_of_an_xbackend_are_about_it() {
        let key = UpstreamKey { source: UpstreamSource::XBackend, service: "cart".into(), ..UpstreamKey::default() };
        assert_eq!(object(&key).kind, Kind::XBackend);
    }
}
