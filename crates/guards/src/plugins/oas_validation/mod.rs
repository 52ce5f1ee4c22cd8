//! `oas-validation`: rejects requests, and replaces responses, that do not conform to an OpenAPI document.
//!
//! ```yaml
//! plugin: oas-validation
//! config:
//!   api_spec: |
//!     openapi: 3.1.0
//!     info: {title: Shop, version: "1"}
//!     paths:
//!       /orders/{id}:
//!         get:
//!           parameters: [{name: id, in: path, required: true, schema: {type: integer, minimum: 1}}]
//!           responses: {"200": {description: The order}}
//!   verbose_response: true
//! ```
//!
//! Requests to paths and with methods that the document does not have are rejected, too. The security requirements of
//! the document are not enforced: that is what authentication plugins do. A long document is better in a ConfigMap, as
//! in `api_spec: {configMapKeyRef: {name: shop-api, key: openapi.yaml}}`.
//!
//! JSON in which a name is repeated within an object is rejected, because parsers disagree on which of its values
//! counts.
//!
//! Requests with more than 1,000 fields in the query, with more than 1,000 cookies if the operation has one as a
//! parameter, or with more than 1,000 items or members in a parameter are rejected.

mod api;
mod request;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderName, StatusCode, request as http_request};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_api::{
    AccessOutcome, BeyondLimit, BodyCheck, BodyFilter, BuildCx, Phases, Plugin, PluginKind, RemainingRegexSteps, Reply,
    RequestCx, ResponseCx, ResponseOutcome, ResponseSource,
};
use crate::plugin_formats::json_schema::{SchemaId, ValidationBudget, Violation};
use crate::plugin_formats::openapi::ApiPathMatch;
use crate::violations::ViolationLog;
use api::{Api, rule_for};
use request::{NonconformingRequest, RequestCheck, is_read};

#[expect(clippy::struct_excessive_bools, reason = "each is a field of Kong's plugin")]
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The document, of OpenAPI 3.0 or 3.1, in JSON or YAML. Required. References lead to parts of the same document.
    pub(crate) api_spec: String,
    /// Whether `api_spec` may have escapes as in URIs. A text with spaces, quotes, braces or line breaks is never
    /// decoded.
    pub(crate) api_spec_encoded: bool,
    /// Check the bodies of requests: their media types, and JSON and forms by their schemas. Bodies larger than 1 MiB
    /// are rejected with 413.
    validate_request_body: bool,
    /// Check header fields and cookies.
    validate_request_header_params: bool,
    /// Check the parameters in queries.
    validate_request_query_params: bool,
    /// Check the parameters in paths.
    validate_request_uri_params: bool,
    /// Check JSON bodies of responses, and their media types. Responses that do not conform are replaced by one with
    /// status 406. Responses with a status that the operation does not list are not checked. Bodies larger than 1 MiB,
    /// and those with another content coding than gzip and deflate, do not conform.
    pub(crate) validate_response_body: bool,
    /// Reject requests with header fields that the operation does not have, except those in
    /// `allowed_header_parameters` and those that the gateway sets.
    header_parameter_check: bool,
    /// Reject requests with query parameters that the operation does not have.
    query_parameter_check: bool,
    /// Names of header fields, separated by commas, that `header_parameter_check` always allows.
    allowed_header_parameters: String,
    /// Forward requests that do not conform, and write a warning to the log of the process.
    notify_only_request_validation_failure: bool,
    /// Forward responses whose bodies do not conform, and write a warning to the log of the process.
    notify_only_response_body_validation_failure: bool,
    /// Whether responses say what is wrong.
    verbose_response: bool,
    /// Whether the paths of requests begin with the path of one of the document's servers.
    pub(crate) include_base_path: bool,
    /// The path at the beginning of the paths of requests, instead of those of the servers. Needs `include_base_path`.
    pub(crate) custom_base_path: Option<String>,
    /// Has no effect: only the first error is reported.
    collect_all_errors: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            api_spec: String::new(),
            api_spec_encoded: true,
            validate_request_body: true,
            validate_request_header_params: true,
            validate_request_query_params: true,
            validate_request_uri_params: true,
            validate_response_body: false,
            header_parameter_check: false,
            query_parameter_check: false,
            allowed_header_parameters: "Host,Content-Type,User-Agent,Accept,Content-Length".to_owned(),
            notify_only_request_validation_failure: false,
            notify_only_response_body_validation_failure: false,
            verbose_response: false,
            include_base_path: false,
            custom_base_path: None,
            collect_all_errors: false,
        }
    }
}

