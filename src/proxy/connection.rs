//! One connection of a client, from its first request to its close.
//!
//! ```text
//!   ClientStream ─ hyper ─ request::serve        one task; every wake polls all of it
//!         └────── Activity ──────┘ ◀─ one timer: idle, slow head, slow answer, stall
//! ```

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{Activity, Phase};
use super::client_stream::ClientStream;
use super::group::{Group, Membership};
use super::headers::Client;
use super::http2::{self, Open};
use super::refusal::{linger, refuse};
use super::request;
use super::rewound::Rewound;
use super::tls::Session;
use super::transport::Transport;
use super::upgrade::Tunnel;
use super::worker::Worker;
use crate::plugin::Scheme;

/// One client, and what its requests need to know about it. On HTTP/2 each stream has its own, since it is doing something of
/// its own.
pub(crate) struct Peer {
    pub(crate) worker: Rc<Worker>,
    pub(crate) group: Rc<Group>,
    pub(crate) activity: Activity,
    pub(crate) address: SocketAddr,
    pub(crate) client: Rc<Client>,
    /// What was agreed on, if the connection is TLS.
    pub(crate) session: Option<Rc<Session>>,
    /// Counts the stream, on HTTP/2.
    _stream: Option<Open>,
    /// What the connection becomes after the present answer.
    pub(crate) tunnel: Cell<Option<Box<Tunnel>>>,
}

impl Peer {
    /// `address` is the client's, as far as it is known.
    pub(crate) fn new(worker: Rc<Worker>, group: Rc<Group>, address: SocketAddr, session: Option<Session>) -> Self {
        let ip = address.ip().to_canonical();
        let trusted = worker.trusted.iter().any(|network| network.contains(&ip));
        Peer {
            worker,
            group,
            activity: Activity::new(),
            address,
            client: Rc::new(Client::new(ip, trusted, if session.is_some() { Scheme::Https } else { Scheme::Http })),
            session: session.map(Rc::new),
            _stream: None,
            tunnel: Cell::default(),
        }
    }

    /// The same client on a new stream of the same connection.
    pub(crate) fn stream(&self, stream: Open) -> Self {
        Peer {
            worker: Rc::clone(&self.worker),
            group: Rc::clone(&self.group),
            activity: Activity::new(),
            address: self.address,
            client: Rc::clone(&self.client),
            session: self.session.clone(),
            _stream: Some(stream),
            tunnel: Cell::default(),
        }
    }
}

/// Serves all requests of a connection.
pub(crate) async fn serve(transport: Transport, peer: Rc<Peer>, mut membership: Membership) {
    let stream = ClientStream::new(transport, Rc::clone(&peer));
    let service = {
        let peer = Rc::clone(&peer);
        service_fn(move |request| request::serve(Rc::clone(&peer), request))
    };
    let mut http = peer.worker.http.serve_connection(TokioIo::new(stream), service);
    let mut timer = pin!(sleep_until(peer.activity.deadline(&peer.worker.limits, peer.worker.limits.keep_alive)));
    let mut leaving = Leaving::No;
    let end = poll_fn(|cx| {
        membership.wake_with(cx.waker());
        poll(&peer, &mut http, timer.as_mut(), &mut leaving, cx)
    })
    .await;
    // Taken in any case: it holds the peer that holds it.
    let tunnel = peer.tunnel.take();
    if let End::Cut = end {
        return;
    }
    let parts = http.into_parts();
    if let Some(afterlife) = afterlife(end, parts.io.into_inner(), parts.read_buf, tunnel, peer, membership) {
        afterlife.await;
    }
}

/// What a connection is when it is no longer one of HTTP/1. Boxed: what these need would be set aside for every connection.
fn afterlife(
    end: End,
    stream: ClientStream,
    read: Bytes,
    tunnel: Option<Box<Tunnel>>,
    peer: Rc<Peer>,
    membership: Membership,
) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    if let End::Unreadable { too_large } = end {
        return Some(Box::pin(refuse(stream, read, too_large, peer, membership)));
    }
    if let Some(tunnel) = tunnel {
        peer.activity.enter(Phase::Tunnel, Instant::now());
        return Some(Box::pin(tunnel.run(Rewound::new(read, stream), membership)));
    }
    if peer.activity.http2.get() {
        return Some(Box::pin(http2::serve(Rewound::new(read, stream), peer, membership)));
    }
    peer.activity.unread.get().then(|| Box::pin(linger(stream)) as _)
}

