//! What several filters have in common: references to backends.

use std::sync::Arc;

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
