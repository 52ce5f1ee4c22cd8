//! `json-threat-protection`: rejects JSON bodies that are nested too deeply, too large, or have duplicate names.
//!
//! ```yaml
//! plugin: json-threat-protection
//! config:
//!   max_container_depth: 16
//!   max_array_element_count: 1000
//!   max_string_value_length: 4096
//!   allow_duplicate_object_entry_name: false
//! ```
//!
//! Bodies of POST, PUT and PATCH requests are checked while they are scanned once; no values are built. A body must be
//! one valid JSON value in UTF-8. A compressed body cannot be checked and is rejected.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod scanner;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, Method, StatusCode, request};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_api::{AccessOutcome, BuildCx, Phases, Plugin, PluginKind, Reply, RequestCx};
use crate::violations::{EnforcementMode, ViolationLog};
use scanner::{JsonLimits, scan};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The most nested objects and arrays. `-1` is no limit; no body may have more than 10000.
    max_container_depth: i64,
    /// The most elements of an array. `-1` is no limit.
    max_array_element_count: i64,
    /// The most entries of an object. `-1` is no limit.
    max_object_entry_count: i64,
    /// The longest name of an entry in characters. `-1` is no limit.
    max_object_entry_name_length: i64,
    /// The longest string in characters. `-1` is no limit.
    max_string_value_length: i64,
    /// The largest body in bytes, at most 16777216. Larger bodies violate the policy. `-1` is the largest value.
    max_body_size: i64,
    /// Whether two entries of an object may have the same name. Parsers disagree on which of them counts.
    allow_duplicate_object_entry_name: bool,
    /// Whether POST, PUT and PATCH requests may have bodies of other types than `application/json` and those with the
    /// suffix `+json`. They are not checked.
    allow_non_json_requests: bool,
    /// What happens to requests that violate the policy.
    enforcement_mode: EnforcementMode,
    /// The status of rejected requests, from 400 to 499.
    error_status_code: u16,
    /// The message in the body of the response to rejected requests.
    error_message: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            max_container_depth: -1,
            max_array_element_count: -1,
            max_object_entry_count: -1,
            max_object_entry_name_length: -1,
            max_string_value_length: -1,
            max_body_size: 8192,
            allow_duplicate_object_entry_name: true,
            allow_non_json_requests: false,
            enforcement_mode: EnforcementMode::Block,
            error_status_code: 400,
            error_message: "Bad Request".to_owned(),
        }
    }
}

/// The largest body that is checked.
const MAX_BODY: usize = 16 << 20;

pub(crate) struct JsonThreatProtection {
    limits: JsonLimits,
    max_body: usize,
    allows_other_types: bool,
    blocks: bool,
    status: StatusCode,
    message: String,
    log: ViolationLog,
}

impl PluginKind for JsonThreatProtection {
    const NAME: &'static str = "json-threat-protection";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1009;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = JsonThreatProtection;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let mut limit = |field: &str, value: i64| match value {
            -1 => None,
            value => {
                let limit = usize::try_from(value).ok();
                if limit.is_none() {
                    let remedy = "use a number of at least 0, or -1 for no limit";
                    invalid.push(Diagnostic::in_config(field, format!("{value} is not a limit"), remedy));
                }
                limit
            }
        };
        let limits = JsonLimits {
            depth: limit("max_container_depth", config.max_container_depth),
            array_elements: limit("max_array_element_count", config.max_array_element_count),
            object_entries: limit("max_object_entry_count", config.max_object_entry_count),
            name_length: limit("max_object_entry_name_length", config.max_object_entry_name_length),
            string_length: limit("max_string_value_length", config.max_string_value_length),
            allows_duplicates: config.allow_duplicate_object_entry_name,
        };
        let max_body = limit("max_body_size", config.max_body_size).unwrap_or(MAX_BODY);
        if max_body > MAX_BODY {
            let message = format!("{max_body} is above the largest body that is checked, {MAX_BODY} bytes");
            invalid.push(Diagnostic::in_config("max_body_size", message, format!("set it to {MAX_BODY} or less")));
        }
        let status = StatusCode::from_u16(config.error_status_code).ok().filter(StatusCode::is_client_error);
        if status.is_none() {
            let message = format!("{} is not from 400 to 499", config.error_status_code);
            invalid.push(Diagnostic::in_config("error_status_code", message, "use a status such as 400 or 413"));
        }
        match status {
            Some(status) if invalid.is_empty() => Ok(JsonThreatProtection {
                limits,
                max_body,
                allows_other_types: config.allow_non_json_requests,
                blocks: config.enforcement_mode == EnforcementMode::Block,
                status,
                message: config.error_message,
                log: ViolationLog::default(),
            }),
            _ => Err(invalid),
        }
    }
}

impl Plugin for JsonThreatProtection {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let Some(violation) = self.violation(cx) else { return AccessOutcome::Continue };
        self.log.record(JsonThreatProtection::NAME, cx.scope, &violation);
        match self.blocks {
            true => AccessOutcome::Reply(Reply::negotiated(self.status, self.message.clone(), "json_threat")),
            false => AccessOutcome::Continue,
        }
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(self.max_body)
    }

    /// A body that is too large is not buffered, so that the plugin decides what happens to it. In `log_only`, the same
    /// applies to a body of unknown size, which the proxy would reject.
    fn buffers_body(&self, head: &request::Parts) -> bool {
        has_body_to_check(&head.method)
            && is_json(&head.headers)
            && match content_length(&head.headers) {
                Some(length) => length <= self.max_body,
                None => self.blocks,
            }
    }
}

impl JsonThreatProtection {
    fn violation(&self, cx: &RequestCx<'_>) -> Option<Cow<'static, str>> {
        if !has_body_to_check(&cx.head.method) {
            return None;
        }
        let length = content_length(&cx.head.headers);
        if !is_json(&cx.head.headers) {
            let is_empty = cx.current_body().map_or(!cx.framing.has_body, |body| body.is_empty());
            let is_allowed = self.allows_other_types || is_empty && !has_type(&cx.head.headers);
            return (!is_allowed).then_some(Cow::Borrowed("the body is not JSON"));
        }
        if cx.head.headers.contains_key(CONTENT_ENCODING) {
            return Some(Cow::Borrowed("a compressed body cannot be checked"));
        }
        let body = cx.current_body();
        let size = body.map_or(length, |body| Some(body.len()));
        match (body, size) {
            (_, Some(size)) if size > self.max_body => Some(Cow::Borrowed("the body is too large")),
            (Some(body), _) => scan(body, &self.limits).err().map(|threat| Cow::Owned(threat.to_string())),
            (None, _) => Some(Cow::Borrowed("the size of the body is unknown")),
        }
    }
}

fn has_body_to_check(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

/// Also if the field is repeated or invalid: an endpoint may read it in another way.
fn has_type(headers: &HeaderMap) -> bool {
    headers.contains_key(http::header::CONTENT_TYPE)
}

fn is_json(headers: &HeaderMap) -> bool {
    MediaType::of(headers).is_some_and(|media_type| media_type.is_json())
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