/// How far a connection is on its way out when its listener closes.
enum Leaving {
    No,
    /// The reactor gets a chance to tell about bytes that are there already: a request that has arrived is answered.
    Looking(Pin<Box<dyn Future<Output = ()>>>),
    Looked,
    /// hyper knows and closes after the present answer.
    Told,
}

/// How a connection of HTTP/1 ends.
enum End {
    /// By itself.
    Over,
    Cut,
    /// What came cannot be read as a request, and is to be told so.
    Unreadable {
        too_large: bool,
    },
}

fn poll<C: Http>(
    peer: &Peer,
    http: &mut C,
    mut timer: Pin<&mut Sleep>,
    leaving: &mut Leaving,
    cx: &mut Context<'_>,
) -> Poll<End> {
    let activity = &peer.activity;
    loop {
        if peer.group.is_cut() {
            return Poll::Ready(End::Cut);
        }
        if let Poll::Ready(outcome) = http.poll(cx) {
            // Everything else that goes wrong is in the books already.
            return Poll::Ready(match outcome {
                Err(error) if error.is_parse() && !activity.http2.get() => {
                    End::Unreadable { too_large: error.is_parse_too_large() }
                }
                _ => End::Over,
            });
        }
        if activity.is_crowded() {
            // Else hyper might write its refusal of what follows into the middle of this answer.
            http.leave();
        }
        if peer.group.is_closing() {
            if let Leaving::No = leaving {
                *leaving = Leaving::Looking(Box::pin(tokio::task::yield_now()));
            }
            if let Leaving::Looking(look) = leaving {
                ready!(look.as_mut().poll(cx));
                *leaving = Leaving::Looked;
                continue;
            }
            let leave = match activity.phase() {
                // A busy client's next request may be on its way; what it gets then says that it was the last.
                Phase::Idle | Phase::Head => false,
                Phase::Waiting | Phase::Answering | Phase::Tunnel => true,
            };
            if leave && !matches!(leaving, Leaving::Told) {
                *leaving = Leaving::Told;
                http.leave();
                continue;
            }
        }
        let keep_alive = peer.worker.limits.keep_alive;
        let idle = match leaving {
            Leaving::Told => LEAVE,
            // Whoever has just come may have a request on the wire already.
            _ if peer.group.is_closing() && activity.requests.get() == 0 => LAST_CALL.min(keep_alive),
            _ if peer.group.is_closing() => NEXT_CALL.min(keep_alive),
            _ => keep_alive,
        };
        ready!(activity.poll_patience(&peer.worker.limits, idle, timer.as_mut(), cx));
        match activity.phase() {
            // The request sees it when it is polled, and answers.
            Phase::Waiting if !activity.overdue.replace(true) => {}
            Phase::Idle if !matches!(leaving, Leaving::Told) => {
                *leaving = Leaving::Told;
                activity.moved();
                http.leave();
            }
            Phase::Idle | Phase::Head | Phase::Waiting | Phase::Tunnel => return Poll::Ready(End::Cut),
            Phase::Answering => {
                activity.reset.set(true);
                return Poll::Ready(End::Cut);
            }
        }
    }
}

/// hyper's connection without its many type parameters.
trait Http {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>>;
    fn leave(&mut self);
}

impl<S, B> Http for hyper::server::conn::http1::Connection<TokioIo<ClientStream>, S>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Future::poll(Pin::new(self), cx)
    }

    fn leave(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

/// What a connection that has asked before still gets to ask again when its listener closes.
const NEXT_CALL: Duration = Duration::from_millis(250);
/// What a connection that has not asked for anything yet still gets when its listener closes.
const LAST_CALL: Duration = Duration::from_secs(1);
/// What the last bytes of an answer get to be written when hyper has been told to close.
pub(super) const LEAVE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// What every open connection costs, besides hyper's read buffer. A change here is one to think about: with 65,536
    /// connections each 100 bytes are 6 MiB.
    #[test]
    fn a_connection_stays_small() {
        let connection = size(serve);
        let request = size(|peer, request, ()| request::serve(peer, request));
        assert!(
            connection <= 1300 && request <= 3664,
            "a connection takes {connection} bytes, a request in it {request}"
        );
    }
}
