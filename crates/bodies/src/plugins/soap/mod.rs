//! `soap`: lets clients that use JSON call a backend that uses SOAP or XML, and the other way round.
//!
//! ```yaml
//! plugin: soap
//! config:
//!   action: urn:shop#GetPrice
//!   operation: GetPrice
//!   namespace: urn:shop
//!   lists: [price]
//! ```
//!
//! The JSON body `{"item": "apple"}` becomes the message
//! `<soap:Body><GetPrice xmlns="urn:shop"><item>apple</item></GetPrice></soap:Body>`, sent with POST. The element in
//! the body of the response becomes JSON without its own name, and a `Fault` becomes a problem (RFC 9457) with the
//! status 400 or 502.
//!
//! | JSON | XML |
//! | --- | --- |
//! | a member | an element of that name |
//! | a list | several elements of the same name |
//! | a member with the prefix `@` | an attribute |
//! | a member `#text` | the text of an element that also has attributes or children |
//! | `null` in a request | an empty element |
//! | `null` in a response | an element with `xsi:nil="true"` |
//!
//! All values of responses are texts or lists and objects of them, because XML does not say which ones are numbers. A
//! name that occurs once is no list unless it is in `lists`.
//!
//! Instead of `operation`, `template` has the content of the body: XML in which `$(…)` stands for values of the
//! request, with the variables of `request-transformer`, and `{{/POINTER}}` (RFC 6901) for members of the JSON body.
//! Values are escaped, so they cannot add elements. A request without a value that the template needs gets 400. XML of
//! clients and of backends must be UTF-8, and must have no document type definition.

mod config;
mod message_template;
mod response;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::lua_value::Budget;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_api::{
    AccessOutcome, BeyondLimit, BodyCheck, BodyFilter, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply,
    RequestCx, ResponseCx, ResponseOutcome, ResponseSource,
};
use crate::plugin_formats::xml::scanner::XmlLimits;
use crate::plugin_formats::xml::text::is_name;
use crate::plugin_formats::xml::to_json::JsonRules;
use crate::plugin_formats::xml::tree::XmlElement;
use crate::plugin_formats::xml::write::{escape, write_element};
use crate::request_variables::RequestVariables;
use config::{Config, SoapMode, SoapVersion};
use message_template::MessageTemplate;
use response::{ResponseConversion, unreadable};

pub(crate) struct Soap {
    mode: SoapMode,
    version: SoapVersion,
    message: Option<Message>,
    header: Option<MessageTemplate>,
    content_type: HeaderValue,
    action: Option<HeaderValue>,
    max_body: usize,
    max_depth: usize,
    conversion: Arc<ResponseConversion>,
}

/// The content of the body of a message.
enum Message {
    Template(MessageTemplate),
    /// An element with the members of the JSON body, and the declaration of its namespace.
    Operation {
        name: String,
        namespace: Option<String>,
    },
}

const SOAP_ACTION: HeaderName = HeaderName::from_static("soapaction");
const MAX_BODY: usize = 4 << 20;
const MAX_DEPTH: usize = 100;

impl PluginKind for Soap {
    const NAME: &'static str = "soap";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 799;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    // Messages that are not converted have another meaning for the backend.
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        for (field, value, max) in
            [("max_body_size", config.max_body_size, MAX_BODY), ("max_depth", config.max_depth, MAX_DEPTH)]
        {
            if !(1..=max).contains(&value) {
                invalid.push(Diagnostic::in_config(field, format!("{value} is not from 1 to {max}"), "change it"));
            }
        }
        let mut fault_statuses = Vec::new();
        for (code, status) in &config.fault_statuses {
            match StatusCode::from_u16(*status).ok().filter(|_| (400..600).contains(status)) {
                Some(status) => fault_statuses.push((code.clone(), status)),
                None => {
                    let message = format!("{status} is not the status of an error");
                    let field = format!("fault_statuses[{code}]");
                    invalid.push(Diagnostic::in_config(field, message, "use 400 to 599"));
                }
            }
        }
        let root = config.operation.clone().filter(|_| config.mode == SoapMode::XmlToJson);
        let message = config.message(&mut invalid);
        let header = config.header_template.as_deref().map(|text| MessageTemplate::parse("header_template", text));
        let header = header.transpose().map_err(|problem| invalid.push(problem));
        if header.as_ref().is_ok_and(Option::is_some) && config.mode == SoapMode::JsonToXml {
            let message = "has no effect with the mode json-to-xml";
            invalid.push(Diagnostic::in_config("header_template", message, "remove it"));
        }
        let action = config.action(&mut invalid);
        let content_type = config.content_type(&mut invalid);
        let (Ok(header), Some(content_type), []) = (header, content_type, &invalid[..]) else { return Err(invalid) };
        Ok(Soap {
            mode: config.mode,
            version: config.version,
            message,
            header,
            content_type,
            action,
            max_body: config.max_body_size,
            max_depth: config.max_depth,
            conversion: Arc::new(ResponseConversion {
                mode: config.mode,
                rules: JsonRules { lists: config.lists, keeps_prefixes: config.keep_namespaces },
                fault_statuses,
                root: root.unwrap_or_else(|| "response".to_owned()),
                max_depth: config.max_depth,
            }),
        })
    }
}

