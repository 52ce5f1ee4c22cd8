//! The contexts that plugins get in each phase: request, response and log.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, request};
use smallvec::SmallVec;

use super::assertions::{Assertions, FieldsOfClient};
use super::body_filter::{BodyFilter, PluginBodyFilter, StreamingFilter};
use super::changed_fields::FieldNames;
use super::chosen_backend::{BackendName, ChosenBackend};
pub use super::client_info::{ArrivedRequest, CertificateFindings, ClientCertificate, ClientInfo, UNKNOWN_CLIENT};
use super::completed_request::CompletedRequest;
use super::consumers::ConsumerDirectory;
use super::ended_session::EndedSession;
use super::endpoint_timeouts::EndpointTimeouts;
use super::endpoint_token::{EndpointToken, EndpointTokens};
use super::identity::Identity;
use super::message_limits::MessageLimits;
use super::plugin_regex::RemainingRegexSteps;
use super::request_body_changes::RequestBodyChanges;
use super::route_description::RouteDescription;
use super::scheme::Scheme;
use super::shared_values::{LogObjectField, SharedValues};
use super::timing::PhaseTimings;
use super::trace::RequestTrace;
use super::trace::attempts::RequestClock;
use crate::hop_count::HopCount;
use crate::shared_limit::{Held, SharedLimit};

/// Context of the `access` phase.
pub struct RequestCx<'r> {
    /// The request head that will be sent upstream. The method is the client's; `headers` are the client's without
    /// hop-by-hop headers and with the forwarding headers. Changes reach the endpoint.
    pub head: &'r mut request::Parts,
    /// The path that the router matched: dot segments resolved, escapes of unreserved characters decoded.
    pub path: &'r str,
    /// The query as the client sent it. To change it, change `head.uri`.
    pub query: Option<&'r str>,
    /// The path and query as the client sent them. Differs from `path` if the path was normalized.
    pub raw_target: &'r str,
    /// The groups of the route's regular expression.
    pub uri_captures: &'r dyn UriCaptures,
    pub client: ClientInfo<'r>,
    pub framing: Framing,
    /// The request id: 32 hexadecimal digits unless a trusted peer sent another one.
    pub id: &'r HeaderValue,
    /// The id to use instead, in the log, in error responses and in the headers with the id. Only plugins that return
    /// true from [`Plugin::sets_request_id`](super::Plugin::sets_request_id) set it.
    pub new_id: &'r mut Option<HeaderValue>,
    /// The whole body as the client sent it, if a plugin of the chain buffers bodies.
    pub body: Option<&'r Bytes>,
    /// What happens to the body. To replace it, see [`RequestCx::replace_body`].
    pub body_changes: &'r mut RequestBodyChanges,
    /// The identity that authentication plugins have established so far.
    pub identity: &'r mut Identity,
    pub consumers: &'r ConsumerDirectory,
    /// Headers to set on the response to this request, before `Plugin::response` runs. They replace those of the
    /// endpoint.
    pub response_headers: &'r mut ResponseHeaders,
    /// The timeouts for endpoints. Those that are set precede the same ones of the rule and of its Service.
    pub endpoint_timeouts: &'r mut EndpointTimeouts,
    /// The limits of messages, if the request becomes a WebSocket. Without them, its bytes are not looked at.
    pub message_limits: &'r mut Option<MessageLimits>,
    /// The version of the API, if a plugin has determined it.
    pub api_version: &'r mut Option<Arc<str>>,
    /// The steps that regular expressions may still take for this request.
    pub regex_steps: &'r mut RemainingRegexSteps,
    /// The trace of the request, if a tracer is active. The first tracer sets it, and later ones use it.
    pub trace: &'r mut Option<Box<RequestTrace>>,
    pub now: SystemTime,
    /// The object that the plugin is attached to, for example `HTTPRoute/default/shop/0`, `Service/default/cart:80` or
    /// `global`. Counters are separate for each scope.
    pub scope: &'r str,
    pub route: &'r RouteNames,
    /// The route and the service as log plugins write them, if a plugin of the chain reads heads or the description.
    pub description: Option<&'r RouteDescription>,
    /// The id of the request in log objects, if a plugin has set it, with the header that it is from.
    pub correlation_id: &'r mut Option<CorrelationHeader>,
    pub plugin_data: &'r mut PluginData,
    pub tokens: &'r mut EndpointTokens,
    pub named_fields: &'r mut Option<Box<FieldNames>>,
    /// What the plugin that runs asserts.
    pub assertions: Option<&'r Assertions>,
    pub fields_of_client: &'r mut FieldsOfClient,
    pub chosen_backend: &'r mut Option<ChosenBackend>,
    pub first_backend: u16,
    pub slot: u16,
    /// Whether a plugin of the chain reads the certificates of clients.
    pub reads_certificates: bool,
}

