//! Where one request or connection is sent.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Upstream;
use super::socket_budget::client_slots::ClientSlot;
use crate::endpoint_tls::{UpstreamServerName, UpstreamTlsSettings};

/// The upstream of a request with the TLS server name to use.
#[derive(Clone, Debug)]
pub struct UpstreamTarget<'u> {
    pub upstream: &'u Arc<Upstream>,
    /// The TLS server name. A connection established under one name is not used for another.
    pub server_name: Option<Rc<UpstreamServerName>>,
    /// The client for which the request is sent.
    pub client: ClientSlot,
    /// The duration of the last TLS handshake, if there was one.
    pub handshake_time: Cell<Option<Duration>>,
    /// How long the last attempt has waited until it might open a connection.
    pub place_wait: PlaceWait,
}

/// How long a request has waited for a place that others have.
#[derive(Clone, Debug, Default)]
pub struct PlaceWait {
    /// When it began to wait, if it still does.
    since: Cell<Option<Instant>>,
    total: Cell<Duration>,
}

impl PlaceWait {
    /// Counts the time until `waiting` is ready or dropped.
    pub(super) async fn during<T>(&self, waiting: impl Future<Output = T>) -> T {
        self.since.set(Some(Instant::now()));
        let _counted = CountedWait(self);
        waiting.await
    }

    /// Counts how long another request waits for its place, until `waiting` is ready or dropped.
    pub(super) async fn during_wait_of<T>(&self, other: &PlaceWait, waiting: impl Future<Output = T>) -> T {
        let _counted = WaitBehind { own: self, other, before: other.total() };
        waiting.await
    }

    pub fn total(&self) -> Duration {
        self.total.get() + self.since.get().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Another attempt begins.
    pub fn reset(&self) {
        self.since.set(None);
        self.total.set(Duration::ZERO);
    }
}

/// Ends the wait when it is dropped.
struct CountedWait<'w>(&'w PlaceWait);

impl Drop for CountedWait<'_> {
    fn drop(&mut self) {
        self.0.total.set(self.0.total());
        self.0.since.set(None);
    }
}

/// Adds the time that another request has waited meanwhile when it is dropped.
struct WaitBehind<'w> {
    own: &'w PlaceWait,
    other: &'w PlaceWait,
    /// How long the other one had waited before.
    before: Duration,
}

impl Drop for WaitBehind<'_> {
    fn drop(&mut self) {
        let waited = self.other.total().saturating_sub(self.before);
        self.own.total.set(self.own.total.get() + waited);
    }
}

impl<'u> UpstreamTarget<'u> {
    pub fn new(upstream: &'u Arc<Upstream>, server_name: Option<Rc<UpstreamServerName>>, client: ClientSlot) -> Self {
        let (handshake_time, place_wait) = Default::default();
        UpstreamTarget { upstream, server_name, client, handshake_time, place_wait }
    }

    /// Whether a TLS handshake with the server name has succeeded recently.
    pub(super) fn has_tls_success(&self) -> bool {
        self.server_name.as_deref().is_some_and(|name| self.upstream.has_tls_success(name))
    }

    /// Whether a TLS handshake that takes long says something about the endpoint. One with a server name that a client
    /// has made up does not: the endpoint may wait for what is behind that name only.
    pub(super) fn is_usual_handshake(&self) -> bool {
        let is_configured = self.upstream.key.tls.as_ref().is_none_or(UpstreamTlsSettings::has_server_name);
        is_configured || self.server_name.is_none() || self.has_tls_success()
    }
}
