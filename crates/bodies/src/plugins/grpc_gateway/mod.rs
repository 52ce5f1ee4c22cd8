//! `grpc-gateway`: makes gRPC calls of HTTP requests with JSON, by the option `google.api.http` of the methods.
//!
//! ```yaml
//! plugin: grpc-gateway
//! config:
//!   proto: |
//!     syntax = "proto3";
//!     package shop;
//!     import "google/api/annotations.proto";
//!     service Orders {
//!       rpc GetOrder(GetOrderRequest) returns (Order) {
//!         option (google.api.http) = { get: "/v1/orders/{id}" };
//!       }
//!     }
//!     message GetOrderRequest { int64 id = 1; string language = 2; }
//!     message Order { int64 id = 1; string title = 2; }
//! ```
//!
//! The backend must be one of gRPC: a Service with `appProtocol: kubernetes.io/h2c`, or with the annotation
//! `konghq.com/protocol: grpc`. A long file is better in a ConfigMap, as in
//! `proto: {configMapKeyRef: {name: shop-api, key: orders.proto}}`.
//!
//! The rules are compared with the path that the client has sent. Of several that match, one with a literal segment
//! precedes one with `*`, and that precedes one with `**`. The fields of the path and of `body` are set from there, all
//! others from the query: `?filter.color=RED&tag=a&tag=b`. Messages have the JSON form of Protocol Buffers.
//!
//! A call with one response message gets it as `application/json`. The messages of a stream are lines of
//! `application/x-ndjson`, or events if the client accepts `text/event-stream`; an error after the first message is
//! the line `{"error": {…}}`, or an event `error`. All other errors have the HTTP status of the table and the body
//! `{"code": …, "message": …, "details": […]}`.
//!
//! | gRPC | HTTP |
//! | --- | --- |
//! | 0 OK | 200 |
//! | 1 CANCELLED | 499 |
//! | 3 INVALID_ARGUMENT, 9 FAILED_PRECONDITION, 11 OUT_OF_RANGE | 400 |
//! | 4 DEADLINE_EXCEEDED | 504 |
//! | 5 NOT_FOUND | 404 |
//! | 6 ALREADY_EXISTS, 10 ABORTED | 409 |
//! | 7 PERMISSION_DENIED | 403 |
//! | 8 RESOURCE_EXHAUSTED | 429 |
//! | 14 UNAVAILABLE | 503 |
//! | 16 UNAUTHENTICATED | 401 |
//! | all others | 500 |
//!
//! A request that no rule matches, and one whose values do not have the types of their fields, gets 400. The plugin
//! responds to every OPTIONS request as to a CORS preflight; `cors`, which runs before it, has more settings.

mod request;
mod routes;
mod rule;
mod stream;
mod template;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    CONTENT_LENGTH, CONTENT_TYPE, TE, TRAILER,
};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, request as http_request};
use schemars::JsonSchema;
use serde::Deserialize;

use self::rule::{Mapping, Rule, Rules};
use self::stream::JsonStream;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::media_type::accepted_ranges;
use crate::plugin_api::{
    AccessOutcome, BodyConversion, BodyFilter, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply, ReplyBody,
    RequestCx, ResponseCx, ResponseOutcome, ResponseSource,
};
use crate::plugin_formats::grpc::{CallStatus, Definitions, convert_unary, is_call_response};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The text of the .proto file with the services. Kong has the path of the file instead. Required, unless
    /// `descriptor_set` is set.
    proto: Option<String>,
    /// The texts of the files that `proto` imports, by the names in its `import` lines. Those of `google/protobuf`, and
    /// `annotations.proto`, `field_behavior.proto` and `http.proto` of `google/api`, are built in.
    imports: BTreeMap<String, String>,
    /// A `FileDescriptorSet` in base64, as `protoc --include_imports --descriptor_set_out` writes it, instead of
    /// `proto`.
    descriptor_set: Option<String>,
    /// The largest message in bytes, in both directions, and the largest body of a request. At most 4 MiB. The JSON of
    /// a response may have four times as many bytes, and at least 1 MiB.
    max_message_bytes: u32,
    /// Reject requests with fields or query parameters that the message does not have. Otherwise, these are ignored.
    reject_unknown_fields: bool,
    /// Whether responses have the fields that have their default value, as in Kong. They take no bytes in messages, so
    /// the JSON of many small messages may become too large with them.
    emit_defaults: bool,
    /// Whether responses name fields as the JSON mapping of Protocol Buffers does by default, such as `unitPrice`,
    /// instead of as in the definitions, such as `unit_price`, as in Kong. Requests may have both names.
    json_names: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            proto: None,
            imports: BTreeMap::new(),
            descriptor_set: None,
            max_message_bytes: 1 << 20,
            reject_unknown_fields: false,
            emit_defaults: true,
            json_names: false,
        }
    }
}