impl RequestCx<'_> {
    /// Whether the client was not asked for a certificate, and would be on another connection: this one is older than
    /// the plugin that reads certificates, or was opened for another host.
    pub fn needs_another_connection(&self) -> bool {
        let ClientInfo { certificate, scheme, is_peer_trusted, .. } = self.client;
        // A proxy that has terminated TLS for the client cannot open another connection for it.
        let is_own_connection = scheme == Scheme::Https && !is_peer_trusted;
        self.reads_certificates && is_own_connection && matches!(certificate, ClientCertificate::NotRequested)
    }

    /// Sends the request to one of [`Plugin::chosen_backends`](super::Plugin::chosen_backends) in place of the backends
    /// of the rule. If several plugins choose, the last one decides. `has_fallback`: a backend of the rule gets the
    /// request if no endpoint of the chosen one is available.
    pub fn choose_backend(&mut self, index: u16, has_fallback: bool) {
        *self.chosen_backend = Some(ChosenBackend { index: self.first_backend.saturating_add(index), has_fallback });
    }

    /// The body as it will be sent upstream, if a plugin of the chain buffers bodies.
    pub fn current_body(&self) -> Option<&Bytes> {
        self.body_changes.replacement.as_ref().or(self.body)
    }

    /// Replaces the body that is sent upstream and sets `Content-Length`. Has no effect if the body was not buffered.
    pub fn replace_body(&mut self, body: Bytes) {
        if self.body.is_some() {
            self.head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            self.body_changes.replacement = Some(body);
        }
    }

    /// Stores data of this plugin for `Plugin::response` and `Plugin::log` of the same request.
    pub fn set_plugin_data<T: Any>(&mut self, value: T) {
        self.plugin_data.insert(self.slot, value);
    }

    /// What functions have stored for the plugins of this request, if any has.
    pub fn shared_values(&self) -> Option<&SharedValues> {
        self.plugin_data.shared.as_deref()
    }

    /// The same, to store values.
    pub fn shared_values_mut(&mut self) -> &mut SharedValues {
        self.plugin_data.shared.get_or_insert_default()
    }

    /// Declares a field of the request that the plugin changes because a server has decided so. Stored responses depend
    /// on it, and [`Plugin::declare_fields`](super::Plugin::declare_fields) need not know its name.
    pub fn declare_request_field(&mut self, name: &HeaderName) {
        self.named_fields.get_or_insert_default().add(name);
    }
}

/// Context of the `before_forward` phase. The request was allowed, so a reply may contain what the backend would send.
pub struct BeforeForwardCx<'r> {
    /// The head after `access` and authorization. The filters of the rule have not changed it yet: they belong to the
    /// backend, so that a cache finds a response by what the client has sent. Changes of fields reach the endpoint;
    /// those of the method and the target do not select another rule.
    pub head: &'r mut request::Parts,
    /// Whether the request has content.
    pub has_body: bool,
    /// The whole body as it will be sent upstream, if it was buffered. See [`BeforeForwardCx::whole_body`].
    pub body: Option<&'r Bytes>,
    /// Whether the client requests another protocol, such as WebSocket.
    pub is_upgrade: bool,
    /// How many Portico processes have forwarded the request, with this one. Requests that the plugin sends have the
    /// number, so that loops end.
    pub hops: HopCount,
    /// The path that the router matched, as in `access`.
    pub path: &'r str,
    /// The query as the client sent it.
    pub query: Option<&'r str>,
    pub client: ClientInfo<'r>,
    pub id: &'r HeaderValue,
    /// The identity that authentication plugins have established.
    pub identity: &'r Identity,
    /// The tokens that plugins have made for the endpoint.
    pub tokens: &'r [EndpointToken],
    /// Whether the client sent `Authorization`, whatever is in `head` now.
    pub client_sent_authorization: bool,
    /// The fields that servers of plugins and authorization servers have changed, as they are in `head` now.
    pub decided_fields: Option<&'r FieldNames>,
    /// The authorization servers that have allowed the request: the route's, and that of the chosen backend.
    pub allowed_by: &'r [Arc<str>],
    /// See [`RequestCx::api_version`].
    pub api_version: Option<&'r str>,
    /// The Service that a plugin has chosen in `access`, in place of the backends of the rule.
    pub chosen_backend: Option<&'r BackendName>,
    /// Headers to set on the response to this request, as in `access`.
    pub response_headers: &'r mut ResponseHeaders,
    pub now: SystemTime,
    /// The object that the plugin is attached to.
    pub scope: &'r str,
    pub route: &'r RouteNames,
    /// Whether a plugin [replaces the backend](super::Plugin::replace_backend), so that `after_forward` does not run.
    pub is_backend_replaced: bool,
    pub background_places: Option<BackgroundPlaces<'r>>,
    pub background: &'r mut BackgroundSlot,
    pub plugin_data: &'r mut PluginData,
    pub slot: u16,
}

