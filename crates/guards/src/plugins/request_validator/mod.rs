//! `request-validator`: rejects requests whose body or parameters do not conform to schemas.
//!
//! ```yaml
//! plugin: request-validator
//! config:
//!   version: draft202012
//!   body_schema: |
//!     {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 64}}}
//!   parameter_schema:
//!   - {name: page, in: query, required: false, style: form, explode: true, schema: '{"type": "integer"}'}
//!   verbose_response: true
//! ```
//!
//! Schemas are JSON Schemas in text, or lists of fields in the format of Kong. References lead to parts of the same
//! schema; other documents are never fetched. Formats restrict values in all versions.

mod kong_schema;
mod lua_pattern;
mod parameters;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode, request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_api::{AccessOutcome, BuildCx, Phases, Plugin, PluginKind, Reply, RequestCx};
use crate::plugin_formats::json_schema::{SchemaDialect, SchemaId, SchemaSet, ValidationBudget, Violation};
use crate::plugin_formats::openapi::parameter::query_fields;
use crate::plugin_formats::unique_json;
use crate::violations::{EnforcementMode, ViolationLog};
use parameters::{Parameter, ParameterConfig, compile, parse_schema};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// How `body_schema` is read. The schemas of parameters are read as draft 4 if it is `kong`, and as this version
    /// otherwise.
    version: SchemaVersion,
    /// The schema of bodies of the types `application/json` and those with the suffix `+json`. Bodies of other allowed
    /// types are not checked. One of `body_schema` and `parameter_schema` is required. A request without a body
    /// conforms if its method is GET, HEAD, OPTIONS, DELETE or TRACE, or if the schema says nothing, as `{}` does. An
    /// object in which a name is repeated does not conform, because parsers disagree on which of its values counts.
    body_schema: Option<String>,
    /// The parameters to check.
    parameter_schema: Vec<ParameterConfig>,
    /// The media types of requests, which are checked if `body_schema` is set. Types may have parameters, as in
    /// `application/json; charset=utf-8`, and wildcards, as in `text/*`.
    allowed_content_types: Vec<String>,
    /// Whether the parameters of the media type must be those of the allowed one.
    content_type_parameter_validation: bool,
    /// Whether responses say what is wrong with the request.
    verbose_response: bool,
    /// What happens to requests that do not conform.
    enforcement_mode: EnforcementMode,
    /// Has no effect: the length of an array is always the number of its items.
    array_length_compat: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SchemaVersion {
    /// A list of fields, such as `[{"name": {"type": "string", "required": true}}]`.
    Kong,
    Draft4,
    Draft6,
    Draft7,
    Draft201909,
    Draft202012,
}

impl SchemaVersion {
    fn dialect(self) -> SchemaDialect {
        match self {
            SchemaVersion::Kong | SchemaVersion::Draft4 => SchemaDialect::Draft4,
            SchemaVersion::Draft6 => SchemaDialect::Draft6,
            SchemaVersion::Draft7 => SchemaDialect::Draft7,
            SchemaVersion::Draft201909 => SchemaDialect::Draft201909,
            SchemaVersion::Draft202012 => SchemaDialect::Draft202012,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            version: SchemaVersion::Kong,
            body_schema: None,
            parameter_schema: Vec::new(),
            allowed_content_types: vec!["application/json".to_owned()],
            content_type_parameter_validation: true,
            verbose_response: false,
            enforcement_mode: EnforcementMode::Block,
            array_length_compat: None,
        }
    }
}

/// The largest body that is checked.
const MAX_BODY: usize = 1 << 20;
const MAX_PARAMETERS: usize = 256;

pub(crate) struct RequestValidator {
    body: Option<(SchemaSet, SchemaId)>,
    /// The schema of bodies says nothing about them.
    allows_any_body: bool,
    parameters: Vec<Parameter>,
    allowed_types: Vec<MediaType>,
    checks_type_parameters: bool,
    is_verbose: bool,
    blocks: bool,
    log: ViolationLog,
}

