//! The response that a plugin's reply becomes.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response};

use super::error_response::ErrorFormat;
use crate::plugin_api::{Reply, ReplyBody};
use crate::proxy::http::exchange::body_source::BodySource;

/// Builds the response from a plugin's reply.
pub(in crate::proxy) fn reply_response(
    reply: Reply,
    error_format: &ErrorFormat,
    id: &HeaderValue,
) -> Response<BodySource> {
    let Reply { status, mut headers, body, reason: _ } = reply;
    // The length that a response to HEAD names is that of another response.
    if !(error_format.is_head() && matches!(body, ReplyBody::Stream(_))) {
        headers.remove(CONTENT_LENGTH);
    }
    let mut response = match body {
        ReplyBody::Negotiated(message) => error_format.render_message(status, &message, id).map(BodySource::Local),
        ReplyBody::Plain(message) => error_format.render_json(status, &message).map(BodySource::Local),
        ReplyBody::Raw(bytes) | ReplyBody::Collected(bytes) => {
            error_format.render_body(status, bytes).map(BodySource::Local)
        }
        ReplyBody::Empty => error_format.render_body(status, Bytes::new()).map(BodySource::Local),
        ReplyBody::Stream(stream) => {
            let is_head = error_format.is_head();
            let body = if is_head { BodySource::Local(Bytes::new()) } else { BodySource::Stream(stream) };
            let mut response = Response::new(body);
            *response.status_mut() = status;
            response
        }
    };
    // The reply's headers replace existing ones of the same names, with all their values.
    response.headers_mut().extend(headers);
    response
}
