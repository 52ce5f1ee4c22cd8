//! Parses the matches of an HTTPRoute rule.

use http::{HeaderName, HeaderValue, Method};

use super::budgets::regex_problem;
use crate::api::gateway::{HttpRouteMatch, HttpValueMatch};
use crate::diagnostic::Diagnostic;
use crate::snapshot::regex::{Regex, RegexAnchor, RegexError, RegexLimit, RegexSize};
use crate::snapshot::router::{HeaderMatch, PathMatch, QueryMatch, ValueMatch};

/// One parsed match.
#[derive(Clone, Debug)]
pub(super) struct ParsedMatch {
    pub path: PathMatch,
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
}

/// Matches all requests, like a rule without matches. Gateway API defaults a missing path to the prefix `/`, which
/// is stored without its slash.
pub(super) fn match_all() -> ParsedMatch {
    ParsedMatch { path: PathMatch::Prefix("".into()), method: None, headers: Vec::new(), query: Vec::new() }
}

/// `None`, with at least one diagnostic, if any part is invalid: without that part the match would accept more
/// requests.
pub(super) fn parse(
    raw: &HttpRouteMatch,
    limit: RegexLimit,
    field: &str,
    problems: &mut Vec<Diagnostic>,
) -> Option<ParsedMatch> {
    let problems_before = problems.len();
    let mut parsed = match_all();
    if let Some(path) = &raw.path {
        match &*path.kind {
            "Exact" => parsed.path = PathMatch::Exact(path.value.as_str().into()),
            "PathPrefix" => {
                parsed.path = PathMatch::Prefix(path.value.strip_suffix('/').unwrap_or(&path.value).into());
            }
            "RegularExpression" => {
                let size = RegexSize::of(&path.value, RegexAnchor::Whole, limit);
                check_regex(size, &format!("{field}.path.value"), problems);
                parsed.path = PathMatch::Regex(path.value.as_str().into());
            }
            other => {
                unknown_type(other, &format!("{field}.path.type"), "Exact, PathPrefix or RegularExpression", problems)
            }
        }
    }
    if let Some(method) = &raw.method {
        match Method::from_bytes(method.as_bytes()) {
            Ok(method) => parsed.method = Some(method),
            Err(_) => {
                let message = format!("{method:?} is not an HTTP method");
                problems.push(Diagnostic::error(
                    format!("{field}.method"),
                    message,
                    "use a method such as GET or POST",
                ));
            }
        }
    }
    for (index, header) in raw.headers.iter().enumerate() {
        let field = format!("{field}.headers[{index}]");
        let Ok(name) = HeaderName::try_from(&*header.name) else {
            let message = format!("{:?} is not a header name", header.name);
            problems.push(Diagnostic::error(format!("{field}.name"), message, "use letters, digits and hyphens"));
            continue;
        };
        let value = parse_value_match(header, limit, &field, problems, |text| {
            HeaderValue::from_str(text).map_err(|_| "the value has control characters, so no request can match it")
        });
        // If a name occurs twice, the first entry counts, as Gateway API specifies.
        if let Some(value) = value
            && !parsed.headers.iter().any(|known| known.name == name)
        {
            parsed.headers.push(HeaderMatch { name, value });
        }
    }
    for (index, parameter) in raw.query_params.iter().enumerate() {
        let field = format!("{field}.queryParams[{index}]");
        if let Some(value) = parse_value_match(parameter, limit, &field, problems, |text| Ok(Box::from(text)))
            && !parsed.query.iter().any(|known| *known.name == *parameter.name)
        {
            parsed.query.push(QueryMatch { name: parameter.name.as_str().into(), value });
        }
    }
    (problems.len() == problems_before).then_some(parsed)
}

fn parse_value_match<T>(
    raw: &HttpValueMatch,
    limit: RegexLimit,
    field: &str,
    problems: &mut Vec<Diagnostic>,
    parse_exact: impl FnOnce(&str) -> Result<T, &'static str>,
) -> Option<ValueMatch<T>> {
    match &*raw.kind {
        "Exact" => match parse_exact(&raw.value) {
            Ok(value) => Some(ValueMatch::Exact(value)),
            Err(message) => {
                problems.push(Diagnostic::error(format!("{field}.value"), message, "remove the control characters"));
                None
            }
        },
        "RegularExpression" => {
            let regex = check_regex(Regex::compile(&raw.value, limit), &format!("{field}.value"), problems)?;
            Some(ValueMatch::Regex(regex))
        }
        other => {
            unknown_type(other, &format!("{field}.type"), "Exact or RegularExpression", problems);
            None
        }
    }
}

fn check_regex<T>(compiled: Result<T, RegexError>, field: &str, problems: &mut Vec<Diagnostic>) -> Option<T> {
    compiled.map_err(|error| problems.push(regex_problem(&error, field, "see docs/routing.md for the syntax"))).ok()
}

fn unknown_type(kind: &str, field: &str, allowed: &str, problems: &mut Vec<Diagnostic>) {
    problems.push(Diagnostic::error(
        field,
        format!("{kind} is not a supported type of match"),
        format!("use {allowed}"),
    ));
}
