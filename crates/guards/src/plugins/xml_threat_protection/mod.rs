//! `xml-threat-protection`: rejects XML bodies that exceed limits, declare entities, or are not well-formed.
//!
//! ```yaml
//! plugin: xml-threat-protection
//! config:
//!   checked_content_types: [application/xml, text/xml, application/soap+xml]
//!   allowed_content_types: [application/json]
//!   max_depth: 20
//! ```
//!
//! A body is scanned once, and no tree is built. Documents with a document type definition are rejected, so nothing is
//! expanded and nothing external is fetched. Requests without a body are not checked.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode, request};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_api::{AccessOutcome, BuildCx, Phases, Plugin, PluginKind, Reply, RequestCx};
use crate::plugin_formats::xml::scanner::{XmlLimits, scan};
use crate::violations::ViolationLog;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Media types of bodies that are checked, such as `text/xml` or `application/*`.
    checked_content_types: Vec<String>,
    /// Media types of bodies that are forwarded without a check. Bodies of all other types are rejected.
    allowed_content_types: Vec<String>,
    /// Must be `false`: documents with a document type definition are always rejected.
    allow_dtd: bool,
    /// Whether names consist of a prefix and a local name. If not, prefixes have no meaning, and declarations of
    /// namespaces count as attributes.
    namespace_aware: bool,
    /// The most nested elements, at most 10000.
    max_depth: usize,
    /// The most children of an element: elements, comments, processing instructions and texts. Adjacent texts and CDATA
    /// sections count once.
    max_children: usize,
    /// The most attributes of an element.
    max_attributes: usize,
    /// The most namespaces that an element declares.
    max_namespaces: usize,
    /// The largest body in bytes, at most 67108864. Larger bodies are rejected with 413.
    document: usize,
    /// The largest token in bytes, such as a start tag with all of its attributes.
    buffer: usize,
    /// The largest comment in bytes.
    comment: usize,
    /// The longest local name in bytes, of elements and of attributes.
    localname: usize,
    /// The longest prefix in bytes.
    prefix: usize,
    /// The longest name of a namespace in bytes.
    namespaceuri: usize,
    /// The longest value of an attribute in bytes.
    attribute: usize,
    /// The longest text in bytes. The sizes of adjacent texts and CDATA sections are added up.
    text: usize,
    /// The longest target of a processing instruction in bytes.
    pitarget: usize,
    /// The longest data of a processing instruction in bytes.
    pidata: usize,
    /// Has no effect, because documents that declare entities are rejected.
    entityname: usize,
    /// Has no effect, because documents that declare entities are rejected.
    entity: usize,
    /// Has no effect, because documents that declare entities are rejected.
    entityproperty: usize,
    /// Has no effect, because entities are never expanded.
    bla_max_amplification: f64,
    /// Has no effect, because entities are never expanded.
    bla_threshold: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            checked_content_types: vec!["application/xml".to_owned()],
            allowed_content_types: Vec::new(),
            allow_dtd: false,
            namespace_aware: true,
            max_depth: 50,
            max_children: 100,
            max_attributes: 100,
            max_namespaces: 20,
            document: 10 << 20,
            buffer: 1 << 20,
            comment: 1024,
            localname: 1024,
            prefix: 1024,
            namespaceuri: 1024,
            attribute: 1 << 20,
            text: 1 << 20,
            pitarget: 1024,
            pidata: 1024,
            entityname: 1024,
            entity: 1024,
            entityproperty: 1024,
            bla_max_amplification: 100.0,
            bla_threshold: 8 << 20,
        }
    }
}

const MAX_DEPTH: usize = 10_000;
const MAX_DOCUMENT: usize = 64 << 20;

pub(crate) struct XmlThreatProtection {
    checked: Vec<String>,
    allowed: Vec<String>,
    limits: XmlLimits,
    max_document: usize,
    log: ViolationLog,
}

