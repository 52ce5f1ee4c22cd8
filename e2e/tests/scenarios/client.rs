//! A client of Gateways: one request at a time, which is sent once and never again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Request;
use http::header::HOST;
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

/// How long an answer may take on a machine with much to do.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any answer of ours.
const MOST: usize = 64 << 10;

/// What is asked.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) host: &'static str,
    pub(crate) path: String,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The key in the header `apikey`, if it needs one.
    pub(crate) key: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// A connection, for any number of requests.
pub(crate) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    /// What the server showed, if it is one of TLS.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    _driver: JoinSet<()>,
}

impl Target {
    pub(crate) fn new(address: SocketAddr, host: &'static str, path: &str) -> Target {
        Target { address, host, path: path.to_owned(), tls: None, key: None }
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        timeout(PATIENCE, self.connect_now()).await.context("no connection in time")?
    }

    async fn connect_now(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await.context("no connection")?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Connection::over(stream, None).await };
        let name = ServerName::try_from(self.host)?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.context("no handshake")?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
        Connection::over(stream, certificate.map(CertificateDer::into_owned)).await
    }

    /// Asks on a connection of its own.
    pub(crate) async fn ask(&self) -> Result<Answer> {
        self.connect().await?.ask(self).await
    }

    /// Fails with what was answered if that is not `status` with a body that begins so.
    pub(crate) async fn expect(&self, status: u16, body: &str) -> Result<()> {
        let answer = self.ask().await?;
        ensure!(answer.status == status && answer.body.starts_with(body), "{status} {body}… is expected: {answer:?}");
        Ok(())
    }
}

impl Connection {
    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        certificate: Option<CertificateDer<'static>>,
    ) -> Result<Connection> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("no connection")?;
        let mut driver = JoinSet::new();
        // What goes wrong there is told to whoever asks.
        driver.spawn(async { drop(connection.await) });
        Ok(Connection { sender, certificate, _driver: driver })
    }

    /// False once the server said that it closes it.
    pub(crate) async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    pub(crate) async fn ask(&mut self, target: &Target) -> Result<Answer> {
        timeout(PATIENCE, self.ask_now(target)).await.context("no answer in time")?
    }

    async fn ask_now(&mut self, target: &Target) -> Result<Answer> {
        let mut request = Request::get(&target.path).header(HOST, target.host);
        if let Some(key) = &target.key {
            request = request.header("apikey", key);
        }
        let request = request.body(Empty::new())?;
        let answer = self.sender.send_request(request).await.context("no answer")?;
        let status = answer.status().as_u16();
        #[expect(clippy::disallowed_methods, reason = "it is limited")]
        let body = Limited::new(answer.into_body(), MOST).collect();
        let body = body.await.map_err(|error| anyhow::anyhow!("half an answer: {error}"))?;
        Ok(Answer { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
    }
}
