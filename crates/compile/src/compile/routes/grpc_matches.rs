//! Parses the matches of a GRPCRoute rule. A gRPC call is a request to `/package.Service/Method`, so a service is a
//! condition on the path.

use super::matches;
use super::matches::ParsedMatch;
use crate::api::gateway::{GrpcMethodMatch, GrpcRouteMatch};
use crate::compile::budgets::{RegexBudget, literal_segments};
use crate::compile::paths::path_expression::PathExpression;
use crate::diagnostic::Diagnostic;
use crate::snapshot::regex::Regex;
use crate::snapshot::router::{CallMatch, PathMatch, ValueMatch};

/// Matches all gRPC calls, like a rule without matches.
pub(in crate::compile) fn match_all() -> ParsedMatch {
    ParsedMatch { call: Some(Box::default()), ..matches::match_all() }
}

/// `None`, with at least one diagnostic, if a header is invalid: without it, the match would accept more calls. If the
/// service or method is invalid, there is a diagnostic, too, and the match is that of the calls that they mean: these
/// must get an error, and not the backend of a less specific rule.
pub(in crate::compile) fn parse(
    raw: &GrpcRouteMatch,
    budget: &RegexBudget<'_>,
    field: &str,
    problems: &mut Vec<Diagnostic>,
    notes: &mut Vec<Diagnostic>,
) -> Option<ParsedMatch> {
    let mut parsed = match_all();
    if let Some(method) = &raw.method {
        match &*method.kind {
            "Exact" => set_exact(&mut parsed, method),
            "RegularExpression" => {
                let mut reports = Reports { problems, notes };
                set_expressions(&mut parsed, method, budget, &format!("{field}.method"), &mut reports);
            }
            other => {
                let field = format!("{field}.method.type");
                matches::unknown_type(other, &field, "Exact or RegularExpression", problems);
            }
        }
    }
    let problems_before = problems.len();
    parsed.headers = matches::parse_headers(&raw.headers, budget, field, problems);
    (problems.len() == problems_before).then_some(parsed)
}

/// The parts of a match that can be evaluated without regular expressions. The result matches all calls that the match
/// does, and more.
pub(in crate::compile) fn parse_literal_parts(raw: &GrpcRouteMatch) -> ParsedMatch {
    let mut parsed = match_all();
    match &raw.method {
        Some(method) if method.kind == "Exact" => set_exact(&mut parsed, method),
        Some(GrpcMethodMatch { kind, service: Some(service), method }) if kind == "RegularExpression" => {
            let expression = path_expression(service, not_empty(method));
            parsed.path = PathMatch::Prefix(literal_segments(&expression).into());
        }
        _ => {}
    }
    parsed.headers = matches::literal_headers(&raw.headers);
    parsed
}

fn set_exact(parsed: &mut ParsedMatch, method: &GrpcMethodMatch) {
    match (not_empty(&method.service), not_empty(&method.method)) {
        (Some(service), Some(method)) => parsed.path = PathMatch::Exact(format!("/{service}/{method}").into()),
        (Some(service), None) => parsed.path = PathMatch::Prefix(format!("/{service}").into()),
        (None, method) => {
            let method = method.map(|method| ValueMatch::Exact(method.into()));
            parsed.call = Some(Box::new(CallMatch { method }));
        }
    }
}

/// The diagnostics about a match.
struct Reports<'r> {
    problems: &'r mut Vec<Diagnostic>,
    notes: &'r mut Vec<Diagnostic>,
}

fn set_expressions(
    parsed: &mut ParsedMatch,
    method: &GrpcMethodMatch,
    budget: &RegexBudget<'_>,
    field: &str,
    reports: &mut Reports<'_>,
) {
    let Reports { problems, notes } = reports;
    let (service, method) = (not_empty(&method.service), not_empty(&method.method));
    let Some(service) = service else {
        let Some(pattern) = method else { return };
        let compile = |limit| Regex::compile(pattern, limit);
        let regex = matches::compile_regex(pattern, budget, &format!("{field}.method"), problems, compile);
        parsed.call = Some(Box::new(CallMatch { method: regex.map(ValueMatch::Regex) }));
        return;
    };
    // Each alone first: two invalid expressions may be a valid one together.
    let problems_before = problems.len();
    for (name, pattern) in [("service", Some(service)), ("method", method)] {
        let Some(pattern) = pattern else { continue };
        matches::compile_regex(pattern, budget, &format!("{field}.{name}"), problems, |_| Ok(()));
    }
    let expression = path_expression(service, method);
    parsed.path = match problems.len() == problems_before {
        true => matches::parse_expression(&expression, budget, field, problems, notes),
        false if budget.is_exceeded() => PathMatch::Prefix("".into()),
        false => PathExpression::of_gateway_api(&expression).refused_match(),
    };
}

