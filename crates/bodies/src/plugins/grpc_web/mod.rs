//! `grpc-web`: lets browsers call gRPC backends, by the protocol gRPC-Web.
//!
//! ```yaml
//! plugin: grpc-web
//! config:
//!   allow_origin_header: https://shop.example
//! ```
//!
//! The backend must be one of gRPC: a Service with `appProtocol: kubernetes.io/h2c`, or with the annotation
//! `konghq.com/protocol: grpc`. The plugin replies with 400 to requests whose `Content-Type` is none of these:
//!
//! | `Content-Type` | body |
//! | --- | --- |
//! | `application/grpc-web`, `application/grpc-web+proto` | frames of Protocol Buffers |
//! | `application/grpc-web-text`, `application/grpc-web-text+proto` | the same in base64 |
//! | `application/grpc-web+json`, `application/grpc-web-text+json` | frames of JSON; only with definitions |
//! | `application/json` | one message in JSON, in both directions; only with definitions |
//!
//! Messages of responses are passed on as they arrive, and the trailers of the call follow in a frame. Calls have one
//! request message. A body in `application/grpc-web` streams to the backend; the others are buffered, up to 1 MiB.
//!
//! The plugin responds to every OPTIONS request as to a CORS preflight. Pages that send further header fields, such as
//! `Authorization`, need the plugin `cors`, which runs before this one.

mod base64_body;
mod calls;
mod format;
mod response;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_LENGTH,
    CONTENT_TYPE, TE, TRAILER,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, request};
use schemars::JsonSchema;
use serde::Deserialize;

use self::calls::{CallCodec, Calls};
use self::format::{Codec, WebFormat};
use self::response::{WebBody, WebMessages};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::{
    AccessOutcome, BodyConversion, BodyFilter, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply, ReplyBody,
    RequestCx, ResponseCx, ResponseOutcome, ResponseSource,
};
use crate::plugin_formats::grpc::{CallStatus, Definitions, convert_unary, is_call_response};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The text of the .proto file with the services, for messages in JSON. Kong has the path of the file instead.
    proto: Option<String>,
    /// The texts of the files that `proto` imports, by the names in its `import` lines. Those of `google/protobuf`, and
    /// `annotations.proto`, `field_behavior.proto` and `http.proto` of `google/api`, are built in.
    imports: BTreeMap<String, String>,
    /// A `FileDescriptorSet` in base64, as `protoc --include_imports --descriptor_set_out` writes it, instead of
    /// `proto`.
    descriptor_set: Option<String>,
    /// Whether the backend gets the path after the route has removed its prefix. Otherwise, it gets the path of the
    /// client.
    pass_stripped_path: bool,
    /// The value of `Access-Control-Allow-Origin` in all responses.
    allow_origin_header: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            proto: None,
            imports: BTreeMap::new(),
            descriptor_set: None,
            pass_stripped_path: false,
            allow_origin_header: "*".to_owned(),
        }
    }
}

pub(crate) struct GrpcWeb {
    calls: Option<Calls>,
    passes_stripped_path: bool,
    allow_origin: HeaderValue,
}

/// What `response` needs to know about the request.
struct WebCall {
    format: WebFormat,
    /// For messages in JSON.
    codec: Option<CallCodec>,
}

impl PluginKind for GrpcWeb {
    const NAME: &'static str = "grpc-web";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 3;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = false;
    type Config = Config;
    type Plugin = GrpcWeb;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let Config { proto, imports, descriptor_set, pass_stripped_path, allow_origin_header } = config;
        let definitions =
            Definitions { proto: proto.as_deref(), imports: &imports, descriptor_set: descriptor_set.as_deref() };
        let mut problems = Vec::new();
        let allow_origin = HeaderValue::from_str(&allow_origin_header).ok().filter(|value| !value.is_empty());
        if allow_origin.is_none() {
            let message = format!("{allow_origin_header:?} is not the value of a header field");
            let remedy = "write an origin such as https://shop.example, or *";
            problems.push(Diagnostic::in_config("allow_origin_header", message, remedy));
        }
        let pool = definitions.load().unwrap_or_else(|wrong| {
            problems.extend(wrong);
            None
        });
        match allow_origin {
            Some(allow_origin) if problems.is_empty() => {
                let calls = pool.map(|pool| Calls::new(&pool, MAX_MESSAGE_BYTES));
                Ok(GrpcWeb { calls, passes_stripped_path: pass_stripped_path, allow_origin })
            }
            _ => Err(problems),
        }
    }
}

impl Plugin for GrpcWeb {
    fn may_wait(&self) -> bool {
        false
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(MAX_MESSAGE_BYTES)
    }

