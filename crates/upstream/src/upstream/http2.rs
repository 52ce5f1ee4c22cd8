//! HTTP/2 connections to one endpoint, each shared by many concurrent requests.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::limits::{ConnectionAge, EndpointConnectionLimits};
use super::response_streams::{Http2End, ResponseStream};
use super::socket_budget::{SocketBudget, SocketPermit, UpstreamSockets};
use super::{ConnectError, EndpointConnector, PlaceWait, UpstreamCounters, UpstreamTarget};
use crate::endpoint_tls::UpstreamHandshakeError;
use crate::turn_clock;

/// The HTTP/2 connections to one endpoint, under one server name.
pub(super) struct Http2Connections<B> {
    connections: RefCell<Vec<Rc<Http2Connection<B>>>>,
    /// Serializes connecting, so that concurrent requests wait for one connection instead of opening one each.
    connecting: Mutex<()>,
    /// The number of failed attempts.
    failures: Cell<u64>,
    /// The error of the last failed attempt, which all requests that waited for it get.
    last_error: RefCell<Option<ConnectError>>,
    /// How long the requests that open connections have waited for sockets. Those behind them have waited for the same.
    socket_wait: PlaceWait,
    complaints: Rc<PingComplaints>,
    demand: Rc<StreamDemand>,
}

/// How often the endpoint has ended a connection on which Portico has sent pings with ENHANCE_YOUR_CALM. Each time
/// doubles the interval of pings on the next connections, as for clients of gRPC:
/// <https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md>.
///
/// Unlike there, a connection that has lasted for long without a complaint halves the interval again: what the endpoint
/// has complained about may have been resets of requests.
#[derive(Debug, Default)]
struct PingComplaints {
    doublings: Cell<u32>,
}

impl PingComplaints {
    fn interval(&self, configured: Duration) -> Duration {
        configured.saturating_mul(1 << self.doublings.get())
    }

    /// A connection has ended after this time. `was_pinged`: Portico has sent a ping on it.
    fn end_connection(&self, has_complaint: bool, was_pinged: bool, lifetime: Duration) {
        let doublings = self.doublings.get();
        if has_complaint {
            if was_pinged {
                self.doublings.set((doublings + 1).min(MAX_DOUBLINGS));
            }
        } else if lifetime >= LONG_LIFETIME {
            self.doublings.set(doublings.saturating_sub(1));
        }
    }
}

/// Requests that wait: for streams of the connections to one endpoint, and for sockets.
struct StreamDemand {
    /// Requests that wait for a stream, or for a socket. What comes later waits behind them.
    waiting: Cell<usize>,
    /// Notified when a stream has ended.
    freed: Notify,
    budget: Arc<SocketBudget>,
    sockets: Arc<UpstreamSockets>,
}

/// A request that waits, until this is dropped.
struct WaitingForStream<'d>(&'d StreamDemand);

impl<'d> WaitingForStream<'d> {
    fn new(demand: &'d StreamDemand) -> Self {
        demand.waiting.set(demand.waiting.get() + 1);
        WaitingForStream(demand)
    }
}

impl Drop for WaitingForStream<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

struct Http2Connection<B> {
    sender: SendRequest<B>,
    streams: Rc<StreamCount>,
    age: ConnectionAge,
    /// The number of marks of the upstream when a response was last received to its end, or when it was opened.
    marks: Cell<u32>,
}

struct StreamCount {
    active: Cell<usize>,
    /// The endpoint's stream limit, capped by the configured maximum.
    limit: Cell<usize>,
    /// When the last request ended.
    idle_since: Cell<Instant>,
    end: Rc<Http2End>,
    /// How many requests were given up before their response was complete, which resets their streams.
    resets: Cell<u32>,
    /// Whether a request has reported that the connection ended without a response.
    has_reported_failure: Cell<bool>,
    demand: Rc<StreamDemand>,
}

