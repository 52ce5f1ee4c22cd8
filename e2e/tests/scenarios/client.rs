//! A client of Gateways that never retries a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Request;
use http::header::{COOKIE, HOST, SET_COOKIE};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

/// How long a response may take on a busy machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Larger than any response body of the tests.
const MAX_BODY: usize = 64 << 10;

/// Where a request is sent to, and with which credentials.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) host: &'static str,
    pub(crate) path: String,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The value of the header `apikey`, if the route needs one.
    pub(crate) key: Option<String>,
    /// `NAME=VALUE` of the cookie, if the request has one.
    pub(crate) cookie: Option<String>,
}

#[derive(Debug)]
pub(crate) struct GatewayResponse {
    pub(crate) status: u16,
    /// `NAME=VALUE` of the first cookie that it sets.
    pub(crate) cookie: Option<String>,
    pub(crate) body: String,
}

/// A connection for any number of requests.
pub(crate) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    /// The server's certificate, over TLS.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    _driver: JoinSet<()>,
}

impl Target {
    pub(crate) fn new(address: SocketAddr, host: &'static str, path: &str) -> Target {
        Target { address, host, path: path.to_owned(), tls: None, key: None, cookie: None }
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        timeout(REQUEST_TIMEOUT, self.connect_without_timeout()).await.context("connection timed out")?
    }

    async fn connect_without_timeout(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await.context("no connection")?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Connection::from_stream(stream, None).await };
        let name = ServerName::try_from(self.host)?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.context("TLS handshake failed")?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
        Connection::from_stream(stream, certificate.map(CertificateDer::into_owned)).await
    }

    /// Sends the request on a new connection.
    pub(crate) async fn request(&self) -> Result<GatewayResponse> {
        self.connect().await?.request(self).await
    }

    /// Fails unless the response has this status and its body starts with `body`.
    pub(crate) async fn expect(&self, status: u16, body: &str) -> Result<()> {
        let response = self.request().await?;
        ensure!(
            response.status == status && response.body.starts_with(body),
            "expected {status} {body}…, got {response:?}"
        );
        Ok(())
    }
}

impl Connection {
    async fn from_stream(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        certificate: Option<CertificateDer<'static>>,
    ) -> Result<Connection> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("no connection")?;
        let mut driver = JoinSet::new();
        // Errors are reported to the caller of the request.
        driver.spawn(async { drop(connection.await) });
        Ok(Connection { sender, certificate, _driver: driver })
    }

    pub(crate) async fn request(&mut self, target: &Target) -> Result<GatewayResponse> {
        self.try_request(target).await?.context("the connection was closed before the request was sent")
    }

    /// Returns None if the server had closed the connection before a byte of the request was sent.
    pub(crate) async fn try_request(&mut self, target: &Target) -> Result<Option<GatewayResponse>> {
        timeout(REQUEST_TIMEOUT, self.request_without_timeout(target)).await.context("response timed out")?
    }

    async fn request_without_timeout(&mut self, target: &Target) -> Result<Option<GatewayResponse>> {
        let mut request = Request::get(&target.path).header(HOST, target.host);
        if let Some(key) = &target.key {
            request = request.header("apikey", key);
        }
        if let Some(cookie) = &target.cookie {
            request = request.header(COOKIE, cookie);
        }
        let request = request.body(Empty::new())?;
        let response = match self.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => match error.take_message() {
                Some(_unsent) => return Ok(None),
                None => return Err(error.into_error()).context("no response"),
            },
        };
        let status = response.status().as_u16();
        let set_cookie = response.headers().get(SET_COOKIE).and_then(|value| value.to_str().ok());
        let cookie = set_cookie.and_then(|value| value.split(';').next()).map(str::to_owned);
        #[expect(clippy::disallowed_methods, reason = "the body is limited")]
        let body = Limited::new(response.into_body(), MAX_BODY).collect();
        let body = body.await.map_err(|error| anyhow::anyhow!("incomplete response: {error}"))?;
        Ok(Some(GatewayResponse { status, cookie, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() }))
    }
}
