//! A built cache, and what both modes have in common.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{AGE, AUTHORIZATION, CONTENT_LENGTH, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::collector::{Collector, UnfinishedResponse};
use super::config::{CacheSettings, Mode};
use super::key::{KeyParts, TargetLocation};
use super::outcome::CacheOutcome;
use super::remote::{Epoch, RemoteFound, RemoteStore};
use super::semantics::cache_control::CacheControl;
use super::semantics::storing::{Freshness, is_stored_field};
use super::semantics::vary::Vary;
use super::store::{
    CacheKey, CacheStore, Flight, FlightGuard, Generation, Partition, Reservation, StoredFields, StoredResponse,
    head_bytes,
};
use super::{kong, remote, rfc9111};
use crate::plugin_api::consumers::Sha256Digest;
use crate::plugin_api::context::ResponseHeaders;
use crate::plugin_api::{AccessOutcome, AfterForwardCx, BeforeForwardCx, ChangedFields, Plugin, Reply};

/// A cache, as the routes of one namespace use it.
pub(crate) struct ResponseCache {
    pub(super) name: &'static str,
    pub(super) settings: Arc<CacheSettings>,
    pub(super) store: Arc<CacheStore>,
    /// The stored responses of the namespace.
    pub(super) partition: Arc<Partition>,
    /// The server, with `strategy: redis`.
    pub(super) remote: Option<Arc<RemoteStore>>,
}

/// What happens to a request.
pub(super) enum CacheDecision {
    Reply(Box<Reply>),
    /// It is forwarded, and its response is not looked at.
    Forward,
    /// It is forwarded, and its response is stored if possible.
    Fetch(Box<Fetch>),
    /// Another request for the same response was forwarded before.
    Wait(Flight),
}

/// A request that is forwarded, until its response arrives.
pub(super) struct Fetch {
    pub(super) key: CacheKey,
    pub(super) method: Method,
    /// The fields of the request, with the conditions of the client.
    pub(super) request: HeaderMap,
    pub(super) sent: SystemTime,
    pub(super) generation: Generation,
    /// What the server had when the response was requested.
    pub(super) epoch: Epoch,
    pub(super) flight: Option<FlightGuard>,
    /// The stored response that is too old.
    pub(super) stale: Option<Arc<StoredResponse>>,
    /// Whether the request validates the stored response.
    pub(super) is_validation: bool,
    /// See [`is_authorized`].
    pub(super) is_authorized: bool,
    /// Where the target is, if the request may change it.
    pub(super) changes: Option<TargetLocation<Box<str>>>,
}

/// A response that may be stored.
pub(super) struct Admitted {
    pub(super) directives: CacheControl,
    pub(super) freshness: Freshness,
    pub(super) vary: Vary,
    pub(super) keep: Duration,
}

/// A cache as chains have it. What it stores belongs to the namespace of the route.
pub(crate) struct SharedCache {
    /// That of the namespace of the plugin object.
    own: Arc<ResponseCache>,
    /// Those of other namespaces, of whose routes there were requests.
    others: ArcSwap<HashMap<Box<str>, Arc<ResponseCache>>>,
}

impl Plugin for SharedCache {
    fn before_forward<'a>(&'a self, cx: &'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> {
        self.stand_in(cx, None)
    }

    fn after_forward(&self, cx: &mut AfterForwardCx<'_>) -> Option<Box<Reply>> {
        let fetch = cx.take_plugin_data::<Box<Fetch>>()?;
        let cache = self.of_namespace(cx.route_namespace);
        match cache.settings.mode {
            Mode::Kong => kong::after_forward(&cache, *fetch, cx),
            Mode::Rfc9111 => rfc9111::after_forward(&cache, *fetch, cx),
        }
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        for name in [&IF_NONE_MATCH, &IF_MODIFIED_SINCE] {
            fields.request.add(name);
        }
        for name in [&STATUS, &KEY, &CACHE_STATUS, &AGE] {
            fields.response.add(name);
        }
    }
}

