//! The `Trailer` field of responses, which announces trailers (RFC 9110, section 6.6.2).

use http::header::{TE, TRAILER};
use http::{Request, Response};

use super::headers::contains_token;
use super::request_context::RequestContext;
use super::response_body::BodySource;
use crate::plugin_api::ResponseSource;
use crate::snapshot::rule::RouteRule;
use crate::snapshot::rule_options::TrailerHeader;

/// Records whether the client accepts trailers, if the response depends on that.
pub(in crate::proxy) fn read_te<B>(cx: &mut RequestContext<'_>, rule: &RouteRule, request: &Request<B>) {
    cx.accepts_trailers = match rule.options().trailer_header {
        TrailerHeader::Forwarded => true,
        TrailerHeader::IfAccepted => {
            request.headers().get_all(TE).iter().any(|value| contains_token(value, "trailers"))
        }
    };
}

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
