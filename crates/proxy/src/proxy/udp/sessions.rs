//! The sessions of one worker: which session a datagram belongs to, new sessions, and those that end because they are
//! idle or too many.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::receive_buffers::{Datagram, ReceiveBuffers};
use super::recency_map::RecencyMap;
use super::session::{self, Forwarded, Session, SessionEndpoint, SessionKey, SessionTarget};
use super::socket::UdpListener;
use crate::proxy::client_counts::ClientLimitReached;
use crate::proxy::http::exchange::http_worker::HttpWorker;
use crate::proxy::stream::{AssignedStream, StreamLog};
use crate::proxy::telemetry::stats::{DatagramDrop, RequestSeries, StreamOutcome};
use crate::proxy::worker::Worker;
use crate::proxy::worker::snapshot_view::SnapshotView;
use crate::snapshot::Served;
use crate::snapshot::stream::StreamRule;
use crate::upstream::{Admission, Alternatives, EndpointChoice, NoEndpoint, Upstream};

pub(super) struct UdpSessions {
    http: Rc<HttpWorker>,
    table: RefCell<RecencyMap<SessionKey, Rc<Session>>>,
    /// The maximum number of sessions of this worker.
    limit: usize,
    /// Notified when there is a session again.
    first: Notify,
    pub(super) buffers: RefCell<ReceiveBuffers>,
}

/// Where the datagrams of a listener go.
pub(super) struct Routing<'a> {
    pub(super) listener: &'a Rc<UdpListener>,
    view: &'a SnapshotView,
    pub(super) rule: &'a Arc<StreamRule>,
    pub(super) now: Instant,
}

impl UdpSessions {
    pub(super) fn new(http: Rc<HttpWorker>) -> Rc<Self> {
        let limit = http.worker.limits.max_udp_sessions.div_ceil(http.worker.worker_count()).max(1);
        Rc::new(UdpSessions {
            http,
            table: RefCell::default(),
            limit,
            first: Notify::new(),
            buffers: RefCell::new(ReceiveBuffers::new()),
        })
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.http.worker
    }

    pub(super) fn count_drop(&self, reason: DatagramDrop) {
        self.worker().counters.dropped_datagrams.add(reason);
    }

