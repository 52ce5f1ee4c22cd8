//! The pick of an endpoint: the session, the load balancing, and what happens if few endpoints are available.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Upstream;
use crate::upstream::endpoint_load::LatencySample;
use crate::upstream::endpoint_state::{ActiveRequest, PendingDial};
use crate::upstream::endpoint_trial::EndpointTrial;
use crate::upstream::load_balancing::{
    EndpointSet, HealthRule, NoEndpoint, PickContext, PickCounts, Picked, PickedBecause, SetSettings, choose_half_open,
    hash_address, may_use_pinned,
};
use crate::upstream::locality::LevelReport;
use crate::upstream::outcome::Outcome;
use crate::upstream::settings::{HashSource, LatencyAverage, OverloadLimit, WhenUnhealthy};
use crate::upstream::upstream_availability::UpstreamAvailability;
use crate::upstream::worker_endpoints::WorkerEndpoints;
use crate::upstream::worker_subset::WorkerSubsetting;
use crate::upstream::{EndpointChoice, ResolvedEndpoint};

impl Upstream {
    /// Picks an endpoint for a worker.
    pub(in crate::upstream) fn pick(
        &self,
        worker: &mut WorkerEndpoints,
        subsetting: &WorkerSubsetting,
        choice: &EndpointChoice<'_>,
    ) -> Result<Picked, NoEndpoint> {
        let version = self.detection.version();
        if !worker.has_version(version) {
            // The version changes after the endpoints and levels, so what is read here is at least as new.
            worker.adopt(version, &self.reachable.load(), self.levels.load_full(), subsetting);
        }
        let picked = match (self.pick_once(worker, choice, choice.avoid), choice.avoid) {
            (Err(_), avoid @ [.., last]) if choice.may_repeat => {
                // The last one that was tried comes last.
                let other = if avoid.len() > 1 { self.pick_once(worker, choice, &[*last]).ok() } else { None };
                other.map_or_else(|| self.pick_once(worker, choice, &[]), Ok)
            }
            (picked, _) => picked,
        }
        .inspect_err(|reason| {
            if *reason == NoEndpoint::OverLimit {
                self.overload.count_rejection(OverloadLimit::Endpoint);
            }
        })?;
        if picked.because != PickedBecause::Preferred || self.has_balancing.load(Relaxed) {
            worker.counts.get_or_insert_with(|| self.register_pick_counts()).add(picked.because);
        }
        Ok(picked)
    }

    fn pick_once(
        &self,
        worker: &mut WorkerEndpoints,
        choice: &EndpointChoice<'_>,
        avoid: &[SocketAddr],
    ) -> Result<Picked, NoEndpoint> {
        let settings = worker.all().settings();
        let availability = self.availability();
        let has_slow_starts = settings.slow_start.is_some() && self.has_slow_starts();
        let needs_time =
            has_slow_starts || availability != UpstreamAvailability::All || settings.algorithm.latency().is_some();
        let health = match health_rule(availability, settings.when_unhealthy, choice.is_repeatable) {
            Ok(health) => health,
            Err(reason) => {
                let now = self.detection.clock.now();
                return choose_half_open(worker.all(), avoid, now, choice.is_repeatable).ok_or(reason);
            }
        };
        let cx = PickContext {
            avoid,
            hash: choice.hash,
            health,
            now: if needs_time { self.detection.clock.now() } else { 0 },
            has_slow_starts,
            requests: if settings.bounded_load_percent.is_some() { self.requests.load(Relaxed) } else { 0 },
        };
        let mut is_pin_full = false;
        if let Some(address) = choice.pinned.filter(|pinned| !avoid.contains(pinned)) {
            // An endpoint that was removed meanwhile is used as well: its session was valid when the request arrived.
            if worker.all().position(address).is_none_or(|index| may_use_pinned(worker.all(), index, &cx)) {
                return Ok(Picked { address, because: PickedBecause::Pinned, claimed_until: None });
            }
            is_pin_full = true;
        }
        let mut picked = worker.choose(&cx);
        if let HealthRule::Available { skips_suspect, is_repeatable } = health {
            let is_unavailable = |picked: &Result<Picked, NoEndpoint>| picked == &Err(NoEndpoint::Unavailable);
            if is_unavailable(&picked) && skips_suspect {
                let health = HealthRule::Available { skips_suspect: false, is_repeatable };
                picked = worker.choose(&PickContext { health, ..cx });
            }
            // An ejected endpoint is better than none.
            if is_unavailable(&picked) && worker.all().settings().when_unhealthy == WhenUnhealthy::UseAll {
                picked = worker.choose(&PickContext { health: HealthRule::Any, ..cx });
            }
        }
        picked.map(|picked| match is_pin_full {
            true => Picked { because: PickedBecause::OverLimit, ..picked },
            false => picked,
        })
    }

