//! Response bodies as they stream through the proxy: counted, with back-pressure to the endpoint, and never passed on
//! as complete when they are truncated.
//!
//! What the response holds in memory is held until the last data is sent or dropped. The record of the request ends
//! then, or on HTTP/1 before the last write of a few bytes:
//!
//! ```text
//!   HTTP/1   the message has the body until it is sent                    begin_last_writes, end_sending
//!   HTTP/2   the library drops the body when it has taken the last data   SendingResponse, with the unsent data
//! ```

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Response, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::sending_response::{SendingResponse, UnsentData};
use super::tunnel::Tunnel;
use crate::http1::ReceivedFields;
use crate::proxy::http::exchange::activity::Activity;
use crate::proxy::http::exchange::body_source::{BodySource, ResponseBodyError};
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::exchange::unsent_responses::{RECHECK_INTERVAL, UnsentResponses};
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::steps::error_response::call_error_trailers;
use crate::proxy::http::steps::held_record::HeldRecord;
use crate::proxy::http::steps::request::ServedRequest;

/// The body of a response, with the request record that is finished when the body is sent.
pub(in crate::proxy) struct ResponseBody {
    /// None if the record ends with the tunnel instead of this body. First, because it ends before the source does.
    record: Option<HeldRecord>,
    source: BodySource,
    /// The last part has been taken to be sent.
    has_ended: bool,
    /// The HTTP version of the request: on HTTP/1.0 the end of the connection is the end of the body.
    version: Version,
    /// Set only on HTTP/2, and not for most small responses.
    stream: Option<Box<StreamSending>>,
}

/// What is sent of the response of an HTTP/2 stream.
#[derive(Default)]
struct StreamSending {
    /// What remains of data that is sent in several parts.
    rest: Bytes,
    /// The data that the connection holds, if some of it counts.
    response: Option<Rc<SendingResponse>>,
    /// Wakes the body while it waits for room: others may have made room.
    recheck: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    /// Attaches the record to the body of the response. It is finished with this body, or with the tunnel that follows.
    /// Head and body apart, because they are large, and a connection of HTTP/1 sends them one after the other.
    pub(in crate::proxy) fn attach(served: ServedRequest) -> (Response<()>, ResponseBody, Option<Box<Tunnel>>) {
        let ServedRequest { response, mut record, version } = served;
        let (head, source) = response.into_parts();
        let mut head = Response::from_parts(head, ());
        let BodySource::Upgraded(upgrade, endpoint) = source else {
            return (head, ResponseBody::new(source, Some(record), version), None);
        };
        // The timeouts that the rule sets for a response do not apply to an upgraded connection.
        record.facts.deadline = None;
        let (source, version) = (BodySource::Local(Bytes::new()), Version::HTTP_11);
        let body = ResponseBody::new(source, None, version);
        upgrade.accept(&mut head);
        record.facts.status = Some(head.status());
        let of_plugins = record.plugin_run.as_ref().and_then(|run| run.state.message_limits);
        let message_limits = of_plugins.filter(|_| upgrade.is_websocket());
        (head, body, Some(Tunnel::new(upgrade.into_stream(), endpoint, record, message_limits)))
    }

    fn new(source: BodySource, record: Option<HeldRecord>, version: Version) -> Self {
        ResponseBody { record, source, has_ended: false, version, stream: None }
    }

    /// Takes the fields of the response that are not in its head.
    pub(in crate::proxy) fn take_received_fields(&self) -> Option<ReceivedFields> {
        self.source.take_received_fields()
    }

    /// The id of the request, unless a tunnel follows.
    pub(in crate::proxy) fn request_id(&self) -> Option<&HeaderValue> {
        Some(&self.record.as_ref()?.facts.request_id)
    }

    /// Ends the part of a response without a body that the endpoint has.
    pub(in crate::proxy) fn end_if_empty(&mut self) {
        if self.is_end_stream() {
            self.end_source();
        }
    }

    /// The last part has been taken to be sent. It is not sent yet, with what waits before it.
    fn end_source(&mut self) {
        // Drop the source, so that later events such as a reset have no effect on this body.
        std::mem::replace(&mut self.source, BodySource::Local(Bytes::new())).release();
        self.has_ended = true;
        if let Some(record) = &mut self.record {
            record.end_source();
        }
    }

