//! The edits of requests that the request transformers have in common: of path, method, headers, query and body.
//!
//! ```text
//!   entries ──build──▶ RequestEdits ──render templates──▶ values ──apply──▶ path, body, method, headers, query
//! ```

mod body;
mod body_fields;
mod config;
mod edits;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod multipart_fields;

use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, Method, StatusCode, request};

use self::body::{BodyEdits, BodyFormat, BodyRejection, EditedBody};
use self::edits::{BodyName, FieldEdits, Rendered};
use self::fields::{FormPairs, HeaderFields};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::changed_fields::ChangedFields;
use crate::plugin_api::content_coding::ContentCoding;
use crate::plugin_api::context::RequestCx;
use crate::plugin_api::fields::replace_target;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::lua_value::Budget;
use crate::plugin_api::media_type::is_grpc;
use crate::plugin_api::path_encoding::encode_path;
use crate::plugin_api::reply::Reply;
use crate::plugin_api::{AccessOutcome, Plugin};
use crate::plugin_formats::template::Template;
use crate::request_variables::RequestVariables;

pub use config::{EntryLists, RequestEditConfig};
pub use fields::header_value;

/// The edits of a configuration.
pub struct RequestEdits {
    path: Option<Template>,
    method: Option<Method>,
    headers: FieldEdits<HeaderName>,
    /// The headers that are renamed, with their new names.
    renamed: Box<[(HeaderName, HeaderName)]>,
    body: FieldEdits<BodyName>,
    query: FieldEdits<Box<str>>,
    allowed_body: Option<Box<[BodyName]>>,
    has_paths: bool,
    /// Whether the headers that are edited include that of the format of the body.
    edits_content_type: bool,
    /// The object that holds the configuration.
    object: Box<str>,
    failures: EventCount,
    unknown_encodings: EventCount,
}

/// The longest body that is buffered, compressed and decompressed.
pub const MAX_BODY_BYTES: usize = 1 << 20;

impl RequestEdits {
    pub fn build(config: RequestEditConfig, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let has_paths = config.has_paths;
        let config = config.validate(cx)?;
        let edits_content_type = config.headers.names().any(|name| *name == CONTENT_TYPE);
        let renamed = config.headers.renamed().map(|(old, new)| (old.clone(), new.clone())).collect();
        Ok(RequestEdits {
            edits_content_type,
            renamed,
            path: config.path,
            method: config.method,
            headers: config.headers,
            body: config.body,
            query: config.query,
            allowed_body: config.allowed_body,
            has_paths,
            object: cx.object.into(),
            failures: EventCount::default(),
            unknown_encodings: EventCount::default(),
        })
    }

    /// Edits a request. Returns the reply to one that cannot be edited.
    fn edit(&self, cx: &mut RequestCx<'_>) -> Result<(), Box<Reply>> {
        let result = self.render(cx).and_then(|changes| self.apply(changes, cx));
        result.map_err(|failure| self.failure_reply(&failure))
    }

    fn edits_bodies(&self) -> bool {
        !self.body.is_empty() || self.allowed_body.is_some()
    }

    /// Whether a body may have a format that is edited after the headers were edited.
    fn may_become_editable(&self, head: &request::Parts) -> bool {
        self.edits_content_type && self.edits_bodies() && !is_grpc(&head.headers)
    }

    /// Whether the fields of forms move to the query, because the new method has no body.
    fn moves_form(&self) -> bool {
        self.method.as_ref().is_some_and(|method| [Method::GET, Method::HEAD, Method::TRACE].contains(method))
    }

    /// The format of the body, if this plugin changes such bodies.
    fn edited_format(&self, head: &request::Parts) -> Option<BodyFormat> {
        let format = BodyFormat::from_headers(&head.headers)?;
        let is_edited = self.edits_bodies() || (self.moves_form() && format == BodyFormat::Form);
        is_edited.then_some(format)
    }

