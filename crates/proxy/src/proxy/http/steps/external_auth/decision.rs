//! The decision of an authorization server, whatever its protocol.

use http::Response;

use super::header_changes::HeaderChanges;
use crate::proxy::buffer_budget::BufferedBytes;
use crate::proxy::http::exchange::body_source::BodySource;

/// What an authorization server has decided.
pub(super) enum Decision {
    Allowed {
        request: HeaderChanges,
        /// Changes of the response to the client, wherever it comes from.
        response: HeaderChanges,
    },
    Denied {
        response: Box<Response<BodySource>>,
        /// The bytes of the response, if it is kept as a whole.
        kept: Option<BufferedBytes>,
    },
}
