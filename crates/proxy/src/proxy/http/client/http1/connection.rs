//! Serves the requests of an HTTP/1 client, one after another, in one task: reading the request, the request itself,
//! its response, and the body of either.
//!
//! ```text
//!   Reading ── head ──▶ Responding ── response ──▶ Sending ── all sent ──▶ Uploading ── persistent ──▶ Reading
//!      └─ closing, or the client has closed ──▶ Closing ◀── not persistent ──┘
//! ```

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{Method, Request, StatusCode, Version};
use tokio::io::AsyncWrite;

use super::client_io::{ClientIo, ClientLeft, ClientWriter};
use crate::http1::{
    Ambiguity, BodyLength, HeadLimits, InvalidMessage, OutgoingMessage, PassedFields, ReceivedRequest, ResponseContext,
    recycle_map, take_buffer, write_response_head,
};
use crate::proxy::http::client::client_stream::ClientStream;
use crate::proxy::http::client::response_body::ResponseBody;
use crate::proxy::http::client::tunnel::Tunnel;
use crate::proxy::http::exchange::client_body::ClientBody;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::fields::date::with_date;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::steps::request::ServedRequest;

/// `S` begins a request, and `F` is the request in progress.
pub(in crate::proxy) struct Http1ClientConnection<S, F> {
    io: Rc<ClientIo>,
    exchange: Rc<ClientExchange>,
    /// Always `steps::request::serve`. As a parameter, its future has a type and needs no box.
    serve_request: S,
    state: ServingState,
    /// The request in progress, and its response. The memory is used again for the next ones.
    request: Pin<Box<Option<F>>>,
    response: Box<Option<SentResponse>>,
    /// The tunnel that the connection becomes after the current response.
    tunnel: Option<Box<Tunnel>>,
    current: CurrentRequest,
    /// What is still to be sent of informational responses.
    interim: BytesMut,
    must_flush_interim: bool,
    /// Closes after the current response, or at once if there is none.
    is_closing: bool,
}

/// Why an HTTP/1 connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Http1End {
    /// The connection was closed, or its stream is handed over. Errors have been recorded.
    Finished,
    /// The client sent bytes that do not parse as a request.
    Malformed(InvalidMessage),
}

#[derive(Clone, Copy, Debug)]
enum ServingState {
    Reading,
    Responding,
    /// This polls the body. The record of the request ends before the last few bytes are written.
    Sending,
    /// The response is sent. An endpoint that has responded early may still read the request.
    Uploading {
        is_persistent: bool,
    },
    Closing,
}

/// What the response depends on.
#[derive(Debug)]
struct CurrentRequest {
    version: Version,
    is_head: bool,
    is_persistent: bool,
    accepts_trailers: bool,
    is_ambiguous: bool,
}

struct SentResponse {
    message: OutgoingMessage<ResponseBody>,
    is_persistent: bool,
    switches_protocols: bool,
}

impl Drop for SentResponse {
    fn drop(&mut self) {
        if !self.message.body_mut().is_recorded() {
            let (unsent, has_whole_body) = (self.message.unsent(), self.message.has_whole_body());
            self.message.body_mut().end_sending(unsent, has_whole_body);
        }
    }
}

