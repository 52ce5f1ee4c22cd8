//! What the tracing plugins have in common: contexts of requests in each phase, and the queue of what is exported.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::diagnostic::Diagnostic;
use crate::log_delivery::{DeliveryReports, HttpBody, HttpSender};
use crate::otlp_delivery::{OtlpProtocol, OtlpSender, OtlpSignal};
use crate::plugin_api::batch_queue::{BatchQueue, BatchSender, QueueSettings};
use crate::plugin_api::changed_fields::ChangedFields;
use crate::plugin_api::consumers::{hex, sha256};
use crate::plugin_api::context::{LogCx, RequestCx, ResponseCx};
use crate::plugin_api::field_names::{WrittenValue, parse_written_name};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::remote::{MAX_REMOTE_TIMEOUT, TlsFiles};
use crate::plugin_api::remote_request::{RemoteRequest, RemoteUrl, ResponseBodyUse};
use crate::plugin_api::trace::{Propagation, RequestTrace, Sampling};
use crate::plugin_kit::sent_headers::parse_sent_headers;

/// Reads, decides and writes the contexts of requests.
pub(crate) struct Tracer {
    pub propagation: Propagation,
    pub sampling: Sampling,
    /// Whether new traces have 64 bits.
    pub has_short_ids: bool,
    /// The header of the response with the identifier of the trace.
    pub response_header: Option<HeaderName>,
}

impl Tracer {
    /// The context of the request as the plugin records it. The identifiers are those of an earlier tracer, if there is
    /// one, so that the parents that endpoints get are in the records of both.
    fn context_of(&self, known: Option<&RequestTrace>, headers: &HeaderMap) -> RequestTrace {
        match known {
            Some(known) => RequestTrace { is_sampled: self.sampling.decide(known.parent_is_sampled), ..*known },
            None => {
                let parent = self.propagation.extract(headers);
                let is_sampled = self.sampling.decide(parent.and_then(|parent| parent.is_sampled));
                RequestTrace::new(parent, is_sampled, self.has_short_ids)
            }
        }
    }

    /// For the access phase: the endpoint gets the context.
    pub(crate) fn access(&self, cx: &mut RequestCx<'_>) {
        let own = self.context_of(cx.trace.as_deref(), &cx.head.headers);
        let earlier_is_sampled = cx.trace.as_ref().map(|earlier| earlier.is_sampled);
        let shared = RequestTrace { is_sampled: own.is_sampled || earlier_is_sampled == Some(true), ..own };
        if own.is_sampled && earlier_is_sampled == Some(false) {
            Propagation::mark_recorded(&shared, &mut cx.head.headers);
        }
        self.propagation.inject(&shared, &mut cx.head.headers);
        *cx.trace = Some(Box::new(shared));
        cx.set_plugin_data(own);
    }

    /// For the response phase.
    pub(crate) fn response(&self, cx: &mut ResponseCx<'_>) {
        let Some(name) = &self.response_header else { return };
        if let Some(context) = cx.plugin_data::<RequestTrace>()
            && let Ok(value) = HeaderValue::try_from(context.trace.to_string())
        {
            cx.headers.insert(name, value);
        }
    }

    /// For the log phase. If an earlier plugin has replied, the context is that of the client.
    pub(crate) fn of_log(&self, cx: &LogCx<'_>) -> RequestTrace {
        if let Some(context) = cx.plugin_data::<RequestTrace>() {
            return *context;
        }
        let none = HeaderMap::new();
        self.context_of(cx.trace, cx.request.heads.map_or(&none, |heads| &heads.request))
    }

    pub(crate) fn declare_fields(&self, fields: &mut ChangedFields) {
        self.propagation.changed_fields().for_each(|name| fields.request.add(name));
        if let Some(name) = &self.response_header {
            fields.response.add(name);
        }
    }
}

/// A server that traces or logs are sent to, as a configuration describes it.
pub struct ExportServer<'c> {
    /// The field with the URL.
    pub field: &'static str,
    pub url: &'c str,
    pub headers: &'c BTreeMap<String, String>,
    pub format: ExportFormat,
    /// The timeout of a request.
    pub timeout: Duration,
    pub ssl_verify: bool,
    /// Files with certificates for the connections to the server.
    pub tls_files: Option<Arc<TlsFiles>>,
}

/// What a server gets, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    Otlp(OtlpProtocol, OtlpSignal),
    /// A JSON list of the spans of Zipkin.
    Zipkin,
}

impl ExportFormat {
    fn content_type(self) -> &'static str {
        match self {
            ExportFormat::Otlp(protocol, _) => protocol.content_type(),
            ExportFormat::Zipkin => "application/json",
        }
    }

    /// What is sent, such as `traces`.
    fn entries(self) -> &'static str {
        match self {
            ExportFormat::Otlp(_, signal) => signal.name(),
            ExportFormat::Zipkin => "traces",
        }
    }

    fn is_grpc(self) -> bool {
        matches!(self, ExportFormat::Otlp(OtlpProtocol::Grpc, _))
    }
}

