//! The connections of one worker: kept alive per endpoint, newest first, never shared between workers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use super::http2::{Lease, Lines};
use super::socket::Heard;
use super::tls::{HandshakeFailure, Name};
use super::{ConnectFailure, Dial, Load, Protocol, Traffic, Upstream};

/// All pools of one worker. `B` is the body of requests.
pub struct Pools<B> {
    dial: Dial,
    keep: Keep,
    traffic: Arc<Traffic>,
    /// By the address of the `Upstream`, of which the pool keeps the memory so that it stays unique.
    upstreams: RefCell<HashMap<usize, Rc<Pool<B>>, foldhash::fast::FixedState>>,
}

/// How many idle connections are kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    pub per_endpoint: usize,
    pub idle: Duration,
}

/// An upstream as a request asks for it.
#[derive(Clone, Debug)]
pub struct Aim<'u> {
    pub upstream: &'u Arc<Upstream>,
    /// In TLS, the name that the endpoint is asked for: a connection made under one is not used under another.
    pub name: Option<Rc<Name>>,
}

struct Pool<B> {
    /// Weak, since every worker has such a pool: they must not keep it in use for each other.
    upstream: Weak<Upstream>,
    /// Round robin of this worker. It starts anywhere, so that workers do not move in step.
    cursor: Cell<usize>,
    idle: RefCell<HashMap<SocketAddr, Vec<Idle<B>>, foldhash::fast::FixedState>>,
    per_endpoint: usize,
    /// In place of idle ones, if the endpoints speak HTTP/2. Without TLS there is one entry, without a name.
    lines: RefCell<HashMap<SocketAddr, Vec<Named<B>>, foldhash::fast::FixedState>>,
}

type Named<B> = (Option<Rc<Name>>, Rc<Lines<B>>);

struct Idle<B> {
    sender: SendRequest<B>,
    heard: Heard,
    since: Instant,
}

/// One connection, ready for one request. Handed back with `keep` once the answer was read to its end.
pub struct Connection<B> {
    sender: Sender<B>,
    pub address: SocketAddr,
    /// What it counts for while it has a request.
    _load: Option<Load>,
    pool: Rc<Pool<B>>,
}

enum Sender<B> {
    Http1(SendRequest<B>, Heard),
    Http2(Lease<B>),
}

