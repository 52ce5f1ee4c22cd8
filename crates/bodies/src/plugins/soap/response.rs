//! The response to the client, from that of the backend.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::Soap;
use super::config::SoapMode;
use crate::plugin_api::{Reply, ReplyBody};
use crate::plugin_formats::xml::to_json::JsonRules;
use crate::plugin_formats::xml::tree::{XmlElement, local_name};
use crate::plugin_formats::xml::write::write_element;
use crate::plugin_kit::relayed_response::{remove_fields_of_connection, reply_of_backend};

/// What a response needs to be converted.
pub(super) struct ResponseConversion {
    pub(super) mode: SoapMode,
    pub(super) rules: JsonRules,
    pub(super) fault_statuses: Vec<(String, StatusCode)>,
    /// The root of XML responses.
    pub(super) root: String,
    pub(super) max_depth: usize,
}

impl ResponseConversion {
    /// The response in place of one with this head and body.
    pub(super) fn convert(&self, status: StatusCode, headers: HeaderMap, body: &[u8]) -> Box<Reply> {
        match self.mode {
            SoapMode::XmlToJson => self.json_to_xml(status, headers, body),
            SoapMode::Soap | SoapMode::JsonToXml => self.xml_to_json(status, headers, body),
        }
    }

    fn xml_to_json(&self, status: StatusCode, headers: HeaderMap, body: &[u8]) -> Box<Reply> {
        let Ok(root) = XmlElement::parse(body, &Soap::limits(self.max_depth)) else { return unreadable() };
        if self.mode == SoapMode::JsonToXml {
            let name = self.rules.name(&root.name).to_owned();
            let document = Value::Object(Map::from_iter([(name, self.rules.content(&root))]));
            return converted(status, headers, JSON, document.to_string());
        }
        let content = root.child("Body").filter(|_| root.local_name() == "Envelope");
        let Some(content) = content else { return unreadable() };
        match content.children.first() {
            Some(fault) if fault.local_name() == "Fault" => self.fault(fault, headers),
            // The element of the operation says nothing that the client does not know.
            Some(result) => converted(status, headers, JSON, self.rules.content(result).to_string()),
            None => converted(status, headers, JSON, Value::Null.to_string()),
        }
    }

    /// A `Fault` of version 1.1 or 1.2 as a problem (RFC 9457).
    fn fault(&self, fault: &XmlElement, headers: HeaderMap) -> Box<Reply> {
        let text = |element: Option<&XmlElement>| element.map(|element| element.text.trim_ascii().to_owned());
        let code = fault.child("faultcode").or_else(|| fault.child("Code")?.child("Value"));
        let code = text(code).map(|code| local_name(&code).to_owned()).unwrap_or_default();
        let reason = text(fault.child("faultstring").or_else(|| fault.child("Reason")?.child("Text")));
        let detail = fault.child("detail").or_else(|| fault.child("Detail"));
        let configured = self.fault_statuses.iter().find(|(known, _)| *known == code).map(|(_, status)| *status);
        // `Client.Authentication` is a kind of `Client`.
        let kind = code.split('.').next().unwrap_or_default();
        let is_of_client = kind == "Client" || kind == "Sender";
        let default = if is_of_client { StatusCode::BAD_REQUEST } else { StatusCode::BAD_GATEWAY };
        let status = configured.unwrap_or(default);
        let mut problem = json!({
            "type": "about:blank", "title": "SOAP error", "status": status.as_u16(), "detail": reason, "code": code,
        });
        if let Some(detail) = detail {
            problem["fault"] = self.rules.content(detail);
        }
        let body = ReplyBody::Raw(problem.to_string().into());
        let mut reply = Reply::new(status, body, "soap_fault");
        reply.headers = kept(headers);
        reply.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        reply
    }

    fn json_to_xml(&self, status: StatusCode, headers: HeaderMap, body: &[u8]) -> Box<Reply> {
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return unreadable() };
        let mut document = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_owned();
        let single = value.as_object().filter(|members| members.len() == 1).and_then(|members| members.iter().next());
        // An object with one member has a root already; a list has none.
        let written = match single.filter(|(name, value)| !name.starts_with(['@', '#']) && !value.is_array()) {
            Some((name, value)) => write_element(&mut document, name, value),
            None if value.is_array() => write_element(&mut document, &self.root, &json!({"item": value})),
            None => write_element(&mut document, &self.root, &value),
        };
        match written {
            Some(()) => converted(status, headers, "application/xml; charset=utf-8", document),
            None => unreadable(),
        }
    }
}

const JSON: &str = "application/json; charset=utf-8";

fn converted(status: StatusCode, headers: HeaderMap, content_type: &'static str, body: String) -> Box<Reply> {
    let mut headers = kept(headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply_of_backend(status, headers, body.into())
}

/// The fields that do not describe the former body.
fn kept(mut headers: HeaderMap) -> HeaderMap {
    remove_fields_of_connection(&mut headers);
    for name in [CONTENT_ENCODING, CONTENT_LENGTH, ETAG] {
        headers.remove(name);
    }
    headers.remove("digest");
    headers.remove("content-digest");
    headers
}

/// The reply if the response of the backend cannot be converted.
pub(super) fn unreadable() -> Box<Reply> {
    Reply::negotiated(StatusCode::BAD_GATEWAY, "An invalid response was received", "invalid_soap_response")
}
