//! Serves one client connection from its first request until it closes.
//!
//! ```text
//!   ClientStream ─ Http1ClientConnection ─ request::serve        one task; each wake-up polls all of it
//!         └───────────── Activity ──────────────┘ ◀─ one timer: idle, slow head, slow response, stall
//! ```
//!
//! While a connection is idle, only its `ClientStream` exists: see `parked_connection.rs`.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{Activity, ActivityPhase};
use super::client_body::ClientBody;
use super::client_stream::ClientStream;
use super::http_worker::HttpWorker;
use super::http1::connection::{Http1ClientConnection, Http1End};
use super::http2::{self, OpenStream};
use super::malformed_request::{lingering_close, reject};
use super::parked_connection::{ParkingEnd, park, park_at};
use super::response_body::ResponseBody;
use super::unforwarded_bodies::UnforwardedBodies;
use super::unsent_responses::UnsentResponses;
use crate::http1::{InvalidMessage, write_informational};
use crate::plugin_api::{FieldNames, Scheme};
use crate::proxy::connection::listener_connections::{
    ConnectionRegistration, IdleState, Idleness, ListenerConnections,
};
use crate::proxy::connection::moving_deadline::poll_until;
use crate::proxy::connection::tls::TlsSession;
use crate::proxy::connection::transport::Transport;
use crate::proxy::http::fields::field_policy::{InformationalPolicy, remove_from_informational};
use crate::proxy::http::fields::headers::ForwardedClient;
use crate::proxy::http::forwarding::upgrade::Tunnel;
use crate::proxy::http::steps::request;
use crate::proxy::worker::Worker;
use crate::rewound::Rewound;
use crate::turn_clock::Turn;

/// What the requests of a client connection share. On HTTP/2 each stream has its own `Peer`, with its own [`Activity`].
pub(in crate::proxy) struct Peer {
    pub(in crate::proxy) http: Rc<HttpWorker>,
    pub(in crate::proxy) connections: Rc<ListenerConnections>,
    pub(in crate::proxy) activity: Activity,
    pub(in crate::proxy) address: SocketAddr,
    pub(in crate::proxy) client: Rc<ForwardedClient>,
    /// The negotiated TLS session, if the connection uses TLS.
    pub(in crate::proxy) session: Option<Rc<TlsSession>>,
    /// The HTTP/2 stream, which counts as open while the `Peer` exists.
    open_stream: Option<OpenStream>,
    /// The tunnel that the connection becomes after the current response.
    pub(in crate::proxy) tunnel: Cell<Option<Box<Tunnel>>>,
    /// Informational responses that are to be sent before the response, as they are written.
    informational: Cell<Option<Box<BytesMut>>>,
}

impl Peer {
    /// `address` is the client's address, from the PROXY header if there is one.
    pub(in crate::proxy) fn new(
        http: Rc<HttpWorker>,
        connections: Rc<ListenerConnections>,
        address: SocketAddr,
        session: Option<TlsSession>,
    ) -> Self {
        let ip = address.ip().to_canonical();
        let activity = Activity::new(&http.worker.limits);
        let trusted = http.trusted_ips.iter().any(|network| network.contains(&ip));
        Peer {
            http,
            connections,
            activity,
            address,
            client: Rc::new(ForwardedClient::new(
                ip,
                trusted,
                if session.is_some() { Scheme::Https } else { Scheme::Http },
            )),
            session: session.map(Rc::new),
            open_stream: None,
            tunnel: Cell::default(),
            informational: Cell::default(),
        }
    }

    /// The state that connections of all protocols share.
    pub(in crate::proxy) fn worker(&self) -> &Worker {
        &self.http.worker
    }

    /// The bytes of the request body that are received and not forwarded, with the number of the request on its
    /// connection. None on HTTP/1.
    pub(in crate::proxy) fn unforwarded(&self) -> Option<(&UnforwardedBodies, u64)> {
        self.open_stream.as_ref()?.unforwarded()
    }

    /// The bytes of responses that the HTTP/2 connection holds because the client has not read them. None on HTTP/1.
    pub(in crate::proxy) fn unsent(&self) -> Option<&Rc<UnsentResponses>> {
        self.open_stream.as_ref().map(OpenStream::unsent)
    }

