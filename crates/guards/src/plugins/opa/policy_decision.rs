//! The decision of a policy.

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};

use crate::plugin_api::{Reply, ReplyBody};

pub(super) enum PolicyDecision {
    /// With headers for the endpoint.
    Allow(Vec<(HeaderName, HeaderValue)>),
    Deny(Box<Reply>),
}

/// Headers that a policy cannot set.
static FIXED: [HeaderName; 8] = [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

impl PolicyDecision {
    /// Parses the response of the server. The error continues a sentence whose subject is the server.
    pub(super) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let document: Value = serde_json::from_slice(body).map_err(|_| "the response is not JSON")?;
        let fields = match document.get("result") {
            Some(Value::Bool(true)) => return Ok(PolicyDecision::Allow(Vec::new())),
            Some(Value::Bool(false)) => return Ok(PolicyDecision::Deny(deny(StatusCode::FORBIDDEN, None))),
            Some(Value::Object(fields)) => fields,
            Some(_) => return Err("the decision is neither a boolean nor an object"),
            None => return Err("the decision is undefined: no rule of the path in opa_path has a value"),
        };
        let headers = headers(fields)?;
        match fields.get("allow") {
            Some(Value::Bool(true)) => Ok(PolicyDecision::Allow(headers)),
            Some(Value::Bool(false)) => {
                let status = match fields.get("status") {
                    None | Some(Value::Null) => StatusCode::FORBIDDEN,
                    Some(status) => {
                        let status = status.as_u64().and_then(|status| u16::try_from(status).ok());
                        let status = status.filter(|status| (200..600).contains(status));
                        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                        status.ok_or("the status of the decision is not one of 200 to 599")?
                    }
                };
                let mut reply = deny(status, fields.get("message"));
                for (name, value) in headers {
                    reply.headers.insert(name, value);
                }
                Ok(PolicyDecision::Deny(reply))
            }
            _ => Err("the decision has no boolean member `allow`"),
        }
    }
}

fn headers(fields: &Map<String, Value>) -> Result<Vec<(HeaderName, HeaderValue)>, &'static str> {
    let headers = match fields.get("headers") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(headers)) => headers,
        Some(_) => return Err("the headers of the decision are not an object"),
    };
    let headers = headers.iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !FIXED.contains(name))?;
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        Some((name, HeaderValue::from_str(&text).ok()?))
    });
    headers.collect::<Option<_>>().ok_or("a header of the decision cannot be set")
}

/// The reply to a denied request. A message that is an object is the body of the reply.
fn deny(status: StatusCode, message: Option<&Value>) -> Box<Reply> {
    match message {
        Some(Value::String(message)) => Reply::negotiated(status, message.clone(), "denied"),
        Some(body @ (Value::Object(_) | Value::Array(_))) => {
            Reply::new(status, ReplyBody::Raw(body.to_string().into()), "denied")
                .with_header(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"))
        }
        _ => Reply::negotiated(status, "unauthorized", "denied"),
    }
}
