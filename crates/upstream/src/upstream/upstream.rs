//! One upstream: its endpoints, configured and resolved, their health and their load balancing.

mod alternatives;
mod changes;
mod checks;
mod ejections;
mod outcomes;
mod picking;
mod probes;
mod retries;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed},
};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use parking_lot::Mutex;

use super::admission::{Admission, NotAdmitted, OverloadControl, OverloadReport, Overloaded};
use super::affinity::{AffinityEndpoints, AffinitySettings, KeyedEndpoints};
use super::attempt_settings::CurrentAttemptSettings;
use super::check_queue::CheckQueue;
use super::check_report::{CheckCounters, CheckReport};
use super::circuit_breaker::RequestArrival;
use super::configured_endpoints::{BackendTraffic, EndpointAddress, Endpoints};
use super::endpoint_state::EndpointState;
use super::limits::EndpointConnectionLimits;
use super::load_balancing::{EndpointSet, PickCounts};
use super::locality::PriorityLevels;
use super::outlier_detection::{EndpointHealthReport, OutlierDetection};
use super::proxy_protocol::ConnectionEnds;
use super::retry_budget::ServiceRetries;
use super::retry_counters::RetryCounters;
use super::settings::{CircuitBreakerSettings, RequestHash};
use super::socket_budget::UpstreamSockets;
use super::socket_budget::client_slots::ClientSlot;
use super::upstream_availability::CurrentAvailability;
use super::upstream_key::UpstreamKey;
use crate::endpoint_tls::{UpstreamServerName, UpstreamTlsClient, UpstreamTlsSettings, VerifiedNames};
use crate::ssrf_guard::AddressPolicy;
pub use alternatives::Alternatives;
pub(super) use probes::ProbeOrder;

/// The number of endpoints of an upstream, by health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointCounts {
    pub healthy: usize,
    /// Ejected, or half-open: tried with single requests.
    pub ejected: usize,
}

/// The state of a configured endpoint at one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointReport {
    pub target: EndpointAddress,
    /// None for a name without an allowed address.
    pub address: Option<SocketAddr>,
    /// Neither ejected nor half-open.
    pub is_healthy: bool,
    /// The details. `None` for a name without an allowed address.
    pub health: Option<EndpointHealthReport>,
    /// The last active check.
    pub check: Option<Arc<CheckReport>>,
}