impl StreamCount {
    /// Since when the connection is idle; None if it is in use.
    fn idle_since(&self) -> Option<Instant> {
        (self.active.get() == 0).then(|| self.idle_since.get())
    }

    /// A request was given up. After many, the next ones use another connection, so that the endpoint does not end this
    /// one with those of other clients.
    fn count_reset(&self) {
        self.resets.set(self.resets.get() + 1);
        if self.resets.get() >= MAX_RESETS {
            self.end.is_retired.set(true);
        }
    }
}

/// One stream of a connection, released when dropped.
pub(super) struct StreamPermit<B> {
    connection: Rc<Http2Connection<B>>,
    /// The response was received to its end.
    is_complete: bool,
}

impl<B> Http2Connections<B> {
    /// `sockets` are those of the upstream.
    pub(super) fn new(budget: Arc<SocketBudget>, sockets: Arc<UpstreamSockets>) -> Self {
        let demand = StreamDemand { waiting: Cell::new(0), freed: Notify::new(), budget, sockets };
        Http2Connections {
            connections: RefCell::default(),
            connecting: Mutex::default(),
            failures: Cell::new(0),
            last_error: RefCell::default(),
            socket_wait: PlaceWait::default(),
            complaints: Rc::default(),
            demand: Rc::new(demand),
        }
    }

    /// A stream as [`Self::acquire`] finds it, unless other requests wait for one.
    pub(super) fn acquire_at_once(
        &self,
        limits: &EndpointConnectionLimits,
        is_marked: impl Fn(u32) -> bool,
    ) -> Option<StreamPermit<B>> {
        if self.demand.waiting.get() > 0 {
            return None;
        }
        self.acquire(limits, is_marked)
    }

    /// Closes idle connections whose sockets are needed.
    pub(super) fn close_retired(&self) {
        self.connections.borrow_mut().retain(|connection| {
            let streams = &connection.streams;
            streams.active.get() > 0 || !streams.end.is_retired.get()
        });
    }

    /// A stream on the first connection with capacity, so that surplus connections become idle. `is_marked`: whether a
    /// connection to the endpoint has looked dead since this number of marks.
    pub(super) fn acquire(
        &self,
        limits: &EndpointConnectionLimits,
        is_marked: impl Fn(u32) -> bool,
    ) -> Option<StreamPermit<B>> {
        let mut connections = self.connections.borrow_mut();
        // One that is dropped here ends with GOAWAY after its last request.
        connections.retain(|connection| connection.takes_requests(limits, &is_marked));
        let connection =
            connections.iter().find(|connection| connection.streams.active.get() < connection.streams.limit.get())?;
        Some(StreamPermit::new(Rc::clone(connection)))
    }

    /// Drops connections that are closed or were idle for too long, or all if the endpoint was removed. Requests in
    /// flight finish.
    pub(super) fn sweep(
        &self,
        is_reachable: bool,
        idle_timeout: Duration,
        limits: &EndpointConnectionLimits,
        is_marked: impl Fn(u32) -> bool,
    ) {
        self.connections.borrow_mut().retain(|connection| {
            let is_in_use = connection.streams.active.get() > 0;
            is_reachable
                && connection.takes_requests(limits, &is_marked)
                && (is_in_use || connection.streams.idle_since.get().elapsed() < idle_timeout)
        });
    }

    /// Since when all connections are idle; None if one is in use or being opened, or if there is none.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let connections = self.connections.borrow();
        let is_busy = self.connecting.try_lock().is_err()
            || connections.iter().any(|connection| connection.streams.active.get() > 0);
        if is_busy { None } else { connections.iter().map(|connection| connection.streams.idle_since.get()).max() }
    }

    /// Since when the connection is idle that is idle for the longest time.
    pub(super) fn oldest_idle(&self) -> Option<Instant> {
        let connections = self.connections.borrow();
        connections.iter().filter_map(|connection| connection.streams.idle_since()).min()
    }

    /// Closes the connection that is idle for the longest time, if one is idle.
    pub(super) fn close_oldest_idle(&self) {
        let Some(oldest) = self.oldest_idle() else { return };
        let mut connections = self.connections.borrow_mut();
        if let Some(index) = connections.iter().position(|connection| connection.streams.idle_since() == Some(oldest)) {
            connections.remove(index);
        }
    }

    /// How many requests the open connections can have in progress.
    pub(super) fn capacity(&self) -> usize {
        let connections = self.connections.borrow();
        let usable = connections.iter().filter(|connection| !connection.streams.end.is_retired.get());
        usable.map(|connection| connection.streams.limit.get()).sum()
    }

    /// Whether there is no connection, and none is being opened.
    pub(super) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty() && self.connecting.try_lock().is_ok()
    }
}