pub(crate) struct GrpcGateway {
    routes: routes::TemplateRoutes,
    rules: Vec<Arc<Rule>>,
    max_bytes: usize,
    denies_unknown_fields: bool,
}

impl PluginKind for GrpcGateway {
    const NAME: &'static str = "grpc-gateway";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 998;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = false;
    type Config = Config;
    type Plugin = GrpcGateway;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let definitions = Definitions {
            proto: config.proto.as_deref(),
            imports: &config.imports,
            descriptor_set: config.descriptor_set.as_deref(),
        };
        let mut problems = Vec::new();
        if !(1..=MAX_MESSAGE_BYTES).contains(&config.max_message_bytes) {
            let message = format!("{} is not a size of messages", config.max_message_bytes);
            let remedy = format!("use a number from 1 to {MAX_MESSAGE_BYTES}");
            problems.push(Diagnostic::in_config("max_message_bytes", message, remedy));
        }
        let field = if config.descriptor_set.is_some() { "descriptor_set" } else { "proto" };
        let pool = match definitions.load() {
            Ok(Some(pool)) => pool,
            Ok(None) => {
                let remedy = "write the text of the .proto file with the services";
                problems.push(Diagnostic::in_config("proto", "is missing", remedy));
                return Err(problems);
            }
            Err(wrong) => {
                problems.extend(wrong);
                return Err(problems);
            }
        };
        let max_bytes = usize::try_from(config.max_message_bytes).unwrap_or(usize::MAX);
        let mapping = Mapping {
            denies_unknown_fields: config.reject_unknown_fields,
            writes_defaults: config.emit_defaults,
            uses_json_names: config.json_names,
            max_bytes,
        };
        let mut skipped = Vec::new();
        let Rules { routes, rules } = Rules::compile(&pool, mapping, &mut skipped).unwrap_or_else(|wrong| {
            let remedy = "see the comments of google/api/http.proto for the rules";
            problems.extend(wrong.into_iter().map(|message| Diagnostic::in_config(field, message, remedy)));
            Rules::default()
        });
        for method in skipped {
            let message = format!("{method} cannot be called: its requests are streams");
            cx.note(Diagnostic::in_config(field, message, "remove its option google.api.http"));
        }
        if problems.is_empty() && rules.is_empty() {
            let remedy = "add the option google.api.http to the methods that can be called";
            problems.push(Diagnostic::in_config(field, "has no method that can be called by HTTP", remedy));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let (rules, denies_unknown_fields) = (rules.into_iter().map(Arc::new).collect(), config.reject_unknown_fields);
        Ok(GrpcGateway { routes, rules, max_bytes, denies_unknown_fields })
    }
}

impl Plugin for GrpcGateway {
    fn may_wait(&self) -> bool {
        false
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(self.max_bytes)
    }

