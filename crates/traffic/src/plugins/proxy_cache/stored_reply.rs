//! The reply to a request that a stored response becomes.

use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::stream;
use http::header::{AGE, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::semantics::conditional::{has_range, is_not_modified, permits_range, without_content};
use super::semantics::ranges::{RequestedRange, requested_range};
use super::store::StoredResponse;
use crate::plugin_api::{Reply, ReplyBody, ReplyStream};

/// The stored response as it is, as Kong sends it.
pub(super) fn whole(stored: &StoredResponse, method: &Method) -> Box<Reply> {
    let body = if *method == Method::HEAD {
        // The length of the body is unknown, and the one of this reply would be wrong.
        ReplyBody::Stream(ReplyStream::new(stream::empty()))
    } else {
        ReplyBody::Raw(stored.body.clone())
    };
    stand_in(stored.status, stored.fields.to_map(), body)
}

/// The response to a request with conditions and ranges: all of it, a part, or 304.
pub(super) fn for_request(
    stored: &StoredResponse,
    method: &Method,
    request: &HeaderMap,
    now: SystemTime,
) -> Box<Reply> {
    let mut headers = stored.fields.to_map();
    headers.insert(AGE, HeaderValue::from(stored.age(now).as_secs()));
    if stored.status != StatusCode::OK {
        return stand_in(stored.status, headers, ReplyBody::Raw(stored.body.clone()));
    }
    if is_not_modified(request, &headers) {
        return stand_in(StatusCode::NOT_MODIFIED, without_content(headers), ReplyBody::Empty);
    }
    let length = stored.body.len();
    let is_partial = *method == Method::GET && has_range(request) && permits_range(request, &headers);
    match if is_partial { requested_range(request, length) } else { RequestedRange::Whole } {
        RequestedRange::Whole => stand_in(StatusCode::OK, headers, ReplyBody::Raw(stored.body.clone())),
        RequestedRange::Part(range) => {
            let Range { start, end } = range;
            headers.insert(CONTENT_RANGE, content_range(format!("bytes {start}-{}/{length}", end - 1)));
            stand_in(StatusCode::PARTIAL_CONTENT, headers, ReplyBody::Raw(stored.body.slice(range)))
        }
        RequestedRange::Unsatisfiable => {
            let mut headers = without_content(headers);
            headers.insert(CONTENT_RANGE, content_range(format!("bytes */{length}")));
            stand_in(StatusCode::RANGE_NOT_SATISFIABLE, headers, ReplyBody::Raw(Bytes::new()))
        }
    }
}

/// The reply to a request that accepts only a stored response.
pub(super) fn only_if_cached() -> Box<Reply> {
    Reply::negotiated(StatusCode::GATEWAY_TIMEOUT, "The response is not cached", "not_cached")
}

/// Whether the request is for a part, which only the backend or a stored response can give.
pub(super) fn asks_for_part(request: &HeaderMap) -> bool {
    request.contains_key(RANGE)
}

fn stand_in(status: StatusCode, headers: HeaderMap, body: ReplyBody) -> Box<Reply> {
    Box::new(Reply { status, headers, body, reason: Reply::STORED })
}

fn content_range(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits and punctuation are a valid value")
}
