//! One connection of a client, from accept to close.
//!
//! ```text
//!   socket ─ ClientStream ─ hyper ─ request::serve            one task; every wake polls all of it
//!               └────────┴── Activity ──┘ ◀─ one timer: idle, slow head, slow answer, stall
//! ```

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until, timeout};

use super::activity::{Activity, Phase};
use super::exchange;
use super::group::{Group, Membership};
use super::headers::Client;
use super::request;
use super::worker::Worker;

/// One client, and what its requests need to know about it.
pub(crate) struct Peer {
    pub(crate) worker: Rc<Worker>,
    pub(crate) group: Rc<Group>,
    pub(crate) activity: Activity,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    /// The port clients see, written out for the listener that was last used.
    pub(crate) port: RefCell<Option<(u16, HeaderValue)>>,
}

impl Peer {
    pub(crate) fn new(worker: Rc<Worker>, group: Rc<Group>, address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical();
        let trusted = worker.trusted.iter().any(|network| network.contains(&ip));
        Peer {
            worker,
            group,
            activity: Activity::new(),
            address,
            client: Client::new(ip, trusted),
            port: RefCell::default(),
        }
    }

    pub(crate) fn port(&self, port: u16) -> HeaderValue {
        let mut written = self.port.borrow_mut();
        match &*written {
            Some((known, value)) if *known == port => value.clone(),
            _ => {
                let value = HeaderValue::from(port);
                *written = Some((port, value.clone()));
                value
            }
        }
    }
}

/// Serves all requests of a connection.
pub(crate) async fn serve(stream: TcpStream, peer: Rc<Peer>, mut membership: Membership) {
    let stream = ClientStream { stream, peer: Rc::clone(&peer) };
    let service = {
        let peer = Rc::clone(&peer);
        service_fn(move |request| request::serve(Rc::clone(&peer), request))
    };
    let mut http = peer.worker.http.serve_connection(TokioIo::new(stream), service);
    let mut timer = pin!(sleep_until(peer.activity.deadline(&peer.worker.limits, peer.worker.limits.keep_alive)));
    let mut leaving = Leaving::No;
    let finished = poll_fn(|cx| {
        membership.wake_with(cx.waker());
        poll(&peer, &mut http, timer.as_mut(), &mut leaving, cx)
    })
    .await;
    if finished && peer.activity.unread.get() {
        linger(http.into_parts().io.into_inner()).await;
    }
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

/// Whether the connection is over by itself (`true`) or is cut (`false`).
fn poll<C: Http>(
    peer: &Peer,
    http: &mut C,
    mut timer: Pin<&mut Sleep>,
    leaving: &mut Leaving,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    let activity = &peer.activity;
    loop {
        if peer.group.is_cut() {
            return Poll::Ready(false);
        }
        if let Poll::Ready(outcome) = http.poll(cx) {
            // Everything else that goes wrong is in the books already.
            if let Err(error) = outcome
                && error.is_parse()
                && matches!(activity.phase(), Phase::Idle | Phase::Head)
            {
                exchange::unreadable(peer, refusal(&error));
            }
            return Poll::Ready(true);
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
                Phase::Idle => activity.requests.get() > 0,
                Phase::Head => false,
                Phase::Waiting | Phase::Answering => true,
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
            _ if peer.group.is_closing() => LAST_CALL.min(keep_alive),
            _ => keep_alive,
        };
        let deadline = activity.deadline(&peer.worker.limits, idle);
        // A timer that is too early costs one look here; only one that is too late must be moved.
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        if deadline > timer.deadline() {
            timer.as_mut().reset(deadline);
            ready!(timer.as_mut().poll(cx));
        }
        match activity.phase() {
            // The request sees it when it is polled, and answers.
            Phase::Waiting if !activity.overdue.replace(true) => {}
            Phase::Idle if !matches!(leaving, Leaving::Told) => {
                *leaving = Leaving::Told;
                activity.moved();
                http.leave();
            }
            Phase::Idle | Phase::Head | Phase::Waiting => return Poll::Ready(false),
            Phase::Answering => {
                activity.reset.set(true);
                return Poll::Ready(false);
            }
        }
    }
}

/// What hyper answers to what it cannot read as a request.
fn refusal(error: &hyper::Error) -> StatusCode {
    if error.is_parse_too_large() { StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE } else { StatusCode::BAD_REQUEST }
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

/// Reads what the client still sends, for a while. A socket closed with unread bytes sends a reset, which may take our
/// answer away from a client that has not read it yet.
async fn linger(mut stream: ClientStream) {
    let mut left = LINGER_BYTES;
    let mut buffer = vec![0; 4096];
    let drain = async {
        while let Ok(read @ 1..) = stream.read(&mut buffer).await
            && read < left
        {
            left -= read;
        }
    };
    // Whoever is still writing after that does not read either.
    drop(timeout(LINGER, drain).await);
}

/// What a connection that has not asked for anything yet still gets when its listener closes.
const LAST_CALL: Duration = Duration::from_secs(1);
/// What the last bytes of an answer get to be written when hyper has been told to close.
const LEAVE: Duration = Duration::from_secs(5);
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;

/// The client's socket; it notes when bytes move.
struct ClientStream {
    stream: TcpStream,
    peer: Rc<Peer>,
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.peer.activity.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.peer.activity.told();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.peer.activity.told();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.peer.activity.reset.get() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.peer.activity.reset.get() {
            // If the system refuses, the connection ends in the ordinary way, which is all there is to do then.
            drop(self.stream.set_zero_linger());
        }
    }
}

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
            connection <= 1400 && request <= 3300,
            "a connection takes {connection} bytes, a request in it {request}"
        );
    }
}
