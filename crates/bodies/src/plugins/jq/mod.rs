//! `jq`: changes JSON bodies of requests and responses by programs of the language jq.
//!
//! ```yaml
//! plugin: jq
//! config:
//!   request_jq_program: 'del(.is_admin) | .source = "gateway"'
//!   response_jq_program: '{orders: [.items[] | {id, total: (.price * .quantity)}]}'
//! ```
//!
//! A program gets the body, and its values are the new body, each followed by a line break. Bodies are changed if the
//! media type is one of those configured; parameters of the type do not matter. Bodies may be compressed with gzip,
//! deflate, Brotli or Zstandard, and are sent uncompressed after the change. Numbers that the program does not compute
//! keep all digits.
//!
//! | what happens | request | response |
//! | --- | --- | --- |
//! | The body is not valid JSON, or not in its content coding | 400 | 502 |
//! | The program fails, as `error` and `1 + "a"` do | 400 | 502 |
//! | The program takes too much time or memory | 500 | 502 |
//! | The body, or the new body, has more than 1 MiB | 413 | 502 |
//! | The body is empty | it stays so | 502 |
//!
//! So no body passes that the program has not changed. Requests with an unknown content coding get 400. Responses to
//! HEAD, parts of a body (206), server-sent events and gRPC calls pass unchanged.
//!
//! ## Language
//!
//! Programs are those of jq 1.7: paths, slices, `..`, operators and assignments, `if`, `try`, `?`, `//`, `reduce`,
//! `foreach`, `label`, `def`, variables and patterns, interpolated strings, formats such as `@base64`, and functions
//! for objects, lists, strings, numbers and paths. These differ:
//!
//! - Patterns and flags of `test`, `match`, `capture`, `scan`, `sub`, `gsub` and `splits` are strings without
//!   interpolation. They are compiled with the program, and have no look-around and no back-references.
//! - `input`, `debug`, `env`, `$ENV`, `now`, `halt`, modules, dates, `?//` in patterns, and functions for SQL and
//!   streams do not exist. A program that uses an unknown function is refused, with its name.
//!
//! A program has at most 16 KiB and 64 levels of nested terms. A run has 500,000 steps: each term, each element
//! and each few characters of a copied string take one. Functions may call one another about 100 levels deep. So a
//! program that does not end is stopped within a fraction of a second. Use `until`, `while`, `range` and `reduce` for
//! loops: they do not nest calls.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode, request};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::jq_language::{JqProgram, JqValue, OutputStyle, Stop};
use crate::plugin_api::content_coding::{ContentCoding, DecodingError};
use crate::plugin_api::media_type::MediaType;
use crate::plugin_api::{
    AccessOutcome, BeyondLimit, BodyCheck, BodyFilter, BufferedFilter, BuildCx, ChangedFields, Phases, Plugin,
    PluginKind, Reply, RequestCx, ResponseCx, ResponseOutcome, record,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The program for bodies of requests. If unset, they are not changed.
    request_jq_program: Option<String>,
    /// How the values of the request's program are written.
    #[serde(deserialize_with = "record")]
    request_jq_program_options: OutputOptions,
    /// The media types of requests that are changed, such as `application/json` or `application/*`.
    request_if_media_type: Vec<String>,
    /// The program for bodies of responses. If unset, they are not changed.
    response_jq_program: Option<String>,
    /// How the values of the response's program are written.
    #[serde(deserialize_with = "record")]
    response_jq_program_options: OutputOptions,
    /// The media types of responses that are changed.
    response_if_media_type: Vec<String>,
    /// The statuses of responses that are changed.
    response_if_status_code: Vec<u16>,
}

