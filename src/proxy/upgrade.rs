//! Requests that ask for another protocol on their connection, WebSocket above all: the handshake is passed on, and after it
//! bytes go both ways without being looked at.
//!
//! ```text
//!   HTTP/1.1: Upgrade ─────────┐                            ┌─ 101: the connection itself
//!                              ├─▶ HTTP/1.1: Upgrade ─ 101 ─┤
//!   HTTP/2: extended CONNECT ──┘                            └─ 200: the stream (RFC 8441)
//! ```

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::{Instant, sleep_until};

use super::activity::{Activity, Phase, poll_until};
use super::exchange::Exchange;
use super::fault::{Fault, TUNNEL_BROKEN, TUNNEL_CUT, TUNNEL_IDLE};
use super::group::Membership;
use super::headers::lists;
use super::stats::Present;

/// What a request asks its connection, or its stream, to become.
pub(crate) struct Upgrade {
    protocol: HeaderValue,
    /// The stream, if the client speaks HTTP/2. A connection of HTTP/1 is known to the task that serves it.
    stream: Option<OnUpgrade>,
}

impl Upgrade {
    /// Takes the wish out of the request, which then reads as a GET. None if there is none, or none that is granted: HTTP/1
    /// lets a server answer as if it had not been asked.
    pub(crate) fn take<B: Body>(request: &mut Request<B>) -> Result<Option<Box<Upgrade>>, Fault> {
        if let Some(protocol) = request.extensions_mut().remove::<Protocol>() {
            if protocol.as_str() != "websocket" {
                return Err(Fault::Protocol);
            }
            let stream = request.extensions_mut().remove::<OnUpgrade>();
            *request.method_mut() = Method::GET;
            return Ok(Some(Box::new(Upgrade { protocol: HeaderValue::from_static("websocket"), stream })));
        }
        let headers = request.headers();
        let Some(protocol) = headers.get(UPGRADE) else { return Ok(None) };
        let asked = request.version() == Version::HTTP_11
            && headers.get_all(UPGRADE).iter().count() == 1
            && headers.get_all(CONNECTION).iter().any(|value| lists(value, "upgrade"))
            && request.body().is_end_stream();
        let upgrade = || Box::new(Upgrade { protocol: protocol.clone(), stream: None });
        Ok((asked && is_granted(protocol)).then(upgrade))
    }

    /// Asks the endpoint for the same.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
        if self.stream.is_some() {
            // HTTP/2 has none: it cannot be taken for anything else.
            let key = BASE64_STANDARD.encode(fastrand::u128(..).to_ne_bytes());
            let key = HeaderValue::try_from(key).expect("base64 is a header value");
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
    }

    /// Whether the endpoint switches to what was asked for.
    pub(crate) fn is_answered_by(&self, headers: &HeaderMap) -> bool {
        let mut answered = headers.get_all(UPGRADE).iter();
        let same = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes());
        answered.next().is_some_and(same) && answered.next().is_none()
    }

    /// On HTTP/2 a success means that the stream has switched, whatever the endpoint meant by it.
    pub(crate) fn is_confused_by(&self, status: StatusCode) -> bool {
        self.stream.is_some() && status.is_success()
    }

    pub(crate) fn is_websocket(&self) -> bool {
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
    }

    /// HTTP/1 lets a server answer as if it had not been asked.
    pub(crate) fn may_be_ignored(&self) -> bool {
        self.stream.is_none()
    }

    /// Tells the client that it is granted, in the words of its protocol.
    pub(crate) fn grant<B>(&self, answer: &mut Response<B>) {
        let headers = answer.headers_mut();
        if self.stream.is_some() {
            headers.remove(SEC_WEBSOCKET_ACCEPT);
            *answer.status_mut() = StatusCode::OK;
        } else {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, self.protocol.clone());
        }
    }

    /// Lets the bytes through as soon as the client has its answer.
    pub(crate) fn open(self, endpoint: OnUpgrade, exchange: Exchange) {
        let peer = Rc::clone(&exchange.peer);
        let tunnel = Box::new(Tunnel { endpoint, exchange });
        let Some(stream) = self.stream else {
            peer.tunnel.set(Some(tunnel));
            return;
        };
        // Ends with its connection, or by itself.
        tokio::task::spawn_local(async move {
            if let Ok(stream) = stream.await {
                tunnel.run(TokioIo::new(stream), peer.group.join()).await;
            }
        });
    }
}

