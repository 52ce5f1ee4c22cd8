//! A server that a plugin connects to, and the connection.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

/// A server to connect to, with the settings of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    /// The namespace in which a name without dots is looked up.
    pub namespace: Option<String>,
    pub tls: Option<RemoteTls>,
    /// Timeout of name resolution, TCP connection and TLS handshake together.
    pub timeout: Duration,
}

/// TLS settings of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteTls {
    /// Server name for SNI and for the verification of the certificate. `None` means [`Remote::host`].
    pub server_name: Option<String>,
    /// Whether the certificate is verified with the system's root certificates. Without it, the peer is not
    /// authenticated.
    pub verify: bool,
}

/// A byte stream to another server.
pub trait RemoteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> RemoteStream for S {}
