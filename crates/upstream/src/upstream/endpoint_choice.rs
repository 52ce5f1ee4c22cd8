//! What limits which endpoint of an upstream a request or connection gets.

use std::net::SocketAddr;

/// What limits the choice of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointChoice<'a> {
    /// Endpoints that have failed, the last one last.
    pub avoid: &'a [SocketAddr],
    /// The endpoint of the session, which is used whatever the load balancing says.
    pub pinned: Option<SocketAddr>,
    /// The hash of what the upstream hashes of the request. `None`: it hashes nothing, or the request does not have it.
    pub hash: Option<u64>,
    /// Whether an endpoint of `avoid` may be chosen if there are no others. The last one is chosen only if it is the
    /// only one.
    pub may_repeat: bool,
    /// Whether the request can be sent again if it fails, so that it may be the one that a half-open endpoint is tried
    /// with at once.
    pub is_repeatable: bool,
}
