//! One hostile connection.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use super::kinds::{AfterOpening, Flood};

/// Runs one connection until the server closes it or, for [`AfterOpening::Close`], responds. An open connection is left
/// in `connection` when this is cancelled.
pub(super) async fn attack(flood: &Flood, target: SocketAddr, connection: &mut Option<TcpStream>) {
    *connection = None;
    let Ok(socket) = TcpSocket::new_v4() else { return };
    if !flood.reads_responses {
        // A small buffer, so that the kernel does not read on behalf of the client.
        socket.set_recv_buffer_size(4096).ok();
    }
    let Ok(stream) = socket.connect(target).await else { return };
    let (mut reader, mut writer) = connection.insert(stream).split();
    let read = async {
        let mut buffer = [0; 16 * 1024];
        if !flood.reads_responses {
            return std::future::pending().await;
        }
        while let Ok(1..) = reader.read(&mut buffer).await {
            if matches!(flood.after_opening, AfterOpening::Close) {
                return;
            }
        }
    };
    let write = async {
        if writer.write_all(&flood.opening).await.is_err() {
            return;
        }
        let mut number = 0;
        let mut bytes = Vec::new();
        loop {
            match flood.after_opening {
                AfterOpening::Nothing | AfterOpening::Close => return std::future::pending().await,
                AfterOpening::SendSlowly(chunk, pause) => {
                    sleep(pause).await;
                    bytes.clear();
                    bytes.extend_from_slice(chunk);
                }
                AfterOpening::SendFast(append) => {
                    bytes.clear();
                    append(number, &mut bytes);
                    number += 1;
                }
            }
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