impl<B> Pools<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub fn new(dial: Dial, keep: Keep, traffic: Arc<Traffic>) -> Self {
        Pools { dial, keep, traffic, upstreams: RefCell::default() }
    }

    /// The endpoint whose turn it is, but none of `avoid`.
    pub fn next(&self, upstream: &Arc<Upstream>, avoid: &[SocketAddr]) -> Option<SocketAddr> {
        let pool = self.pool(upstream);
        if avoid.is_empty() {
            // Not for a further try: with two endpoints, the same one would be first for every request.
            pool.cursor.set(pool.cursor.get().wrapping_add(1));
        }
        upstream.next(pool.cursor.get(), avoid)
    }

    /// An idle connection to the endpoint, the newest, if it is younger than `age`.
    pub fn idle(&self, aim: &Aim<'_>, address: SocketAddr, age: Duration) -> Option<Connection<B>> {
        let Aim { upstream, name } = aim;
        let pool = self.pool(upstream);
        if upstream.key.protocol == Protocol::Http2 {
            // Its age says little: an endpoint that closes such a connection says what it has not seen.
            let lease = pool.lines.borrow().get(&address)?.iter().find(|(own, _)| own == name)?.1.lease()?;
            self.traffic.reused.add(1);
            let sender = Sender::Http2(lease);
            return Some(Connection { sender, address, _load: upstream.load(address), pool });
        }
        let mut endpoints = pool.idle.borrow_mut();
        let idle = endpoints.get_mut(&address)?;
        while idle.last().is_some_and(|idle| !idle.sender.is_ready()) {
            idle.pop();
        }
        // The last one, unless clients ask for several names. What lies deeper is older still, and the sweep takes it away.
        let newest = idle.iter().rposition(|idle| idle.heard.name() == name.as_deref() && idle.sender.is_ready())?;
        if idle[newest].since.elapsed() >= age.min(self.keep.idle) {
            return None;
        }
        let newest = idle.remove(newest);
        drop(endpoints);
        self.traffic.reused.add(1);
        let sender = Sender::Http1(newest.sender, newest.heard);
        Some(Connection { sender, address, _load: upstream.load(address), pool })
    }

    pub async fn connect(
        &self,
        aim: &Aim<'_>,
        address: SocketAddr,
        patience: Option<Duration>,
    ) -> Result<Connection<B>, ConnectFailure> {
        let upstream = aim.upstream;
        let longer = patience.filter(|patience| *patience > self.dial.timeout);
        let longer = longer.map(|timeout| Dial { timeout, ..self.dial.clone() });
        let dial = longer.as_ref().unwrap_or(&self.dial);
        // Before there is a connection: who connects is a request in progress, too.
        let load = upstream.load(address);
        let pool = self.pool(upstream);
        if self.dial.sockets.available_permits() == 0 {
            self.shed();
        }
        let connected = match upstream.key.protocol {
            Protocol::Http1 => {
                dial.connect(aim, address, &self.traffic).await.map(|(sender, heard)| Sender::Http1(sender, heard))
            }
            Protocol::Http2 => {
                let lines = pool.lines(address, aim.name.as_ref());
                lines.connect(dial, aim, address, &self.traffic).await.map(Sender::Http2)
            }
        };
        match &connected {
            Ok(_) => {
                upstream.succeeded(address);
                if let Some(name) = &aim.name {
                    upstream.proved(name);
                }
            }
            Err(failure) => {
                if failure.blames_endpoint(aim) {
                    upstream.failed(address);
                } else {
                    upstream.undecided(address);
                }
                if let ConnectFailure::Handshake(..) = failure {
                    tell(upstream, failure);
                }
            }
        }
        Ok(Connection { sender: connected?, address, _load: load, pool })
    }

    /// Counts a request that is sent again.
    pub fn replayed(&self) {
        self.traffic.replayed.add(1);
    }

    /// Counts a further try that a rule asks for.
    pub fn retried(&self) {
        self.traffic.retried.add(1);
    }

    /// Closes connections that were idle for too long or whose endpoint is gone, and forgets upstreams nobody uses.
    pub fn sweep(&self) {
        self.upstreams.borrow_mut().retain(|_, pool| {
            let Some(upstream) = pool.upstream.upgrade() else { return false };
            let reachable = upstream.reachable();
            let mut endpoints = pool.idle.borrow_mut();
            endpoints.retain(|address, idle| {
                let current = reachable.binary_search_by_key(address, |endpoint| endpoint.address).is_ok();
                idle.retain(|idle| current && !idle.sender.is_closed() && idle.since.elapsed() < self.keep.idle);
                !idle.is_empty()
            });
            pool.lines.borrow_mut().retain(|address, named| {
                let current = reachable.binary_search_by_key(address, |endpoint| endpoint.address).is_ok();
                sweep(named, current, self.keep.idle);
                !named.is_empty()
            });
            true
        });
    }

    /// Closes an idle connection, since somebody needs its place.
    fn shed(&self) {
        for pool in self.upstreams.borrow().values() {
            let mut endpoints = pool.idle.borrow_mut();
            if let Some(idle) = endpoints.values_mut().find(|idle| !idle.is_empty()) {
                // The oldest of them.
                idle.remove(0);
                return;
            }
        }
    }

    fn pool(&self, upstream: &Arc<Upstream>) -> Rc<Pool<B>> {
        let mut upstreams = self.upstreams.borrow_mut();
        let pool = upstreams.entry(Arc::as_ptr(upstream).addr()).or_insert_with(|| {
            Rc::new(Pool {
                upstream: Arc::downgrade(upstream),
                cursor: Cell::new(fastrand::usize(..)),
                idle: RefCell::default(),
                per_endpoint: self.keep.per_endpoint,
                lines: RefCell::default(),
            })
        });
        Rc::clone(pool)
    }
}