impl<B> Http2Connections<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A stream on a new connection, or on one that another request has opened meanwhile.
    pub(super) async fn connect(
        &self,
        connector: &EndpointConnector,
        target: &UpstreamTarget<'_>,
        address: SocketAddr,
        socket_deadline: Instant,
        counters: &Arc<UpstreamCounters>,
    ) -> Result<StreamPermit<B>, ConnectError> {
        let failures_before = self.failures.get();
        // The wait for a socket says nothing about the endpoint. That for the connection does, so it counts.
        let _guard = target.place_wait.during_wait_of(&self.socket_wait, self.connecting.lock()).await;
        let upstream = target.upstream;
        let acquire = || self.acquire(&upstream.connection_limits, |marks| upstream.is_marked(address, marks));
        if let Some(permit) = acquire() {
            return Ok(permit);
        }
        if self.failures.get() != failures_before
            && let Some(error) = &*self.last_error.borrow()
        {
            return Err(error.clone());
        }
        let permitted = {
            let permit = connector.permit_socket(target, address, socket_deadline, counters);
            let mut permit = pin!(self.socket_wait.during(permit));
            let _waiting = WaitingForStream::new(&self.demand);
            // A stream may end while no connection may be opened.
            loop {
                let freed = self.demand.freed.notified();
                tokio::select! {
                    biased;
                    permit = permit.as_mut() => break permit,
                    () = freed => if let Some(permit) = acquire() {
                        return Ok(permit);
                    },
                }
            }
        };
        let opened = match permitted {
            Ok(permit) => {
                let (demand, complaints) = (&self.demand, &self.complaints);
                open(connector, target, address, permit, demand, counters, complaints).await
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok(connection) => {
                let connection = Rc::new(connection);
                self.connections.borrow_mut().push(Rc::clone(&connection));
                Ok(StreamPermit::new(connection))
            }
            Err(error) => {
                self.failures.set(failures_before + 1);
                self.last_error.replace(Some(error.clone()));
                Err(error)
            }
        }
    }
}

