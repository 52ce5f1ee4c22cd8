//! One worker's view of a snapshot, with the counters and load-balancing state of its rules, found without locks.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Worker;
use crate::bind_address::BindAddress;
use crate::proxy::telemetry::stats::{RequestLabels, RequestSeries};
use crate::snapshot::rule::{Backend, BackendTarget, RouteRule, WeightedBackends};
use crate::snapshot::stream::StreamRule;
use crate::snapshot::{Bind, HttpBind, HttpListener, Snapshot};

/// A snapshot with one worker's state for it. The keys of `series` and `cursors` are memory addresses of the snapshot's
/// listeners, rules, splits and backends. They stay unique while the view keeps the snapshot alive.
pub(in crate::proxy) struct SnapshotView {
    pub(in crate::proxy) snapshot: Arc<Snapshot>,
    /// Binds of earlier snapshots. They serve their remaining connections until these are closed.
    retired: BTreeMap<BindAddress, Arc<Bind>>,
    /// By listener, rule and backend.
    series: RefCell<HashMap<[usize; 3], Arc<RequestSeries>, foldhash::fast::FixedState>>,
    /// By split.
    cursors: RefCell<HashMap<usize, WeightedCursor, foldhash::fast::FixedState>>,
}

impl SnapshotView {
    pub(in crate::proxy) fn new(snapshot: Arc<Snapshot>) -> Self {
        SnapshotView { snapshot, retired: BTreeMap::new(), series: RefCell::default(), cursors: RefCell::default() }
    }

    /// The view of the next snapshot.
    pub(in crate::proxy) fn next(&self, snapshot: Arc<Snapshot>) -> Self {
        // Most changes leave the addresses as they are, and there may be thousands.
        if Arc::ptr_eq(snapshot.binds.addresses(), self.snapshot.binds.addresses()) {
            return SnapshotView { retired: self.retired.clone(), ..SnapshotView::new(snapshot) };
        }
        let binds = self.retired.iter().chain(self.snapshot.binds.iter());
        let gone = binds.filter(|(address, _)| !snapshot.binds.contains(address));
        let retired = gone.map(|(address, bind)| (*address, Arc::clone(bind))).collect();
        SnapshotView { retired, ..SnapshotView::new(snapshot) }
    }

    /// This view without the retired binds that `is_gone` selects. None if there are none.
    pub(in crate::proxy) fn without_retired(&self, is_gone: impl Fn(&BindAddress) -> bool) -> Option<Self> {
        if !self.retired.keys().any(&is_gone) {
            return None;
        }
        let remaining = self.retired.iter().filter(|(address, _)| !is_gone(address));
        let retired = remaining.map(|(address, bind)| (*address, Arc::clone(bind))).collect();
        Some(SnapshotView { retired, ..SnapshotView::new(Arc::clone(&self.snapshot)) })
    }

    /// The configuration of a listening address.
    pub(in crate::proxy) fn bind(&self, address: &BindAddress) -> Option<&Arc<Bind>> {
        self.snapshot.binds.get(address).or_else(|| self.retired.get(address))
    }

    /// The HTTP listeners of a listening address.
    pub(in crate::proxy) fn http_bind(&self, address: &BindAddress) -> Option<&HttpBind> {
        self.bind(address)?.http()
    }

