//! `injection-protection`: rejects requests that contain SQL, scripts or other code where data belongs.
//!
//! ```yaml
//! plugin: injection-protection
//! config:
//!   injection_types: [sql, js]
//!   locations: [path_and_query, body]
//!   custom_injections:
//!   - name: templates
//!     regex: '\$\{[^}]*\}'
//! ```
//!
//! The plugin searches in texts as the client sent them, and after one and two rounds of percent-decoding; in JSON,
//! also without the escapes of strings. It recognizes known forms of attacks and is no replacement for endpoints that
//! treat data as data. Begin with `enforcement_mode: log_only`, and read in the log which valid requests it would
//! reject.
//!
//! **Not searched:** bodies of gRPC and gRPC-Web, which are streams that may go on for as long as the client likes. The
//! client says what is one: a `Content-Type` that begins with `application/grpc`. So it can send any body unsearched to
//! an endpoint that does not look at this field, whatever `enforcement_mode` and the protocols of the route are. If the
//! endpoints of a route do not use gRPC, add a rule that matches such a `Content-Type`, with `request-termination`.

mod decoded;
mod patterns;
#[cfg(test)]
mod tests;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, StatusCode, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::media_type::{MediaType, is_grpc};
use crate::plugin_api::{AccessOutcome, BuildCx, Phases, Plugin, PluginKind, Reply, RequestCx};
use crate::violations::{EnforcementMode, ViolationLog};
use decoded::{any_form, without_json_escapes};
use patterns::{InjectionType, Matcher};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The kinds of attacks to search for.
    injection_types: Vec<InjectionType>,
    /// Where to search for them.
    locations: Vec<Location>,
    /// Further expressions, at most 32.
    custom_injections: Vec<CustomInjection>,
    /// What happens to requests that contain one of them.
    enforcement_mode: EnforcementMode,
    /// The status of rejected requests, from 400 to 499.
    error_status_code: u16,
    /// The message in the body of the response to rejected requests.
    error_message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Location {
    /// The values of all header fields.
    Headers,
    Path,
    /// The names and values of the fields of the query.
    Query,
    PathAndQuery,
    /// The body, of at most 1 MiB. Larger and compressed bodies are rejected. Bodies of gRPC and gRPC-Web are not
    /// searched: those whose `Content-Type` begins with `application/grpc`.
    Body,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CustomInjection {
    /// The name in the log.
    name: String,
    /// A regular expression, case-sensitive and not anchored. Classes such as `\w` contain ASCII only. Look-around and
    /// backreferences are not supported.
    regex: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            injection_types: vec![InjectionType::Sql],
            locations: vec![Location::PathAndQuery],
            custom_injections: Vec::new(),
            enforcement_mode: EnforcementMode::Block,
            error_status_code: 400,
            error_message: "Bad Request".to_owned(),
        }
    }
}

const MAX_CUSTOM: usize = 32;
/// The largest body that is searched.
const MAX_BODY: usize = 1 << 20;

pub(crate) struct InjectionProtection {
    types: Vec<InjectionType>,
    custom: Vec<(String, Matcher)>,
    headers: bool,
    path: bool,
    query: bool,
    body: bool,
    blocks: bool,
    status: StatusCode,
    message: String,
    log: ViolationLog,
}

impl PluginKind for InjectionProtection {
    const NAME: &'static str = "injection-protection";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1007;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = InjectionProtection;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if config.injection_types.is_empty() && config.custom_injections.is_empty() {
            let remedy = "list one or more of sql, sql_low_sensitivity, js, ssi, xpath_abbreviated, xpath_extended and \
                          java_exception, or set custom_injections";
            invalid.push(Diagnostic::in_config("injection_types", "is empty", remedy));
        }
        if config.locations.is_empty() {
            let remedy = "list one or more of headers, path, query, path_and_query and body";
            invalid.push(Diagnostic::in_config("locations", "is empty", remedy));
        }
        if config.custom_injections.len() > MAX_CUSTOM {
            let message = format!("has more than {MAX_CUSTOM} entries");
            invalid.push(Diagnostic::in_config("custom_injections", message, "combine expressions with |"));
        }
        let mut custom = Vec::new();
        for (index, injection) in config.custom_injections.into_iter().take(MAX_CUSTOM).enumerate() {
            match Matcher::compile(&[&injection.regex]) {
                Ok(matcher) if matcher.is_match(b"") => {
                    let remedy = "write an expression that needs at least one character";
                    let field = format!("custom_injections[{index}].regex");
                    invalid.push(Diagnostic::in_config(field, "matches every request", remedy));
                }
                Ok(matcher) => custom.push((injection.name, matcher)),
                Err(error) => {
                    let field = format!("custom_injections[{index}].regex");
                    let message = format!("cannot be used: {}", error.to_string().replace('\n', " "));
                    let remedy = "write a valid expression without look-around, backreferences and large repetitions";
                    invalid.push(Diagnostic::in_config(field, message, remedy));
                }
            }
        }
        let status = StatusCode::from_u16(config.error_status_code).ok().filter(StatusCode::is_client_error);
        if status.is_none() {
            let message = format!("{} is not from 400 to 499", config.error_status_code);
            invalid.push(Diagnostic::in_config("error_status_code", message, "use a status such as 400 or 403"));
        }
        let Some(status) = status.filter(|_| invalid.is_empty()) else { return Err(invalid) };
        let mut types = config.injection_types;
        types.sort();
        types.dedup();
        for injection_type in &types {
            // Built now, so that no request waits for it.
            injection_type.matcher();
        }
        let has = |locations: &[Location]| config.locations.iter().any(|location| locations.contains(location));
        Ok(InjectionProtection {
            types,
            custom,
            headers: has(&[Location::Headers]),
            path: has(&[Location::Path, Location::PathAndQuery]),
            query: has(&[Location::Query, Location::PathAndQuery]),
            body: has(&[Location::Body]),
            blocks: config.enforcement_mode == EnforcementMode::Block,
            status,
            message: config.error_message,
            log: ViolationLog::default(),
        })
    }
}

