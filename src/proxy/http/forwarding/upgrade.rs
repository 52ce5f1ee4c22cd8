//! Protocol upgrades, mainly WebSocket: the handshake is forwarded, then bytes are copied in both directions unparsed.
//!
//! ```text
//!   HTTP/1.1: Upgrade ─────────┐                            ┌─ 101: the connection itself
//!                              ├─▶ HTTP/1.1: Upgrade ─ 101 ─┤
//!   HTTP/2: extended CONNECT ──┘                            └─ 200: the stream (RFC 8441)
//! ```

use std::cell::Cell;
use std::rc::Rc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::proxy::connection::listener_connections::ConnectionRegistration;
use crate::proxy::connection::relay::{CountedStream, RelayEnd, RelayLimits, relay};
use crate::proxy::http::client::activity::ActivityPhase;
use crate::proxy::http::fields::headers::contains_token;
use crate::proxy::http::record::request_error::{RequestError, TUNNEL_BROKEN, TUNNEL_CLOSED, TUNNEL_IDLE};
use crate::proxy::http::record::request_record::RequestRecord;
use crate::proxy::record::stats::OpenGuard;
use crate::upstream::UpgradedConnection;

/// The protocol upgrade that a client requests.
pub(in crate::proxy) struct Upgrade {
    protocol: HeaderValue,
    /// The stream of an HTTP/2 client. An HTTP/1 connection is upgraded by the task that serves it.
    stream: Option<OnUpgrade>,
}

impl Upgrade {
    /// Reads the upgrade; an extended CONNECT becomes a GET. Returns None if the client requests no upgrade, or an
    /// unsupported one over HTTP/1.1, since HTTP/1.1 servers may ignore an upgrade.
    pub(in crate::proxy) fn take<B: Body>(request: &mut Request<B>) -> Result<Option<Box<Upgrade>>, RequestError> {
        if let Some(protocol) = request.extensions_mut().remove::<Protocol>() {
            if protocol.as_str() != "websocket" {
                return Err(RequestError::UpgradeNotSupported);
            }
            let stream = request.extensions_mut().remove::<OnUpgrade>();
            *request.method_mut() = Method::GET;
            return Ok(Some(Box::new(Upgrade { protocol: HeaderValue::from_static("websocket"), stream })));
        }
        let headers = request.headers();
        let Some(protocol) = headers.get(UPGRADE) else { return Ok(None) };
        let is_requested = request.version() == Version::HTTP_11
            && headers.get_all(UPGRADE).iter().count() == 1
            && headers.get_all(CONNECTION).iter().any(|value| contains_token(value, "upgrade"))
            && request.body().is_end_stream();
        let upgrade = || Box::new(Upgrade { protocol: protocol.clone(), stream: None });
        Ok((is_requested && is_supported(protocol)).then(upgrade))
    }

    /// Requests the same upgrade from the endpoint.
    pub(in crate::proxy) fn set_request_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.protocol.clone());
        if self.stream.is_some() {
            // Extended CONNECT has no such header, so it is generated (RFC 8441, section 5).
            let key = BASE64_STANDARD.encode(fastrand::u128(..).to_ne_bytes());
            let key = HeaderValue::try_from(key).expect("base64 is a header value");
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
    }

    /// Whether the endpoint switches to the requested protocol.
    pub(in crate::proxy) fn is_accepted_by(&self, headers: &HeaderMap) -> bool {
        let mut protocols = headers.get_all(UPGRADE).iter();
        let is_requested = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(self.protocol.as_bytes());
        protocols.next().is_some_and(is_requested) && protocols.next().is_none()
    }

    /// Whether a success status would mislead the client: on HTTP/2 it means that the stream has switched protocols.
    pub(in crate::proxy) fn is_misleading(&self, status: StatusCode) -> bool {
        self.stream.is_some() && status.is_success()
    }

    pub(in crate::proxy) fn is_websocket(&self) -> bool {
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
    }

    /// Whether the upgrade may be ignored: HTTP/1 servers may respond to the request without it.
    pub(in crate::proxy) fn may_be_ignored(&self) -> bool {
        self.stream.is_none()
    }

    /// Completes the response that accepts the upgrade: 101 on HTTP/1.1, 200 on HTTP/2.
    pub(in crate::proxy) fn accept<B>(&self, response: &mut Response<B>) {
        let headers = response.headers_mut();
        if self.stream.is_some() {
            headers.remove(SEC_WEBSOCKET_ACCEPT);
            *response.status_mut() = StatusCode::OK;
        } else {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, self.protocol.clone());
        }
    }

    /// Starts the tunnel as soon as the response has been sent.
    pub(in crate::proxy) fn start_tunnel(self, endpoint: Box<UpgradedConnection>, record: RequestRecord) {
        let peer = Rc::clone(&record.peer);
        let tunnel = Box::new(Tunnel { endpoint, record });
        let Some(stream) = self.stream else {
            peer.tunnel.set(Some(tunnel));
            return;
        };
        // The task ends with its connection or with the tunnel.
        tokio::task::spawn_local(async move {
            if let Ok(stream) = stream.await {
                tunnel.run(TokioIo::new(stream), peer.connections.register()).await;
            }
        });
    }
}