    fn buffers_body(&self, head: &http_request::Parts) -> bool {
        // Also of requests without a body, which get one.
        head.method != Method::OPTIONS
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        cx.response_headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        if cx.head.method == Method::OPTIONS {
            return AccessOutcome::Reply(preflight());
        }
        let Some((rule, segments)) = self.routes.find(&cx.head.method, cx.path) else {
            let status = CallStatus::new(CallStatus::INVALID_ARGUMENT, "no method has this path");
            return AccessOutcome::Reply(
                Reply::new(StatusCode::BAD_REQUEST, error_body(&status), "unmapped_grpc_path")
                    .with_header(CONTENT_TYPE, JSON),
            );
        };
        let rule = &self.rules[rule];
        // An upgrade has no body.
        let body = cx.current_body().ok_or_else(|| "the request has no body".to_owned());
        let encoded = body.and_then(|body| {
            rule.encode_request(&segments, cx.query, body, self.denies_unknown_fields, self.max_bytes)
        });
        match encoded {
            Ok(body) => {
                cx.replace_body(body);
                make_call(cx, rule);
                cx.set_plugin_data(Arc::clone(rule));
                AccessOutcome::Continue
            }
            Err(message) => {
                let status = CallStatus::new(CallStatus::INVALID_ARGUMENT, message);
                AccessOutcome::Reply(
                    Reply::new(StatusCode::BAD_REQUEST, error_body(&status), "invalid_grpc_message")
                        .with_header(CONTENT_TYPE, JSON),
                )
            }
        }
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        if cx.source != ResponseSource::Service || cx.status != StatusCode::OK || !is_call_response(cx.headers) {
            return ResponseOutcome::Continue;
        }
        let Some(rule) = cx.plugin_data::<Arc<Rule>>().map(|rule| Arc::clone(rule)) else {
            return ResponseOutcome::Continue;
        };
        let status = CallStatus::from_fields(cx.headers);
        for name in HIDDEN_RESPONSE_FIELDS {
            cx.headers.remove(name);
        }
        if let Some(failure) = status.as_ref().filter(|status| !status.is_ok()) {
            cx.headers.insert(CallStatus::STATUS_FIELD, u16::from(failure.code).into());
        }
        let max_bytes = self.max_bytes;
        // A stream that has failed at once has no message, and its HTTP status can still be chosen.
        if rule.is_streaming && status.as_ref().is_none_or(CallStatus::is_ok) {
            let is_events = accepted_ranges(cx.request.accept.into_iter()).iter().any(|range| range == EVENTS);
            let content_type = if is_events { EVENTS } else { "application/x-ndjson" };
            cx.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            let stream = JsonStream::new(rule.writer.clone(), is_events, max_bytes, status);
            cx.push_body_filter(BodyFilter::Streaming(Box::new(stream)));
            return ResponseOutcome::Continue;
        }
        cx.headers.insert(CONTENT_TYPE, JSON);
        let too_large = CallStatus::new(CallStatus::INTERNAL, "the response of the backend is too large");
        cx.push_body_filter(BodyFilter::Converted(BodyConversion {
            // The message with the head of its frame.
            max_bytes: max_bytes + 5,
            too_large: Reply::new(too_large.http_status(), error_body(&too_large), "grpc_response_too_large")
                .with_header(CONTENT_TYPE, JSON),
            convert: Box::new(move |body, trailers| convert_unary(&rule.writer, max_bytes, status, body, trailers)),
        }));
        ResponseOutcome::Continue
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add_all(&[CONTENT_LENGTH, CONTENT_TYPE, TE]);
        fields.request.add_all(&HIDDEN_REQUEST_FIELDS);
        fields.response.add_all(&[ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE]);
        fields.response.add_all(&HIDDEN_RESPONSE_FIELDS);
    }
}

/// Changes the head of the request to that of the call.
fn make_call(cx: &mut RequestCx<'_>, rule: &Rule) {
    let mut parts = std::mem::take(&mut cx.head.uri).into_parts();
    parts.path_and_query = Some(rule.target.clone());
    cx.head.uri = Uri::from_parts(parts).expect("a target with another valid path is valid");
    cx.head.method = Method::POST;
    for name in HIDDEN_REQUEST_FIELDS {
        cx.head.headers.remove(name);
    }
    cx.head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    cx.head.headers.insert(TE, HeaderValue::from_static("trailers"));
}

/// The response to a preflight request, as Kong sends it.
fn preflight() -> Box<Reply> {
    Reply::new(StatusCode::OK, ReplyBody::Raw(Bytes::from_static(b"OK")), "preflight")
        .with_header(CONTENT_TYPE, JSON)
        .with_header(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET,POST,PATCH,DELETE"))
        .with_header(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"))
}

fn error_body(status: &CallStatus) -> ReplyBody {
    ReplyBody::Raw(status.to_json(None).to_string().into())
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

const EVENTS: &str = "text/event-stream";

/// The codings of messages that the client supports, which the plugin would have to decode.
const HIDDEN_REQUEST_FIELDS: [HeaderName; 3] =
    [ACCEPT_ENCODING, HeaderName::from_static("grpc-accept-encoding"), HeaderName::from_static("grpc-encoding")];

const HIDDEN_RESPONSE_FIELDS: [HeaderName; 6] = [
    CallStatus::STATUS_FIELD,
    CallStatus::MESSAGE_FIELD,
    CallStatus::DETAILS_FIELD,
    TRAILER,
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("grpc-encoding"),
];

const MAX_MESSAGE_BYTES: u32 = 4 << 20;