    /// The trial of a half-open endpoint by the request that has picked it.
    #[cold]
    pub(in crate::upstream) fn trial(&self, address: SocketAddr, claimed_until: u64) -> Option<EndpointTrial> {
        self.state(address).map(|state| EndpointTrial::new(&self.detection, state, claimed_until))
    }

    /// Whether the endpoint depends on a hash of the request.
    pub fn hashing(&self) -> bool {
        self.is_hashing.load(Relaxed)
    }

    /// The hash of a client for connections and datagrams, which contain nothing else to hash. `None` if the upstream
    /// does not hash.
    pub fn client_hash(&self, client: IpAddr) -> Option<u64> {
        if !self.hashing() {
            return None;
        }
        let configured = self.configured.load();
        let sources = configured.balance.hash.iter().flat_map(|hash| &*hash.keys).map(|key| &key.source);
        let prefix = sources.filter_map(|source| match source {
            HashSource::ClientIp { ipv6_prefix } => Some(*ipv6_prefix),
            _ => None,
        });
        Some(hash_address(client, prefix.last().unwrap_or(DEFAULT_IPV6_PREFIX)))
    }

    /// Applies settings that picks read apart from the endpoints.
    pub(super) fn apply_balancing(&self, set: &EndpointSet) {
        let settings = set.settings();
        self.counts_requests.store(settings.needs_requests(), Relaxed);
        self.counts_all_requests.store(settings.bounded_load_percent.is_some(), Relaxed);
        self.measures_latency.store(settings.algorithm.latency().is_some(), Relaxed);
        self.is_hashing.store(settings.algorithm.is_hashing(), Relaxed);
        self.has_balancing.store(*settings != SetSettings::default(), Relaxed);
    }

    /// Counts a request in progress, if the load balancing depends on it.
    pub fn active_request(&self, address: SocketAddr) -> Option<ActiveRequest> {
        if !self.counts_requests.load(Relaxed) {
            return None;
        }
        let total = self.counts_all_requests.load(Relaxed).then(|| Arc::clone(&self.requests));
        self.state(address).map(|endpoint| ActiveRequest::new(endpoint, total))
    }

    /// Counts a connection that is being opened.
    pub(in crate::upstream) fn pending_dial(&self, address: SocketAddr) -> Option<PendingDial> {
        self.state(address).map(PendingDial::new)
    }

    /// Records what an attempt has shown about the latency of an endpoint.
    #[inline]
    pub(in crate::upstream) fn record_latency(&self, address: SocketAddr, outcome: &Outcome) {
        if !self.measures_latency.load(Relaxed) {
            return;
        }
        let reachable = self.reachable.load();
        if let Some(LatencyAverage { decay, failure_penalty }) = reachable.settings().algorithm.latency()
            && let Some(sample) = LatencySample::of(outcome, failure_penalty)
            && let Some(index) = reachable.position(address)
        {
            reachable[index].state.load.latency.record(sample, self.detection.clock.now(), decay);
        }
    }

