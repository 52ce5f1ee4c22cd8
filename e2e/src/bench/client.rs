//! A client of one Gateway: a kept connection, on which a request is sent once and never again.

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

/// Longer than anybody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any answer here.
const MOST: usize = 64 << 10;

/// What is asked for.
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
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await.context("no connection in time")?;
        let stream = stream.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("no connection")?;
        let mut driver = JoinSet::new();
        // What goes wrong there is told to whoever asks.
        driver.spawn(async { drop(connection.await) });
        Ok(Connection { sender, _driver: driver })
    }

    /// False once the server has said that it closes it.
    pub(super) async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// The status of the answer, once all of it is here.
    pub(super) async fn ask(&mut self, target: &Target) -> Result<u16> {
        self.read(target).await.map(|(status, _)| status)
    }

    /// The same, with what was answered.
    pub(super) async fn read(&mut self, target: &Target) -> Result<(u16, String)> {
        timeout(PATIENCE, self.read_now(target)).await.context("no answer in time")?
    }

    async fn read_now(&mut self, target: &Target) -> Result<(u16, String)> {
        self.sender.ready().await.context("the connection is closed")?;
        let request = Request::get(&target.path).header(HOST, &target.host).body(Empty::new())?;
        let answer = self.sender.send_request(request).await.context("no answer")?;
        let status = answer.status().as_u16();
        #[expect(clippy::disallowed_methods, reason = "it is limited")]
        let body = Limited::new(answer.into_body(), MOST).collect();
        let body = body.await.map_err(|error| anyhow::anyhow!("half an answer: {error}"))?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }
}
