//! `mask`: replaces personal data in bodies of responses, and in what logs contain of requests.
//!
//! ```yaml
//! plugin: mask
//! config:
//!   fields: ["customer.email", "orders[*].iban", "**.password"]
//!   kinds: [email, payment-card]
//!   patterns: ['\bK-[0-9]{6}\b']
//!   log:
//!     headers: [X-User-Email]
//!     query_parameters: [email]
//!     fields: [client_ip]
//!     access_log_fields: [client]
//! ```
//!
//! ## Bodies
//!
//! `fields` are paths into JSON documents: `a.b`, `list[*].a`, `list[1]` for the first element, `a.*.b` for any
//! member, and `**.a` for members at any depth, with one `**` at most. The value of such a field is replaced as a
//! whole, whatever its type; `null` stays. `kinds` and `patterns` replace parts of all other texts, also in names and
//! numbers of JSON documents. Bytes that are not masked stay as they are.
//!
//! - In JSON documents, fields, kinds and patterns: `application/json`, types with the suffix `+json`,
//!   `application/x-ndjson`, `application/jsonl` and their other names.
//! - In texts, kinds and patterns, and fields if the text is a JSON document: `text/*`, XML, YAML, JavaScript,
//!   `application/x-www-form-urlencoded`, and bodies without a media type.
//! - Other types, such as images and archives, pass unchanged, and so do server-sent events, gRPC, WebSocket and other
//!   upgrades.
//!
//! Bodies may be compressed with gzip, deflate, Brotli or Zstandard, and are sent uncompressed if they are masked. A
//! body is replaced by a response with status 502 if it cannot be masked: it is larger than `max_body_size`, has
//! another content coding, is UTF-16 or UTF-32, is not JSON although its type says so, or is a part of a body. The
//! field `Range` is therefore not forwarded, so endpoints send whole bodies.
//!
//! ## Logs
//!
//! `log` is about the requests of the routes that the plugin is attached to. `kinds` and `patterns` apply to all texts
//! of the objects that log plugins write, to the URLs in spans of tracers, and to host, path, user agent and consumer
//! in the access log. Headers, query parameters and cookies are replaced by `REDACTED` wherever they appear. `fields`
//! are paths into the objects of log plugins, such as `request.headers.x-user`, `client_ip` or `consumer.username`;
//! `access_log_fields` are fields of the access log, in all its formats, and of the spans of all requests.
//!
//! ## What is not covered
//!
//! - Requests on their way to endpoints, header fields and trailers of responses.
//! - Personal data in another form: as a picture, in another encoding such as Base64, or split over several fields.
//! - Logs of requests that end before the plugins run, such as those with an invalid head.
//! - Tags of metrics, and what servers of other plugins write. Of spans, attributes other than the URL, the host, the
//!   client and the user agent.
//! - Responses that `proxy-cache` keeps: they are masked when they are sent, and not in the memory of the cache.

mod config;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, IF_RANGE, RANGE};
use http::{HeaderMap, StatusCode};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::completed_request::CredentialLocations;
use crate::plugin_api::masking::LogMask;
use crate::plugin_api::masking::json_mask::{JsonMask, UnmaskableJson};
use crate::plugin_api::media_type::MediaType;
use crate::plugin_api::{
    AccessOutcome, BeyondLimit, BodyCheck, BodyFilter, BufferedFilter, BuildCx, ChangedFields, Phases, Plugin,
    PluginKind, Reply, RequestCx, ResponseCx, ResponseOutcome, Scopes,
};
use config::Config;

pub(crate) struct Mask {
    /// `None` if bodies are not masked.
    body: Option<Arc<BodyMask>>,
    /// What logs must not contain; empty without `log`.
    log: CredentialLocations,
}

/// Masks bodies of responses.
struct BodyMask {
    json: JsonMask,
    max_bytes: usize,
}

/// How a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyForm {
    Json,
    /// A text, which may be a JSON document nevertheless.
    Text,
}

impl PluginKind for Mask {
    const NAME: &'static str = "mask";
    const HAS_CREDENTIALS: bool = true;
    const JUDGES_CONSUMERS: bool = false;
    const PRIORITY: i32 = 16;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Mask;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let parsed = config::parse(config, &mut invalid);
        let Some(parsed) = parsed.filter(|_| invalid.is_empty()) else { return Err(invalid) };
        let body = parsed.body.map(|json| Arc::new(BodyMask { json, max_bytes: parsed.max_bytes }));
        let log = parsed.log.map_or_else(CredentialLocations::default, |log| CredentialLocations {
            headers: log.headers,
            parameters: log.parameters,
            cookies: log.cookies,
            masks: vec![Arc::new(LogMask { object: log.object, access_log: log.access_log })],
        });
        Ok(Mask { body, log })
    }
}

