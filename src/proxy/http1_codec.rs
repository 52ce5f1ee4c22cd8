//! The choice between two implementations of HTTP/1 (`--http1-codec`).

/// The implementation of HTTP/1 for connections of clients and to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http1Codec {
    /// Portico's own codec.
    #[default]
    Portico,
    /// The hyper library, which served HTTP/1 before.
    Hyper,
}
