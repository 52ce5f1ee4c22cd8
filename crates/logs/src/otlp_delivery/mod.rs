//! Spans and log records on their way to a server by OpenTelemetry's protocol: as protobuf or JSON over HTTP, or over
//! gRPC.
//!
//! ```text
//!   BatchQueue ─▶ OtlpSender ─▶ PluginServices::send, or GrpcMethod
//!                     └ ExportResult: accepted, accepted in part, sent again, refused
//! ```

mod grpc_client;
mod response;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::log_delivery::DeliveryReports;
use crate::plugin_api::batch_queue::{BatchOutcome, BatchSender};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::otlp_messages::json::{logs_to_json, traces_to_json};
use crate::plugin_api::otlp_messages::metrics::metrics_to_json;
use crate::plugin_api::remote_request::{RemoteRequest, ResponseBodyUse};
use crate::plugin_api::services::PluginServices;
use crate::plugin_formats::grpc::frame;
use grpc_client::GrpcMethod;
use response::ExportResult;

/// The encoding and the transport, in the words of OpenTelemetry's specification of exporters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OtlpProtocol {
    #[serde(rename = "grpc")]
    Grpc,
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    #[serde(rename = "http/json")]
    HttpJson,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpSignal {
    Traces,
    Logs,
    Metrics,
}

/// Sends batches whose entries are fields of the message of their signal.
pub(crate) struct OtlpSender {
    signal: OtlpSignal,
    transport: OtlpTransport,
    /// Host and port, for messages.
    server: String,
    reports: Arc<DeliveryReports>,
}

enum OtlpTransport {
    Http { request: Box<RemoteRequest>, is_json: bool, services: Arc<dyn PluginServices> },
    Grpc(Arc<GrpcMethod>),
}

impl OtlpProtocol {
    /// The `Content-Type` of requests.
    pub fn content_type(self) -> &'static str {
        match self {
            OtlpProtocol::Grpc => "application/grpc",
            OtlpProtocol::HttpProtobuf => "application/x-protobuf",
            OtlpProtocol::HttpJson => "application/json",
        }
    }
}

impl OtlpSignal {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            OtlpSignal::Traces => "traces",
            OtlpSignal::Logs => "logs",
            OtlpSignal::Metrics => "metrics",
        }
    }

    fn method_path(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            OtlpSignal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            OtlpSignal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            OtlpSignal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        })
    }

    fn to_json(self, encoded: &[u8]) -> Bytes {
        let json = match self {
            OtlpSignal::Traces => traces_to_json(encoded),
            OtlpSignal::Logs => logs_to_json(encoded),
            OtlpSignal::Metrics => metrics_to_json(encoded),
        };
        // Entries are encoded by this program, so there is no other case.
        json.unwrap_or_default()
    }
}

impl OtlpSender {
    /// `request`: the request for each batch, without its body.
    pub(crate) fn new(
        protocol: OtlpProtocol,
        signal: OtlpSignal,
        mut request: RemoteRequest,
        reports: Arc<DeliveryReports>,
        cx: &BuildCx<'_>,
    ) -> Self {
        let server = format!("{}:{}", request.remote.host, request.remote.port);
        let services = Arc::clone(cx.services);
        let transport = match protocol {
            OtlpProtocol::Grpc => OtlpTransport::Grpc(Arc::new(grpc_method(signal, request, services))),
            OtlpProtocol::HttpProtobuf | OtlpProtocol::HttpJson => {
                request.response_body = ResponseBodyUse::Collect { max_bytes: MAX_RESPONSE };
                let is_json = protocol == OtlpProtocol::HttpJson;
                OtlpTransport::Http { request: Box::new(request), is_json, services }
            }
        };
        OtlpSender { signal, transport, server, reports }
    }
}

fn grpc_method(signal: OtlpSignal, mut request: RemoteRequest, services: Arc<dyn PluginServices>) -> GrpcMethod {
    let authority = request.headers.remove(HOST);
    let authority = authority.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if request.remote.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Authority::try_from(authority).ok();
    parts.path_and_query = Some(signal.method_path());
    // The authority is that of a URL, so all three parts exist.
    let uri = Uri::from_parts(parts).unwrap_or_default();
    GrpcMethod::new(request.remote, uri, request.headers, request.timeout, services)
}

impl BatchSender for OtlpSender {
    fn encode(&self, entries: &[Bytes]) -> Bytes {
        let joined = match entries {
            [only] => only.clone(),
            entries => entries.concat().into(),
        };
        match &self.transport {
            OtlpTransport::Grpc(_) => frame(0, &joined),
            OtlpTransport::Http { is_json: true, .. } => self.signal.to_json(&joined),
            OtlpTransport::Http { is_json: false, .. } => joined,
        }
    }

    fn send(&self, body: Bytes) -> BoxFuture<'static, bool> {
        self.deliver(body).map(|outcome| outcome == BatchOutcome::Accepted).boxed()
    }

    fn deliver(&self, body: Bytes) -> BoxFuture<'static, BatchOutcome> {
        let (reports, server) = (Arc::clone(&self.reports), self.server.clone());
        let sending: BoxFuture<'static, Result<ExportResult, String>> = match &self.transport {
            OtlpTransport::Http { request, is_json, services } => {
                let is_json = *is_json;
                let sending = services.send(RemoteRequest { body, ..RemoteRequest::clone(request) });
                let with_server = server.clone();
                async move {
                    let response = sending.await.map_err(|error| format!("{with_server}: {error}"))?;
                    Ok(response::of_http(&response, is_json, SystemTime::now()))
                }
                .boxed()
            }
            OtlpTransport::Grpc(method) => {
                let method = Arc::clone(method);
                async move { method.call(body).await.map(|response| response::of_grpc(&response)) }.boxed()
            }
        };
        async move {
            let (outcome, failure) = match sending.await {
                Ok(ExportResult { outcome, failure }) => {
                    (outcome, failure.map(|failure| format!("{server} {failure}")))
                }
                Err(error) => (BatchOutcome::Failed, Some(error)),
            };
            reports.update(failure);
            outcome
        }
        .boxed()
    }
}

/// Maximum size in bytes of a response, which has at most a text.
const MAX_RESPONSE: usize = 64 * 1024;
