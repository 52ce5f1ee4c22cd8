//! Probes of endpoints to which no connection can be opened, apart from requests: otherwise each probe would cost a
//! client a failure, and an endpoint that works again would wait for a request.
//!
//! Also compares the rates of failures in each interval, where that is configured.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::error;

use crate::endpoint_tls::UpstreamServerName;
use crate::upstream::connect::{ConnectionTls, StreamOpener};
use crate::upstream::upstream::ProbeOrder;
use crate::upstream::{ConnectError, OwnSockets, Upstream, UpstreamKey, UpstreamRegistry};

/// The probes of a process. They belong to one thread.
pub(super) struct ConnectProbes {
    registry: Arc<UpstreamRegistry>,
    own_sockets: Arc<OwnSockets>,
    /// The probes that may run at a time.
    permits: Rc<Semaphore>,
    due: BinaryHeap<Reverse<Due>>,
    running: JoinSet<(UpstreamKey, ProbeOrder)>,
    /// The detectors whose rates are compared.
    swept: HashSet<usize>,
    /// Distinguishes jobs that are due at the same time.
    next_number: u64,
}

/// When a job is due.
struct Due {
    at: Instant,
    number: u64,
    job: Job,
}

/// What is due. The upstream is looked up each time: one with other settings may have replaced it, with the same
/// endpoints.
enum Job {
    Probe(UpstreamKey, ProbeOrder),
    /// Compare the rates of this detector.
    Sweep(UpstreamKey, usize),
}

impl ConnectProbes {
    /// Probes the endpoints of all upstreams of the registry. Does not end. Must be called in a `LocalSet`.
    pub(super) async fn run(registry: Arc<UpstreamRegistry>, own_sockets: Arc<OwnSockets>) {
        let queue = Arc::clone(registry.begin_probing());
        let mut probes = ConnectProbes {
            registry,
            own_sockets,
            permits: Rc::new(Semaphore::new(MAX_PROBES)),
            due: BinaryHeap::new(),
            running: JoinSet::new(),
            swept: HashSet::new(),
            next_number: 0,
        };
        loop {
            let next_due = probes.due.peek().map(|Reverse(due)| due.at);
            let next_job = async {
                match next_due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = queue.take() => changed.iter().for_each(|key| probes.update(key)),
                Some(ended) = probes.running.join_next() => match ended {
                    Ok((key, order)) => probes.plan(key, order),
                    // The endpoint is probed again after the next failure of a connection.
                    Err(failure) => error!(%failure, "A probe has failed to run; please report this bug"),
                },
                () = next_job => probes.begin(),
            }
        }
    }

    /// Plans what a change of an upstream requires. An upstream that was replaced meanwhile shares its endpoints with
    /// the one that has replaced it.
    fn update(&mut self, key: &UpstreamKey) {
        for upstream in self.registry.of_service(key) {
            for order in upstream.take_probe_orders() {
                self.push(upstream.probe_delay(&order), Job::Probe(upstream.key.clone(), order));
            }
            let detector = upstream.detector();
            if let Some(interval) = upstream.sweep_interval()
                && self.swept.insert(detector)
            {
                self.push(interval, Job::Sweep(upstream.key.clone(), detector));
            }
        }
    }

    /// Plans the next probe of an endpoint after one has ended, if it still needs one.
    fn plan(&mut self, key: UpstreamKey, order: ProbeOrder) {
        if !order.is_current() {
            return;
        }
        match self.find(&key, &order) {
            Some(upstream) => {
                let delay = upstream.probe_delay(&order).max(MIN_REPETITION);
                self.push(delay, Job::Probe(upstream.key.clone(), order));
            }
            None => order.give_back(),
        }
    }

    fn push(&mut self, delay: Duration, job: Job) {
        self.next_number += 1;
        self.due.push(Reverse(Due { at: Instant::now() + delay, number: self.next_number, job }));
    }

