//! The limits of connections and requests of plugins. Each namespace has a share of both.
//!
//! ```text
//!   request ─▶ permit for a request ─▶ idle connection ──────────────────────▶ response
//!                                        └ none: permit for a connection ──▶ socket ─▲
//!                                             └ none: an idle connection is closed
//! ```

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

use crate::plugin_api::idle_connections::IdleConnections;
use crate::shared_limit::{Held, LimitReached, Share, SharedLimit};

/// The limits of the process.
pub(super) struct ConnectionLimits {
    connections: SharedLimit,
    /// Requests that are in progress, of which each needs a connection, and those that have failed a moment ago.
    requests: SharedLimit,
    /// Those of the requests that are sent in place of backends. Fewer, so that clients cannot take the connections of
    /// plugins that decide about requests.
    in_place_of_backends: SharedLimit,
    idle: IdleConnections,
    /// How many callers of each namespace wait for a connection.
    waiting: Mutex<BTreeMap<Box<str>, usize>>,
}

impl ConnectionLimits {
    /// `limit` is that of connections, and also that of requests. `idle` are the connections that may be closed.
    pub(super) fn new(limit: usize, idle: IdleConnections) -> Self {
        let (connections, requests) = (SharedLimit::new(limit), SharedLimit::new(limit));
        let in_place_of_backends = SharedLimit::new(limit.div_ceil(2));
        ConnectionLimits { connections, requests, in_place_of_backends, idle, waiting: Mutex::default() }
    }

    /// Waits for permission to open a connection. `timeout` is that of what needs it.
    pub(super) async fn connection(&self, namespace: &str, timeout: Duration) -> Result<Held, String> {
        let share = self.connections.share(namespace);
        if let Ok(held) = self.connections.try_take(&share, 1) {
            return Ok(held);
        }
        // Counted first, so that connections that become idle from now on are closed.
        let _waiting = ConnectionWait::new(self, namespace);
        if !self.idle.close_oldest_of(namespace) && share.held() == 0 {
            self.idle.close_oldest_of_all();
        }
        let taken = self.connections.take(&share, 1, wait_deadline(timeout)).await;
        taken.map_err(|reached| describe(reached, &self.connections, "connections", namespace, &share))
    }

    /// Waits for permission to send a request with this timeout.
    pub(super) async fn request(&self, namespace: &str, timeout: Duration) -> Result<Held, String> {
        let share = self.requests.share(namespace);
        let taken = self.requests.take(&share, 1, wait_deadline(timeout)).await;
        taken.map_err(|reached| describe(reached, &self.requests, "requests", namespace, &share))
    }

    /// Waits for permission to send a request in place of a backend.
    pub(super) async fn request_of_client(&self, namespace: &str, timeout: Duration) -> Result<[Held; 2], String> {
        let share = self.in_place_of_backends.share(namespace);
        let taken = self.in_place_of_backends.take(&share, 1, wait_deadline(timeout)).await;
        let what = "requests in place of backends";
        let held = taken.map_err(|reached| describe(reached, &self.in_place_of_backends, what, namespace, &share))?;
        Ok([held, self.request(namespace, timeout).await?])
    }

    /// Closes an idle connection of a namespace, if there is one and others wait that it makes room for.
    pub(super) fn became_idle(&self, namespace: &str) {
        let makes_room = {
            let waiting = self.waiting.lock();
            let has_none = |namespace: &str| self.connections.share(namespace).held() == 0;
            waiting.contains_key(namespace) || waiting.keys().any(|namespace| has_none(namespace))
        };
        if makes_room {
            self.idle.close_oldest_of(namespace);
        }
    }

    #[cfg(test)]
    pub(super) fn has_waiting(&self, namespace: &str) -> bool {
        self.waiting.lock().contains_key(namespace)
    }
}

/// The message about a limit of `what` that is reached.
fn describe(reached: LimitReached, limit: &SharedLimit, what: &str, namespace: &str, share: &Share) -> String {
    let limit = limit.limit();
    let remedy = "raise --max-plugin-connections if their servers are not too slow";
    match reached {
        LimitReached::All => format!("all {limit} {what} of plugins are in use; {remedy}"),
        LimitReached::Share => {
            let owner = match namespace {
                "" => "plugins without a namespace".to_owned(),
                namespace => format!("plugins of the namespace {namespace}"),
            };
            let held = share.held();
            format!("the {owner} have {held} {what}, their share of the limit of {limit}; {remedy}")
        }
    }
}

/// Keeps the permit of a request that has failed for a moment. So requests that fail immediately, which are sent again
/// soon, cannot keep the processor busy, whatever the delays and the number of the plugins are.
pub(super) async fn release_later(permit: Held) {
    sleep(FAILURE_PAUSE).await;
    drop(permit);
}

/// Half of the timeout is left for the request.
fn wait_deadline(timeout: Duration) -> Instant {
    Instant::now() + MAX_WAIT.min(timeout / 2)
}

/// One caller that waits for a connection.
struct ConnectionWait<'l> {
    limits: &'l ConnectionLimits,
    namespace: &'l str,
}

impl<'l> ConnectionWait<'l> {
    fn new(limits: &'l ConnectionLimits, namespace: &'l str) -> Self {
        *limits.waiting.lock().entry(namespace.into()).or_default() += 1;
        ConnectionWait { limits, namespace }
    }
}

impl Drop for ConnectionWait<'_> {
    fn drop(&mut self) {
        let mut waiting = self.limits.waiting.lock();
        if let Some(count) = waiting.get_mut(self.namespace) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(self.namespace);
            }
        }
    }
}

/// A connection with its permit.
pub(super) struct PermittedStream<S> {
    /// Closed before the permit is released.
    stream: S,
    _permit: Held,
}

impl<S> PermittedStream<S> {
    pub(super) fn new(stream: S, permit: Held) -> Self {
        PermittedStream { stream, _permit: permit }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PermittedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PermittedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The longest wait for a permit.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// With the default limit, at most about 1,000 failing requests are sent per second.
const FAILURE_PAUSE: Duration = Duration::from_millis(250);
