//! The plugin contract: the traits between the proxy, which runs plugin chains, and the plugins in `plugins/`.
//!
//! ```text
//!   config ──PluginKind::build──▶ Plugin ─┐
//!                                         ├─▶ ChainSlot ─▶ Chain of a rule ──access────▶ continue, or a Reply
//!   objects that it is attached to ───────┘                                ──before_forward─▶ continue, or a Reply
//!                                                                          ──replace_backend▶ a Reply
//!                                                                          ──response──▶ head, or another Reply
//!                                                                          │   └ BodyFilter ─▶ body
//!                                                                          ──log───────▶ status, sizes, durations
//!                                            StreamChain of a route ──stream_open──▶ continue, or reject
//! ```
//!
//! A built plugin is immutable and shared by all requests. State that must survive a configuration change (counters,
//! caches, fetched keys) is looked up by name in [`PluginState`].

pub mod assertions;
pub mod aws_environment;
pub mod batch_queue;
pub mod body_budget;
pub mod body_filter;
pub mod changed_fields;
pub mod chosen_backend;
pub mod client_info;
pub mod completed_request;
pub mod consumers;
pub mod content_coding;
pub mod context;
pub mod cookies;
pub mod decimal;
pub mod dumped_fields;
pub mod ended_session;
pub mod endpoint_timeouts;
pub mod endpoint_token;
pub mod field_names;
pub mod fields;
pub mod header_spoofing;
pub mod hidden_texts;
pub mod http_proxy;
pub mod http_version;
pub mod identity;
pub mod instance;
pub mod kind;
pub mod login;
pub mod lua_value;
pub mod masking;
pub mod media_type;
pub mod message_limits;
pub mod multipart;
pub mod named_backend;
pub mod otlp_messages;
pub(crate) mod own_url;
pub mod password;
pub mod plugin_regex;
pub mod remote;
pub mod remote_request;
pub(crate) mod repeated_query;
pub mod reply;
mod request_assertions;
pub mod request_body_changes;
pub mod route_description;
pub mod scheme;
#[expect(clippy::unwrap_used, reason = "only tests run it")]
pub mod scripted_server;
pub mod server_text;
pub mod services;
pub mod shared_keys;
pub mod shared_values;
pub mod state;
pub mod stream_cx;
pub mod streamed_response;
pub mod subjects;
pub mod timing;
pub mod token;
pub mod trace;
pub mod vault;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderName, HeaderValue, StatusCode, request};

use crate::hop_count::HopCount;

pub use crate::request_target::path_encoding;
pub use crate::shared_limit::{Held, Share, SharedLimit};
pub use assertions::{AssertedFields, Assertions, HiddenCookies};
pub use body_budget::{BodyBudget, KeptBytes};
pub use body_filter::{
    BeyondLimit, BodyCheck, BodyCoding, BodyConversion, BodyFilter, BodyTransform, BufferedFilter, CheckOfBody,
    CodedHead, ConvertBody, ConvertedBody, StreamingFilter,
};
pub use changed_fields::{ChangedFields, FieldNames};
pub use chosen_backend::{BackendName, ChosenBackend, MAX_CHOSEN_BACKENDS};
pub use completed_request::{CompletedRequest, CredentialLocations};
pub use consumers::{Consumer, ConsumerDirectory};
pub use context::{
    AfterForwardCx, ArrivedRequest, BeforeForwardCx, CertificateFindings, ClientCertificate, ClientInfo,
    CorrelationHeader, Framing, LogCx, RequestCx, RequestLine, RequestSummary, RespondedRequest, ResponseCx,
    ResponseHeaders, ResponseSource, RouteNames, UriCaptures,
};
pub use ended_session::EndedSession;
pub use endpoint_token::EndpointToken;
pub use identity::Identity;
pub use kind::{
    AnyPluginKind, BuildCx, BuildNotes, Phases, PluginKind, PluginKinds, PluginRegistry, RegisteredKind, Scopes,
    optional_record, record,
};
pub use own_url::OwnUrl;
pub use plugin_regex::{MAX_PLUGIN_REGEX_STEPS, RemainingRegexSteps, count_regex_states, regex_error_message};
pub use remote::{ClientCertificateFiles, Remote, RemoteDatagrams, RemoteStream, RemoteTls, TlsFiles};
pub use remote_request::{ClientRequestFailure, RemoteRequest, RemoteResponse, RemoteUrl, ResponseBodyUse};
pub use reply::{Reply, ReplyBody, ReplyStream, ReplyStreamError};
pub use scheme::Scheme;
pub use services::PluginServices;
pub use shared_keys::{SharedKey, SharedKeySet, SharedKeys};
pub use state::PluginState;
pub use stream_cx::{StreamCx, StreamDecision};
pub use streamed_response::{RemoteFailure, StreamedResponse};
pub use subjects::{VerifiedSubject, VerifiedSubjects};

