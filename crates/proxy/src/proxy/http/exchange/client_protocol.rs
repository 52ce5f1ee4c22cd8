//! The protocol over which a client has sent a request.

/// The protocol of a client. Steps ask what it can do, and do not compare versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ClientProtocol {
    Http1,
    Http2,
}

impl ClientProtocol {
    /// Whether requests have streams of their own. Such a protocol has no fields about the connection, its target has a
    /// scheme and an authority, and a stream that ends early is not mistaken for one that is complete.
    pub(in crate::proxy) fn is_multiplexed(self) -> bool {
        match self {
            ClientProtocol::Http1 => false,
            ClientProtocol::Http2 => true,
        }
    }
}