/// One upstream, shared by all routes and workers that use it.
///
/// The configuration sets the endpoints (`set_endpoints`), DNS sets the addresses of named ones (`set_resolved`).
/// Neither discards the other's data: resolved addresses survive an edit that keeps the name, and a result for a name
/// that no endpoint has is ignored.
#[derive(Debug)]
pub struct Upstream {
    pub key: UpstreamKey,
    configured: ArcSwap<Endpoints>,
    /// Incremented after each change of `configured`.
    revision: AtomicU64,
    /// The addresses to connect to: `configured` with every name replaced by its addresses. Unresolved names are
    /// absent.
    reachable: ArcSwap<EndpointSet>,
    /// The health of the endpoints.
    pub(super) detection: Arc<OutlierDetection>,
    /// How many endpoints are available, and which of them start slowly.
    availability: CurrentAvailability,
    /// The levels of the endpoints, if there are several.
    levels: ArcSwapOption<PriorityLevels<EndpointSet>>,
    /// The server name of the last handshake that has ejected an endpoint.
    probed_name: ArcSwapOption<HeaderValue>,
    /// Whether the requests in progress of each endpoint are counted, for load balancing or a limit of each endpoint.
    counts_requests: AtomicBool,
    /// Whether those of the upstream are counted as well, in `requests`.
    counts_all_requests: AtomicBool,
    requests: Arc<AtomicU32>,
    /// Whether the load balancing depends on the latency of the endpoints.
    measures_latency: AtomicBool,
    /// Whether the load balancing depends on a hash of the request.
    is_hashing: AtomicBool,
    /// Whether the load balancing has settings that are not the defaults.
    has_balancing: AtomicBool,
    /// The counters of all workers that have counted a pick.
    pick_counts: Mutex<Vec<Arc<PickCounts>>>,
    /// The TLS client, if the endpoints use TLS.
    pub(super) tls_client: Option<UpstreamTlsClient>,
    verified_names: VerifiedNames,
    pub(super) sockets: Arc<UpstreamSockets>,
    pub(super) addresses: AddressPolicy,
    /// When a failed or blocked endpoint was last logged, in milliseconds of the clock of `detection`; 0 if never.
    warned_at: AtomicU64,
    /// The requests and retries of the Service.
    retries: Arc<ServiceRetries>,
    /// What became of them, from the first retry on.
    retry_counters: OnceLock<Arc<RetryCounters>>,
    /// The limits of requests, and the circuit breaker.
    pub(super) overload: Arc<OverloadControl>,
    pub(super) connection_limits: Arc<EndpointConnectionLimits>,
    /// Whether there are `alternatives`.
    has_alternatives: AtomicBool,
    alternatives: ArcSwapOption<Alternatives>,
    /// The retries and timeouts of rules without their own.
    attempts: CurrentAttemptSettings,
    /// The sessions of rules without sessions of their own.
    affinity: ArcSwapOption<AffinitySettings>,
    /// Whether a rule or the policy of the Service keeps sessions.
    keeps_affinity: AtomicBool,
    /// The endpoints as sessions name them, if sessions are kept.
    affinity_endpoints: ArcSwapOption<AffinityEndpoints>,
    /// The endpoints as the keys of sessions name them, for each way in which rules do so.
    keyed_endpoints: ArcSwap<Vec<Arc<KeyedEndpoints>>>,
    /// Told about changes that concern active checks.
    pub(super) check_queue: Arc<CheckQueue>,
    /// Told about endpoints to be probed.
    pub(super) probe_queue: Arc<CheckQueue>,
    check_counters: CheckCounters,
    /// DNS results by host. The lock serializes the setters; requests never take it.
    resolved: Mutex<BTreeMap<Arc<str>, Vec<IpAddr>>>,
}