impl SharedCache {
    pub(super) fn new(own: ResponseCache) -> Self {
        SharedCache { own: Arc::new(own), others: ArcSwap::default() }
    }

    /// The cache for the routes of a namespace, which is that of the plugin object unless a KongClusterPlugin is used.
    fn of_namespace(&self, namespace: &str) -> Arc<ResponseCache> {
        if self.own.partition.is_of(namespace) {
            return Arc::clone(&self.own);
        }
        if let Some(known) = self.others.load().get(namespace) {
            return Arc::clone(known);
        }
        let added = Arc::new(self.own.in_namespace(namespace));
        self.others.rcu(|others| {
            let mut others = HashMap::clone(others);
            others.entry(namespace.into()).or_insert_with(|| Arc::clone(&added));
            others
        });
        added
    }

    /// `before_forward`. `content`: the digest of the content of the request, if that selects the response.
    pub(in crate::plugins) fn stand_in<'a>(
        &'a self,
        cx: &'a mut BeforeForwardCx<'_>,
        content: Option<Sha256Digest>,
    ) -> AccessOutcome<'a> {
        let cache = self.of_namespace(&cx.route.namespace);
        if let Some(remote) = cache.remote.clone() {
            return AccessOutcome::Wait(Box::pin(async move {
                cache.decide_with_server(cx, content.as_ref(), &remote).await
            }));
        }
        match cache.decide(cx, content.as_ref(), cache.settings.collapse > Duration::ZERO, cx.now, None) {
            CacheDecision::Reply(reply) => AccessOutcome::Reply(reply),
            CacheDecision::Forward => AccessOutcome::Continue,
            CacheDecision::Fetch(fetch) => {
                cx.set_plugin_data(fetch);
                AccessOutcome::Continue
            }
            CacheDecision::Wait(flight) => AccessOutcome::Wait(Box::pin(async move {
                flight.wait(cache.settings.collapse).await;
                match cache.decide(cx, content.as_ref(), false, SystemTime::now(), None) {
                    CacheDecision::Reply(reply) => Some(reply),
                    CacheDecision::Fetch(fetch) => {
                        cx.set_plugin_data(fetch);
                        None
                    }
                    CacheDecision::Forward | CacheDecision::Wait(_) => None,
                }
            })),
        }
    }
}

impl ResponseCache {
    /// The same cache for the routes of another namespace.
    fn in_namespace(&self, namespace: &str) -> ResponseCache {
        ResponseCache {
            name: self.name,
            settings: Arc::clone(&self.settings),
            store: Arc::clone(&self.store),
            partition: self.store.partition(namespace),
            remote: self.remote.as_ref().map(|remote| Arc::new(remote.in_another_namespace())),
        }
    }

    fn decide(
        self: &Arc<Self>,
        cx: &mut BeforeForwardCx<'_>,
        content: Option<&Sha256Digest>,
        may_wait: bool,
        now: SystemTime,
        remote: Option<RemoteFound>,
    ) -> CacheDecision {
        match self.settings.mode {
            Mode::Kong => kong::decide(self, cx, content, may_wait, now, remote),
            Mode::Rfc9111 => rfc9111::decide(self, cx, may_wait, now, remote),
        }
    }

