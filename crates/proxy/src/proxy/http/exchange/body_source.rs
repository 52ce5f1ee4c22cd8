//! Where the bytes of a response come from: an endpoint, a plugin or Portico.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRAILER};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::activity::Activity;
use super::filtered_body::FilteredBody;
use super::paced_body::PacedBody;
use super::read_timeout::ReadTimeout;
use super::request_body::RequestBody;
use crate::http1::ReceivedFields;
use crate::http2_frames::MARKER_NAME;
use crate::plugin_api::{ReplyStream, ReplyStreamError};
use crate::proxy::http::forwarding::forwarded::EndpointResponse;
use crate::proxy::http::forwarding::upgrade::Upgrade;
use crate::proxy::http::record::request_error::{RESPONSE_TRUNCATED, RequestError};
use crate::upstream::{EndpointBody, EndpointError, UpgradedConnection};

/// Where the body of a response comes from.
pub(in crate::proxy) enum BodySource {
    /// A response that Portico generates; empty if it has no body.
    Local(Bytes),
    /// Its connection returns to its pool when the body was read to its end.
    Upstream(EndpointBody<RequestBody>),
    /// The endpoint accepted the requested upgrade.
    Upgraded(Box<Upgrade>, Box<UpgradedConnection>),
    /// The reply of a plugin, which produces the body while it is sent.
    Stream(ReplyStream),
    /// A body that the filters of plugins have processed, or process while it is sent.
    Filtered(Box<FilteredBody>),
    /// A body whose rate is limited.
    Paced(Box<PacedBody>),
}

impl From<EndpointResponse<RequestBody>> for BodySource {
    fn from(response: EndpointResponse<RequestBody>) -> Self {
        match response {
            EndpointResponse::Body(body) => BodySource::Upstream(body),
            EndpointResponse::Upgraded(upgrade, endpoint) => BodySource::Upgraded(upgrade, endpoint),
        }
    }
}

impl BodySource {
    /// Polls the next frame. `activity` is that of the connection to the client, whose rule may set a read timeout.
    pub(in crate::proxy) fn poll_next(
        &mut self,
        activity: Option<&Activity>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        match self {
            BodySource::Local(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            BodySource::Upgraded(..) => Poll::Ready(None),
            BodySource::Stream(stream) => {
                let part = ready!(stream.poll_part(cx));
                Poll::Ready(part.map(|part| part.map(Frame::data).map_err(ResponseBodyError::Reply)))
            }
            BodySource::Filtered(body) => body.poll_next(activity, cx),
            BodySource::Paced(body) => body.poll_next(activity, cx),
            BodySource::Upstream(body) => match body.poll_next(cx) {
                Poll::Pending if read_timed_out(activity, cx) => Poll::Ready(Some(Err(ResponseBodyError::Timeout))),
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(mut frame))) => {
                    if body.is_http2()
                        && let Some(trailers) = frame.trailers_mut()
                    {
                        trailers.remove(MARKER_NAME);
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(ResponseBodyError::Invalid(error)))),
                Poll::Ready(None) if body.is_reset() => Poll::Ready(Some(Err(ResponseBodyError::Reset))),
                Poll::Ready(None) => Poll::Ready(None),
            },
        }
    }

    /// Whether the fields of the response are not in its header map, and were not taken.
    pub(in crate::proxy) fn has_received_fields(&self) -> bool {
        match self {
            BodySource::Upstream(body) => body.has_received_fields(),
            BodySource::Paced(body) => body.has_received_fields(),
            _ => false,
        }
    }

    /// Takes the fields of the response that are not in its header map.
    pub(in crate::proxy) fn take_received_fields(&self) -> Option<ReceivedFields> {
        match self {
            BodySource::Upstream(body) => body.take_received_fields(),
            BodySource::Paced(body) => body.take_received_fields(),
            _ => None,
        }
    }

    /// Whether the body is known to be complete.
    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        match self {
            BodySource::Local(bytes) => bytes.is_empty(),
            BodySource::Upstream(body) => body.is_end_stream(),
            BodySource::Upgraded(..) => true,
            BodySource::Stream(stream) => stream.remaining() == Some(0),
            BodySource::Filtered(body) => body.is_end_stream(),
            BodySource::Paced(body) => body.is_end_stream(),
        }
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        match self {
            BodySource::Local(bytes) => SizeHint::with_exact(bytes.len() as u64),
            BodySource::Upstream(body) => body.size_hint(),
            BodySource::Upgraded(..) => SizeHint::with_exact(0),
            BodySource::Stream(stream) => stream.remaining().map_or_else(SizeHint::default, SizeHint::with_exact),
            BodySource::Filtered(body) => body.size_hint(),
            BodySource::Paced(body) => body.size_hint(),
        }
    }

    /// Whether trailers of the endpoint may follow the body.
    pub(in crate::proxy) fn may_have_trailers(&self) -> bool {
        match self {
            BodySource::Local(_) | BodySource::Upgraded(..) | BodySource::Stream(_) => false,
            BodySource::Upstream(body) => body.is_http2() || body.size_hint().exact().is_none(),
            BodySource::Filtered(_) => true,
            BodySource::Paced(body) => body.may_have_trailers(),
        }
    }

    /// Whether the rest of the body is still to be received from the endpoint.
    pub(in crate::proxy) fn reads_endpoint(&self) -> bool {
        match self {
            BodySource::Upstream(_) => true,
            BodySource::Filtered(body) => body.reads_endpoint(),
            BodySource::Paced(body) => body.reads_endpoint(),
            BodySource::Local(_) | BodySource::Upgraded(..) | BodySource::Stream(_) => false,
        }
    }

    /// Ends a body that was read to its end. The connection to the endpoint returns to its pool.
    pub(in crate::proxy) fn release(self) {
        match self {
            BodySource::Upstream(body) => body.release(),
            BodySource::Filtered(body) => body.release(),
            BodySource::Paced(body) => body.release(),
            _ => {}
        }
    }
}