/// A plugin with its parsed configuration.
///
/// A phase runs only if [`PluginKind::PHASES`] lists it.
pub trait Plugin: Send + Sync + 'static {
    /// Runs before the request is authorized and forwarded. Plugins run in the order of their priorities until one of
    /// them replies. The reply must contain nothing of a backend: see [`Plugin::before_forward`].
    ///
    /// Hop-by-hop headers are already removed, so the client's `Connection` header cannot remove a header that a plugin
    /// sets.
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let _ = cx;
        AccessOutcome::Continue
    }

    /// Runs after authorization, before filters of the rule change the request for the backend, and may respond in
    /// place of the backend. A plugin whose reply contains what a backend has sent, such as a cache, must respond here
    /// and not in `access`: authorization servers decide after `access`. Does not run if the backend of the request is
    /// invalid.
    fn before_forward<'a>(&'a self, cx: &'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> {
        let _ = cx;
        AccessOutcome::Continue
    }

    /// Runs in place of the backend of every request, on what that would get, and always responds. No other plugin lets
    /// the proxy send a request to that backend in the background. A plugin that declares the phase and does not
    /// implement it fails all requests.
    fn replace_backend<'a>(&'a self, cx: &'a mut ReplaceBackendCx<'_>) -> BackendReplacement<'a> {
        let _ = cx;
        let status = StatusCode::SERVICE_UNAVAILABLE;
        BackendReplacement::Reply(Reply::negotiated(status, "An unexpected error occurred", "broken_plugin"))
    }

    /// Whether `replace_backend` fails for backends that are not a [`NamedBackend`](named_backend::NamedBackend) with a
    /// server, which routes with others report.
    fn needs_named_backend(&self) -> bool {
        false
    }

    /// Runs when the endpoint has responded, or could not, to a request for which `before_forward` of this plugin ran.
    /// Nothing has changed the response yet. A reply takes its place, and is changed by the same filters.
    fn after_forward(&self, cx: &mut AfterForwardCx<'_>) -> Option<Box<Reply>> {
        let _ = cx;
        None
    }

    /// Whether `access` may return [`AccessOutcome::Wait`]. If no plugin that may run for a request waits, the request
    /// needs no future for the access phase. A plugin that returns false and waits nevertheless fails the request.
    fn may_wait(&self) -> bool {
        true
    }

    /// Whether `access` waits only for the check of a hashed password. [`Plugin::may_wait`] is false then, and requests
    /// need the future only if hashed passwords exist.
    fn checks_passwords(&self) -> bool {
        false
    }

    /// Runs on the head of every response to a request that reached the chain, whether the endpoint, a plugin or the
    /// proxy produced it. Also runs if another plugin replied before `access` of this one.
    ///
    /// The body is still to come: [`ResponseCx::push_body_filter`] adds a filter of it.
    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        let _ = cx;
        ResponseOutcome::Continue
    }

    /// Runs when the response is complete or was aborted; with [`PluginKind::LOGS_SESSIONS`], also when a connection or
    /// UDP session of a stream route has ended.
    fn log(&self, cx: &LogCx<'_>) {
        let _ = cx;
    }

    /// Runs when a connection of a TCPRoute or TLSRoute was accepted, or a session of a UDPRoute begins, before an
    /// endpoint is connected. It must not block.
    fn stream_open(&self, cx: &StreamCx) -> StreamDecision {
        let _ = cx;
        StreamDecision::Continue
    }

    /// Whether `log` reads the heads of the request and of the response. Only then they are copied.
    fn logs_heads(&self) -> bool {
        false
    }

    /// Whether `access` reads [`RequestCx::description`].
    fn reads_description(&self) -> bool {
        false
    }

    /// The Services that `access` may choose with [`RequestCx::choose_backend`], in the order of their indices. They
    /// are resolved for each rule like its own backends. Plugins that name any cannot be attached to consumers or
    /// groups alone, because these have no rule.
    fn chosen_backends(&self) -> &[BackendName] {
        &[]
    }

    /// Whether `response` reads [`RespondedRequest::line`]. Only then it is copied. Plugins that do cannot be attached
    /// to a consumer or group, which is not known when it is copied.
    fn reads_request_line(&self) -> bool {
        false
    }

    /// Whether the plugin, if it is attached globally, also runs on responses to requests without a route. Only its
    /// `response` phase does.
    fn serves_unmatched(&self) -> bool {
        false
    }

    /// Whether the plugin reads [`ClientInfo::certificate`]. Handshakes of its routes then request one.
    fn requests_client_certificate(&self) -> bool {
        false
    }

    /// Where a plugin reads or writes credentials, so that log plugins do not write them. The header `Authorization`
    /// need not be listed. `None` only for a kind that says so in [`PluginKind::HAS_CREDENTIALS`].
    fn credential_locations(&self) -> Option<CredentialLocations> {
        None
    }

    /// URLs of the configuration that clients request, and to which this plugin must respond on one of its routes.
    fn own_urls(&self) -> &[OwnUrl] {
        &[]
    }

    /// The consumers that the configuration names. Those that do not exist are errors of the plugin's object.
    fn named_consumers(&self) -> Vec<NamedConsumer<'_>> {
        Vec::new()
    }

    /// The KongConsumerGroups that the configuration names. Those that do not exist are warnings of the plugin's
    /// object, because the claims of a token may name a group, too.
    fn named_groups(&self) -> Vec<NamedGroup<'_>> {
        Vec::new()
    }

    /// Names the fields with which `access` identifies the client toward endpoints, in all that it can do. The chain
    /// removes them from what clients send, whether or not the plugin runs for a request, so that a plugin need not
    /// remove any. It sets them with [`RequestCx::assert_field`].
    fn declare_assertions(&self, assertions: &mut Assertions) {
        let _ = assertions;
    }

    /// The fields of requests that the plugin renames, with their new names. The new name of a field that another
    /// plugin asserts is asserted, too.
    fn renamed_fields(&self) -> &[(HeaderName, HeaderName)] {
        &[]
    }

    /// What the plugin [declares](Plugin::declare_assertions), with the locations of credentials. `None` if it asserts
    /// nothing.
    fn assertions(&self) -> Option<Arc<Assertions>> {
        let mut assertions = Assertions::default();
        self.declare_assertions(&mut assertions);
        assertions.complete(self.credential_locations().map(|locations| locations.headers))
    }

    /// Names all header fields that `access` and `response` may set, change or remove, in every spelling that they have
    /// after the change. Such fields are not forwarded in trailers and informational responses. Names that a
    /// server chooses are declared by [`RequestCx::declare_request_field`], and those of
    /// [`Plugin::declare_assertions`] need not be repeated.
    fn declare_fields(&self, fields: &mut ChangedFields) {
        let _ = fields;
    }

    /// Whether `access` sets the request id, in [`RequestCx::new_id`]. The plugin then gets the header `X-Request-ID`
    /// as the client sent it, instead of the id that Portico has chosen.
    fn sets_request_id(&self) -> bool {
        false
    }

    /// How many bytes of the request body to buffer before `access`; larger bodies are rejected with 413. With `None`,
    /// as in nearly all plugins, the body is not buffered for this plugin.
    fn body_buffer_limit(&self) -> Option<usize> {
        None
    }

    /// Whether to buffer the body of a request with this head, up to [`Plugin::body_buffer_limit`]. Another plugin may
    /// request that the body is buffered, whatever this one returns.
    fn buffers_body(&self, head: &request::Parts) -> bool {
        let _ = head;
        true
    }
}