    /// The upstream that has this endpoint now.
    fn find(&self, key: &UpstreamKey, order: &ProbeOrder) -> Option<Arc<Upstream>> {
        let has_endpoint = |upstream: &Arc<Upstream>| upstream.has_probed(order);
        let same = self.registry.get(key).filter(has_endpoint);
        same.or_else(|| self.registry.of_service(key).into_iter().find(has_endpoint))
    }

    /// Begins all jobs that are due.
    fn begin(&mut self) {
        let now = Instant::now();
        while self.due.peek().is_some_and(|Reverse(due)| due.at <= now) {
            match self.due.pop().map(|Reverse(due)| due.job) {
                Some(Job::Probe(key, order)) => self.begin_probe(key, order),
                Some(Job::Sweep(key, detector)) => self.sweep(key, detector),
                None => return,
            }
        }
    }

    fn begin_probe(&mut self, key: UpstreamKey, order: ProbeOrder) {
        if !order.is_current() {
            return;
        }
        let Some(upstream) = self.find(&key, &order) else { return order.give_back() };
        let (permits, own_sockets) = (Rc::clone(&self.permits), Arc::clone(&self.own_sockets));
        self.running.spawn_local(async move {
            let _permit = permits.acquire().await;
            // It may have waited for others.
            if order.is_current() {
                match probe(&upstream, order.address, &own_sockets).await {
                    Ok(()) => upstream.record_connected(order.address),
                    // Nothing is known about the endpoint.
                    Err(error) if error.is_shortage() => {}
                    Err(error) => upstream.report_unreachable(order.address, None, &error),
                }
            }
            (upstream.key.clone(), order)
        });
    }

    fn sweep(&mut self, key: UpstreamKey, detector: usize) {
        let of_service = self.registry.of_service(&key);
        let upstream = of_service.into_iter().find(|upstream| upstream.detector() == detector);
        let next = upstream.and_then(|upstream| {
            upstream.sweep_endpoints();
            Some((upstream.sweep_interval()?, upstream.key.clone()))
        });
        match next {
            Some((interval, key)) => self.push(interval, Job::Sweep(key, detector)),
            None => {
                self.swept.remove(&detector);
            }
        }
    }
}

/// Opens a connection as requests do, with a TLS handshake if its server name is known, and closes it. The time is not
/// that of a rule, which may wait for minutes.
async fn probe(upstream: &Upstream, address: SocketAddr, own_sockets: &OwnSockets) -> Result<(), ConnectError> {
    let proxy_header = upstream.key.proxy_protocol.map(|version| version.header_without_client()).unwrap_or_default();
    let probed_name = upstream.probed_name();
    let server_name = upstream.key.tls.as_ref().and_then(|tls| tls.server_name(probed_name.as_ref()));
    let tls = upstream.tls_client.as_ref().zip(server_name.as_deref());
    let tls = tls.map(|(client, name)| ConnectionTls {
        client,
        server_name: Some::<&UpstreamServerName>(name),
        has_begun: None,
    });
    let limit = if tls.is_some() { MAX_TLS_TIME } else { MAX_TCP_TIME };
    let opener = StreamOpener { timeout: limit, own_sockets };
    let opened = timeout(limit, opener.open(address, &proxy_header, tls, &Cell::default())).await;
    match opened.unwrap_or(Err(ConnectError::TimedOut(address, limit))) {
        Ok(_) => Ok(()),
        // It performs handshakes, and this one depends on the name: requests with others may succeed.
        Err(ConnectError::TlsHandshake(_, error)) if !error.ejects_endpoint(true) => Ok(()),
        Err(error) => Err(error),
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// How many probes run at a time.
const MAX_PROBES: usize = 128;
/// The shortest delay between two probes of an endpoint.
const MIN_REPETITION: Duration = Duration::from_millis(200);
/// How long a probe may take, with a TLS handshake and without.
const MAX_TLS_TIME: Duration = Duration::from_secs(3);
const MAX_TCP_TIME: Duration = Duration::from_secs(1);
