//! A connection that speaks HTTP/2, and its streams: the same requests as elsewhere, many at a time.
//!
//! ```text
//!   FrameStream ─ hyper ─┬─ stream: a task with a Peer of its own, whose timer watches its request
//!        │               └─ stream: request::serve, then the body of the answer
//!        └ too many frames that ask for nothing        connection: idle without streams, leaving, cut
//! ```

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use h2::Reason;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use super::activity::{Phase, poll_until};
use super::connection::{LEAVE, Peer};
use super::exchange;
use super::fault::{FLOOD, FLOOD_STATUS, Fault, REFUSED_STREAM};
use super::frames::FrameStream;
use super::group::Membership;
use super::limits::Limits;
use super::refusal::Glimpse;
use super::request;
use super::stats::Present;

/// The streams of one connection.
pub(crate) struct Streams {
    /// The connection itself, which has no request.
    connection: Rc<Peer>,
    open: Cell<usize>,
    /// The stream whose task is about to be started.
    next: RefCell<Option<Rc<Peer>>>,
    pub(crate) flooded: Cell<bool>,
    /// Since when the preface or a header is on its way, if it is not there.
    pub(crate) unfinished: Cell<Option<Instant>>,
    /// Heads that came, and requests that were made of them.
    pub(crate) opened: Cell<u64>,
    handed: Cell<u64>,
}

/// Serves all requests of a connection whose client begins with the preface of HTTP/2.
pub(crate) async fn serve<S>(stream: S, peer: Rc<Peer>, mut membership: Membership)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let _counted = Present::new(&peer.worker.ledger, |ledger| &ledger.http2);
    let streams = Rc::new(Streams {
        connection: Rc::clone(&peer),
        open: Cell::new(0),
        next: RefCell::default(),
        flooded: Cell::new(false),
        unfinished: Cell::new(Some(Instant::now())),
        opened: Cell::new(0),
        handed: Cell::new(0),
    });
    let service = {
        let streams = Rc::clone(&streams);
        service_fn(move |request| {
            streams.handed.set(streams.handed.get() + 1);
            let stream = Rc::new(streams.connection.stream(streams.enter()));
            streams.next.replace(Some(Rc::clone(&stream)));
            request::serve(stream, request)
        })
    };
    let limits = &peer.worker.limits;
    let socket = FrameStream::new(stream, Rc::clone(&streams));
    let http = builder(limits, Tasks(Rc::clone(&streams))).serve_connection(TokioIo::new(socket), service);
    let mut http = pin!(http);
    let activity = &peer.activity;
    activity.enter(Phase::Idle, Instant::now());
    let mut timer = pin!(sleep_until(activity.deadline(limits, limits.keep_alive)));
    let mut leaving = false;
    poll_fn(|cx| {
        membership.wake_with(cx.waker());
        loop {
            if peer.group.is_cut() {
                return Poll::Ready(());
            }
            if let Poll::Ready(outcome) = http.as_mut().poll(cx) {
                let mistake = outcome.err().as_ref().and_then(their_mistake);
                if streams.flooded.get() || mistake == Some(Reason::ENHANCE_YOUR_CALM) {
                    exchange::unreadable(&peer, Glimpse::default(), FLOOD_STATUS, FLOOD, None, 0);
                } else if mistake.is_some() {
                    let account = Fault::Unreadable.account();
                    exchange::unreadable(&peer, Glimpse::default(), account.status, account.word, None, 0);
                }
                return Poll::Ready(());
            }
            if peer.group.is_closing() && !leaving {
                leaving = true;
                // A GOAWAY that takes everything, and after a round trip one that names the last stream.
                http.as_mut().graceful_shutdown();
                continue;
            }
            let idle = if leaving { LEAVE } else { limits.keep_alive };
            let idle = activity.deadline(limits, idle);
            let header = streams.unfinished.get().map(|since| since + limits.header_timeout);
            let deadline = header.map_or(idle, |header| header.min(idle));
            std::task::ready!(poll_until(deadline, timer.as_mut(), cx));
            if header == Some(deadline) {
                // As on HTTP/1. Nothing else of the connection could be read before its end.
                return Poll::Ready(());
            }
            if streams.open.get() > 0 {
                // Each stream has its own timer.
                activity.moved();
            } else if leaving {
                return Poll::Ready(());
            } else {
                leaving = true;
                activity.moved();
                http.as_mut().graceful_shutdown();
            }
        }
    })
    .await;
    // Not before: until then, the library may have heads that it has not made requests of.
    peer.worker.faults(REFUSED_STREAM, streams.opened.get().saturating_sub(streams.handed.get()));
}

