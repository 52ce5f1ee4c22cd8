//! Test harness for plugins: builds a chain from configurations and runs requests through it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::time::Instant;

use super::StreamChain;
use super::chain::{
    AccessEnd, AllowedRequest, AttachmentPoint, BaseScope, Chain, ChainBuilder, ChainRequest, ChainResponse,
    ChainState, ForwardingOutcome, ReplacedRequest, RequestBodyState,
};
use super::stream_chain::StreamChainBuilder;
use crate::diagnostic::Diagnostic;
use crate::hop_count::HopCount;
use crate::plugin_api::body_budget::FixedBudget;
use crate::plugin_api::body_filter::{BodyFilter, CodedHead};
use crate::plugin_api::changed_fields::FieldNames;
use crate::plugin_api::completed_request::{CompletedRequest, LoggedHeads};
use crate::plugin_api::consumers::EntityId;
use crate::plugin_api::consumers::chain_digest;
use crate::plugin_api::context::{
    ArrivedRequest, BackgroundPlaces, BackgroundSlot, CertificateFindings, ClientCertificate, ClientInfo, Framing,
    RequestLine, RequestSummary, RespondedRequest, ResponseSource, RouteNames, UriCaptures,
};
use crate::plugin_api::instance::PluginInstance;
use crate::plugin_api::kind::{AnyPluginKind, BuildCx, BuildNotes, Phases};
use crate::plugin_api::named_backend::{NamedBackend, NamedServer};
use crate::plugin_api::reply::{Reply, ReplyBody};
use crate::plugin_api::scheme::Scheme;
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::{Consumer, ConsumerDirectory, Plugin, PluginServices, PluginState, ShownTarget};
use crate::shared_limit::SharedLimit;

/// Builds a plugin without runtime services.
pub fn build(kind: &dyn AnyPluginKind, config: &Value) -> Result<Arc<dyn Plugin>, Vec<Diagnostic>> {
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    build_with(kind, config, &PluginState::default(), &services)
}

/// Like [`build`], with the given state and services.
pub fn build_with(
    kind: &dyn AnyPluginKind,
    config: &Value,
    state: &PluginState,
    services: &Arc<dyn PluginServices>,
) -> Result<Arc<dyn Plugin>, Vec<Diagnostic>> {
    kind.build(
        config,
        &BuildCx { object: "KongPlugin/default/test", state, services, node: "test", notes: &BuildNotes::default() },
    )
}

/// The notes that building a plugin adds about a valid configuration.
pub fn notes(kind: &dyn AnyPluginKind, config: &Value) -> Vec<Diagnostic> {
    let (state, notes) = (PluginState::default(), BuildNotes::default());
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    let cx =
        BuildCx { object: "KongPlugin/default/test", state: &state, services: &services, node: "test", notes: &notes };
    kind.build(config, &cx).unwrap_or_else(|invalid| panic!("{}: {invalid:?}", kind.name()));
    notes.into_vec()
}

/// A chain of these plugins, all attached to the route.
pub fn chain(plugins: &[(&dyn AnyPluginKind, Value)]) -> Arc<Chain> {
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    chain_with(plugins, &PluginState::default(), &services)
}

/// A chain of these plugins for connections, all attached to the route.
pub fn stream_chain(plugins: &[(&dyn AnyPluginKind, Value)]) -> Arc<StreamChain> {
    let mut builder = StreamChainBuilder::default();
    for (kind, config) in plugins {
        let plugin = build(*kind, config).unwrap_or_else(|invalid| panic!("{}: {invalid:?}", kind.name()));
        builder.add(kind.name(), kind.priority(), BaseScope::Route, instance(*kind, plugin));
    }
    builder.build().expect("a chain of a test has plugins")
}

/// Like [`chain`], with the given state and services.
pub fn chain_with(
    plugins: &[(&dyn AnyPluginKind, Value)],
    state: &PluginState,
    services: &Arc<dyn PluginServices>,
) -> Arc<Chain> {
    let mut builder = ChainBuilder::default();
    for (kind, config) in plugins {
        let plugin =
            build_with(*kind, config, state, services).unwrap_or_else(|invalid| panic!("{}: {invalid:?}", kind.name()));
        builder.add(kind.name(), kind.priority(), AttachmentPoint::Base(BaseScope::Route), instance(*kind, plugin));
    }
    builder.build(names()).unwrap_or_else(|| panic!("a chain needs at least one plugin"))
}