impl PluginKind for RequestValidator {
    const NAME: &'static str = "request-validator";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 999;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = RequestValidator;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if config.body_schema.is_none() && config.parameter_schema.is_empty() {
            let remedy = "set body_schema, parameter_schema, or both";
            invalid.push(Diagnostic::in_config("body_schema", "is missing, and so is parameter_schema", remedy));
        }
        if config.array_length_compat.is_some() {
            let message = "has no effect: the length of an array is always the number of its items";
            cx.note(Diagnostic::in_config("array_length_compat", message, "remove the field"));
        }
        let body = config.body_schema.as_deref().map(|text| body_schema(text, config.version)).transpose();
        if config.parameter_schema.len() > MAX_PARAMETERS {
            let message = format!("has more than {MAX_PARAMETERS} parameters");
            invalid.push(Diagnostic::in_config("parameter_schema", message, "remove parameters without a schema"));
        }
        let mut parameters = Vec::new();
        for (index, parameter) in config.parameter_schema.into_iter().take(MAX_PARAMETERS).enumerate() {
            match Parameter::build(index, parameter, config.version.dialect()) {
                Ok(parameter) => parameters.push(parameter),
                Err(problem) => invalid.push(problem),
            }
        }
        let mut allowed_types = Vec::new();
        for (index, text) in config.allowed_content_types.iter().enumerate() {
            match MediaType::parse(text) {
                Some(media_type) => allowed_types.push(media_type),
                None => {
                    let remedy = "write a type such as application/json or text/*";
                    let field = format!("allowed_content_types[{index}]");
                    invalid.push(Diagnostic::in_config(field, "is not a media type", remedy));
                }
            }
        }
        match body {
            Ok(body) if invalid.is_empty() => Ok(RequestValidator {
                body,
                allows_any_body: config.body_schema.as_deref().is_some_and(allows_everything),
                parameters,
                allowed_types,
                checks_type_parameters: config.content_type_parameter_validation,
                is_verbose: config.verbose_response,
                blocks: config.enforcement_mode == EnforcementMode::Block,
                log: ViolationLog::default(),
            }),
            Ok(_) => Err(invalid),
            Err(problem) => {
                invalid.push(problem);
                Err(invalid)
            }
        }
    }
}

fn body_schema(text: &str, version: SchemaVersion) -> Result<(SchemaSet, SchemaId), Diagnostic> {
    let schema = parse_schema("body_schema", text)?;
    if version != SchemaVersion::Kong {
        return compile("body_schema", &schema, version.dialect());
    }
    let schema = kong_schema::to_json_schema(&schema).map_err(|(pointer, message)| {
        let subject = if pointer.is_empty() { "the schema" } else { &pointer };
        let remedy = "see Kong's schemas, or set version to that of a JSON Schema";
        Diagnostic::in_config("body_schema", format!("{subject} {message}"), remedy)
    })?;
    compile("body_schema", &schema, SchemaDialect::Draft202012)
}

impl Plugin for RequestValidator {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let Err(rejection) = self.check(cx) else { return AccessOutcome::Continue };
        let (summary, detail) = match &rejection {
            NonconformingPart::Type => ("specified Content-Type is not allowed", None),
            NonconformingPart::Parameter(detail) => ("request param doesn't conform to schema", Some(detail.as_str())),
            NonconformingPart::Body(detail) => ("request body doesn't conform to schema", Some(detail.as_str())),
            NonconformingPart::TooLarge => ("Request size limit exceeded", None),
        };
        self.log.record(RequestValidator::NAME, cx.scope, detail.unwrap_or(summary));
        if !self.blocks {
            return AccessOutcome::Continue;
        }
        if let NonconformingPart::TooLarge = rejection {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return AccessOutcome::Reply(Reply::negotiated(status, summary, "body_too_large"));
        }
        let message = match detail.filter(|_| self.is_verbose) {
            Some(detail) => detail.to_owned(),
            None => summary.to_owned(),
        };
        AccessOutcome::Reply(Reply::negotiated(StatusCode::BAD_REQUEST, message, "invalid_request"))
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.body.is_some().then_some(MAX_BODY)
    }

    /// In `log_only`, a body that may be too large is not buffered, because the proxy would reject it.
    fn buffers_body(&self, head: &request::Parts) -> bool {
        self.body.is_some()
            && (self.checks_body(&head.headers) || !head.headers.contains_key(CONTENT_TYPE))
            && (self.blocks || content_length(&head.headers).is_some_and(|length| length <= MAX_BODY))
    }
}

/// Why a request is rejected, with what is wrong.
enum NonconformingPart {
    Type,
    Parameter(String),
    Body(String),
    TooLarge,
}