/// Removes what a response with its status, or to HEAD, does not have, in all versions of HTTP: 204 and 304 have no
/// body, and 204 has no length either (RFC 9110, sections 8.6 and 15). The length in a 304, and in a response to HEAD,
/// is that of another response.
pub(in crate::proxy) fn fit_to_status(response: &mut Response<BodySource>, is_head: bool) {
    let status = response.status();
    let has_no_content = status == StatusCode::NO_CONTENT;
    if has_no_content {
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().remove(TRAILER);
    }
    // The length of a body that Portico made for a response to HEAD is not in a field yet.
    let drops_body = has_no_content
        || status == StatusCode::NOT_MODIFIED
        || is_head && matches!(response.body(), BodySource::Upstream(_) | BodySource::Filtered(_));
    // A complete body keeps its connection. An endpoint with HTTP/2 that sends data nevertheless gets a reset.
    if drops_body && !response.body().is_end_stream() {
        *response.body_mut() = BodySource::Local(Bytes::new());
    }
}

fn read_timed_out(activity: Option<&Activity>, cx: &mut Context<'_>) -> bool {
    let Some(activity) = activity else { return false };
    let Some(limit) = activity.rule_timeouts.get().read() else { return false };
    // Most responses arrive in one piece and need no timer.
    let mut timeout = activity.read_timeout.borrow_mut();
    timeout.get_or_insert_with(|| ReadTimeout::start(limit)).poll(limit, cx).is_ready()
}

/// Why a response body is incomplete. The client's connection is closed, so that the client notices the truncation.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum ResponseBodyError {
    #[error("the response body is invalid or truncated: {0}")]
    Invalid(EndpointError),
    #[error("the endpoint reset the stream within the response body")]
    Reset,
    #[error("the response body exceeded a timeout of the rule")]
    Timeout,
    #[error("the body of a plugin's reply is incomplete: {0}")]
    Reply(ReplyStreamError),
}

impl ResponseBodyError {
    /// The reason in the access log and in metrics.
    pub(in crate::proxy) fn reason(&self) -> &'static str {
        match self {
            ResponseBodyError::Timeout => RequestError::ResponseTimeout.details().reason,
            ResponseBodyError::Invalid(_) | ResponseBodyError::Reset | ResponseBodyError::Reply(_) => {
                RESPONSE_TRUNCATED
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn statuses_without_content_have_no_body() {
        // (status, to HEAD, the length in the field and of the body afterwards)
        let cases = [
            (200, false, Some("3"), 3),
            (204, false, None, 0),
            (205, false, Some("3"), 3),
            (304, false, Some("3"), 0),
            (200, true, Some("3"), 3),
            (204, true, None, 0),
        ];
        for (status, is_head, length, body_length) in cases {
            let mut response = Response::new(BodySource::Local(Bytes::from_static(b"abc")));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("3"));
            response.headers_mut().insert(TRAILER, HeaderValue::from_static("x-sum"));
            fit_to_status(&mut response, is_head);
            let found = response.headers().get(CONTENT_LENGTH).map(|length| length.to_str().unwrap());
            assert_eq!(found, length, "{status}, to HEAD: {is_head}");
            assert_eq!(response.headers().contains_key(TRAILER), status != 204, "{status}");
            assert_eq!(response.body().size_hint().exact(), Some(body_length), "{status}, to HEAD: {is_head}");
        }
    }
}
