//! What decides about a Service and its endpoints by what attempts have shown, and the one place that reports to all of
//! it.
//!
//! ```text
//!                     ┌─▶ Ejections, Latency                    of the endpoint
//!   Outcome ─▶ report ┤
//!                     └─▶ Circuit, AdmissionControl,            of the Service
//!                         AdaptiveLimit, ResponseTimes
//! ```
//!
//! An outcome has one duration, that in which Portico has waited for the endpoint alone. Here it is decided whether a
//! timeout counts. Each observer has a `match` over all classes of outcomes: a new class needs a decision of each of
//! them, and a new observer needs one about each class.

use std::net::SocketAddr;

use super::Upstream;
use super::admission::Admission;
use super::outcome::{Outcome, OutcomeClass};
use super::response_times::ResponseTimes;

/// What the outcomes of attempts change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeObserver {
    /// Ejects endpoints that fail.
    Ejections,
    /// The latency of endpoints, which load balancing compares.
    Latency,
    /// The circuit breaker.
    Circuit,
    /// Rejects a share of the requests while too many fail.
    AdmissionControl,
    /// The limit of requests that follows the time to the heads of responses.
    AdaptiveLimit,
    /// The times after which a second attempt begins.
    ResponseTimes,
}

impl OutcomeObserver {
    pub const ALL: [OutcomeObserver; 6] = [
        OutcomeObserver::Ejections,
        OutcomeObserver::Latency,
        OutcomeObserver::Circuit,
        OutcomeObserver::AdmissionControl,
        OutcomeObserver::AdaptiveLimit,
        OutcomeObserver::ResponseTimes,
    ];
}

/// The observers that an outcome concerns. Those of the Service have the state of one request.
#[derive(Debug)]
pub struct OutcomeObservers<'j> {
    pub upstream: &'j Upstream,
    /// `None` if those of the endpoint have a report already, as that of connecting.
    pub endpoint: Option<SocketAddr>,
    /// `None` if another attempt of the request decides about the Service.
    pub admission: Option<&'j mut Admission>,
    /// `None` unless second attempts wait for as long as responses usually take.
    pub response_times: Option<&'j ResponseTimes>,
}

impl Upstream {
    /// Reports what an attempt has shown about an endpoint.
    #[inline]
    pub fn report(&self, address: SocketAddr, outcome: &Outcome) {
        OutcomeObservers::of_endpoint(self, address).report(outcome);
    }
}

impl<'j> OutcomeObservers<'j> {
    /// Those of an endpoint.
    pub fn of_endpoint(upstream: &'j Upstream, address: SocketAddr) -> Self {
        OutcomeObservers { upstream, endpoint: Some(address), admission: None, response_times: None }
    }

    /// Those of the Service.
    pub fn of_service(upstream: &'j Upstream, admission: &'j mut Admission) -> Self {
        OutcomeObservers { upstream, endpoint: None, admission: Some(admission), response_times: None }
    }

    /// Reports to all of them what an attempt has shown.
    #[inline]
    pub fn report(self, outcome: &Outcome) {
        let OutcomeObservers { upstream, endpoint, mut admission, response_times } = self;
        let resolved = (outcome.class == OutcomeClass::TimedOut).then(|| {
            let timeout_after = upstream.detection.timeout_after();
            (outcome.for_endpoint(timeout_after), outcome.for_service(timeout_after))
        });
        let (of_endpoint, of_service) = resolved.as_ref().map_or((outcome, outcome), |(first, second)| (first, second));
        let verdict = admission.as_mut().and_then(|admission| admission.verdict(of_service));
        for observer in OutcomeObserver::ALL {
            match (observer, endpoint, &mut admission) {
                (OutcomeObserver::Ejections, Some(address), _) => upstream.record_health(address, of_endpoint),
                (OutcomeObserver::Latency, Some(address), _) => upstream.record_latency(address, of_endpoint),
                (OutcomeObserver::Circuit, _, Some(admission)) => admission.record_in_circuit(verdict),
                (OutcomeObserver::AdmissionControl, _, Some(admission)) => admission.record_success_rate(verdict),
                (OutcomeObserver::AdaptiveLimit, _, Some(admission)) => admission.record_in_limit(of_service),
                (OutcomeObserver::ResponseTimes, ..) => {
                    if let Some(times) = response_times {
                        times.observe(of_service);
                    }
                }
                (OutcomeObserver::Ejections | OutcomeObserver::Latency, None, _)
                | (
                    OutcomeObserver::Circuit | OutcomeObserver::AdmissionControl | OutcomeObserver::AdaptiveLimit,
                    _,
                    None,
                ) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::upstream::outcome::{EndpointTime, GivenTime};
    use crate::upstream::settings::{
        AdaptiveLimit, AdmissionControl, Balancing, BalancingAlgorithm, CircuitBreakerSettings, HealthSettings,
        LatencyAverage, OverloadSettings, PassiveChecks, RequestLimits, SlowRequests,
    };
    use crate::upstream::{BackendTraffic, ClientSlot, EndpointAddress, Endpoints, RequestArrival, UpstreamKey};

    const SECOND: Duration = Duration::from_secs(1);
    const MILLI: Duration = Duration::from_millis(1);

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 80))
    }

