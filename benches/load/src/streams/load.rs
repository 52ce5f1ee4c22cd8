//! The clients of forwarded connections and datagrams, which verify what they receive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::ClientConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use super::backend::{BULK, ECHO};
use crate::plan::Protocol;
use crate::server::HOST;
use crate::tls::Tls;

/// How connections begin.
#[derive(Clone)]
pub(super) struct Beginning(Arc<[u8]>);

impl Beginning {
    pub(super) fn plain() -> Self {
        Beginning([].into())
    }

    /// A ClientHello, which a proxy needs to select the backend.
    pub(super) fn client_hello() -> Result<Self> {
        let (config, name) = Tls::new(HOST, Protocol::Http1)?.into_parts();
        let mut hello = Vec::new();
        ClientConnection::new(config, name)?.write_tls(&mut hello)?;
        Ok(Beginning(hello.into()))
    }
}

/// Opens a connection and exchanges one byte.
pub(super) async fn open(target: SocketAddr, beginning: &Beginning) -> Result<TcpStream> {
    let exchanged = async {
        let mut stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&[&beginning.0, &[ECHO, b'x'][..]].concat()).await?;
        ensure!(stream.read_u8().await? == b'x', "the byte was changed");
        Ok(stream)
    };
    timeout(RESPONSE_TIMEOUT, exchanged).await.context("no response")?
}

/// Opens connections one after the other until `end`, and returns how many.
pub(super) async fn connect_repeatedly(target: SocketAddr, beginning: Beginning, end: Instant) -> Result<u64> {
    let mut count = 0;
    while Instant::now() < end {
        let stream = open(target, &beginning).await?;
        // With a reset, no local port stays reserved.
        stream.set_zero_linger()?;
        count += 1;
    }
    Ok(count)
}

/// Receives bytes on one connection until `end`, and returns how many.
pub(super) async fn receive_bulk(target: SocketAddr, beginning: Beginning, end: Instant) -> Result<u64> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(&[&beginning.0, &[BULK][..]].concat()).await?;
    let mut buffer = vec![0; 256 << 10];
    let mut received = 0;
    while let Ok(length) = timeout_at(end, stream.read(&mut buffer)).await {
        let length = length?;
        ensure!(length > 0, "the connection ended");
        received += length as u64;
    }
    Ok(received)
}

/// A UDP client with a session of its own.
pub(super) async fn open_session(target: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(target).await?;
    exchange(&socket, &[0; DATAGRAM]).await?;
    Ok(socket)
}

/// Exchanges datagrams until `end`, and returns how many were forwarded in both directions together.
pub(super) async fn exchange_repeatedly(socket: UdpSocket, end: Instant) -> Result<u64> {
    let mut count = 0;
    while Instant::now() < end {
        exchange(&socket, &[count as u8; DATAGRAM]).await?;
        count += 2;
    }
    Ok(count)
}

/// Sends a datagram again if it is lost, which happens on loopback only if a buffer is full.
async fn exchange(socket: &UdpSocket, datagram: &[u8]) -> Result<()> {
    let mut received = [0; DATAGRAM + 1];
    for _ in 0..ATTEMPTS {
        // An error of an earlier datagram, while the server starts.
        drop(socket.send(datagram).await);
        if let Ok(Ok(length)) = timeout(RESEND_AFTER, socket.recv(&mut received)).await {
            ensure!(received[..length] == *datagram, "the datagram was changed");
            return Ok(());
        }
    }
    anyhow::bail!("no datagram was received");
}

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// As large as a typical DNS response.
const DATAGRAM: usize = 100;
const RESEND_AFTER: Duration = Duration::from_millis(500);
const ATTEMPTS: usize = 20;
