//! The context that the steps of one request share. It also selects the metric series in which the request is counted.

use std::sync::Arc;

use http::{HeaderMap, Request, Version};

use super::affinity::BackendAffinity;
use super::error_response::ErrorFormat;
use super::hash_cookies::GeneratedCookies;
use super::order::RequestStep;
use super::request_record::RequestRecord;
use super::unwritten_forwarding::UnwrittenForwarding;
use crate::begun_trace::BegunTrace;
use crate::forwarding_fields::X_REQUEST_ID;
use crate::hop_count::HopCount;
use crate::plugin_api::completed_request::LoggedHeads;
use crate::plugin_api::trace::EndpointTrace;
use crate::plugin_api::{Framing, RequestLine};
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::forwarding::upgrade::Upgrade;
use crate::proxy::http::record::request_facts;
use crate::proxy::telemetry::request_tracer::{RequestTracing, TracedPlace};
use crate::proxy::worker::snapshot_view::SnapshotView;
use crate::request_target::{RequestHost, RequestPath};
use crate::snapshot::HttpListener;
use crate::snapshot::router::MatchedPath;
use crate::snapshot::rule::{Backend, RouteRule};
use crate::snapshot::rule_options::{ProductHeaderNames, UnmatchedStyle};
use crate::upstream::ClientSlot;

/// The context of a request from its head to its response: the configuration it uses, how far it was routed, and its
/// record with the connection, the request id and the times.
///
/// The series of the request is set when this is dropped, which also happens when the client disconnects. So no step
/// can forget it, and the request is counted at the most specific point that it has reached.
pub(in crate::proxy) struct RequestContext<'r> {
    pub(in crate::proxy) view: &'r SnapshotView,
    pub(in crate::proxy) record: &'r mut RequestRecord,
    pub(in crate::proxy) error_format: ErrorFormat,
    /// The HTTP version of the client's request.
    pub(in crate::proxy) version: Version,
    pub(in crate::proxy) listener: Option<&'r Arc<HttpListener>>,
    pub(in crate::proxy) rule: Option<&'r Arc<RouteRule>>,
    pub(in crate::proxy) backend: Option<&'r Backend>,
    /// Boxed, because few requests have one.
    pub(in crate::proxy) affinity: Option<Box<BackendAffinity<'r>>>,
    /// The cookies that were generated for load balancing by hash.
    pub(in crate::proxy) hash_cookies: Option<Box<GeneratedCookies>>,
    /// The style of the response if no rule matches.
    pub(in crate::proxy) style_without_rule: UnmatchedStyle,
    /// The target and the host of the request, until its plugins have them. Copied only if plugins run for responses
    /// without a rule.
    pub(in crate::proxy) request_line: Option<Box<RequestLine>>,
    /// The trace for the endpoint, until the header has it.
    pub(in crate::proxy) unwritten_trace: Option<BegunTrace>,
    /// The forwarding fields, until the header has them.
    pub(in crate::proxy) unwritten_forwarding: Option<UnwrittenForwarding>,
    /// Whether the `Trailer` field of an endpoint's response is forwarded to the client.
    pub(in crate::proxy) accepts_trailers: bool,
    #[cfg(debug_assertions)]
    pub(super) step: RequestStep,
}

fn request_line<B>(request: &Request<B>) -> RequestLine {
    RequestLine { target: request.uri().clone(), host: request_facts::host(request) }
}

impl<'r> RequestContext<'r> {
    pub(in crate::proxy) fn new<B>(
        view: &'r SnapshotView,
        record: &'r mut RequestRecord,
        request: &Request<B>,
    ) -> Self {
        let error_format = ErrorFormat::from_request(request, record.exchange.protocol);
        RequestContext {
            view,
            record,
            error_format,
            version: request.version(),
            listener: None,
            rule: None,
            backend: None,
            affinity: None,
            hash_cookies: None,
            style_without_rule: UnmatchedStyle::default(),
            request_line: view.snapshot.unmatched_plugins.as_ref().map(|_| Box::new(request_line(request))),
            unwritten_trace: None,
            unwritten_forwarding: None,
            accepts_trailers: true,
            #[cfg(debug_assertions)]
            step: RequestStep::Target,
        }
    }

    pub(in crate::proxy) fn exchange(&self) -> &ClientExchange {
        &self.record.exchange
    }

    /// Begins a step. Panics in builds with debug assertions if the steps are not in their order.
    pub(in crate::proxy) fn enter(&mut self, step: RequestStep) {
        #[cfg(debug_assertions)]
        {
            assert!(self.step <= step, "{step:?} follows {:?}", self.step);
            self.step = step;
        }
        #[cfg(not(debug_assertions))]
        let _ = step;
    }

    /// Begins the trace of the request, which is routed now, if a tracer is active.
    pub(in crate::proxy) fn begin_trace<B>(&mut self, request: &Request<B>) {
        let exchange = &self.record.exchange;
        let Some(tracer) = exchange.worker().tracer() else { return };
        let may_have_trace = exchange.activity.may_have_trace.get();
        let tracing = tracer.begin(request, self.traced_place(), exchange.client.trusted, may_have_trace);
        self.record.facts.tracing = tracing;
    }

    /// Writes the trace for the endpoint, if a tracer is active: into the header, or, if that is possible, with it when
    /// the request is sent.
    pub(in crate::proxy) fn write_trace(&mut self, headers: &mut HeaderMap) {
        match &self.record.facts.tracing {
            RequestTracing::Off => {}
            RequestTracing::Begun(trace) => self.unwritten_trace = Some(*trace),
            RequestTracing::Kept(traced) => {
                if let Some(tracer) = self.exchange().worker().tracer() {
                    tracer.inject(traced, self.traced_place(), headers);
                }
            }
        }
    }

