//! A session: the datagrams of one client and the replies of one endpoint.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::sessions::{Routing, UdpSessions};
use super::socket::UdpListener;
use crate::bind_address::BindAddress;
use crate::plugin_api::StreamDecision;
use crate::proxy::client_counts::ClientPermit;
use crate::proxy::stream::{ConnectionRecord, StreamLog, outcome_of};
use crate::proxy::telemetry::stats::{DatagramDrop, OpenGuard, RequestSeries, StreamOutcome};
use crate::snapshot::BindMap;
use crate::snapshot::rule::BackendTarget;
use crate::snapshot::stream::{StreamAction, StreamRoute, StreamRule};
use crate::upstream::{ActiveRequest, Admission, LocalShortage, Outcome, OutcomeClass, OutcomeObservers, Upstream};

/// What distinguishes the sessions of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionKey {
    /// The number of the listener.
    pub(super) listener: u64,
    pub(super) client: SocketAddr,
    /// The address that the client sends to, if the listener has several.
    pub(super) local: Option<IpAddr>,
}

pub(super) struct Session {
    pub(super) key: SessionKey,
    /// Weak, so that the socket closes with its listener.
    listener: Weak<UdpListener>,
    target: SessionTarget,
    /// The route whose plugins have admitted the client.
    admitted_by: RefCell<Option<Arc<StreamRoute>>>,
    /// Counts the session for its client, until another one may take its place.
    permit: Cell<Option<ClientPermit>>,
    /// When a datagram was last forwarded in either direction.
    pub(super) last_used: Cell<Instant>,
    /// Whether the endpoint has not replied since the client's last datagram.
    awaits_reply: Cell<bool>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    end: Cell<Option<SessionEnd>>,
    /// Notified when `end` is set.
    ended: Notify,
    /// The place in the table of sessions; None once it was removed.
    pub(super) slot: Cell<Option<usize>>,
}

pub(super) enum SessionTarget {
    Endpoint(SessionEndpoint),
    /// An invalid backend, which keeps its share of the sessions. Their datagrams are dropped.
    Invalid,
}

/// The endpoint of a session, with a connected socket, which receives from that endpoint only.
pub(super) struct SessionEndpoint {
    /// The upstream of the rule.
    assigned: Arc<Upstream>,
    /// The same one, or the alternative that has taken its place.
    upstream: Arc<Upstream>,
    address: SocketAddr,
    socket: UdpSocket,
    /// Counts the session for least-requests balancing.
    _active_request: Option<ActiveRequest>,
    /// Counts the session for the limits of the upstream.
    admission: RefCell<Admission>,
    /// What the session has shown to the circuit breaker.
    shown: Cell<Shown>,
}

/// What a session has shown about its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Datagrams are sent without a reply, or are lost.
    Nothing,
    Reply,
    Failure,
}

/// When a session ends, and its outcome.
#[derive(Clone, Copy)]
enum SessionEnd {
    Now(StreamOutcome),
    /// At the next reply, or at this time.
    AfterReply(StreamOutcome, Instant),
}

/// What happened to a datagram of a client.
pub(super) enum Forwarded {
    Sent,
    Dropped(DatagramDrop),
    /// The endpoint has refused an earlier datagram, so this one was not sent.
    Refused(SocketAddr),
}

/// What remains to be done after some replies.
enum Progress {
    Drained,
    More,
    Ended(StreamOutcome),
}