impl Default for Config {
    fn default() -> Self {
        let json = || vec!["application/json".to_owned()];
        Config {
            request_jq_program: None,
            request_jq_program_options: OutputOptions::default(),
            request_if_media_type: json(),
            response_jq_program: None,
            response_jq_program_options: OutputOptions::default(),
            response_if_media_type: json(),
            response_if_status_code: vec![200],
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct OutputOptions {
    /// Whether values have no line breaks and no indentation.
    compact_output: bool,
    /// Whether a value that is a string is written without quotes.
    raw_output: bool,
    /// As `raw_output`, and without a line break after each value.
    join_output: bool,
    /// Whether characters beyond ASCII are written as escapes.
    ascii_output: bool,
    /// Whether the members of objects are sorted by name.
    sort_keys: bool,
}

impl Default for OutputOptions {
    fn default() -> Self {
        OutputOptions {
            compact_output: true,
            raw_output: false,
            join_output: false,
            ascii_output: false,
            sort_keys: false,
        }
    }
}

pub(crate) struct Jq {
    request: Option<Transformation>,
    response: Option<Arc<Transformation>>,
    statuses: Box<[u16]>,
}

/// A program, and the bodies that it changes.
struct Transformation {
    program: JqProgram,
    media_types: Box<[String]>,
    style: OutputStyle,
    is_raw: bool,
    is_joined: bool,
}

/// Why a body cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransformationFailure {
    /// The body is not JSON, or the program fails for it.
    Body,
    TooLarge,
    Exhausted,
}

/// The longest body, before and after the change, and decompressed.
const MAX_BODY_BYTES: usize = 1 << 20;

impl PluginKind for Jq {
    const NAME: &'static str = "jq";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 811;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = Jq;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        if config.request_jq_program.is_none() && config.response_jq_program.is_none() {
            let remedy = "set request_jq_program, response_jq_program or both";
            problems.push(Diagnostic::in_config("", "has no program", remedy));
        }
        for (index, status) in config.response_if_status_code.iter().enumerate() {
            if !(100..=599).contains(status) {
                let path = format!("response_if_status_code[{index}]");
                problems.push(Diagnostic::in_config(path, format!("{status} is not a status"), "use 100 to 599"));
            }
        }
        let mut transformation = |side: &str, program, media_types, options| {
            Transformation::build(side, program, media_types, &options, &mut problems)
        };
        let request = transformation(
            "request",
            config.request_jq_program,
            config.request_if_media_type,
            config.request_jq_program_options,
        );
        let response = transformation(
            "response",
            config.response_jq_program,
            config.response_if_media_type,
            config.response_jq_program_options,
        );
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Jq { request, response: response.map(Arc::new), statuses: config.response_if_status_code.into() })
    }
}

impl Plugin for Jq {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let Some(transformation) = self.request.as_ref().filter(|request| request.applies_to(&cx.head.headers)) else {
            return AccessOutcome::Continue;
        };
        let Some(body) = cx.current_body().filter(|body| !body.is_empty()) else { return AccessOutcome::Continue };
        match transformation.transform_coded(&cx.head.headers, body) {
            Ok(new) => {
                cx.head.headers.remove(CONTENT_ENCODING);
                cx.replace_body(new);
                AccessOutcome::Continue
            }
            Err(failure) => AccessOutcome::Reply(request_failure(failure)),
        }
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        let is_listed = self.statuses.contains(&cx.status.as_u16());
        let transformation = self.response.as_ref().filter(|response| is_listed && response.applies_to(cx.headers));
        if let Some(transformation) = transformation {
            push_filters(transformation, cx);
        }
        ResponseOutcome::Continue
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add(&CONTENT_ENCODING);
        fields.request.add(&http::header::CONTENT_LENGTH);
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.request.is_some().then_some(MAX_BODY_BYTES)
    }

    fn buffers_body(&self, head: &request::Parts) -> bool {
        self.request.as_ref().is_some_and(|request| request.applies_to(&head.headers))
    }
}

/// Adds a filter that runs the program and may replace the response, and one that sends what the program has returned.
fn push_filters(transformation: &Arc<Transformation>, cx: &mut ResponseCx<'_>) {
    let new_body = Rc::new(RefCell::new(None));
    let (transformation, result) = (Arc::clone(transformation), Rc::clone(&new_body));
    cx.push_body_filter(BodyFilter::Checked(BodyCheck {
        max_bytes: MAX_BODY_BYTES,
        unreadable: BeyondLimit::Replace(response_failure()),
        check: Box::new(move |body| match transformation.transform(body) {
            Ok(new) => {
                *result.borrow_mut() = Some(new);
                None
            }
            Err(_) => Some(response_failure()),
        }),
    }));
    cx.push_body_filter(BodyFilter::Buffered(BufferedFilter {
        max_bytes: MAX_BODY_BYTES,
        beyond_limit: BeyondLimit::PassUnchanged,
        reads_text: true,
        transform: Box::new(move |_| new_body.take()),
    }));
}