impl BeforeForwardCx<'_> {
    /// The whole body as all plugins have left it. `None` if there is one that was not buffered.
    pub fn whole_body(&self) -> Option<Bytes> {
        if self.has_body { self.body.cloned() } else { Some(Bytes::new()) }
    }

    /// Takes one of the places for requests that the proxy forwards while the client gets the reply of the plugin.
    /// Returns false if there is none for the namespace of the route.
    pub fn take_background_place(&mut self) -> bool {
        let Some(BackgroundPlaces { limit, namespace }) = self.background_places else { return false };
        if self.background.place.is_none() {
            self.background.place = limit.try_take(&limit.share(namespace), 1).ok();
        }
        self.background.place.is_some() && self.background.request.is_none()
    }

    /// Lets the proxy forward a request while the client gets the reply of this plugin, which has taken a place for it.
    /// Without a reply, it is not sent.
    pub fn forward_in_background(&mut self, request: BackgroundRequest) {
        self.background.request = Some(request);
    }

    /// The data that this plugin stored in `access`; `None` if there is none. It may be about a request that
    /// authorization has changed since.
    pub fn stored_in_access<T: Any>(&self) -> Option<&T> {
        self.plugin_data.get(self.slot)
    }

    /// Stores data of this plugin for the later phases of the same request. Replaces what `access` has stored.
    pub fn set_plugin_data<T: Any>(&mut self, value: T) {
        self.plugin_data.insert(self.slot, value);
    }
}

/// A request without a body that a plugin lets the proxy forward while the client gets another response, such as one
/// that validates what the plugin has stored. It goes to the backend of the client's request, with its filters.
pub struct BackgroundRequest {
    pub head: request::Parts,
    /// Gets the head of the response, as in [`Plugin::after_forward`](super::Plugin::after_forward), and may observe
    /// its body. Dropped if the request is not sent.
    pub finish: FinishBackground,
}

/// What looks at the response to a [`BackgroundRequest`].
pub type FinishBackground = Box<dyn FnOnce(&mut AfterForwardCx<'_>)>;

/// The places for requests in the background, of which each namespace has a share.
#[derive(Clone, Copy)]
pub struct BackgroundPlaces<'r> {
    pub limit: &'r SharedLimit,
    /// That of the route.
    pub namespace: &'r str,
}

/// Where a plugin leaves a request that is forwarded in the background.
#[derive(Default)]
pub struct BackgroundSlot {
    pub place: Option<Held>,
    pub request: Option<BackgroundRequest>,
}

/// Context of [`Plugin::after_forward`](super::Plugin::after_forward): what the endpoint has sent, before any filter.
pub struct AfterForwardCx<'r> {
    /// The status of the endpoint's response; `None` if there is none.
    pub status: Option<StatusCode>,
    /// The fields of the response.
    pub headers: &'r HeaderMap,
    /// Headers to set on the response to this request, as in `access`.
    pub response_headers: &'r mut ResponseHeaders,
    pub now: SystemTime,
    /// The namespace of the route.
    pub route_namespace: &'r str,
    pub plugin_data: &'r mut PluginData,
    pub observers: &'r mut Vec<Box<dyn StreamingFilter>>,
    pub slot: u16,
}

impl AfterForwardCx<'_> {
    /// Takes the data that this plugin has stored in `before_forward`.
    pub fn take_plugin_data<T: Any>(&mut self) -> Option<T> {
        self.plugin_data.take(self.slot)
    }

    /// Passes the body, as the endpoint sends it, through a filter that does not change it.
    pub fn observe_body(&mut self, observer: Box<dyn StreamingFilter>) {
        self.observers.push(observer);
    }
}

/// The groups of the regular expression that a route matches paths with, for the path of one request.
pub trait UriCaptures {
    /// The text of a group by its number, from 1 on; 0 is the whole match.
    fn group(&self, number: usize) -> Option<&str>;
    fn named_group(&self, name: &str) -> Option<&str>;
    /// The groups that have names and text.
    fn named_groups(&self) -> Vec<(&str, &str)>;
}

