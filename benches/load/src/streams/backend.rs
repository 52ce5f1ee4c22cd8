//! The backend of forwarded connections and datagrams: it sends back what it receives, or as many bytes as requested.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Builder;

/// The first byte of a connection of which the backend sends back the rest.
pub(super) const ECHO: u8 = b'e';
/// The first byte of a connection on which the backend sends bytes until it is closed.
pub(super) const BULK: u8 = b'b';
/// The first byte of a TLS record, which the backend skips: connections that are passed through begin with a
/// ClientHello.
const HANDSHAKE_RECORD: u8 = 22;

/// Starts the backend in a thread, which runs as long as this program. It serves TCP and UDP at the returned address.
pub(super) fn start_backend() -> Result<SocketAddr> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async move {
            let bound = async {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                let socket = UdpSocket::bind(listener.local_addr()?).await?;
                std::io::Result::Ok((listener, socket))
            };
            let (listener, socket) = match bound.await {
                Ok(bound) => bound,
                Err(error) => return drop(sender.send(Err(error))),
            };
            drop(sender.send(listener.local_addr()));
            tokio::join!(serve_tcp(listener), serve_udp(socket));
        });
    });
    receiver.recv().context("the backend's thread ended")?.context("the backend cannot listen")
}

async fn serve_tcp(listener: TcpListener) {
    let tasks = tokio::task::LocalSet::new();
    let accepting = async {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve_connection(stream));
            }
        }
    };
    tasks.run_until(accepting).await
}

/// Errors end the connection, as those of clients do.
async fn serve_connection(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut command = stream.read_u8().await.ok()?;
    if command == HANDSHAKE_RECORD {
        let mut header = [0; 4];
        stream.read_exact(&mut header).await.ok()?;
        let mut record = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]]))];
        stream.read_exact(&mut record).await.ok()?;
        command = stream.read_u8().await.ok()?;
    }
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = match command {
            BULK => buffer.len(),
            _ => stream.read(&mut buffer).await.ok().filter(|length| *length > 0)?,
        };
        stream.write_all(&buffer[..length]).await.ok()?;
    }
}

async fn serve_udp(socket: UdpSocket) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            drop(socket.send_to(&buffer[..length], client).await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn backend_serves_all_kinds_of_connections() {
        let address = start_backend().unwrap();
        let record = [&[HANDSHAKE_RECORD, 3, 1, 0, 2][..], b"xx"].concat();
        for beginning in [&[][..], &record] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&[beginning, &[ECHO], b"text"].concat()).await.unwrap();
            let mut received = [0; 4];
            stream.read_exact(&mut received).await.unwrap();
            assert_eq!(&received, b"text");
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_u8(BULK).await.unwrap();
        stream.read_exact(&mut vec![0; 1 << 20]).await.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(b"datagram", address).await.unwrap();
        let mut received = [0; 8];
        socket.recv(&mut received).await.unwrap();
        assert_eq!(&received, b"datagram");
    }
}