/// The largest body of a request or response that is checked.
const MAX_BODY: usize = 1 << 20;

pub(crate) struct OasValidation {
    api: Arc<Api>,
    checks: Checks,
    checks_responses: bool,
    blocks_requests: bool,
    blocks_responses: bool,
    is_verbose: bool,
    log: Arc<ViolationLog>,
}

/// Which parts of requests are checked.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the configuration")]
struct Checks {
    path: bool,
    query: bool,
    headers: bool,
    body: bool,
    unknown_query: bool,
    unknown_headers: bool,
    allowed_headers: HashSet<HeaderName>,
}

/// The operation of a request: the numbers of its path and of its method.
#[derive(Clone, Copy)]
struct FoundOperation(usize, usize);

impl PluginKind for OasValidation {
    const NAME: &'static str = "oas-validation";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 840;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = OasValidation;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let mut allowed_headers = HashSet::new();
        for name in config.allowed_header_parameters.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match HeaderName::try_from(name) {
                Ok(name) => {
                    allowed_headers.insert(name);
                }
                Err(_) => {
                    let message = format!("{name:?} is not the name of a header field");
                    let remedy = "write names with commas between them, such as Accept,User-Agent";
                    invalid.push(Diagnostic::in_config("allowed_header_parameters", message, remedy));
                }
            }
        }
        if let Some(path) = &config.custom_base_path {
            if !path.starts_with('/') {
                let remedy = "write the whole path, such as /v1";
                invalid.push(Diagnostic::in_config("custom_base_path", "does not begin with a slash", remedy));
            }
            if !config.include_base_path {
                let message = "has no effect without include_base_path";
                cx.note(Diagnostic::in_config("custom_base_path", message, "set include_base_path to true"));
            }
        }
        if config.collect_all_errors {
            let message = "has no effect: only the first error is reported";
            cx.note(Diagnostic::in_config("collect_all_errors", message, "remove the field"));
        }
        let api = match Api::build(&config) {
            Ok(api) if invalid.is_empty() => Arc::new(api),
            Ok(_) => return Err(invalid),
            Err(problems) => {
                invalid.extend(problems);
                return Err(invalid);
            }
        };
        Ok(OasValidation {
            api,
            checks: Checks {
                path: config.validate_request_uri_params,
                query: config.validate_request_query_params,
                headers: config.validate_request_header_params,
                body: config.validate_request_body,
                unknown_query: config.query_parameter_check,
                unknown_headers: config.header_parameter_check,
                allowed_headers,
            },
            checks_responses: config.validate_response_body,
            blocks_requests: !config.notify_only_request_validation_failure,
            blocks_responses: !config.notify_only_response_body_validation_failure,
            is_verbose: config.verbose_response,
            log: Arc::default(),
        })
    }
}

