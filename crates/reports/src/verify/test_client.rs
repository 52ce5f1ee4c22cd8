//! Sends one request to a listener, on a connection of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT, HOST, TE, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::unverified_certificates::AcceptServerWithoutProof;

/// A request with the connection that it is sent on.
#[derive(Clone, Debug)]
pub(super) struct RouteRequest {
    pub address: SocketAddr,
    pub is_tls: bool,
    pub method: Method,
    /// The name, with a port if the route has one.
    pub host: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether it is a gRPC call, which needs HTTP/2.
    pub is_grpc: bool,
}

/// Why a request got no response, as a clause.
#[derive(Debug, thiserror::Error)]
pub(super) enum MissingResponse {
    #[error("cannot connect to {address}: {error}")]
    Connect { address: SocketAddr, error: std::io::Error },
    #[error("the TLS handshake with {address} failed: {error}")]
    Tls { address: SocketAddr, error: std::io::Error },
    #[error("{host} cannot be a server name of TLS")]
    ServerName { host: String },
    #[error("the request cannot be written: {0}")]
    Invalid(#[from] http::Error),
    #[error("{address} did not respond: {error}")]
    NoResponse { address: SocketAddr, error: hyper::Error },
    #[error("{address} did not respond within {timeout:?}")]
    Timeout { address: SocketAddr, timeout: Duration },
}

impl RouteRequest {
    /// `GET http://shop.example/cart?x=1 x-canary: 1`
    pub(super) fn description(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        let headers =
            self.headers.iter().map(|(name, value)| format!(" {name}: {}", String::from_utf8_lossy(value.as_bytes())));
        format!("{} {scheme}://{}{}{}", self.method, self.host, self.target, headers.collect::<String>())
    }

    /// Sends the request with the token of its observation, and reads its response.
    pub(super) async fn send(
        &self,
        token: HeaderValue,
        dry_run: bool,
        timeout: Duration,
    ) -> Result<StatusCode, MissingResponse> {
        let mut fields = vec![(HeaderName::from_static("portico-observe"), token)];
        if dry_run {
            // A server that does not know the token must not process the request. The gateway refuses unknown
            // expectations (RFC 9110, section 10.1.1), and removes this one from dry runs.
            fields.push((EXPECT, HeaderValue::from_static("portico-dry-run")));
        }
        let exchange = tokio::time::timeout(timeout, self.connect_and_send(fields, timeout)).await;
        exchange.unwrap_or(Err(MissingResponse::Timeout { address: self.address, timeout }))
    }

    async fn connect_and_send(
        &self,
        fields: Vec<(HeaderName, HeaderValue)>,
        timeout: Duration,
    ) -> Result<StatusCode, MissingResponse> {
        let address = self.address;
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| MissingResponse::Connect { address, error })?;
        stream.set_nodelay(true).ok();
        let request = self.request(fields)?;
        if !self.is_tls {
            return self.exchange(stream, request, timeout).await;
        }
        let host = self.host_without_port();
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| MissingResponse::ServerName { host: host.to_owned() })?;
        let stream = TlsConnector::from(Arc::new(self.tls_config())).connect(name, stream).await;
        let stream = stream.map_err(|error| MissingResponse::Tls { address, error })?;
        self.exchange(stream, request, timeout).await
    }

    fn host_without_port(&self) -> &str {
        match self.host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => &self.host,
        }
    }

    /// Any certificate is accepted: the request contains no secret, and what is verified is the route.
    fn tls_config(&self) -> ClientConfig {
        let provider = Arc::new(default_provider());
        let verifier = Arc::new(AcceptServerWithoutProof(Arc::clone(&provider)));
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider supports the default versions");
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        let protocol: &[u8] = if self.is_grpc { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    }

    fn request(&self, fields: Vec<(HeaderName, HeaderValue)>) -> Result<Request<Empty<Bytes>>, http::Error> {
        let mut request = Request::builder().method(&self.method).header(USER_AGENT, PRODUCT);
        if self.is_grpc {
            let scheme = if self.is_tls { "https" } else { "http" };
            request = request.version(Version::HTTP_2).uri(format!("{scheme}://{}{}", self.host, self.target));
            request = request.header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
        } else {
            request = request.uri(&self.target).header(HOST, &self.host);
        }
        let mut request = request.body(Empty::new())?;
        // A condition takes precedence over what this client would send.
        for (name, value) in self.headers.iter().cloned().chain(fields) {
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        request: Request<Empty<Bytes>>,
        timeout: Duration,
    ) -> Result<StatusCode, MissingResponse> {
        let failure = |error| MissingResponse::NoResponse { address: self.address, error };
        let stream = TokioIo::new(stream);
        // The connection ends with the sender of its requests; its errors are those of the request.
        let response = if self.is_grpc {
            let (mut requests, connection) = http2::handshake(TokioExecutor::new(), stream).await.map_err(failure)?;
            tokio::spawn(connection);
            requests.send_request(request).await.map_err(failure)?
        } else {
            let (mut requests, connection) = http1::handshake(stream).await.map_err(failure)?;
            tokio::spawn(connection);
            requests.send_request(request).await.map_err(failure)?
        };
        let status = response.status();
        // The gateway records a request when its response ends. A response without an end is aborted.
        tokio::time::timeout(timeout / 2, discard(response.into_body())).await.ok();
        Ok(status)
    }
}

/// Reads a body, up to a limit, without keeping it.
async fn discard(mut body: Incoming) {
    let mut left = MAX_BODY;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

const PRODUCT: &str = concat!("portico-verify/", env!("CARGO_PKG_VERSION"));
const MAX_BODY: usize = 16 << 20;