    /// Prepares the state of endpoints that are new among `former` ones.
    pub(super) fn begin(&self, endpoint: &ResolvedEndpoint, former: &EndpointSet) {
        if former.is_empty() {
            return;
        }
        if let Some(LatencyAverage { decay, .. }) = former.settings().algorithm.latency() {
            let now = self.detection.clock.now();
            let estimates = former.iter().filter_map(|known| known.state.load.latency.estimate(now, decay));
            let (sum, count) = estimates.fold((0.0, 0.0), |(sum, count), estimate| (sum + estimate, count + 1.0));
            // One that returns soon after it has left has its former state.
            let is_unknown = endpoint.state.load.latency.estimate(now, decay).is_none();
            if count > 0.0 && is_unknown {
                endpoint.state.load.latency.assume(sum / count, now);
            }
        }
    }

    /// How many endpoints are available.
    pub(super) fn availability(&self) -> UpstreamAvailability {
        let version = self.detection.version();
        self.availability.load(version).unwrap_or_else(|| self.look_at_endpoints(version))
    }

    /// Whether an endpoint is known, and not all are ejected.
    pub fn has_available_endpoint(&self) -> bool {
        let availability = self.availability();
        !matches!(availability, UpstreamAvailability::None | UpstreamAvailability::NoneConnectable)
            && self.reachable.load().iter().next().is_some()
    }

    /// The levels of the endpoints, the preferred one first; empty if all endpoints are alike.
    pub fn levels(&self) -> Vec<LevelReport> {
        // Brings the shares of the levels up to date, as the next pick would.
        self.availability();
        self.levels.load().as_ref().map_or_else(Vec::new, |levels| levels.report())
    }

    fn has_slow_starts(&self) -> bool {
        let until = self.availability.slow_starts_until();
        until != 0 && self.detection.clock.now() < until
    }

    /// Looks at the health of all endpoints, once after each change of one. `version`: that of their health before.
    #[cold]
    fn look_at_endpoints(&self, version: u32) -> UpstreamAvailability {
        let reachable = self.reachable.load();
        let now = self.detection.clock.now();
        let availability = UpstreamAvailability::of(&reachable, now);
        if let Some(settings) = reachable.settings().slow_start {
            let window = u64::try_from(settings.window.as_millis()).unwrap_or(u64::MAX);
            let last = reachable.iter().map(|endpoint| endpoint.state.health.in_service_since()).max().unwrap_or(0);
            self.availability.set_slow_starts_until(if last == 0 { 0 } else { last.saturating_add(window) });
        }
        if let Some(levels) = &*self.levels.load() {
            levels.update_loads();
        }
        self.availability.store(version, availability);
        availability
    }

    fn register_pick_counts(&self) -> Arc<PickCounts> {
        let counts = Arc::default();
        self.pick_counts.lock().push(Arc::clone(&counts));
        counts
    }

    /// How often endpoints were picked for each reason. Only picks of upstreams with settings of their own, and those
    /// that are not what the algorithm prefers.
    pub fn picks(&self) -> [(PickedBecause, u64); PickedBecause::ALL.len()] {
        let workers = self.pick_counts.lock();
        PickedBecause::ALL.map(|because| (because, workers.iter().map(|counts| counts.value(because)).sum()))
    }
}

/// Which endpoints are used. An error if requests fail instead.
fn health_rule(
    availability: UpstreamAvailability,
    when: WhenUnhealthy,
    is_repeatable: bool,
) -> Result<HealthRule, NoEndpoint> {
    match (availability, when) {
        (UpstreamAvailability::All, _) => Ok(HealthRule::AllAvailable),
        (UpstreamAvailability::Some, _) => Ok(HealthRule::Available { skips_suspect: true, is_repeatable }),
        (_, WhenUnhealthy::Fail) => Err(NoEndpoint::Unavailable),
        (UpstreamAvailability::Panic | UpstreamAvailability::NoneConnectable, WhenUnhealthy::UseAll) => {
            Ok(HealthRule::Any)
        }
        (UpstreamAvailability::None, WhenUnhealthy::UseAll) => Ok(HealthRule::Connectable),
    }
}

const DEFAULT_IPV6_PREFIX: u8 = 64;
