//! `mocking`: responds with the examples of an OpenAPI document instead of forwarding requests.
//!
//! ```yaml
//! plugin: mocking
//! config:
//!   api_specification: |
//!     openapi: 3.1.0
//!     info: {title: Shop, version: "1"}
//!     paths:
//!       /orders/{id}:
//!         get:
//!           responses:
//!             "200":
//!               description: The order
//!               content: {application/json: {example: {id: 7, state: paid}}}
//! ```
//!
//! A response without an example gets one that is generated from its schema. Clients select responses by header fields:
//! `X-Kong-Mocking-Status-Code`, `X-Kong-Mocking-Example-Id`, and `X-Kong-Mocking-Delay` in milliseconds, at most
//! 10000. Mocked responses have `X-Kong-Mocking-Plugin: true`. Other plugins of the route run as usual, so that
//! requests without credentials are rejected. The path is that which a backend would get from the filters of the rule.
//! Mirrors, timeouts and retries cannot apply, so a rule with them is invalid; sessions have no effect.

mod example;
mod responses;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::media_type::accepted_ranges;
use crate::plugin_api::{
    BackendReplacement, BuildCx, ChangedFields, Phases, Plugin, PluginKind, ReplaceBackendCx, Reply, ReplyBody,
};
use crate::plugin_formats::openapi::{ApiDocument, base_paths};
use responses::{MockApi, MockResponse};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The document, of Swagger 2.0, OpenAPI 3.0 or OpenAPI 3.1, in JSON or YAML. Required.
    api_specification: String,
    /// Must be absent: there are no files. Set `api_specification` to `{configMapKeyRef: {name: NAME, key: KEY}}`.
    api_specification_filename: Option<String>,
    /// Wait before each response, for a random time between `min_delay_time` and `max_delay_time`.
    random_delay: bool,
    /// The shortest delay in seconds.
    min_delay_time: f64,
    /// The longest delay in seconds, at most 60.
    max_delay_time: f64,
    /// Select one of several examples at random, instead of the first one.
    random_examples: bool,
    /// The status codes of responses that may be selected. If empty, those from 200 to 299 may, or all of an operation
    /// that has none of these.
    included_status_codes: Vec<u16>,
    /// Select one of these responses at random, instead of the one with the lowest status.
    random_status_code: bool,
    /// Whether the paths of requests begin with the path of one of the document's servers.
    include_base_path: bool,
    /// The path at the beginning of the paths of requests, instead of those of the servers. Needs `include_base_path`.
    custom_base_path: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            api_specification: String::new(),
            api_specification_filename: None,
            random_delay: false,
            min_delay_time: 0.001,
            max_delay_time: 1.0,
            random_examples: false,
            included_status_codes: Vec::new(),
            random_status_code: false,
            include_base_path: false,
            custom_base_path: None,
        }
    }
}

const STATUS_CODE: HeaderName = HeaderName::from_static("x-kong-mocking-status-code");
const EXAMPLE_ID: HeaderName = HeaderName::from_static("x-kong-mocking-example-id");
const DELAY: HeaderName = HeaderName::from_static("x-kong-mocking-delay");
const MARKER: HeaderName = HeaderName::from_static("x-kong-mocking-plugin");
/// The longest delay that a client selects, in milliseconds.
const MAX_CLIENT_DELAY: u64 = 10_000;
/// The longest configured delay, in seconds.
const MAX_DELAY: f64 = 60.0;

pub(crate) struct Mocking {
    api: MockApi,
    /// The range of random delays.
    delay: Option<(Duration, Duration)>,
    random_examples: bool,
    random_status_code: bool,
    included_status_codes: Vec<u16>,
}

impl PluginKind for Mocking {
    const NAME: &'static str = "mocking";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = -1;
    const PHASES: Phases = Phases::REPLACE_BACKEND;
    // Requests to a mock must not reach a backend.
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = Mocking;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if config.api_specification_filename.is_some() {
            let remedy = "set api_specification to the text, or to {configMapKeyRef: {name: NAME, key: KEY}}";
            invalid.push(Diagnostic::in_config("api_specification_filename", "is not supported", remedy));
        }
        let is_delay = |delay: f64| (0.0..=MAX_DELAY).contains(&delay);
        for (field, delay) in [("min_delay_time", config.min_delay_time), ("max_delay_time", config.max_delay_time)] {
            if !is_delay(delay) {
                let message = format!("{delay} is not from 0 to {MAX_DELAY}");
                invalid.push(Diagnostic::in_config(field, message, "use a number of seconds, such as 0.5"));
            }
        }
        if config.min_delay_time > config.max_delay_time {
            let remedy = "set it to max_delay_time or less";
            invalid.push(Diagnostic::in_config("min_delay_time", "is above max_delay_time", remedy));
        }
        for (index, status) in config.included_status_codes.iter().enumerate() {
            if !(200..600).contains(status) {
                let field = format!("included_status_codes[{index}]");
                invalid.push(Diagnostic::in_config(field, format!("{status} is not a status"), "use 200 to 599"));
            }
        }
        if let Some(path) = config.custom_base_path.as_ref() {
            if !path.starts_with('/') {
                let remedy = "write the whole path, such as /v1";
                invalid.push(Diagnostic::in_config("custom_base_path", "does not begin with a slash", remedy));
            }
            if !config.include_base_path {
                let message = "has no effect without include_base_path";
                cx.note(Diagnostic::in_config("custom_base_path", message, "set include_base_path to true"));
            }
        }
        let document = ApiDocument::parse("api_specification", &config.api_specification, true);
        let api = document.map_err(|problem| vec![problem]).and_then(|document| {
            let bases = match (config.include_base_path, &config.custom_base_path) {
                (false, _) => vec![String::new()],
                (true, Some(path)) => vec![path.trim_end_matches('/').to_owned()],
                (true, None) => base_paths(&document),
            };
            MockApi::build(&document, &bases)
        });
        let api = match api {
            Ok(api) if invalid.is_empty() => api,
            Ok(_) => return Err(invalid),
            Err(problems) => {
                invalid.extend(problems);
                return Err(invalid);
            }
        };
        let seconds = Duration::from_secs_f64;
        Ok(Mocking {
            api,
            delay: config.random_delay.then(|| (seconds(config.min_delay_time), seconds(config.max_delay_time))),
            random_examples: config.random_examples,
            random_status_code: config.random_status_code,
            included_status_codes: config.included_status_codes,
        })
    }
}

