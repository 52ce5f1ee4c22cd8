//! The protocol towards endpoints.

/// The protocol of requests to endpoints. Connections whose bytes are forwarded do not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpstreamProtocol {
    #[default]
    Http1,
    /// HTTP/2; without TLS, by prior knowledge.
    Http2,
    /// FastCGI, with a connection for each request.
    FastCgi,
}
