//! The payload of an invocation: what the function gets to know about a request.

use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::plugin_api::ReplaceBackendCx;
use crate::plugin_api::http_version::decimal_protocol_name;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_kit::request_json::{body_fields, headers, query};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PayloadFormat {
    /// The fields of the query and of the body.
    Merged,
    Parts(ForwardedParts),
    GatewayV1,
    GatewayV2,
}

/// The parts of the request in the payload.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the configuration")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ForwardedParts {
    pub(super) method: bool,
    pub(super) uri: bool,
    pub(super) headers: bool,
    pub(super) body: bool,
}

impl PayloadFormat {
    pub(super) fn payload(self, cx: &ReplaceBackendCx<'_>, encodes_body: bool) -> Value {
        match self {
            PayloadFormat::Merged => merged(cx),
            PayloadFormat::Parts(parts) => forwarded(cx, parts, encodes_body),
            PayloadFormat::GatewayV1 => gateway_v1(cx, encodes_body),
            PayloadFormat::GatewayV2 => gateway_v2(cx, encodes_body),
        }
    }
}

fn query_of<'r>(cx: &'r ReplaceBackendCx<'_>) -> &'r str {
    cx.head.uri.query().unwrap_or_default()
}

fn merged(cx: &ReplaceBackendCx<'_>) -> Value {
    let mut members = query(query_of(cx));
    // A list has no fields that the query could be merged with.
    let is_json = MediaType::of(&cx.head.headers).is_some_and(|media_type| media_type.is_json());
    if is_json
        && members.is_empty()
        && let Ok(list @ Value::Array(_)) = serde_json::from_slice(cx.buffered_body())
    {
        return list;
    }
    members.extend(body_fields(&cx.head.headers, cx.buffered_body()).unwrap_or_default());
    Value::Object(members)
}

fn forwarded(cx: &ReplaceBackendCx<'_>, parts: ForwardedParts, encodes_body: bool) -> Value {
    let mut members = Map::new();
    if parts.method {
        members.insert("request_method".to_owned(), cx.head.method.as_str().into());
    }
    if parts.uri {
        members.insert("request_uri".to_owned(), cx.target.raw.into());
        members.insert("request_uri_args".to_owned(), query(query_of(cx)).into());
    }
    if parts.headers {
        members.insert("request_headers".to_owned(), headers(&cx.head.headers, cx.target.host).into());
    }
    if parts.body {
        let body = cx.buffered_body();
        let fields = body_fields(&cx.head.headers, body);
        let is_text = fields.is_some() || is_text(&cx.head.headers);
        if !body.is_empty() && encodes_body && !(is_text && std::str::from_utf8(body).is_ok()) {
            members.insert("request_body".to_owned(), BASE64_STANDARD.encode(body).into());
            members.insert("request_body_base64".to_owned(), true.into());
        } else {
            members.insert("request_body".to_owned(), String::from_utf8_lossy(body).into());
        }
        members.insert("request_body_args".to_owned(), fields.unwrap_or_default().into());
    }
    Value::Object(members)
}

/// Whether the media type is one whose bodies are readable text.
fn is_text(headers: &HeaderMap) -> bool {
    MediaType::of(headers).is_some_and(|media_type| {
        let essence = media_type.essence.as_str();
        essence.starts_with("text/")
            || essence == "application/xml"
            || essence.ends_with("+xml")
            || media_type.is_json()
    })
}

/// The body of an event, and whether it is encoded.
fn event_body(cx: &ReplaceBackendCx<'_>, encodes_body: bool) -> (Value, bool) {
    match cx.buffered_body() {
        [] => ("".into(), false),
        body if encodes_body => (BASE64_STANDARD.encode(body).into(), true),
        body => (String::from_utf8_lossy(body).into(), false),
    }
}