    fn render<'p>(&'p self, cx: &RequestCx<'_>) -> Result<RequestChanges<'p>, RequestEditError> {
        let variables = RequestVariables::new(cx);
        let mut budget = Budget::default();
        let path = match &self.path {
            Some(template) => {
                let rendered = template.render(&variables, &mut budget);
                let rendered = rendered.map_err(|error| field_error("replace.uri", &error.to_string()))?;
                Some(checked_path(&rendered.unwrap_or_default()).map_err(|error| field_error("replace.uri", error))?)
            }
            None => None,
        };
        let format = self.edited_format(cx.head);
        let has_body = format.is_some() || self.may_become_editable(cx.head);
        let body = if has_body { self.body.render(&variables, &mut budget)? } else { Rendered::default() };
        let headers = self.headers.render(&variables, &mut budget)?;
        let query = self.query.render(&variables, &mut budget)?;
        Ok(RequestChanges { path, format, headers, body, query })
    }

    fn apply(&self, changes: RequestChanges<'_>, cx: &mut RequestCx<'_>) -> Result<(), RequestEditError> {
        if let Some(path) = changes.path {
            let query = cx.head.uri.query().unwrap_or_default().to_owned();
            replace_target(cx.head, &path, query.as_bytes())
                .map_err(|_| field_error("replace.uri", "the path is not valid or too long"))?;
        }
        // Before the headers change, because it depends on them whether a form moves to the query.
        let is_moved = self.moves_form() && changes.format == Some(BodyFormat::Form);
        let form = if is_moved { self.edit_body(BodyFormat::Form, is_moved, &changes.body, cx)? } else { None };
        if let Some(method) = &self.method {
            cx.head.method = method.clone();
        }
        changes.headers.apply(&mut HeaderFields(&mut cx.head.headers))?;
        if !is_moved
            && self.edits_bodies()
            && let Some(format) = self.edited_format(cx.head)
        {
            self.edit_body(format, is_moved, &changes.body, cx)?;
        }
        let mut query = cx.head.uri.query().unwrap_or_default().as_bytes().to_vec();
        let mut field = "append.querystring";
        if let Some(form) = form.filter(|form| !form.is_empty()) {
            field = "http_method";
            if !query.is_empty() {
                query.push(b'&');
            }
            query.extend_from_slice(&form);
        } else if changes.query.is_empty() {
            return Ok(());
        }
        let mut pairs = FormPairs::parse(&query);
        changes.query.apply(&mut pairs)?;
        let path = cx.head.uri.path().to_owned();
        replace_target(cx.head, &path, &pairs.encode()).map_err(|_| field_error(field, "the query is too long"))
    }

    /// Changes the body. Returns the fields of a form that moves to the query.
    fn edit_body(
        &self,
        format: BodyFormat,
        is_moved: bool,
        rendered: &Rendered<'_, BodyName>,
        cx: &mut RequestCx<'_>,
    ) -> Result<Option<Vec<u8>>, RequestEditError> {
        let coding = ContentCoding::from_headers(&cx.head.headers);
        if !body::is_editable(coding) {
            if let Some(count) = self.unknown_encodings.count() {
                tracing::warn!(object = &*self.object, count, "Forwarded a body unchanged, in an unknown encoding");
            }
            return Ok(None);
        }
        let Some(body) = cx.current_body().cloned() else { return Ok(None) };
        let decoded = body::decode(coding, &body, MAX_BODY_BYTES).map_err(RequestEditError::Body)?;
        let allowed = self.allowed_body.as_deref();
        let edits = BodyEdits { rendered, allowed, has_paths: self.has_paths };
        let EditedBody { body, is_changed } = format.edit(&cx.head.headers, decoded, &edits)?;
        if is_moved {
            cx.replace_body(bytes::Bytes::new());
            for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING] {
                cx.head.headers.remove(name);
            }
            return Ok(Some(fields::encode_for_query(&body)));
        }
        if is_changed {
            cx.head.headers.remove(CONTENT_ENCODING);
            cx.replace_body(body.into());
        }
        Ok(None)
    }

    fn failure_reply(&self, error: &RequestEditError) -> Box<Reply> {
        match error {
            RequestEditError::Field(field, message) => {
                if let Some(count) = self.failures.count() {
                    let field = format!("config.{field}");
                    tracing::warn!(object = &*self.object, field, message, count, "A request cannot be transformed");
                }
                let message = "An unexpected error occurred";
                Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "transformation_failed")
            }
            RequestEditError::Body(BodyRejection::TooLarge) => {
                let message = "Request size limit exceeded";
                Reply::negotiated(StatusCode::PAYLOAD_TOO_LARGE, message, "body_too_large")
            }
            RequestEditError::Body(BodyRejection::Invalid) => {
                let message = "The body does not have the encoding that Content-Encoding declares";
                Reply::negotiated(StatusCode::BAD_REQUEST, message, "invalid_body_encoding")
            }
        }
    }
}

