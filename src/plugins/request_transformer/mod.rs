//! `request-transformer`: changes method, path, headers, query and body of requests before they are forwarded.
//!
//! ```yaml
//! plugin: request-transformer
//! config:
//!   remove: {headers: [x-internal], body: [is_admin]}
//!   rename: {querystring: ["q:query"]}
//!   replace: {headers: ["host:shop.internal"], uri: "/v2/users/$(uri_captures.id)"}
//!   add: {headers: ["x-user:$(headers['x-consumer-username'] or 'guest')"]}
//!   append: {querystring: ["tag:gateway"]}
//! ```
//!
//! The path changes first, then the method, headers, body and query. Of each, fields are removed, then renamed,
//! replaced, added and appended. An entry is `name:value`, only `name` in `remove`, and `old:new` in `rename`.
//!
//! - `replace` changes a field only if the request has it; the Host header is always replaced.
//! - `add` adds a field only if the request does not have it.
//! - `append` adds one more value.
//!
//! Names of headers are case-insensitive. Headers that belong to the connection or delimit the body, such as
//! `Connection` and `Content-Length`, cannot be changed, and Host can only be replaced. As in Kong, entries for them
//! have no effect, and neither have entries such as `name:` without a value, or a value in `remove`. The diagnostics of
//! the object name such entries, and all others apply.
//!
//! ## Templates
//!
//! Values and `replace.uri` may contain expressions in `$(…)`, in a subset of Lua. Expressions read the request as the
//! plugin receives it, before any change of this plugin; authentication plugins have already set the headers of the
//! consumer.
//!
//! | expression | value |
//! | --- | --- |
//! | `headers.x_tenant`, `headers["x-tenant"]` | a header, of several the first; an underscore also finds a dash |
//! | `query_params.page`, `query_params["page"]` | a query parameter, decoded; `true` if it has no `=` |
//! | `uri_captures[1]`, `uri_captures["name"]` | a group of the path expression of an Ingress or HTTPRoute |
//! | `shared.x` | always nil: no plugin stores values there |
//! | `"text"`, `'text'`, `12`, `1.5`, `true`, `false`, `nil` | literals |
//! | `and`, `or`, `not`, `==`, `~=`, `<`, `<=`, `>`, `>=` | logic and comparisons, as in `headers.a or "default"` |
//! | `..`, `+`, `-`, `*`, `/`, `%`, `#` | concatenation, arithmetic, length |
//! | `type`, `tostring`, `tonumber` | functions |
//! | `string.sub`, `upper`, `lower`, `len`, `format` | functions, also as methods: `headers.a:upper()` |
//! | `string.find`, `match`, `gsub` | the same, with patterns of Lua; only the first result is returned |
//!
//! A value of nil is empty text; a header whose whole value is nil is not set. To write a literal `$(`, put it in
//! quotes in an expression: `$('$(x)')`. Assignments, statements and other functions make the configuration invalid.
//!
//! An expression has at most 4096 bytes, 250 operators and literals, and 40 levels of parentheses. A value has at most
//! 64 KiB. If an expression fails, for example because it adds a number to nil, if all expressions of a request
//! together take too long, or if a value is not valid where it is used, the request gets a 500. The log names the
//! field, without the value.
//!
//! ## Path
//!
//! `replace.uri` replaces the whole path that the endpoint gets, after `konghq.com/strip-path`, `konghq.com/rewrite`
//! and the path of the Service have been applied, and instead of a `URLRewrite` filter. The query stays. Characters
//! that a path may not contain are percent-encoded, and dot segments are resolved. A path that does not start with a
//! slash, or has a control character, is a 500.
//!
//! ## Body
//!
//! Bodies of the types `application/json`, `application/x-www-form-urlencoded` and `multipart/form-data` are changed.
//! In JSON, the fields are the members of the outermost object, and new values are strings. Other bodies, gRPC and
//! upgraded connections are forwarded as they are, and so is a body that is not valid for its type.
//!
//! A body that may be changed is buffered first. It has at most 1 MiB and 10,000 fields; a larger one is rejected with
//! 413. Bodies with `Content-Encoding: gzip` are decompressed, with the same limit, and forwarded without it if they
//! change; one that cannot be decompressed is rejected with 400. Bodies in other encodings are forwarded as they are,
//! and the log counts them. Bodies are not changed by a plugin that is attached only to a consumer or a consumer group.
//!
//! If `http_method` is GET, HEAD or TRACE, the fields of a form are appended to the query, and the request is sent
//! without a body.

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

use self::body::{BodyFormat, BodyRejection, EditedBody};
use self::edits::{FieldEdits, Rendered};
use self::fields::{FormPairs, HeaderFields};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::fields::replace_target;
use crate::plugin_api::path_encoding::encode_path;
use crate::plugin_api::request_variables::RequestVariables;
use crate::plugin_api::template::{Budget, Template};
use crate::plugin_api::{AccessOutcome, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply, RequestCx};

pub(crate) use config::Config;

pub(crate) struct RequestTransformer {
    path: Option<Template>,
    method: Option<Method>,
    headers: FieldEdits<HeaderName>,
    body: FieldEdits<Box<str>>,
    query: FieldEdits<Box<str>>,
    /// The object that holds the configuration.
    object: Box<str>,
    failures: EventCount,
    unknown_encodings: EventCount,
}

/// The longest body that is buffered, compressed and decompressed.
const MAX_BODY_BYTES: usize = 1 << 20;

