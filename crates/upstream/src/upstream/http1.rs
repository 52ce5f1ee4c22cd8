//! An HTTP/1 connection to an endpoint, driven by the task of its request. While it is idle, it has no buffer and no
//! task. A connection of FastCGI differs in what is written and read, and has one request.
//!
//! ```text
//!   begin ─▶ OutgoingMessage ─▶ socket       poll_response sends the request, too; if the response begins before all
//!                                            of it is sent, a task sends the rest
//!   poll_response ◀─ head reader ◀── buffer ◀─ socket
//!   poll_frame ◀───── BodyDecoder ◀──────┘
//! ```

use std::cell::RefCell;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::{spawn_local, unconstrained};
use tokio::time::{Sleep, sleep, timeout};

use super::connect::{ConnectError, EndpointConnector};
use super::counted_connection::CountedConnection;
use super::endpoint_error::EndpointError;
use super::head_reader::EndpointHeadReader;
use super::limits::{ConnectionAge, EndpointConnectionLimits};
use super::socket::{ResponseMonitor, UpstreamSocket};
use super::socket_budget::SocketPermit;
use super::upgraded::UpgradedConnection;
use super::{Upstream, UpstreamCounters, UpstreamTarget};
use crate::endpoint_tls::UpstreamProtocol;
use crate::http1::{
    AddedFields, BodyDecoder, BodyLength, HeadLimits, InvalidMessage, NameCase, NextInput, OutgoingMessage,
    ReceivedFields, SendFailure, poll_receive, recycle_map, take_buffer, write_fast_cgi_head, write_request_head,
};
use crate::rewound::Rewound;

/// The connection belongs to its request, or to a pool. Dropping it while its request is being sent gives that up.
pub(super) struct Http1EndpointConnection<B> {
    monitor: ResponseMonitor,
    exchange: Rc<RefCell<EndpointExchange<B>>>,
}

/// A request with its response.
struct EndpointExchange<B> {
    socket: UpstreamSocket,
    counted: CountedConnection,
    age: ConnectionAge,
    limits: HeadLimits,
    name_case: NameCase,
    /// The upstream of a connection of FastCGI, for the log of what its servers say in STDERR.
    fast_cgi: Option<Arc<Upstream>>,
    /// Bytes that were received, but not decoded.
    buffer: BytesMut,
    /// The request, until all of it is sent.
    outgoing: Option<OutgoingMessage<B>>,
    /// Reads the head of the response. None when it was read, and while there is no request.
    reader: Option<EndpointHeadReader>,
    /// The fields of the response, if they are not in its head, until they are taken.
    received_fields: Option<ReceivedFields>,
    body: BodyDecoder,
    /// Another request may follow.
    is_persistent: bool,
    /// How long the endpoint keeps the connection without a request, as its last response says.
    keep_alive: Option<Duration>,
    /// Until when a response is awaited, after the endpoint reads no more. It may have sent one before, of which the
    /// operating system has not notified this process yet.
    failed_send: Option<Pin<Box<Sleep>>>,
    /// The last response had no body, whatever it announced. Some endpoints send one nevertheless.
    may_be_followed_by_body: bool,
    /// The body of the request has failed, so the endpoint must not take what it has received for a complete request.
    request_failure: Option<SendFailure>,
    /// Waits for progress of the task that sends the rest of the request.
    observer: Option<Waker>,
    /// Ends the task that sends the rest of the request.
    sender: WakeOnDrop,
}

