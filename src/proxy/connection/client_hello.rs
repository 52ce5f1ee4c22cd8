//! The ClientHello, which is read before anything else happens on a TLS connection.
//!
//! It has the server name, which selects the listener and its certificates. The bytes that were read are kept in the
//! result, and the handshake begins with them.

use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::tls::ClientHandshakeError;

/// A connection whose ClientHello was read.
pub(in crate::proxy) struct ReceivedHello {
    pub(super) start: StartHandshake<TcpStream>,
    /// In lower case. None if the client sent no server name, or an IP address instead.
    pub(in crate::proxy) server_name: Option<Arc<str>>,
}

impl ReceivedHello {
    /// Reads the ClientHello of a new connection. The client gets an alert if it is invalid.
    pub(in crate::proxy) async fn read(stream: TcpStream) -> Result<Self, ClientHandshakeError> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream)
            .await
            .map_err(|error| ClientHandshakeError::from_io_error(&error))?;
        let server_name = start.client_hello().server_name().map(normalize_name);
        Ok(ReceivedHello { start, server_name })
    }
}

/// Normalizes a server name as in listeners and certificates.
pub(super) fn normalize_name(server_name: &str) -> Arc<str> {
    let name = server_name.strip_suffix('.').unwrap_or(server_name);
    name.to_ascii_lowercase().into()
}