/// The plugin as an instance that is attached to the route.
pub fn instance(kind: &dyn AnyPluginKind, plugin: Arc<dyn Plugin>) -> PluginInstance {
    PluginInstance {
        assertions: plugin.assertions(),
        plugin,
        phases: kind.phases(),
        scope: "HTTPRoute/default/test/0".into(),
        object: "KongPlugin/default/test".into(),
        configuration_hash: 0,
        first_backend: 0,
    }
}

/// The plugin as an instance that runs for all requests, in all phases.
pub fn global_instance(plugin: Arc<dyn Plugin>) -> PluginInstance {
    PluginInstance {
        assertions: plugin.assertions(),
        plugin,
        phases: Phases {
            access: true,
            before_forward: true,
            replace_backend: false,
            response: true,
            log: true,
            stream_open: false,
        },
        scope: "global".into(),
        object: "KongPlugin/default/test".into(),
        configuration_hash: 0,
        first_backend: 0,
    }
}

/// The names of the route and the service that chains get.
pub fn names() -> Arc<RouteNames> {
    Arc::new(RouteNames {
        namespace: "default".into(),
        route: "default.test.web..80".into(),
        service: "default.web.80".into(),
        ..RouteNames::default()
    })
}

/// A consumer `name` in these ACL groups, whose id is `id-name` and whose custom id is `custom-name`.
pub fn consumer(name: &str, acls: &[&str]) -> Arc<Consumer> {
    let acls = acls.iter().copied().map(Arc::from).collect();
    Arc::new(Consumer::new(
        EntityId::from_text(&format!("id-{name}")),
        Some(name),
        Some(&format!("custom-{name}")),
        Vec::new(),
        acls,
    ))
}

/// A consumer without a name, whose configuration gives it an id.
pub fn consumer_with_given_id(id: &str, given: &str) -> Arc<Consumer> {
    let consumer = Consumer::new(EntityId::from_text(id), None, None, Vec::new(), Vec::new());
    Arc::new(consumer.with_given_id(EntityId::from_text(given)))
}

/// Noon of 2026-01-02.
pub fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_355_200)
}

/// A request to run through a chain; by default from 192.0.2.1 over HTTP at [`noon`].
pub struct TestRequest {
    pub request: Request<Bytes>,
    pub consumers: ConsumerDirectory,
    pub address: std::net::IpAddr,
    pub scheme: Scheme,
    pub now: SystemTime,
    pub uri_captures: TestCaptures,
    /// The certificates of the client. `None` if it is not asked for any.
    pub certificates: Option<Vec<CertificateDer<'static>>>,
    pub is_peer_trusted: bool,
    /// What a trusted peer reports in place of the host of the request, and its port.
    pub reported_host: Option<(&'static str, u16)>,
    /// How many requests may be forwarded in the background.
    pub background_places: usize,
    /// The bytes that bodies of responses may have which plugins collect.
    pub body_budget: FixedBudget,
    /// Whether the body is buffered if a plugin needs it.
    pub may_buffer: bool,
    /// The server that the backend names.
    pub backend: Option<NamedServer>,
    /// The response of the endpoint.
    pub upstream_response: Response<()>,
    /// The body that the endpoint sends, if the request is forwarded.
    pub upstream_body: Bytes,
}

/// A backend that names this server.
struct TestBackend<'r>(Option<&'r NamedServer>);

impl NamedBackend for TestBackend<'_> {
    fn server(&self) -> Option<NamedServer> {
        self.0.cloned()
    }
}

