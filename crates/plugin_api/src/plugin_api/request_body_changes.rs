//! What plugins do to the body of a request in the access phase. The proxy applies it when the phase is complete.

use bytes::Bytes;

/// The changes of the body of one request, by all plugins.
#[derive(Debug, Default)]
pub struct RequestBodyChanges {
    /// Size limit of the body in bytes, as the client sends it; a longer body is rejected with 413. The smallest limit
    /// of all plugins applies.
    pub limit: Option<u64>,
    /// The body to send upstream in place of the buffered one; `Content-Length` is already set.
    pub replacement: Option<Bytes>,
}