impl<S, F> Http1ClientConnection<S, F>
where
    S: Fn(Request<ClientBody>) -> F,
    F: Future<Output = ServedRequest>,
{
    /// `received` has what was received already.
    pub(in crate::proxy) fn new(
        stream: ClientStream,
        received: BytesMut,
        exchange: &Rc<ClientExchange>,
        serve_request: S,
    ) -> Self {
        let limits = &exchange.worker().limits;
        let limits = HeadLimits { bytes: limits.max_request_head, fields: limits.max_request_fields };
        Http1ClientConnection {
            io: ClientIo::new(stream, received, limits, exchange.http.name_case),
            exchange: Rc::clone(exchange),
            serve_request,
            state: ServingState::Reading,
            request: Box::pin(None),
            response: Box::new(None),
            tunnel: None,
            current: CurrentRequest {
                version: Version::HTTP_11,
                is_head: false,
                is_persistent: true,
                accepts_trailers: false,
                is_ambiguous: false,
            },
            interim: BytesMut::new(),
            must_flush_interim: false,
            is_closing: false,
        }
    }

    /// The stream, with the bytes that were received but not read, and the tunnel that it becomes.
    pub(in crate::proxy) fn into_stream(mut self) -> Option<(ClientStream, Bytes, Option<Box<Tunnel>>)> {
        self.request.set(None);
        if self.response.as_ref().as_ref().is_some_and(|response| response.message.ends_with_connection()) {
            // The client would take what it has got of the response for all of it.
            self.exchange.activity.reset_on_close.set(true);
        }
        let (stream, unread) = self.io.take_stream()?;
        Some((stream, unread, self.tunnel))
    }

    /// Closes the connection after the current response, or at once if there is none.
    pub(in crate::proxy) fn start_shutdown(&mut self) {
        self.is_closing = true;
    }

    /// Serves requests until the connection ends.
    pub(in crate::proxy) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Http1End> {
        self.io.set_connection_task(cx.waker());
        self.poll_requests(cx)
    }

    /// Whether the connection waits for a request of which nothing has arrived, so it holds nothing.
    pub(in crate::proxy) fn is_between_requests(&self) -> bool {
        matches!(self.state, ServingState::Reading) && self.io.is_between_requests() && !self.is_closing
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Http1End> {
        for _ in 0..MAX_STEPS {
            match self.state {
                ServingState::Reading => match ready!(self.poll_request_head(cx)) {
                    Ok(Some(request)) => self.begin_request(request),
                    Ok(None) => self.state = ServingState::Closing,
                    Err(end) => return Poll::Ready(end),
                },
                ServingState::Responding => {
                    let Some(request) = self.request.as_mut().as_pin_mut() else {
                        return Poll::Ready(Http1End::Finished);
                    };
                    let Poll::Ready(served) = request.poll(cx) else { return self.poll_while_responding(cx) };
                    self.request.set(None);
                    self.begin_sending(served);
                }
                ServingState::Sending => {
                    let Some(response) = &mut *self.response else { return Poll::Ready(Http1End::Finished) };
                    let mut writer = ClientWriter(&self.io);
                    let sent = response.message.poll_send_observed(cx, &mut writer, ResponseBody::begin_last_writes);
                    let Poll::Ready(sent) = sent else {
                        return self.io.poll_left(cx).map(|ClientLeft| Http1End::Finished);
                    };
                    if sent.is_err() || response.switches_protocols {
                        return Poll::Ready(Http1End::Finished);
                    }
                    self.state = ServingState::Uploading { is_persistent: response.is_persistent };
                    *self.response = None;
                }
                ServingState::Uploading { .. } if self.io.has_body_reader() => return Poll::Pending,
                ServingState::Uploading { is_persistent } => self.end_request(is_persistent),
                ServingState::Closing => {
                    // Otherwise closing the socket says the same.
                    if self.exchange.tls.is_some() || self.exchange.activity.body_unread.get() {
                        // The connection ends in any case.
                        drop(ready!(Pin::new(&mut ClientWriter(&self.io)).poll_shutdown(cx)));
                    }
                    return Poll::Ready(Http1End::Finished);
                }
            }
        }
        // Other connections have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads the head of a request. None at the end of the connection.
    fn poll_request_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ReceivedRequest>, Http1End>> {
        loop {
            if self.exchange.activity.http2.get() {
                return Poll::Ready(Err(Http1End::Finished));
            }
            match self.io.read_head() {
                Ok(Some(request)) => return Poll::Ready(Ok(Some(request))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(Http1End::Malformed(error))),
            }
            if !self.io.is_drained() {
                self.exchange.activity.record_read();
            } else if self.is_closing {
                return Poll::Ready(Ok(None));
            }
            if let Ok(0) | Err(_) = ready!(self.io.poll_receive(cx)) {
                return Poll::Ready(Ok(None));
            }
        }
    }

    fn begin_request(&mut self, received: ReceivedRequest) {
        self.current = CurrentRequest {
            version: received.head.version(),
            is_head: received.head.method() == Method::HEAD,
            is_persistent: received.is_persistent,
            accepts_trailers: received.accepts_trailers,
            is_ambiguous: received.ambiguity.is_some(),
        };
        self.exchange.activity.is_between_requests.set(false);
        self.exchange.activity.may_have_trace.set(received.may_have_trace);
        self.exchange.activity.ambiguity.set(received.ambiguity.map(ambiguity_error));
        let body = self.io.begin_body();
        self.request.set(Some((self.serve_request)(received.head.map(|()| body))));
        self.state = ServingState::Responding;
    }

    /// The response is not ready.
    fn poll_while_responding(&mut self, cx: &mut Context<'_>) -> Poll<Http1End> {
        if self.io.take_continuation() {
            self.interim.put_slice(CONTINUE);
        }
        self.take_informational();
        if let Poll::Ready(Err(_)) = self.poll_interim(cx) {
            return Poll::Ready(Http1End::Finished);
        }
        self.io.poll_left(cx).map(|ClientLeft| Http1End::Finished)
    }

    /// HTTP/1.0 has no informational responses.
    fn take_informational(&mut self) {
        if let Some(informational) = self.exchange.take_informational()
            && self.current.version == Version::HTTP_11
        {
            self.interim.put_slice(&informational);
        }
    }

    /// Sends the informational responses.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut writer = ClientWriter(&self.io);
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut writer).poll_write(cx, &self.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.advance(written);
            self.must_flush_interim = true;
        }
        if self.must_flush_interim {
            ready!(Pin::new(&mut writer).poll_flush(cx))?;
            (self.interim, self.must_flush_interim) = (BytesMut::new(), false);
        }
        Poll::Ready(Ok(()))
    }

    fn begin_sending(&mut self, served: ServedRequest) {
        let (response, body, tunnel) = ResponseBody::attach(served);
        self.tunnel = tunnel;
        let mut head = take_buffer();
        // What was not sent yet precedes the response.
        self.take_informational();
        if !self.interim.is_empty() {
            head.put_slice(&std::mem::take(&mut self.interim));
        }
        self.must_flush_interim = false;
        let current = &self.current;
        let length = BodyLength::of(&body);
        let received = body.take_received_fields();
        let passed = received
            .as_ref()
            .zip(body.request_id())
            .map(|(received, request_id)| PassedFields { received, request_id });
        let (framing, is_persistent) = with_date(|date| {
            let context = ResponseContext {
                version: current.version,
                is_head: current.is_head,
                is_persistent: current.is_persistent && !self.is_closing,
                accepts_trailers: current.accepts_trailers,
                date,
                passed,
            };
            write_response_head(&response, length, context, &mut head)
        });
        let switches_protocols = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        recycle_map(response.into_parts().0.headers);
        let mut message = OutgoingMessage::new(head, framing, body);
        message.body_mut().end_if_empty();
        *self.response = Some(SentResponse { message, is_persistent, switches_protocols });
        self.state = ServingState::Sending;
    }

    /// The response is sent.
    fn end_request(&mut self, is_persistent: bool) {
        let has_ended = self.io.end_request();
        if !has_ended || self.current.is_ambiguous {
            // The client may still be sending.
            self.exchange.activity.mark_body_unread();
        }
        let may_continue = is_persistent && has_ended && !self.is_closing;
        self.exchange.activity.is_between_requests.set(may_continue);
        self.state = if may_continue { ServingState::Reading } else { ServingState::Closing };
    }
}

fn ambiguity_error(ambiguity: Ambiguity) -> RequestError {
    match ambiguity {
        Ambiguity::BareLineFeed => {
            RequestError::AmbiguousFraming("a line of the request does not end in carriage return and line feed")
        }
        Ambiguity::Fragment => RequestError::InvalidTarget("the target has a fragment"),
        Ambiguity::LengthAndCoding => {
            RequestError::AmbiguousFraming("the request has both Content-Length and Transfer-Encoding")
        }
        Ambiguity::InvalidLength => RequestError::AmbiguousFraming("Content-Length is not a number of bytes"),
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Steps before other connections have their turn: a client may send many small requests at once.
const MAX_STEPS: usize = 64;
