//! A snapshot as one worker sees it: with the counters and turns that belong to its rules, found without a lock.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::stats::{Labels, Series};
use super::worker::Worker;
use crate::snapshot::rule::{Backend, Rule, Split, Target};
use crate::snapshot::{Bind, Listener, Snapshot};

/// Keys are addresses of parts of the snapshot, which are unique for as long as this keeps it alive.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    /// Binds that were in earlier snapshots: until their connections are closed, who comes there is served as before.
    retired: BTreeMap<SocketAddr, Arc<Bind>>,
    series: RefCell<HashMap<[usize; 3], Arc<Series>, foldhash::fast::FixedState>>,
    turns: RefCell<HashMap<usize, Turn, foldhash::fast::FixedState>>,
}

impl View {
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Self {
        View { snapshot, retired: BTreeMap::new(), series: RefCell::default(), turns: RefCell::default() }
    }

    /// What a worker sees next.
    pub(crate) fn followed_by(&self, snapshot: Arc<Snapshot>) -> Self {
        let before = self.retired.iter().chain(&self.snapshot.binds);
        let gone = before.filter(|(address, _)| !snapshot.binds.contains_key(address));
        let retired = gone.map(|(address, bind)| (*address, Arc::clone(bind))).collect();
        View { retired, ..View::new(snapshot) }
    }

    /// The same without the retired binds of addresses that are gone. None if there are none of these.
    pub(crate) fn without(&self, is_gone: impl Fn(&SocketAddr) -> bool) -> Option<Self> {
        if !self.retired.keys().any(&is_gone) {
            return None;
        }
        let left = self.retired.iter().filter(|(address, _)| !is_gone(address));
        let retired = left.map(|(address, bind)| (*address, Arc::clone(bind))).collect();
        Some(View { retired, ..View::new(Arc::clone(&self.snapshot)) })
    }

    /// What is served on an address we listen on.
    pub(crate) fn bind(&self, address: &SocketAddr) -> Option<&Arc<Bind>> {
        self.snapshot.binds.get(address).or_else(|| self.retired.get(address))
    }

    /// Whose turn it is. Over `total` requests every backend gets exactly its weight, and in between close to it.
    pub(crate) fn pick<'s>(&self, rule: &Rule, split: &'s Split) -> &'s Backend {
        if let [only] = split.backends() {
            return only;
        }
        let mut turns = self.turns.borrow_mut();
        let turn = turns.entry(std::ptr::from_ref(rule).addr()).or_insert_with(|| Turn::new(split.total()));
        split.pick(turn.next())
    }

    pub(crate) fn series(
        &self,
        worker: &Worker,
        listener: &Arc<Listener>,
        rule: Option<&Arc<Rule>>,
        backend: Option<&Backend>,
    ) -> Arc<Series> {
        let key = [
            Arc::as_ptr(listener).addr(),
            rule.map_or(0, |rule| Arc::as_ptr(rule).addr()),
            backend.map_or(0, |backend| std::ptr::from_ref(backend).addr()),
        ];
        if let Some(series) = self.series.borrow().get(&key) {
            return Arc::clone(series);
        }
        let upstream = backend.and_then(|backend| match &backend.target {
            Target::Upstream(upstream) => Some(upstream.key.to_string().into()),
            Target::Fail(_) => None,
        });
        let series = worker.series(Labels {
            gateway: Arc::clone(&listener.gateway),
            listener: Arc::clone(&listener.name),
            route: rule.map(|rule| Arc::clone(&rule.id.route)).unwrap_or_default(),
            rule: rule.map(|rule| Arc::clone(&rule.id.rule)).unwrap_or_default(),
            backend: upstream.unwrap_or_default(),
        });
        self.series.borrow_mut().insert(key, Arc::clone(&series));
        series
    }
}

/// Walks `0..total` in steps that have no factor in common with it, near the golden section: every number comes once in
/// each round, and neighbors in time are far apart, so that a heavy backend is not asked in a row.
struct Turn {
    at: Cell<u64>,
    step: u64,
    total: u64,
}

impl Turn {
    /// Starts anywhere, so that workers do not move in step and a new snapshot does not favor the first backend.
    fn new(total: u64) -> Self {
        let golden = (total as f64 * 0.618_033_988_749_895) as u64;
        let step = (golden.max(1)..).find(|step| gcd(*step, total) == 1).unwrap_or(1);
        Turn { at: Cell::new(fastrand::u64(..total)), step, total }
    }

    fn next(&self) -> u64 {
        let at = (self.at.get() + self.step) % self.total;
        self.at.set(at);
        at
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::host::HostMap;

    fn snapshot(ports: std::ops::Range<u16>) -> Arc<Snapshot> {
        let bind = || Arc::new(Bind { listeners: HostMap::new([]), tls: None });
        Arc::new(Snapshot {
            binds: ports.map(|port| (([127, 0, 0, 1], port).into(), bind())).collect(),
            ..Snapshot::default()
        })
    }

    #[test]
    fn what_left_the_snapshot_is_known_until_it_is_gone() {
        let port = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let view = View::new(snapshot(1..200)).followed_by(snapshot(1..100)).followed_by(snapshot(1..1));
        assert!((1..200).all(|number| view.bind(&port(number)).is_some()));
        let view = view.without(|address| address.port() > 1).unwrap();
        assert!(view.bind(&port(1)).is_some() && view.bind(&port(2)).is_none());
        assert!(view.without(|address| address.port() > 1).is_none(), "nothing to forget");
        assert!(view.followed_by(snapshot(1..2)).retired.is_empty(), "it is back");
    }

    #[test]
    fn every_share_is_exact() {
        for total in [1, 2, 3, 4, 5, 10, 97, 100, 1000, 1024] {
            let turn = Turn::new(total);
            for _ in 0..2 {
                let mut seen: Vec<_> = (0..total).map(|_| turn.next()).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..total).collect::<Vec<_>>(), "{total}");
            }
        }
    }

    #[test]
    fn shares_are_spread() {
        let turn = Turn::new(100);
        for _ in 0..100 {
            let tenth = (0..10).filter(|_| turn.next() < 50).count();
            assert!((3..=7).contains(&tenth), "half of the weight got {tenth} of 10 requests");
        }
    }
}