    /// The next backend. Over as many requests or connections as the sum of the weights, each backend gets exactly its
    /// weight; fewer are distributed almost by weight.
    pub(in crate::proxy) fn pick_backend<'s>(&self, split: &'s WeightedBackends) -> &'s Backend {
        if let [only] = split.backends() {
            return only;
        }
        let mut cursors = self.cursors.borrow_mut();
        let cursor = cursors
            .entry(std::ptr::from_ref(split).addr())
            .or_insert_with(|| WeightedCursor::new(split.total_weight()));
        split.pick(cursor.next())
    }

    pub(in crate::proxy) fn series(
        &self,
        worker: &Worker,
        listener: &Arc<HttpListener>,
        rule: Option<&Arc<RouteRule>>,
        backend: Option<&Backend>,
    ) -> Arc<RequestSeries> {
        let key = [
            Arc::as_ptr(listener).addr(),
            rule.map_or(0, |rule| Arc::as_ptr(rule).addr()),
            backend.map_or(0, |backend| std::ptr::from_ref(backend).addr()),
        ];
        self.series_by_key(key, || {
            worker.series(RequestLabels {
                gateway: Arc::clone(&listener.gateway),
                listener: Arc::clone(&listener.name),
                route: rule.map(|rule| Arc::clone(&rule.id.route)).unwrap_or_default(),
                rule: rule.map(|rule| Arc::clone(&rule.id.rule)).unwrap_or_default(),
                backend: backend_label(backend),
            })
        })
    }

    /// The series of the connections of a listener to one backend.
    pub(in crate::proxy) fn stream_series(
        &self,
        worker: &Worker,
        rule: &Arc<StreamRule>,
        backend: Option<&Backend>,
    ) -> Arc<RequestSeries> {
        let backend_address = backend.map_or(0, |backend| std::ptr::from_ref(backend).addr());
        self.series_by_key([Arc::as_ptr(rule).addr(), 0, backend_address], || {
            let id = rule.route.as_ref().map(|route| &route.id);
            let series = worker.series(RequestLabels {
                gateway: Arc::clone(&rule.gateway),
                listener: Arc::clone(&rule.listener),
                route: id.map(|id| Arc::clone(&id.route)).unwrap_or_default(),
                rule: id.map(|id| Arc::clone(&id.rule)).unwrap_or_default(),
                backend: backend_label(backend),
            });
            series.mark_as_streams();
            series
        })
    }

    fn series_by_key(&self, key: [usize; 3], find: impl FnOnce() -> Arc<RequestSeries>) -> Arc<RequestSeries> {
        if let Some(series) = self.series.borrow().get(&key) {
            return Arc::clone(series);
        }
        let series = find();
        self.series.borrow_mut().insert(key, Arc::clone(&series));
        series
    }
}

/// The upstream of a backend; empty if there is none.
fn backend_label(backend: Option<&Backend>) -> Arc<str> {
    match backend.map(|backend| &backend.target) {
        Some(BackendTarget::Upstream(upstream)) => upstream.key.to_string().into(),
        Some(BackendTarget::Fail(_)) | None => Arc::default(),
    }
}

/// Walks `0..total` in steps that are coprime to `total` and near its golden ratio. Every number occurs once per round,
/// and consecutive numbers are far apart, so a backend with a large weight does not get its requests in a row.
struct WeightedCursor {
    position: Cell<u64>,
    step: u64,
    total: u64,
}

impl WeightedCursor {
    /// Starts at random, so that workers are not synchronized and a new snapshot does not favor the first backend.
    fn new(total: u64) -> Self {
        let golden = (total as f64 * 0.618_033_988_749_895) as u64;
        let step = (golden.max(1)..).find(|step| gcd(*step, total) == 1).unwrap_or(1);
        WeightedCursor { position: Cell::new(fastrand::u64(..total)), step, total }
    }

    fn next(&self) -> u64 {
        let position = (self.position.get() + self.step) % self.total;
        self.position.set(position);
        position
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
        let bind = || Arc::new(Bind::with_http(HostMap::new([]), None));
        Arc::new(Snapshot {
            binds: ports.map(|port| (BindAddress::tcp(([127, 0, 0, 1], port).into()), bind())).collect(),
            ..Snapshot::default()
        })
    }

    #[test]
    fn removed_binds_are_kept_until_closed() {
        let port = |port: u16| BindAddress::tcp(([127, 0, 0, 1], port).into());
        let view = SnapshotView::new(snapshot(1..200)).next(snapshot(1..100)).next(snapshot(1..1));
        assert!((1..200).all(|number| view.bind(&port(number)).is_some()));
        let view = view.without_retired(|address| address.socket.port() > 1).unwrap();
        assert!(view.bind(&port(1)).is_some() && view.bind(&port(2)).is_none());
        assert!(view.without_retired(|address| address.socket.port() > 1).is_none(), "no such retired bind");
        assert!(view.next(snapshot(1..2)).retired.is_empty(), "the address is in the snapshot again");
        let same_addresses = Arc::new(Snapshot { binds: view.snapshot.binds.clone(), ..Snapshot::default() });
        assert!(view.next(same_addresses).bind(&port(1)).is_some(), "its connections are still open");
    }

    #[test]
    fn weights_are_exact_over_a_round() {
        for total in [1, 2, 3, 4, 5, 10, 97, 100, 1000, 1024] {
            let cursor = WeightedCursor::new(total);
            for _ in 0..2 {
                let mut seen: Vec<_> = (0..total).map(|_| cursor.next()).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..total).collect::<Vec<_>>(), "{total}");
            }
        }
    }

    #[test]
    fn weights_are_spread_within_a_round() {
        let cursor = WeightedCursor::new(100);
        for _ in 0..100 {
            let tenth = (0..10).filter(|_| cursor.next() < 50).count();
            assert!((3..=7).contains(&tenth), "half of the weight got {tenth} of 10 requests");
        }
    }
}