    /// Like [`ResponseCache::decide`], with what the server has stored.
    async fn decide_with_server(
        self: &Arc<Self>,
        cx: &mut BeforeForwardCx<'_>,
        content: Option<&Sha256Digest>,
        remote: &Arc<RemoteStore>,
    ) -> Option<Box<Reply>> {
        let mut may_wait = self.settings.collapse > Duration::ZERO;
        loop {
            let key = match self.settings.mode {
                Mode::Kong => kong::wanted_key(self, cx, content),
                Mode::Rfc9111 => rfc9111::wanted_key(self, cx),
            };
            let mut found = RemoteFound::default();
            if let Some(key) = key {
                let reservation = Reservation::new(&self.partition);
                found = match remote.look_up(key, &cx.head.headers, SystemTime::now(), reservation).await {
                    Ok(found) => found,
                    Err(_) if remote.bypasses_errors => {
                        let (outcome, request) = (CacheOutcome::Bypass, &cx.head.headers);
                        let is_kong = self.settings.mode == Mode::Kong;
                        let cache_status = (!is_kong).then(|| "portico; fwd=bypass; detail=unavailable".to_owned());
                        self.report(cx.response_headers, Report { outcome, key: None, request, cache_status });
                        return None;
                    }
                    Err(_) => return Some(remote::unavailable()),
                };
            }
            match self.decide(cx, content, may_wait, SystemTime::now(), Some(found)) {
                CacheDecision::Reply(reply) => return Some(reply),
                CacheDecision::Forward => return None,
                CacheDecision::Fetch(fetch) => {
                    cx.set_plugin_data(fetch);
                    return None;
                }
                CacheDecision::Wait(flight) => {
                    flight.wait(self.settings.collapse).await;
                    may_wait = false;
                }
            }
        }
    }

    /// The stored response for a request: what the server has, or what is in memory without one.
    pub(super) fn look_up(
        &self,
        remote: Option<RemoteFound>,
        key: CacheKey,
        request: &HeaderMap,
        now: SystemTime,
    ) -> (Option<Arc<StoredResponse>>, Generation, Epoch) {
        match remote {
            Some(found) => (found.response, Generation::default(), found.epoch),
            None => {
                let (found, generation) = self.partition.look_up(key, request, now);
                (found, generation, Epoch::default())
            }
        }
    }

    /// Stores the new response for the request of a fetch. Requests that wait for it continue when it is stored.
    pub(super) fn insert(&self, fetch: Fetch, response: Arc<StoredResponse>) {
        match &self.remote {
            Some(remote) => remote.store(fetch.key, response, fetch.epoch, fetch.flight),
            None => drop(self.partition.insert(fetch.key, &fetch.request, response, fetch.generation)),
        }
    }

    /// Removes all responses for a target, for all consumers.
    pub(super) fn invalidate(&self, key: CacheKey) {
        match &self.remote {
            Some(remote) => remote.invalidate(key),
            None => drop(self.partition.invalidate(key)),
        }
    }

    /// The key of a request with this method, and with this content if that selects the response.
    pub(super) fn key(&self, cx: &BeforeForwardCx<'_>, method: &Method, content: Option<&Sha256Digest>) -> CacheKey {
        let by_authorization = self.settings.mode == Mode::Kong && !self.settings.shares_authorized;
        let is_content_unkeyed = content.is_none() && ![Method::GET, Method::HEAD].contains(method);
        let parts = KeyParts {
            plugin: self.name,
            route: cx.route,
            client: &cx.client,
            method,
            uri: &cx.head.uri,
            headers: &cx.head.headers,
            identity: cx.identity,
            tokens: cx.tokens,
            decided_fields: cx.decided_fields,
            allowed_by: cx.allowed_by,
            by_authorization,
            received_target: (cx.path, cx.query),
            is_content_unkeyed,
            api_version: cx.api_version,
            chosen_backend: cx.chosen_backend,
            content,
        };
        parts.key(&self.settings)
    }

    /// Begins to request a response, or waits for the request that has begun before.
    pub(super) fn fly(&self, key: CacheKey, may_wait: bool) -> Result<Option<FlightGuard>, Flight> {
        if self.settings.collapse.is_zero() {
            return Ok(None);
        }
        match self.partition.begin_flight(key) {
            Ok(guard) => Ok(Some(guard)),
            Err(flight) if may_wait => Err(flight),
            Err(_) => Ok(None),
        }
    }