    /// The request body is read, and has not arrived. Over HTTP/2, a client that expects `100 Continue` gets it now.
    pub(in crate::proxy) fn request_continuation(&self) {
        if let Some(stream) = &self.open_stream {
            stream.request_continuation();
        }
    }

    /// Whether the HTTP/2 connection is not read, because of its unforwarded bytes.
    pub(in crate::proxy) fn is_paused(&self) -> bool {
        self.open_stream.as_ref().is_some_and(OpenStream::is_paused)
    }

    /// How long the HTTP/2 connection was not read so far, because of its unforwarded bytes.
    pub(in crate::proxy) fn paused(&self) -> Duration {
        self.open_stream.as_ref().map_or(Duration::ZERO, OpenStream::paused)
    }

    /// Passes on an informational response of the endpoint, such as `103 Early Hints`. Not on HTTP/2, whose library
    /// cannot send any. If the client does not read them, later ones are omitted.
    pub(in crate::proxy) fn queue_informational(&self, mut response: Response<()>, policy: &InformationalPolicy<'_>) {
        let Some(rule) = policy.rule.filter(|_| self.open_stream.is_none()) else { return };
        let mut queued = self.informational.take().unwrap_or_default();
        if queued.len() < MAX_INFORMATIONAL {
            let (http, others) = (&self.http, policy.others.as_deref());
            remove_from_informational(
                response.headers_mut(),
                http,
                Some(rule),
                others.unwrap_or(&FieldNames::default()),
            );
            write_informational(&response, &mut queued);
        }
        self.informational.set(Some(queued));
    }

    /// Takes the informational responses that were queued.
    pub(in crate::proxy) fn take_informational(&self) -> Option<Box<BytesMut>> {
        self.informational.take()
    }

    /// The context of a new HTTP/2 stream on the same connection.
    pub(in crate::proxy) fn for_stream(&self, stream: OpenStream) -> Self {
        let activity = Activity::new(&self.http.worker.limits);
        activity.begin_stream(|| stream.paused());
        Peer {
            http: Rc::clone(&self.http),
            connections: Rc::clone(&self.connections),
            activity,
            address: self.address,
            client: Rc::clone(&self.client),
            session: self.session.clone(),
            open_stream: Some(stream),
            tunnel: Cell::default(),
            informational: Cell::default(),
        }
    }
}

