//! Connections of HTTP/2 to one endpoint: each carries many requests at a time, so they are shared and not taken.

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
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, timeout};

use super::tls::HandshakeFailure;
use super::{Aim, ConnectFailure, Dial, Traffic};

/// The connections to one endpoint.
pub(super) struct Lines<B> {
    lines: RefCell<Vec<Rc<Line<B>>>>,
    /// Requests that come together wait for one connection instead of opening one each.
    dialing: Mutex<()>,
    /// How many attempts have failed, and how the last did: whoever waited for it shares its fate.
    failures: Cell<u64>,
    failure: RefCell<Option<ConnectFailure>>,
}

struct Line<B> {
    sender: SendRequest<B>,
    load: Rc<Load>,
}

struct Load {
    requests: Cell<usize>,
    /// What the endpoint takes, within what we want.
    limit: Cell<usize>,
    /// When the last request ended.
    since: Cell<Instant>,
}

/// A place for one request on a connection, until it is dropped.
pub(super) struct Lease<B> {
    line: Rc<Line<B>>,
}

impl<B> Default for Lines<B> {
    fn default() -> Self {
        Lines {
            lines: RefCell::default(),
            dialing: Mutex::default(),
            failures: Cell::new(0),
            failure: RefCell::default(),
        }
    }
}

impl<B> Lines<B> {
    /// A place on the first connection that has one, so that what is not needed falls idle.
    pub(super) fn lease(&self) -> Option<Lease<B>> {
        let mut lines = self.lines.borrow_mut();
        lines.retain(|line| !line.sender.is_closed());
        let line = lines.iter().find(|line| line.load.requests.get() < line.load.limit.get())?;
        Some(Lease::new(Rc::clone(line)))
    }

    /// Drops what is closed or was idle for too long, or all if the endpoint is gone. Requests in flight finish.
    pub(super) fn sweep(&self, current: bool, idle: Duration) {
        self.lines.borrow_mut().retain(|line| {
            let busy = line.load.requests.get() > 0;
            current && !line.sender.is_closed() && (busy || line.load.since.get().elapsed() < idle)
        });
    }

    /// Since when nobody has used any of them. None if somebody does, or connects.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let lines = self.lines.borrow();
        let is_busy = self.dialing.try_lock().is_err() || lines.iter().any(|line| line.load.requests.get() > 0);
        if is_busy { None } else { lines.iter().map(|line| line.load.since.get()).max() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.borrow().is_empty() && self.dialing.try_lock().is_ok()
    }
}

impl<B> Lines<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A place on a new connection, or on one that somebody else has opened meanwhile.
    pub(super) async fn connect(
        &self,
        dial: &Dial,
        aim: &Aim<'_>,
        address: SocketAddr,
        traffic: &Arc<Traffic>,
    ) -> Result<Lease<B>, ConnectFailure> {
        let failures = self.failures.get();
        let _turn = self.dialing.lock().await;
        if let Some(lease) = self.lease() {
            return Ok(lease);
        }
        if self.failures.get() != failures
            && let Some(failure) = &*self.failure.borrow()
        {
            return Err(failure.clone());
        }
        match open(dial, aim, address, traffic).await {
            Ok(line) => {
                let line = Rc::new(line);
                self.lines.borrow_mut().push(Rc::clone(&line));
                Ok(Lease::new(line))
            }
            Err(error) => {
                self.failures.set(failures + 1);
                self.failure.replace(Some(error.clone()));
                Err(error)
            }
        }
    }
}

