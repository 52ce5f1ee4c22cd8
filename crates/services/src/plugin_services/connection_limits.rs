//! The limits of connections and requests of plugins. Each namespace has a share of both, and each client one of the
//! requests that its namespace may have: of those that decide about requests, and of those in place of backends.
//!
//! ```text
//!   request ─▶ permit for a request ─▶ idle connection ──────────────────────▶ response
//!                                        └ none: permit for a connection ──▶ socket ─▲
//!                                             └ none: an idle connection is closed
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::client_shares::{ClientShares, RequestOfClient};
use crate::plugin_api::ClientRequestFailure;
use crate::plugin_kit::idle_connections::IdleConnections;
use crate::shared_limit::{Held, LimitReached, Share, SharedLimit};

/// The limits of the process.
pub(super) struct ConnectionLimits {
    connections: SharedLimit,
    /// Requests that are in progress, of which each needs a connection, and those that have failed a moment ago.
    requests: RequestLimit,
    /// Those of the requests that are sent in place of backends. Fewer, so that clients cannot take the connections of
    /// plugins that decide about requests.
    in_place_of_backends: RequestLimit,
    idle: IdleConnections,
    /// How many callers of each namespace wait for a connection.
    waiting: Mutex<BTreeMap<Box<str>, usize>>,
}

