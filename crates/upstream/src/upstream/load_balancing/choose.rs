//! The choice of one endpoint of a set, by the algorithm of the set.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::endpoint_set::{EndpointSet, ResolvedEndpoint};
use super::endpoint_table::EndpointTable;
use super::picked::{NoEndpoint, Picked, PickedBecause};
use super::rotation::Rotation;
use super::slow_start::weight_factor;
use crate::upstream::health::Availability;
use crate::upstream::settings::{BalancingAlgorithm, LatencyAverage};

/// What a pick depends on in addition to the set.
#[derive(Clone, Copy, Debug)]
pub(in crate::upstream) struct PickContext<'a> {
    /// The endpoints that were tried.
    pub(in crate::upstream) avoid: &'a [SocketAddr],
    /// The hash of the request.
    pub(in crate::upstream) hash: Option<u64>,
    pub(in crate::upstream) health: HealthRule,
    /// The time of the upstream's clock, in milliseconds; 0 if nothing depends on it.
    pub(in crate::upstream) now: u64,
    /// Whether an endpoint may be in its slow start.
    pub(in crate::upstream) has_slow_starts: bool,
    /// The requests in progress of the upstream, if a bound depends on them.
    pub(in crate::upstream) requests: u32,
}

/// Which endpoints the health of the upstream allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum HealthRule {
    /// All are available.
    AllAvailable,
    /// Ejected ones are skipped. A half-open one may be tried by the request, at once if the request can be sent again.
    Available {
        /// Whether those are skipped to which a connection looks dead.
        skips_suspect: bool,
        is_repeatable: bool,
    },
    /// Ejections are ignored, except that an endpoint that cannot be connected to gets a few attempts at a time.
    Any,
    /// None is available, and those that cannot be connected to are skipped.
    Connectable,
}

/// Chooses the next endpoint. `rotation`: the position of the worker in the set; without it, turns are at random.
pub(in crate::upstream) fn choose(
    set: &Arc<EndpointSet>,
    rotation: Option<&mut Rotation>,
    cx: &PickContext<'_>,
) -> Result<Picked, NoEndpoint> {
    let mut chooser = Chooser::new(set, cx);
    let chosen = match (cx.hash, set.settings.algorithm) {
        (Some(hash), _) if set.table.is_some() => chooser.by_hash(hash),
        // Without the hash that its algorithm needs, a request gets the next endpoint in turn.
        (_, BalancingAlgorithm::RoundRobin | BalancingAlgorithm::ConsistentHash(_)) => {
            match rotation {
                // Retries do not advance the rotation: with two endpoints, every request would start at the same one.
                Some(rotation) if cx.avoid.is_empty() => chooser.in_turn(set, rotation),
                _ => chooser.at_random(),
            }
        }
        (_, BalancingAlgorithm::Random) => chooser.at_random(),
        (_, BalancingAlgorithm::LeastRequests) => chooser.by_cost(|chooser, index| chooser.relative_requests(index)),
        (_, BalancingAlgorithm::PeakEwma(LatencyAverage { decay, .. })) => {
            chooser.by_cost(|chooser, index| chooser.expected_latency(index, decay))
        }
    };
    let (index, skipped) = chosen.ok_or_else(|| chooser.skipped.reason())?;
    // A trial that was claimed is made, although another endpoint may cost less: no other request makes it meanwhile.
    let (index, claimed_until) = chooser.claimed.map_or((index, None), |(index, until)| (index, Some(until)));
    Ok(Picked { address: set[index].address, because: skipped.because(cx.health), claimed_until })
}

/// Whether the endpoint of a session may get the request, as far as limits decide.
pub(in crate::upstream) fn may_use_pinned(set: &EndpointSet, index: usize, cx: &PickContext<'_>) -> bool {
    let chooser = Chooser::new(set, cx);
    let endpoint = &set[index];
    let may_connect =
        cx.health == HealthRule::AllAvailable || !endpoint.is_connect_ejected() || has_free_dial(endpoint);
    may_connect && !chooser.has_max_requests(endpoint) && !chooser.exceeds_bound(endpoint)
}

/// A half-open endpoint that the request may try. Without it, an upstream whose requests fail while its endpoints are
/// ejected would never get the request that shows that they work again.
#[cold]
pub(in crate::upstream) fn choose_half_open(
    set: &EndpointSet,
    avoid: &[SocketAddr],
    now: u64,
    is_repeatable: bool,
) -> Option<Picked> {
    let start = fastrand::usize(..set.len().max(1));
    let mut in_turn = set[start.min(set.len())..].iter().chain(&set[..start.min(set.len())]);
    in_turn.find_map(|endpoint| {
        let is_candidate = endpoint.weight > 0 && !avoid.contains(&endpoint.address);
        let claim = || endpoint.state.health.claim_half_open(now, is_repeatable);
        let claimed_until = if is_candidate { claim() } else { None };
        claimed_until.map(|_| Picked { address: endpoint.address, because: PickedBecause::Panic, claimed_until })
    })
}