    /// Whether the record of the request has ended, or does not end with this body.
    pub(in crate::proxy) fn is_recorded(&self) -> bool {
        self.record.as_ref().is_none_or(|record| record.is_finished())
    }

    /// A message of HTTP/1 has taken all of the body, and will write what it has not sent: `unsent` bytes.
    pub(in crate::proxy) fn begin_last_writes(&mut self, unsent: usize) {
        if unsent <= SMALL
            && let Some(record) = &mut self.record
        {
            record.finish();
        }
    }

    /// A message of HTTP/1 is sent, or is given up. `is_whole`: whether it has taken all of the body. `unsent`: how
    /// many bytes of the message were taken and not sent.
    pub(in crate::proxy) fn end_sending(&mut self, unsent: usize, is_whole: bool) {
        let Some(record) = &mut self.record else { return };
        record.facts.bytes_out = record.facts.bytes_out.saturating_sub(unsent as u64);
        if unsent == 0 && is_whole {
            record.finish();
        }
    }

    /// Returns the error if the deadline of the rule or the call has passed. The deadline covers the response up to its
    /// last byte, even if the endpoint never stalls.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Option<RequestError> {
        if !self.source.reads_endpoint() {
            return None;
        }
        self.record.as_mut()?.facts.deadline.as_mut()?.poll_error(cx)
    }

    /// Ends the response before its end, because of its deadline. A gRPC client gets the status of the call, because it
    /// would take a reset for an internal error.
    fn end_at_deadline(&mut self, error: RequestError) -> Result<Frame<UnsentData>, ResponseBodyError> {
        let details = error.details();
        self.abort(details.reason);
        // After fewer bytes than its `content-length`, a response with trailers is malformed.
        let is_multiplexed = self.record.as_ref().is_some_and(|record| record.exchange.protocol.is_multiplexed());
        let can_have_trailers = is_multiplexed && self.size_hint().exact().is_none();
        if !matches!(error, RequestError::CallDeadline) || !can_have_trailers {
            return Err(ResponseBodyError::Timeout);
        }
        // Dropping the source cancels the call at the endpoint.
        self.source = BodySource::Local(Bytes::new());
        if let Some(stream) = &mut self.stream {
            stream.rest = Bytes::new();
        }
        Ok(Frame::trailers(call_error_trailers(&details)))
    }

    /// How many bytes remain of data that was taken in part.
    fn rest_length(&self) -> usize {
        self.stream.as_ref().map_or(0, |stream| stream.rest.len())
    }

    /// Records the error and makes sure that the client does not take the partial response for a complete one.
    fn abort(&mut self, reason: &'static str) {
        if let Some(record) = &mut self.record {
            record.facts.error = Some(reason);
            record.exchange.activity.reset_on_close.set(self.version == Version::HTTP_10);
            record.finish();
        }
    }

    fn record_bytes(&mut self, length: usize) {
        if let Some(record) = &mut self.record {
            record.exchange.activity.record_progress();
            record.facts.bytes_out += length as u64;
            if let Some(meter) = record.exchange.activity.response_meter() {
                meter.add(length);
                // Until the connection asks for the next part.
                meter.begin_wait();
            }
            if let Some(timeout) = &mut *record.exchange.activity.read_timeout.borrow_mut() {
                timeout.stop();
            }
        }
    }
}

impl StreamSending {
    /// The rest of data of which a part was sent.
    fn take_rest(&mut self) -> Option<Bytes> {
        (!self.rest.is_empty()).then(|| std::mem::take(&mut self.rest))
    }

    /// Counts the data until it is sent.
    fn count_data(&mut self, data: Bytes, unsent: &Rc<UnsentResponses>) -> UnsentData {
        self.response.get_or_insert_with(|| SendingResponse::new(unsent)).count(data)
    }
}

