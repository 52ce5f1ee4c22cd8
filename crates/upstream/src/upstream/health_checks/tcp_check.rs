//! TCP checks: a connection, over which bytes may be sent and expected.

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::checker::{CheckFailure, CheckPass};
use crate::upstream::socket::UpstreamSocket;

/// Sends `send`, and reads until the endpoint has sent `expect` anywhere.
pub(super) async fn check(mut socket: UpstreamSocket, send: &[u8], expect: &[u8]) -> Result<CheckPass, CheckFailure> {
    socket.write_all(send).await.map_err(|error| CheckFailure::Connection(error.to_string()))?;
    socket.flush().await.map_err(|error| CheckFailure::Connection(error.to_string()))?;
    let mut received = Vec::new();
    while memmem::find(&received, expect).is_none() {
        if received.len() >= MAX_RECEIVED {
            return Err(CheckFailure::Unexpected { received: received.len() });
        }
        received.reserve(READ_SIZE);
        match socket.read_buf(&mut received).await {
            Ok(0) => return Err(CheckFailure::Closed { received: received.len() }),
            Ok(_) => {}
            Err(error) => return Err(CheckFailure::Connection(error.to_string())),
        }
    }
    Ok(CheckPass::on_this_connection(false))
}

/// How much is read to find the expected bytes.
const MAX_RECEIVED: usize = 64 * 1024;
const READ_SIZE: usize = 4 * 1024;