/// The groups of the route's regular expression: each with its name, in order.
#[derive(Clone, Debug, Default)]
pub struct TestCaptures(pub Vec<(&'static str, String)>);

impl UriCaptures for TestCaptures {
    fn group(&self, number: usize) -> Option<&str> {
        Some(&self.0.get(number.checked_sub(1)?)?.1)
    }

    fn named_group(&self, name: &str) -> Option<&str> {
        Some(&self.0.iter().find(|(group, _)| *group == name)?.1)
    }

    fn named_groups(&self) -> Vec<(&str, &str)> {
        let named = self.0.iter().filter(|(name, _)| !name.is_empty());
        named.map(|(name, text)| (*name, text.as_str())).collect()
    }
}

/// The result of a [`TestRequest`].
pub struct TestOutcome {
    /// The request head for the endpoint; also present if a plugin replied.
    pub request: http::request::Parts,
    pub reply: Option<Box<Reply>>,
    /// The response head after the response phase.
    pub response: http::response::Parts,
    pub state: ChainState,
}

impl TestRequest {
    pub fn new(request: Request<Bytes>) -> Self {
        TestRequest {
            request,
            consumers: ConsumerDirectory::default(),
            address: [192, 0, 2, 1].into(),
            scheme: Scheme::Http,
            now: noon(),
            uri_captures: TestCaptures::default(),
            certificates: None,
            is_peer_trusted: false,
            reported_host: None,
            background_places: 0,
            body_budget: FixedBudget(Arc::new(AtomicUsize::new(64 << 20))),
            may_buffer: true,
            backend: None,
            upstream_response: Response::new(()),
            upstream_body: Bytes::new(),
        }
    }

    /// A POST request with a body of this content type.
    pub fn post(uri: &str, content_type: &str, body: impl Into<Bytes>) -> Self {
        let request = Request::post(uri).header(http::header::CONTENT_TYPE, content_type).body(body.into());
        TestRequest::new(request.unwrap_or_else(|error| panic!("{uri} {content_type}: {error}")))
    }

    pub fn get(uri: &str) -> Self {
        let request = Request::get(uri).body(Bytes::new());
        TestRequest::new(request.unwrap_or_else(|error| panic!("{uri}: {error}")))
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).unwrap_or_else(|error| panic!("{value}: {error}"));
        self.request.headers_mut().append(name, value);
        self
    }

    #[must_use]
    pub fn with_consumers(mut self, consumers: &ConsumerDirectory) -> Self {
        self.consumers = consumers.clone();
        self
    }

    /// Runs all phases of a chain. Panics if a plugin changes a header field that it does not declare.
    pub async fn run(self, chain: &Chain) -> TestOutcome {
        let (mut head, body) = self.request.into_parts();
        let uri = head.uri.clone();
        let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("test.example");
        let host = host.to_owned();
        // As in the proxy, plugins get these headers as `Framing`.
        let header = |name| head.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
        let framing = Framing {
            is_chunked: header(http::header::TRANSFER_ENCODING) == b"chunked",
            has_body: !body.is_empty() || header(http::header::TRANSFER_ENCODING) == b"chunked",
            expects_continue: header(http::header::EXPECT) == b"100-continue",
        };
        head.headers.remove(http::header::TRANSFER_ENCODING);
        head.headers.remove(http::header::EXPECT);
        let id = HeaderValue::from_static("0123456789abcdef0123456789abcdef");
        let accept = head.headers.get(http::header::ACCEPT).cloned();
        let line = RequestLine { target: uri.clone(), host: HeaderValue::from_str(&host).ok() };
        let mut heads = chain.logs_heads(&self.consumers).then(|| LoggedHeads {
            method: head.method.clone(),
            target: uri.clone(),
            version: head.version,
            client: self.address,
            scheme: self.scheme,
            host: HeaderValue::from_str(&host).unwrap_or_else(|error| panic!("{host}: {error}")),
            port: 80,
            request: head.headers.clone(),
            response: HeaderMap::new(),
            upstream_target: None,
        });
        let mut state = ChainState::default();
        let received = head.headers.clone();
        let buffers_body = self.may_buffer && chain.body_buffer_limit_for(&head).is_some();
        let findings = CertificateFindings::default();
        let digest = chain_digest(self.certificates.as_deref().unwrap_or_default());
        let client = ClientInfo {
            address: self.address,
            scheme: self.scheme,
            host: self.reported_host.map_or(&*host, |(reported, _)| reported),
            port: self.reported_host.map_or(80, |(_, port)| port),
            separate_port: None,
            received: ArrivedRequest {
                peer: SocketAddr::new(self.address, 40_000),
                // A trusted peer reports the scheme, and its own connection uses no TLS.
                scheme: if self.is_peer_trusted { Scheme::Http } else { self.scheme },
                host: &host,
                port: 80,
            },
            is_peer_trusted: self.is_peer_trusted,
            certificate: match self.certificates.as_deref() {
                None => ClientCertificate::NotRequested,
                Some([]) => ClientCertificate::Missing,
                Some(chain) => ClientCertificate::Chain(chain, &digest, &findings),
            },
        };
        let mut is_read = buffers_body;
        let mut reply = loop {
            let request = ChainRequest {
                head: &mut head,
                path: uri.path(),
                query: uri.query(),
                raw_target: uri.path_and_query().map_or("/", |target| target.as_str()),
                uri_captures: &self.uri_captures,
                client,
                framing,
                id: &id,
                body: if is_read { RequestBodyState::Read(&body) } else { RequestBodyState::Unread },
                consumers: &self.consumers,
                now: self.now,
            };
            match chain.access(request, &mut state).await {
                AccessEnd::Complete => break None,
                AccessEnd::Reply(reply) => break Some(reply),
                AccessEnd::NeedsBody(_) => is_read = true,
            }
        };
        let mut declared = chain.changed_fields();
        declared.merge(state.fields_of_request().unwrap_or_default());
        expect_declared("request", &received, &head.headers, &declared.request);
        let current = state.body_changes.replacement.clone().unwrap_or_else(|| body.clone());
        let has_body = !current.is_empty();
        if reply.is_none() && chain.runs_before_forward(&state) {
            let (path, query) = (uri.path(), uri.query());
            let limit = SharedLimit::new(self.background_places);
            let head = &mut head;
            let request = AllowedRequest {
                head,
                has_body,
                body: Some(&current).filter(|_| is_read),
                is_upgrade: false,
                hops: HopCount::new(1),
                path,
                query,
                client,
                id: &id,
                now: self.now,
                background_places: BackgroundPlaces { limit: &limit, namespace: "default" },
                background: &mut BackgroundSlot::default(),
            };
            reply = chain.before_forward(request, &mut state).await;
            expect_declared("request", &received, &head.headers, &declared.request);
        }
        if reply.is_none()
            && let Some(replacement) = chain.replacement(&state)
        {
            let request = ReplacedRequest {
                head: &head,
                target: ShownTarget {
                    path: uri.path(),
                    raw: uri.path_and_query().map_or("/", |target| target.as_str()),
                    query: uri.query(),
                    host: &host,
                },
                uri_captures: &self.uri_captures,
                client,
                id: &id,
                now: self.now,
                has_body,
                body: Some(&current).filter(|_| is_read),
                is_upgrade: false,
                hops: HopCount::new(1),
                backend: &TestBackend(self.backend.as_ref()),
                body_budget: &self.body_budget,
                kept: &mut Vec::new(),
            };
            reply = Some(chain.replace_backend(replacement, request, &mut state).await);
        }
        let (mut response, ()) = self.upstream_response.into_parts();
        if reply.is_none() && chain.runs_before_forward(&state) {
            let mut observers = Vec::new();
            let (status, headers) = (Some(response.status), &response.headers);
            let forwarded = ForwardingOutcome { status, headers, now: self.now, observers: &mut observers };
            reply = chain.after_forward(forwarded, &mut state);
            for mut observer in observers {
                observer.part(self.upstream_body.clone());
                observer.end();
            }
        }
        let mut source = ResponseSource::Service;
        if let Some(reply) = &reply {
            response.status = reply.status;
            response.headers = reply.headers.clone();
            source = ResponseSource::Plugin;
        }
        let (received, mut is_replaced) = (response.headers.clone(), false);
        let chain_response = ChainResponse {
            status: &mut response.status,
            headers: &mut response.headers,
            source,
            id: &id,
            request: RespondedRequest {
                accept: accept.as_ref(),
                is_call: false,
                reason: reply.as_ref().map(|reply| reply.reason),
                line: Some(&line),
            },
            replace: &mut |reply, _| {
                is_replaced = true;
                (reply.status, reply.headers)
            },
        };
        let source = chain.response(&mut state, chain_response).await;
        if !is_replaced {
            expect_declared("response", &received, &response.headers, &declared.response);
        }
        if let Some(heads) = &mut heads {
            heads.response.clone_from(&response.headers);
            heads.upstream_target = reply.is_none().then(|| head.uri.clone());
        }
        let (status, bytes_in, bytes_out) = (response.status, body.len() as u64, 0);
        let upstream = (source == ResponseSource::Service).then_some(Duration::from_millis(5));
        let summary = RequestSummary { status, source, total: Duration::from_millis(7), upstream, bytes_in, bytes_out };
        let request = CompletedRequest {
            id: &id,
            started_at: self.now,
            started_instant: Instant::now(),
            heads: heads.as_ref(),
            tls: None,
            attempts: &[],
            authorizations: &[],
            before_upstream: upstream.map(|_| Duration::from_millis(1)),
            until_response: Some(Duration::from_millis(6)),
            error: None,
            credentials: chain.credential_locations(),
        };
        chain.log(&state, &summary, &request);
        TestOutcome { request: head, reply, response, state }
    }
}

/// Checks that a plugin declares each field that it changes, as [`Plugin::declare_fields`] requires.
fn expect_declared(message: &str, before: &HeaderMap, after: &HeaderMap, declared: &FieldNames) {
    for name in before.keys().chain(after.keys()) {
        let is_changed = !before.get_all(name).iter().eq(after.get_all(name));
        assert!(
            !is_changed || declared.contains(name),
            "a plugin changes the field {name} of the {message}, which its `declare_fields` does not name"
        );
    }
}

impl TestOutcome {
    /// The status of a plugin's reply.
    pub fn reply_status(&self) -> Option<StatusCode> {
        self.reply.as_ref().map(|reply| reply.status)
    }

    /// The identity headers for the endpoint: username, credential, and whether the consumer is the anonymous one.
    pub fn upstream_identity(&self) -> (Option<&str>, Option<&str>, bool) {
        let anonymous = self.upstream_header("x-anonymous-consumer") == Some("true");
        (self.upstream_header("x-consumer-username"), self.upstream_header("x-credential-identifier"), anonymous)
    }

    /// Reads the body of a reply that streams, up to its end or an error, which [`TestOutcome::message`] then returns.
    /// Returns whether it is complete.
    pub async fn read_stream(&mut self) -> bool {
        let Some(reply) = &mut self.reply else { return true };
        let ReplyBody::Stream(stream) = &mut reply.body else { return true };
        let (mut body, mut is_complete) = (Vec::new(), true);
        while let Some(part) = poll_fn(|cx| stream.poll_part(cx)).await {
            match part {
                Ok(data) => body.extend_from_slice(&data),
                Err(_) => {
                    is_complete = false;
                    break;
                }
            }
        }
        reply.body = ReplyBody::Raw(body.into());
        is_complete
    }

    /// The message of a plugin's reply.
    pub fn message(&self) -> Option<&str> {
        match &self.reply.as_ref()?.body {
            ReplyBody::Negotiated(message) | ReplyBody::Plain(message) => Some(message),
            ReplyBody::Raw(bytes) | ReplyBody::Collected(bytes) => std::str::from_utf8(bytes).ok(),
            ReplyBody::Empty | ReplyBody::Stream(_) => None,
        }
    }

    /// The response body after the buffered filters that the plugins added, applied to this body of the endpoint.
    pub fn filter_body(&mut self, body: impl Into<Bytes>) -> Bytes {
        self.filter_body_with(body, None)
    }

    /// Like [`TestOutcome::filter_body`], for a body with trailers.
    pub fn filter_body_with(&mut self, body: impl Into<Bytes>, trailers: Option<&HeaderMap>) -> Bytes {
        let (codings, filters): (Vec<_>, Vec<_>) = std::mem::take(&mut self.state.body_filters)
            .into_iter()
            .partition(|filter| matches!(filter.filter, BodyFilter::Coding(_)));
        let http::response::Parts { status, headers, .. } = &mut self.response;
        filters.into_iter().chain(codings).fold(body.into(), |body, filter| match filter.filter {
            BodyFilter::Buffered(filter) => (filter.transform)(&body).unwrap_or(body),
            BodyFilter::Checked(filter) => {
                self.reply = (filter.check)(&body).or(self.reply.take());
                body
            }
            BodyFilter::Converted(filter) => {
                let converted = (filter.convert)(&body, trailers);
                *status = converted.status;
                converted.body
            }
            BodyFilter::Streaming(mut filter) => {
                let part = filter.part(body);
                if let Some(trailers) = trailers {
                    filter.trailers(trailers.clone());
                }
                [part, filter.end()].concat().into()
            }
            BodyFilter::Coding(choose) => {
                let length = Some(body.len() as u64);
                let Some(coding) = choose(CodedHead { status: *status, headers, length }) else { return body };
                headers.insert(http::header::CONTENT_ENCODING, coding.name);
                let Some(mut encoder) = (coding.start)() else { panic!("an encoder cannot be created") };
                [encoder.part(body), encoder.end()].concat().into()
            }
        })
    }

    /// A header of the request to the endpoint.
    pub fn upstream_header(&self, name: &str) -> Option<&str> {
        self.request.headers.get(name)?.to_str().ok()
    }

    /// A header of the response to the client.
    pub fn response_header(&self, name: &str) -> Option<&str> {
        self.response.headers.get(name)?.to_str().ok()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::plugin_api::{AccessOutcome, ChangedFields, RequestCx, ResponseCx, ResponseOutcome};

    const NAME: HeaderName = HeaderName::from_static("x-user");

    /// Changes a field in some phases, and declares it for the others.
    struct ChangesField {
        in_access: bool,
        in_response: bool,
        of_response_in_access: bool,
        declares: bool,
    }

    impl Plugin for ChangesField {
        fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
            if self.in_access {
                cx.head.headers.remove(NAME);
            }
            if self.of_response_in_access {
                cx.response_headers.insert(NAME, HeaderValue::from_static("b"));
            }
            AccessOutcome::Continue
        }

        fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
            if self.in_response {
                cx.headers.insert(NAME, HeaderValue::from_static("b"));
            }
            ResponseOutcome::Continue
        }

        fn declare_fields(&self, fields: &mut ChangedFields) {
            if self.declares == self.in_access {
                fields.request.add(&NAME);
            } else {
                fields.response.add(&NAME);
            }
        }
    }

    async fn run(plugin: ChangesField) {
        let mut builder = ChainBuilder::default();
        let base = AttachmentPoint::Base(BaseScope::Global);
        builder.add("changes-field", 1, base, global_instance(Arc::new(plugin)));
        TestRequest::get("/").header("x-user", "a").run(&builder.build(names()).unwrap()).await;
    }

    const CHANGES_NOTHING: ChangesField =
        ChangesField { in_access: false, in_response: false, of_response_in_access: false, declares: true };

    #[tokio::test]
    async fn declared_fields_may_be_changed() {
        run(ChangesField { in_access: true, ..CHANGES_NOTHING }).await;
        run(ChangesField { in_response: true, ..CHANGES_NOTHING }).await;
        run(ChangesField { of_response_in_access: true, ..CHANGES_NOTHING }).await;
    }

    #[tokio::test]
    #[should_panic(expected = "a plugin changes the field x-user of the request")]
    async fn fields_of_requests_must_be_declared() {
        run(ChangesField { in_access: true, declares: false, ..CHANGES_NOTHING }).await;
    }

    #[tokio::test]
    #[should_panic(expected = "a plugin changes the field x-user of the response")]
    async fn fields_of_responses_must_be_declared() {
        run(ChangesField { in_response: true, declares: false, ..CHANGES_NOTHING }).await;
    }

    #[tokio::test]
    #[should_panic(expected = "a plugin changes the field x-user of the response")]
    async fn fields_of_responses_that_access_changes_must_be_declared() {
        run(ChangesField { of_response_in_access: true, declares: false, ..CHANGES_NOTHING }).await;
    }
}