/// Waits while the HTTP/2 connection holds too much that its client has not read. The result is how many bytes may
/// follow at once.
fn poll_room(
    stream: &mut Option<Box<StreamSending>>,
    unsent: &UnsentResponses,
    activity: &Activity,
    cx: &mut Context<'_>,
) -> Poll<usize> {
    loop {
        if let Some(longest) = unsent.next_part() {
            if let Some(stream) = stream {
                stream.recheck = None;
            }
            return Poll::Ready(longest);
        }
        unsent.wake_when_sent(cx.waker());
        activity.awaits_response_data.set(false);
        if let Some(meter) = activity.response_meter() {
            meter.begin_wait();
        }
        let recheck = &mut stream.get_or_insert_default().recheck;
        let recheck = recheck.get_or_insert_with(|| Box::pin(sleep(RECHECK_INTERVAL)));
        ready!(recheck.as_mut().poll(cx));
        recheck.as_mut().reset(Instant::now() + RECHECK_INTERVAL);
    }
}

/// On HTTP/1, the record of a request ends before the write that sends the rest of the message if that has not more
/// bytes, which the system takes at once. So it has ended when the client has the response.
const SMALL: usize = 16 * 1024;
/// Most responses have not more data, and the head of a response may have more, too.
const MAX_UNCOUNTED: usize = 4096;

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
        let exchange = this.record.as_ref().map(|record| &*record.exchange);
        let activity = exchange.map(|exchange| &exchange.activity);
        let unsent = exchange.and_then(ClientExchange::unsent);
        // A stream of HTTP/2 asks for room before each part.
        let longest = match (activity, unsent) {
            (Some(activity), Some(unsent)) => Some(ready!(poll_room(&mut this.stream, unsent, activity, cx))),
            _ => None,
        };
        let meter = activity.and_then(Activity::response_meter);
        if let Some(meter) = meter {
            meter.end_wait();
        }
        // From the connection to the endpoint, unless a plugin or Portico itself has made the response.
        let polled = match this.stream.as_mut().and_then(|stream| stream.take_rest()) {
            None => this.source.poll_next(activity, cx),
            Some(rest) => Poll::Ready(Some(Ok(Frame::data(rest)))),
        };
        if let Some(activity) = activity {
            activity.awaits_response_data.set(polled.is_pending());
        }
        match ready!(polled) {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut()
                    && let Some(record) = &this.record
                {
                    record.clean_trailers(trailers);
                }
                if let (Some(longest), Some(data)) = (longest, frame.data_mut())
                    && data.len() > longest
                {
                    this.stream.get_or_insert_default().rest = data.split_off(longest);
                }
                let ended = this.rest_length() == 0 && (frame.is_trailers() || this.source.is_end_stream());
                let length = frame.data_ref().map_or(0, Bytes::len);
                // The last data of a response does not count if it is small.
                let counted_by = unsent.filter(|_| !ended || length > MAX_UNCOUNTED);
                let frame = frame.map_data(|data| match counted_by {
                    Some(unsent) => this.stream.get_or_insert_default().count_data(data, unsent),
                    None => UnsentData::uncounted(data),
                });
                this.record_bytes(length);
                if ended {
                    this.end_source();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.abort(error.reason());
                Poll::Ready(Some(Err(error)))
            }
            None => {
                if !matches!(this.source, BodySource::Upgraded(..)) {
                    this.end_source();
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest_length() == 0 && self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, source) = (self.rest_length() as u64, self.source.size_hint());
        if rest == 0 {
            return source;
        }
        let mut hint = SizeHint::new();
        if let Some(upper) = source.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(source.lower().saturating_add(rest));
        hint
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // An empty body is never polled, and a body of known length not after its last byte.
        if !self.has_ended && self.is_end_stream() {
            self.end_source();
        }
        // A message of HTTP/1 that was sent has finished its record.
        let is_stream = self.record.as_ref().is_some_and(|record| record.exchange.unsent().is_some());
        let Some(mut record) = self.record.take_if(|_| is_stream) else { return };
        match self.stream.take().and_then(|stream| stream.response) {
            Some(sending) if self.has_ended => sending.end(record),
            Some(sending) => record.facts.bytes_out = record.facts.bytes_out.saturating_sub(sending.missing() as u64),
            None if self.has_ended => record.finish(),
            None => {}
        }
    }
}
