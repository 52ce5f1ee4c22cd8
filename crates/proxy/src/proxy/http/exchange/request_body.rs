//! Request bodies as they stream through the proxy: counted, with back-pressure to the client, and never passed on as
//! complete when they are truncated.
//!
//! Small HTTP/2 frames that arrive together are joined, since each frame costs the endpoint a chunk, a wake-up and
//! part of a TCP segment: a client could otherwise cause much more work than it does. Chunks of HTTP/1 are joined when
//! they are decoded.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

use super::activity::{BodyFailure, UploadState};
use super::client_body::{ClientBody, ClientBodyError};
use super::client_exchange::ClientExchange;
use super::replay_buffer::ReplayBuffer;
use crate::http1::JoinedData;
use crate::http2_frames::MARKER_NAME;
use crate::plugin_api::FieldNames;
use crate::plugin_api::request_body_changes::RequestBodyChanges;
use crate::proxy::buffer_budget::{BufferUse, BufferedBytes, NotKept};
use crate::proxy::http::fields::field_policy;
use crate::proxy::http::forwarding::mirror::{MirrorCopy, MirroredBody, PendingCopies};
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::rule::RouteRule;
use crate::turn_clock;

/// The body of a request as it is sent to an endpoint.
pub(in crate::proxy) struct RequestBody {
    /// The rest of the body from the client. None if all of it has arrived.
    incoming: Option<ClientBody>,
    /// The client's request has a stream of its own.
    is_stream: bool,
    /// State that few requests need, boxed to keep the others small.
    extensions: Option<Box<BodyExtensions>>,
    /// The rule of the request, if it decides about fields of trailers that may follow.
    rule: Option<Arc<RouteRule>>,
    exchange: Rc<ClientExchange>,
}

#[derive(Default)]
struct BodyExtensions {
    /// Data of small HTTP/2 frames, while those that have arrived with them are read.
    small_frames: JoinedData,
    /// Data that is sent before `incoming`: it was read before the request was sent, or is sent again.
    buffered: Bytes,
    /// Trailers that were read together with `buffered` or `small_frames`.
    trailers: Option<HeaderMap>,
    /// Names of fields that must not be trailers because of this request.
    no_trailers: FieldNames,
    /// The mirrored copies of the request, which get all data of the body.
    mirror_copies: Option<PendingCopies>,
    /// How many more bytes of the body its limit allows, if it has one.
    remaining: Option<u64>,
    /// The bytes of `buffered`.
    kept: Option<Rc<BufferedBytes>>,
    /// The replay buffer that holds the body. If set, all other fields are empty.
    replay: Option<Rc<ReplayBuffer>>,
}

impl RequestBody {
    pub(in crate::proxy) fn new(incoming: ClientBody, exchange: &Rc<ClientExchange>) -> Self {
        let incoming = (!incoming.is_end_stream()).then_some(incoming);
        exchange.activity.set_upload(if incoming.is_some() {
            UploadState::AwaitingEndpoint
        } else {
            UploadState::Complete
        });
        RequestBody {
            incoming,
            is_stream: exchange.protocol.is_multiplexed(),
            extensions: None,
            rule: None,
            exchange: Rc::clone(exchange),
        }
    }

    /// An empty body, for a request whose actual body was moved elsewhere.
    pub(in crate::proxy) fn empty(exchange: &Rc<ClientExchange>) -> Self {
        RequestBody { incoming: None, is_stream: false, extensions: None, rule: None, exchange: Rc::clone(exchange) }
    }

    /// The body of a request that Portico makes itself.
    pub(in crate::proxy) fn from_bytes(bytes: Bytes, exchange: &Rc<ClientExchange>) -> Self {
        let mut body = RequestBody::empty(exchange);
        if !bytes.is_empty() {
            body.replace_buffered(bytes);
        }
        body
    }

    /// Whether trailers may follow the body, or have followed it.
    pub(in crate::proxy) fn may_have_trailers(&self) -> bool {
        match &self.incoming {
            Some(incoming) => self.is_stream || incoming.size_hint().exact().is_none(),
            None => self.extensions.as_ref().is_some_and(|extensions| extensions.trailers.is_some()),
        }
    }

    /// Removes fields from the trailers that the rule sets or removes in the head.
    pub(in crate::proxy) fn set_rule(&mut self, rule: &Arc<RouteRule>) {
        self.rule = Some(Arc::clone(rule));
    }

