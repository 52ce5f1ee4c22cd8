//! The client side of a connection that is forwarded.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::proxy::connection::client_hello::ReceivedHello;
use crate::rewound::Rewound;

/// An accepted connection, from whose beginning bytes may have been read.
pub(in crate::proxy) struct StreamClient {
    pub(super) stream: Rewound<TcpStream>,
    /// The client's address.
    pub(super) address: SocketAddr,
    /// `TCP` or `TLS`, for the access log.
    pub(super) protocol: &'static str,
    /// The server name of the ClientHello.
    pub(super) server_name: Option<Arc<str>>,
}

impl StreamClient {
    pub(in crate::proxy) fn tcp(stream: TcpStream, address: SocketAddr) -> Self {
        StreamClient { stream: Rewound::new(Bytes::new(), stream), address, protocol: "TCP", server_name: None }
    }

    /// The endpoint gets the ClientHello as the client sent it.
    pub(in crate::proxy) fn tls(hello: ReceivedHello, address: SocketAddr) -> Self {
        let server_name = hello.server_name.clone();
        let (stream, bytes) = hello.into_parts();
        StreamClient { stream: Rewound::new(bytes, stream), address, protocol: "TLS", server_name }
    }
}
