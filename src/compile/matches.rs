//! Matches of a rule: from open strings to what the router compares.

use http::{HeaderName, HeaderValue, Method};

use super::verdict::Problem;
use crate::api::gateway::{HttpRouteMatch, HttpValueMatch};
use crate::snapshot::router::{HeaderMatch, PathMatch, QueryMatch, Regex, ValueMatch, compile_regex};

/// One match, parsed.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub path: PathMatch,
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
}

/// A match without path is the prefix `/` (§3.1), and no match at all is that match.
pub(super) fn all() -> Parsed {
    Parsed { path: PathMatch::Prefix("".into()), method: None, headers: Vec::new(), query: Vec::new() }
}

/// None, with at least one problem, if any part of it cannot be compared: a match without that part would let in more.
pub(super) fn parse(raw: &HttpRouteMatch, field: &str, problems: &mut Vec<Problem>) -> Option<Parsed> {
    let before = problems.len();
    let mut parsed = all();
    if let Some(path) = &raw.path {
        match &*path.kind {
            "Exact" => parsed.path = PathMatch::Exact(path.value.as_str().into()),
            "PathPrefix" => {
                parsed.path = PathMatch::Prefix(path.value.strip_suffix('/').unwrap_or(&path.value).into());
            }
            "RegularExpression" => {
                check_regex(&path.value, &format!("{field}.path.value"), problems);
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
                let message = format!("{method:?} is not a method");
                problems.push(Problem::new(format!("{field}.method"), message, "use one like GET or POST"));
            }
        }
    }
    for (index, header) in raw.headers.iter().enumerate() {
        let field = format!("{field}.headers[{index}]");
        let Ok(name) = HeaderName::try_from(&*header.name) else {
            let message = format!("{:?} is not a header name", header.name);
            problems.push(Problem::new(format!("{field}.name"), message, "use letters, digits and hyphens"));
            continue;
        };
        let value = value(header, &field, problems, |text| {
            HeaderValue::from_str(text).map_err(|_| "the value has control characters, so no request has it")
        });
        // A name that stands twice: the first entry counts (§3.1).
        if let Some(value) = value
            && !parsed.headers.iter().any(|known| known.name == name)
        {
            parsed.headers.push(HeaderMatch { name, value });
        }
    }
    for (index, parameter) in raw.query_params.iter().enumerate() {
        let field = format!("{field}.queryParams[{index}]");
        if let Some(value) = value(parameter, &field, problems, |text| Ok(Box::from(text)))
            && !parsed.query.iter().any(|known| *known.name == *parameter.name)
        {
            parsed.query.push(QueryMatch { name: parameter.name.as_str().into(), value });
        }
    }
    (problems.len() == before).then_some(parsed)
}

fn value<T>(
    raw: &HttpValueMatch,
    field: &str,
    problems: &mut Vec<Problem>,
    exact: impl FnOnce(&str) -> Result<T, &'static str>,
) -> Option<ValueMatch<T>> {
    match &*raw.kind {
        "Exact" => match exact(&raw.value) {
            Ok(value) => Some(ValueMatch::Exact(value)),
            Err(message) => {
                problems.push(Problem::new(format!("{field}.value"), message, "remove them"));
                None
            }
        },
        "RegularExpression" => {
            let regex = check_regex(&raw.value, &format!("{field}.value"), problems)?;
            Some(ValueMatch::Regex(regex))
        }
        other => {
            unknown_type(other, &format!("{field}.type"), "Exact or RegularExpression", problems);
            None
        }
    }
}

fn check_regex(text: &str, field: &str, problems: &mut Vec<Problem>) -> Option<Regex> {
    match compile_regex(text) {
        Ok(regex) => Some(regex),
        Err(error) => {
            let message = format!("the regular expression cannot be used: {error}");
            problems.push(Problem::new(field, message, "see docs/routing.md for the syntax"));
            None
        }
    }
}

fn unknown_type(found: &str, field: &str, known: &str, problems: &mut Vec<Problem>) {
    problems.push(Problem::new(field, format!("{found} is not a way to match that is served"), format!("use {known}")));
}