fn builder(limits: &Limits, tasks: Tasks) -> Builder<Tasks> {
    let mut http = Builder::new(tasks);
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(ERROR_RESETS)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout)
        // WebSocket over HTTP/2 (RFC 8441).
        .enable_connect_protocol();
    http
}

/// Which rule of HTTP/2 the client broke, so that the connection had to end.
fn their_mistake(error: &hyper::Error) -> Option<Reason> {
    let error = std::error::Error::source(error)?.downcast_ref::<h2::Error>()?;
    error.is_library().then(|| error.reason()).flatten()
}

impl Streams {
    fn enter(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        Open(Rc::clone(self))
    }
}

/// A stream that is counted as open until this is dropped: when nothing of it is left, neither a body nor a tunnel.
pub(crate) struct Open(Rc<Streams>);

impl Drop for Open {
    fn drop(&mut self) {
        let streams = &self.0;
        streams.open.set(streams.open.get() - 1);
        if streams.open.get() == 0 {
            streams.connection.activity.moved();
        }
    }
}

/// Where hyper starts the task of a stream, directly after it has called the service with its request. Tasks end with their
/// connection: hyper tells each of them when it is gone.
#[derive(Clone)]
struct Tasks(Rc<Streams>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        match self.0.next.take() {
            Some(peer) => drop(tokio::task::spawn_local(watch(peer, future))),
            // What carries the bytes of a tunnel, which has its own timer.
            None => drop(tokio::task::spawn_local(future)),
        }
    }
}

/// Runs a stream for as long as there is patience with what it is doing.
async fn watch(peer: Rc<Peer>, stream: impl Future<Output = ()>) {
    let mut stream = pin!(stream);
    let activity = &peer.activity;
    let limits = &peer.worker.limits;
    let mut timer = pin!(sleep_until(activity.deadline(limits, limits.stall_timeout)));
    poll_fn(|cx| {
        loop {
            if stream.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // An answer that is complete for us may still wait for the client's window.
            std::task::ready!(activity.poll_patience(limits, limits.stall_timeout, Pin::as_mut(&mut timer), cx));
            match activity.phase() {
                // The request sees it when it is polled, and answers.
                Phase::Waiting if !activity.overdue.replace(true) => {}
                // Dropped as it is, which resets the stream.
                _ => return Poll::Ready(()),
            }
        }
    })
    .await;
    activity.abandon();
}

/// The least that may be the largest, which is what all clients send anyway.
const MAX_FRAME: u32 = 16 * 1024;
/// What of an answer is written ahead of the socket, per stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client opened and reset before we looked at them.
const PENDING_RESETS: usize = 20;
/// Streams that we reset because of the client's mistakes. Then the connection ends.
const ERROR_RESETS: usize = 128;

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// What a connection of HTTP/2 costs besides what the library keeps for it, and a stream besides its request.
    #[test]
    fn a_connection_stays_small() {
        let connection = size(serve::<TcpStream>);
        let stream = size(|peer, stream: std::future::Pending<()>, ()| watch(peer, stream));
        assert!(connection <= 2200 && stream <= 250, "a connection takes {connection} bytes, a stream in it {stream}");
    }
}