    /// The names of fields that are removed from the trailers, in addition to those that follow from the rule.
    pub(in crate::proxy) fn no_trailers(&mut self) -> &mut FieldNames {
        &mut self.extensions.get_or_insert_default().no_trailers
    }

    /// Applies what the plugins have determined. Fails if the body exceeds their limit already.
    pub(in crate::proxy) fn apply(&mut self, changes: &mut RequestBodyChanges) -> Result<(), RequestError> {
        // The limit is that of what the client sends, not of what plugins make of it.
        if let Some(limit) = changes.limit {
            self.limit(limit)?;
        }
        // Only a completely buffered body is ever replaced. The `Content-Length` is already that of the new one.
        if let Some(body) = changes.replacement.take() {
            self.replace_buffered(body);
        }
        Ok(())
    }

    /// Limits the body to `max_bytes` bytes. Fails at once if the declared length exceeds the limit.
    fn limit(&mut self, max_bytes: u64) -> Result<(), RequestError> {
        if self.size_hint().lower() > max_bytes {
            return Err(RequestError::BodyTooLarge);
        }
        let remaining = max_bytes.checked_sub(self.buffered().len() as u64).ok_or(RequestError::BodyTooLarge)?;
        if self.incoming.is_some() {
            self.extensions.get_or_insert_default().remaining = Some(remaining);
        }
        Ok(())
    }

    /// Whether all data has arrived from the client.
    pub(in crate::proxy) fn is_fully_read(&self) -> bool {
        self.incoming.is_none()
    }

    /// The data that was buffered before sending.
    pub(in crate::proxy) fn buffered(&self) -> Bytes {
        self.extensions.as_ref().map(|extensions| extensions.buffered.clone()).unwrap_or_default()
    }

    /// Removes the trailers of a body that was read to its end.
    pub(in crate::proxy) fn remove_trailers(&mut self) {
        if let Some(extensions) = &mut self.extensions {
            extensions.trailers = None;
        }
    }

    /// Replaces the buffered data, which must be the whole body.
    fn replace_buffered(&mut self, body: Bytes) {
        debug_assert!(self.is_fully_read(), "the rest of the old body would follow the new one");
        self.extensions.get_or_insert_default().buffered = body;
    }

    /// Duplicates the body of a request that may be sent a second time. The body must be empty or completely buffered.
    pub(in crate::proxy) fn duplicate(&self) -> Self {
        let extensions = self.extensions.as_ref().filter(|extensions| !extensions.buffered.is_empty());
        let extensions = extensions.map(|extensions| {
            let (buffered, kept) = (extensions.buffered.clone(), extensions.kept.clone());
            Box::new(BodyExtensions { buffered, kept, ..BodyExtensions::default() })
        });
        RequestBody {
            incoming: None,
            is_stream: self.is_stream,
            extensions,
            rule: None,
            exchange: Rc::clone(&self.exchange),
        }
    }

    /// Moves the body into a replay buffer of up to `max_bytes` bytes and returns a second handle to it, for a request
    /// that may be sent again if the endpoint did not process it. Only one handle can be sent: this one, or the
    /// returned one after [`RequestBody::reclaim`]. `namespace`: that of the Service.
    pub(in crate::proxy) fn share_for_replay(&mut self, max_bytes: usize, namespace: &Arc<str>) -> Self {
        let exchange = Rc::clone(&self.exchange);
        let handle = |buffer| {
            let extensions = BodyExtensions { replay: Some(buffer), ..BodyExtensions::default() };
            let extensions = Some(Box::new(extensions));
            RequestBody { incoming: None, is_stream: false, extensions, rule: None, exchange: Rc::clone(&exchange) }
        };
        if let Some(buffer) = self.replay_buffer() {
            return handle(Rc::clone(buffer));
        }
        let body = std::mem::replace(self, RequestBody::empty(&exchange));
        let buffer = ReplayBuffer::new(body, max_bytes, &exchange, Arc::clone(namespace));
        *self = handle(Rc::clone(&buffer));
        handle(buffer)
    }

