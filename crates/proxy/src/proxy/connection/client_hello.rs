//! The ClientHello, which is read before anything else happens on a TLS connection. Its server name selects the
//! listener, which terminates TLS or forwards the connection.
//!
//! ```text
//!   FirstBytes ┬▶ ReceivedHello ┬▶ handshake, which continues after the parsed ClientHello
//!              └────────────────┴▶ endpoint, which gets the same bytes
//! ```

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::StartHandshake;

use super::server_name::server_name;
use super::tls::ClientHandshakeError;

/// A connection from which the first bytes were read, which most often are its whole ClientHello.
pub(in crate::proxy) struct FirstBytes {
    stream: TcpStream,
    bytes: BytesMut,
}

impl FirstBytes {
    pub(in crate::proxy) async fn read(mut stream: TcpStream) -> Result<Self, ClientHandshakeError> {
        // A client that sends nothing gets no buffer.
        stream.readable().await.map_err(|_| ClientHandshakeError::ClientDisconnected)?;
        let mut bytes = BytesMut::with_capacity(CHUNK_SIZE);
        read_more(&mut stream, &mut bytes).await?;
        Ok(FirstBytes { stream, bytes })
    }

    /// In lower case. `None` if the ClientHello must be read by rustls to know it.
    pub(in crate::proxy) fn server_name(&self) -> Option<Arc<str>> {
        server_name(&self.bytes).map(normalize_name)
    }

    /// The connection, and the bytes that were read from it.
    pub(in crate::proxy) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.stream, self.bytes.freeze())
    }
}

/// A connection whose ClientHello was read.
pub(in crate::proxy) struct ReceivedHello {
    stream: TcpStream,
    accepted: Accepted,
    /// Everything that was read, which may be more than the ClientHello.
    bytes: Bytes,
    /// In lower case. None if the client sent no server name, or an IP address instead.
    pub(in crate::proxy) server_name: Option<Arc<str>>,
}

impl ReceivedHello {
    /// Reads the rest of the ClientHello. The client gets an alert if rustls finds it invalid.
    pub(in crate::proxy) async fn read(first: FirstBytes) -> Result<Self, ClientHandshakeError> {
        let FirstBytes { mut stream, bytes } = first;
        let mut hello = PartialHello { acceptor: Acceptor::default(), bytes };
        let mut start = 0;
        loop {
            match hello.accept_from(start) {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let server_name = accepted.client_hello().server_name().map(normalize_name);
                    return Ok(ReceivedHello { stream, accepted, bytes: hello.bytes.freeze(), server_name });
                }
                Err(HelloError::TooLarge) => return Err(ClientHandshakeError::ProtocolViolation),
                Err(HelloError::Invalid(error, alert)) => {
                    send_alert(&mut stream, alert).await;
                    return Err(ClientHandshakeError::from_tls_error(&error));
                }
            }
            start = hello.bytes.len();
            read_more(&mut stream, &mut hello.bytes).await?;
        }
    }

    /// Continues with the handshake.
    pub(super) fn into_handshake(self) -> StartHandshake<TcpStream> {
        StartHandshake::from_parts(self.accepted, self.stream)
    }

    /// The connection, and the bytes that were read from it.
    pub(in crate::proxy) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.stream, self.bytes)
    }
}

/// Adds what has arrived to `bytes`, which are fewer than [`MAX_SIZE`].
async fn read_more(stream: &mut TcpStream, bytes: &mut BytesMut) -> Result<(), ClientHandshakeError> {
    let most = CHUNK_SIZE.min(MAX_SIZE - bytes.len());
    match stream.read_buf(&mut bytes.limit(most)).await {
        Ok(0) | Err(_) => Err(ClientHandshakeError::ClientDisconnected),
        Ok(_) => Ok(()),
    }
}

/// The part of a ClientHello that has arrived.
#[derive(Default)]
pub(in crate::proxy) struct PartialHello {
    acceptor: Acceptor,
    pub(in crate::proxy) bytes: BytesMut,
}

/// Why bytes are not a ClientHello.
pub(in crate::proxy) enum HelloError {
    /// It is longer than [`MAX_SIZE`], or has more records than rustls has room for.
    TooLarge,
    /// With the alert for the client.
    Invalid(rustls::Error, AcceptedAlert),
}

