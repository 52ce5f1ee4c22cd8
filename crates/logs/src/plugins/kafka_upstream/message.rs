//! The message of a request: a JSON object with the members that Kong's plugin writes.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value};

use crate::plugin_api::ReplaceBackendCx;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_kit::request_json::{body_fields, headers, query};

/// The parts of the request in its message.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the configuration")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MessageParts {
    pub(super) method: bool,
    pub(super) uri: bool,
    pub(super) headers: bool,
    pub(super) body: bool,
}

impl MessageParts {
    /// `None` if the body is not one of its media type.
    pub(super) fn message(self, cx: &ReplaceBackendCx<'_>) -> Option<Bytes> {
        let mut members = Map::new();
        if self.method {
            members.insert("method".to_owned(), cx.head.method.as_str().into());
        }
        if self.uri {
            // The query as it is now, without credentials that plugins have removed.
            let path = cx.target.raw.split('?').next().unwrap_or_default();
            let uri = cx.head.uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
            members.insert("uri".to_owned(), uri.into());
            members.insert("uri_args".to_owned(), query(cx.head.uri.query().unwrap_or_default()).into());
        }
        if self.headers {
            members.insert("headers".to_owned(), headers(&cx.head.headers, cx.target.host).into());
        }
        if self.body {
            add_body(&mut members, &cx.head.headers, cx.buffered_body())?;
        }
        Some(Bytes::from(Value::Object(members).to_string()))
    }
}

fn add_body(members: &mut Map<String, Value>, headers: &HeaderMap, body: &[u8]) -> Option<()> {
    let kind = BodyKind::of(headers);
    let text = std::str::from_utf8(body).ok().filter(|_| kind != BodyKind::Binary);
    match text {
        Some(text) => _ = members.insert("body".to_owned(), text.into()),
        None => {
            members.insert("body".to_owned(), BASE64_STANDARD.encode(body).into());
            members.insert("body_base64".to_owned(), true.into());
        }
    }
    if kind == BodyKind::Fields && !body.is_empty() {
        let fields = body_fields(headers, body).map(Value::Object).or_else(|| list_of_json(headers, body))?;
        members.insert("body_args".to_owned(), fields);
    }
    Some(())
}

/// A body with a list in JSON has no names, but is valid.
fn list_of_json(headers: &HeaderMap, body: &[u8]) -> Option<Value> {
    let is_json = MediaType::of(headers).is_some_and(|media_type| media_type.is_json());
    let list: Vec<Value> = serde_json::from_slice(is_json.then_some(body)?).ok()?;
    Some(list.into())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyKind {
    /// JSON, or a form.
    Fields,
    Text,
    Binary,
}

impl BodyKind {
    fn of(headers: &HeaderMap) -> Self {
        let Some(media_type) = MediaType::of(headers) else { return BodyKind::Binary };
        match media_type.essence.as_str() {
            // Compressed bodies have no fields that can be read.
            _ if headers.contains_key(http::header::CONTENT_ENCODING) => BodyKind::Binary,
            "application/x-www-form-urlencoded" | "multipart/form-data" | "application/json" => BodyKind::Fields,
            "text/plain" | "text/html" | "application/xml" | "text/xml" | "application/soap+xml" => BodyKind::Text,
            _ => BodyKind::Binary,
        }
    }
}
