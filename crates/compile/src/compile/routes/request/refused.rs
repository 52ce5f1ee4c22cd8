//! The rules of a route that exceeds a budget. They respond with an error to all requests that the route would
//! match: another route, with fewer restrictions, must not get them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::rules::TranslatedRules;
use crate::compile::budgets::MAX_HOST_MATCHES;
use crate::compile::objects::request_route::{RequestRoute, UnparsedMatches};
use crate::compile::routes::grpc_matches;
use crate::compile::routes::matches;
use crate::compile::routes::matches::ParsedMatch;
use crate::diagnostic::Diagnostic;
use crate::snapshot::router::{RouteMatch, TieBreaker};
use crate::snapshot::rule::{Action, Filters, RouteFailure, RouteRule, RuleId};
use crate::verdict::unique_diagnostics::UniqueDiagnostics;
use crate::verdict::{Code, Condition};

/// `host_count`: the number of hosts of the route; `problems`: why it is refused.
pub(super) fn translate(route: &RequestRoute<'_>, host_count: usize, problems: Vec<Diagnostic>) -> TranslatedRules {
    let name: Arc<str> = Arc::from(route.meta.key.to_string());
    let route_id: Arc<str> = Arc::from(format!("{}/{name}", route.kind));
    // With fewer matches, the hosts do not exceed their budget.
    let has_one_match = host_count.saturating_mul(route.match_count()) > MAX_HOST_MATCHES;
    let mut translated = Vec::new();
    for (rule_index, raw) in route.rules.iter().enumerate() {
        let rule_name = raw.name.map_or_else(|| rule_index.to_string(), str::to_owned);
        let rule = Arc::new(RouteRule {
            id: RuleId { route: Arc::clone(&route_id), rule: rule_name.into() },
            filters: Filters::default(),
            plugins: None,
            action: Action::Fail(RouteFailure::Unsupported),
            options: None,
        });
        let parsed: Vec<ParsedMatch> = match raw.matches {
            UnparsedMatches::Http(raw) if has_one_match || raw.is_empty() => vec![matches::match_all()],
            UnparsedMatches::Http(raw) => raw.iter().map(matches::parse_literal_parts).collect(),
            UnparsedMatches::Grpc(raw) if has_one_match || raw.is_empty() => vec![grpc_matches::match_all()],
            UnparsedMatches::Grpc(raw) => raw.iter().map(grpc_matches::parse_literal_parts).collect(),
        };
        for (match_index, parsed) in parsed.into_iter().enumerate() {
            translated.push(RouteMatch {
                path: parsed.path,
                method: parsed.method,
                headers: parsed.headers,
                query: parsed.query,
                call: parsed.call,
                server_names: Arc::default(),
                tie_breaker: TieBreaker {
                    created: route.meta.created,
                    route: Arc::clone(&name),
                    rule: u16::try_from(rule_index).unwrap_or(u16::MAX),
                    index: u16::try_from(match_index).unwrap_or(u16::MAX),
                },
                rule: Arc::clone(&rule),
            });
        }
        if has_one_match {
            break;
        }
    }
    TranslatedRules {
        matches: translated,
        upstreams: BTreeSet::new(),
        unreachable_services: BTreeSet::new(),
        resolved_refs: Condition::without_diagnostics(Code::RouteResolvedRefs),
        plugins_resolved: None,
        dropped: problems,
        any_served: false,
        notes: UniqueDiagnostics::default(),
    }
}