    /// A Service with settings under which one failure is enough for this observer.
    fn watched(observer: OutcomeObserver) -> Upstream {
        let passive = PassiveChecks { local_origin_failures: 1, ..PassiveChecks::default() };
        let health = HealthSettings { passive, ..HealthSettings::default() };
        let admission =
            AdmissionControl { threshold_percent: 100, aggression: 1000, max_reject_percent: 100, window: 60 * SECOND };
        let limits = RequestLimits {
            adaptive: Some(AdaptiveLimit { min: 1, max: 1000 }),
            admission: (observer == OutcomeObserver::AdmissionControl).then_some(admission),
            ..RequestLimits::default()
        };
        let circuit = CircuitBreakerSettings {
            window: 60 * SECOND,
            min_requests: 1,
            error_percent: 1,
            slow: Some(SlowRequests { after: SECOND, percent: 1 }),
            consecutive: Some(1),
            statuses: Box::default(),
            open_for: 60 * SECOND,
            max_open_for: 60 * SECOND,
            probes: 1,
            successes: 1,
            ramp_up: Duration::ZERO,
            fallback: None,
        };
        let circuit_breaker = (observer == OutcomeObserver::Circuit).then(|| Arc::new(circuit));
        let overload = OverloadSettings { limits: Some(Arc::new(limits)), circuit_breaker };
        let traffic = BackendTraffic { health: Some(Arc::new(health)), overload, ..BackendTraffic::default() };
        let latency = LatencyAverage { decay: 3600 * SECOND, failure_penalty: SECOND };
        let balance = Balancing { algorithm: BalancingAlgorithm::PeakEwma(latency), ..Balancing::default() };
        let upstream = Upstream::new(UpstreamKey::default());
        let addresses = [1, 2].map(|number| EndpointAddress::Ip(address(number))).into();
        upstream.set_endpoints(Endpoints { addresses, balance, traffic, ..Endpoints::default() });
        upstream
    }

    /// The state of an observer, as far as it can be seen.
    fn state(observer: OutcomeObserver, upstream: &Upstream, times: &ResponseTimes) -> String {
        let overload = upstream.overload_report().unwrap();
        match observer {
            OutcomeObserver::Ejections => format!("{:?}", upstream.endpoint_counts()),
            OutcomeObserver::Latency => {
                let state = upstream.reachable().iter().next().map(|endpoint| Arc::clone(&endpoint.state)).unwrap();
                format!("{:?}", state.load.latency.estimate(1, 3600 * SECOND))
            }
            OutcomeObserver::Circuit => format!("{:?}", overload.circuit.unwrap()),
            OutcomeObserver::AdmissionControl => {
                let admit = |_: &u32| upstream.admit(ClientSlot::numbered(1), RequestArrival::Complete).is_ok();
                let admitted = (0..50).filter(admit);
                format!("{} of 50", admitted.count())
            }
            OutcomeObserver::AdaptiveLimit => format!("{:?}", overload.limit),
            OutcomeObserver::ResponseTimes => format!("{:?}", times.percentile_95()),
        }
    }

