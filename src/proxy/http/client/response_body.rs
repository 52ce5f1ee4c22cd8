//! Response bodies as they stream through the proxy: counted, with back-pressure to the endpoint, and never passed on
//! as complete when they are truncated.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::activity::Activity;
use super::filtered_body::FilteredBody;
use super::read_timeout::ReadTimeout;
use super::unsent_responses::{RECHECK_INTERVAL, UnsentData};
use crate::http2_frames::MARKER_NAME;
use crate::plugin_api::{ReplyStream, ReplyStreamError};
use crate::proxy::http::fields::field_policy::clean_response_trailers;
use crate::proxy::http::forwarding::request_body::RequestBody;
use crate::proxy::http::forwarding::upgrade::Upgrade;
use crate::proxy::http::record::request_error::{RESPONSE_TRUNCATED, RequestError};
use crate::proxy::http::record::request_record::RequestRecord;
use crate::proxy::http::steps::error_response::call_error_trailers;
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
                let part = ready!(stream.0.as_mut().poll_next(cx));
                Poll::Ready(part.map(|part| part.map(Frame::data).map_err(ResponseBodyError::Reply)))
            }
            BodySource::Filtered(body) => body.poll_next(activity, cx),
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

    /// Whether the body is known to be complete.
    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        match self {
            BodySource::Local(bytes) => bytes.is_empty(),
            BodySource::Upstream(body) => body.is_end_stream(),
            BodySource::Upgraded(..) => true,
            BodySource::Stream(_) => false,
            BodySource::Filtered(body) => body.is_end_stream(),
        }
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        match self {
            BodySource::Local(bytes) => SizeHint::with_exact(bytes.len() as u64),
            BodySource::Upstream(body) => body.size_hint(),
            BodySource::Upgraded(..) => SizeHint::with_exact(0),
            BodySource::Stream(_) => SizeHint::default(),
            BodySource::Filtered(body) => body.size_hint(),
        }
    }

    /// Whether trailers of the endpoint may follow the body.
    pub(in crate::proxy) fn may_have_trailers(&self) -> bool {
        match self {
            BodySource::Local(_) | BodySource::Upgraded(..) | BodySource::Stream(_) => false,
            BodySource::Upstream(body) => body.is_http2() || body.size_hint().exact().is_none(),
            BodySource::Filtered(_) => true,
        }
    }

    /// Whether the rest of the body is still to be received from the endpoint.
    pub(in crate::proxy) fn reads_endpoint(&self) -> bool {
        match self {
            BodySource::Upstream(_) => true,
            BodySource::Filtered(body) => body.reads_endpoint(),
            BodySource::Local(_) | BodySource::Upgraded(..) | BodySource::Stream(_) => false,
        }
    }

    /// Ends a body that was read to its end. The connection to the endpoint returns to its pool.
    pub(in crate::proxy) fn release(self) {
        match self {
            BodySource::Upstream(body) => body.release(),
            BodySource::Filtered(body) => body.release(),
            _ => {}
        }
    }
}

/// The body of a response, with the request record that is finished when the body ends.
pub(in crate::proxy) struct ResponseBody {
    source: BodySource,
    /// None if the record ends with the tunnel instead of this body.
    record: Option<RequestRecord>,
    version: Version,
    /// Wakes this body while it waits for room: others may have made room.
    recheck: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    /// `version` is the HTTP version of the request: on HTTP/1.0 the end of the connection is the end of the body.
    pub(in crate::proxy) fn new(source: BodySource, record: RequestRecord, version: Version) -> Self {
        ResponseBody { source, record: Some(record), version, recheck: None }
    }

    /// The empty body of a response after which the connection becomes a tunnel.
    pub(in crate::proxy) fn for_tunnel() -> Self {
        let (source, version) = (BodySource::Local(Bytes::new()), Version::HTTP_11);
        ResponseBody { source, record: None, version, recheck: None }
    }

    fn finish(&mut self) {
        // Drop the source, so that later events such as a reset have no effect on this body.
        std::mem::replace(&mut self.source, BodySource::Local(Bytes::new())).release();
        if let Some(record) = &mut self.record {
            record.finish();
        }
    }