impl ExportServer<'_> {
    /// Starts the queue. What waits is kept while the configuration stays the same. Messages contain no part of the URL
    /// except the host, because it may contain a password.
    pub fn start(&self, settings: QueueSettings, cx: &BuildCx<'_>) -> Result<Arc<BatchQueue>, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let request = self.request(cx, &mut invalid);
        let (Some(request), true) = (request, invalid.is_empty()) else { return Err(invalid) };
        let ExportServer { field, url, headers, format, timeout, ssl_verify, tls_files } = self;
        let server = format!("{field} {url} {headers:?} {format:?} {timeout:?} {ssl_verify} {tls_files:?}");
        let fingerprint = format!("{server} {settings:?}");
        let name = format!("{} {}", cx.object, hex(&sha256(fingerprint.as_bytes())));
        Ok(cx.state.get_or_create(&name, || {
            let reports = DeliveryReports::of(format.entries(), self.field, cx);
            let sender: Arc<dyn BatchSender> = match *format {
                ExportFormat::Otlp(protocol, signal) => {
                    Arc::new(OtlpSender::new(protocol, signal, request, reports, cx))
                }
                ExportFormat::Zipkin => Arc::new(HttpSender::new(request, HttpBody::JsonList, reports, cx)),
            };
            BatchQueue::start(settings, sender, cx)
        }))
    }

    /// The request for each batch, without its body.
    fn request(&self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Option<RemoteRequest> {
        let reserved = [
            (HOST, "remove it: the host is that of the URL"),
            (CONTENT_TYPE, "remove it: the format of the bodies is fixed"),
            (CONTENT_LENGTH, "remove it: the length is that of each body"),
        ];
        let mut headers = parse_sent_headers("headers", self.headers, &reserved, invalid);
        let url = match RemoteUrl::parse(self.url) {
            Ok(url) => url,
            Err(error) => {
                let remedy = "set it to the URL of the server, such as http://collector.monitoring.svc:4318/v1/traces";
                invalid.push(Diagnostic::in_config(self.field, error, remedy));
                return None;
            }
        };
        if let Some(blocked) = cx.check_host(self.field, &url.host) {
            invalid.push(blocked);
            return None;
        }
        if self.format.is_grpc() && url.target != "/" {
            let remedy = "write only the scheme, the host and the port, such as http://collector.monitoring.svc:4317";
            invalid.push(Diagnostic::in_config(self.field, "has a path, and gRPC has its own", remedy));
            return None;
        }
        headers.insert(HOST, url.authority.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.format.content_type()));
        if let Some(authorization) = &url.authorization {
            headers.entry(AUTHORIZATION).or_insert_with(|| authorization.clone());
        }
        let timeout = self.timeout.min(MAX_REMOTE_TIMEOUT);
        let mut remote = url.remote(cx.namespace(), self.ssl_verify, timeout);
        if let Some(tls) = &mut remote.tls {
            tls.files.clone_from(&self.tls_files);
        }
        Some(RemoteRequest {
            remote,
            method: Method::POST,
            target: url.target.clone(),
            headers,
            body: Bytes::new(),
            timeout,
            keep_alive: Some(KEEP_ALIVE),
            is_repeatable: false,
            response_body: ResponseBodyUse::Discard,
        })
    }
}

/// The sum of the three timeouts of Kong, in milliseconds. Adds to `invalid` if one of them is 0.
pub(crate) fn sum_of_timeouts(timeouts: [(&str, u32); 3], cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Duration {
    for (field, timeout) in timeouts {
        if timeout == 0 {
            let remedy = "use a number of milliseconds, such as 5000";
            invalid.push(Diagnostic::in_config(field, "must not be 0", remedy));
        }
    }
    timeouts.into_iter().map(|(field, timeout)| cx.limited_duration(field, timeout, MAX_REMOTE_TIMEOUT)).sum()
}

/// A rate from 0 to 1, or an addition to `invalid`.
pub fn check_rate(field: &str, rate: f64, invalid: &mut Vec<Diagnostic>) {
    if !(0.0..=1.0).contains(&rate) {
        let message = format!("{rate} is out of range");
        invalid.push(Diagnostic::in_config(field, message, "use a number from 0 for none to 1 for all requests"));
    }
}

/// The header with the identifier of the trace, or an addition to `invalid`.
pub(crate) fn parse_response_header(name: Option<&str>, invalid: &mut Vec<Diagnostic>) -> Option<HeaderName> {
    let name = name?;
    let parsed = parse_written_name("http_response_header_for_traceid", name, WrittenValue::Identifier);
    parsed.map_err(|error| invalid.push(error)).ok()
}

/// How long an idle connection to the server is kept open.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