impl Plugin for Mocking {
    fn replace_backend<'a>(&'a self, cx: &'a mut ReplaceBackendCx<'_>) -> BackendReplacement<'a> {
        let (reply, delay) = match self.delay_of(cx) {
            Ok(delay) => (self.reply(cx), delay),
            Err(reply) => (reply, Duration::ZERO),
        };
        if delay.is_zero() {
            return BackendReplacement::Reply(reply);
        }
        BackendReplacement::Wait(Box::pin(async move {
            tokio::time::sleep(delay).await;
            reply
        }))
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.response.add(&MARKER);
    }
}

impl Mocking {
    /// How long to wait before the response; a reply if the client has sent an invalid value.
    fn delay_of(&self, cx: &ReplaceBackendCx<'_>) -> Result<Duration, Box<Reply>> {
        let Some(value) = cx.head.headers.get(DELAY) else {
            let Some((min, max)) = self.delay else { return Ok(Duration::ZERO) };
            return Ok(min + (max - min).mul_f64(fastrand::f64()));
        };
        let delay = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
        delay.filter(|delay| *delay <= MAX_CLIENT_DELAY).map(Duration::from_millis).ok_or_else(|| {
            let message = "Invalid value for X-Kong-Mocking-Delay. The delay value should between 0 and 10000ms";
            Reply::negotiated(StatusCode::BAD_REQUEST, message, "invalid_mocking_delay")
        })
    }

    fn reply(&self, cx: &ReplaceBackendCx<'_>) -> Box<Reply> {
        let found = self.api.paths.find(cx.target.path);
        let operations = found.iter().filter_map(|found| self.api.operations.get(found.path));
        let mut responses = operations.flatten().filter(|(method, _)| *method == cx.head.method);
        let Some((_, responses)) = responses.next() else {
            let message = "Corresponding path and method spec does not exist in API Specification";
            return Reply::negotiated(StatusCode::NOT_FOUND, message, "no_mocked_operation");
        };
        let rendered = self.select_response(cx, responses).and_then(|response| self.render(cx, response));
        rendered.unwrap_or_else(|| {
            let message = "No examples exist in API specification for this resource that match the request";
            Reply::negotiated(StatusCode::NOT_FOUND, message, "no_mocked_response")
        })
    }

    fn select_response<'r>(&self, cx: &ReplaceBackendCx<'_>, all: &'r [MockResponse]) -> Option<&'r MockResponse> {
        if let Some(status) = cx.head.headers.get(STATUS_CODE) {
            let status = status.to_str().ok()?.parse::<u16>().ok()?;
            return all.iter().find(|response| response.status == status);
        }
        let is_included = |response: &&MockResponse| match self.included_status_codes.as_slice() {
            [] => (200..300).contains(&response.status),
            included => included.contains(&response.status),
        };
        let mut choices: Vec<_> = all.iter().filter(is_included).collect();
        if choices.is_empty() && self.included_status_codes.is_empty() {
            choices = all.iter().collect();
        }
        let index = if self.random_status_code && !choices.is_empty() { fastrand::usize(..choices.len()) } else { 0 };
        choices.get(index).copied()
    }

    /// The response in the type that the client prefers.
    fn render(&self, cx: &ReplaceBackendCx<'_>, response: &MockResponse) -> Option<Box<Reply>> {
        let status = StatusCode::from_u16(response.status).ok()?;
        if !response.has_content {
            let reply = Reply::new(status, ReplyBody::Raw(Bytes::new()), "mocked");
            return Some(reply.with_header(MARKER, HeaderValue::from_static("true")));
        }
        let mut ranges = accepted_ranges(cx.head.headers.get_all(ACCEPT).iter());
        if !cx.head.headers.contains_key(ACCEPT) {
            ranges.push("*/*".to_owned());
        }
        // Of types that the client likes equally well, JSON comes first.
        let mut bodies: Vec<_> = response.bodies.iter().collect();
        bodies.sort_by_key(|body| !body.media_type.is_json());
        let body = ranges.iter().find_map(|range| bodies.iter().find(|body| body.media_type.is_in(range)))?;
        let (_, example) = match cx.head.headers.get(EXAMPLE_ID) {
            Some(id) => body.examples.iter().find(|(known, _)| known.as_bytes() == id.as_bytes())?,
            None if self.random_examples => body.examples.get(fastrand::usize(..body.examples.len()))?,
            None => body.examples.first()?,
        };
        let reply = Reply::new(status, ReplyBody::Raw(example.clone()), "mocked");
        let reply = reply.with_header(CONTENT_TYPE, body.content_type.clone());
        Some(reply.with_header(MARKER, HeaderValue::from_static("true")))
    }
}