/// Wakes a task when it is dropped.
#[derive(Default)]
struct WakeOnDrop(Option<Waker>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

impl<B> Http1EndpointConnection<B> {
    /// Connects to the endpoint.
    pub(super) async fn connect(
        connector: &EndpointConnector,
        target: &UpstreamTarget<'_>,
        address: SocketAddr,
        permit: SocketPermit,
        counters: &Arc<UpstreamCounters>,
    ) -> Result<Self, ConnectError> {
        let socket = connector.open_socket(target, address, &[], permit, counters).await?;
        let fast_cgi = target.upstream.key.protocol == UpstreamProtocol::FastCgi;
        Ok(Http1EndpointConnection {
            monitor: socket.monitor().clone(),
            exchange: Rc::new(RefCell::new(EndpointExchange {
                socket,
                counted: CountedConnection::new(counters),
                age: ConnectionAge::new(),
                limits: HeadLimits { bytes: connector.max_head, fields: connector.max_fields },
                name_case: connector.name_case,
                fast_cgi: fast_cgi.then(|| Arc::clone(target.upstream)),
                buffer: BytesMut::new(),
                outgoing: None,
                reader: None,
                received_fields: None,
                body: BodyDecoder::EMPTY,
                is_persistent: true,
                keep_alive: None,
                failed_send: None,
                may_be_followed_by_body: false,
                request_failure: None,
                observer: None,
                sender: WakeOnDrop::default(),
            })),
        })
    }

    pub(super) fn monitor(&self) -> &ResponseMonitor {
        &self.monitor
    }

    /// Whether the connection gets no further request, because of its age or the number of requests.
    pub(super) fn has_reached(&self, limits: &EndpointConnectionLimits) -> bool {
        limits.are_reached(&self.exchange.borrow().age)
    }

    /// How long the endpoint keeps the connection without a request, as far as it has said so.
    pub(super) fn keep_alive(&self) -> Option<Duration> {
        self.exchange.borrow().keep_alive
    }

    /// Whether all of the response was received, and another request may follow once this one is sent.
    pub(super) fn is_reusable(&self) -> bool {
        let exchange = self.exchange.borrow();
        exchange.is_persistent && exchange.reader.is_none() && exchange.body.is_ended() && exchange.buffer.is_empty()
    }

    /// Whether no more of the request is to be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.exchange.borrow().outgoing.is_none()
    }

    /// Whether the endpoint has sent nothing since its last response: neither data nor the end of the connection.
    pub(super) fn is_silent(&self) -> bool {
        let exchange = &mut *self.exchange.borrow_mut();
        let mut byte = [0];
        let read = poll_fn(|cx| Pin::new(&mut exchange.socket).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        // Takes no system call unless the socket was reported as readable. Unconstrained, because a task that has used
        // up its share of reads would find nothing to read.
        let is_silent = pin!(unconstrained(read)).poll(&mut Context::from_waker(Waker::noop())).is_pending();
        // The socket may have received bytes since this thread last asked for events. Bytes of a body that the last
        // response must not have would be read as the next response.
        is_silent && !(exchange.may_be_followed_by_body && exchange.socket.has_received())
    }

    /// Releases what only a request needs.
    pub(super) fn become_idle(&self) {
        self.monitor.finish_request();
        let exchange = &mut *self.exchange.borrow_mut();
        exchange.buffer = BytesMut::new();
        exchange.received_fields = None;
    }

    /// Whether the fields of the response are not in its head, and were not taken.
    pub(super) fn has_received_fields(&self) -> bool {
        self.exchange.borrow().received_fields.is_some()
    }

    pub(super) fn take_received_fields(&self) -> Option<ReceivedFields> {
        self.exchange.borrow_mut().received_fields.take()
    }

    pub(super) fn body_is_ended(&self) -> bool {
        self.exchange.borrow().body.is_ended()
    }

    pub(super) fn body_size_hint(&self) -> SizeHint {
        self.exchange.borrow().body.size_hint()
    }

    /// The connection after a response that switches protocols.
    pub(super) fn into_upgraded(self) -> Option<UpgradedConnection> {
        self.monitor.finish_request();
        let exchange = Rc::into_inner(self.exchange)?.into_inner();
        let stream = Rewound::new(exchange.buffer.freeze(), exchange.socket);
        Some(UpgradedConnection::new(stream, exchange.counted))
    }

    /// Waits until the request was sent to its end, after the whole response. Returns whether another request may
    /// follow.
    pub(super) async fn finish_sending(&self) -> bool {
        while !self.is_sent() {
            let mut is_registered = false;
            let progress = poll_fn(|cx| {
                if std::mem::replace(&mut is_registered, true) {
                    return Poll::Ready(());
                }
                self.exchange.borrow_mut().observer = Some(cx.waker().clone());
                Poll::Pending
            });
            if timeout(MAX_SEND_STALL, progress).await.is_err() {
                return false;
            }
        }
        self.is_reusable()
    }
}

impl<B> Http1EndpointConnection<B>
where
    B: Body + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Begins a request, which is sent while its response is awaited. Its head is written where it is. What is left
    /// there is the same request with `kept_body`, if there is one, and nothing otherwise. `passes_fields`: the fields
    /// of the response may stay lines, and be taken with [`Self::take_received_fields`].
    pub(super) fn begin(
        &self,
        request: &mut Option<Request<B>>,
        kept_body: Option<B>,
        added: AddedFields<'_>,
        passes_fields: bool,
    ) {
        let sent = request.as_mut().expect("there is a request to send");
        self.monitor.start_request();
        let exchange = &mut *self.exchange.borrow_mut();
        exchange.age.count_request();
        exchange.received_fields = None;
        let (limits, length, mut head) = (exchange.limits, BodyLength::of(sent.body()), take_buffer());
        let (reader, framing, is_persistent) = if exchange.fast_cgi.is_some() {
            let reader = EndpointHeadReader::fast_cgi(limits, sent.method());
            (reader, write_fast_cgi_head(sent, length, &mut head), false)
        } else {
            let (framing, is_persistent) = write_request_head(sent, length, added, &mut head);
            let reader = EndpointHeadReader::http1(limits, sent.method(), exchange.name_case, passes_fields);
            (reader, framing, is_persistent)
        };
        exchange.reader = Some(reader);
        exchange.is_persistent &= is_persistent;
        let body = match kept_body {
            Some(kept) => Some(std::mem::replace(sent.body_mut(), kept)),
            None => {
                recycle_map(std::mem::take(sent.headers_mut()));
                request.take().map(Request::into_body)
            }
        };
        exchange.outgoing = body.map(|body| OutgoingMessage::new(head, framing, body));
    }

    /// Sends the request, and receives the head of its response. Calls `on_informational` with informational responses.
    pub(super) fn poll_response(
        &self,
        cx: &mut Context<'_>,
        on_informational: &mut impl FnMut(Response<()>),
    ) -> Poll<Result<Response<()>, EndpointError>> {
        let exchange = &mut *self.exchange.borrow_mut();
        if exchange.poll_send(cx).is_ready()
            && let Some(failure) = exchange.request_failure.take()
        {
            return Poll::Ready(Err(EndpointError::RequestBody(failure)));
        }
        let response = ready!(exchange.poll_response_head(cx, on_informational))?;
        if exchange.outgoing.is_some() {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(EndpointError::Invalid(InvalidMessage::EarlyUpgrade)));
            }
            // The response may wait for its client, which may wait until its request is read.
            spawn_local(send_rest(Rc::downgrade(&self.exchange)));
        }
        Poll::Ready(Ok(response))
    }

    /// Receives the next frame of the response. None at its end.
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EndpointError>>> {
        let exchange = &mut *self.exchange.borrow_mut();
        if let Some(failure) = exchange.request_failure.take() {
            return Poll::Ready(Some(Err(EndpointError::RequestBody(failure))));
        }
        let frame = exchange.poll_frame(cx);
        if frame.is_pending() && exchange.outgoing.is_some() {
            exchange.observer = Some(cx.waker().clone());
        }
        if let Poll::Ready(Some(Err(_))) = &frame {
            exchange.is_persistent = false;
        }
        frame
    }
}

