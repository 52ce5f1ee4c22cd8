//! The `Trailer` field of responses, which announces trailers (RFC 9110, section 6.6.2).

use http::Response;
use http::header::TRAILER;

use super::request_context::RequestContext;
use crate::plugin_api::ResponseSource;
use crate::proxy::http::exchange::body_source::BodySource;

/// Removes the field from an endpoint's response if the client does not accept trailers.
pub(in crate::proxy) fn remove_unaccepted(
    cx: &RequestContext<'_>,
    response: &mut Response<BodySource>,
    source: ResponseSource,
) {
    if !cx.accepts_trailers && source == ResponseSource::Service {
        response.headers_mut().remove(TRAILER);
    }
}