/// Opens a connection and waits for the endpoint's SETTINGS.
async fn open<B>(
    connector: &EndpointConnector,
    target: &UpstreamTarget<'_>,
    address: SocketAddr,
    permit: SocketPermit,
    demand: &Rc<StreamDemand>,
    counters: &Arc<UpstreamCounters>,
    complaints: &Rc<PingComplaints>,
) -> Result<Http2Connection<B>, ConnectError>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = connector.open_socket(target, address, &[], permit, counters).await?;
    let monitor = stream.monitor().clone();
    let tasks = WakingExecutor::default();
    let mut builder = Builder::new(tasks.clone());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(connector.max_streams))
        // No stream is opened before the endpoint's SETTINGS are known, so that no request waits beyond its stream
        // limit.
        .initial_max_send_streams(0)
        .max_header_list_size(u32::try_from(connector.max_head).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(complaints.interval(connector.ping_interval))
        .keep_alive_timeout(connector.ping_timeout);
    let end = Rc::<Http2End>::default();
    let stream = TokioIo::new(ResponseStream::new(stream, Rc::clone(&end)));
    let (sender, mut connection) = builder.handshake(stream).await.map_err(|error| {
        counters.failed.add(1);
        ConnectError::after_connect(target, address, error)
    })?;
    counters.connected.add(1);
    let streams = Rc::new(StreamCount {
        active: Cell::new(0),
        limit: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        end,
        resets: Cell::new(0),
        has_reported_failure: Cell::new(false),
        demand: Rc::clone(demand),
    });
    let marks = Cell::new(target.upstream.detection.marks());
    let opened = Http2Connection { sender, streams: Rc::clone(&streams), age: ConnectionAge::new(), marks };
    let (counters, max_streams) = (Arc::clone(counters), connector.max_streams);
    let (complaints, opened_at) = (Rc::clone(complaints), Instant::now());
    let (settings_sender, settings_received) = oneshot::channel();
    let mut settings_sender = Some(settings_sender);
    // The task ends when the sender is dropped or the endpoint closes the connection. Errors are ignored here: the
    // caller awaiting a response or reading its body gets them.
    tokio::task::spawn_local(async move {
        let ended = poll_fn(|cx| {
            let state = Pin::new(&mut connection).poll(cx);
            streams.limit.set(connection.current_max_send_streams().min(max_streams));
            if streams.limit.get() > 0
                && let Some(sender) = settings_sender.take()
            {
                // The receiver may have timed out.
                sender.send(()).ok();
            } else if settings_sender.is_some() {
                tasks.0.replace(Some(cx.waker().clone()));
            }
            state
        });
        let has_complaint = ended.await.is_err_and(|error| is_complaint(&error));
        complaints.end_connection(has_complaint, streams.end.was_pinged.get(), opened_at.elapsed());
        drop(settings_sender);
        counters.closed.add(1);
    });
    match timeout(connector.timeout, settings_received).await {
        Ok(Ok(())) => Ok(opened),
        Ok(Err(_)) if monitor.was_rejected() => {
            Err(ConnectError::TlsHandshake(address, UpstreamHandshakeError::RejectedAfterHandshake))
        }
        Ok(Err(_)) => Err(ConnectError::NotHttp2(address)),
        Err(_) if target.upstream.tls_client.is_some() => {
            Err(ConnectError::TlsHandshake(address, UpstreamHandshakeError::TimedOut(connector.timeout)))
        }
        // The endpoint accepted the connection, so it is there. A server of HTTP/1 may wait for the rest of a request.
        Err(_) => Err(ConnectError::NotHttp2(address)),
    }
}

