//! Protocol upgrades, mainly WebSocket: the handshake is forwarded, then the connection or stream becomes a
//! tunnel.
//!
//! ```text
//!   HTTP/1.1: Upgrade ─────────┐                            ┌─ 101: the connection itself
//!                              ├─▶ HTTP/1.1: Upgrade ─ 101 ─┤
//!   HTTP/2: extended CONNECT ──┘                            └─ 200: the stream (RFC 8441)
//! ```

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use crate::proxy::http::fields::headers::contains_token;
use crate::proxy::http::record::request_error::RequestError;

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

    /// The stream of an HTTP/2 client, which becomes the tunnel. None on HTTP/1, where the connection does.
    pub(in crate::proxy) fn into_stream(self) -> Option<OnUpgrade> {
        self.stream
    }
}

/// Whether the protocol may be tunneled. HTTP and TLS may not: their requests would bypass routing and certificates.
fn is_supported(protocol: &HeaderValue) -> bool {
    let name = protocol.as_bytes().split(|byte| *byte == b'/').next().unwrap_or_default();
    let is_single = protocol.as_bytes().iter().all(|byte| byte.is_ascii_graphic() && *byte != b',');
    let forbidden = [&b"h2c"[..], b"h2", b"h3", b"http", b"tls"];
    is_single && !name.is_empty() && !forbidden.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
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
