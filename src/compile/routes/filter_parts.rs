//! What several filters have in common: references to backends, and headers that no filter sets.

use std::sync::Arc;

use http::HeaderName;
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};

use crate::api::gateway::BackendObjectReference;
use crate::upstream::Upstream;

/// What a filter sends to the backend that it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compile) enum FilterBackend {
    /// Copies of the requests, as a backend of the route gets them.
    Mirror,
    HttpAuthorization,
    GrpcAuthorization,
}

/// Finds the upstream that the reference of a filter leads to, or records why there is none. The last argument is the
/// path of the reference.
pub(in crate::compile) type ResolveBackend<'a> =
    &'a mut dyn FnMut(&BackendObjectReference, FilterBackend, &str) -> Option<Arc<Upstream>>;

/// Whether the proxy sets this header itself, because a configured value could contradict the body or the connection.
pub(in crate::compile) fn is_set_by_proxy(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
}