impl Plugin for Soap {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let body = cx.current_body().cloned().unwrap_or_default();
        if !body.is_empty() && cx.head.headers.contains_key(CONTENT_ENCODING) {
            let message = "Compressed bodies are not supported";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return AccessOutcome::Reply(Reply::negotiated(status, message, "compressed_body"));
        }
        let converted = match self.mode {
            SoapMode::XmlToJson if body.is_empty() => None,
            SoapMode::XmlToJson => match self.request_as_json(&body) {
                Some(document) => Some(document),
                None => return AccessOutcome::Reply(unconvertible()),
            },
            SoapMode::Soap | SoapMode::JsonToXml => match self.request_as_xml(cx, &body) {
                Some(document) => Some(document),
                None => return AccessOutcome::Reply(unconvertible()),
            },
        };
        let headers = &mut cx.head.headers;
        headers.remove(ACCEPT_ENCODING);
        headers.insert(ACCEPT, HeaderValue::from_static(self.accept()));
        headers.remove(SOAP_ACTION);
        if let Some(document) = converted {
            headers.insert(CONTENT_TYPE, self.content_type.clone());
            headers.extend(self.action.clone().map(|action| (SOAP_ACTION, action)));
            if self.mode != SoapMode::XmlToJson {
                cx.head.method = Method::POST;
            }
            cx.replace_body(document.into());
        }
        AccessOutcome::Continue
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        if cx.source != ResponseSource::Service || !self.converts(cx.headers.get(CONTENT_TYPE)) {
            return ResponseOutcome::Continue;
        }
        let (status, headers, conversion) = (cx.status, cx.headers.clone(), Arc::clone(&self.conversion));
        let check = Box::new(move |body: &[u8]| Some(conversion.convert(status, headers, body)));
        let unreadable = BeyondLimit::Replace(unreadable());
        cx.push_body_filter(BodyFilter::Checked(BodyCheck { max_bytes: self.max_body, unreadable, check }));
        ResponseOutcome::Continue
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        for name in [&ACCEPT, &ACCEPT_ENCODING, &CONTENT_TYPE, &CONTENT_LENGTH, &SOAP_ACTION] {
            fields.request.add(name);
        }
        fields.response.add(&CONTENT_TYPE);
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(self.max_body)
    }
}

impl Soap {
    fn limits(depth: usize) -> XmlLimits {
        XmlLimits::of_message(depth)
    }

    /// Whether a response with this media type is converted.
    fn converts(&self, content_type: Option<&HeaderValue>) -> bool {
        let media_type = content_type.and_then(|value| MediaType::parse(value.to_str().ok()?));
        media_type.is_some_and(|media_type| {
            let essence = media_type.essence.as_str();
            match self.mode {
                SoapMode::XmlToJson => media_type.is_json(),
                SoapMode::Soap | SoapMode::JsonToXml => {
                    essence == "text/xml" || essence == "application/xml" || essence.ends_with("+xml")
                }
            }
        })
    }

    fn accept(&self) -> &'static str {
        match (self.mode, self.version) {
            (SoapMode::XmlToJson, _) => "application/json",
            (SoapMode::JsonToXml, _) => "application/xml, text/xml",
            (SoapMode::Soap, SoapVersion::V1_1) => "text/xml",
            (SoapMode::Soap, SoapVersion::V1_2) => "application/soap+xml",
        }
    }

    /// `None` if the body is not JSON, or lacks a value.
    fn request_as_xml(&self, cx: &RequestCx<'_>, body: &Bytes) -> Option<String> {
        let body = match body.trim_ascii() {
            [] => Value::Object(Map::new()),
            text => serde_json::from_slice(text).ok()?,
        };
        let variables = RequestVariables::new(cx);
        let mut budget = Budget::default();
        let mut document = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_owned();
        let is_soap = self.mode == SoapMode::Soap;
        if is_soap {
            document.push_str(&format!("<soap:Envelope xmlns:soap=\"{}\">", self.version.namespace()));
            if let Some(header) = &self.header {
                document.push_str("<soap:Header>");
                header.render(&mut document, &variables, &mut budget, &body)?;
                document.push_str("</soap:Header>");
            }
            document.push_str("<soap:Body>");
        }
        match self.message.as_ref()? {
            Message::Template(template) => template.render(&mut document, &variables, &mut budget, &body)?,
            Message::Operation { name, namespace } => {
                let mut members = match body {
                    Value::Object(members) => members,
                    _ => return None,
                };
                if let Some(namespace) = namespace {
                    members.insert("@xmlns".to_owned(), namespace.as_str().into());
                }
                write_element(&mut document, name, &Value::Object(members))?;
            }
        }
        if is_soap {
            document.push_str("</soap:Body></soap:Envelope>");
        }
        Some(document)
    }

    /// The root element as an object with one member. `None` if the body is not XML.
    fn request_as_json(&self, body: &[u8]) -> Option<String> {
        let root = XmlElement::parse(body, &Soap::limits(self.max_depth)).ok()?;
        let rules = &self.conversion.rules;
        let members = Map::from_iter([(rules.name(&root.name).to_owned(), rules.content(&root))]);
        Some(Value::Object(members).to_string())
    }
}