/// Response headers set by plugins. A list is cheaper than a second map that is merged into that of the response.
#[derive(Debug, Default)]
pub struct ResponseHeaders(SmallVec<[(HeaderName, Option<HeaderValue>); 8]>);

impl ResponseHeaders {
    /// Adds a header. If a name is inserted several times, the last value wins.
    pub fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, Some(value)));
    }

    /// Removes a header that was added.
    pub fn remove(&mut self, name: &HeaderName) {
        self.0.retain(|(known, _)| known != name);
    }

    /// Sets the headers, replacing existing values of the same names. The names are kept for
    /// [`ResponseHeaders::carry_over`].
    pub fn apply(&mut self, headers: &mut HeaderMap) {
        headers.reserve(self.0.len());
        for (name, value) in &mut self.0 {
            if let Some(value) = value.take() {
                headers.insert(name.clone(), value);
            }
        }
    }

    /// Moves the headers from a response to the one that replaces it.
    pub fn carry_over(&self, from: &mut HeaderMap, to: &mut HeaderMap) {
        for (name, _) in &self.0 {
            if let Some(value) = from.remove(name) {
                to.insert(name.clone(), value);
            }
        }
    }
}

/// Properties of the request body that plugins cannot tell from the headers that they get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// The client sent `Transfer-Encoding: chunked`.
    pub is_chunked: bool,
    /// A body follows the head, which may turn out to be empty. In HTTP/2 and HTTP/3, no header need say so.
    pub has_body: bool,
    /// The client sent `Expect: 100-continue` and waits for the interim response.
    pub expects_continue: bool,
}

/// A header with an id of the request, as it is sent to the endpoint.
pub type CorrelationHeader = (HeaderName, HeaderValue);

/// Names of the matched route and service in Kong's format, for logs and metrics, and what tells a rule from the one
/// that had its name before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteNames {
    /// The namespace of the route, in whose share counts what a plugin of the whole cluster holds for its requests.
    pub namespace: Arc<str>,
    /// For example `default.shop.cart..80` or `httproute.default.shop.0.0`.
    pub route: Arc<str>,
    /// For example `default.cart.80`.
    pub service: Arc<str>,
    /// A hash of the plugins, filters and backends of the rule, equal in every process: what is stored for one rule
    /// must not reach the clients of another one that has got its name.
    pub content: u64,
}

/// Context of the `response` phase: the response head that will be sent to the client, which plugins may change.
pub struct ResponseCx<'r> {
    /// The status, which the plugin may change. A change of the status of an upgrade has no effect.
    pub status: StatusCode,
    pub headers: &'r mut HeaderMap,
    pub source: ResponseSource,
    pub id: &'r HeaderValue,
    pub identity: &'r Identity,
    /// See [`RequestCx::regex_steps`].
    pub regex_steps: &'r mut RemainingRegexSteps,
    /// What is known about the request, also if its `access` phase did not run.
    pub request: RespondedRequest<'r>,
    /// See [`RequestCx::scope`].
    pub scope: &'r str,
    pub plugin_data: &'r mut PluginData,
    pub body_filters: &'r mut Vec<PluginBodyFilter>,
    pub plugin: &'static str,
    pub slot: u16,
}

impl ResponseCx<'_> {
    /// Adds a filter of the body, which runs after the filters that were added before.
    pub fn push_body_filter(&mut self, filter: BodyFilter) {
        self.body_filters.push(PluginBodyFilter { plugin: self.plugin, filter });
    }

    /// The data that this plugin stored in `access`; `None` if its `access` did not run.
    pub fn plugin_data<T: Any>(&mut self) -> Option<&mut T> {
        self.plugin_data.get_mut(self.slot)
    }

    /// See [`RequestCx::shared_values`].
    pub fn shared_values(&self) -> Option<&SharedValues> {
        self.plugin_data.shared.as_deref()
    }

    /// See [`RequestCx::shared_values_mut`].
    pub fn shared_values_mut(&mut self) -> &mut SharedValues {
        self.plugin_data.shared.get_or_insert_default()
    }
}

/// The request of a response.
#[derive(Clone, Copy, Debug, Default)]
pub struct RespondedRequest<'r> {
    /// The value of `Accept`.
    pub accept: Option<&'r HeaderValue>,
    /// Whether it is a gRPC call.
    pub is_call: bool,
    /// The reason of Portico's error or of a plugin's reply, if the response is one.
    pub reason: Option<&'static str>,
    /// See [`Plugin::reads_request_line`](super::Plugin::reads_request_line).
    pub line: Option<&'r RequestLine>,
}

