//! The status of a gRPC call, as HTTP status and as JSON.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::percent_decode;
use prost_reflect::prost_types::Any;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Map, Value, json};

/// The status at the end of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallStatus {
    pub code: u8,
    pub message: String,
    /// A `google.rpc.Status`, whose details follow the message in JSON.
    details: Option<Vec<u8>>,
}

impl CallStatus {
    pub const UNKNOWN: u8 = 2;
    pub const INVALID_ARGUMENT: u8 = 3;
    pub const INTERNAL: u8 = 13;

    pub const STATUS_FIELD: HeaderName = HeaderName::from_static("grpc-status");
    pub const MESSAGE_FIELD: HeaderName = HeaderName::from_static("grpc-message");
    pub const DETAILS_FIELD: HeaderName = HeaderName::from_static("grpc-status-details-bin");

    pub fn new(code: u8, message: impl Into<String>) -> CallStatus {
        CallStatus { code, message: message.into(), details: None }
    }

    /// For a call that a server or a broken connection has ended without a status.
    pub fn missing() -> CallStatus {
        CallStatus::new(CallStatus::UNKNOWN, "the backend has ended the call without a status")
    }

    /// The status in the trailers of a response, or in its head if it consists of trailers only.
    pub fn from_fields(fields: &HeaderMap) -> Option<CallStatus> {
        let code = fields.get(CallStatus::STATUS_FIELD)?;
        let code = code.to_str().ok().and_then(|code| code.parse().ok());
        let code = code.filter(|code| *code <= 16).unwrap_or(CallStatus::UNKNOWN);
        let message = fields.get(CallStatus::MESSAGE_FIELD).map_or(&b""[..], HeaderValue::as_bytes);
        let message = percent_decode(message).decode_utf8_lossy().into_owned();
        let details = fields.get(CallStatus::DETAILS_FIELD).map(HeaderValue::as_bytes);
        let details = details.and_then(|details| STANDARD_NO_PAD.decode(without_padding(details)).ok());
        Some(CallStatus { code, message, details })
    }

    pub fn is_ok(&self) -> bool {
        self.code == 0
    }

    /// The time after which the server asks for another attempt: a `google.rpc.RetryInfo` in the details.
    pub fn retry_delay(&self) -> Option<Duration> {
        let status = <RpcStatus as prost::Message>::decode(self.details.as_deref()?).ok()?;
        let info = status
            .details
            .iter()
            .take(MAX_DETAILS)
            .find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
        let delay = <RetryInfo as prost::Message>::decode(&*info.value).ok()?.retry_delay?;
        Some(Duration::new(u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?.min(999_999_999)))
    }

    /// Kong's table.
    pub fn http_status(&self) -> StatusCode {
        match self.code {
            0 => StatusCode::OK,
            1 => StatusCode::from_u16(499).expect("499 is a status"),
            3 | 9 | 11 => StatusCode::BAD_REQUEST,
            4 => StatusCode::GATEWAY_TIMEOUT,
            5 => StatusCode::NOT_FOUND,
            6 | 10 => StatusCode::CONFLICT,
            7 => StatusCode::FORBIDDEN,
            8 => StatusCode::TOO_MANY_REQUESTS,
            14 => StatusCode::SERVICE_UNAVAILABLE,
            16 => StatusCode::UNAUTHORIZED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// `code`, `message` and `details`. Details whose types have no definition have their bytes in base64.
    pub fn to_json(&self, definitions: Option<&DescriptorPool>) -> Value {
        let details = self.details.as_deref().and_then(|details| <RpcStatus as prost::Message>::decode(details).ok());
        let details: Vec<Value> = details.map_or(Vec::new(), |status| {
            status.details.iter().take(MAX_DETAILS).map(|detail| detail_to_json(detail, definitions)).collect()
        });
        json!({"code": self.code, "message": self.message, "details": details})
    }
}

/// The part of `google.rpc.Status` that is read.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_reflect::prost_types::Duration>,
}

fn detail_to_json(detail: &Any, definitions: Option<&DescriptorPool>) -> Value {
    let mut fields = Map::new();
    fields.insert("@type".to_owned(), Value::String(detail.type_url.clone()));
    let name = detail.type_url.rsplit('/').next().unwrap_or_default();
    // An `Any` in a detail could contain others in any depth.
    let decoded = definitions
        .and_then(|definitions| definitions.get_message_by_name(name))
        .filter(|message| !super::json::may_contain_any(message))
        .and_then(|message| DynamicMessage::decode(message, &*detail.value).ok())
        .and_then(|message| serde_json::to_value(message).ok());
    match decoded {
        Some(Value::Object(decoded)) => fields.extend(decoded),
        Some(decoded) => drop(fields.insert("value".to_owned(), decoded)),
        None => drop(fields.insert("value".to_owned(), Value::String(BASE64_STANDARD.encode(&detail.value)))),
    }
    Value::Object(fields)
}

const MAX_DETAILS: usize = 64;

fn without_padding(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        fields.collect()
    }

    #[test]
    fn fields_are_decoded() {
        for (status, message, expected) in [
            ("0", "", (0, "")),
            ("5", "no such%20user %E2%9C%93", (5, "no such user ✓")),
            ("16", "%zz%ff", (16, "%zz\u{fffd}")),
            ("17", "a", (2, "a")),
            ("-1", "a", (2, "a")),
            ("", "a", (2, "a")),
        ] {
            let found =
                CallStatus::from_fields(&fields(&[("grpc-status", status), ("grpc-message", message)])).unwrap();
            assert_eq!((found.code, found.message.as_str()), expected, "{status}");
        }
        assert_eq!(CallStatus::from_fields(&fields(&[("grpc-message", "a")])), None);
    }

    // docs/kong-compatibility.md, 4.11
    #[test]
    fn every_code_has_its_http_status() {
        let expected: [u16; 17] = [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 500, 500, 503, 500, 401];
        let found: Vec<u16> = (0..=16_u8).map(|code| CallStatus::new(code, "").http_status().as_u16()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn details_without_definition_are_bytes() {
        let detail = Any { type_url: "type.example/a.B".to_owned(), value: vec![8, 1] };
        let status = prost::Message::encode_to_vec(&RpcStatus { details: vec![detail] });
        for encoded in [STANDARD_NO_PAD.encode(&status), BASE64_STANDARD.encode(&status)] {
            let mut fields = fields(&[("grpc-status", "9")]);
            fields.insert(CallStatus::DETAILS_FIELD, encoded.parse().unwrap());
            let found = CallStatus::from_fields(&fields).unwrap().to_json(None);
            let details = json!([{"@type": "type.example/a.B", "value": "CAE="}]);
            assert_eq!(found, json!({"code": 9, "message": "", "details": details}));
        }
        let broken = fields(&[("grpc-status", "9"), ("grpc-status-details-bin", "//////8")]);
        assert_eq!(CallStatus::from_fields(&broken).unwrap().to_json(None)["details"], json!([]));
    }
}