    fn buffers_body(&self, head: &request::Parts) -> bool {
        head.method != Method::OPTIONS && WebFormat::of(&head.headers).is_some_and(|format| format.changes_requests())
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        cx.response_headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.allow_origin.clone());
        if cx.head.method == Method::OPTIONS {
            return AccessOutcome::Reply(preflight());
        }
        match self.translate(cx) {
            Ok(call) => {
                cx.set_plugin_data(call);
                AccessOutcome::Continue
            }
            Err(message) => {
                AccessOutcome::Reply(Reply::negotiated(StatusCode::BAD_REQUEST, message, "invalid_grpc_web"))
            }
        }
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        if cx.source != ResponseSource::Service || cx.status != StatusCode::OK || !is_call_response(cx.headers) {
            return ResponseOutcome::Continue;
        }
        let Some(WebCall { format, codec }) = cx.plugin_data::<WebCall>() else { return ResponseOutcome::Continue };
        let (format, codec) = (format.clone(), codec.take());
        // The fields of a response that consists of trailers only. Pages of other origins cannot read them in the head.
        let mut status = HeaderMap::new();
        for name in [CallStatus::STATUS_FIELD, CallStatus::MESSAGE_FIELD, CallStatus::DETAILS_FIELD] {
            if let Some(value) = cx.headers.remove(&name) {
                status.insert(name, value);
            }
        }
        cx.headers.insert(CONTENT_TYPE, format.media_type.clone());
        cx.headers.remove(TRAILER);
        cx.push_body_filter(match codec {
            None => BodyFilter::Streaming(Box::new(WebBody::new(format.is_text, status))),
            Some(codec) if format.is_framed => {
                let messages = WebMessages::new(codec.writer, MAX_MESSAGE_BYTES);
                BodyFilter::Streaming(Box::new(WebBody::new(format.is_text, status).with_messages(messages)))
            }
            Some(codec) => {
                let head = CallStatus::from_fields(&status);
                BodyFilter::Converted(BodyConversion {
                    max_bytes: MAX_MESSAGE_BYTES,
                    too_large: Reply::negotiated(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "The response of the backend is too large",
                        "grpc_response_too_large",
                    ),
                    convert: Box::new(move |body, trailers| {
                        convert_unary(&codec.writer, MAX_MESSAGE_BYTES, head, body, trailers)
                    }),
                })
            }
        });
        ResponseOutcome::Continue
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add_all(&[CONTENT_LENGTH, CONTENT_TYPE, TE]);
        fields.response.add_all(&[ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE, TRAILER]);
        fields.response.add_all(&[CallStatus::STATUS_FIELD, CallStatus::MESSAGE_FIELD, CallStatus::DETAILS_FIELD]);
    }
}

impl GrpcWeb {
    /// Makes a gRPC call of the request. Fails with the message for the client.
    fn translate(&self, cx: &mut RequestCx<'_>) -> Result<WebCall, &'static str> {
        let format = WebFormat::of(&cx.head.headers).ok_or("The content type is not one of gRPC-Web")?;
        if cx.head.method != Method::POST {
            return Err("Calls of gRPC-Web have the method POST");
        }
        let path = if self.passes_stripped_path { cx.head.uri.path() } else { cx.path };
        let codec = match (format.codec, &self.calls) {
            (Codec::Proto, _) => None,
            (Codec::Json, None) => return Err("Messages in JSON are not supported here"),
            (Codec::Json, Some(calls)) => Some(calls.find(path).ok_or("The path is not that of a method")?),
        };
        if codec.as_ref().is_some_and(|codec| codec.is_streaming && !format.is_framed) {
            return Err("The method has several messages, which need a content type of gRPC-Web");
        }
        if format.changes_requests() {
            // An upgrade has no body.
            let body = cx.current_body().ok_or("The request has no body")?;
            let body = if format.is_text {
                base64_body::decode(body).ok_or("The body is not base64")?.into()
            } else {
                body.clone()
            };
            let body = match &codec {
                Some(codec) => codec.encode_request(&body, format.is_framed)?,
                None => body,
            };
            cx.replace_body(body);
        }
        if !self.passes_stripped_path && cx.head.uri.path() != cx.path {
            let target = match cx.head.uri.query() {
                Some(query) => format!("{}?{query}", cx.path).try_into(),
                None => cx.path.try_into(),
            };
            let mut parts = std::mem::take(&mut cx.head.uri).into_parts();
            parts.path_and_query = Some(target.map_err(|_| "The path is invalid")?);
            cx.head.uri = Uri::from_parts(parts).map_err(|_| "The path is invalid")?;
        }
        cx.head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        cx.head.headers.insert(TE, HeaderValue::from_static("trailers"));
        Ok(WebCall { format, codec })
    }
}

/// The response to a preflight request, as Kong sends it.
fn preflight() -> Box<Reply> {
    let body = ReplyBody::Raw(Bytes::from_static(b"OK"));
    let allowed_headers = HeaderValue::from_static("content-type,x-grpc-web,x-user-agent");
    Reply::new(StatusCode::OK, body, "preflight")
        .with_header(CONTENT_TYPE, HeaderValue::from_static("application/grpc-web-text+proto"))
        .with_header(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"))
        .with_header(ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers)
}

/// The largest message that is translated, and the largest body that is buffered.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