/// A consumer that the configuration of a plugin names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedConsumer<'p> {
    /// The path of the field below `config`, such as `anonymous`.
    pub path: String,
    /// The id or the username.
    pub name: &'p str,
    /// What happens to requests while the consumer does not exist: a clause such as `they get status 500`.
    pub consequence: &'static str,
}

/// A consumer group that the configuration of a plugin names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedGroup<'p> {
    /// The path of the field below `config`, such as `plans[0].groups[0]`.
    pub path: String,
    /// The namespace and the name, such as `default/gold`.
    pub name: &'p str,
    /// What that means while the group does not exist: a clause such as `they get no plan`.
    pub consequence: &'static str,
}

/// The result of `access` and of `before_forward`. Most plugins decide synchronously and allocate nothing.
pub enum AccessOutcome<'a> {
    Continue,
    Reply(Box<Reply>),
    /// The decision needs to wait, for example for another server or for a thread that hashes a password.
    Wait(LocalBoxFuture<'a, Option<Box<Reply>>>),
}

/// What a plugin sends in place of the backend. There is always something: no request goes to the backend nevertheless.
pub enum BackendReplacement<'a> {
    Reply(Box<Reply>),
    Wait(LocalBoxFuture<'a, Box<Reply>>),
}

/// The result of `response`. Plugins that do not wait allocate nothing.
pub enum ResponseOutcome<'a> {
    Continue,
    /// The reply replaces the response. The phase begins again for the reply, without this plugin and without the body
    /// filters that were added for the former response.
    Replace(Box<Reply>),
    /// The decision needs to wait, for example for a cache. The head of the response is sent afterwards.
    Wait(LocalBoxFuture<'a, Option<Box<Reply>>>),
}