/// Sends the rest of a request whose response has begun, unless its connection is dropped.
async fn send_rest<B>(exchange: Weak<RefCell<EndpointExchange<B>>>)
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    poll_fn(|cx| {
        let Some(exchange) = exchange.upgrade() else { return Poll::Ready(()) };
        let exchange = &mut *exchange.borrow_mut();
        let sent = exchange.poll_send(cx);
        if sent.is_pending() && exchange.sender.0.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            exchange.sender.0 = Some(cx.waker().clone());
        }
        if let Some(observer) = exchange.observer.take() {
            observer.wake();
        }
        sent
    })
    .await;
}

impl<B> EndpointExchange<B> {
    fn poll_response_head(
        &mut self,
        cx: &mut Context<'_>,
        on_informational: &mut impl FnMut(Response<()>),
    ) -> Poll<Result<Response<()>, EndpointError>> {
        let Some(reader) = &mut self.reader else { return Poll::Ready(Err(EndpointError::Closed)) };
        for _ in 0..MAX_READS {
            // Nothing of the response has arrived when its request has just been sent.
            if !self.buffer.is_empty() {
                let read = reader.read(&mut self.buffer);
                log_stderr(self.fast_cgi.as_ref(), reader.take_stderr());
                let read = read.map_err(EndpointError::Invalid)?;
                reader.take_informational().into_iter().for_each(&mut *on_informational);
                if let Some(response) = read {
                    self.reader = None;
                    self.received_fields = response.fields;
                    self.body = response.body;
                    self.is_persistent &= response.is_persistent;
                    self.keep_alive = response.keep_alive;
                    self.may_be_followed_by_body = response.may_be_followed_by_body;
                    return Poll::Ready(Ok(response.head));
                }
            }
            match poll_receive(&mut self.socket, cx, &mut self.buffer, NextInput::Unknown) {
                Poll::Pending => {
                    let Some(end) = &mut self.failed_send else { return Poll::Pending };
                    ready!(end.as_mut().poll(cx));
                    return Poll::Ready(Err(EndpointError::Closed));
                }
                Poll::Ready(Ok(1..)) => {}
                // A reset that sending has noticed looks like an end to reading.
                Poll::Ready(Ok(0)) if self.failed_send.is_some() => return Poll::Ready(Err(EndpointError::Reset)),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Poll::Ready(Err(EndpointError::Reset));
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(EndpointError::Closed)),
            }
        }
        // Others have their turn: an endpoint may send informational responses without end.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EndpointError>>> {
        if self.body.take_must_yield() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            let frame = self.body.decode(&mut self.buffer);
            log_stderr(self.fast_cgi.as_ref(), self.body.take_stderr());
            if let Poll::Ready(frame) = frame {
                return Poll::Ready(frame.map(|frame| frame.map_err(EndpointError::Invalid)));
            }
            let expected = self.body.next_input();
            let ended = match ready!(poll_receive(&mut self.socket, cx, &mut self.buffer, expected)) {
                Ok(1..) => continue,
                Ok(0) => self.body.end_input(),
                // Even a body that ends with the connection is incomplete.
                Err(_) => Err(InvalidMessage::Truncated),
            };
            self.is_persistent = false;
            return Poll::Ready(ended.err().map(|error| Err(EndpointError::Invalid(error))));
        }
    }
}