    /// Reports the outcome 80 times, and returns the observers whose state has changed.
    fn changed_by(outcome: &Outcome) -> Vec<OutcomeObserver> {
        let is_changed = |observer: &OutcomeObserver| {
            let (upstream, times) = (watched(*observer), ResponseTimes::default());
            let before = state(*observer, &upstream, &times);
            let admit = || upstream.admit(ClientSlot::numbered(1), RequestArrival::Complete);
            // A limit that is not used does not change.
            let _busy: Vec<_> = (0..15).map(|_| admit().unwrap()).collect();
            for _ in 0..80 {
                // The circuit and admission control may reject what comes after a failure.
                let Ok(mut admission) = admit() else { break };
                let of_service = OutcomeObservers::of_service(&upstream, &mut admission);
                OutcomeObservers { endpoint: Some(address(1)), response_times: Some(&times), ..of_service }
                    .report(outcome);
            }
            state(*observer, &upstream, &times) != before
        };
        OutcomeObserver::ALL.into_iter().filter(is_changed).collect()
    }

    fn responded(waited: EndpointTime) -> Outcome {
        Outcome { status: Some(StatusCode::OK), waited, ..Outcome::of(OutcomeClass::Responded) }
    }

    fn timed_out(waited: Duration, given: GivenTime) -> Outcome {
        Outcome { waited: EndpointTime::AtLeast(waited), given, ..Outcome::of(OutcomeClass::TimedOut) }
    }

    /// Each line is what a client can cause alone: by sending or reading slowly, by leaving, by its own short limits.
    #[tokio::test(start_paused = true)]
    async fn what_a_client_causes_changes_no_observer() {
        let by_policy = GivenTime { to_endpoint: Some(SECOND), to_service: Some(SECOND) };
        let by_route = GivenTime { to_endpoint: None, to_service: Some(SECOND) };
        for (case, outcome) in [
            ("left while it was served", Outcome::of(OutcomeClass::Inconclusive)),
            ("left while connecting", Outcome::of(OutcomeClass::Abandoned)),
            ("a timeout of the policy within a slow upload", timed_out(SECOND / 2 - MILLI, by_policy)),
            ("a timeout of the route within a slow upload", timed_out(SECOND / 2 - MILLI, by_route)),
            ("a short timeout of a route of another namespace", timed_out(2 * SECOND, GivenTime::default())),
        ] {
            assert_eq!(changed_by(&outcome), [OutcomeObserver::Circuit; 0], "{case}");
        }
        // A response to a slow upload shows that the Service works, and not how fast it is.
        let during_upload = responded(EndpointTime::AtLeast(SECOND / 2));
        assert_eq!(changed_by(&during_upload), [OutcomeObserver::Circuit], "a response within the upload is a success");
        let upstream = watched(OutcomeObserver::Circuit);
        let mut admission = upstream.admit(ClientSlot::numbered(1), RequestArrival::Complete).unwrap();
        OutcomeObservers::of_service(&upstream, &mut admission).report(&during_upload);
        let circuit = upstream.overload_report().unwrap().circuit.unwrap();
        assert_eq!((circuit.requests, circuit.errors), (1, 0));
    }

    /// The other way round: each of them sees what it should.
    #[tokio::test(start_paused = true)]
    async fn what_a_service_causes_changes_the_observers() {
        use OutcomeObserver::*;
        let given = GivenTime { to_endpoint: Some(SECOND), to_service: Some(SECOND) };
        let failures = [Ejections, Latency, Circuit, AdmissionControl];
        assert_eq!(changed_by(&timed_out(SECOND, given)), failures);
        assert_eq!(changed_by(&timed_out(SECOND / 2, given)), failures, "the client has taken the other half");
        assert_eq!(changed_by(&timed_out(5 * SECOND, GivenTime::default())), failures, "the time of health checks");
        let by_route = GivenTime { to_endpoint: None, to_service: Some(SECOND) };
        assert_eq!(changed_by(&timed_out(SECOND, by_route)), [Circuit, AdmissionControl], "a route of the Service");
        assert_eq!(
            changed_by(&responded(EndpointTime::Exactly(SECOND / 10))),
            [Latency, Circuit, AdaptiveLimit, ResponseTimes]
        );
        // That it stops reading is not excused by an incomplete request.
        assert_eq!(changed_by(&responded(EndpointTime::AtLeast(2 * SECOND))), [Circuit]);
    }
}
