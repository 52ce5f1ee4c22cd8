//! HTTP checks: a request whose response must have one of the expected statuses.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT,
};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::checker::{CheckFailure, CheckPass};
use super::http_connection::HttpConnection;
use crate::endpoint_tls::UpstreamProtocol;
use crate::upstream::settings::StatusRanges;

/// The request of a check.
pub(super) struct HttpRequest<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a Uri,
    pub(super) host: &'a HeaderValue,
    pub(super) headers: &'a HeaderMap,
    /// Whether the connection stays open after the response.
    pub(super) keeps_connection: bool,
}

/// Sends a request. Redirects are responses like others. `failing`: the statuses that fail; `None` for all that are not
/// expected.
pub(super) async fn check(
    connection: &mut HttpConnection,
    request: Request<Full<Bytes>>,
    expected: &StatusRanges,
    failing: Option<&StatusRanges>,
) -> Result<CheckPass, CheckFailure> {
    let response = connection.send(request).await.map_err(|error| CheckFailure::no_response(&error))?;
    let status = response.status();
    let has_passed = expected.contains(status.as_u16());
    if !has_passed && failing.is_none_or(|failing| failing.contains(status.as_u16())) {
        return Err(CheckFailure::Status(status));
    }
    let is_reusable = read_body(response.into_body()).await?;
    Ok(CheckPass { is_conclusive: has_passed, ..CheckPass::on_this_connection(is_reusable) })
}

/// Reads a body to its end. Returns false if it is longer than the limit, beyond which nothing is read.
async fn read_body(mut body: Incoming) -> Result<bool, CheckFailure> {
    let mut remaining = MAX_BODY;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CheckFailure::incomplete(&error))?;
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length > remaining {
            return Ok(false);
        }
        remaining -= length;
    }
    Ok(true)
}

impl HttpRequest<'_> {
    /// The request in the form that this protocol needs. `is_encrypted`: whether the connection uses TLS.
    pub(super) fn build(&self, protocol: UpstreamProtocol, is_encrypted: bool) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = self.method.clone();
        let headers = request.headers_mut();
        headers.clone_from(self.headers);
        for name in HOP_BY_HOP {
            headers.remove(name);
        }
        headers.entry(USER_AGENT).or_insert(PRODUCT);
        match protocol {
            UpstreamProtocol::Http1 | UpstreamProtocol::FastCgi => {
                headers.insert(HOST, self.host.clone());
                if !self.keeps_connection {
                    headers.insert(CONNECTION, HeaderValue::from_static("close"));
                }
                *request.uri_mut() = self.path.clone();
            }
            UpstreamProtocol::Http2 => {
                *request.version_mut() = Version::HTTP_2;
                *request.uri_mut() = absolute(self.path, self.host, is_encrypted);
            }
        }
        request
    }
}

/// The URI as HTTP/2 has it, in parts. A host that is no authority is left out.
pub(super) fn absolute(path: &Uri, host: &HeaderValue, is_encrypted: bool) -> Uri {
    let authority = Authority::try_from(host.as_bytes()).unwrap_or_else(|_| Authority::from_static("localhost"));
    let mut parts = Parts::default();
    parts.scheme = Some(if is_encrypted { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query = Some(path.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).expect("it has all parts")
}

/// Fields that belong to a connection, or that the message itself decides.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_LENGTH,
    HOST,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
pub(super) const PRODUCT: HeaderValue =
    HeaderValue::from_static(concat!("portico-health-check/", env!("CARGO_PKG_VERSION")));
/// How much of a body is read, in bytes.
const MAX_BODY: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn build(
        headers: &[(&'static str, &'static str)],
        protocol: UpstreamProtocol,
        keeps: bool,
    ) -> Request<Full<Bytes>> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let request = HttpRequest {
            method: &Method::GET,
            path: &Uri::from_static("/healthz?full=1"),
            host: &HeaderValue::from_static("web.shop.svc:80"),
            headers: &headers,
            keeps_connection: keeps,
        };
        request.build(protocol, false)
    }

    #[test]
    fn requests_have_the_form_of_their_protocol() {
        let http1 = build(&[], UpstreamProtocol::Http1, true);
        assert_eq!(http1.uri(), "/healthz?full=1");
        assert_eq!(http1.headers()[HOST], "web.shop.svc:80");
        assert!(!http1.headers().contains_key(CONNECTION));
        assert_eq!(build(&[], UpstreamProtocol::Http1, false).headers()[CONNECTION], "close");
        let http2 = build(&[], UpstreamProtocol::Http2, false);
        assert_eq!(http2.uri(), "http://web.shop.svc:80/healthz?full=1");
        assert!(!http2.headers().contains_key(HOST) && !http2.headers().contains_key(CONNECTION));
    }

    #[test]
    fn configured_fields_cannot_change_the_framing_or_the_host() {
        let fields = [
            ("x-token", "a"),
            ("host", "evil.example"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("connection", "x-token"),
        ];
        let request = build(&fields, UpstreamProtocol::Http1, true);
        assert_eq!(request.headers().len(), 3, "{:?}", request.headers());
        assert_eq!(request.headers()["x-token"], "a");
        assert_eq!(request.headers()[HOST], "web.shop.svc:80");
        assert_eq!(request.headers()[USER_AGENT], PRODUCT);
        assert_eq!(build(&[("user-agent", "probe")], UpstreamProtocol::Http1, true).headers()[USER_AGENT], "probe");
    }

    #[test]
    fn a_host_that_is_no_authority_does_not_panic() {
        let uri = absolute(&Uri::from_static("*"), &HeaderValue::from_static("a b"), true);
        assert_eq!(uri.authority().unwrap(), "localhost");
    }
}