/// The event of REST APIs of Amazon API Gateway, format version 1.0.
fn gateway_v1(cx: &ReplaceBackendCx<'_>, encodes_body: bool) -> Value {
    let (headers, multi_value_headers) = single_and_lists(headers(&cx.head.headers, cx.target.host));
    let (parameters, multi_value_parameters) = single_and_lists(query(query_of(cx)));
    let (body, is_encoded) = event_body(cx, encodes_body);
    let resource = cx.uri_captures.group(0).unwrap_or(cx.target.path);
    // The path that a backend would get.
    let path = cx.head.uri.path();
    let time = Timestamp::try_from(cx.now).unwrap_or_default();
    json!({
        "version": "1.0",
        "resource": resource,
        "path": path,
        "httpMethod": cx.head.method.as_str(),
        "headers": headers,
        "multiValueHeaders": multi_value_headers,
        "queryStringParameters": parameters,
        "multiValueQueryStringParameters": multi_value_parameters,
        "pathParameters": path_parameters(cx),
        "body": body,
        "isBase64Encoded": is_encoded,
        "requestContext": {
            "path": path,
            "protocol": decimal_protocol_name(cx.head.version),
            "httpMethod": cx.head.method.as_str(),
            "domainName": cx.target.host,
            "domainPrefix": domain_prefix(cx),
            "identity": {"sourceIp": cx.client.address.to_string(), "userAgent": header(cx, USER_AGENT.as_str())},
            "requestId": cx.id.to_str().unwrap_or_default(),
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
            "requestTimeEpoch": epoch_milliseconds(cx),
            "resourcePath": path,
        },
    })
}

/// The event of HTTP APIs of Amazon API Gateway, format version 2.0.
fn gateway_v2(cx: &ReplaceBackendCx<'_>, encodes_body: bool) -> Value {
    let (body, is_encoded) = event_body(cx, encodes_body);
    let mut headers = headers(&cx.head.headers, cx.target.host);
    headers.remove(COOKIE.as_str());
    let cookies = cx.head.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookies: Vec<&str> = cookies.flat_map(|value| value.split("; ")).collect();
    let time = Timestamp::try_from(cx.now).unwrap_or_default();
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": cx.target.path,
        "rawQueryString": query_of(cx),
        "cookies": cookies,
        "headers": joined(headers),
        "queryStringParameters": joined(query(query_of(cx))),
        "pathParameters": path_parameters(cx),
        "body": body,
        "isBase64Encoded": is_encoded,
        "requestContext": {
            "routeKey": "$default",
            "stage": "$default",
            "domainName": cx.target.host,
            "domainPrefix": domain_prefix(cx),
            "http": {
                "method": cx.head.method.as_str(),
                "path": cx.target.path,
                "protocol": decimal_protocol_name(cx.head.version),
                "sourceIp": cx.client.address.to_string(),
                "userAgent": header(cx, USER_AGENT.as_str()),
            },
            "requestId": cx.id.to_str().unwrap_or_default(),
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
            "timeEpoch": epoch_milliseconds(cx),
        },
    })
}

fn path_parameters(cx: &ReplaceBackendCx<'_>) -> Map<String, Value> {
    let groups = cx.uri_captures.named_groups().into_iter();
    groups.map(|(name, text)| (name.to_owned(), Value::from(text))).collect()
}

fn header<'r>(cx: &'r ReplaceBackendCx<'_>, name: &str) -> Option<&'r str> {
    cx.head.headers.get(name).map(HeaderValue::to_str)?.ok()
}

/// The first label of the host.
fn domain_prefix<'r>(cx: &ReplaceBackendCx<'r>) -> &'r str {
    cx.target.host.split(['.', ':']).next().unwrap_or_default()
}

fn epoch_milliseconds(cx: &ReplaceBackendCx<'_>) -> u64 {
    let since = cx.now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The first value of each member, and the list of all. A parameter without a value is an empty text.
fn single_and_lists(members: Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    let (mut single, mut lists) = (Map::new(), Map::new());
    for (name, value) in members {
        let values = texts(value);
        single.insert(name.clone(), values.first().cloned().unwrap_or_default().into());
        lists.insert(name, values.into());
    }
    (single, lists)
}

/// The values of each member, with commas between them.
fn joined(members: Map<String, Value>) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name, Value::from(texts(value).join(",")))).collect()
}

fn texts(value: Value) -> Vec<String> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        _ => String::new(),
    };
    match value {
        Value::Array(values) => values.into_iter().map(text).collect(),
        value => vec![text(value)],
    }
}