    /// Returns the error if the deadline of the rule or the call has passed. The deadline covers the response up to its
    /// last byte, even if the endpoint never stalls.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Option<RequestError> {
        if !self.source.reads_endpoint() {
            return None;
        }
        self.record.as_mut()?.deadline.as_mut()?.poll_error(cx)
    }

    /// Ends the response before its end, because of its deadline. A gRPC client gets the status of the call, because it
    /// would take a reset for an internal error.
    fn end_at_deadline(&mut self, error: RequestError) -> Result<Frame<UnsentData>, ResponseBodyError> {
        let details = error.details();
        self.abort(details.reason);
        // After fewer bytes than its `content-length`, a response with trailers is malformed.
        let can_have_trailers = self.version == Version::HTTP_2 && self.size_hint().exact().is_none();
        if !matches!(error, RequestError::CallDeadline) || !can_have_trailers {
            return Err(ResponseBodyError::Timeout);
        }
        // Dropping the source cancels the call at the endpoint.
        self.source = BodySource::Local(Bytes::new());
        Ok(Frame::trailers(call_error_trailers(&details)))
    }

    /// Waits while the connection holds too much that its client has not read.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(record) = &self.record else { return Poll::Ready(()) };
        let Some(unsent) = record.peer.unsent() else { return Poll::Ready(()) };
        while !unsent.has_room() {
            unsent.wake_when_sent(cx.waker());
            let activity = &record.peer.activity;
            activity.awaits_response_data.set(false);
            if let Some(meter) = activity.response_meter() {
                meter.begin_wait();
            }
            let recheck = self.recheck.get_or_insert_with(|| Box::pin(sleep(RECHECK_INTERVAL)));
            ready!(recheck.as_mut().poll(cx));
            recheck.as_mut().reset(Instant::now() + RECHECK_INTERVAL);
        }
        self.recheck = None;
        Poll::Ready(())
    }

    /// Counts the data until it is sent. The last data of a response does not count if it is small.
    fn count_unsent(&self, frame: Frame<Bytes>, is_last: bool) -> Frame<UnsentData> {
        let unsent = self.record.as_ref().and_then(|record| record.peer.unsent());
        frame.map_data(|data| match unsent {
            Some(unsent) if !is_last || data.len() > MAX_UNCOUNTED => unsent.count(data),
            _ => UnsentData::uncounted(data),
        })
    }

    /// Records the error and makes sure that the client does not take the partial response for a complete one.
    fn abort(&mut self, reason: &'static str) {
        if let Some(record) = &mut self.record {
            record.error = Some(reason);
            record.peer.activity.reset_on_close.set(self.version == Version::HTTP_10);
            record.finish();
        }
    }

    fn record_bytes(&mut self, length: usize) {
        if let Some(record) = &mut self.record {
            record.peer.activity.record_progress();
            record.bytes_out += length as u64;
            if let Some(timeout) = &mut *record.peer.activity.read_timeout.borrow_mut() {
                timeout.stop();
            }
        }
    }
}

fn read_timed_out(activity: Option<&Activity>, cx: &mut Context<'_>) -> bool {
    let Some(activity) = activity else { return false };
    let Some(limit) = activity.rule_timeouts.get().read() else { return false };
    // Most responses arrive in one piece and need no timer.
    let mut timeout = activity.read_timeout.borrow_mut();
    timeout.get_or_insert_with(|| ReadTimeout::start(limit)).poll(limit, cx).is_ready()
}

/// Most responses have not more data, and the head of a response may have more, too.
const MAX_UNCOUNTED: usize = 4096;

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
    fn reason(&self) -> &'static str {
        match self {
            ResponseBodyError::Timeout => RequestError::ResponseTimeout.details().reason,
            ResponseBodyError::Invalid(_) | ResponseBodyError::Reset | ResponseBodyError::Reply(_) => {
                RESPONSE_TRUNCATED
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = UnsentData;
    type Error = ResponseBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<UnsentData>, ResponseBodyError>>> {
        let this = self.get_mut();
        if let Some(error) = this.poll_deadline(cx) {
            return Poll::Ready(Some(this.end_at_deadline(error)));
        }
        ready!(this.poll_room(cx));
        let activity = this.record.as_ref().map(|record| &record.peer.activity);
        let meter = activity.and_then(Activity::response_meter);
        if let Some(meter) = meter {
            meter.end_wait();
        }
        let polled = this.source.poll_next(activity, cx);
        if let Some(activity) = activity {
            activity.awaits_response_data.set(polled.is_pending());
        }
        match ready!(polled) {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut()
                    && let Some(record) = &this.record
                {
                    clean_response_trailers(trailers, record);
                }
                let ended = frame.is_trailers() || this.source.is_end_stream();
                if let Some(meter) = meter {
                    meter.add(frame.data_ref().map_or(0, Bytes::len));
                    // Until the connection asks for the next part.
                    meter.begin_wait();
                }
                this.record_bytes(frame.data_ref().map_or(0, Bytes::len));
                let frame = this.count_unsent(frame, ended);
                if ended {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.abort(error.reason());
                Poll::Ready(Some(Err(error)))
            }
            None => {
                if !matches!(this.source, BodySource::Upgraded(..)) {
                    this.finish();
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // An empty body is never polled, and a body of known length not after its last byte.
        if self.is_end_stream() {
            self.finish();
        }
    }
}