/// The choice from one set.
struct Chooser<'c> {
    set: &'c EndpointSet,
    cx: &'c PickContext<'c>,
    skipped: Skipped,
    /// No endpoint was looked at yet.
    is_first: bool,
    /// The half-open endpoint that the request is sent to, and until when no other one is.
    claimed: Option<(usize, u64)>,
    /// Whether endpoints may get more than the bounded load.
    ignores_bound: bool,
}

/// Why endpoints were skipped.
#[derive(Clone, Copy, Debug, Default)]
struct Skipped {
    /// One was tried, or does not get any requests.
    excluded: bool,
    /// One is ejected.
    ejected: bool,
    /// One has as many requests as it may have.
    full: bool,
}

/// The position of an endpoint, and what was skipped for it.
type Chosen = Option<(usize, Skipped)>;

impl<'c> Chooser<'c> {
    fn new(set: &'c EndpointSet, cx: &'c PickContext<'c>) -> Self {
        Chooser { set, cx, skipped: Skipped::default(), is_first: true, claimed: None, ignores_bound: false }
    }

    /// The first usable endpoint in the order of the hash table.
    fn by_hash(&mut self, hash: u64) -> Chosen {
        let table = self.set.table.as_ref()?;
        let mut found = match self.set.settings.subset_size {
            None => table.find(hash, |index| self.is_usable(index)),
            Some(size) => self.in_subset(table, hash, size),
        };
        if found.is_none() && self.set.settings.bounded_load_percent.is_some() {
            // The others are ejected, and their load exceeds the bound.
            self.ignores_bound = true;
            found = table.find(hash, |index| self.is_usable(index));
        }
        found.map(|index| (index, self.skipped))
    }

    /// One of the first `size` usable endpoints in the order of the hash table, at random.
    fn in_subset(&mut self, table: &EndpointTable, hash: u64, size: NonZeroU32) -> Option<usize> {
        let (mut seen, mut chosen) = (SmallVec::<[usize; 8]>::new(), None);
        table.find(hash, |index| {
            if seen.contains(&index) || !self.is_usable(index) {
                return false;
            }
            seen.push(index);
            if fastrand::usize(..seen.len()) == 0 {
                chosen = Some(index);
            }
            seen.len() >= size.get() as usize
        });
        chosen
    }

    fn in_turn(&mut self, set: &Arc<EndpointSet>, rotation: &mut Rotation) -> Chosen {
        let next = rotation.next(set, |index| self.is_usable(index) && self.accepts(index));
        next.map(|index| (index, self.skipped)).or_else(|| self.any_usable())
    }

    fn at_random(&mut self) -> Chosen {
        self.draw_usable(None).map(|index| (index, self.skipped)).or_else(|| self.any_usable())
    }

    /// The endpoint of lower cost: of two at random, or of all if there are few. The first one drawn has the
    /// preference, so that idle endpoints share by weight.
    fn by_cost(&mut self, cost: impl Fn(&Self, usize) -> f32) -> Chosen {
        let Some(first) = self.draw_usable(None) else { return self.any_usable() };
        // What is skipped from here on would have been an alternative only.
        let skipped = self.skipped;
        let mut chosen = (first, cost(self, first));
        let mut compare = |chooser: &Self, index: usize| {
            let cost = cost(chooser, index);
            if cost < chosen.1 {
                chosen = (index, cost);
            }
        };
        let count = self.set.len();
        if self.set.weighted <= MAX_SCANNED {
            for index in (first + 1..count).chain(0..first) {
                if self.is_usable(index) {
                    compare(self, index);
                }
            }
        } else if let Some(second) = self.draw_usable(Some(first)) {
            compare(self, second);
        }
        Some((chosen.0, skipped))
    }

    /// A usable endpoint by weight. `None` if a few draws have none.
    fn draw_usable(&mut self, other_than: Option<usize>) -> Option<usize> {
        let mut tries = MAX_DRAWS;
        // Draws that a slow start rejects are repeated more often: the others get the requests.
        for _ in 0..MAX_REJECTED_DRAWS {
            let index = self.set.draw.draw()?;
            if Some(index) == other_than || !self.accepts(index) {
                continue;
            }
            if self.is_usable(index) {
                return Some(index);
            }
            tries -= 1;
            if tries == 0 {
                break;
            }
        }
        None
    }

    /// A usable endpoint, by weight, of all endpoints: not the next usable one, which would get the share of all
    /// unusable ones before it.
    #[cold]
    fn any_usable(&mut self) -> Chosen {
        let (mut chosen, mut total) = (None, 0);
        for index in 0..self.set.len() {
            if self.is_usable(index) {
                let weight = u64::from(self.set[index].weight);
                total += weight;
                if fastrand::u64(..total) < weight {
                    chosen = Some(index);
                }
            }
        }
        chosen.map(|index| (index, self.skipped))
    }

