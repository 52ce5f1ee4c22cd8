//! The protocol towards endpoints.

/// The HTTP version used towards endpoints. Connections whose bytes are forwarded do not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpstreamProtocol {
    #[default]
    Http1,
    /// HTTP/2; without TLS, by prior knowledge.
    Http2,
}