/// The target and the host of a request as the client sent them.
#[derive(Clone, Debug)]
pub struct RequestLine {
    pub target: Uri,
    pub host: Option<HeaderValue>,
}

/// Where a response comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseSource {
    /// The endpoint.
    Service,
    /// A plugin that replied or replaced the response.
    Plugin,
    /// Portico: an error, a redirect, or a response to a CORS preflight request.
    Proxy,
}

/// Context of the `log` phase.
pub struct LogCx<'r> {
    pub names: &'r RouteNames,
    /// The route and the service as log plugins write them, if a plugin of the chain reads heads.
    pub description: Option<&'r RouteDescription>,
    pub summary: &'r RequestSummary,
    pub request: &'r CompletedRequest<'r>,
    pub identity: &'r Identity,
    /// The trace of the request, if a tracer is active.
    pub trace: Option<&'r RequestTrace>,
    /// See [`RequestCx::correlation_id`].
    pub correlation_id: Option<&'r CorrelationHeader>,
    /// The times of all plugins of the request.
    pub timings: &'r PhaseTimings,
    /// See [`RequestCx::scope`].
    pub scope: &'r str,
    /// Set if a connection or UDP session has ended, and not a request. Only plugins with
    /// [`PluginKind::LOGS_SESSIONS`](super::PluginKind::LOGS_SESSIONS) get those.
    pub session: Option<&'r EndedSession<'r>>,
    /// What functions of this phase have stored, for the log plugins after them.
    pub added: &'r RefCell<SharedValues>,
    pub plugin_data: &'r PluginData,
    pub slot: u16,
}

impl LogCx<'_> {
    /// The data that this plugin stored in `access`; `None` if its `access` did not run.
    pub fn plugin_data<T: Any>(&self) -> Option<&T> {
        self.plugin_data.get(self.slot)
    }

    /// Converts moments of the request for traces.
    pub fn clock(&self) -> RequestClock {
        RequestClock::new(self.request.started_at, self.request.started_instant, self.summary.total)
    }

    /// See [`RequestCx::shared_values`].
    pub fn shared_values(&self) -> Option<&SharedValues> {
        self.plugin_data.shared.as_deref()
    }

    /// The fields of the log object that functions have set, in order.
    pub fn log_values(&self) -> Vec<LogObjectField> {
        let before = self.shared_values().map(SharedValues::log_values).unwrap_or_default();
        before.iter().chain(self.added.borrow().log_values()).cloned().collect()
    }

    /// Sets a field of the log object, for the log plugins that run after this one.
    pub fn add_log_value(&self, value: LogObjectField) -> Result<(), &'static str> {
        self.added.borrow_mut().add_log_value(value)
    }
}

/// The outcome of a completed request.
#[derive(Clone, Debug)]
pub struct RequestSummary {
    pub status: StatusCode,
    pub source: ResponseSource,
    /// From the first byte of the request to the last byte of the response.
    pub total: Duration,
    /// From sending the request upstream to receiving the response head. `None` if it was not forwarded.
    pub upstream: Option<Duration>,
    /// Size of the request body.
    pub bytes_in: u64,
    /// Size of the response body.
    pub bytes_out: u64,
}

/// Data that plugins store between phases of one request, by slot in the chain.
#[derive(Default)]
pub struct PluginData {
    by_slot: SmallVec<[(u16, Box<dyn Any>); 1]>,
    shared: Option<Box<SharedValues>>,
}

impl PluginData {
    fn insert(&mut self, slot: u16, value: impl Any) {
        self.by_slot.retain(|(owner, _)| *owner != slot);
        self.by_slot.push((slot, Box::new(value)));
    }

    fn take<T: Any>(&mut self, slot: u16) -> Option<T> {
        let index = self.by_slot.iter().position(|(owner, value)| *owner == slot && value.is::<T>())?;
        self.by_slot.swap_remove(index).1.downcast().ok().map(|value| *value)
    }

    /// What functions have stored for the plugins of the request, if any has.
    pub fn shared_values(&self) -> Option<&SharedValues> {
        self.shared.as_deref()
    }

    fn get<T: Any>(&self, slot: u16) -> Option<&T> {
        self.by_slot.iter().find(|(owner, _)| *owner == slot).and_then(|(_, value)| value.downcast_ref())
    }

    fn get_mut<T: Any>(&mut self, slot: u16) -> Option<&mut T> {
        self.by_slot.iter_mut().find(|(owner, _)| *owner == slot).and_then(|(_, value)| value.downcast_mut())
    }
}
