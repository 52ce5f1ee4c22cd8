//! What this process binds: a socket address of one transport protocol.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Serialize, Serializer};

use crate::transport_protocol::TransportProtocol;

/// Identifies a bind. The port numbers of TCP and UDP are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindAddress {
    pub socket: SocketAddr,
    pub transport: TransportProtocol,
}

/// For lookups in a `BindMap`.
impl AsRef<BindAddress> for BindAddress {
    fn as_ref(&self) -> &BindAddress {
        self
    }
}

impl BindAddress {
    pub fn new(transport: TransportProtocol, address: IpAddr, port: u16) -> Self {
        BindAddress { socket: SocketAddr::new(address, port), transport }
    }

    pub fn tcp(socket: SocketAddr) -> Self {
        BindAddress { socket, transport: TransportProtocol::Tcp }
    }

    pub fn udp(socket: SocketAddr) -> Self {
        BindAddress { socket, transport: TransportProtocol::Udp }
    }
}

/// `127.0.0.1:80`, or `127.0.0.1:53/UDP`.
impl fmt::Display for BindAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            TransportProtocol::Tcp => write!(formatter, "{}", self.socket),
            TransportProtocol::Udp => write!(formatter, "{}/UDP", self.socket),
        }
    }
}

impl Serialize for BindAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
