//! The kinds of routes that attach to listeners of Gateways.

use crate::api::Kind;

/// A kind of route that attaches to listeners of Gateways and is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// HTTPRoute and GRPCRoute.
    Request,
    Tcp,
    Tls,
    Udp,
}

impl RouteKind {
    /// `None` for kinds that are not served routes of Gateways.
    pub fn of(kind: Kind) -> Option<RouteKind> {
        match kind {
            Kind::HttpRoute | Kind::GrpcRoute => Some(RouteKind::Request),
            Kind::TcpRoute => Some(RouteKind::Tcp),
            Kind::TlsRoute => Some(RouteKind::Tls),
            Kind::UdpRoute => Some(RouteKind::Udp),
            _ => None,
        }
    }
}