    /// Receives and forwards up to this number of batches; fewer if no more have arrived.
    pub(super) fn receive(self: &Rc<Self>, listener: &Rc<UdpListener>, batches: usize) -> io::Result<()> {
        let mut buffers = self.buffers.borrow_mut();
        let view = self.worker().view();
        let rule = view.bind(&listener.address).and_then(|bind| match &bind.served {
            Served::Udp(rule) => Some(rule),
            Served::Http(_) | Served::Tcp(_) => None,
        });
        for _ in 0..batches {
            let datagrams = match listener.receive(&mut buffers) {
                Ok(datagrams) => datagrams,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            for datagram in datagrams {
                match rule {
                    Some(rule) => self.forward(&Routing { listener, view: &view, rule, now }, &datagram),
                    None => self.count_drop(DatagramDrop::NoRoute),
                }
            }
        }
        Ok(())
    }

    /// Forwards a datagram in its session, or in a new one if there is none to which the configuration still applies.
    fn forward(self: &Rc<Self>, routing: &Routing<'_>, datagram: &Datagram<'_>) {
        // Also in a known session, which may be older than the listener.
        if routing.view.snapshot.own_udp_listeners.contains(datagram.source) {
            return self.count_drop(DatagramDrop::OwnSource);
        }
        let local = routing.listener.local_address(datagram);
        let key = SessionKey { listener: routing.listener.number, client: datagram.source, local };
        let mut refused = None;
        if let Some(session) = self.find(&key) {
            if !session.is_admitted(routing.rule) {
                self.end(&session, StreamOutcome::PluginRejected);
                return self.count_drop(DatagramDrop::PluginRejected);
            }
            if session.applies_to(routing.rule) {
                self.touch(&session, routing.now);
                match session.forward(datagram.bytes, routing.now) {
                    Forwarded::Sent => return,
                    Forwarded::Dropped(reason) => return self.count_drop(reason),
                    Forwarded::Refused(address) => {
                        refused = Some(address);
                        self.end(&session, StreamOutcome::ConnectionRefused);
                    }
                }
            } else {
                self.reassign(&session, routing.now);
            }
        }
        match self.open(routing, key, refused) {
            // An endpoint cannot have refused anything yet.
            Ok(session) => match session.forward(datagram.bytes, routing.now) {
                Forwarded::Dropped(reason) => self.count_drop(reason),
                Forwarded::Sent | Forwarded::Refused(_) => {}
            },
            Err(reason) => self.count_drop(reason),
        }
    }

    fn find(&self, key: &SessionKey) -> Option<Rc<Session>> {
        let table = self.table.borrow();
        table.get(table.find(key)?).cloned()
    }

    /// Opens a session: picks a backend by weight, and an endpoint other than the one that has just refused a datagram.
    fn open(
        self: &Rc<Self>,
        routing: &Routing<'_>,
        key: SessionKey,
        refused: Option<SocketAddr>,
    ) -> Result<Rc<Session>, DatagramDrop> {
        let assigned = AssignedStream::new(self.worker(), routing.view, routing.rule);
        let client = key.client.ip();
        let upstream = match assigned.upstream_for(client) {
            Ok(upstream) => Some(upstream),
            Err(StreamOutcome::InvalidBackend) => None,
            Err(outcome) => return Err(DatagramDrop::of_outcome(outcome)),
        };
        // Before a socket is opened.
        let permit = self.worker().udp_clients.admit(client).map_err(|ClientLimitReached| DatagramDrop::ClientLimit)?;
        let target = match upstream {
            None => SessionTarget::Invalid,
            Some(assigned) => {
                let alternatives = assigned.alternatives();
                let (upstream, admission) = admit(assigned, alternatives.as_deref())?;
                let choice = EndpointChoice {
                    avoid: refused.as_slice(),
                    pinned: None,
                    hash: upstream.client_hash(client),
                    may_repeat: true,
                    is_repeatable: true,
                };
                let picked = self.http.pools.pick(upstream, &choice).map_err(|reason| match reason {
                    NoEndpoint::OverLimit => DatagramDrop::OverLimit,
                    NoEndpoint::None | NoEndpoint::Unavailable => DatagramDrop::NoEndpoints,
                })?;
                let address = picked.address;
                let connected = SessionEndpoint::connect(assigned, upstream, address, admission);
                let endpoint = connected.map_err(|error| {
                    if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE)) {
                        self.evict_oldest();
                    }
                    DatagramDrop::of_error(&error)
                })?;
                // The compiler leaves out such endpoints, but does not resolve names.
                if endpoint.is_at(&routing.view.snapshot.binds) {
                    return Err(DatagramDrop::Loop);
                }
                SessionTarget::Endpoint(endpoint)
            }
        };
        while self.table.borrow().len() >= self.limit {
            self.evict_oldest();
        }
        let session = Session::new(key, routing, target, permit);
        Ok(self.add(session, Arc::clone(&assigned.series), assigned.log(None)))
    }

    fn add(
        self: &Rc<Self>,
        session: Rc<Session>,
        series: Arc<RequestSeries>,
        log: Option<Box<StreamLog>>,
    ) -> Rc<Session> {
        let mut table = self.table.borrow_mut();
        if table.len() == 0 {
            self.first.notify_one();
        }
        session.slot.set(Some(table.insert(session.key, Rc::clone(&session))));
        // The task ends with the session.
        tokio::task::spawn_local(session::run(Rc::clone(&session), Rc::clone(self), series, log));
        session
    }

    /// Records that a session was used.
    pub(super) fn touch(&self, session: &Session, now: Instant) {
        session.last_used.set(now);
        if let Some(slot) = session.slot.get() {
            self.table.borrow_mut().touch(slot);
        }
    }

    /// Removes a session from the table.
    pub(super) fn remove(&self, session: &Session) {
        session.release_permit();
        if let Some(slot) = session.slot.take() {
            self.table.borrow_mut().remove(slot);
        }
    }

    fn end(&self, session: &Session, outcome: StreamOutcome) {
        self.remove(session);
        session.finish(outcome);
    }

    /// Ends a session to which the configuration does not apply any more, after the reply that its client waits for.
    /// The next datagram of the client belongs to another session.
    fn reassign(&self, session: &Session, now: Instant) {
        session.release_permit();
        if let Some(slot) = session.slot.get() {
            self.table.borrow_mut().forget_key(slot);
        }
        session.finish_after_reply(StreamOutcome::Reassigned, now);
    }

    fn oldest(&self) -> Option<Rc<Session>> {
        self.table.borrow().oldest().cloned()
    }

    /// Ends the session that has been idle for longest: a new one must not wait for others to end.
    fn evict_oldest(&self) {
        if let Some(session) = self.oldest() {
            self.end(&session, StreamOutcome::SessionLimit);
        }
    }

    /// Ends sessions that have been idle for too long, forever.
    pub(super) async fn end_idle(self: Rc<Self>) {
        let timeout = self.worker().limits.udp_idle_timeout;
        loop {
            let Some(session) = self.oldest() else {
                self.first.notified().await;
                continue;
            };
            let deadline = session.last_used.get() + timeout;
            if deadline <= Instant::now() {
                self.end(&session, StreamOutcome::Completed);
            } else {
                drop(session);
                // Sessions that are used or opened meanwhile end later.
                sleep_until(deadline).await;
            }
        }
    }

    /// Whether a session of these listeners may get a reply to a datagram of this time.
    pub(super) fn has_in_flight(&self, listeners: &[u64], within: Duration) -> bool {
        let table = self.table.borrow();
        table.values().any(|session| listeners.contains(&session.key.listener) && session.is_in_flight(within))
    }

    /// Whether a session was used within this time.
    pub(super) fn is_active(&self, within: Duration) -> bool {
        self.table.borrow().newest().is_some_and(|session| session.last_used.get().elapsed() < within)
    }

    /// Ends the sessions of a closed listener, and returns how many were used within this time.
    pub(super) fn end_of_listener(&self, listener: u64, within: Duration) -> usize {
        let table = self.table.borrow();
        let sessions: Vec<_> =
            table.values().filter(|session| session.key.listener == listener).map(Rc::clone).collect();
        drop(table);
        let is_active = |session: &Rc<Session>| session.last_used.get().elapsed() < within;
        let active = sessions.iter().filter(|session| is_active(session)).count();
        for session in sessions {
            let outcome = if is_active(&session) { StreamOutcome::ListenerClosed } else { StreamOutcome::Completed };
            self.end(&session, outcome);
        }
        active
    }
}

/// Admits a session to the upstream, or to one that takes its place. A session does not wait until others end.
fn admit<'u>(
    assigned: &'u Arc<Upstream>,
    alternatives: Option<&'u Alternatives>,
) -> Result<(&'u Arc<Upstream>, Admission), DatagramDrop> {
    let in_place = alternatives.and_then(|alternatives| alternatives.in_place_of(assigned));
    let upstream = in_place.unwrap_or(assigned);
    let fallback = alternatives.and_then(|alternatives| alternatives.circuit_fallback.as_ref());
    let admitted = match (upstream.admit_session(), fallback) {
        (Err(overloaded), Some(fallback)) if overloaded.has_fallback() && in_place.is_none() => {
            fallback.admit_session().map(|admission| (fallback, admission))
        }
        (admitted, _) => admitted.map(|admission| (upstream, admission)),
    };
    admitted.map_err(|overloaded| DatagramDrop::of_outcome(overloaded.into()))
}
