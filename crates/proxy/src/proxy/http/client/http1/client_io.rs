//! The stream of an HTTP/1 client, which the connection and the body of its current request share.
//!
//! Only one of them reads at a time: the body while it is incomplete, otherwise the connection, which waits for the
//! next request or for the client to leave. Another task may read the body. So the one that stops reading wakes the
//! other.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::AsyncWrite;

use crate::http1::{BodyDecoder, HeadLimits, InvalidMessage, NameCase, ReceivedRequest, RequestReader, poll_receive};
use crate::proxy::http::client::client_stream::ClientStream;
use crate::proxy::http::exchange::client_body::ClientBody;
use crate::proxy::http::exchange::unread_body::{BodyReader, UnreadBody};

pub(in crate::proxy) struct ClientIo(RefCell<IoState>);

struct IoState {
    /// None when the connection has ended.
    stream: Option<ClientStream>,
    /// Bytes that were received, but not decoded.
    buffer: BytesMut,
    reader: RequestReader,
    body: BodyDecoder,
    /// Counts requests, so that the body of an earlier one does not read bytes of a later one.
    request: u64,
    continuation: Continuation,
    /// The task of the connection.
    connection: Option<Waker>,
    /// Whether the body of the current request has a reader, which may outlive the response.
    has_body_reader: bool,
    /// The task of the reader, while it waits.
    body_reader: Option<Waker>,
    has_ended: bool,
}

/// Whether the client waits for `100 Continue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Continuation {
    NotExpected,
    Expected,
    /// The body is read, so it must be sent.
    Due,
}

/// The client has closed the connection, or it has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct ClientLeft;

impl ClientIo {
    /// `buffer` has what was received already.
    pub(in crate::proxy) fn new(
        stream: ClientStream,
        buffer: BytesMut,
        limits: HeadLimits,
        name_case: NameCase,
    ) -> Rc<Self> {
        Rc::new(ClientIo(RefCell::new(IoState {
            stream: Some(stream),
            buffer,
            reader: RequestReader::new(limits).with_name_case(name_case),
            body: BodyDecoder::EMPTY,
            request: 0,
            continuation: Continuation::NotExpected,
            connection: None,
            has_body_reader: false,
            body_reader: None,
            has_ended: false,
        })))
    }

    /// Sets the task of the connection.
    pub(in crate::proxy) fn set_connection_task(&self, waker: &Waker) {
        let mut state = self.0.borrow_mut();
        if state.connection.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            state.connection = Some(waker.clone());
        }
    }

    /// Whether nothing was received that is not decoded.
    pub(in crate::proxy) fn is_drained(&self) -> bool {
        self.0.borrow().buffer.is_empty()
    }

    /// Whether nothing of a next request has arrived.
    pub(in crate::proxy) fn is_between_requests(&self) -> bool {
        let state = self.0.borrow();
        state.buffer.is_empty() && state.reader.is_unused()
    }

    /// Reads the head of the next request from what was received.
    pub(in crate::proxy) fn read_head(&self) -> Result<Option<ReceivedRequest>, InvalidMessage> {
        let state = &mut *self.0.borrow_mut();
        let Some(mut request) = state.reader.read(&mut state.buffer)? else { return Ok(None) };
        state.body = std::mem::replace(&mut request.body, BodyDecoder::EMPTY);
        state.request += 1;
        let expects = request.expects_continue && !state.body.is_ended();
        state.continuation = if expects { Continuation::Expected } else { Continuation::NotExpected };
        Ok(Some(request))
    }

    /// Receives more of a head. Returns how much: 0 at the end of the stream.
    pub(in crate::proxy) fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_receive(cx)
    }

    /// Notices when the client leaves while its request is in progress. While the body is incomplete, its reader does.
    pub(in crate::proxy) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<ClientLeft> {
        let mut state = self.0.borrow_mut();
        loop {
            // With more bytes, another request has begun, and the end of the stream is behind it.
            if !state.body.is_ended() || !state.buffer.is_empty() {
                return Poll::Pending;
            }
            if let Ok(0) | Err(_) = ready!(state.poll_receive(cx)) {
                return Poll::Ready(ClientLeft);
            }
        }
    }

    /// Whether `100 Continue` must be sent now. Asked again, it need not.
    pub(in crate::proxy) fn take_continuation(&self) -> bool {
        let mut state = self.0.borrow_mut();
        let is_due = state.continuation == Continuation::Due;
        if is_due {
            state.continuation = Continuation::NotExpected;
        }
        is_due
    }

    /// The body of the current request.
    pub(in crate::proxy) fn begin_body(self: &Rc<Self>) -> ClientBody {
        let mut state = self.0.borrow_mut();
        state.has_body_reader = !state.body.is_ended();
        if !state.has_body_reader {
            return ClientBody::Empty;
        }
        ClientBody::Http1(UnreadBody::new(Rc::<Self>::clone(self), state.request))
    }

    /// Whether the body of the current request has a reader.
    pub(in crate::proxy) fn has_body_reader(&self) -> bool {
        self.0.borrow().has_body_reader
    }

    /// Ends the current request: its body cannot be read any more. What has been received of it is discarded. Returns
    /// whether the body has ended, so that another request may follow.
    pub(in crate::proxy) fn end_request(&self) -> bool {
        let state = &mut *self.0.borrow_mut();
        while let Poll::Ready(Some(Ok(_))) = state.body.decode(&mut state.buffer) {}
        let has_ended = state.body.is_ended();
        state.request += 1;
        state.has_body_reader = false;
        if let Some(reader) = state.body_reader.take() {
            reader.wake();
        }
        has_ended
    }

    /// Takes the stream out, with the bytes that were received but not decoded.
    pub(in crate::proxy) fn take_stream(&self) -> Option<(ClientStream, Bytes)> {
        self.end_request();
        let mut state = self.0.borrow_mut();
        Some((state.stream.take()?, std::mem::take(&mut state.buffer).freeze()))
    }
}