async fn open<B>(
    dial: &Dial,
    aim: &Aim<'_>,
    address: SocketAddr,
    traffic: &Arc<Traffic>,
) -> Result<Line<B>, ConnectFailure>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = dial.open(aim, address, traffic).await?;
    let heard = stream.heard();
    let tasks = Tasks::default();
    let mut http = Builder::new(tasks.clone());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(dial.streams))
        // Nothing is sent before the endpoint has said how much it takes, so that nothing waits behind what it does not.
        .initial_max_send_streams(0)
        .max_header_list_size(u32::try_from(dial.max_head).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(dial.ping_interval)
        .keep_alive_timeout(dial.ping_timeout);
    let (sender, mut connection) = http.handshake(TokioIo::new(stream)).await.map_err(|error| {
        traffic.failed.add(1);
        ConnectFailure::once_connected(aim, address, error)
    })?;
    traffic.connected.add(1);
    let load = Rc::new(Load { requests: Cell::new(0), limit: Cell::new(0), since: Cell::new(Instant::now()) });
    let line = Line { sender, load: Rc::clone(&load) };
    let (traffic, most) = (Arc::clone(traffic), dial.streams);
    let (known, settings) = oneshot::channel();
    let mut known = Some(known);
    // Owned by its sender: the task ends when the sender is dropped or the endpoint closes. What went wrong reaches whoever
    // waits for an answer or reads its body, so there is nothing to say here.
    tokio::task::spawn_local(async move {
        let ended = poll_fn(|cx| {
            let state = Pin::new(&mut connection).poll(cx);
            load.limit.set(connection.current_max_send_streams().min(most));
            if load.limit.get() > 0
                && let Some(known) = known.take()
            {
                // Whoever has stopped waiting does not want to know.
                known.send(()).ok();
            } else if known.is_some() {
                tasks.0.replace(Some(cx.waker().clone()));
            }
            state
        });
        drop(ended.await);
        drop(known);
        traffic.closed.add(1);
    });
    match timeout(dial.timeout, settings).await {
        Ok(Ok(())) => Ok(line),
        Ok(Err(_)) if heard.was_refused() => Err(ConnectFailure::Handshake(address, HandshakeFailure::Afterwards)),
        Ok(Err(_)) => Err(ConnectFailure::Foreign(address)),
        Err(_) if aim.upstream.client.is_some() => {
            Err(ConnectFailure::Handshake(address, HandshakeFailure::TimedOut(dial.timeout)))
        }
        Err(_) => Err(ConnectFailure::TimedOut(address, dial.timeout)),
    }
}

/// More than all streams together: one client that does not read its answer must not hold up the others.
///
/// Much more, since the library charges every frame that waits to be read what it is smaller than 256 bytes, and ends the
/// connection, with everybody's requests, when that is more than half of this window. A stream's window full of messages of
/// 16 bytes is charged 15 times its size. What is kept in memory is bounded by the windows of the streams all the same.
fn connection_window(streams: usize) -> u32 {
    let all = u32::try_from(streams).unwrap_or(u32::MAX).saturating_mul(STREAM_WINDOW);
    all.saturating_mul(2 * 16).min(MAX_WINDOW)
}

impl<B> Lease<B> {
    fn new(line: Rc<Line<B>>) -> Self {
        line.load.requests.set(line.load.requests.get() + 1);
        Lease { line }
    }

    pub(super) fn sender(&self) -> SendRequest<B> {
        self.line.sender.clone()
    }
}

impl<B> Drop for Lease<B> {
    fn drop(&mut self) {
        let load = &self.line.load;
        load.requests.set(load.requests.get() - 1);
        load.since.set(Instant::now());
    }
}

/// Where hyper runs the socket and what carries the bodies of requests. They end with the connection or the request.
///
/// What the endpoint says about itself is read by such a task, and nobody is told; so whoever waits for it is woken to look
/// whenever one has run.
#[derive(Clone, Default)]
struct Tasks(Rc<RefCell<Option<Waker>>>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        let waiting = Rc::clone(&self.0);
        tokio::task::spawn_local(async move {
            let mut future = pin!(future);
            poll_fn(|cx| {
                let state = future.as_mut().poll(cx);
                if let Some(waker) = waiting.take() {
                    waker.wake();
                }
                state
            })
            .await;
        });
    }
}

/// What an endpoint may send ahead of the client that reads it.
const STREAM_WINDOW: u32 = 128 * 1024;
/// RFC 9113, section 6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;
const SEND_BUFFER: usize = 64 * 1024;