    /// Takes the body back from the replay buffer. None if more was sent than the buffer keeps.
    pub(in crate::proxy) fn reclaim(self) -> Option<Self> {
        // No endpoint is ready for more of it until it is sent again.
        let activity = &self.exchange.activity;
        if activity.upload() == UploadState::AwaitingClient {
            activity.mark_awaiting_endpoint();
        }
        match self.replay_buffer() {
            Some(buffer) => buffer.take_back(),
            None => Some(self),
        }
    }

    fn replay_buffer(&self) -> Option<&Rc<ReplayBuffer>> {
        self.extensions.as_ref()?.replay.as_ref()
    }

    /// Prepends data and trailers that were sent already, to send them again.
    pub(in crate::proxy) fn restore_sent(
        &mut self,
        data: Bytes,
        trailers: Option<HeaderMap>,
        kept: Option<BufferedBytes>,
    ) {
        if data.is_empty() && trailers.is_none() {
            return;
        }
        let extensions = self.extensions.get_or_insert_default();
        if !data.is_empty() {
            // `data` includes any data buffered earlier, because that is sent first and in one piece. Small frames that
            // wait have not been sent yet.
            let mut restored = JoinedData::default();
            restored.push(data);
            if !extensions.small_frames.is_empty() {
                restored.push(extensions.small_frames.take());
            }
            extensions.buffered = restored.take();
            extensions.kept = kept.map(Rc::new);
        }
        if trailers.is_some() {
            extensions.trailers = trailers;
        }
    }

    /// Whether all of the body has arrived, also if it is in a replay buffer.
    pub(in crate::proxy) fn has_arrived(&self) -> bool {
        self.replay_buffer().map_or_else(|| self.is_fully_read(), |buffer| buffer.has_arrived())
    }

    /// Like [`Self::buffer_up_to`], until the deadline. Then no endpoint is ready for what follows until the request is
    /// sent.
    pub(in crate::proxy) async fn buffer_until(
        &mut self,
        deadline: Instant,
        max_bytes: usize,
        kept_for: BufferUse,
        namespace: &str,
    ) -> Result<bool, RequestBodyError> {
        if self.replay_buffer().is_some() {
            return Ok(self.has_arrived());
        }
        let mut end = pin!(sleep_until(deadline));
        let is_whole = self.buffer_while(max_bytes, kept_for, namespace, |cx| end.as_mut().poll(cx).is_pending()).await;
        let activity = &self.exchange.activity;
        if activity.upload() == UploadState::AwaitingClient {
            activity.mark_awaiting_endpoint();
        }
        is_whole
    }

    /// Buffers up to `max_bytes` of the body, and returns whether all of it is buffered. Buffered data is sent as if it
    /// had just arrived. A body with trailers never counts as completely buffered. If the process keeps too many bytes,
    /// a body for plugins waits and then fails, and one to be sent again is not buffered further. `namespace`: that of
    /// the object because of which it is buffered.
    pub(in crate::proxy) async fn buffer_up_to(
        &mut self,
        max_bytes: usize,
        kept_for: BufferUse,
        namespace: &str,
    ) -> Result<bool, RequestBodyError> {
        self.buffer_while(max_bytes, kept_for, namespace, |_| true).await
    }