    /// Stores the response when its body is complete. Returns false if there is no room for it.
    pub(super) fn collect(&self, fetch: Fetch, admitted: Admitted, tags: Tags, cx: &mut AfterForwardCx<'_>) -> bool {
        let Some(status) = cx.status else { return false };
        let Some(response) = self.new_response((status, cx.headers), admitted, tags, cx.now) else { return false };
        let length = cx.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let announced = if fetch.method == Method::HEAD { Some(0) } else { length };
        let unfinished = UnfinishedResponse {
            response,
            partition: Arc::clone(&self.partition),
            key: fetch.key,
            request: fetch.request,
            generation: fetch.generation,
            remote: self.remote.clone().map(|remote| (remote, fetch.epoch)),
            flight: fetch.flight,
        };
        let Some(collector) = Collector::new(unfinished, announced, &self.settings) else { return false };
        cx.observe_body(Box::new(collector));
        true
    }

    /// A response without its body. `None` if there is no room for it.
    pub(super) fn new_response(
        &self,
        (status, headers): (StatusCode, &HeaderMap),
        admitted: Admitted,
        tags: Tags,
        now: SystemTime,
    ) -> Option<StoredResponse> {
        let fields = StoredFields::copy(headers, is_stored_field);
        let Admitted { directives, freshness, vary, keep } = admitted;
        let mut reservation = Reservation::new(&self.partition);
        if !reservation.grow(head_bytes(&fields, &vary, &tags)) {
            return None;
        }
        Some(StoredResponse {
            status,
            directives,
            fields,
            body: Bytes::new(),
            vary,
            tags,
            freshness,
            received: now,
            keep_until: now + keep,
            reservation,
        })
    }

    /// Counts the request and adds the fields that report what the cache did.
    pub(super) fn report(&self, fields: &mut ResponseHeaders, report: Report<'_>) {
        let Report { outcome, key, request, cache_status } = report;
        self.store.count(outcome);
        let shown = self.settings.response_fields;
        let is_debug = request.contains_key(DEBUG_HEADER);
        if shown.status || is_debug {
            match cache_status {
                None => fields.insert(STATUS.clone(), HeaderValue::from_static(outcome.as_str())),
                Some(status) => {
                    if let Ok(status) = HeaderValue::try_from(status) {
                        fields.insert(CACHE_STATUS.clone(), status);
                    }
                }
            }
        }
        if let Some(key) = key.filter(|_| shown.key || is_debug)
            && let Ok(key) = HeaderValue::try_from(key.to_hex())
        {
            fields.insert(KEY.clone(), key);
        }
    }
}

/// The names by which a response can be purged.
pub(super) type Tags = Box<[Box<[u8]>]>;

/// What the cache did for a request.
pub(super) struct Report<'r> {
    pub(super) outcome: CacheOutcome,
    pub(super) key: Option<CacheKey>,
    pub(super) request: &'r HeaderMap,
    /// The value of `Cache-Status`, in place of `X-Cache-Status`.
    pub(super) cache_status: Option<String>,
}

/// Whether the request has `Authorization`, for which a shared cache needs permission (RFC 9111, section 3.5): from the
/// client, whether a plugin has removed it or not, or in place of something else that the client has sent. A token that
/// a plugin has made is none of the client.
pub(super) fn is_authorized(cx: &BeforeForwardCx<'_>) -> bool {
    let is_made = |value: &HeaderValue| cx.tokens.iter().any(|token| token.is_sent_as(&AUTHORIZATION, value));
    cx.client_sent_authorization || cx.head.headers.get_all(AUTHORIZATION).iter().any(|value| !is_made(value))
}

/// Whether the request has content that the key does not contain.
pub(super) fn has_unkeyed_body(cx: &BeforeForwardCx<'_>) -> bool {
    cx.has_body && [Method::GET, Method::HEAD].contains(&cx.head.method)
}

/// Kong's header, with which any client may request the fields about the cache.
pub(super) const DEBUG_HEADER: &str = "kong-debug";
static STATUS: HeaderName = HeaderName::from_static("x-cache-status");
static KEY: HeaderName = HeaderName::from_static("x-cache-key");
static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
