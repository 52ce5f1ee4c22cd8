//! Response bodies as they stream through the proxy: counted, with back-pressure to the endpoint, and never passed on
//! as complete when they are truncated.
//!
//! What the response holds in memory is held until the last data is sent or dropped, and so does the record of the
//! request end then, unless the last data is small:
//!
//! ```text
//!   HTTP/1   the message has the body until it is sent                    end_sending
//!   HTTP/2   the library drops the body when it has taken the last data   SendingResponse, with the unsent data
//! ```

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::sending_response::{SendingResponse, UnsentData};
use super::tunnel::Tunnel;
use crate::proxy::http::exchange::activity::Activity;
use crate::proxy::http::exchange::body_source::{BodySource, ResponseBodyError};
use crate::proxy::http::exchange::unsent_responses::RECHECK_INTERVAL;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::steps::error_response::call_error_trailers;
use crate::proxy::http::steps::request::ServedRequest;
use crate::proxy::http::steps::request_record::RequestRecord;

/// The body of a response, with the request record that is finished when the body is sent.
pub(in crate::proxy) struct ResponseBody {
    source: BodySource,
    /// What remains of data that an HTTP/2 stream sends in several parts.
    rest: Bytes,
    /// The length of the last part that was taken.
    last_part: usize,
    /// The last part has been taken to be sent.
    has_ended: bool,
    /// None if the record ends with the tunnel instead of this body.
    record: Option<RequestRecord>,
    /// The data that the HTTP/2 connection holds of this response, if some of it counts.
    sending: Option<Rc<SendingResponse>>,
    /// The HTTP version of the request: on HTTP/1.0 the end of the connection is the end of the body.
    version: Version,
    /// Wakes this body while it waits for room: others may have made room.
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

    fn new(source: BodySource, record: Option<RequestRecord>, version: Version) -> Self {
        let (rest, last_part, has_ended, sending) = (Bytes::new(), 0, false, None);
        ResponseBody { source, rest, last_part, has_ended, record, sending, version, recheck: None }
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
            if self.last_part <= SMALL && record.exchange.unsent().is_none() {
                record.finish();
            }
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
        (self.source, self.rest) = (BodySource::Local(Bytes::new()), Bytes::new());
        Ok(Frame::trailers(call_error_trailers(&details)))
    }

    /// Waits while the connection holds too much that its client has not read. The result is how many bytes may follow
    /// at once.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let Some(record) = &self.record else { return Poll::Ready(usize::MAX) };
        let Some(unsent) = record.exchange.unsent() else { return Poll::Ready(usize::MAX) };
        loop {
            if let Some(longest) = unsent.next_part() {
                self.recheck = None;
                return Poll::Ready(longest);
            }
            unsent.wake_when_sent(cx.waker());
            let activity = &record.exchange.activity;
            activity.awaits_response_data.set(false);
            if let Some(meter) = activity.response_meter() {
                meter.begin_wait();
            }
            let recheck = self.recheck.get_or_insert_with(|| Box::pin(sleep(RECHECK_INTERVAL)));
            ready!(recheck.as_mut().poll(cx));
            recheck.as_mut().reset(Instant::now() + RECHECK_INTERVAL);
        }
    }

    /// The part of the data that is sent at once. A stream of HTTP/2 asks for room before each, and the rest stays
    /// here.
    fn split(&mut self, frame: Frame<Bytes>, longest: usize) -> Frame<Bytes> {
        frame.map_data(|mut data| {
            if data.len() > longest {
                self.rest = data.split_off(longest);
            }
            self.last_part = data.len();
            data
        })
    }

    /// Counts the data until it is sent. The last data of a response does not count if it is small.
    fn count_unsent(&mut self, frame: Frame<Bytes>, is_last: bool) -> Frame<UnsentData> {
        let unsent = self.record.as_ref().and_then(|record| record.exchange.unsent());
        frame.map_data(|data| match unsent {
            Some(unsent) if !is_last || data.len() > MAX_UNCOUNTED => {
                self.sending.get_or_insert_with(|| SendingResponse::new(unsent)).count(data)
            }
            _ => UnsentData::uncounted(data),
        })
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

/// On HTTP/1, the record of a request ends before the last part is written if that has not more bytes, which the system
/// takes at once. So it has ended when the client has the response.
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
        let longest = ready!(this.poll_room(cx));
        let activity = this.record.as_ref().map(|record| &record.exchange.activity);
        let meter = activity.and_then(Activity::response_meter);
        if let Some(meter) = meter {
            meter.end_wait();
        }
        // From the connection to the endpoint, unless a plugin or Portico itself has made the response.
        let polled = match std::mem::take(&mut this.rest) {
            rest if rest.is_empty() => this.source.poll_next(activity, cx),
            rest => Poll::Ready(Some(Ok(Frame::data(rest)))),
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
                let frame = this.split(frame, longest);
                let ended = this.rest.is_empty() && (frame.is_trailers() || this.source.is_end_stream());
                this.record_bytes(frame.data_ref().map_or(0, Bytes::len));
                let frame = this.count_unsent(frame, ended);
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
        self.rest.is_empty() && self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, source) = (self.rest.len() as u64, self.source.size_hint());
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
        if self.is_end_stream() && !self.has_ended {
            self.end_source();
        }
        let Some(mut record) = self.record.take() else { return };
        if record.exchange.unsent().is_none() {
            // A message of HTTP/1 that was sent has finished its record.
            return;
        }
        match self.sending.take() {
            Some(sending) if self.has_ended => sending.end(record),
            Some(sending) => record.facts.bytes_out = record.facts.bytes_out.saturating_sub(sending.missing() as u64),
            None if self.has_ended => record.finish(),
            None => {}
        }
    }
}
