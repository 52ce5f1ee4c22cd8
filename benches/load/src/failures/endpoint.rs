//! Endpoints that fail on request, and record when each request arrived.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backend::{field, request_path, response_bytes};
use crate::pattern;

/// The path of health checks, whose requests are logged apart from all others.
pub const CHECK_PATH: &str = "/healthz";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    /// Responds with this status; checks get the same.
    Respond(u16),
    /// Has reset its connections, and refuses new ones.
    Refuse,
}

/// An endpoint on the current runtime, until it is dropped.
pub struct FailingEndpoint {
    pub address: SocketAddr,
    behavior: watch::Sender<Behavior>,
    log: Arc<Log>,
    // Keeps the port from being taken while the endpoint refuses connections.
    _reserved: TcpSocket,
}

/// When requests and checks arrived.
#[derive(Default)]
struct Log {
    requests: Mutex<Vec<Instant>>,
    checks: Mutex<Vec<Instant>>,
}

impl FailingEndpoint {
    pub fn start(behavior: Behavior) -> Result<FailingEndpoint> {
        let reserved = socket(([127, 0, 0, 1], 0).into())?;
        let address = reserved.local_addr()?;
        let (sender, receiver) = watch::channel(behavior);
        let log = Arc::new(Log::default());
        // The first listener is opened here, so that an error is reported.
        let listener = (behavior != Behavior::Refuse).then(|| listen(address)).transpose()?;
        tokio::spawn(run(address, listener, receiver, Arc::clone(&log)));
        Ok(FailingEndpoint { address, behavior: sender, log, _reserved: reserved })
    }

    /// Endpoints that respond with this status.
    pub fn start_all(count: usize, status: u16) -> Result<Vec<FailingEndpoint>> {
        (0..count).map(|_| FailingEndpoint::start(Behavior::Respond(status))).collect()
    }

    pub fn behave(&self, behavior: Behavior) {
        self.behavior.send_replace(behavior);
    }

    /// When each request arrived, in this order, without checks.
    pub fn requests(&self) -> Vec<Instant> {
        self.log.requests.lock().clone()
    }

    /// When each check arrived.
    pub fn checks(&self) -> Vec<Instant> {
        self.log.checks.lock().clone()
    }
}

/// Serves, one listener after another, until the endpoint is dropped.
async fn run(
    address: SocketAddr,
    mut listener: Option<TcpListener>,
    behavior: watch::Receiver<Behavior>,
    log: Arc<Log>,
) {
    let mut changes = behavior.clone();
    loop {
        if changes.wait_for(|behavior| *behavior != Behavior::Refuse).await.is_err() {
            return;
        }
        // Without a listener, connections are refused, which the figures show.
        let Some(listening) = listener.take().or_else(|| listen(address).ok()) else { return };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listening.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    // A connection that fails is one that its client reports.
                    let (behavior, log) = (behavior.clone(), Arc::clone(&log));
                    connections.spawn(async move { serve(stream, &behavior, &log).await.ok() });
                }
                _ = connections.join_next(), if !connections.is_empty() => {}
                refuses = changes.wait_for(|behavior| *behavior == Behavior::Refuse) => {
                    if refuses.is_err() {
                        return;
                    }
                    break;
                }
            }
        }
        // Dropping the connections resets them.
    }
}

async fn serve(mut stream: TcpStream, behavior: &watch::Receiver<Behavior>, log: &Log) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_zero_linger()?;
    let mut buffer = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = std::str::from_utf8(&buffer[..head_end]).context("the head is not text")?;
        ensure!(field(head, "content-length").is_none(), "these endpoints read no bodies");
        let (path, number) = (request_path(head), field(head, "x-number").unwrap_or_default());
        let arrivals = if path == CHECK_PATH { &log.checks } else { &log.requests };
        arrivals.lock().push(Instant::now());
        let Behavior::Respond(status) = *behavior.borrow() else { return Ok(()) };
        let body = pattern::body(response_bytes(path));
        let mut response = format!(
            "HTTP/1.1 {status} Status\r\ncontent-length: {}\r\nx-number: {number}\r\nx-received: 0\r\n\r\n",
            body.len()
        )
        .into_bytes();
        response.extend_from_slice(body);
        stream.write_all(&response).await?;
        buffer.drain(..head_end);
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    socket(address)?.listen(1024).with_context(|| format!("cannot listen on {address}"))
}

fn socket(address: SocketAddr) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Two sockets have the port: the one that reserves it, and the listener.
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("cannot bind {address}"))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::sequential_plan;
    use crate::plan::RequestShape;
    use crate::run::run;

    #[tokio::test]
    async fn endpoints_behave_as_requested() {
        let endpoint = FailingEndpoint::start(Behavior::Respond(200)).unwrap();
        let shapes = || vec![RequestShape::get("a", "/"), RequestShape::get("a", CHECK_PATH)];
        let report = run(sequential_plan(10, endpoint.address, shapes())).await;
        assert!(report.is_clean() && report.good == 10, "{report}");
        assert_eq!((endpoint.requests().len(), endpoint.checks().len()), (5, 5));
        endpoint.behave(Behavior::Respond(500));
        assert_eq!(run(sequential_plan(10, endpoint.address, shapes())).await.wrong, 10);
        let mut open = TcpStream::connect(endpoint.address).await.unwrap();
        endpoint.behave(Behavior::Refuse);
        let error = open.read_u8().await.unwrap_err();
        // A reset, if the endpoint had not read all.
        let kinds = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::UnexpectedEof];
        assert!(kinds.contains(&error.kind()), "{error}");
        assert!(TcpStream::connect(endpoint.address).await.is_err());
        endpoint.behave(Behavior::Respond(200));
        while TcpStream::connect(endpoint.address).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(endpoint.requests().len(), 10);
    }
}