/// Context of the phase `replace_backend`.
pub struct ReplaceBackendCx<'r> {
    /// The head that the backend would get: plugins, authorization servers, and the filters of the rule and of the
    /// backend have changed it.
    pub head: &'r request::Parts,
    /// The target and the host for payloads that show them as the client sent them.
    pub target: ShownTarget<'r>,
    /// The groups of the route's regular expression, for the path of the client.
    pub uri_captures: &'r dyn UriCaptures,
    pub client: ClientInfo<'r>,
    pub id: &'r HeaderValue,
    pub now: SystemTime,
    /// Whether the request has content.
    pub has_body: bool,
    /// The whole body as the backend would get it, if it was buffered. See [`ReplaceBackendCx::whole_body`].
    pub body: Option<&'r Bytes>,
    /// Whether the client requests another protocol, such as WebSocket.
    pub is_upgrade: bool,
    /// How many Portico processes have forwarded the request, with this one. Requests that the plugin sends have the
    /// number, so that loops end.
    pub hops: HopCount,
    /// What functions have stored for the plugins of this request, if any has.
    pub shared_values: Option<&'r shared_values::SharedValues>,
    pub route: &'r RouteNames,
    /// The backend of the request.
    pub backend: &'r dyn named_backend::NamedBackend,
    /// For the bodies of responses that the plugin collects.
    pub body_budget: &'r dyn BodyBudget,
    /// What was taken of it for the reply: held until the client has a reply with [`ReplyBody::Collected`].
    ///
    /// [`ReplyBody::Collected`]: ReplyBody::Collected
    pub kept: &'r mut Vec<Box<dyn KeptBytes>>,
}

/// The target and the host of a request as its client sent them, unless a filter of the rule or of the backend has
/// written others.
#[derive(Clone, Copy, Debug)]
pub struct ShownTarget<'r> {
    /// The path that the router matched.
    pub path: &'r str,
    /// The path and the query.
    pub raw: &'r str,
    pub query: Option<&'r str>,
    pub host: &'r str,
}

impl ReplaceBackendCx<'_> {
    /// The whole body as all plugins have left it. `None` if there is one that was not buffered, so that it cannot be
    /// sent.
    pub fn whole_body(&self) -> Option<Bytes> {
        if self.has_body { self.body.cloned() } else { Some(Bytes::new()) }
    }

    /// The body, which is empty if it was not buffered.
    pub fn buffered_body(&self) -> &[u8] {
        self.body.map_or(&[], |body| body)
    }
}
