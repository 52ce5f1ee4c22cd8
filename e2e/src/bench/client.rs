//! A client of one Gateway: a keep-alive connection on which requests are never retried.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longer than any response takes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Larger than any response body.
const MAX_BODY: usize = 64 << 10;

/// Where a request goes: the address of the Gateway, and the host and path of a route.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) host: String,
    pub(super) path: String,
}

pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    _driver: JoinSet<()>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Connection> {
        let stream = timeout(REQUEST_TIMEOUT, TcpStream::connect(address)).await.context("connection timed out")?;
        let stream = stream.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("the connection was closed")?;
        let mut driver = JoinSet::new();
        // Errors are reported to the caller of the request.
        driver.spawn(async { drop(connection.await) });
        Ok(Connection { sender, _driver: driver })
    }

    /// False once the server closes the connection.
    pub(super) async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// The status of the complete response.
    pub(super) async fn request_status(&mut self, target: &Target) -> Result<u16> {
        self.request(target).await.map(|(status, _)| status)
    }

    /// The status and body of the response.
    pub(super) async fn request(&mut self, target: &Target) -> Result<(u16, String)> {
        timeout(REQUEST_TIMEOUT, self.request_without_timeout(target)).await.context("response timed out")?
    }

    async fn request_without_timeout(&mut self, target: &Target) -> Result<(u16, String)> {
        self.sender.ready().await.context("the connection is closed")?;
        let request = Request::get(&target.path).header(HOST, &target.host).body(Empty::new())?;
        let response = self.sender.send_request(request).await.context("no response")?;
        let status = response.status().as_u16();
        #[expect(clippy::disallowed_methods, reason = "the body is limited")]
        let body = Limited::new(response.into_body(), MAX_BODY).collect();
        let body = body.await.map_err(|error| anyhow::anyhow!("incomplete response: {error}"))?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }
}