impl ConnectionLimits {
    /// `limit` is that of connections, and also that of requests. `idle` are the connections that may be closed.
    pub(super) fn new(limit: usize, idle: IdleConnections) -> Self {
        ConnectionLimits {
            connections: SharedLimit::new(limit),
            requests: RequestLimit::new(limit, "requests"),
            in_place_of_backends: RequestLimit::new(limit.div_ceil(2), "requests in place of backends"),
            idle,
            waiting: Mutex::default(),
        }
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

    /// Waits for permission to send a request with this timeout, which no client waits for, or several.
    pub(super) async fn request(&self, namespace: &str, timeout: Duration) -> Result<RequestPermit, String> {
        let held = self.requests.take(namespace, wait_deadline(timeout)).await?;
        Ok(RequestPermit { held: Some((held, None)) })
    }

    /// Waits for permission to send a request that this client waits for.
    pub(super) async fn request_of_client(
        &self,
        namespace: &str,
        client: IpAddr,
        timeout: Duration,
    ) -> Result<RequestPermit, ClientRequestFailure> {
        let deadline = wait_deadline(timeout);
        let of_client = self.requests.take_of_client(namespace, client, deadline).await;
        let of_client = of_client.map_err(ClientRequestFailure::Busy)?;
        let held = self.requests.take(namespace, deadline).await.map_err(ClientRequestFailure::Failed)?;
        Ok(RequestPermit { held: Some((held, Some(of_client))) })
    }

    /// Waits for permission to send a request of this client in place of a backend. All waits end at one time, so that
    /// a wait for a connection after them also ends before the timeout: the lack of permits is the failure then, and
    /// not the server.
    pub(super) async fn request_in_place_of_backend(
        &self,
        namespace: &str,
        client: IpAddr,
        timeout: Duration,
    ) -> Result<PermitOfClient, String> {
        let (limit, deadline) = (&self.in_place_of_backends, client_deadline(timeout));
        let of_client = limit.take_of_client(namespace, client, deadline).await?;
        let of_namespace = limit.take(namespace, deadline).await?;
        let request = self.requests.take(namespace, deadline).await?;
        Ok(PermitOfClient { _held: [request, of_namespace], _of_client: of_client })
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

/// A limit of requests, of which each namespace has a share, and in it each client.
struct RequestLimit {
    limit: SharedLimit,
    clients: ClientShares,
    /// What is limited, in messages.
    what: &'static str,
}

impl RequestLimit {
    fn new(limit: usize, what: &'static str) -> Self {
        RequestLimit { limit: SharedLimit::new(limit), clients: ClientShares::default(), what }
    }

    /// Waits until the namespace may have one more request.
    async fn take(&self, namespace: &str, deadline: Instant) -> Result<Held, String> {
        let share = self.limit.share(namespace);
        let taken = self.limit.take(&share, 1, deadline).await;
        taken.map_err(|reached| describe(reached, &self.limit, self.what, namespace, &share))
    }

    /// Waits until the client may have one more of the requests of the namespace, before that of [`Self::take`].
    async fn take_of_client(
        &self,
        namespace: &str,
        client: IpAddr,
        deadline: Instant,
    ) -> Result<RequestOfClient, String> {
        let (share, what) = (self.limit.share(namespace), self.what);
        let taken = self.clients.take(namespace, client, || share.room(self.limit.free()), deadline).await;
        taken.map_err(|requests| {
            format!("the client has {requests} {what}, its share of those of its namespace; {MORE_CONNECTIONS}")
        })
    }
}

/// Permits one request, until it is dropped. Unless the request has had a result, the permit is kept for a moment
/// longer. So requests that fail immediately, or whose clients leave immediately, and which are sent again soon, cannot
/// keep the processor busy, whatever the delays and the number of the plugins are.
pub(super) struct RequestPermit {
    /// Some until it is released.
    held: Option<(Held, Option<RequestOfClient>)>,
}

impl RequestPermit {
    /// Another request may follow at once.
    pub(super) fn release(mut self) {
        self.held = None;
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        if let Ok(runtime) = Handle::try_current() {
            // Ends by itself, and nothing waits for it.
            runtime.spawn(async move {
                sleep(FAILURE_PAUSE).await;
                drop(held);
            });
        }
    }
}

/// Permits one request in place of a backend, until it is dropped.
pub(super) struct PermitOfClient {
    _held: [Held; 2],
    _of_client: RequestOfClient,
}

const MORE_CONNECTIONS: &str = "raise --max-plugin-connections if their servers are not too slow";

/// The message about a limit of `what` that is reached.
fn describe(reached: LimitReached, limit: &SharedLimit, what: &str, namespace: &str, share: &Share) -> String {
    let limit = limit.limit();
    let remedy = MORE_CONNECTIONS;
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

/// Half of the timeout is left for the request.
fn wait_deadline(timeout: Duration) -> Instant {
    Instant::now() + MAX_WAIT.min(timeout / 2)
}

/// A sixth of the timeout is left for the request if it waits for a connection, too.
fn client_deadline(timeout: Duration) -> Instant {
    Instant::now() + MAX_WAIT.min(timeout / 3)
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

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    /// Takes permits of a client until it waits in vain.
    async fn take_all(limits: &ConnectionLimits, namespace: &str, client: &str) -> (Vec<PermitOfClient>, String) {
        let mut permits = Vec::new();
        loop {
            match limits.request_in_place_of_backend(namespace, client.parse().unwrap(), TIMEOUT).await {
                Ok(permit) => permits.push(permit),
                Err(error) => return (permits, error),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_client_leaves_requests_of_its_namespace_to_others() {
        let limits = ConnectionLimits::new(256, IdleConnections::default());
        let (slow, error) = take_all(&limits, "shop", "2001:db8::1").await;
        assert!((90..=100).contains(&slow.len()), "{} of 112", slow.len());
        let expected = format!("the client has {} requests in place of backends", slow.len());
        assert!(error.starts_with(&expected), "{error}");
        // A client usually has all addresses of such a network.
        assert!(take_all(&limits, "shop", "2001:db8::2").await.0.is_empty());
        let began = Instant::now();
        let other = limits.request_in_place_of_backend("shop", "192.0.2.1".parse().unwrap(), TIMEOUT).await;
        assert!(other.is_ok() && began.elapsed() < SHORT, "others wait for nothing");
        let same_elsewhere = limits.request_in_place_of_backend("blog", "2001:db8::1".parse().unwrap(), TIMEOUT).await;
        assert!(same_elsewhere.is_ok() && began.elapsed() < SHORT, "a namespace has shares of its own");
        drop(slow);
        let (more, _) = take_all(&limits, "shop", "192.0.2.1").await;
        assert!(more.len() >= 90, "{}: nothing stays reserved", more.len());
    }

    #[tokio::test(start_paused = true)]
    async fn many_clients_fill_the_share_of_their_namespace() {
        let limits = ConnectionLimits::new(256, IdleConnections::default());
        let mut permits = Vec::new();
        let error = loop {
            let client = format!("192.0.2.{}", permits.len());
            match limits.request_in_place_of_backend("shop", client.parse().unwrap(), TIMEOUT).await {
                Ok(permit) => permits.push(permit),
                Err(error) => break error,
            }
        };
        assert_eq!(permits.len(), 112);
        assert!(error.starts_with("the plugins of the namespace shop have 112 requests"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_of_a_client_have_one_deadline() {
        let limits = ConnectionLimits::new(256, IdleConnections::default());
        let (mut of_client, _) = take_all(&limits, "shop", "192.0.2.1").await;
        let mut requests = Vec::new();
        while let Ok(request) = limits.request("shop", TIMEOUT).await {
            requests.push(request);
        }
        let began = Instant::now();
        let waiting = limits.request_in_place_of_backend("shop", "192.0.2.1".parse().unwrap(), Duration::from_secs(6));
        // The client gets its place after a second, and waits for a request after that.
        let releasing = async {
            sleep(Duration::from_secs(1)).await; // Time is paused.
            let PermitOfClient { _held: [request, of_namespace], _of_client: place } = of_client.pop().unwrap();
            drop((of_namespace, place));
            request
        };
        let (outcome, _request) = tokio::join!(waiting, releasing);
        let error = outcome.err().unwrap();
        assert!(error.starts_with("the plugins of the namespace shop have 224 requests, "), "{error}");
        assert_eq!(began.elapsed().as_secs(), 2, "each wait has a time of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn clients_leave_requests_that_decide_to_others() {
        let limits = ConnectionLimits::new(256, IdleConnections::default());
        let take = async |client: &str| limits.request_of_client("shop", client.parse().unwrap(), TIMEOUT).await;
        let mut greedy = Vec::new();
        let failure = loop {
            match take("192.0.2.1").await {
                Ok(permit) => greedy.push(permit),
                Err(failure) => break failure,
            }
        };
        assert!((180..=200).contains(&greedy.len()), "{} of 224", greedy.len());
        let ClientRequestFailure::Busy(error) = failure else { panic!("{failure:?}") };
        assert!(error.starts_with(&format!("the client has {} requests, its share", greedy.len())), "{error}");
        let began = Instant::now();
        take("192.0.2.2").await.unwrap().release();
        limits.request("shop", TIMEOUT).await.unwrap().release();
        assert!(began.elapsed() < SHORT, "others wait for nothing");
        // Those that have had a result make room at once, and others a moment later.
        greedy.pop().unwrap().release();
        let next = take("192.0.2.1").await.unwrap();
        assert!(began.elapsed() < SHORT, "{:?}", began.elapsed());
        drop(next);
        let next = take("192.0.2.1").await.unwrap();
        assert!(began.elapsed() >= FAILURE_PAUSE, "{:?}", began.elapsed());
        next.release();
    }

    /// On paused time, what does not wait takes no time at all.
    const SHORT: Duration = Duration::from_millis(1);
}
