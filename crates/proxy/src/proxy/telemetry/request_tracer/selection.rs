//! Which requests and connections are recorded: by a rate, by rules and by a header when they begin, and by their end.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use tokio::time::Instant;

use crate::access_log_syntax::{LineFacts, SamplingRules};
use crate::plugin_api::trace::{RandomIds, Sampling, SamplingStrategy};
use crate::snapshot::gateway_traces::GatewayTracing;
use crate::turn_clock;

/// What is configured for the process. Gateways may have other rates and rules.
#[derive(Debug, Default)]
pub struct TraceSelection {
    /// From 0 to 1: the part of the requests that is recorded, unless a rule decides.
    pub rate: f64,
    pub rules: SamplingRules,
    pub header: Option<HeaderSelection>,
    pub late: LateRecording,
}

/// Requests with a header are recorded, whatever the rate and the client say.
#[derive(Debug)]
pub struct HeaderSelection {
    name: HeaderName,
    limit: SecondLimit,
}

/// Which requests are recorded although the rate, or the client, has not selected them: a decision at their end.
#[derive(Debug, Default)]
pub struct LateRecording {
    /// Those with a status of 500 or above, and calls of gRPC that Portico has ended with an error.
    errors: bool,
    /// Those that have taken at least this time.
    slow: Option<Duration>,
    limit: SecondLimit,
}

/// A number of places in each second.
#[derive(Debug)]
struct SecondLimit {
    places: u32,
    /// The current second since `started_at`, and how many places were taken in it.
    taken: AtomicU64,
    started_at: OnceLock<Instant>,
}

/// The decision at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EarlySelection {
    pub(super) is_sampled: bool,
    /// Whether the request is recorded only because of its header.
    pub(super) is_by_header: bool,
}

impl TraceSelection {
    /// The part of the requests with these facts that is recorded.
    pub(super) fn rate<'f>(&self, own: Option<&GatewayTracing>, facts: impl FnOnce() -> LineFacts<'f>) -> f64 {
        let rules = own.and_then(|own| own.rules.as_ref()).unwrap_or(&self.rules);
        let by_rule = if rules.is_empty() { None } else { rules.rate(&facts()) };
        let of_gateway = || Some(own?.rate?.value());
        by_rule.or_else(of_gateway).unwrap_or(self.rate)
    }

    /// Decides about a request. Only trusted peers may decide that it is recorded, unless it has the header.
    pub(super) fn decide(
        &self,
        rate: f64,
        parent: Option<bool>,
        is_peer_trusted: bool,
        headers: &HeaderMap,
        random: &mut RandomIds,
    ) -> EarlySelection {
        let strategy = if is_peer_trusted { SamplingStrategy::Parent } else { SamplingStrategy::ParentDrop };
        let is_selected = Sampling { rate, strategy }.decide_by(parent, || random.f64());
        let is_by_header = !is_selected && self.header.as_ref().is_some_and(|header| header.selects(headers));
        EarlySelection { is_sampled: is_selected || is_by_header, is_by_header }
    }
}

impl HeaderSelection {
    /// `places`: how many requests are recorded in each second because of the header.
    pub fn new(name: HeaderName, places: u32) -> Self {
        HeaderSelection { name, limit: SecondLimit::new(places) }
    }

    fn selects(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(&self.name) && self.limit.take()
    }
}

impl LateRecording {
    pub fn new(errors: bool, slow: Option<Duration>) -> Self {
        LateRecording { errors, slow, limit: SecondLimit::default() }
    }

    pub(super) fn is_active(&self) -> bool {
        self.errors || self.slow.is_some()
    }

    /// Why a request is recorded at its end. `None` if it is not, or if there were too many in this second.
    pub(super) fn reason(&self, status: StatusCode, error: Option<&str>, duration: Duration) -> Option<&'static str> {
        // Errors of calls of gRPC have status 200, and those of clients are no failures.
        let has_failed = status.is_server_error() || (error.is_some() && !status.is_client_error());
        let is_error = self.errors && has_failed;
        let is_slow = self.slow.is_some_and(|limit| duration >= limit);
        let reason = if is_error { "error" } else { "slow" };
        ((is_error || is_slow) && self.limit.take()).then_some(reason)
    }

    /// Whether a connection or UDP session that has failed is recorded.
    pub(super) fn takes_failed_stream(&self) -> bool {
        self.errors && self.limit.take()
    }
}