impl PartialHello {
    /// Parses the bytes from `start` on, which were just added to `bytes`. `None` if the ClientHello is incomplete.
    pub(in crate::proxy) fn accept_from(&mut self, start: usize) -> Result<Option<Accepted>, HelloError> {
        let new_bytes = &self.bytes[start..];
        // rustls takes less only if it has no room for a record.
        let is_too_large = self.acceptor.read_tls(&mut &*new_bytes).ok() != Some(new_bytes.len());
        match self.acceptor.accept() {
            Ok(Some(accepted)) if !is_too_large => Ok(Some(accepted)),
            Ok(None) if !is_too_large && self.bytes.len() < MAX_SIZE => Ok(None),
            Ok(_) => Err(HelloError::TooLarge),
            Err((error, alert)) => Err(HelloError::Invalid(error, alert)),
        }
    }
}

/// Errors are ignored: the connection is closed anyway.
async fn send_alert(stream: &mut TcpStream, mut alert: AcceptedAlert) {
    let mut bytes = Vec::new();
    if alert.write_all(&mut bytes).is_ok() {
        drop(stream.write_all(&bytes).await);
        drop(stream.shutdown().await);
    }
}

/// Normalizes a server name as in listeners and certificates.
pub(in crate::proxy) fn normalize_name(server_name: &str) -> Arc<str> {
    let name = server_name.strip_suffix('.').unwrap_or(server_name);
    name.to_ascii_lowercase().into()
}

/// The most bytes to read at once: rustls has room for them even if all but the last byte of a record of the maximum
/// size came before. Most ClientHellos are smaller, even with a post-quantum key exchange.
pub(in crate::proxy) const CHUNK_SIZE: usize = 2048;
/// The most bytes until the ClientHello is complete, as in nginx.
pub(in crate::proxy) const MAX_SIZE: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::net::TcpListener;

    use super::*;

    fn client_hello(server_name: &str, alpn_size: usize) -> Vec<u8> {
        let mut config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        config.alpn_protocols = vec![vec![b'x'; 250]; alpn_size / 250];
        let name = ServerName::try_from(server_name.to_owned()).unwrap();
        let mut hello = Vec::new();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        while connection.wants_write() {
            connection.write_tls(&mut hello).unwrap();
        }
        hello
    }

    /// The result for a client that sends these parts, and what it receives.
    async fn read(parts: &[&[u8]]) -> (Result<ReceivedHello, ClientHandshakeError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let sending = async {
            for part in parts {
                client.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let receiving = async { ReceivedHello::read(FirstBytes::read(stream).await?).await };
        let (result, ()) = tokio::join!(receiving, sending);
        let mut received = Vec::new();
        if result.is_err() {
            drop(client.read_to_end(&mut received).await);
        }
        (result, received)
    }

    #[tokio::test]
    async fn all_bytes_of_the_hello_are_kept() {
        for size in [0, 4_000, 14_000] {
            let hello = client_hello("A.Example", size);
            let middle = hello.len() / 2;
            for parts in [vec![&hello[..]], hello.chunks(700).collect(), vec![&hello[..middle], &hello[middle..]]] {
                let received = read(&parts).await.0.unwrap_or_else(|error| panic!("{size}: {error:?}"));
                assert_eq!(received.server_name.as_deref(), Some("a.example"));
                assert!(received.into_parts().1 == hello, "{size}");
            }
        }
    }

    #[tokio::test]
    async fn following_bytes_are_kept_with_the_hello() {
        let hello = [&client_hello("a.example", 0)[..], b"more"].concat();
        assert_eq!(read(&[&hello]).await.0.unwrap().into_parts().1, hello);
    }

    #[tokio::test]
    async fn invalid_hellos_are_rejected() {
        let hello = client_hello("a.example", 0);
        // Each byte of the message in a record of its own.
        let tiny_records: Vec<u8> = std::iter::once(&[22, 3, 1, 0, 4, 1, 0, 0x3f, 0xfe][..])
            .chain(std::iter::repeat_n(&[22, 3, 1, 0, 1, 0][..], 3_000))
            .flatten()
            .copied()
            .collect();
        let large = client_hello("a.example", 17_000);
        for (bytes, expected) in [
            (&b""[..], ClientHandshakeError::ClientDisconnected),
            (&hello[..hello.len() - 1], ClientHandshakeError::ClientDisconnected),
            (b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n", ClientHandshakeError::NotTls),
            (&[22, 3, 1, 0xff, 0xff, 1], ClientHandshakeError::NotTls),
            (&tiny_records, ClientHandshakeError::ProtocolViolation),
            (&large, ClientHandshakeError::ProtocolViolation),
        ] {
            let (result, received) = read(&[bytes]).await;
            assert_eq!(result.err(), Some(expected));
            assert!(received.is_empty() || received.starts_with(&[21, 3]), "{received:?}");
        }
    }
}