impl BodyReader for ClientIo {
    fn poll_body(&self, request: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InvalidMessage>>> {
        let state = &mut *self.0.borrow_mut();
        if request != state.request {
            return Poll::Ready(Some(Err(InvalidMessage::Truncated)));
        }
        if state.continuation == Continuation::Expected {
            state.continuation = Continuation::Due;
            state.wake_connection(cx);
        }
        if state.body.take_must_yield() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            if let Poll::Ready(frame) = state.body.decode(&mut state.buffer) {
                if state.body.is_ended() {
                    // Now the connection notices when the client leaves.
                    state.wake_connection(cx);
                }
                return Poll::Ready(frame);
            }
            let Poll::Ready(received) = state.poll_receive(cx) else {
                state.body_reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            if let Ok(0) | Err(_) = received {
                return Poll::Ready(Some(Err(InvalidMessage::Truncated)));
            }
        }
    }

    fn is_body_ended(&self, request: u64) -> bool {
        let state = self.0.borrow();
        state.request == request && state.body.is_ended()
    }

    fn body_size(&self, request: u64) -> SizeHint {
        let state = self.0.borrow();
        if state.request == request { state.body.size_hint() } else { SizeHint::default() }
    }

    fn end_body(&self, request: u64) {
        let mut state = self.0.borrow_mut();
        if request == state.request {
            state.has_body_reader = false;
            if let Some(connection) = &state.connection {
                connection.wake_by_ref();
            }
        }
    }
}

impl IoState {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.has_ended) else { return Poll::Ready(Ok(0)) };
        let expected = self.body.next_input();
        let received = ready!(poll_receive(stream, cx, &mut self.buffer, expected));
        self.has_ended = !matches!(received, Ok(1..));
        Poll::Ready(received)
    }

    /// Wakes the task of the connection, unless it is the current one.
    fn wake_connection(&self, cx: &Context<'_>) {
        if let Some(connection) = self.connection.as_ref().filter(|connection| !connection.will_wake(cx.waker())) {
            connection.wake_by_ref();
        }
    }
}

/// Writes to the stream. The stream is free between two calls, because the body of a request may be read while a
/// response is sent.
pub(in crate::proxy) struct ClientWriter<'i>(pub(in crate::proxy) &'i ClientIo);

impl ClientWriter<'_> {
    fn with_stream<T>(&self, write: impl FnOnce(Pin<&mut ClientStream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut self.0.0.borrow_mut().stream {
            Some(stream) => write(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for ClientWriter<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with_stream(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with_stream(|stream| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.0.borrow().stream.as_ref().is_some_and(ClientStream::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream(|stream| stream.poll_shutdown(cx))
    }
}
