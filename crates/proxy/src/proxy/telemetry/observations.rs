//! Observed requests: the admin listener registers a token, and the request that carries it in `portico-observe` is
//! recorded with the listener, rule, backend and endpoint that served it. `portico verify` uses them.
//!
//! All other requests only read whether any token is registered. The field is removed from the request that is
//! observed, and its response contains nothing about it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::header::EXPECT;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::plugin_api::ResponseSource;
use crate::snapshot::HttpListener;
use crate::snapshot::router::MatchedPath;
use crate::snapshot::rule::{Backend, BackendTarget, RouteRule};

/// The header field that contains the token.
pub(crate) const OBSERVE_FIELD: HeaderName = HeaderName::from_static("portico-observe");

/// What the proxy does with an observed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservationMode {
    /// What it does with every other request.
    Serve,
    /// It selects the rule and the backend, and responds itself. No plugin runs, and no endpoint gets the request.
    DryRun,
}

/// How an observed request was served. A step that it did not reach is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// `namespace/gateway/listener`
    pub listener: Option<String>,
    /// `Kind/namespace/name`
    pub route: Option<String>,
    /// The name of the rule, or its index.
    pub rule: Option<String>,
    /// The condition on the path that matched, such as `PathPrefix /a`.
    pub path: Option<String>,
    /// `namespace/service:port`
    pub backend: Option<String>,
    /// The endpoint of the last attempt.
    pub endpoint: Option<SocketAddr>,
    /// Why the endpoint was picked, as in the access log.
    pub picked: Option<&'static str>,
    pub status: Option<u16>,
    /// `endpoint`, `plugin` or `portico`
    pub source: Option<&'static str>,
    /// The reason of an error, or of the reply of a plugin.
    pub reason: Option<&'static str>,
    pub dry_run: bool,
}

/// The tokens that are registered, for all workers.
#[derive(Debug, Default)]
pub struct ObservedRequests {
    /// The number of tokens, which is all that requests read while it is 0.
    registered: AtomicUsize,
    tokens: Mutex<HashMap<Box<str>, Registered>>,
}

#[derive(Debug)]
struct Registered {
    mode: ObservationMode,
    observation: oneshot::Sender<Observation>,
}

impl ObservedRequests {
    /// Observes the next request with this token, until the result is dropped.
    pub fn register(self: &Arc<Self>, token: &str, mode: ObservationMode) -> AwaitedObservation {
        let (observation, received) = oneshot::channel();
        let mut tokens = self.tokens.lock();
        tokens.insert(token.into(), Registered { mode, observation });
        self.registered.store(tokens.len(), Relaxed);
        drop(tokens);
        AwaitedObservation { requests: Arc::clone(self), token: token.into(), received }
    }

    /// Begins the observation of a request with a registered token, whose field is removed.
    pub(in crate::proxy) fn begin(&self, headers: &mut HeaderMap) -> Option<Box<ObservedRequest>> {
        // The client sends its request after the admin listener has responded, so no stronger order is needed.
        if self.registered.load(Relaxed) == 0 { None } else { self.begin_registered(headers) }
    }

    #[cold]
    fn begin_registered(&self, headers: &mut HeaderMap) -> Option<Box<ObservedRequest>> {
        let token = headers.get(OBSERVE_FIELD).map(HeaderValue::to_str)?.ok()?;
        let Registered { mode, observation: sender } = self.remove(token)?;
        headers.remove(OBSERVE_FIELD);
        if mode == ObservationMode::DryRun {
            // The client expects a dry run. If the token were not registered anymore, the unknown expectation would be
            // refused, so that the request is never forwarded.
            headers.remove(EXPECT);
        }
        let observation = Observation { dry_run: mode == ObservationMode::DryRun, ..Observation::default() };
        Some(Box::new(ObservedRequest { observation, sender: Some(sender) }))
    }

    fn remove(&self, token: &str) -> Option<Registered> {
        let mut tokens = self.tokens.lock();
        let removed = tokens.remove(token);
        self.registered.store(tokens.len(), Relaxed);
        removed
    }
}

/// A registered token. Dropping it removes the token.
#[derive(Debug)]
pub struct AwaitedObservation {
    requests: Arc<ObservedRequests>,
    token: Box<str>,
    received: oneshot::Receiver<Observation>,
}

impl AwaitedObservation {
    /// Waits until a request with the token has ended. `None` if the token was registered again.
    pub async fn observation(&mut self) -> Option<Observation> {
        (&mut self.received).await.ok()
    }
}

