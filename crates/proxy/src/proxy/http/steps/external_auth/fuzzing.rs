//! Responses of authorization servers that use gRPC: a request is allowed only with status 0, and no change affects the
//! framing of a message.

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue};
use prost::Message;

use super::check_response::decide;
use super::decision::Decision;
use super::ext_authz::CheckResponse;
use crate::limits::ProxyLimits;

/// The input is a message without its frame.
pub(crate) fn check(input: &[u8]) {
    let max_fields = ProxyLimits::DEFAULT.max_response_fields;
    let Ok(response) = CheckResponse::decode(input) else { return };
    let is_allowed = response.status.is_none_or(|status| status.code == 0);
    match decide(response, max_fields) {
        Ok(Decision::Allowed { request, response }) => {
            assert!(is_allowed, "another status denies the request");
            for changes in [request, response] {
                let fixed = HeaderValue::from_static("1");
                let mut headers: HeaderMap =
                    [(HOST, fixed.clone()), (CONTENT_LENGTH, fixed.clone())].into_iter().collect();
                changes.apply(&mut headers);
                assert_eq!((headers.get(HOST), headers.get(CONTENT_LENGTH)), (Some(&fixed), Some(&fixed)));
                assert!(headers.len() <= max_fields + 2, "the number of changes is limited");
            }
        }
        Ok(Decision::Denied { response, kept: _ }) => {
            assert!(response.status().as_u16() >= 200 && !response.headers().contains_key(CONTENT_LENGTH));
        }
        Err(_) => {}
    }
}