fn request_failure(failure: TransformationFailure) -> Box<Reply> {
    match failure {
        TransformationFailure::Body => {
            let message = "The body cannot be transformed";
            Reply::negotiated(StatusCode::BAD_REQUEST, message, "untransformable_body")
        }
        TransformationFailure::TooLarge => {
            let message = "Request size limit exceeded";
            Reply::negotiated(StatusCode::PAYLOAD_TOO_LARGE, message, "body_too_large")
        }
        TransformationFailure::Exhausted => {
            let message = "An unexpected error occurred";
            Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "transformation_failed")
        }
    }
}

fn response_failure() -> Box<Reply> {
    let message = "An invalid response was received from the upstream server";
    Reply::negotiated(StatusCode::BAD_GATEWAY, message, "untransformable_response")
}

impl Transformation {
    fn build(
        side: &str,
        program: Option<String>,
        media_types: Vec<String>,
        options: &OutputOptions,
        problems: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        for (index, media_type) in media_types.iter().enumerate() {
            if !MediaType::is_range(media_type) {
                let path = format!("{side}_if_media_type[{index}]");
                let message = format!("{media_type:?} is not a media type without parameters");
                problems.push(Diagnostic::in_config(path, message, "write a type such as application/json"));
            }
        }
        let remedy = "see the page of the plugin for what programs may contain";
        let path = format!("{side}_jq_program");
        let program = JqProgram::parse(&program?)
            .map_err(|error| problems.push(Diagnostic::in_config(path, error.0, remedy)))
            .ok()?;
        Some(Transformation {
            program,
            media_types: media_types.into(),
            style: OutputStyle {
                is_indented: !options.compact_output,
                is_ascii: options.ascii_output,
                sorts_keys: options.sort_keys,
            },
            is_raw: options.raw_output || options.join_output,
            is_joined: options.join_output,
        })
    }

    fn applies_to(&self, headers: &HeaderMap) -> bool {
        let media_type = MediaType::of(headers);
        media_type.is_some_and(|media_type| self.media_types.iter().any(|range| media_type.is_in(range)))
    }

    /// Changes a body with the content coding of these headers.
    fn transform_coded(&self, headers: &HeaderMap, body: &Bytes) -> Result<Bytes, TransformationFailure> {
        match ContentCoding::from_headers(headers) {
            ContentCoding::Unknown => Err(TransformationFailure::Body),
            coding => match coding.decode(body, MAX_BODY_BYTES) {
                Ok(body) => self.transform(&body),
                Err(DecodingError::TooLarge) => Err(TransformationFailure::TooLarge),
                Err(DecodingError::Invalid) => Err(TransformationFailure::Body),
            },
        }
    }

    fn transform(&self, body: &[u8]) -> Result<Bytes, TransformationFailure> {
        let input = std::str::from_utf8(body).ok().and_then(JqValue::from_json).ok_or(TransformationFailure::Body)?;
        let (mut text, mut is_too_large) = (String::new(), false);
        let flow = self.program.run(input, &mut |value| {
            match value {
                JqValue::Text(value) if self.is_raw => text.push_str(&value),
                value => text.push_str(&value.to_json(self.style)),
            }
            if !self.is_joined {
                text.push('\n');
            }
            is_too_large = text.len() > MAX_BODY_BYTES;
            if is_too_large { Err(Stop::Exhausted) } else { Ok(()) }
        });
        match flow {
            Ok(()) => Ok(text.into()),
            Err(_) if is_too_large => Err(TransformationFailure::TooLarge),
            Err(Stop::Exhausted) => Err(TransformationFailure::Exhausted),
            Err(_) => Err(TransformationFailure::Body),
        }
    }
}
