//! Parses the matches of a GRPCRoute rule. A gRPC call is a request to `/package.Service/Method`, so a service is a
//! condition on the path.

use super::budgets::{RegexBudget, literal_segments};
use super::matches::{self, ParsedMatch};
use crate::api::gateway::{GrpcMethodMatch, GrpcRouteMatch};
use crate::diagnostic::Diagnostic;
use crate::snapshot::router::{CallMatch, PathMatch};

/// Matches all gRPC calls, like a rule without matches.
pub(super) fn match_all() -> ParsedMatch {
    ParsedMatch { call: Some(Box::default()), ..matches::match_all() }
}

/// `None`, with at least one diagnostic, if any part is invalid: without that part the match would accept more calls.
pub(super) fn parse(
    raw: &GrpcRouteMatch,
    budget: &RegexBudget<'_>,
    field: &str,
    problems: &mut Vec<Diagnostic>,
) -> Option<ParsedMatch> {
    let problems_before = problems.len();
    let mut parsed = match_all();
    if let Some(method) = &raw.method {
        match &*method.kind {
            "Exact" => set_exact(&mut parsed, method),
            "RegularExpression" => {
                let pattern = path_expression(method);
                // The router compiles the expressions of all paths of a host together.
                matches::compile_regex(&pattern, budget, &format!("{field}.method"), problems, |_| Ok(()));
                parsed.path = PathMatch::Regex(pattern.into());
            }
            other => {
                let field = format!("{field}.method.type");
                matches::unknown_type(other, &field, "Exact or RegularExpression", problems);
            }
        }
    }
    parsed.headers = matches::parse_headers(&raw.headers, budget, field, problems);
    (problems.len() == problems_before).then_some(parsed)
}

/// The parts of a match that can be evaluated without regular expressions. The result matches all calls that the match
/// does, and more.
pub(super) fn parse_literal_parts(raw: &GrpcRouteMatch) -> ParsedMatch {
    let mut parsed = match_all();
    match &raw.method {
        Some(method) if method.kind == "Exact" => set_exact(&mut parsed, method),
        Some(method) if method.kind == "RegularExpression" => {
            parsed.path = PathMatch::Prefix(literal_segments(&path_expression(method)).into());
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
        (None, method) => parsed.call = Some(Box::new(CallMatch { method: method.map(Box::from) })),
    }
}

/// The expression of the path for those of the service and the method.
fn path_expression(method: &GrpcMethodMatch) -> String {
    let part = |part| not_empty(part).map_or_else(|| "[^/]+".to_owned(), |pattern| format!("(?:{pattern})"));
    format!("/{}/{}", part(&method.service), part(&method.method))
}

/// The API treats an empty name like a missing one.
fn not_empty(name: &Option<String>) -> Option<&str> {
    name.as_deref().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::budgets::{BudgetShare, Budgets, Expansion};
    use super::*;

    fn parse_one(raw: Value) -> Result<ParsedMatch, Vec<String>> {
        let raw: GrpcRouteMatch = serde_json::from_value(raw).unwrap();
        let (budgets, mut problems) = (Budgets::default(), Vec::new());
        let parsed =
            parse(&raw, &RegexBudget::new(&budgets, &BudgetShare::Available(Expansion::MAX)), "m", &mut problems);
        parsed.ok_or_else(|| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn services_and_methods_are_paths() {
        for (method, path, call) in [
            (json!({"service": "a.B", "method": "C"}), "Exact /a.B/C", None),
            (json!({"service": "a.B"}), "PathPrefix /a.B", None),
            (json!({"service": "a.B", "method": ""}), "PathPrefix /a.B", None),
            (json!({"method": "C"}), "PathPrefix /", Some("C")),
            (
                json!({"type": "RegularExpression", "service": "a|b", "method": "C.*"}),
                "RegularExpression /(?:a|b)/(?:C.*)",
                None,
            ),
            (json!({"type": "RegularExpression", "method": "C"}), "RegularExpression /[^/]+/(?:C)", None),
        ] {
            let parsed = parse_one(json!({ "method": method })).unwrap();
            assert_eq!(parsed.path.to_string(), path);
            assert_eq!(parsed.call.unwrap().method.as_deref(), call, "{path}");
        }
        assert_eq!(parse_one(json!({})).unwrap().call, Some(Box::default()));
    }

    #[test]
    fn invalid_parts_are_reported() {
        let problems = parse_one(json!({
            "method": {"type": "RegularExpression", "service": "("},
            "headers": [{"name": "a b", "value": "x"}],
        }));
        let problems = problems.unwrap_err();
        assert!(problems[0].starts_with("m.method") && problems[1].starts_with("m.headers[0].name"), "{problems:?}");
    }
}
