//! A server that a plugin connects to, and the connection.

use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A server to connect to, with the settings of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    /// The namespace in which a name without dots is looked up, and whose share of connections counts.
    pub namespace: Option<String>,
    pub tls: Option<RemoteTls>,
    /// Timeout of name resolution, TCP connection and TLS handshake together.
    pub timeout: Duration,
}

impl Remote {
    /// The namespace whose share of connections counts. Objects without a namespace have one together.
    pub fn share(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}

/// TLS settings of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteTls {
    /// Server name for SNI and for the verification of the certificate. `None` means [`Remote::host`].
    pub server_name: Option<String>,
    /// Whether the certificate is verified with the system's root certificates. Without it, the peer is not
    /// authenticated.
    pub verify: bool,
    /// Files with certificates for this server.
    pub files: Option<Arc<TlsFiles>>,
}

/// Files with certificates, which are read for each connection, so that they can be renewed without a restart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// The authorities that are trusted in place of the system's.
    pub authorities: Option<PathBuf>,
    /// What the server gets if it requests a certificate.
    pub client: Option<ClientCertificateFiles>,
}

/// A certificate in PEM, followed by those of its intermediates, and its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The longest timeout that takes effect. A request that waits for longer only holds its connection, which others need.
pub const MAX_REMOTE_TIMEOUT: Duration = Duration::from_secs(60);

/// The default limit of connections of all plugins together.
pub const DEFAULT_MAX_CONNECTIONS: usize = 256;

/// Whether a text may be a host, or the part of one: letters, digits, hyphens, dots and underscores.
pub fn is_host_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// Whether a text may be a host: a name, or an address without brackets and port.
pub fn is_host(text: &str) -> bool {
    is_host_name(text) || text.parse::<Ipv6Addr>().is_ok()
}

/// Whether a host is a name without dots, which can only be a Service of a namespace.
pub fn is_short_name(host: &str) -> bool {
    let name = host.trim_end_matches('.');
    !name.contains(['.', ':']) && !name.eq_ignore_ascii_case("localhost")
}

/// A byte stream to another server.
pub trait RemoteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> RemoteStream for S {}

/// A UDP socket that is connected to another server.
pub trait RemoteDatagrams: Send + Sync {
    /// Sends one datagram. Also fails if the server's machine has refused an earlier one.
    fn send<'s>(&'s self, datagram: &'s [u8]) -> BoxFuture<'s, io::Result<()>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_no_ports() {
        for host in ["proxy", "proxy.shop.example.", "a_b-c.example", "192.0.2.1", "2001:db8::1", "::1"] {
            assert!(is_host(host), "{host}");
        }
        for text in ["", "proxy:3128", "::::", "[::1]", "192.0.2.1:80", "a b", "a/b", "u@a", "a\r\nb", "b\u{fc}cher"] {
            assert!(!is_host(text), "{text}");
        }
        assert!(is_host_name("shop") && !is_host_name("::1"));
    }
}
