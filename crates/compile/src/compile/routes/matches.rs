//! Parses the matches of an HTTPRoute rule.

use http::{HeaderName, HeaderValue, Method};

use crate::api::gateway::{HttpPathMatch, HttpRouteMatch, HttpValueMatch};
use crate::compile::budgets::{RegexBudget, literal_segments};
use crate::compile::paths::literal_path::CheckedPath;
use crate::compile::paths::path_expression::{PathExpression, expression_of_prefix};
use crate::diagnostic::Diagnostic;
use crate::snapshot::regex::{Regex, RegexAnchor, RegexError, RegexLimit};
use crate::snapshot::router::{CallMatch, HeaderMatch, PathMatch, PathPattern, QueryMatch, ValueMatch};

/// One parsed match.
#[derive(Clone, Debug)]
pub(in crate::compile) struct ParsedMatch {
    pub path: PathMatch,
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
    pub call: Option<Box<CallMatch>>,
}

/// Matches all requests, like a rule without matches. Gateway API defaults a missing path to the prefix `/`, which
/// is stored without its slash.
pub(in crate::compile) fn match_all() -> ParsedMatch {
    ParsedMatch { path: PathMatch::Prefix("".into()), method: None, headers: Vec::new(), query: Vec::new(), call: None }
}

/// `None`, with at least one diagnostic, if any part except the path is invalid: without that part the match would
/// accept more requests. If the path is invalid, there is a diagnostic, too, and the match is that of the requests that
/// the path means: they must get an error, and not the backend of a less specific rule.
pub(in crate::compile) fn parse(
    raw: &HttpRouteMatch,
    budget: &RegexBudget<'_>,
    field: &str,
    problems: &mut Vec<Diagnostic>,
    notes: &mut Vec<Diagnostic>,
) -> Option<ParsedMatch> {
    let mut parsed = match_all();
    if let Some(path) = &raw.path {
        parsed.path = parse_path(path, budget, &format!("{field}.path"), problems, notes);
    }
    let problems_before = problems.len();
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
    parsed.headers = parse_headers(&raw.headers, budget, field, problems);
    for (index, parameter) in raw.query_params.iter().enumerate() {
        let field = format!("{field}.queryParams[{index}]");
        if let Some(value) = parse_value_match(parameter, budget, &field, problems, |text| Ok(Box::from(text)))
            && !parsed.query.iter().any(|known| *known.name == *parameter.name)
        {
            parsed.query.push(QueryMatch { name: parameter.name.as_str().into(), value });
        }
    }
    (problems.len() == problems_before).then_some(parsed)
}

fn parse_path(
    path: &HttpPathMatch,
    budget: &RegexBudget<'_>,
    field: &str,
    problems: &mut Vec<Diagnostic>,
    notes: &mut Vec<Diagnostic>,
) -> PathMatch {
    let value_field = format!("{field}.value");
    match &*path.kind {
        "Exact" => literal(&path.value, PathMatch::Exact, &value_field, problems, notes),
        "PathPrefix" => {
            let prefix = |text: Box<str>| PathMatch::Prefix(text.strip_suffix('/').unwrap_or(&text).into());
            literal(&path.value, prefix, &value_field, problems, notes)
        }
        "RegularExpression" => parse_expression(&path.value, budget, &value_field, problems, notes),
        other => {
            unknown_type(other, &format!("{field}.type"), "Exact, PathPrefix or RegularExpression", problems);
            PathExpression::of_gateway_api(&path.value).refused_match()
        }
    }
}

/// The match of a literal path as requests have it. Of a path that no request has, its usable part, or all paths that
/// begin with it.
fn literal(
    path: &str,
    matched: impl Fn(Box<str>) -> PathMatch,
    field: &str,
    problems: &mut Vec<Diagnostic>,
    notes: &mut Vec<Diagnostic>,
) -> PathMatch {
    match CheckedPath::parse(path, field) {
        CheckedPath::Usable(text, note) => {
            notes.extend(note);
            matched(text.into())
        }
        CheckedPath::Unusable(unusable) => {
            problems.push(unusable.problem);
            match unusable.is_pattern {
                true => PathMatch::Regex(expression_of_prefix(&unusable.usable_part).into()),
                false => matched(unusable.usable_part.into()),
            }
        }
    }
}