impl IdleState for Peer {
    fn idleness(&self) -> Option<Idleness> {
        let activity = &self.activity;
        let is_idle = activity.phase() == ActivityPhase::Idle;
        is_idle.then(|| Idleness { had_request: activity.requests.get() > 0, since: activity.last_progress() })
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Peer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Serves all requests of a connection. The future is small, since every open connection has one: what only a
/// connection in use needs is boxed.
pub(in crate::proxy) fn serve(
    transport: Transport,
    peer: Rc<Peer>,
    mut registration: ConnectionRegistration,
) -> impl Future<Output = ()> {
    let idle_state: Weak<Peer> = Rc::downgrade(&peer);
    registration.begin_serving(idle_state);
    let mut stream = ClientStream::new(transport, Rc::clone(&peer));
    // Not an `async fn`, whose future would contain its arguments twice.
    async move {
        let mut timer = pin!(sleep_until(first_deadline(&peer)));
        loop {
            let parked = park(&mut stream, &peer, &mut registration, timer.as_mut()).await;
            let ParkingEnd::Resume(received) = parked else { return };
            let context = (&peer, &mut registration);
            let serving = Box::pin(serve_requests((stream, received), context, timer.as_mut()));
            let Some(ServedRequests { end, stream: served, unread }) = serving.await else { return };
            // Taken in every case: the tunnel holds the peer, so a tunnel left in the peer would leak both.
            let tunnel = peer.tunnel.take();
            match end {
                ConnectionEnd::Parked => stream = served,
                ConnectionEnd::Aborted => return,
                ConnectionEnd::Finished | ConnectionEnd::MalformedRequest(_) => {
                    if let Some(next) = after_http1(end, served, unread, tunnel, peer, registration) {
                        next.await;
                    }
                    return;
                }
            }
        }
    }
}

/// What remains of a connection whose requests were served.
struct ServedRequests {
    end: ConnectionEnd,
    stream: ClientStream,
    /// Bytes that were received, but not decoded.
    unread: Bytes,
}

/// Serves requests until the connection ends or must be parked. `received` has what was received already. Not an `async
/// fn`, whose future would contain its arguments twice.
fn serve_requests(
    (stream, received): (ClientStream, BytesMut),
    (peer, registration): (&Rc<Peer>, &mut ConnectionRegistration),
    mut timer: Pin<&mut Sleep>,
) -> impl Future<Output = Option<ServedRequests>> {
    let begin = move |request| request::serve(Rc::clone(peer), request);
    let mut http = Http1ClientConnection::new(stream, received, peer, begin);
    async move {
        let resumed_at = Instant::now();
        let mut shutdown = ShutdownProgress::NotStarted;
        let end = poll_fn(|cx| {
            let _turn = Turn::begin();
            registration.set_waker(cx.waker());
            let end = poll_connection(peer, &mut http, resumed_at, timer.as_mut(), &mut shutdown, cx);
            // A request that has arrived in the meantime is served, and a response is sent to its end.
            let is_idle = http.is_between_requests() && peer.activity.phase() == ActivityPhase::Idle;
            if end.is_pending() && registration.take_eviction() && is_idle {
                return Poll::Ready(ConnectionEnd::Aborted);
            }
            end
        })
        .await;
        let (stream, unread) = http.into_stream()?;
        Some(ServedRequests { end, stream, unread })
    }
}

/// What follows when HTTP/1 ends: an error response, a tunnel, HTTP/2 or a lingering close. Boxed, so that plain
/// connections do not reserve memory for it.
fn after_http1(
    end: ConnectionEnd,
    stream: ClientStream,
    unread: Bytes,
    tunnel: Option<Box<Tunnel>>,
    peer: Rc<Peer>,
    registration: ConnectionRegistration,
) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    if let ConnectionEnd::MalformedRequest(error) = end {
        return Some(Box::pin(reject(stream, unread, error, peer, registration)));
    }
    if let Some(tunnel) = tunnel {
        peer.activity.enter_phase(ActivityPhase::Tunnel, Instant::now());
        return Some(Box::pin(tunnel.run(Rewound::new(unread, stream), registration)));
    }
    if peer.activity.http2.get() {
        return Some(Box::pin(http2::serve(Rewound::new(unread, stream), peer, registration)));
    }
    peer.activity.body_unread.get().then(|| Box::pin(lingering_close(stream)) as _)
}

/// Progress of the graceful shutdown of a connection.
enum ShutdownProgress {
    NotStarted,
    /// The task yields once to the reactor, so that a request that has already arrived is still served.
    Yielding(Pin<Box<dyn Future<Output = ()>>>),
    Yielded,
    /// The connection closes after the current response.
    Closing,
}

/// Why the requests of an HTTP/1 connection are no longer served.
enum ConnectionEnd {
    /// The connection was closed, or its stream is handed over.
    Finished,
    /// The connection is idle and needs no buffers until its next request.
    Parked,
    /// The connection was aborted by a drain or evicted, or a timeout has expired.
    Aborted,
    /// The client sent bytes that do not parse as a request; an error response follows.
    MalformedRequest(InvalidMessage),
}

fn poll_connection<S, F>(
    peer: &Peer,
    http: &mut Http1ClientConnection<S, F>,
    resumed_at: Instant,
    mut timer: Pin<&mut Sleep>,
    shutdown: &mut ShutdownProgress,
    cx: &mut Context<'_>,
) -> Poll<ConnectionEnd>
where
    S: Fn(Request<ClientBody>) -> F,
    F: Future<Output = Result<Response<ResponseBody>, Infallible>>,
{
    let activity = &peer.activity;
    loop {
        if peer.connections.is_aborted() {
            return Poll::Ready(ConnectionEnd::Aborted);
        }
        if let Poll::Ready(end) = http.poll(cx) {
            return Poll::Ready(match end {
                Http1End::Malformed(error) => ConnectionEnd::MalformedRequest(error),
                Http1End::Finished => ConnectionEnd::Finished,
            });
        }
        if peer.connections.is_closing() {
            if let ShutdownProgress::NotStarted = shutdown {
                *shutdown = ShutdownProgress::Yielding(Box::pin(tokio::task::yield_now()));
            }
            if let ShutdownProgress::Yielding(reactor_turn) = shutdown {
                ready!(reactor_turn.as_mut().poll(cx));
                *shutdown = ShutdownProgress::Yielded;
                continue;
            }
            let must_shut_down = match activity.phase() {
                // The next request of a busy client may be in flight; its response will carry `Connection: close`.
                ActivityPhase::Idle | ActivityPhase::ReadingHead => false,
                ActivityPhase::AwaitingResponse | ActivityPhase::SendingResponse | ActivityPhase::Tunnel => true,
            };
            if must_shut_down && !matches!(shutdown, ShutdownProgress::Closing) {
                *shutdown = ShutdownProgress::Closing;
                http.start_shutdown();
                continue;
            }
        }
        let idle_timeout = match shutdown {
            ShutdownProgress::Closing => SHUTDOWN_TIMEOUT,
            ShutdownProgress::NotStarted | ShutdownProgress::Yielding(_) | ShutdownProgress::Yielded => {
                idle_timeout(peer)
            }
        };
        if let ShutdownProgress::NotStarted = shutdown
            && http.is_between_requests()
            && let Some(park_at) = park_at(peer, resumed_at)
            && park_at < activity.deadline(&peer.worker().limits, idle_timeout)
        {
            ready!(poll_until(park_at, timer.as_mut(), cx));
            return Poll::Ready(ConnectionEnd::Parked);
        }
        ready!(activity.poll_timeout(&peer.http, idle_timeout, timer.as_mut(), cx));
        match activity.phase() {
            // The request handler sees the flag when it is polled, and responds with an error. If it does not respond
            // at once, the next round aborts the connection.
            ActivityPhase::AwaitingResponse if !activity.timed_out.replace(true) => {}
            ActivityPhase::Idle if !matches!(shutdown, ShutdownProgress::Closing) => {
                *shutdown = ShutdownProgress::Closing;
                activity.record_progress();
                http.start_shutdown();
            }
            ActivityPhase::Idle
            | ActivityPhase::ReadingHead
            | ActivityPhase::AwaitingResponse
            | ActivityPhase::Tunnel => return Poll::Ready(ConnectionEnd::Aborted),
            ActivityPhase::SendingResponse => {
                activity.reset_on_close.set(true);
                return Poll::Ready(ConnectionEnd::Aborted);
            }
        }
    }
}

/// When the timer of a new connection fires. Not later than the first request needs it, so that it is not reset for
/// that. Without a request until then, it is reset once.
fn first_deadline(peer: &Peer) -> Instant {
    let limits = &peer.worker().limits;
    let head_deadline = peer.activity.last_progress() + limits.header_timeout;
    head_deadline.min(peer.activity.deadline(limits, idle_timeout(peer)))
}

/// How long the connection may be idle.
pub(in crate::proxy) fn idle_timeout(peer: &Peer) -> Duration {
    let keep_alive = peer.worker().limits.client_idle_timeout;
    if !peer.connections.is_closing() {
        keep_alive
    } else if peer.activity.requests.get() == 0 {
        // The first request of a new connection may be in flight already.
        FIRST_REQUEST_GRACE.min(keep_alive)
    } else {
        CLOSING_KEEP_ALIVE.min(keep_alive)
    }
}

/// Bytes of informational responses that wait to be sent, before further ones are omitted.
const MAX_INFORMATIONAL: usize = 8 * 1024;
/// Idle timeout of a connection that has served requests before, once its listener closes.
const CLOSING_KEEP_ALIVE: Duration = Duration::from_millis(250);
/// Idle timeout of a connection without any request so far, once its listener closes.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// How long the last bytes of a response may take after the graceful shutdown has begun.
pub(in crate::proxy) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// The memory of every open connection. With 65,536 connections, each 100 bytes cost 6 MiB.
    #[test]
    fn connection_future_is_small() {
        let (connection, peer) = (size(serve), size_of::<Peer>());
        assert!(
            connection <= 440 && peer <= 340,
            "an idle connection takes {connection} bytes in its task, and {peer} for its state"
        );
    }

    /// The memory of a connection in use, in addition to its buffers.
    #[test]
    fn request_futures_are_small() {
        let connection = size(serve_requests);
        let request = size(|peer, request, ()| request::serve(peer, request));
        assert!(
            connection <= 1150 && request <= 3400,
            "a connection in use takes {connection} bytes, a request in it {request}"
        );
    }
}
