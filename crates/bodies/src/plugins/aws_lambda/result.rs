//! The response to the client, from the result of an invocation.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::config::{EmptyArraysMode, LogType};
use crate::plugin_api::media_type::MediaType;
use crate::plugin_api::{RemoteResponse, Reply};
use crate::plugin_kit::relayed_response::{collected_reply, is_of_connection, relay};

/// How results become responses.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResultMapping {
    pub(super) is_proxy_integration: bool,
    pub(super) unhandled_status: Option<StatusCode>,
    pub(super) log_type: LogType,
    pub(super) empty_arrays: EmptyArraysMode,
}

const FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");
const LOG_RESULT: HeaderName = HeaderName::from_static("x-amz-log-result");

impl ResultMapping {
    /// The error is the reason for which a result is not a response.
    pub(super) fn reply(&self, mut result: RemoteResponse) -> Result<Box<Reply>, &'static str> {
        if self.log_type == LogType::None {
            result.headers.remove(LOG_RESULT);
        }
        // AWS also names errors that the function has handled; those have the status of the invocation.
        let has_failed = result.headers.get(FUNCTION_ERROR).is_some_and(|error| error == "Unhandled");
        if has_failed && let Some(status) = self.unhandled_status {
            return Ok(relay(status, result));
        }
        if self.is_proxy_integration {
            return self.integrated(&result);
        }
        if self.empty_arrays == EmptyArraysMode::Legacy
            && MediaType::of(&result.headers).is_some_and(|media_type| media_type.is_json())
        {
            result.body = with_empty_objects(result.body);
        }
        Ok(relay(result.status, result))
    }

    fn integrated(&self, result: &RemoteResponse) -> Result<Box<Reply>, &'static str> {
        let parsed: Result<Value, _> = serde_json::from_slice(&result.body);
        let Ok(Value::Object(members)) = parsed else { return Err("the result is not a JSON object") };
        let status = match members.get("statusCode") {
            Some(status) => {
                let number = status.as_str().and_then(|status| status.parse().ok()).or_else(|| status.as_u64());
                let status = number.and_then(|status| u16::try_from(status).ok());
                let status = status.filter(|status| (200..=599).contains(status));
                status
                    .and_then(|status| StatusCode::from_u16(status).ok())
                    .ok_or("statusCode must be a number from 200 to 599")?
            }
            None => return Err("the result has no statusCode"),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in object(&members, "headers", "headers must be an object")? {
            add(&mut headers, name, value)?;
        }
        for (name, values) in object(&members, "multiValueHeaders", "multiValueHeaders must be an object")? {
            let values = values.as_array().ok_or("a member of multiValueHeaders is not a list")?;
            // The same field in both maps has the values of this one.
            if let Ok(name) = name.parse::<HeaderName>() {
                headers.remove(name);
            }
            for value in values {
                add(&mut headers, name, value)?;
            }
        }
        let is_encoded = match members.get("isBase64Encoded") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(is_encoded)) => *is_encoded,
            Some(_) => return Err("isBase64Encoded must be a boolean"),
        };
        let body: Bytes = match members.get("body") {
            None | Some(Value::Null) => Bytes::new(),
            Some(Value::String(text)) if is_encoded => {
                BASE64_STANDARD.decode(text).map_err(|_| "the body is not base64")?.into()
            }
            Some(Value::String(text)) => text.clone().into(),
            // Kong also sends a body that is not a text, as JSON.
            Some(value @ (Value::Object(_) | Value::Array(_))) => {
                headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json; charset=utf-8"));
                let body = value.to_string().into();
                if self.empty_arrays == EmptyArraysMode::Legacy { with_empty_objects(body) } else { body }
            }
            Some(_) => return Err("body must be a string"),
        };
        Ok(collected_reply(status, headers, body))
    }
}

/// The members of an object, which may be missing.
fn object<'m>(
    members: &'m Map<String, Value>,
    name: &str,
    error: &'static str,
) -> Result<impl Iterator<Item = (&'m String, &'m Value)>, &'static str> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None.into_iter().flatten()),
        Some(Value::Object(members)) => Ok(Some(members).into_iter().flatten()),
        Some(_) => Err(error),
    }
}

fn add(headers: &mut HeaderMap, name: &str, value: &Value) -> Result<(), &'static str> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "a header has an invalid name")?;
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null => return Ok(()),
        Value::Array(_) | Value::Object(_) => return Err("a header has a value that is not a text"),
    };
    let value = HeaderValue::from_str(&text).map_err(|_| "a header has an invalid value")?;
    if !is_of_connection(&name) {
        headers.append(name, value);
    }
    Ok(())
}

/// The JSON document with `{}` in place of empty lists. Any other text is returned unchanged.
fn with_empty_objects(body: Bytes) -> Bytes {
    let mut changed = Vec::new();
    let (mut copied, mut position, mut is_in_text) = (0, 0, false);
    while let Some(byte) = body.get(position) {
        match byte {
            b'\\' if is_in_text => position += 1,
            b'"' => is_in_text = !is_in_text,
            b'[' if !is_in_text => {
                let inside = body[position + 1..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                let end = position + 1 + inside;
                if body.get(end) == Some(&b']') {
                    changed.extend_from_slice(&body[copied..position]);
                    changed.extend_from_slice(b"{}");
                    copied = end + 1;
                    position = end;
                }
            }
            _ => {}
        }
        position += 1;
    }
    if copied == 0 || serde_json::from_slice::<IgnoredAny>(&body).is_err() {
        return body;
    }
    changed.extend_from_slice(&body[copied..]);
    changed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_lists_become_objects() {
        for (body, expected) in [
            (r#"{"a": [], "b": [ [] ], "c": "[]", "d": "\"[]"}"#, r#"{"a": {}, "b": [ {} ], "c": "[]", "d": "\"[]"}"#),
            ("[ \n]", "{}"),
            ("[1]", "[1]"),
            ("no json []", "no json []"),
            ("[", "["),
            ("12345678901234567890.0", "12345678901234567890.0"),
        ] {
            assert_eq!(with_empty_objects(Bytes::from(body)), expected, "{body}");
        }
    }
}
