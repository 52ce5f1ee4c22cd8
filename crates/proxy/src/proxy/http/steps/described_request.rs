//! What an error backend gets in place of a request that has failed.

use std::sync::Arc;

use http::Request;

use crate::hop_count::HopCount;
use crate::snapshot::error_backend::ErrorBackend;
use crate::upstream::ClientSlot;

/// A request as an error backend gets it. Made before plugins and filters change the request.
pub(in crate::proxy) struct DescribedRequest {
    pub(super) backend: Arc<ErrorBackend>,
    pub(super) head: Request<()>,
    pub(super) hops: HopCount,
    pub(super) client: ClientSlot,
    pub(super) hash: Option<u64>,
}