/// The match of a path by a regular expression, or that of the requests that the expression means.
pub(in crate::compile) fn parse_expression(
    pattern: &str,
    budget: &RegexBudget<'_>,
    field: &str,
    problems: &mut Vec<Diagnostic>,
    notes: &mut Vec<Diagnostic>,
) -> PathMatch {
    let expression = PathExpression::of_gateway_api(pattern);
    // The router compiles the expressions of all paths of a host together. Those with named groups are compiled again.
    let compiled = compile_regex(pattern, budget, field, problems, |limit| PathPattern::compile(pattern, limit));
    let compiled = compiled.filter(|compiled| budget.add_bytes(compiled.group_bytes()));
    let checked = match compiled {
        Some(compiled) => {
            let checked = expression.check(field).map_err(|problem| problems.push(problem)).ok();
            checked.map(|note| (compiled, note))
        }
        None => None,
    };
    match checked {
        Some((compiled, note)) => {
            notes.extend(note);
            PathMatch::Regex(compiled)
        }
        // The route is refused as a whole. Compiling more would take the memory that the budget limits.
        None if budget.is_exceeded() => PathMatch::Prefix("".into()),
        None => expression.refused_match(),
    }
}

/// The header conditions of a match.
pub(in crate::compile) fn parse_headers(
    raw: &[HttpValueMatch],
    budget: &RegexBudget<'_>,
    field: &str,
    problems: &mut Vec<Diagnostic>,
) -> Vec<HeaderMatch> {
    let mut parsed: Vec<HeaderMatch> = Vec::new();
    for (index, header) in raw.iter().enumerate() {
        let field = format!("{field}.headers[{index}]");
        let Ok(name) = HeaderName::try_from(&*header.name) else {
            let message = format!("{:?} is not a header name", header.name);
            problems.push(Diagnostic::error(format!("{field}.name"), message, "use letters, digits and hyphens"));
            continue;
        };
        let value = parse_value_match(header, budget, &field, problems, |text| {
            HeaderValue::from_str(text).map_err(|_| "the value has control characters, so no request can match it")
        });
        // If a name occurs twice, the first entry counts, as Gateway API specifies.
        if let Some(value) = value
            && !parsed.iter().any(|known| known.name == name)
        {
            parsed.push(HeaderMatch { name, value });
        }
    }
    parsed
}

/// The header conditions that can be evaluated without regular expressions.
pub(in crate::compile) fn literal_headers(raw: &[HttpValueMatch]) -> Vec<HeaderMatch> {
    let exact = raw.iter().filter(|header| header.kind == "Exact");
    let parsed = exact.filter_map(|header| {
        let (name, value) = (HeaderName::try_from(&*header.name).ok()?, HeaderValue::from_str(&header.value).ok()?);
        Some(HeaderMatch { name, value: ValueMatch::Exact(value) })
    });
    parsed.collect()
}

/// The parts of a match that can be evaluated without regular expressions. The result matches all requests that the
/// match does, and more.
pub(in crate::compile) fn parse_literal_parts(raw: &HttpRouteMatch) -> ParsedMatch {
    let mut parsed = match_all();
    if let Some(path) = &raw.path {
        match &*path.kind {
            "Exact" => parsed.path = PathMatch::Exact(path.value.as_str().into()),
            "PathPrefix" => parsed.path = PathMatch::Prefix(path.value.as_str().into()),
            "RegularExpression" => parsed.path = PathMatch::Prefix(literal_segments(&path.value).into()),
            _ => {}
        }
    }
    parsed.method = raw.method.as_ref().and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    parsed.headers = literal_headers(&raw.headers);
    for parameter in raw.query_params.iter().filter(|parameter| parameter.kind == "Exact") {
        let value = ValueMatch::Exact(parameter.value.as_str().into());
        parsed.query.push(QueryMatch { name: parameter.name.as_str().into(), value });
    }
    parsed
}

fn parse_value_match<T>(
    raw: &HttpValueMatch,
    budget: &RegexBudget<'_>,
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
            let compile = |limit| Regex::compile(&raw.value, limit);
            let regex = compile_regex(&raw.value, budget, &format!("{field}.value"), problems, compile)?;
            Some(ValueMatch::Regex(regex))
        }
        other => {
            unknown_type(other, &format!("{field}.type"), "Exact or RegularExpression", problems);
            None
        }
    }
}

pub(in crate::compile) fn compile_regex<T>(
    pattern: &str,
    budget: &RegexBudget<'_>,
    field: &str,
    problems: &mut Vec<Diagnostic>,
    compile: impl FnOnce(RegexLimit) -> Result<T, RegexError>,
) -> Option<T> {
    let compiled = budget.compile(pattern, RegexAnchor::Whole, field, "see docs/routing.md for the syntax", compile);
    compiled.map_err(|problem| problems.push(problem)).ok()
}

pub(in crate::compile) fn unknown_type(kind: &str, field: &str, allowed: &str, problems: &mut Vec<Diagnostic>) {
    problems.push(Diagnostic::error(
        field,
        format!("{kind} is not a supported type of match"),
        format!("use {allowed}"),
    ));
}