impl Plugin for OasValidation {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let Err(NonconformingRequest { message, is_too_large }) = self.check(cx) else {
            return AccessOutcome::Continue;
        };
        self.log.record(OasValidation::NAME, cx.scope, &message);
        if !self.blocks_requests {
            return AccessOutcome::Continue;
        }
        if is_too_large {
            return AccessOutcome::Reply(Reply::negotiated(StatusCode::PAYLOAD_TOO_LARGE, message, "body_too_large"));
        }
        let message = if self.is_verbose { message } else { "request doesn't conform to schema".to_owned() };
        AccessOutcome::Reply(Reply::negotiated(StatusCode::BAD_REQUEST, message, "invalid_request"))
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        if !self.checks_responses || cx.source != ResponseSource::Service {
            return ResponseOutcome::Continue;
        }
        let Some(FoundOperation(path, method)) = cx.plugin_data::<FoundOperation>().copied() else {
            return ResponseOutcome::Continue;
        };
        let Some((_, operation)) = self.api.items.get(path).and_then(|item| item.operations.get(method)) else {
            return ResponseOutcome::Continue;
        };
        let Some(content) = operation.responses_to(cx.status.as_u16()).filter(|content| !content.is_empty()) else {
            return ResponseOutcome::Continue;
        };
        let media_type = MediaType::of(cx.headers);
        let rule = media_type.as_ref().and_then(|media_type| rule_for(content, media_type));
        let (Some(media_type), Some(rule)) = (&media_type, rule) else {
            // A response without a body has no type.
            if !cx.headers.contains_key(CONTENT_TYPE) {
                return ResponseOutcome::Continue;
            }
            let problem = "the media type of the response does not exist in specification";
            self.log.record(OasValidation::NAME, cx.scope, problem);
            return match self.blocks_responses {
                true => ResponseOutcome::Replace(nonconforming(self.is_verbose, problem)),
                false => ResponseOutcome::Continue,
            };
        };
        let Some(schema) = rule.schema.filter(|_| media_type.is_json()) else { return ResponseOutcome::Continue };
        let unreadable = match self.blocks_responses {
            true => BeyondLimit::Replace(nonconforming(self.is_verbose, "the body of the response cannot be checked")),
            false => BeyondLimit::PassUnchanged,
        };
        let (api, log) = (Arc::clone(&self.api), Arc::clone(&self.log));
        let (scope, blocks, is_verbose) = (cx.scope.to_owned(), self.blocks_responses, self.is_verbose);
        let check = Box::new(move |body: &[u8]| {
            let problem = response_problem(&api, schema, body)?;
            log.record(OasValidation::NAME, &scope, &problem);
            blocks.then(|| nonconforming(is_verbose, &problem))
        });
        cx.push_body_filter(BodyFilter::Checked(BodyCheck { max_bytes: MAX_BODY, unreadable, check }));
        ResponseOutcome::Continue
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.checks.body.then_some(MAX_BODY)
    }

    /// If requests are always forwarded, a body that may be too large is not buffered, because the proxy would reject
    /// it.
    fn buffers_body(&self, head: &http_request::Parts) -> bool {
        let length = head.headers.get(http::header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        self.checks.body
            && MediaType::of(&head.headers).is_some_and(|media_type| is_read(&media_type))
            && (self.blocks_requests || length.is_some_and(|length| length <= MAX_BODY))
    }
}

impl OasValidation {
    fn check(&self, cx: &mut RequestCx<'_>) -> Result<(), NonconformingRequest> {
        let path = cx.path;
        let matches = self.api.paths.find(path);
        if matches.is_empty() {
            return Err("path does not exist in specification".to_owned().into());
        }
        let operation = |found: &ApiPathMatch<'_>| {
            let operations = &self.api.items.get(found.path)?.operations;
            operations.iter().position(|(method, _)| *method == cx.head.method)
        };
        let Some((found, number)) = matches.iter().find_map(|found| Some((found, operation(found)?))) else {
            return Err("method does not exist in specification".to_owned().into());
        };
        if self.checks_responses {
            cx.set_plugin_data(FoundOperation(found.path, number));
        }
        let item = &self.api.items[found.path];
        let names = item.names.iter().map(String::as_str);
        let mut regex_steps = std::mem::take(cx.regex_steps);
        let outcome = RequestCheck {
            api: &self.api,
            checks: &self.checks,
            operation: &item.operations[number].1,
            path_values: names.zip(found.values.iter().copied()).collect(),
            cx,
            budget: &mut ValidationBudget::new(&mut regex_steps),
        }
        .run();
        *cx.regex_steps = regex_steps;
        outcome
    }
}

/// What is wrong with the body of a response.
fn response_problem(api: &Api, schema: SchemaId, body: &[u8]) -> Option<String> {
    let error = |what: &str| Some(format!("response body validation failed with error: '{what}'"));
    let value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(problem) => return error(&format!("is not valid JSON: {problem}")),
    };
    let mut steps = RemainingRegexSteps::default();
    match api.response_schemas.validate(schema, &value, &mut ValidationBudget::new(&mut steps)) {
        Ok(()) => None,
        Err(Violation::Invalid(invalid)) => error(&invalid.to_string()),
        Err(Violation::TooCostly) => error("is too large to be checked"),
    }
}

fn nonconforming(is_verbose: bool, problem: &str) -> Box<Reply> {
    let message = if is_verbose { problem.to_owned() } else { "response doesn't conform to schema".to_owned() };
    Reply::negotiated(StatusCode::NOT_ACCEPTABLE, message, "invalid_response_body")
}