    /// The same as long as it `may_wait`, which is called each time that more of the body has not arrived yet.
    async fn buffer_while(
        &mut self,
        max_bytes: usize,
        kept_for: BufferUse,
        namespace: &str,
        mut may_wait: impl FnMut(&mut Context<'_>) -> bool,
    ) -> Result<bool, RequestBodyError> {
        let fits = |length: u64| usize::try_from(length).is_ok_and(|length| length <= max_bytes);
        if !fits(self.size_hint().lower()) {
            return Ok(false);
        }
        // All of it was read before, for a plugin.
        if self.incoming.is_none() {
            return Ok(self.extensions.as_ref().is_none_or(|extensions| extensions.trailers.is_none()));
        }
        let mut buffered = BytesMut::new();
        let mut kept = self.exchange.buffered(kept_for, namespace);
        let mut trailers = None;
        let mut has_room = true;
        while self.incoming.is_some() && buffered.len() <= max_bytes && has_room {
            let next = poll_fn(|cx| match self.poll_next(cx) {
                Poll::Pending if !may_wait(cx) => Poll::Ready(None),
                polled => polled,
            });
            match next.await {
                None => break,
                Some(frame) => match frame?.into_data() {
                    Ok(data) => {
                        match kept_for {
                            BufferUse::Replay => has_room = kept.try_grow(data.len()).is_ok(),
                            _ => kept.grow(data.len()).await?,
                        }
                        buffered.extend_from_slice(&data);
                    }
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        }
        let is_whole = self.incoming.is_none() && buffered.len() <= max_bytes && trailers.is_none();
        let extensions = self.extensions.get_or_insert_default();
        (extensions.buffered, extensions.trailers) = (buffered.freeze(), trailers);
        extensions.kept = Some(Rc::new(kept));
        Ok(is_whole && has_room)
    }

    /// Returns the next frame, joined with the small HTTP/2 frames that arrived together with it.
    fn poll_joined(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if !self.is_stream {
            return self.poll_next(cx);
        }
        loop {
            let polled = self.poll_next(cx);
            let small_frames = self.extensions.as_mut().map(|extensions| &mut extensions.small_frames);
            let waiting = small_frames.filter(|frames| !frames.is_empty());
            match (polled, waiting) {
                (Poll::Ready(Some(Ok(frame))), waiting) => {
                    let data = match (frame.into_data(), waiting) {
                        (Ok(data), None) if data.len() >= SMALL_FRAME || self.incoming.is_none() => {
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                        (Ok(data), _) => data,
                        (Err(trailers), None) => return Poll::Ready(Some(Ok(trailers))),
                        (Err(trailers), Some(waiting)) => {
                            let data = waiting.take();
                            self.extensions.get_or_insert_default().trailers = trailers.into_trailers().ok();
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                    };
                    let is_last = data.len() >= SMALL_FRAME || self.incoming.is_none();
                    let small_frames = &mut self.extensions.get_or_insert_default().small_frames;
                    small_frames.push(data);
                    if is_last || small_frames.len() >= MAX_JOINED {
                        return Poll::Ready(Some(Ok(Frame::data(small_frames.take()))));
                    }
                }
                (Poll::Pending, Some(waiting)) => {
                    self.exchange.activity.mark_awaiting_endpoint();
                    return Poll::Ready(Some(Ok(Frame::data(waiting.take()))));
                }
                (Poll::Ready(None), Some(waiting)) => return Poll::Ready(Some(Ok(Frame::data(waiting.take())))),
                (polled, _) => return polled,
            }
        }
    }

    /// Returns the next frame as it arrived.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if let Some(extensions) = &mut self.extensions
            && !extensions.buffered.is_empty()
        {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut extensions.buffered)))));
        }
        let Some(incoming) = &mut self.incoming else {
            let trailers = self.extensions.as_mut().and_then(|extensions| extensions.trailers.take());
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        };
        if self.exchange.activity.is_body_abandoned(cx) {
            return Poll::Ready(Some(Err(RequestBodyError::Abandoned)));
        }
        let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
            self.exchange.activity.mark_awaiting_client();
            if self.is_stream {
                self.exchange.request_continuation();
            }
            return Poll::Pending;
        };
        self.exchange.activity.mark_awaiting_endpoint();
        match frame {
            Some(Ok(mut frame)) => {
                if self.is_stream
                    && let Some(trailers) = frame.trailers_mut()
                {
                    trailers.remove(MARKER_NAME);
                }
                let activity = &self.exchange.activity;
                activity.record_body(frame.data_ref().map_or(0, Bytes::len));
                if let Some(data) = frame.data_ref() {
                    activity.bytes_in.set(activity.bytes_in.get() + data.len() as u64);
                    if self.is_stream
                        && let Some((bodies, request)) = self.exchange.unforwarded()
                    {
                        bodies.forward_frame(request, data.len());
                    }
                    if let Some(extensions) = &mut self.extensions {
                        if let Some(remaining) = &mut extensions.remaining {
                            let Some(rest) = remaining.checked_sub(data.len() as u64) else {
                                activity.body_failure.set(Some(BodyFailure::TooLarge));
                                return Poll::Ready(Some(Err(RequestBodyError::TooLarge)));
                            };
                            *remaining = rest;
                        }
                        PendingCopies::buffer(&mut extensions.mirror_copies, data);
                    }
                }
                // Trailers end the body even where the library does not report the end of the stream.
                if frame.is_trailers() || is_complete(self.incoming.as_ref()) {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.exchange.activity.body_failure.set(Some(BodyFailure::Invalid));
                Poll::Ready(Some(Err(RequestBodyError::Invalid(error))))
            }
            None if self.is_stream && !is_complete(self.incoming.as_ref()) => {
                self.exchange.activity.body_failure.set(Some(BodyFailure::Invalid));
                Poll::Ready(Some(Err(RequestBodyError::Reset)))
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    fn finish(&mut self) {
        self.incoming = None;
        self.close_unforwarded();
        if let Some(extensions) = &mut self.extensions
            && let Some(copies) = extensions.mirror_copies.take()
        {
            copies.send();
        }
        self.exchange.activity.set_upload(UploadState::Complete);
        self.exchange.activity.body_ended_at.set(Some(turn_clock::now()));
        self.exchange.activity.record_progress();
    }

    #[cold]
    fn clean_trailers(&self, trailers: &mut HeaderMap) {
        let none = FieldNames::default();
        let others = self.extensions.as_ref().map_or(&none, |extensions| &extensions.no_trailers);
        field_policy::remove_from_request_trailers(
            trailers,
            &self.exchange.http.product_headers,
            self.rule.as_deref(),
            others,
        );
    }

    /// The body has ended, or the rest of it is not read.
    fn close_unforwarded(&self) {
        if self.is_stream
            && let Some((bodies, request)) = self.exchange.unforwarded()
        {
            bodies.close(request);
        }
    }
}

impl MirroredBody for RequestBody {
    fn add_mirror_copy(&mut self, copy: MirrorCopy) {
        self.extensions.get_or_insert_default().mirror_copies.get_or_insert_default().add(copy);
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = self.get_mut();
        if let Some(buffer) = this.replay_buffer() {
            return buffer.poll_frame(cx);
        }
        let mut polled = this.poll_joined(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            this.clean_trailers(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        if let Some(buffer) = self.replay_buffer() {
            return buffer.is_end_stream();
        }
        self.incoming.as_ref().is_none_or(ClientBody::is_end_stream)
            && self.extensions.as_ref().is_none_or(|extensions| {
                extensions.buffered.is_empty() && extensions.small_frames.is_empty() && extensions.trailers.is_none()
            })
    }

    fn size_hint(&self) -> SizeHint {
        if let Some(buffer) = self.replay_buffer() {
            return buffer.size_hint();
        }
        let rest = self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), ClientBody::size_hint);
        let Some(extensions) = &self.extensions else { return rest };
        if extensions.trailers.is_some() {
            // Only a body of unknown length can have trailers.
            return SizeHint::default();
        }
        let buffered = (extensions.buffered.len() + extensions.small_frames.len()) as u64;
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + buffered);
        }
        hint.set_lower(rest.lower() + buffered);
        hint
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            self.exchange.activity.mark_body_unread();
            if self.exchange.keep_unread(incoming).is_break() {
                self.close_unforwarded();
            }
        }
    }
}