impl PluginKind for RequestTransformer {
    const NAME: &'static str = "request-transformer";
    const PRIORITY: i32 = 801;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = false;
    type Config = Config;
    type Plugin = RequestTransformer;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let config = config.validate(cx)?;
        Ok(RequestTransformer {
            path: config.path,
            method: config.method,
            headers: config.headers,
            body: config.body,
            query: config.query,
            object: cx.object.into(),
            failures: EventCount::default(),
            unknown_encodings: EventCount::default(),
        })
    }
}

impl Plugin for RequestTransformer {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let result = self.render(cx).and_then(|changes| self.apply(changes, cx));
        match result {
            Ok(()) => AccessOutcome::Continue,
            Err(failure) => AccessOutcome::Reply(self.failure_reply(&failure)),
        }
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add_all(self.headers.names());
        // Those of a body that is changed or moves to the query.
        fields.request.add_all(&[CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING]);
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        (!self.body.is_empty() || self.moves_form()).then_some(MAX_BODY_BYTES)
    }

    fn buffers_body(&self, head: &request::Parts) -> bool {
        self.edited_format(head).is_some() && body::Encoding::from_headers(&head.headers).is_known()
    }
}

/// The changes of one request, computed before the first one is applied.
struct RequestChanges<'p> {
    path: Option<String>,
    format: Option<BodyFormat>,
    headers: Rendered<'p, HeaderName>,
    body: Rendered<'p, Box<str>>,
    query: Rendered<'p, Box<str>>,
}

/// Why a request cannot be transformed.
enum TransformationError {
    /// The field of the configuration, and what is wrong. The message contains no value of the request.
    Field(String, String),
    Body(BodyRejection),
}

impl RequestTransformer {
    /// Whether the fields of forms move to the query, because the new method has no body.
    fn moves_form(&self) -> bool {
        self.method.as_ref().is_some_and(|method| [Method::GET, Method::HEAD, Method::TRACE].contains(method))
    }

    /// The format of the body, if this plugin changes such bodies.
    fn edited_format(&self, head: &request::Parts) -> Option<BodyFormat> {
        let format = BodyFormat::from_headers(&head.headers)?;
        let is_edited = !self.body.is_empty() || (self.moves_form() && format == BodyFormat::Form);
        is_edited.then_some(format)
    }

    fn render<'p>(&'p self, cx: &RequestCx<'_>) -> Result<RequestChanges<'p>, TransformationError> {
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
        let body = if format.is_some() { self.body.render(&variables, &mut budget)? } else { Rendered::default() };
        let headers = self.headers.render(&variables, &mut budget)?;
        let query = self.query.render(&variables, &mut budget)?;
        Ok(RequestChanges { path, format, headers, body, query })
    }

    fn apply(&self, changes: RequestChanges<'_>, cx: &mut RequestCx<'_>) -> Result<(), TransformationError> {
        if let Some(path) = changes.path {
            let query = cx.head.uri.query().unwrap_or_default().to_owned();
            replace_target(cx.head, &path, query.as_bytes())
                .map_err(|_| field_error("replace.uri", "the path is not valid or too long"))?;
        }
        // Before the headers change, because the format of the body depends on them.
        let form = match changes.format {
            Some(format) => self.edit_body(format, &changes.body, cx)?,
            None => None,
        };
        if let Some(method) = &self.method {
            cx.head.method = method.clone();
        }
        changes.headers.apply(&mut HeaderFields(&mut cx.head.headers))?;
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
        edits: &Rendered<'_, Box<str>>,
        cx: &mut RequestCx<'_>,
    ) -> Result<Option<Vec<u8>>, TransformationError> {
        let encoding = body::Encoding::from_headers(&cx.head.headers);
        if !encoding.is_known() {
            if let Some(count) = self.unknown_encodings.count() {
                tracing::warn!(object = &*self.object, count, "Forwarded a body unchanged, in an unknown encoding");
            }
            return Ok(None);
        }
        let Some(body) = cx.current_body().cloned() else { return Ok(None) };
        let decoded = encoding.decode(&body, MAX_BODY_BYTES).map_err(TransformationError::Body)?;
        let EditedBody { body, is_changed } = format.edit(&cx.head.headers, decoded, edits)?;
        if self.moves_form() && format == BodyFormat::Form {
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

    fn failure_reply(&self, error: &TransformationError) -> Box<Reply> {
        match error {
            TransformationError::Field(field, message) => {
                if let Some(count) = self.failures.count() {
                    let field = format!("config.{field}");
                    tracing::warn!(object = &*self.object, field, message, count, "A request cannot be transformed");
                }
                let message = "An unexpected error occurred";
                Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "transformation_failed")
            }
            TransformationError::Body(BodyRejection::TooLarge) => {
                let message = "Request size limit exceeded";
                Reply::negotiated(StatusCode::PAYLOAD_TOO_LARGE, message, "body_too_large")
            }
            TransformationError::Body(BodyRejection::Invalid) => {
                let message = "The body does not have the encoding that Content-Encoding declares";
                Reply::negotiated(StatusCode::BAD_REQUEST, message, "invalid_body_encoding")
            }
        }
    }
}

fn field_error(field: &str, message: &str) -> TransformationError {
    TransformationError::Field(field.to_owned(), message.to_owned())
}

/// The path as it is sent.
fn checked_path(path: &[u8]) -> Result<String, &'static str> {
    if path.first() != Some(&b'/') {
        return Err("the path does not start with a slash");
    }
    if path.iter().any(u8::is_ascii_control) {
        return Err("the path contains a control character");
    }
    Ok(encode_path(path).into_owned())
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
mod tests;