impl RequestValidator {
    fn check(&self, cx: &mut RequestCx<'_>) -> Result<(), NonconformingPart> {
        let mut regex_steps = std::mem::take(cx.regex_steps);
        let outcome = self.check_with(cx, &mut ValidationBudget::new(&mut regex_steps));
        *cx.regex_steps = regex_steps;
        outcome
    }

    fn check_with(&self, cx: &RequestCx<'_>, budget: &mut ValidationBudget<'_>) -> Result<(), NonconformingPart> {
        if self.body.is_some() && !self.is_allowed_type(&cx.head.headers) {
            return Err(NonconformingPart::Type);
        }
        if !self.parameters.is_empty() {
            let invalid_query =
                || NonconformingPart::Parameter("the query has too many fields, or is not UTF-8".to_owned());
            let query = query_fields(cx.query.unwrap_or_default()).ok_or_else(invalid_query)?;
            for parameter in &self.parameters {
                parameter.check(cx, &query, &self.parameters, budget).map_err(NonconformingPart::Parameter)?;
            }
        }
        match &self.body {
            Some(_) if self.lacks_body(cx) => Ok(()),
            Some((set, id)) if self.checks_body(&cx.head.headers) => check_body(set, *id, cx, budget),
            _ => Ok(()),
        }
    }

    /// Whether there is no body to check. One of another method than those without content is missing, unless the
    /// schema allows everything.
    fn lacks_body(&self, cx: &RequestCx<'_>) -> bool {
        let is_absent = !cx.framing.has_body && cx.current_body().is_none_or(Bytes::is_empty);
        is_absent && (self.allows_any_body || WITHOUT_CONTENT.contains(&cx.head.method))
    }

    /// A request without a type is one of `application/json`.
    fn is_allowed_type(&self, headers: &HeaderMap) -> bool {
        let json = || MediaType { essence: "application/json".to_owned(), parameters: Vec::new() };
        let found = if headers.contains_key(CONTENT_TYPE) { MediaType::of(headers) } else { Some(json()) };
        let Some(found) = found else { return false };
        self.allowed_types.iter().any(|allowed| {
            found.is_in(&allowed.essence) && (!self.checks_type_parameters || has_equal_parameters(allowed, &found))
        })
    }

    fn checks_body(&self, headers: &HeaderMap) -> bool {
        !headers.contains_key(CONTENT_TYPE) || MediaType::of(headers).is_some_and(|found| found.is_json())
    }
}

/// The methods whose requests usually have no content.
const WITHOUT_CONTENT: [Method; 5] = [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE, Method::TRACE];

/// Whether a schema says nothing about values. Generators of configurations write it for operations without a body.
fn allows_everything(text: &str) -> bool {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => members.keys().all(|name| ANNOTATIONS.contains(&&**name)),
        Ok(Value::Bool(allows)) => allows,
        _ => false,
    }
}

/// The members of a schema that only describe it.
const ANNOTATIONS: [&str; 5] = ["$comment", "$id", "$schema", "description", "title"];

/// The boundary of `multipart` differs from request to request, so it is never configured.
fn has_equal_parameters(allowed: &MediaType, found: &MediaType) -> bool {
    let relevant = |media_type: &MediaType| -> Vec<(String, String)> {
        media_type.parameters.iter().filter(|(name, _)| name != "boundary").cloned().collect()
    };
    relevant(allowed) == relevant(found)
}

fn check_body(
    set: &SchemaSet,
    id: SchemaId,
    cx: &RequestCx<'_>,
    budget: &mut ValidationBudget<'_>,
) -> Result<(), NonconformingPart> {
    let body = cx.current_body().map_or(&[][..], |body| body.as_ref());
    let is_too_large = content_length(&cx.head.headers).unwrap_or(0) > MAX_BODY || body.len() > MAX_BODY;
    if is_too_large {
        return Err(NonconformingPart::TooLarge);
    }
    if cx.head.headers.contains_key(CONTENT_ENCODING) {
        return Err(NonconformingPart::Body("a compressed body cannot be checked".to_owned()));
    }
    let value = unique_json::from_slice(body);
    let value = value.map_err(|error| NonconformingPart::Body(format!("the body is not valid JSON: {error}")))?;
    set.validate(id, &value, budget).map_err(|violation| match violation {
        Violation::Invalid(error) => NonconformingPart::Body(error.to_string()),
        Violation::TooCostly => NonconformingPart::Body("the body is too large to be checked".to_owned()),
    })
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