impl Plugin for RequestEdits {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        match self.edit(cx) {
            Ok(()) => AccessOutcome::Continue,
            Err(reply) => AccessOutcome::Reply(reply),
        }
    }

    fn renamed_fields(&self) -> &[(HeaderName, HeaderName)] {
        &self.renamed
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add_all(self.headers.names());
        // Those of a body that is changed or moves to the query.
        fields.request.add_all(&[CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING]);
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        (self.edits_bodies() || self.moves_form()).then_some(MAX_BODY_BYTES)
    }

    /// Whether the body of a request with this head may change.
    fn buffers_body(&self, head: &request::Parts) -> bool {
        let may_be_edited = self.edited_format(head).is_some() || self.may_become_editable(head);
        may_be_edited && body::is_editable(ContentCoding::from_headers(&head.headers))
    }
}

/// The changes of one request, computed before the first one is applied.
struct RequestChanges<'p> {
    path: Option<String>,
    format: Option<BodyFormat>,
    headers: Rendered<'p, HeaderName>,
    body: Rendered<'p, BodyName>,
    query: Rendered<'p, Box<str>>,
}

/// Why a request cannot be transformed.
enum RequestEditError {
    /// The field of the configuration, and what is wrong. The message contains no value of the request.
    Field(String, String),
    Body(BodyRejection),
}

fn field_error(field: &str, message: &str) -> RequestEditError {
    RequestEditError::Field(field.to_owned(), message.to_owned())
}

/// The path as it is sent.
pub(crate) fn checked_path(path: &[u8]) -> Result<String, &'static str> {
    if path.first() != Some(&b'/') {
        return Err("the path does not start with a slash");
    }
    if path.iter().any(u8::is_ascii_control) {
        return Err("the path contains a control character");
    }
    // A value of the client would lead out of the configured path.
    if path.split(|byte| *byte == b'/').any(is_dot_segment) {
        return Err("the path contains a segment of dots");
    }
    Ok(encode_path(path).into_owned())
}

/// Whether a segment stands for its own or its parent's path (RFC 3986, section 3.3), also if it is percent-encoded.
fn is_dot_segment(segment: &[u8]) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    while !rest.is_empty() {
        rest = match rest {
            [b'.', after @ ..] | [b'%', b'2', b'e' | b'E', after @ ..] => after,
            _ => return false,
        };
        dots += 1;
    }
    matches!(dots, 1 | 2)
}

/// Counts an event that is logged ever more rarely: the first, second, fourth, eighth and so on.
#[derive(Default)]
struct EventCount(AtomicU64);

impl EventCount {
    /// The number of events so far, if this one is to be logged.
    fn count(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        count.is_power_of_two().then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::{EventCount, checked_path};

    #[test]
    fn values_do_not_lead_out_of_a_path() {
        for (path, is_accepted) in [
            ("/new/a", true),
            ("/new/a.b/...", true),
            ("/new/%2e.a", true),
            ("/new/../admin", false),
            ("/new/.", false),
            ("/new/%2E%2e/admin", false),
            ("/new/.%2e", false),
        ] {
            assert_eq!(checked_path(path.as_bytes()).is_ok(), is_accepted, "{path}");
        }
    }

    #[test]
    fn failures_are_logged_ever_more_rarely() {
        let count = EventCount::default();
        let logged: Vec<u64> = (0..100).filter_map(|_| count.count()).collect();
        assert_eq!(logged, [1, 2, 4, 8, 16, 32, 64]);
    }
}