impl SessionEndpoint {
    /// Opens a socket to an endpoint of `upstream`, which is `assigned` or takes its place.
    pub(super) fn connect(
        assigned: &Arc<Upstream>,
        upstream: &Arc<Upstream>,
        address: SocketAddr,
        admission: Admission,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.connect(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let active_request = upstream.active_request(address);
        Ok(SessionEndpoint {
            assigned: Arc::clone(assigned),
            upstream: Arc::clone(upstream),
            address,
            socket,
            _active_request: active_request,
            admission: RefCell::new(admission),
            shown: Cell::new(Shown::Nothing),
        })
    }

    /// The endpoint has replied. The first reply counts for the circuit breaker.
    fn report_reply(&self) {
        self.upstream.report(self.address, &Outcome::of(OutcomeClass::Responded));
        if self.shown.get() == Shown::Nothing {
            self.show(Shown::Reply, OutcomeClass::Responded);
        }
    }

    /// The endpoint refuses datagrams, or its socket has failed. Counts once, since the session ends.
    fn report_failure(&self) {
        self.upstream.report(self.address, &Outcome::of(OutcomeClass::ConnectFailed));
        if self.shown.get() != Shown::Failure {
            self.show(Shown::Failure, OutcomeClass::ConnectFailed);
        }
    }

    /// The session has ended. Without a reply, as in protocols that have none, the absence of an error is a success.
    fn report_end(&self) {
        if self.shown.get() == Shown::Nothing {
            self.show(Shown::Reply, OutcomeClass::Responded);
        }
    }

    fn show(&self, shown: Shown, class: OutcomeClass) {
        self.shown.set(shown);
        OutcomeObservers::of_service(&self.upstream, &mut self.admission.borrow_mut()).report(&Outcome::of(class));
    }

    /// Whether datagrams to the endpoint arrive at one of these addresses of this machine.
    pub(super) fn is_at(&self, binds: &BindMap) -> bool {
        let SessionEndpoint { address, socket, .. } = self;
        let is_bound = |ip| binds.contains(&BindAddress::udp(SocketAddr::new(ip, address.port())));
        // The source of datagrams to an own address is this address, or another loopback address.
        let is_local =
            || address.ip().is_loopback() || socket.local_addr().is_ok_and(|source| source.ip() == address.ip());
        let unspecified = match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        is_bound(address.ip()) || is_bound(unspecified) && is_local()
    }

    /// Whether the upstream still has the endpoint.
    fn exists(&self) -> bool {
        self.upstream.reachable().binary_search_by_key(&self.address, |endpoint| endpoint.address).is_ok()
    }

    /// Ready when there is a reply, or an error such as an unreachable port.
    async fn readable(&self) -> io::Result<()> {
        self.socket.ready(Interest::READABLE | Interest::ERROR).await.map(drop)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = || (&*SockRef::from(&self.socket)).read(buffer);
        // `try_io` needs a single interest.
        match self.socket.try_io(Interest::READABLE, &mut read) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.try_io(Interest::ERROR, read),
            received => received,
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // Not `try_io`: whether the socket is writable is not tracked, since a datagram that does not fit is dropped.
        SockRef::from(&self.socket).send(bytes).map(drop)
    }
}

impl Session {
    pub(super) fn new(key: SessionKey, routing: &Routing<'_>, target: SessionTarget, permit: ClientPermit) -> Rc<Self> {
        Rc::new(Session {
            key,
            listener: Rc::downgrade(routing.listener),
            target,
            admitted_by: RefCell::new(routing.rule.route.clone()),
            permit: Cell::new(Some(permit)),
            last_used: Cell::new(routing.now),
            awaits_reply: Cell::new(false),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            end: Cell::new(None),
            ended: Notify::new(),
            slot: Cell::new(None),
        })
    }

    /// The client may open another session instead of this one.
    pub(super) fn release_permit(&self) {
        drop(self.permit.take());
    }

    /// Whether the plugins of the rule admit the client. They run again only if the route has changed.
    pub(super) fn is_admitted(&self, rule: &StreamRule) -> bool {
        let mut admitted_by = self.admitted_by.borrow_mut();
        let is_same = match (&*admitted_by, &rule.route) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if is_same {
            return true;
        }
        let plugins = rule.route.as_ref().and_then(|route| route.plugins.as_ref());
        let is_admitted = plugins.is_none_or(|plugins| plugins.open(self.key.client.ip()) == StreamDecision::Continue);
        admitted_by.clone_from(&rule.route);
        is_admitted
    }

    /// Whether the rule still forwards to the backend, and the endpoint still exists.
    pub(super) fn applies_to(&self, rule: &StreamRule) -> bool {
        let Some(StreamAction::Forward(split)) = rule.route.as_ref().map(|route| &route.action) else { return false };
        let has_target =
            |is_same: &dyn Fn(&BackendTarget) -> bool| split.backends().iter().any(|backend| is_same(&backend.target));
        match &self.target {
            SessionTarget::Endpoint(endpoint) => {
                let is_same = |target: &BackendTarget| match target {
                    BackendTarget::Upstream(upstream) => Arc::ptr_eq(upstream, &endpoint.assigned),
                    BackendTarget::Fail(_) => false,
                };
                has_target(&is_same) && endpoint.exists()
            }
            SessionTarget::Invalid => has_target(&|target| match target {
                BackendTarget::Fail(failure) => outcome_of(*failure) == StreamOutcome::InvalidBackend,
                BackendTarget::Upstream(_) => false,
            }),
        }
    }

    /// Forwards a datagram of the client.
    pub(super) fn forward(&self, bytes: &[u8], now: Instant) -> Forwarded {
        self.last_used.set(now);
        let endpoint = match &self.target {
            SessionTarget::Endpoint(endpoint) => endpoint,
            SessionTarget::Invalid => return Forwarded::Dropped(DatagramDrop::InvalidBackend),
        };
        match endpoint.send(bytes) {
            Ok(()) => {
                self.bytes_in.set(self.bytes_in.get() + bytes.len() as u64);
                self.awaits_reply.set(true);
                Forwarded::Sent
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                endpoint.report_failure();
                Forwarded::Refused(endpoint.address)
            }
            Err(error) => Forwarded::Dropped(DatagramDrop::of_error(&error)),
        }
    }

    /// Whether the endpoint may still reply to a datagram that it was sent within this time.
    pub(super) fn is_in_flight(&self, within: Duration) -> bool {
        self.awaits_reply.get() && self.last_used.get().elapsed() < within
    }