    /// Writes the trace and the forwarding fields into the header if that is not done yet. To be called before
    /// something reads all fields, or reads or changes some by configuration, or replaces Host.
    pub(in crate::proxy) fn write_pending(&mut self, headers: &mut HeaderMap) {
        if let Some(trace) = self.unwritten_trace.take() {
            trace.set(headers);
        }
        if let Some(unwritten) = self.unwritten_forwarding.take() {
            let exchange = self.exchange();
            let via = exchange.http.product_headers.via_of_request(self.product_header_names().is_some(), self.version);
            let fields = unwritten.fields(&exchange.client, &self.record.facts.request_id, via);
            fields.set(exchange.client.port_value(unwritten.port), headers);
        }
    }

    /// What endpoints get of the trace.
    pub(in crate::proxy) fn endpoint_trace(&mut self) -> EndpointTrace {
        match self.unwritten_trace.take() {
            Some(trace) => EndpointTrace::Unwritten(trace),
            None => self.record.recorded_trace().map_or(EndpointTrace::Unchanged, EndpointTrace::written),
        }
    }

    fn traced_place(&self) -> TracedPlace<'_> {
        TracedPlace {
            traces: &self.view.snapshot.traces,
            listener: self.listener.map(|listener| &**listener),
            rule: self.rule.map(|rule| &**rule),
        }
    }

    /// The names of the product headers to write; `None` to write none.
    pub(in crate::proxy) fn product_header_names(&self) -> Option<&'static ProductHeaderNames> {
        let option = match self.rule {
            Some(rule) => rule.options().product_headers,
            None => self.style_without_rule.product_headers,
        };
        self.exchange().http.product_headers.names(option)
    }

    /// Takes the style of the response from the address, because the request is refused before a listener is selected.
    pub(in crate::proxy) fn set_style_without_listener(&mut self) {
        if let Some(bind) = self.view.http_bind(&self.exchange().connections.address) {
            self.style_without_rule = bind.style_without_listener();
        }
    }

    /// Copies the head of the request, and the facts about its client that plugins get.
    pub(in crate::proxy) fn copy_heads<B>(&mut self, routed: &RoutedRequest<'_>, request: &Request<B>) {
        let client = &self.record.client;
        self.record.facts.heads = Some(Box::new(LoggedHeads {
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            client: client.address,
            scheme: client.scheme,
            host: client.host(&routed.host).raw.clone(),
            port: client.port(routed.listener.port),
            request: request.headers().clone(),
            response: HeaderMap::new(),
            upstream_target: None,
        }));
    }

    /// Sets the request id of a response, unless the endpoint has sent one.
    pub(in crate::proxy) fn set_request_id(&self, headers: &mut HeaderMap) {
        headers.entry(X_REQUEST_ID).or_insert_with(|| self.record.facts.request_id.clone());
    }

    /// Sets the request id, then applies the response filters of the backend and the rule, which may change it.
    pub(in crate::proxy) fn apply_response_filters(&self, headers: &mut HeaderMap) {
        self.set_request_id(headers);
        let levels = [self.backend.map(|backend| &backend.filters), self.rule.map(|rule| &rule.filters)];
        for edits in levels.into_iter().flatten().filter_map(|filters| filters.response_headers.as_ref()) {
            edits.apply(headers);
        }
    }
}

impl Drop for RequestContext<'_> {
    fn drop(&mut self) {
        if let Some(observed) = &mut self.record.facts.observed {
            observed.set_route(self.listener.map(|listener| &**listener), self.rule.map(|rule| &**rule), self.backend);
        }
        // Requests that reach no listener share a series of their own.
        if let Some(listener) = self.listener {
            let worker = self.record.exchange.worker();
            self.record.facts.series = Some(self.view.series(worker, listener, self.rule, self.backend));
        }
    }
}

/// A request whose rule is known. Dropped before the request is forwarded, so that it takes no memory while the
/// response is awaited.
pub(in crate::proxy) struct RoutedRequest<'r> {
    pub(in crate::proxy) listener: &'r Arc<HttpListener>,
    pub(in crate::proxy) rule: &'r Arc<RouteRule>,
    /// The part of the rule that matched the path.
    pub(in crate::proxy) matched: MatchedPath<'r>,
    pub(in crate::proxy) host: RequestHost,
    /// The path that was matched.
    pub(in crate::proxy) path: RequestPath,
    /// The path for the endpoint, if the rule or a plugin has replaced it.
    pub(in crate::proxy) replaced_path: Option<RequestPath>,
    /// A plugin has set the whole path, so filters do not change it.
    pub(in crate::proxy) has_plugin_path: bool,
    pub(in crate::proxy) upgrade: Option<Box<Upgrade>>,
    /// The framing of the body, for plugins; read before the hop-by-hop headers are removed.
    pub(in crate::proxy) framing: Framing,
    /// The steps that regular expressions of plugins may still take.
    pub(in crate::proxy) regex_steps: u64,
    /// Whether the request to the endpoint may have the field `TE`.
    pub(in crate::proxy) may_have_te: bool,
    /// How many Portico processes have forwarded the request, with this one.
    pub(in crate::proxy) hops: HopCount,
    /// In which slot everything that is sent because of the request is counted.
    pub(in crate::proxy) client: ClientSlot,
}

impl RoutedRequest<'_> {
    /// The path to which the action of the rule applies.
    pub(in crate::proxy) fn endpoint_path(&self) -> &RequestPath {
        self.replaced_path.as_ref().unwrap_or(&self.path)
    }
}
