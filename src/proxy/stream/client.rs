//! The client side of a connection that is forwarded.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::proxy::connection::client_hello::ReceivedHello;
use crate::proxy::connection::tls::TlsSession;
use crate::proxy::connection::transport::Transport;
use crate::rewound::Rewound;

/// An accepted connection, from whose beginning bytes may have been read.
pub(in crate::proxy) struct StreamClient {
    pub(super) stream: Rewound<Transport>,
    /// The client's address.
    pub(super) address: SocketAddr,
    /// `TCP` or `TLS`, for the access log.
    pub(super) protocol: &'static str,
    /// The server name of the ClientHello.
    pub(super) server_name: Option<Arc<str>>,
}

impl StreamClient {
    pub(in crate::proxy) fn tcp(stream: TcpStream, address: SocketAddr) -> Self {
        let stream = Rewound::new(Bytes::new(), Transport::Plain(stream));
        StreamClient { stream, address, protocol: "TCP", server_name: None }
    }

    /// The endpoint gets the ClientHello as the client sent it.
    pub(in crate::proxy) fn tls(hello: ReceivedHello, address: SocketAddr) -> Self {
        let server_name = hello.server_name.clone();
        let (stream, bytes) = hello.into_parts();
        StreamClient { stream: Rewound::new(bytes, Transport::Plain(stream)), address, protocol: "TLS", server_name }
    }

    /// The endpoint gets the decrypted bytes.
    pub(in crate::proxy) fn decrypted(stream: Transport, address: SocketAddr, session: TlsSession) -> Self {
        let stream = Rewound::new(Bytes::new(), stream);
        StreamClient { stream, address, protocol: "TLS", server_name: session.server_name }
    }
}