/// Whether an HTTP/2 body that yields no more frames is complete. The library also reports the end of the body when the
/// stream or connection ends with NO_ERROR; only END_STREAM on the last frame means that nothing is missing.
fn is_complete(incoming: Option<&ClientBody>) -> bool {
    incoming.is_none_or(ClientBody::is_end_stream)
}

/// Why the body of a request cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum RequestBodyError {
    #[error("the request body is invalid or truncated: {0}")]
    Invalid(ClientBodyError),
    #[error("the client reset the stream within the request body")]
    Reset,
    #[error("the request body exceeds its size limit")]
    TooLarge,
    #[error("the bodies kept in memory have reached their limit")]
    BufferLimit,
    #[error("the client has sent the request body too slowly for one that is kept in memory")]
    TooSlow,
    #[error("the endpoint did not process the request, so its body is sent again")]
    Reclaimed,
    #[error("the stream has ended, so the rest of the request body is not read")]
    Abandoned,
}

impl From<NotKept> for RequestBodyError {
    fn from(reason: NotKept) -> Self {
        match reason {
            NotKept::LimitReached => RequestBodyError::BufferLimit,
            NotKept::TooSlow => RequestBodyError::TooSlow,
        }
    }
}

/// A frame with less data waits for the next one.
const SMALL_FRAME: usize = 1024;
/// Small frames are passed on when they have this many bytes together.
const MAX_JOINED: usize = 16 * 1024;
