//! The protocols of listeners: which of them can share a port, and which routes may attach to each.

use crate::api::Kind;
use crate::api::gateway::Listener;
use crate::snapshot::TransportProtocol;
use crate::transport_protocol::TransportPort;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compile) enum ListenerProtocol {
    Http,
    Https,
    TlsPassthrough,
    TlsTerminate,
    Tcp,
    Udp,
    Other,
}

impl ListenerProtocol {
    pub(in crate::compile) fn from_listener(listener: &Listener) -> Self {
        match &*listener.protocol {
            "HTTP" => ListenerProtocol::Http,
            "HTTPS" => ListenerProtocol::Https,
            "TLS" if passes_through(listener) => ListenerProtocol::TlsPassthrough,
            "TLS" => ListenerProtocol::TlsTerminate,
            "TCP" => ListenerProtocol::Tcp,
            "UDP" => ListenerProtocol::Udp,
            _ => ListenerProtocol::Other,
        }
    }

    pub(in crate::compile) fn transport(self) -> Option<TransportProtocol> {
        match self {
            ListenerProtocol::Http
            | ListenerProtocol::Https
            | ListenerProtocol::TlsPassthrough
            | ListenerProtocol::TlsTerminate
            | ListenerProtocol::Tcp => Some(TransportProtocol::Tcp),
            ListenerProtocol::Udp => Some(TransportProtocol::Udp),
            ListenerProtocol::Other => None,
        }
    }

    /// The group of protocols that can share a port of the same transport with this one.
    pub(in crate::compile) fn port_group(self) -> Option<PortGroup> {
        match self {
            ListenerProtocol::Http => Some(PortGroup::Cleartext),
            ListenerProtocol::Https | ListenerProtocol::TlsPassthrough | ListenerProtocol::TlsTerminate => {
                Some(PortGroup::Tls)
            }
            ListenerProtocol::Tcp => Some(PortGroup::Stream),
            ListenerProtocol::Udp => Some(PortGroup::Datagram),
            ListenerProtocol::Other => None,
        }
    }

    /// Whether TLS ends at the listener, which needs a certificate for it.
    pub(in crate::compile) fn terminates_tls(self) -> bool {
        matches!(self, ListenerProtocol::Https | ListenerProtocol::TlsTerminate)
    }

    /// The kinds of routes that this process serves for the protocol.
    pub(in crate::compile) fn route_kinds(self) -> &'static [Kind] {
        match self {
            ListenerProtocol::Http | ListenerProtocol::Https => &[Kind::HttpRoute, Kind::GrpcRoute],
            ListenerProtocol::TlsPassthrough | ListenerProtocol::TlsTerminate => &[Kind::TlsRoute],
            ListenerProtocol::Tcp => &[Kind::TcpRoute],
            ListenerProtocol::Udp => &[Kind::UdpRoute],
            ListenerProtocol::Other => &[],
        }
    }
}

/// The port of a listener; `None` if its protocol is not served, so that it needs none.
pub(in crate::compile) fn port(listener: &Listener) -> Option<TransportPort> {
    let protocol = ListenerProtocol::from_listener(listener);
    let transport = protocol.transport().filter(|_| !protocol.route_kinds().is_empty())?;
    Some(TransportPort { transport, number: u16::try_from(listener.port).ok()? })
}

fn passes_through(listener: &Listener) -> bool {
    listener.tls.as_ref().is_some_and(|tls| tls.mode == "Passthrough")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::compile) enum PortGroup {
    Cleartext,
    Tls,
    Stream,
    Datagram,
}