impl Drop for AwaitedObservation {
    fn drop(&mut self) {
        // The same token may be registered again; its channel is another one, whose receiver is open.
        let mut tokens = self.requests.tokens.lock();
        self.received.close();
        if tokens.get(&self.token).is_some_and(|registered| registered.observation.is_closed()) {
            tokens.remove(&self.token);
        }
        self.requests.registered.store(tokens.len(), Relaxed);
    }
}

/// A request that is observed, from its head to its end.
#[derive(Debug)]
pub(in crate::proxy) struct ObservedRequest {
    observation: Observation,
    /// `None` when the observation was sent.
    sender: Option<oneshot::Sender<Observation>>,
}

impl ObservedRequest {
    pub(in crate::proxy) fn is_dry_run(&self) -> bool {
        self.observation.dry_run
    }

    pub(in crate::proxy) fn set_path(&mut self, path: MatchedPath<'_>) {
        self.observation.path = Some(path.to_string());
    }

    /// How far the request was routed.
    pub(in crate::proxy) fn set_route(
        &mut self,
        listener: Option<&HttpListener>,
        rule: Option<&RouteRule>,
        backend: Option<&Backend>,
    ) {
        let observation = &mut self.observation;
        observation.listener = listener.map(|listener| format!("{}/{}", listener.gateway, listener.name));
        observation.route = rule.map(|rule| rule.id.route.to_string());
        observation.rule = rule.map(|rule| rule.id.rule.to_string());
        observation.backend = backend.and_then(|backend| match &backend.target {
            BackendTarget::Upstream(upstream) => Some(upstream.key.to_string()),
            BackendTarget::Fail(_) => None,
        });
    }

    pub(in crate::proxy) fn set_source(&mut self, source: ResponseSource) {
        self.observation.source = Some(match source {
            ResponseSource::Service => "endpoint",
            ResponseSource::Plugin => "plugin",
            ResponseSource::Proxy => "portico",
        });
    }

    /// Reports the observation at the end of the request. Only the first call has an effect.
    pub(in crate::proxy) fn finish(
        &mut self,
        status: StatusCode,
        endpoint: Option<SocketAddr>,
        picked: Option<&'static str>,
        reason: Option<&'static str>,
    ) {
        let Some(sender) = self.sender.take() else { return };
        let observation = std::mem::take(&mut self.observation);
        let observation = Observation { status: Some(status.as_u16()), endpoint, picked, reason, ..observation };
        // The admin listener may have stopped waiting.
        drop(sender.send(observation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(token: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(OBSERVE_FIELD, HeaderValue::from_static(token))])
    }

    #[tokio::test]
    async fn only_the_first_request_with_a_registered_token_is_observed() {
        let requests = Arc::new(ObservedRequests::default());
        assert!(requests.begin(&mut request("a")).is_none(), "nothing is registered");
        let mut awaited = requests.register("a", ObservationMode::DryRun);
        let mut other = request("b");
        assert!(requests.begin(&mut other).is_none() && other.contains_key(OBSERVE_FIELD), "an unknown token is kept");
        assert!(requests.begin(&mut HeaderMap::new()).is_none());
        let mut observed_headers = request("a");
        observed_headers.insert(EXPECT, HeaderValue::from_static("portico-dry-run"));
        let mut observed = requests.begin(&mut observed_headers).unwrap();
        assert!(observed.is_dry_run() && observed_headers.is_empty());
        assert!(requests.begin(&mut request("a")).is_none(), "the token is used");
        observed.set_source(ResponseSource::Proxy);
        observed.finish(StatusCode::NO_CONTENT, None, None, Some("no_route"));
        observed.finish(StatusCode::OK, None, Some("hash"), None);
        let observation = awaited.observation().await.unwrap();
        let expected = Observation {
            status: Some(204),
            source: Some("portico"),
            reason: Some("no_route"),
            dry_run: true,
            ..Observation::default()
        };
        assert_eq!(observation, expected);
    }

    #[tokio::test]
    async fn dropped_registration_leaves_no_token() {
        let requests = Arc::new(ObservedRequests::default());
        let mut first = requests.register("a", ObservationMode::Serve);
        let second = requests.register("a", ObservationMode::Serve);
        assert_eq!(first.observation().await, None, "the token was registered again");
        drop(first);
        assert_eq!(requests.registered.load(Relaxed), 1);
        drop(second);
        assert_eq!(requests.registered.load(Relaxed), 0);
        assert!(requests.tokens.lock().is_empty());
    }

    #[tokio::test]
    async fn request_without_an_end_has_no_observation() {
        let requests = Arc::new(ObservedRequests::default());
        let mut awaited = requests.register("a", ObservationMode::Serve);
        drop(requests.begin(&mut request("a")));
        assert_eq!(awaited.observation().await, None);
    }
}