    /// Ends the session.
    pub(super) fn finish(&self, outcome: StreamOutcome) {
        self.end.set(Some(SessionEnd::Now(outcome)));
        self.ended.notify_one();
    }

    /// Ends the session after the reply that the client waits for.
    pub(super) fn finish_after_reply(&self, outcome: StreamOutcome, now: Instant) {
        self.end.set(Some(SessionEnd::AfterReply(outcome, now + REPLY_GRACE)));
        self.ended.notify_one();
    }

    /// Sends replies to the client until the session ends.
    async fn relay_replies(self: &Rc<Self>, sessions: &UdpSessions) -> StreamOutcome {
        loop {
            let waited = tokio::select! {
                biased;
                () = self.ended.notified() => Ok(()),
                () = self.reply_grace() => Ok(()),
                readable = self.readable() => readable,
            };
            let progress = match (&self.target, waited) {
                (SessionTarget::Invalid, _) => Progress::Drained,
                (SessionTarget::Endpoint(_), Err(_)) => Progress::Ended(StreamOutcome::EndpointReset),
                (SessionTarget::Endpoint(endpoint), Ok(())) => self.receive_replies(endpoint, sessions),
            };
            match (self.end.get(), progress) {
                (_, Progress::Ended(outcome)) | (Some(SessionEnd::Now(outcome)), _) => return outcome,
                (Some(SessionEnd::AfterReply(outcome, grace_end)), _)
                    if !self.awaits_reply.get() || Instant::now() >= grace_end =>
                {
                    return outcome;
                }
                (_, Progress::More) => yield_now().await,
                (_, Progress::Drained) => {}
            }
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match &self.target {
            SessionTarget::Endpoint(endpoint) => endpoint.readable().await,
            SessionTarget::Invalid => pending().await,
        }
    }

    async fn reply_grace(&self) {
        match self.end.get() {
            Some(SessionEnd::AfterReply(_, grace_end)) => sleep_until(grace_end).await,
            _ => pending().await,
        }
    }

    fn receive_replies(self: &Rc<Self>, endpoint: &SessionEndpoint, sessions: &UdpSessions) -> Progress {
        let mut buffers = sessions.buffers.borrow_mut();
        let buffer = buffers.single();
        for _ in 0..REPLIES_PER_TURN {
            match endpoint.receive(buffer) {
                Ok(length) => {
                    endpoint.report_reply();
                    self.reply(&buffer[..length], sessions);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Drained,
                Err(error) => {
                    if LocalShortage::of_error(&error).is_none() {
                        endpoint.report_failure();
                    }
                    let is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
                    let outcome =
                        if is_refused { StreamOutcome::ConnectionRefused } else { StreamOutcome::EndpointReset };
                    return Progress::Ended(outcome);
                }
            }
        }
        Progress::More
    }

    fn reply(self: &Rc<Self>, bytes: &[u8], sessions: &UdpSessions) {
        self.awaits_reply.set(false);
        sessions.touch(self, Instant::now());
        // After the listener was closed, the reply cannot leave from its address.
        let Some(listener) = self.listener.upgrade() else { return };
        match listener.reply(self.key.client, self.key.local, bytes) {
            Ok(()) => self.bytes_out.set(self.bytes_out.get() + bytes.len() as u64),
            Err(reason) => sessions.count_drop(reason),
        }
    }
}

/// Runs a session until it ends, and records it.
pub(super) async fn run(
    session: Rc<Session>,
    sessions: Rc<UdpSessions>,
    series: Arc<RequestSeries>,
    log: Option<Box<StreamLog>>,
) {
    let worker = sessions.worker();
    let _counted = OpenGuard::new(&worker.counters, |stats| &stats.udp_sessions);
    let server_name = None;
    let mut record = ConnectionRecord::start(worker, session.key.client, "UDP", server_name, series);
    record.log = log;
    let mut record = SessionRecord { record, session: &session };
    let outcome = session.relay_replies(&sessions).await;
    if let (SessionTarget::Endpoint(endpoint), StreamOutcome::Completed) = (&session.target, outcome) {
        endpoint.report_end();
    }
    sessions.remove(&session);
    record.record.outcome = Some(outcome);
}

/// Completes the record when it is dropped, also with the worker.
struct SessionRecord<'s> {
    record: ConnectionRecord<'s>,
    session: &'s Session,
}

impl Drop for SessionRecord<'_> {
    fn drop(&mut self) {
        self.record.bytes_in.set(self.session.bytes_in.get());
        self.record.bytes_out.set(self.session.bytes_out.get());
        if let SessionTarget::Endpoint(endpoint) = &self.session.target {
            self.record.address = Some(endpoint.address);
        }
    }
}

/// How long a session whose backend or endpoint was removed waits for a reply.
const REPLY_GRACE: Duration = Duration::from_secs(5);
/// Replies of one session before other tasks run.
const REPLIES_PER_TURN: usize = 32;