/// Not the protocols that would be HTTP or TLS again, with requests that nobody routes and certificates that nobody asked for.
fn is_granted(protocol: &HeaderValue) -> bool {
    let name = protocol.as_bytes().split(|byte| *byte == b'/').next().unwrap_or_default();
    let one = protocol.as_bytes().iter().all(|byte| byte.is_ascii_graphic() && *byte != b',');
    let never = [&b"h2c"[..], b"h2", b"h3", b"http", b"tls"];
    one && !name.is_empty() && !never.iter().any(|never| name.eq_ignore_ascii_case(never))
}

/// A client and an endpoint that speak something of their own.
pub(crate) struct Tunnel {
    endpoint: OnUpgrade,
    exchange: Exchange,
}

impl Tunnel {
    /// Carries bytes until both sides have ended, nothing moves for too long, or the connection has to go.
    pub(crate) async fn run<S>(self: Box<Self>, client: S, mut membership: Membership)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Tunnel { endpoint, mut exchange } = *self;
        let peer = Rc::clone(&exchange.peer);
        let (activity, limits) = (&peer.activity, &peer.worker.limits);
        let _counted = Present::new(&peer.worker.ledger, |ledger| &ledger.tunnels);
        activity.enter(Phase::Tunnel, Instant::now());
        let Ok(endpoint) = endpoint.await else { return };
        let bytes_out = Cell::new(0);
        let mut client = Counted { stream: client, read: &activity.bytes_in, activity };
        let mut endpoint = Counted { stream: TokioIo::new(endpoint), read: &bytes_out, activity };
        let mut copying = pin!(copy_bidirectional_with_sizes(&mut client, &mut endpoint, BUFFER, BUFFER));
        let mut timer = pin!(sleep_until(activity.deadline(limits, limits.tunnel_idle)));
        let mut last = None;
        let fault = poll_fn(|cx| {
            membership.wake_with(cx.waker());
            if peer.group.is_cut() {
                return Poll::Ready(Some(TUNNEL_CUT));
            }
            if let Poll::Ready(outcome) = copying.as_mut().poll(cx) {
                return Poll::Ready(outcome.err().map(|_| TUNNEL_BROKEN));
            }
            if last.is_none() && peer.group.is_closing() {
                last = Some(Instant::now() + limits.tunnel_leave);
            }
            loop {
                let idle = activity.deadline(limits, limits.tunnel_idle);
                let deadline = last.map_or(idle, |last| last.min(idle));
                ready!(poll_until(deadline, Pin::as_mut(&mut timer), cx));
                let now = Instant::now();
                if last.is_some_and(|last| last <= now) {
                    return Poll::Ready(Some(TUNNEL_CUT));
                }
                if idle <= now {
                    return Poll::Ready(Some(TUNNEL_IDLE));
                }
            }
        })
        .await;
        exchange.fault = fault;
        exchange.bytes_out = bytes_out.get();
        exchange.close();
    }
}

/// Notes what comes out of one side.
struct Counted<'a, S> {
    stream: S,
    read: &'a Cell<u64>,
    activity: &'a Activity,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let more = buffer.filled().len() - before;
        self.read.set(self.read.get() + more as u64);
        self.activity.moved();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// In each direction.
const BUFFER: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::*;

    #[test]
    fn what_is_granted() {
        let cases = [
            ("websocket", "Upgrade", true),
            ("WebSocket", "keep-alive, upgrade", true),
            ("SPDY/3.1", "upgrade", true),
            ("websocket", "keep-alive", false),
            ("h2c", "upgrade, http2-settings", false),
            ("H2C", "upgrade", false),
            ("HTTP/2.0", "upgrade", false),
            ("TLS/1.0", "upgrade", false),
            ("websocket, h2c", "upgrade", false),
            ("", "upgrade", false),
        ];
        for (protocol, connection, granted) in cases {
            let build = || Request::get("/").header(UPGRADE, protocol).header(CONNECTION, connection);
            let mut request = build().body(Empty::<bytes::Bytes>::new()).unwrap();
            assert_eq!(Upgrade::take(&mut request).unwrap().is_some(), granted, "{protocol} {connection}");
            let mut request = build().body(Full::new(bytes::Bytes::from_static(b"body"))).unwrap();
            assert!(Upgrade::take(&mut request).unwrap().is_none(), "{protocol} with a body");
            let mut request = build().version(Version::HTTP_10).body(Empty::<bytes::Bytes>::new()).unwrap();
            assert!(Upgrade::take(&mut request).unwrap().is_none(), "{protocol} in HTTP/1.0");
        }
    }
}
