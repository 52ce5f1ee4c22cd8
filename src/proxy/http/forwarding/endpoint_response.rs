//! What follows the head of an endpoint's response.

use std::error::Error;

use bytes::Bytes;
use http_body::Body;

use super::upgrade::Upgrade;
use crate::upstream::{Admission, EndpointBody, UpgradedConnection};

/// The rest of a response. `B` is the body of the request, which may still be sent.
pub(in crate::proxy) enum EndpointResponse<B> {
    Body(EndpointBody<B>),
    /// The endpoint accepted the requested upgrade.
    Upgraded(Box<Upgrade>, Box<UpgradedConnection>),
}

impl<B> EndpointResponse<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Holds the admission of the request until the end of the response.
    pub(super) fn hold(&mut self, admission: Admission) {
        match self {
            EndpointResponse::Body(body) => body.hold(admission),
            EndpointResponse::Upgraded(_, endpoint) => endpoint.hold(admission),
        }
    }

    /// Discards the response. Its connection returns to the pool if there is no body left to read.
    pub(super) fn discard(self) {
        if let EndpointResponse::Body(body) = self
            && body.is_end_stream()
        {
            body.release();
        }
    }
}
