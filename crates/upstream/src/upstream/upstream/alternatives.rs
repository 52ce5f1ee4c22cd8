//! The upstreams that get requests in place of another one.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::Upstream;
use crate::upstream::admission::{Admission, NotAdmitted, Overloaded, in_turn};

/// The alternatives of an upstream. Their own alternatives are not used, so that requests do not go in circles.
#[derive(Debug)]
pub struct Alternatives {
    pub failover: Box<[Arc<Upstream>]>,
    pub min_available_percent: u8,
    /// Sorted.
    pub on_statuses: Box<[u16]>,
    pub circuit_fallback: Option<Arc<Upstream>>,
}

impl Alternatives {
    /// All upstreams that may get the requests.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.failover.iter().chain(&self.circuit_fallback)
    }

    /// Where the requests of an upstream with these alternatives go: to itself, or to the first alternative that has
    /// enough endpoints. `None` for itself, also if no other has enough.
    pub fn in_place_of(&self, upstream: &Upstream) -> Option<&Arc<Upstream>> {
        if upstream.has_available(self.min_available_percent) { None } else { self.next(upstream) }
    }

    /// Admits a request or connection to the upstream with these alternatives, or to what takes its place: an
    /// alternative, or the fallback if the circuit is open, also if it opens while the request waits. Returns where it
    /// goes. `admit`: [`Upstream::admit`] or `Upstream::admit_connection`.
    pub async fn admit<'a>(
        &'a self,
        upstream: &'a Arc<Upstream>,
        admit: impl Fn(&Upstream) -> Result<Admission, NotAdmitted>,
    ) -> (&'a Arc<Upstream>, Result<Admission, Overloaded>) {
        if let Some(alternative) = self.in_place_of(upstream) {
            return (alternative, in_turn(admit(alternative)).await);
        }
        match (in_turn(admit(upstream)).await, &self.circuit_fallback) {
            (Err(overloaded), Some(fallback)) if overloaded.has_fallback() => {
                (fallback, in_turn(admit(fallback)).await)
            }
            (admission, _) => (upstream, admission),
        }
    }

    /// The first alternative with enough endpoints, other than this upstream.
    pub fn next(&self, upstream: &Upstream) -> Option<&Arc<Upstream>> {
        let is_usable = |other: &&Arc<Upstream>| {
            !std::ptr::eq(&raw const ***other, upstream) && other.has_available(self.min_available_percent)
        };
        self.failover.iter().find(is_usable)
    }

    /// The alternative for a request that could not reach any endpoint of these upstreams, of which the first one has
    /// these alternatives: one that was not tried, or the fallback if the circuit is open.
    pub fn after(&self, tried: &[&Arc<Upstream>]) -> Option<&Arc<Upstream>> {
        let is_untried =
            |other: &&Arc<Upstream>| !tried.iter().any(|tried| Arc::ptr_eq(tried, other)) && other.has_available(1);
        let fallback =
            self.circuit_fallback.iter().filter(|_| tried.first().is_some_and(|first| first.is_circuit_open()));
        let failover = self.failover.iter().filter(|other| other.has_available(self.min_available_percent));
        failover.chain(fallback).find(is_untried)
    }

    /// Whether a response with this status is replaced.
    pub fn replaces(&self, status: u16) -> bool {
        self.on_statuses.binary_search(&status).is_ok()
    }
}

impl Upstream {
    /// Sets the alternatives.
    pub(in crate::upstream) fn set_alternatives(&self, alternatives: Option<Alternatives>) {
        let has_alternatives = alternatives.is_some();
        if let Some(alternatives) = alternatives.as_ref().filter(|_| self.keeps_affinity.load(Relaxed)) {
            alternatives.all().for_each(|other| other.keep_own_affinity());
        }
        if let Some(alternatives) = &alternatives {
            for keyed in self.keyed_endpoints.load().iter() {
                let keys = keyed.of_alternatives();
                alternatives.all().for_each(|other| {
                    other.keep_own_keyed_sessions(&keys);
                });
            }
        }
        self.alternatives.store(alternatives.map(Arc::new));
        self.has_alternatives.store(has_alternatives, Release);
    }

    /// Whether the circuit breaker lets only a part of the requests through.
    fn is_circuit_open(&self) -> bool {
        self.overload.is_circuit_open()
    }

    /// Whether other upstreams may get requests of this one.
    pub fn has_alternatives(&self) -> bool {
        self.has_alternatives.load(Relaxed)
    }

    /// The upstreams that get requests in place of this one.
    pub fn alternatives(&self) -> Option<Arc<Alternatives>> {
        if self.has_alternatives() { self.alternatives.load_full() } else { None }
    }

    /// Whether at least this percentage of the endpoints is available, and at least one.
    fn has_available(&self, percent: u8) -> bool {
        let reachable = self.reachable.load();
        let needed = (reachable.len() * usize::from(percent)).div_ceil(100).max(1);
        if !self.has_ejected() {
            return reachable.len() >= needed;
        }
        // Mostly ends after a few endpoints: one of a hundred is enough by default.
        let available = reachable.iter().filter(|endpoint| endpoint.state.health.is_healthy());
        available.take(needed).count() >= needed
    }
}
