//! The client of the gateway's admin listener.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// A keep-alive connection. The gateway forgets a registered token when the connection closes.
pub(super) struct AdminClient {
    address: SocketAddr,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

/// How the gateway served a request, as it recorded it. A step that the request did not reach is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GatewayRecord {
    /// `namespace/gateway/listener`
    pub listener: Option<String>,
    /// `Kind/namespace/name`
    pub route: Option<String>,
    pub rule: Option<String>,
    pub path: Option<String>,
    /// `namespace/service:port`
    pub backend: Option<String>,
    pub endpoint: Option<String>,
    /// Why the endpoint was picked.
    pub picked: Option<String>,
    pub status: Option<u16>,
    /// `endpoint`, `plugin` or `portico`
    pub source: Option<String>,
    pub reason: Option<String>,
    pub dry_run: bool,
}

/// Why the admin listener cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error(
        "cannot reach the admin listener at {address}: {error}; start the gateway with `portico run`, or give its \
         --admin-listen address in --admin"
    )]
    Unreachable { address: SocketAddr, error: std::io::Error },
    #[error(
        "the server at {address} does not use HTTP: {error}; give the --admin-listen address of the gateway in \
         --admin"
    )]
    NotHttp { address: SocketAddr, error: hyper::Error },
    #[error("the admin listener at {address} responds to {target} with status {status}: {body}")]
    Refused { address: SocketAddr, target: String, status: StatusCode, body: String },
    #[error("the admin listener at {address} did not respond to {target} within {seconds}s")]
    Timeout { address: SocketAddr, target: String, seconds: u64 },
    #[error(
        "the response of {address} to {target} cannot be read: {error}; is it the admin listener of a portico with \
         the same version?"
    )]
    Unreadable { address: SocketAddr, target: String, error: String },
}

impl AdminClient {
    pub(super) fn new(address: SocketAddr) -> Self {
        AdminClient { address, connection: None }
    }

    /// A view, such as `snapshot`.
    pub(super) async fn view<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, AdminError> {
        let target = format!("/debug/{name}");
        let (status, body) = self.send(Method::GET, &target, VIEW_TIMEOUT).await?;
        self.require(status, StatusCode::OK, &target, &body)?;
        self.parse(&target, &body)
    }

    /// Registers a token on this connection.
    pub(super) async fn register(&mut self, token: &str, dry_run: bool) -> Result<(), AdminError> {
        let target = format!("/debug/observations/{token}{}", if dry_run { "?dry-run" } else { "" });
        let (status, body) = self.send(Method::PUT, &target, REGISTER_TIMEOUT).await?;
        self.require(status, StatusCode::CREATED, &target, &body)
    }

    /// Waits until the request with the token has ended. `None` if the gateway did not record it.
    pub(super) async fn observation(&mut self, token: &str) -> Result<Option<GatewayRecord>, AdminError> {
        let target = format!("/debug/observations/{token}");
        let (status, body) = self.send(Method::GET, &target, OBSERVATION_TIMEOUT).await?;
        if status == StatusCode::NOT_FOUND || status == StatusCode::GATEWAY_TIMEOUT {
            return Ok(None);
        }
        self.require(status, StatusCode::OK, &target, &body)?;
        self.parse(&target, &body).map(Some)
    }

    /// Closes the connection, so that the gateway forgets its token.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    fn require(&self, status: StatusCode, expected: StatusCode, target: &str, body: &[u8]) -> Result<(), AdminError> {
        if status == expected {
            return Ok(());
        }
        let body = String::from_utf8_lossy(body).lines().next().unwrap_or_default().to_owned();
        Err(AdminError::Refused { address: self.address, target: target.to_owned(), status, body })
    }

    fn parse<T: DeserializeOwned>(&self, target: &str, body: &[u8]) -> Result<T, AdminError> {
        serde_json::from_slice(body).map_err(|error| self.unreadable(target, error.to_string()))
    }

    fn unreadable(&self, target: &str, error: String) -> AdminError {
        AdminError::Unreadable { address: self.address, target: target.to_owned(), error }
    }

    async fn send(
        &mut self,
        method: Method,
        target: &str,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), AdminError> {
        let address = self.address;
        let exchange = tokio::time::timeout(timeout, self.exchange(method, target)).await;
        let result = exchange.unwrap_or_else(|_| {
            Err(AdminError::Timeout { address, target: target.to_owned(), seconds: timeout.as_secs() })
        });
        if result.is_err() {
            self.close();
        }
        result
    }

    async fn exchange(&mut self, method: Method, target: &str) -> Result<(StatusCode, Bytes), AdminError> {
        let address = self.address;
        // The gateway closes connections that are idle or old.
        let is_open = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        let mut connection = match self.connection.take().filter(|_| is_open) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let request = Request::builder().method(method).uri(target).header(HOST, address.to_string());
        let request = request.body(Empty::new()).map_err(|error| self.unreadable(target, error.to_string()))?;
        let response = connection.send_request(request).await;
        let response = response.map_err(|error| AdminError::NotHttp { address, error })?;
        let status = response.status();
        #[expect(clippy::disallowed_methods, reason = "it is limited")]
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|error| self.unreadable(target, error.to_string()))?;
        self.connection = Some(connection);
        Ok((status, body.to_bytes()))
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, AdminError> {
        let address = self.address;
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| AdminError::Unreachable { address, error })?;
        // Without TCP_NODELAY, a request may wait for an acknowledgment.
        stream.set_nodelay(true).ok();
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (requests, connection) = handshake.map_err(|error| AdminError::NotHttp { address, error })?;
        // Ends with the sender of its requests; its errors are those of the requests.
        tokio::spawn(connection);
        Ok(requests)
    }
}

/// A snapshot of the largest clusters has about a tenth of this.
const MAX_BODY: usize = 1 << 30;
const VIEW_TIMEOUT: Duration = Duration::from_secs(60);
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the gateway waits.
const OBSERVATION_TIMEOUT: Duration = Duration::from_secs(70);
