//! The client side of a connection that is forwarded.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::plugin_api::completed_request::LoggedTls;
use crate::proxy::connection::tls::TlsSession;
use crate::proxy::connection::transport::Transport;
use crate::rewound::Rewound;
use crate::upstream::ConnectionEnds;

/// An accepted connection, from whose beginning bytes may have been read.
pub(in crate::proxy) struct StreamClient {
    pub(super) stream: Rewound<Transport>,
    pub(super) address: ClientAddress,
    /// `TCP` or `TLS`, for the access log.
    pub(super) protocol: &'static str,
    /// The server name of the ClientHello.
    pub(super) server_name: Option<Arc<str>>,
    /// Set if TLS was terminated.
    pub(super) tls: Option<LoggedTls<'static>>,
}

/// The address of a client.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) enum ClientAddress {
    /// The peer of the connection.
    Peer(SocketAddr),
    /// The addresses in the PROXY header of a load balancer.
    Reported(ConnectionEnds),
}

impl ClientAddress {
    /// An IPv4 address that is mapped to an IPv6 address is the IPv4 address.
    pub(in crate::proxy) fn socket(&self) -> SocketAddr {
        let address = match self {
            ClientAddress::Peer(peer) => *peer,
            ClientAddress::Reported(ends) => ends.client,
        };
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// Both ends of the connection, of which `stream` is the one to Portico.
    pub(super) fn ends(&self, stream: &TcpStream) -> ConnectionEnds {
        match self {
            // The local address of a connected socket is known. If not, the header still has the client's address.
            ClientAddress::Peer(peer) => {
                ConnectionEnds { client: *peer, destination: stream.local_addr().unwrap_or(*peer) }
            }
            ClientAddress::Reported(ends) => *ends,
        }
    }
}

impl StreamClient {
    pub(in crate::proxy) fn tcp(stream: TcpStream, address: ClientAddress) -> Self {
        let stream = Rewound::new(Bytes::new(), Transport::Plain(stream));
        StreamClient { stream, address, protocol: "TCP", server_name: None, tls: None }
    }

    /// The endpoint gets the bytes that were read, which begin with the ClientHello, as the client sent them.
    pub(in crate::proxy) fn tls(
        (stream, bytes): (TcpStream, Bytes),
        server_name: Option<Arc<str>>,
        address: ClientAddress,
    ) -> Self {
        let stream = Rewound::new(bytes, Transport::Plain(stream));
        StreamClient { stream, address, protocol: "TLS", server_name, tls: None }
    }

    /// The endpoint gets the decrypted bytes.
    pub(in crate::proxy) fn decrypted(stream: Transport, address: ClientAddress, session: TlsSession) -> Self {
        let stream = Rewound::new(Bytes::new(), stream);
        let tls = Some(LoggedTls { version: session.version, cipher: session.cipher, server_name: None });
        StreamClient { stream, address, protocol: "TLS", server_name: session.server_name, tls }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_address_of_a_client_is_an_ipv4_address() {
        for (address, expected) in [
            ("[::ffff:192.0.2.1]:5000", "192.0.2.1:5000"),
            ("192.0.2.1:5000", "192.0.2.1:5000"),
            ("[2001:db8::1]:5000", "[2001:db8::1]:5000"),
        ] {
            let client: SocketAddr = address.parse().unwrap();
            let ends = ConnectionEnds { client, destination: client };
            assert_eq!(ClientAddress::Peer(client).socket().to_string(), expected);
            assert_eq!(ClientAddress::Reported(ends).socket().to_string(), expected);
        }
    }
}