impl SoapVersion {
    /// The namespace of the envelope.
    fn namespace(self) -> &'static str {
        match self {
            SoapVersion::V1_1 => "http://schemas.xmlsoap.org/soap/envelope/",
            SoapVersion::V1_2 => "http://www.w3.org/2003/05/soap-envelope",
        }
    }
}

fn unconvertible() -> Box<Reply> {
    let message = "The request cannot be converted, or lacks a value";
    Reply::negotiated(StatusCode::BAD_REQUEST, message, "unconvertible_request")
}

impl Config {
    fn message(&self, invalid: &mut Vec<Diagnostic>) -> Option<Message> {
        if let Some(name) = self.operation.as_ref().filter(|name| !is_name(name.as_bytes())) {
            let message = format!("{name} is not the name of an element");
            invalid.push(Diagnostic::in_config("operation", message, "use a name such as GetPrice"));
        }
        if self.mode == SoapMode::XmlToJson {
            let unused = [
                ("template", self.template.is_some()),
                ("header_template", self.header_template.is_some()),
                ("action", self.action.is_some()),
                ("namespace", self.namespace.is_some()),
            ];
            for (field, _) in unused.into_iter().filter(|(_, is_set)| *is_set) {
                let message = "has no effect with the mode xml-to-json";
                invalid.push(Diagnostic::in_config(field, message, "remove it"));
            }
            return None;
        }
        match (&self.template, &self.operation) {
            (Some(template), None) => {
                if self.namespace.is_some() {
                    let remedy = "write xmlns in the template";
                    invalid.push(Diagnostic::in_config("namespace", "has no effect with template", remedy));
                }
                let parsed = MessageTemplate::parse("template", template);
                parsed.map(Message::Template).map_err(|problem| invalid.push(problem)).ok()
            }
            (None, Some(name)) => {
                if let Some(namespace) = self.namespace.as_deref().filter(|text| escape(text).is_none()) {
                    let message = format!("{namespace:?} cannot be in XML");
                    invalid.push(Diagnostic::in_config("namespace", message, "use a URI"));
                }
                Some(Message::Operation { name: name.clone(), namespace: self.namespace.clone() })
            }
            (Some(_), Some(_)) => {
                let remedy = "set one of both";
                invalid.push(Diagnostic::in_config("template", "is set together with operation", remedy));
                None
            }
            (None, None) => {
                let remedy = "set it to the name of the element in the body of the message, or set template";
                invalid.push(Diagnostic::in_config("operation", "is missing, and so is template", remedy));
                None
            }
        }
    }

    /// The value of `SOAPAction`, which requests of version 1.1 must have.
    fn action(&self, invalid: &mut Vec<Diagnostic>) -> Option<HeaderValue> {
        let action = self.action.as_deref().unwrap_or_default();
        if action.bytes().any(|byte| byte == b'"' || byte == b'\\' || !(b' '..0x7F).contains(&byte)) {
            let remedy = "use visible ASCII characters without quotes";
            invalid.push(Diagnostic::in_config("action", "is not a valid action", remedy));
            return None;
        }
        let has_header = self.mode == SoapMode::Soap && self.version == SoapVersion::V1_1;
        has_header.then(|| HeaderValue::try_from(format!("\"{action}\"")).ok()).flatten()
    }

    /// `None` if the action is not valid.
    fn content_type(&self, invalid: &mut Vec<Diagnostic>) -> Option<HeaderValue> {
        let text = match (self.mode, self.version, &self.action) {
            (SoapMode::XmlToJson, ..) => "application/json".to_owned(),
            (SoapMode::JsonToXml, _, None) => "application/xml; charset=utf-8".to_owned(),
            (SoapMode::JsonToXml, _, Some(_)) => {
                invalid.push(Diagnostic::in_config("action", "has no effect with the mode json-to-xml", "remove it"));
                return None;
            }
            (SoapMode::Soap, SoapVersion::V1_1, _) => "text/xml; charset=utf-8".to_owned(),
            (SoapMode::Soap, SoapVersion::V1_2, None) => "application/soap+xml; charset=utf-8".to_owned(),
            (SoapMode::Soap, SoapVersion::V1_2, Some(action)) => {
                format!("application/soap+xml; charset=utf-8; action=\"{action}\"")
            }
        };
        HeaderValue::try_from(text).ok()
    }
}