impl<B: Body + 'static> Connection<B> {
    /// Sends the request. If not a byte of it was sent, the error gives it back.
    pub fn send(
        &mut self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>> + use<B> {
        match &mut self.sender {
            Sender::Http1(sender, heard) => {
                heard.ask();
                Either::Left(sender.try_send_request(request))
            }
            Sender::Http2(lease) => Either::Right(lease.sender().try_send_request(request)),
        }
    }

    /// Whether a byte of the answer has come. Only told of connections that are not shared.
    pub fn has_begun_to_answer(&self) -> bool {
        matches!(&self.sender, Sender::Http1(_, heard) if heard.has_begun())
    }

    /// Whether the endpoint ended it with an alert of TLS instead of an answer: of TLS 1.3 it says only now that it does not want
    /// us. Only told of connections that are not shared.
    pub fn was_refused(&self) -> bool {
        let refused = matches!(&self.sender, Sender::Http1(_, heard) if heard.was_refused());
        if let (true, Some(upstream)) = (refused, self.pool.upstream.upgrade()) {
            tell(&upstream, &ConnectFailure::Handshake(self.address, HandshakeFailure::Afterwards));
        }
        refused
    }

    /// Whether other requests share it.
    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Gives the connection back for the next request, if it can take one.
    pub fn keep(self) {
        let Connection { sender, address, pool, .. } = self;
        // A place on a shared connection is given back by dropping it.
        let Sender::Http1(mut sender, heard) = sender else { return };
        if sender.is_closed() {
            return;
        }
        if sender.is_ready() {
            pool.store(address, sender, heard);
            return;
        }
        // The answer is complete but the request is still being written. The task lives no longer than the connection,
        // and that no longer than the peer and the body of the request let it.
        tokio::task::spawn_local(async move {
            if sender.ready().await.is_ok() {
                pool.store(address, sender, heard);
            }
        });
    }
}

impl<B> Pool<B> {
    /// If the pool was swept away meanwhile, the connection ends with it here.
    fn store(&self, address: SocketAddr, sender: SendRequest<B>, heard: Heard) {
        let mut endpoints = self.idle.borrow_mut();
        let idle = endpoints.entry(address).or_default();
        if heard.name().is_some() && idle.len() >= self.per_endpoint && !idle.is_empty() {
            // Names that nobody asks for again must not keep out those that everybody asks for.
            idle.remove(0);
        }
        if idle.len() < self.per_endpoint {
            idle.push(Idle { sender, heard, since: Instant::now() });
        }
    }

    /// Where requests under this name share connections.
    fn lines(&self, address: SocketAddr, name: Option<&Rc<Name>>) -> Rc<Lines<B>> {
        let mut endpoints = self.lines.borrow_mut();
        let named = endpoints.entry(address).or_default();
        if let Some((_, lines)) = named.iter().find(|(own, _)| own.as_ref() == name) {
            return Rc::clone(lines);
        }
        if named.len() >= NAMES {
            sweep(named, true, Duration::MAX);
        }
        if named.len() >= NAMES {
            // A client can make up as many as it likes. One that nobody has asked for in a long time can be opened again; what
            // others use stays, so each costs the client a connection and nobody else more than one.
            let idle = named.iter().enumerate().filter_map(|(index, (_, lines))| Some((lines.idle_since()?, index)));
            if let Some((_, longest)) = idle.min() {
                named.remove(longest);
            }
        }
        let lines = Rc::default();
        named.push((name.cloned(), Rc::clone(&lines)));
        lines
    }
}

/// Closes what was idle for too long, or all if the endpoint is gone.
fn sweep<B>(named: &mut Vec<Named<B>>, current: bool, idle: Duration) {
    named.retain(|(_, lines)| {
        lines.sweep(current, idle);
        !lines.is_empty()
    });
}

/// Now and then, since every request may find out about it.
fn tell(upstream: &Upstream, failure: &ConnectFailure) {
    if upstream.is_to_be_told() {
        tracing::warn!(upstream = %upstream.key, error = %failure, "Cannot speak TLS to an endpoint");
    }
}

/// Names per endpoint under which connections of HTTP/2 are kept while nobody uses them.
const NAMES: usize = 64;