impl<B> EndpointExchange<B>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Sends what is available of the request. Ready when there is no more to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(outgoing) = &mut self.outgoing else { return Poll::Ready(()) };
        let sent = ready!(outgoing.poll_send(cx, &mut self.socket));
        self.outgoing = None;
        self.is_persistent &= sent.is_ok();
        match sent {
            Ok(()) => {}
            // The endpoint may have responded before.
            Err(SendFailure::Stream(_)) => self.failed_send = Some(Box::pin(sleep(MAX_READ_AFTER_FAILED_SEND))),
            Err(failure) => self.request_failure = Some(failure),
        }
        Poll::Ready(())
    }
}

/// Logs what a FastCGI server says of a request: once a minute as a warning, because each request may cause it.
fn log_stderr(upstream: Option<&Arc<Upstream>>, stderr: Option<Vec<u8>>) {
    let (Some(upstream), Some(stderr)) = (upstream, stderr) else { return };
    // Its lines must not look like those of Portico.
    let text = stderr.escape_ascii();
    match upstream.should_warn() {
        true => tracing::warn!(upstream = %upstream.key, "A FastCGI server reports: {text}"),
        false => tracing::debug!(upstream = %upstream.key, "A FastCGI server reports: {text}"),
    }
}

/// Reads before others have their turn.
const MAX_READS: usize = 8;
/// How long the endpoint may read nothing of the rest of a request after its whole response.
const MAX_SEND_STALL: Duration = Duration::from_secs(30);
/// How long a response is awaited after the endpoint has closed or reset the connection. Its end is noticed as soon as
/// everything before it is read, so this only limits what should not happen.
const MAX_READ_AFTER_FAILED_SEND: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