/// An upstream is equal only to itself, because each has its own state.
impl PartialEq for Upstream {
    fn eq(&self, other: &Upstream) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Upstream {
    pub fn new(key: UpstreamKey) -> Self {
        Upstream {
            tls_client: key.tls.as_ref().map(UpstreamTlsSettings::client),
            verified_names: VerifiedNames::default(),
            sockets: Arc::default(),
            addresses: AddressPolicy::default(),
            warned_at: AtomicU64::new(0),
            key,
            configured: ArcSwap::default(),
            revision: AtomicU64::new(0),
            reachable: ArcSwap::default(),
            detection: Arc::default(),
            availability: CurrentAvailability::default(),
            levels: ArcSwapOption::default(),
            probed_name: ArcSwapOption::default(),
            counts_requests: AtomicBool::new(false),
            counts_all_requests: AtomicBool::new(false),
            requests: Arc::default(),
            measures_latency: AtomicBool::new(false),
            is_hashing: AtomicBool::new(false),
            has_balancing: AtomicBool::new(false),
            pick_counts: Mutex::default(),
            retries: Arc::default(),
            retry_counters: OnceLock::new(),
            overload: Arc::default(),
            connection_limits: Arc::default(),
            has_alternatives: AtomicBool::new(false),
            alternatives: ArcSwapOption::default(),
            attempts: CurrentAttemptSettings::default(),
            affinity: ArcSwapOption::default(),
            keeps_affinity: AtomicBool::new(false),
            affinity_endpoints: ArcSwapOption::default(),
            keyed_endpoints: ArcSwap::default(),
            check_queue: Arc::default(),
            probe_queue: Arc::default(),
            check_counters: CheckCounters::default(),
            resolved: Mutex::new(BTreeMap::new()),
        }
    }

    /// Hands the settings to the parts that apply them. Those of alternatives follow apart, since they are upstreams.
    fn configure(&self, traffic: &BackendTraffic) {
        let BackendTraffic {
            retry_limits,
            affinity,
            health,
            overload,
            alternatives: _, // Upstreams of their own.
            retries,
            timeouts,
            is_dry_run,
        } = traffic;
        self.detection.configure(health.as_ref(), *is_dry_run);
        let enforced = overload.limits.as_deref().filter(|_| !*is_dry_run);
        self.connection_limits.set(enforced);
        self.sockets.set_limit(enforced.and_then(|limits| limits.max_connections));
        self.overload.set(overload, *is_dry_run, &self.key);
        self.retries.set_limits(*retry_limits);
        self.attempts.set(retries.as_ref(), timeouts.as_ref());
        self.affinity.store(affinity.clone());
        if affinity.is_some() {
            self.keeps_affinity.store(true, Relaxed);
        }
    }

    /// The endpoints as configured.
    pub fn endpoints(&self) -> arc_swap::Guard<Arc<Endpoints>> {
        self.configured.load()
    }

    /// The bytes with which a connection for this client connection begins, before TLS: the PROXY header, if the
    /// Service requests one.
    pub fn proxy_header(&self, ends: impl FnOnce() -> ConnectionEnds) -> Vec<u8> {
        self.key.proxy_protocol.map_or_else(Vec::new, |version| version.header(ends()))
    }

    /// Differs after each change of the configured endpoints.
    pub fn endpoint_revision(&self) -> u64 {
        self.revision.load(Acquire)
    }

    /// Whether the configuration still has an endpoint to which a connection is open, ready or not. DNS results do not
    /// count: a name may have different addresses each time, and connections to the former ones stay.
    pub fn is_configured(&self, endpoint: SocketAddr) -> bool {
        let Endpoints { addresses, unready, .. } = &**self.configured.load();
        let may_resolve_to = |address: &EndpointAddress| match address {
            EndpointAddress::Name { port, .. } => *port == endpoint.port(),
            EndpointAddress::Ip(_) => false,
        };
        addresses.binary_search(&EndpointAddress::Ip(endpoint)).is_ok()
            || unready.binary_search(&endpoint).is_ok()
            || addresses.iter().rev().any(may_resolve_to)
    }

    /// The addresses that requests can be sent to now, sorted.
    pub fn reachable(&self) -> arc_swap::Guard<Arc<EndpointSet>> {
        self.reachable.load()
    }

    /// The state of every configured endpoint at each of its addresses, for status and debug output.
    pub fn endpoint_reports(&self) -> Vec<EndpointReport> {
        let resolved = self.resolved.lock();
        let report = |target: &EndpointAddress, address: SocketAddr| {
            let state = self.state(address);
            let is_healthy = state.as_ref().is_none_or(|state| state.health.is_healthy());
            let check = state.as_ref().and_then(|state| state.check.load_full());
            let health = state.map(|state| self.detection.report(address, &state));
            EndpointReport { target: target.clone(), address: Some(address), is_healthy, health, check }
        };
        let mut reports = Vec::new();
        for target in &self.configured.load().addresses {
            match target {
                EndpointAddress::Ip(address) => reports.push(report(target, *address)),
                EndpointAddress::Name { host, port } => {
                    let addresses =
                        resolved.get(host).into_iter().flatten().filter(|address| self.is_allowed(**address));
                    let count_before = reports.len();
                    reports.extend(addresses.map(|address| report(target, SocketAddr::new(*address, *port))));
                    if reports.len() == count_before {
                        let target = target.clone();
                        let (health, check) = (None, None);
                        reports.push(EndpointReport { target, address: None, is_healthy: false, health, check });
                    }
                }
            }
        }
        reports
    }

    /// Records a successful TLS handshake with this server name.
    pub(super) fn record_tls_success(&self, name: &UpstreamServerName) {
        self.verified_names.record(name, self.detection.clock.now());
    }

    /// Whether a TLS handshake with this server name has succeeded recently.
    pub(super) fn has_tls_success(&self, name: &UpstreamServerName) -> bool {
        self.verified_names.contains(name, self.detection.clock.now())
    }

    /// Counts the endpoints by health.
    pub fn endpoint_counts(&self) -> EndpointCounts {
        let reachable = self.reachable.load();
        let healthy = reachable.iter().filter(|endpoint| endpoint.state.health.is_healthy()).count();
        EndpointCounts { healthy, ejected: reachable.len() - healthy }
    }

    /// Whether a failed or blocked endpoint may be logged now: at most once a minute, since every request may detect
    /// it.
    pub fn should_warn(&self) -> bool {
        // Never 0, which means never logged.
        let (now, last_warned) = (self.detection.clock.now() + 1, self.warned_at.load(Relaxed));
        let is_due = last_warned == 0 || now.saturating_sub(last_warned) >= WARN_INTERVAL_MILLIS;
        is_due && self.warned_at.compare_exchange(last_warned, now, Relaxed, Relaxed).is_ok()
    }

    /// Admits a request of this client, which is counted unless it is rejected.
    pub fn admit(&self, client: ClientSlot, arrival: RequestArrival) -> Result<Admission, NotAdmitted> {
        let admitted = self.overload.admit(client, arrival);
        if !matches!(admitted, Err(NotAdmitted::Overloaded(_))) {
            self.retries.count_request();
        }
        admitted
    }

    /// Admits a connection of this client whose bytes are forwarded unparsed.
    pub(crate) fn admit_connection(&self, client: ClientSlot) -> Result<Admission, NotAdmitted> {
        self.overload.admit_unparsed(Some(client))
    }

    /// Admits a session of datagrams, which do not wait until others end.
    pub fn admit_session(&self) -> Result<Admission, Overloaded> {
        let admitted = self.overload.admit_unparsed(None).map_err(|not_admitted| match not_admitted {
            NotAdmitted::Overloaded(overloaded) => overloaded,
            NotAdmitted::Queued(_) => Overloaded::OverLimit,
        });
        admitted.map(|mut admission| {
            admission.become_tunnel();
            admission
        })
    }

    /// Whether few requests are let through now, by which the circuit breaker finds out whether the endpoints have
    /// recovered.
    #[inline]
    pub fn is_half_open(&self) -> bool {
        self.overload.is_half_open()
    }

    /// The settings of the circuit breaker, if it has a response for the requests that it rejects.
    pub fn circuit_fallback(&self) -> Option<Arc<CircuitBreakerSettings>> {
        self.overload.circuit_settings().filter(|settings| settings.fallback.is_some())
    }

    /// The state of limits and circuit breaker; `None` if there are none.
    pub fn overload_report(&self) -> Option<OverloadReport> {
        self.overload.report()
    }

    /// Identifies the limits and their counts, which several upstreams may share.
    pub fn overload_id(&self) -> usize {
        Arc::as_ptr(&self.overload).addr()
    }

    /// Counts requests and retries together with another upstream of the Service.
    pub(super) fn share_retries(&mut self, other: &Upstream) {
        self.retries = Arc::clone(&other.retries);
    }

    /// What is hashed of requests. `None` unless the load balancing is by hash.
    pub fn request_hash(&self) -> Option<Arc<RequestHash>> {
        // Requests to other upstreams do not pay for reading the settings.
        if self.hashing() { self.configured.load().balance.hash.clone() } else { None }
    }

    fn state(&self, address: SocketAddr) -> Option<Arc<EndpointState>> {
        let reachable = self.reachable.load();
        let index = reachable.binary_search_by_key(&address, |endpoint| endpoint.address).ok()?;
        Some(Arc::clone(&reachable[index].state))
    }
}

/// Minimum time between two warnings, in milliseconds.
const WARN_INTERVAL_MILLIS: u64 = 60_000;