    fn is_usable(&mut self, index: usize) -> bool {
        let (set, cx) = (self.set, self.cx);
        let endpoint = &set[index];
        let is_first = std::mem::replace(&mut self.is_first, false);
        if endpoint.weight == 0 || !cx.avoid.is_empty() && cx.avoid.contains(&endpoint.address) {
            self.skipped.excluded = true;
            return false;
        }
        let is_allowed = match cx.health {
            HealthRule::AllAvailable => true,
            HealthRule::Available { skips_suspect, is_repeatable } => {
                match endpoint.state.health.availability(cx.now) {
                    Availability::Available => true,
                    Availability::Suspect => !skips_suspect,
                    // One request is sent to a half-open endpoint; the others do not wait for its result.
                    Availability::HalfOpen => {
                        let has_room = !self.has_max_requests(endpoint) && !self.exceeds_bound(endpoint);
                        let may_claim = is_first && has_room;
                        let claim = || endpoint.state.health.claim_half_open(cx.now, is_repeatable);
                        may_claim && claim().is_some_and(|until| self.claimed.replace((index, until)).is_none())
                    }
                    Availability::Ejected(_) => false,
                }
            }
            HealthRule::Any => !endpoint.is_connect_ejected() || has_free_dial(endpoint),
            HealthRule::Connectable => !endpoint.is_connect_ejected(),
        };
        if !is_allowed {
            self.skipped.ejected = true;
            return false;
        }
        if self.has_max_requests(endpoint) || self.exceeds_bound(endpoint) {
            self.skipped.full = true;
            return false;
        }
        true
    }

    /// Whether the endpoint has as many requests as the limit of the upstream allows.
    fn has_max_requests(&self, endpoint: &ResolvedEndpoint) -> bool {
        self.set.settings.max_requests.is_some_and(|max| endpoint.state.load.requests() >= max)
    }

    /// Whether the endpoint has its part of the bounded load, with the request that is coming.
    fn exceeds_bound(&self, endpoint: &ResolvedEndpoint) -> bool {
        let Some(percent) = self.set.settings.bounded_load_percent.filter(|_| !self.ignores_bound) else {
            return false;
        };
        let requests = f64::from(self.cx.requests) + 1.0;
        let weighted = requests * f64::from(percent) * f64::from(endpoint.weight);
        let capacity = (weighted / (100.0 * self.set.total_weight as f64)).ceil().max(1.0);
        f64::from(endpoint.state.load.requests()) >= capacity
    }

    /// False at random for an endpoint in its slow start, in proportion to what its weight lacks.
    fn accepts(&self, index: usize) -> bool {
        !self.cx.has_slow_starts || {
            let factor = self.slow_start_factor(index);
            factor >= 1.0 || fastrand::f32() < factor
        }
    }

    fn slow_start_factor(&self, index: usize) -> f32 {
        let Some(settings) = self.set.settings.slow_start.filter(|_| self.cx.has_slow_starts) else { return 1.0 };
        match self.set[index].state.health.in_service_since() {
            0 => 1.0,
            since => weight_factor(&settings, self.cx.now.saturating_sub(since)),
        }
    }

    /// The requests of an endpoint in relation to its weight.
    fn relative_requests(&self, index: usize) -> f32 {
        let endpoint = &self.set[index];
        endpoint.state.load.requests() as f32 / (endpoint.weight as f32 * self.slow_start_factor(index))
    }

    /// The latency that a request can expect, which grows with the requests that the endpoint has.
    fn expected_latency(&self, index: usize, decay: Duration) -> f32 {
        let mean_weight = self.set.total_weight as f32 / self.set.weighted as f32;
        let latency = self.set[index].state.load.latency.estimate(self.cx.now, decay).unwrap_or(DEFAULT_MICROS);
        latency * (self.relative_requests(index) * mean_weight + 1.0)
    }
}

impl Skipped {
    fn because(self, health: HealthRule) -> PickedBecause {
        match (health, self) {
            (HealthRule::Any | HealthRule::Connectable, _) => PickedBecause::Panic,
            (_, Skipped { full: true, .. }) => PickedBecause::OverLimit,
            (_, Skipped { excluded: false, ejected: false, .. }) => PickedBecause::Preferred,
            _ => PickedBecause::Walked,
        }
    }

    fn reason(self) -> NoEndpoint {
        match self {
            Skipped { full: true, .. } => NoEndpoint::OverLimit,
            Skipped { ejected: true, .. } => NoEndpoint::Unavailable,
            _ => NoEndpoint::None,
        }
    }
}

/// Whether a request may try to connect to an endpoint to which no connection could be opened.
fn has_free_dial(endpoint: &ResolvedEndpoint) -> bool {
    endpoint.state.load.dials() < MAX_DIALS
}

/// If there are not more endpoints, all of them are compared.
const MAX_SCANNED: usize = 8;
/// How often an unusable endpoint is drawn before all endpoints are looked at.
const MAX_DRAWS: usize = 3;
const MAX_REJECTED_DRAWS: usize = 16;
/// How many requests of all workers may be connecting to an endpoint to which no connection could be opened.
const MAX_DIALS: u32 = 8;
/// The latency of endpoints without samples if no other endpoint has one.
const DEFAULT_MICROS: f32 = 30_000.0;