/// The expression of the path for those of the service and the method.
fn path_expression(service: &str, method: Option<&str>) -> String {
    match method {
        Some(method) => format!("/(?:{service})/(?:{method})"),
        None => format!("/(?:{service})/[^/]+"),
    }
}

/// The API treats an empty name like a missing one.
fn not_empty(name: &Option<String>) -> Option<&str> {
    name.as_deref().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::compile::budgets::{BudgetShare, Budgets, Expansion};
    use crate::snapshot::regex::RegexLimit;

    fn parse_with_problems(raw: Value) -> (Option<ParsedMatch>, Vec<String>) {
        let raw: GrpcRouteMatch = serde_json::from_value(raw).unwrap();
        let (budgets, mut problems) = (Budgets::default(), Vec::new());
        let budget = RegexBudget::new(&budgets, &BudgetShare::Available(Expansion::MAX));
        let parsed = parse(&raw, &budget, "m", &mut problems, &mut Vec::new());
        (parsed, problems.iter().map(ToString::to_string).collect())
    }

    fn parse_one(raw: Value) -> ParsedMatch {
        let (parsed, problems) = parse_with_problems(raw);
        assert_eq!(problems, [""; 0]);
        parsed.unwrap()
    }

    #[test]
    fn services_and_methods_are_paths() {
        for (method, path, call) in [
            (json!({"service": "a.B", "method": "C"}), "Exact /a.B/C", None),
            (json!({"service": "a.B"}), "PathPrefix /a.B", None),
            (json!({"service": "a.B", "method": ""}), "PathPrefix /a.B", None),
            (json!({"method": "C"}), "PathPrefix /", Some("gRPC method C")),
            (
                json!({"type": "RegularExpression", "service": "a|b", "method": "C.*"}),
                "RegularExpression /(?:a|b)/(?:C.*)",
                None,
            ),
            (json!({"type": "RegularExpression", "service": "a"}), "RegularExpression /(?:a)/[^/]+", None),
            (json!({"type": "RegularExpression", "method": "C+"}), "PathPrefix /", Some("gRPC method ~ C+")),
        ] {
            let parsed = parse_one(json!({ "method": method }));
            assert_eq!(parsed.path.to_string(), path);
            assert_eq!(parsed.call.unwrap().to_string(), call.unwrap_or("gRPC"), "{path}");
        }
        assert_eq!(parse_one(json!({})).call, Some(Box::default()));
    }

    #[test]
    fn invalid_parts_are_reported() {
        let (parsed, problems) = parse_with_problems(json!({
            "method": {"type": "RegularExpression", "service": "("},
            "headers": [{"name": "a b", "value": "x"}],
        }));
        assert!(parsed.is_none());
        assert!(problems[0].starts_with("m.method.service"), "{problems:?}");
        assert!(problems[1].starts_with("m.headers[0].name"), "{problems:?}");
        // Together, these would be two expressions for other paths.
        let parts = json!({"type": "RegularExpression", "service": "a)|(?:b", "method": "c)|(?:d"});
        let (_, problems) = parse_with_problems(json!({ "method": parts }));
        assert!(
            problems[0].starts_with("m.method.service") && problems[1].starts_with("m.method.method"),
            "{problems:?}"
        );
    }

    /// The calls that an invalid expression means get an error, and not the backend of a less specific rule.
    #[test]
    fn expressions_that_no_call_matches_are_refused() {
        for (service, method, field, path) in [
            ("a b", "C", "m.method", "/a%20b/C"),
            ("[/", "C", "m.method.service", "/a/C"),
            ("a", "C?d#", "m.method", "/a/Cd"),
            ("/", "(", "m.method.method", "/a/C"),
        ] {
            let method = json!({"type": "RegularExpression", "service": service, "method": method});
            let (parsed, problems) = parse_with_problems(json!({ "method": method }));
            assert!(problems[0].starts_with(&format!("{field}: ")), "{problems:?}");
            let parsed = parsed.unwrap();
            let PathMatch::Regex(refused) = &parsed.path else { panic!("{}", parsed.path) };
            assert!(Regex::compile(refused, RegexLimit::MEMORY_ONLY).unwrap().is_match(path.as_bytes()), "{refused}");
        }
    }
}