impl Plugin for Mask {
    fn may_wait(&self) -> bool {
        false
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        (self.log != CredentialLocations::default()).then(|| self.log.clone())
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if self.body.is_some() {
            fields.request.add_all([&RANGE, &IF_RANGE]);
        }
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.body.is_some() {
            // A part of a body cannot be masked: the name of its fields may be in another part.
            cx.head.headers.remove(RANGE);
            cx.head.headers.remove(IF_RANGE);
        }
        AccessOutcome::Continue
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        let Some(mask) = &self.body else { return ResponseOutcome::Continue };
        // It has no content (RFC 9110, section 15.3.6), so none is masked.
        if cx.status == StatusCode::RESET_CONTENT && cx.headers.get(CONTENT_LENGTH).is_none_or(|length| length != "0") {
            return ResponseOutcome::Replace(unmaskable());
        }
        let form = match body_form(cx.headers) {
            Ok(Some(form)) => form,
            Ok(None) => return ResponseOutcome::Continue,
            Err(()) => return ResponseOutcome::Replace(unmaskable()),
        };
        if cx.status == StatusCode::PARTIAL_CONTENT || cx.headers.contains_key(CONTENT_RANGE) {
            return ResponseOutcome::Replace(unmaskable());
        }
        let masked = Rc::new(RefCell::new(None));
        let (mask, result) = (Arc::clone(mask), Rc::clone(&masked));
        let max_bytes = mask.max_bytes;
        cx.push_body_filter(BodyFilter::Checked(BodyCheck {
            max_bytes,
            unreadable: BeyondLimit::Replace(unmaskable()),
            check: Box::new(move |body| match mask.apply(form, body) {
                Ok(masked) => {
                    *result.borrow_mut() = masked;
                    None
                }
                Err(()) => Some(unmaskable()),
            }),
        }));
        // Decodes the body once more, which was possible a moment ago.
        cx.push_body_filter(BodyFilter::Buffered(BufferedFilter {
            max_bytes,
            beyond_limit: BeyondLimit::Replace(unmaskable()),
            reads_text: true,
            transform: Box::new(move |_| masked.take()),
        }));
        ResponseOutcome::Continue
    }
}

impl BodyMask {
    /// The masked body; `None` if nothing is masked. An error if it cannot be.
    fn apply(&self, form: BodyForm, body: &[u8]) -> Result<Option<Bytes>, ()> {
        let (mark, body) = if body.starts_with(BYTE_ORDER_MARK) { body.split_at(3) } else { (&[][..], body) };
        if body.is_empty() {
            return Ok(None);
        }
        // UTF-16 and UTF-32, whatever the header says.
        if body.contains(&0) || body.starts_with(b"\xff\xfe") || body.starts_with(b"\xfe\xff") {
            return Err(());
        }
        let limit = self.max_bytes.saturating_mul(MAX_GROWTH);
        let masked = match self.json.apply(body, limit) {
            Ok(masked) => masked,
            Err(UnmaskableJson::TooLarge) => return Err(()),
            Err(UnmaskableJson::Invalid) if form == BodyForm::Json => return Err(()),
            Err(UnmaskableJson::Invalid) => self.json.text().apply_to_bytes(body),
        };
        match masked {
            Some(masked) if masked.len() > limit => Err(()),
            Some(masked) if mark.is_empty() => Ok(Some(masked.into())),
            Some(masked) => Ok(Some([mark, &masked].concat().into())),
            None => Ok(None),
        }
    }
}

/// How a body with these header fields is read; `None` if it is not masked. An error if it should be and cannot.
fn body_form(headers: &HeaderMap) -> Result<Option<BodyForm>, ()> {
    if !headers.contains_key(http::header::CONTENT_TYPE) {
        return Ok(Some(BodyForm::Text));
    }
    // Clients disagree about a repeated or invalid type.
    let media_type = MediaType::of(headers).ok_or(())?;
    let essence = &*media_type.essence;
    // Parts of a document, and documents between control characters.
    if matches!(essence, "multipart/byteranges" | "application/json-seq") {
        return Err(());
    }
    let form = if media_type.is_json() || JSON_LINES.contains(&essence) {
        BodyForm::Json
    } else if essence != "text/event-stream"
        && (essence.starts_with("text/") || essence.ends_with("+xml") || TEXTS.contains(&essence))
    {
        BodyForm::Text
    } else {
        return Ok(None);
    };
    let is_wide = |charset: &str| {
        charset.starts_with("utf-16")
            || charset.starts_with("utf-32")
            || charset.contains("ucs-2")
            || charset.contains("unicode")
    };
    if media_type.parameters.iter().any(|(name, charset)| name == "charset" && is_wide(charset)) {
        return Err(());
    }
    Ok(Some(form))
}

fn unmaskable() -> Box<Reply> {
    let message = "An invalid response was received from the upstream server";
    Reply::negotiated(StatusCode::BAD_GATEWAY, message, "unmaskable_response")
}

const JSON_LINES: [&str; 6] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/json-lines",
    "application/x-jsonlines",
    "application/x-json",
];
const TEXTS: [&str; 6] = [
    "application/xml",
    "application/yaml",
    "application/x-yaml",
    "application/javascript",
    "application/ecmascript",
    "application/x-www-form-urlencoded",
];

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How many times as large as `max_body_size` a masked body may be: replacements may be longer than what they replace.
const MAX_GROWTH: usize = 4;