impl SecondLimit {
    fn new(places: u32) -> Self {
        SecondLimit { places, taken: AtomicU64::new(0), started_at: OnceLock::new() }
    }

    /// Takes one of the places of this second.
    fn take(&self) -> bool {
        let second = self.started_at.get_or_init(turn_clock::now).elapsed().as_secs();
        let take = |taken: u64| {
            let (last, count) = (taken >> 32, taken & u64::from(u32::MAX));
            let count = if last == second { count } else { 0 };
            (count < self.places.into()).then_some((second << 32) | (count + 1))
        };
        self.taken.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

impl Default for SecondLimit {
    fn default() -> Self {
        SecondLimit::new(MAX_LATE_PER_SECOND)
    }
}

/// The most requests of a process in a second that are recorded only because of their end.
const MAX_LATE_PER_SECOND: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each of these requests, with its status, error and seconds, is recorded, and why.
    fn reasons(late: &LateRecording, requests: &[(u16, Option<&'static str>, u64)]) -> Vec<Option<&'static str>> {
        let reason = |&(status, error, seconds): &(u16, Option<&'static str>, u64)| {
            late.reason(StatusCode::from_u16(status).unwrap(), error, Duration::from_secs(seconds))
        };
        requests.iter().map(reason).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_recorded_because_of_their_end() {
        let requests = [
            (200, None, 0),
            (404, Some("no_route"), 2),
            (500, None, 0),
            (200, Some("timeout"), 0),
            (499, Some("client_disconnected"), 3),
        ];
        let (error, slow) = (Some("error"), Some("slow"));
        for (late, expected) in [
            (LateRecording::default(), [None; 5]),
            (LateRecording::new(true, None), [None, None, error, error, None]),
            (LateRecording::new(false, Some(Duration::from_secs(2))), [None, slow, None, None, slow]),
            (LateRecording::new(true, Some(Duration::from_secs(2))), [None, slow, error, error, slow]),
        ] {
            assert_eq!(reasons(&late, &requests), expected, "{late:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_has_a_bound() {
        let late = LateRecording::new(true, None);
        let failed = [(500, None, 0); 150];
        for _ in 0..2 {
            assert_eq!(reasons(&late, &failed).iter().flatten().count(), 100);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_selects_as_many_requests_as_its_limit() {
        let header = Some(HeaderSelection::new(HeaderName::from_static("x-trace"), 2));
        let selection = TraceSelection { header, ..TraceSelection::default() };
        let mut random = RandomIds::from_seed([1; 4]);
        let with_header = HeaderMap::from_iter([(HeaderName::from_static("x-trace"), "1".parse().unwrap())]);
        let mut decide = |headers: &HeaderMap, rate: f64| {
            let decision = selection.decide(rate, Some(false), false, headers, &mut random);
            (decision.is_sampled, decision.is_by_header)
        };
        assert_eq!(decide(&HeaderMap::new(), 0.0), (false, false));
        for _ in 0..2 {
            let found: Vec<_> = (0..4).map(|_| decide(&with_header, 0.0)).collect();
            assert_eq!(found, [(true, true), (true, true), (false, false), (false, false)]);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }

    #[test]
    fn gateways_and_rules_have_rates_of_their_own() {
        let rules = |texts: &[&str]| SamplingRules(texts.iter().map(|text| text.parse().unwrap()).collect());
        let selection = TraceSelection { rate: 0.1, rules: rules(&["keep 50% route=a"]), ..TraceSelection::default() };
        let of = |rate: Option<&str>, texts: Option<&[&str]>| GatewayTracing {
            rate: rate.map(|rate| rate.parse().unwrap()),
            rules: texts.map(rules),
            propagation: None,
        };
        let rate = |own: Option<&GatewayTracing>, route| {
            (selection.rate(own, || LineFacts { route, ..LineFacts::default() }) * 100.0).round() as u32
        };
        let (nothing, own_rate, both) =
            (of(None, None), of(Some("20%"), None), of(Some("20%"), Some(&["drop route=b"])));
        for (own, of_a, of_b) in [
            (None, 50, 10),
            (Some(&nothing), 50, 10),
            (Some(&own_rate), 50, 20),
            (Some(&both), 20, 0),
            (Some(&of(None, Some(&[]))), 10, 10),
        ] {
            assert_eq!((rate(own, "a"), rate(own, "b")), (of_a, of_b), "{own:?}");
        }
    }
}
