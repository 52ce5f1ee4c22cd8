//! Whether a request may be sent again, as far as that depends on the request.

use http::{Method, Request};
use http_body::Body;

/// Whether a request may be sent again.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct ReplayPolicy {
    /// The whole request is available: its body is empty or completely buffered.
    pub(in crate::proxy) complete: bool,
    /// The method is idempotent, or the configuration or the client calls the request so.
    pub(in crate::proxy) idempotent: bool,
    /// The request may be sent again at all; within one attempt on a new connection, if a kept-alive connection turns
    /// out to be closed, or if the endpoint did not process the request.
    pub(in crate::proxy) allows_resending: bool,
    /// What was sent of an incomplete body is kept, and sent again also if the endpoint may have processed it. Only
    /// over HTTP/2, where a request whose body has no end, such as a stream of gRPC messages, must not be read in
    /// advance.
    pub(in crate::proxy) keeps_sent: bool,
}

impl ReplayPolicy {
    /// For a request whose body is not buffered.
    pub(in crate::proxy) fn unbuffered<B: Body>(request: &Request<B>) -> Self {
        ReplayPolicy {
            complete: request.body().is_end_stream(),
            idempotent: is_idempotent(request.method()),
            allows_resending: true,
            keeps_sent: false,
        }
    }
}

/// Whether the method is idempotent (RFC 9110, section 9.2.2).
pub(in crate::proxy) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(method)
}