impl PluginKind for XmlThreatProtection {
    const NAME: &'static str = "xml-threat-protection";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1008;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = XmlThreatProtection;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if config.allow_dtd {
            let message = "is true, but documents with a document type definition are always rejected";
            invalid.push(Diagnostic::in_config("allow_dtd", message, "remove the field"));
        }
        for (field, value, max) in
            [("max_depth", config.max_depth, MAX_DEPTH), ("document", config.document, MAX_DOCUMENT)]
        {
            if value > max {
                let message = format!("{value} is above {max}, the largest value");
                invalid.push(Diagnostic::in_config(field, message, format!("set it to {max} or less")));
            }
        }
        if config.checked_content_types.is_empty() {
            let remedy = "list a type such as application/xml, or remove the field for its default";
            invalid.push(Diagnostic::in_config("checked_content_types", "is empty, so nothing is checked", remedy));
        }
        for (field, types) in [
            ("checked_content_types", &config.checked_content_types),
            ("allowed_content_types", &config.allowed_content_types),
        ] {
            for (index, range) in types.iter().enumerate() {
                if !MediaType::is_range(range) {
                    let remedy = "write a media type without parameters, such as text/xml or application/*";
                    invalid.push(Diagnostic::in_config(format!("{field}[{index}]"), "is not a media type", remedy));
                }
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let limits = XmlLimits {
            namespace_aware: config.namespace_aware,
            depth: config.max_depth,
            children: config.max_children,
            attributes: config.max_attributes,
            namespaces: config.max_namespaces,
            text: config.text,
            attribute: config.attribute,
            comment: config.comment,
            local_name: config.localname,
            prefix: config.prefix,
            namespace_uri: config.namespaceuri,
            target: config.pitarget,
            instruction: config.pidata,
            token: config.buffer,
        };
        Ok(XmlThreatProtection {
            checked: config.checked_content_types,
            allowed: config.allowed_content_types,
            limits,
            max_document: config.document,
            log: ViolationLog::default(),
        })
    }
}

impl Plugin for XmlThreatProtection {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let violation = match self.handling(&cx.head.headers) {
            Handling::Forward => return AccessOutcome::Continue,
            Handling::Reject => {
                if cx.current_body().map_or(!cx.framing.has_body, |body| body.is_empty()) {
                    return AccessOutcome::Continue;
                }
                "the media type is not allowed".to_owned()
            }
            Handling::Check => match cx.current_body() {
                None => return AccessOutcome::Continue,
                Some(body) if body.is_empty() => return AccessOutcome::Continue,
                Some(body) if body.len() > self.max_document => {
                    let message = "Request size limit exceeded";
                    let status = StatusCode::PAYLOAD_TOO_LARGE;
                    return AccessOutcome::Reply(Reply::negotiated(status, message, "body_too_large"));
                }
                Some(_) if cx.head.headers.contains_key(CONTENT_ENCODING) => {
                    "a compressed body cannot be checked".to_owned()
                }
                Some(body) => match scan(body, &self.limits) {
                    Ok(()) => return AccessOutcome::Continue,
                    Err(threat) => format!("{}, at byte {}", threat.what, threat.offset),
                },
            },
        };
        self.log.record(XmlThreatProtection::NAME, cx.scope, &violation);
        AccessOutcome::Reply(Reply::negotiated(StatusCode::BAD_REQUEST, "Bad Request", "xml_threat"))
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(self.max_document)
    }

    fn buffers_body(&self, head: &request::Parts) -> bool {
        self.handling(&head.headers) != Handling::Forward
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handling {
    Check,
    Forward,
    /// Unless the body is empty.
    Reject,
}

impl XmlThreatProtection {
    fn handling(&self, headers: &HeaderMap) -> Handling {
        let Some(media_type) = MediaType::of(headers) else { return Handling::Reject };
        let is_in = |ranges: &[String]| ranges.iter().any(|range| media_type.is_in(range));
        if is_in(&self.checked) {
            Handling::Check
        } else if is_in(&self.allowed) {
            Handling::Forward
        } else {
            Handling::Reject
        }
    }
}
