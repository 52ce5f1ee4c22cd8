//! The protocols that carry connections and datagrams, and their ports.

use std::fmt;

/// The protocol that carries connections or datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportProtocol {
    #[default]
    Tcp,
    Udp,
}

/// A port. The port numbers of TCP and UDP are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransportPort {
    pub transport: TransportProtocol,
    pub number: u16,
}

impl TransportProtocol {
    /// The name in the field `protocol` of a Service, where an absent one means TCP.
    pub const fn name(self) -> &'static str {
        match self {
            TransportProtocol::Tcp => "TCP",
            TransportProtocol::Udp => "UDP",
        }
    }

    /// The protocol that the field `protocol` of a Service names; `None` for others, such as SCTP.
    pub fn from_field(protocol: Option<&str>) -> Option<Self> {
        match protocol {
            None | Some("TCP") => Some(TransportProtocol::Tcp),
            Some("UDP") => Some(TransportProtocol::Udp),
            Some(_) => None,
        }
    }
}

impl fmt::Display for TransportProtocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl TransportPort {
    pub const fn tcp(number: u16) -> Self {
        TransportPort { transport: TransportProtocol::Tcp, number }
    }

    pub const fn udp(number: u16) -> Self {
        TransportPort { transport: TransportProtocol::Udp, number }
    }
}

/// `80`, or `53/UDP`.
impl fmt::Display for TransportPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            TransportProtocol::Tcp => write!(formatter, "{}", self.number),
            TransportProtocol::Udp => write!(formatter, "{}/UDP", self.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_services_have_a_protocol() {
        for (field, expected) in [
            (None, Some(TransportProtocol::Tcp)),
            (Some("TCP"), Some(TransportProtocol::Tcp)),
            (Some("UDP"), Some(TransportProtocol::Udp)),
            (Some("SCTP"), None),
        ] {
            assert_eq!(TransportProtocol::from_field(field), expected, "{field:?}");
        }
        assert_eq!([TransportPort::tcp(53), TransportPort::udp(53)].map(|port| port.to_string()), ["53", "53/UDP"]);
    }
}