/// Whether the endpoint has ended the connection because it wants fewer frames that it does not need, such as pings.
fn is_complaint(error: &hyper::Error) -> bool {
    let error = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(|error| error.is_remote() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// The connection window: 32 times the windows of all streams together. A client that reads slowly must not block
/// others, so it must not be smaller than these windows.
///
/// The factor is needed because the library charges every queued frame with the difference between its size and 256
/// bytes, and closes the connection with all its requests when the sum exceeds half of the connection window. A stream
/// window full of 16-byte messages is charged 15 times its size. Memory is still bounded by the stream windows.
fn connection_window(streams: usize) -> u32 {
    let stream_windows = u32::try_from(streams).unwrap_or(u32::MAX).saturating_mul(STREAM_WINDOW);
    stream_windows.saturating_mul(2 * 16).min(MAX_WINDOW)
}

impl<B> Http2Connection<B> {
    /// Whether the connection gets further requests.
    fn takes_requests(&self, limits: &EndpointConnectionLimits, is_marked: impl Fn(u32) -> bool) -> bool {
        !self.sender.is_closed()
            && !self.streams.end.is_retired.get()
            && !limits.are_reached(&self.age)
            && !is_marked(self.marks.get())
    }
}

impl<B> StreamPermit<B> {
    fn new(connection: Rc<Http2Connection<B>>) -> Self {
        connection.age.count_request();
        connection.streams.active.set(connection.streams.active.get() + 1);
        StreamPermit { connection, is_complete: false }
    }

    /// Excludes the connection from further requests.
    pub(super) fn retire_connection(&self) {
        self.connection.streams.end.is_retired.set(true);
    }

    /// Whether the endpoint ends the connection because of too many frames, which other requests have caused as well.
    pub(super) fn has_complaint(&self) -> bool {
        self.connection.streams.end.is_complaint.get()
    }

    /// Whether this request is the first one to report that the connection ended without a response.
    pub(super) fn claim_failure(&self) -> bool {
        !self.connection.streams.has_reported_failure.replace(true)
    }

    /// The connection works: a response was received to its end after this number of marks.
    pub(super) fn confirm_connection(mut self, marks: u32) {
        self.connection.marks.set(marks);
        self.is_complete = true;
    }

    pub(super) fn sender(&self) -> SendRequest<B> {
        self.connection.sender.clone()
    }
}

impl<B> Drop for StreamPermit<B> {
    fn drop(&mut self) {
        let streams = &self.connection.streams;
        if !self.is_complete {
            streams.count_reset();
        }
        streams.active.set(streams.active.get() - 1);
        streams.idle_since.set(turn_clock::now());
        let demand = &streams.demand;
        if demand.waiting.get() > 0 {
            demand.freed.notify_one();
        } else if streams.active.get() == 0 && (demand.sockets.wanted().take() || demand.budget.wanted().take()) {
            // The worker closes it: nothing that comes meanwhile may use it.
            streams.end.is_retired.set(true);
            demand.budget.shed();
        }
    }
}

/// Executor for hyper's tasks, which run the socket and send request bodies. They end with the connection or the
/// request.
///
/// One of these tasks reads the endpoint's SETTINGS without notifying the connection's task, so that task is woken
/// after each poll.
#[derive(Clone, Default)]
struct WakingExecutor(Rc<RefCell<Option<Waker>>>);

impl<F: Future<Output = ()> + 'static> Executor<F> for WakingExecutor {
    fn execute(&self, future: F) {
        let connection_task = Rc::clone(&self.0);
        // Boxed, because the runtime moves the future of a task several times, and that of a request is as large as
        // that of a connection, which is another variant of the same type.
        let mut future = Box::pin(future);
        tokio::task::spawn_local(poll_fn(move |cx| {
            let state = future.as_mut().poll(cx);
            if let Some(waker) = connection_task.take() {
                waker.wake();
            }
            state
        }));
    }
}

/// So that the interval of pings is at most 32 times as long as at first.
const MAX_DOUBLINGS: u32 = 5;
/// After this time without a complaint, the endpoint may permit more pings than at the last one.
const LONG_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Flow-control window of a stream: how much an endpoint may send ahead of the client's reading.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Requests of a connection that may be given up before others use another one. Servers end a connection after 200
/// resets in 30 s (Netty), 128 frames of this kind in a second (Jetty), or 1000 requests that wait for the handlers of
/// others that were reset (Go).
const MAX_RESETS: u32 = 100;
/// The largest window that HTTP/2 allows (RFC 9113, section 6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// How much of a request body may be buffered before it is sent.
const SEND_BUFFER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Complaints about resets slowed the pings of an endpoint for as long as it had requests.
    #[test]
    fn pings_become_rare_only_because_of_pings_and_not_for_ever() {
        const SECOND: Duration = Duration::from_secs(1);
        let complaints = PingComplaints::default();
        let ended = |has_complaint, was_pinged, lifetime| {
            complaints.end_connection(has_complaint, was_pinged, lifetime);
            complaints.interval(SECOND).as_secs()
        };
        assert_eq!(ended(true, false, SECOND), 1, "no ping has caused it");
        assert_eq!([(); 7].map(|()| ended(true, true, SECOND)), [2, 4, 8, 16, 32, 32, 32]);
        assert_eq!(ended(true, false, LONG_LIFETIME), 32);
        assert_eq!(ended(false, true, LONG_LIFETIME - SECOND), 32);
        assert_eq!([(); 6].map(|()| ended(false, true, LONG_LIFETIME)), [16, 8, 4, 2, 1, 1]);
    }
}