/// Whether the protocol may be tunneled. HTTP and TLS may not: their requests would bypass routing and certificates.
fn is_supported(protocol: &HeaderValue) -> bool {
    let name = protocol.as_bytes().split(|byte| *byte == b'/').next().unwrap_or_default();
    let is_single = protocol.as_bytes().iter().all(|byte| byte.is_ascii_graphic() && *byte != b',');
    let forbidden = [&b"h2c"[..], b"h2", b"h3", b"http", b"tls"];
    is_single && !name.is_empty() && !forbidden.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

/// A tunnel between a client and an endpoint after an upgrade.
pub(in crate::proxy) struct Tunnel {
    endpoint: Box<UpgradedConnection>,
    record: RequestRecord,
}

impl Tunnel {
    /// Copies bytes until both sides have closed, the tunnel is idle for too long, or a removed listener's grace
    /// period has passed.
    pub(in crate::proxy) async fn run<S>(self: Box<Self>, client: S, mut registration: ConnectionRegistration)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Tunnel { endpoint, mut record } = *self;
        let peer = Rc::clone(&record.peer);
        let (activity, limits) = (&peer.activity, &peer.worker().limits);
        let _counted = OpenGuard::new(&peer.worker().counters, |stats| &stats.tunnels);
        activity.enter_phase(ActivityPhase::Tunnel, Instant::now());
        let bytes_out = Cell::new(0);
        let on_progress = || activity.record_progress();
        let forwarded = Cell::new(0);
        let on_client_progress = || {
            on_progress();
            if let Some((bodies, request)) = peer.unforwarded() {
                let read = activity.bytes_in.get();
                let length = usize::try_from(read - forwarded.replace(read)).unwrap_or(usize::MAX);
                bodies.forward_bytes(request, length);
            }
        };
        let mut client = CountedStream::new(client, &activity.bytes_in, on_client_progress);
        let mut endpoint = CountedStream::new(endpoint, &bytes_out, on_progress);
        let relay_limits = RelayLimits {
            idle_deadline: || activity.deadline(limits, limits.upgrade_idle_timeout),
            closing_grace: Some(limits.tunnel_grace_period),
            removed_endpoint_grace: None,
        };
        let end = relay(&mut client, &mut endpoint, &peer.connections, &mut registration, relay_limits).await;
        let error = match end {
            RelayEnd::Completed => None,
            RelayEnd::Failed => Some(TUNNEL_BROKEN),
            RelayEnd::Idle => Some(TUNNEL_IDLE),
            RelayEnd::ListenerClosed | RelayEnd::EndpointRemoved => Some(TUNNEL_CLOSED),
        };
        record.error = error;
        record.bytes_out = bytes_out.get();
        record.finish();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::*;

    #[test]
    fn supported_upgrades_are_accepted() {
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
        for (protocol, connection, is_taken) in cases {
            let build = || Request::get("/").header(UPGRADE, protocol).header(CONNECTION, connection);
            let mut request = build().body(Empty::<bytes::Bytes>::new()).unwrap();
            assert_eq!(Upgrade::take(&mut request).unwrap().is_some(), is_taken, "{protocol} {connection}");
            let mut request = build().body(Full::new(bytes::Bytes::from_static(b"body"))).unwrap();
            assert!(Upgrade::take(&mut request).unwrap().is_none(), "{protocol} with a body");
            let mut request = build().version(Version::HTTP_10).body(Empty::<bytes::Bytes>::new()).unwrap();
            assert!(Upgrade::take(&mut request).unwrap().is_none(), "{protocol} in HTTP/1.0");
        }
    }
}