impl Plugin for InjectionProtection {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let Some(violation) = self.violation(cx) else { return AccessOutcome::Continue };
        self.log.record(InjectionProtection::NAME, cx.scope, &violation);
        match self.blocks {
            true => AccessOutcome::Reply(Reply::negotiated(self.status, self.message.clone(), "injection")),
            false => AccessOutcome::Continue,
        }
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.body.then_some(MAX_BODY)
    }

    /// In `log_only`, a body that may be too large is not buffered, because the proxy would reject it.
    fn buffers_body(&self, head: &request::Parts) -> bool {
        self.body && !is_grpc(&head.headers) && (self.blocks || content_length(&head.headers) <= MAX_BODY)
    }
}

impl InjectionProtection {
    /// The name of the attack and its location, without its text.
    fn violation(&self, cx: &RequestCx<'_>) -> Option<String> {
        let mut found = None;
        let mut location = "";
        if self.path {
            location = "the path";
            let path = cx.raw_target.split('?').next().unwrap_or_default();
            found = self.find_any_form(path.as_bytes(), false);
        }
        if self.query && found.is_none() {
            location = "the query";
            // Fields are separate texts, so that no attack is put together from two of them.
            let mut fields = cx.query.unwrap_or_default().split('&');
            found = fields.find_map(|field| self.find_any_form(field.as_bytes(), true));
        }
        if self.headers && found.is_none() {
            location = "a header";
            found = cx.head.headers.values().find_map(|value| self.find_any_form(value.as_bytes(), false));
        }
        if self.body && found.is_none() {
            location = "the body";
            match self.in_body(cx) {
                Ok(in_body) => found = in_body,
                Err(reason) => return Some(reason.to_owned()),
            }
        }
        found.map(|name| format!("{name} in {location}"))
    }

    fn in_body(&self, cx: &RequestCx<'_>) -> Result<Option<&str>, &'static str> {
        let headers = &cx.head.headers;
        let Some(body) = cx.current_body() else {
            let is_skipped = self.blocks || is_grpc(headers) || content_length(headers) <= MAX_BODY;
            return if is_skipped { Ok(None) } else { Err("the body is too large to be searched") };
        };
        if body.len() > MAX_BODY {
            return Err("the body is too large to be searched");
        }
        if !body.is_empty() && headers.contains_key(CONTENT_ENCODING) {
            return Err("a compressed body cannot be searched");
        }
        let is_form = MediaType::of(headers).is_some_and(|found| found.essence == "application/x-www-form-urlencoded");
        if let Some(found) = self.find_any_form(body, is_form) {
            return Ok(Some(found));
        }
        let unescaped = if is_form { None } else { without_json_escapes(body) };
        Ok(unescaped.and_then(|text| self.find_any_form(&text, false)))
    }

    fn find_any_form(&self, text: &[u8], plus_is_space: bool) -> Option<&str> {
        let mut found = None;
        any_form(text, plus_is_space, |form| {
            found = self.find(form);
            found.is_some()
        });
        found
    }

    fn find(&self, text: &[u8]) -> Option<&str> {
        let built_in = self.types.iter().find(|injection| injection.matcher().is_match(text));
        let custom = || self.custom.iter().find(|(_, matcher)| matcher.is_match(text)).map(|(name, _)| name.as_str());
        built_in.map(|injection| injection.name()).or_else(custom)
    }
}

/// A body of unknown length counts as too large.
fn content_length(headers: &HeaderMap) -> usize {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    length.unwrap_or(usize::MAX)
}
