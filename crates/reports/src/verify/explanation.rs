//! Why another rule than the expected one served a request.

use super::admin_client::GatewayRecord;
use super::expectation::Expectation;
use super::served_routes::{Position, ServedListener, ServedMatch};

/// `rule 2 of HTTPRoute default/shop`
pub(super) fn rule_name(route: &str, rule: Option<&str>) -> String {
    let mut parts = route.splitn(2, '/');
    let object = format!("{} {}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match rule {
        Some(rule) => format!("rule {rule} of {object}"),
        None => object,
    }
}

/// Explains which rule served the request instead of the expected one, and why it takes precedence.
pub(super) fn explain(expectation: &Expectation, listener: &ServedListener, observation: &GatewayRecord) -> String {
    let expected_route = expectation.served_route();
    let expected_rule = expectation.rule.as_deref();
    let expected = rule_name(&expected_route, expected_rule);
    let Some(expected_match) =
        position(listener.matches_of(&expected_route, expected_rule), expectation.served_path.as_deref())
    else {
        return format!("the gateway does not serve {expected}: its version of the route differs from the manifests");
    };
    if observation.listener.as_deref() != Some(&*listener.listener) {
        return match &observation.listener {
            Some(other) => format!(
                "listener {other} gets the requests for this host instead of {}, because its hostname is more specific",
                listener.listener
            ),
            None => format!("no listener accepted the request: {}", reason(observation)),
        };
    }
    let Some(route) = &observation.route else {
        return match observation.reason.as_deref() {
            None | Some("no_route") => format!(
                "no rule matches the request; the gateway has {expected} with other conditions: {}",
                conditions(&expected_match)
            ),
            Some(reason) => format!("no rule got the request: {reason}"),
        };
    };
    let rule = observation.rule.as_deref();
    let serving = rule_name(route, rule);
    match position(listener.matches_of(route, rule), observation.path.as_deref()) {
        Some(serving_match) if serving_match.index < expected_match.index => {
            format!("{expected} is shadowed by {serving}: {}", precedence(&expected_match, &serving_match))
        }
        Some(_) | None => format!(
            "{serving} served the request; the gateway has {expected} with other conditions: {}",
            conditions(&expected_match)
        ),
    }
}

/// The match with this path, or else the first one.
fn position<'a>(matches: Vec<Position<'a>>, path: Option<&str>) -> Option<Position<'a>> {
    let by_path = matches.iter().find(|position| path == Some(&*position.served.path));
    by_path.or(matches.first()).copied()
}

fn reason(observation: &GatewayRecord) -> &str {
    observation.reason.as_deref().unwrap_or("no reason was recorded")
}

/// `*.example PathPrefix /a GET x-canary: 1 ?q=1`
fn conditions(position: &Position<'_>) -> String {
    let Position { host, served, .. } = position;
    let ServedMatch { path, method, call, headers, query, .. } = served;
    let query = query.iter().map(|parameter| format!("?{parameter}"));
    let optional = method.iter().chain(call).chain(headers).cloned().chain(query);
    optional.fold(format!("{host} {path}"), |text, condition| format!("{text} {condition}"))
}

/// Why the serving match is tried before the expected one, in the order of docs/routing.md.
fn precedence(expected: &Position<'_>, serving: &Position<'_>) -> String {
    let (expected_kind, expected_path) = path_parts(expected.served);
    let (kind, path) = path_parts(serving.served);
    if !GATEWAY_API_PATHS.contains(&kind) || !GATEWAY_API_PATHS.contains(&expected_kind) {
        // Kong's order depends on all conditions together.
        return format!("{} is tried before {}", conditions(serving), conditions(expected));
    }
    if expected.host != serving.host {
        return format!("its hostname {} is more specific than {}", serving.host, expected.host);
    }
    let (served, other) = (serving.served, expected.served);
    if kind != expected_kind {
        return match kind {
            "Exact" => format!("its path {path} is exact"),
            _ => format!("its path is the regular expression {path}, which takes precedence over a prefix"),
        };
    }
    if path.chars().count() > expected_path.chars().count() {
        return match kind {
            "PathPrefix" => format!("its path prefix {path} is longer"),
            _ => format!("its regular expression {path} is longer"),
        };
    }
    if let Some(call) = served.call.as_ref().filter(|call| other.call.as_ref() != Some(call)) {
        return format!("its condition {call} is more specific");
    }
    match &served.method {
        Some(method) if other.method.is_none() => return format!("it has a condition on the method, {method}"),
        Some(_) | None => {}
    }
    if served.headers.len() > other.headers.len() {
        return format!("it has more conditions on headers: {}", served.headers.join(", "));
    }
    if served.query.len() > other.query.len() {
        return format!("it has more conditions on the query: {}", served.query.join(", "));
    }
    if served.route == other.route {
        "both have the same conditions, and it comes first in the route".to_owned()
    } else {
        "both have the same precedence, and its route is older, or its name sorts first".to_owned()
    }
}

/// The type of a path, and its value.
fn path_parts(served: &ServedMatch) -> (&str, &str) {
    served.path.split_once(' ').unwrap_or((&served.path, ""))
}

/// The types of paths in the order of the Gateway API. Kong's has others, except for `Exact`.
const GATEWAY_API_PATHS: [&str; 3] = ["Exact", "RegularExpression", "PathPrefix"];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::expectation::{ExpectedAction, RequestShape};
    use super::*;
    use crate::api::{Kind, ObjectId, ObjectKey};

    /// A listener with these hosts and matches, in order.
    fn listener(hosts: &[(&str, Vec<Value>)]) -> ServedListener {
        let hosts: Vec<Value> =
            hosts.iter().map(|(host, matches)| json!({ "host": host, "matches": matches })).collect();
        let value = json!({ "listener": "default/web/http", "hostname": "*", "port": 80, "hosts": hosts });
        serde_json::from_value(value).unwrap()
    }

    fn entry(route: &str, rule: &str, path: &str, rest: Value) -> Value {
        let mut entry = json!({ "path": path, "route": format!("HTTPRoute/default/{route}"), "rule": rule });
        entry.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        entry
    }

    fn expectation(route: &str, rule: &str, path: &str) -> Expectation {
        Expectation {
            object: ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", route)),
            rule: Some(rule.to_owned()),
            field: String::new(),
            served_path: Some(path.to_owned()),
            hosts: Vec::new(),
            parents: Vec::new(),
            requires_https: false,
            requests: Ok(RequestShape::default()),
            action: ExpectedAction::NotCompared,
        }
    }

    fn served_by(route: &str, rule: &str, path: &str) -> GatewayRecord {
        GatewayRecord {
            listener: Some("default/web/http".to_owned()),
            route: Some(format!("HTTPRoute/default/{route}")),
            rule: Some(rule.to_owned()),
            path: Some(path.to_owned()),
            ..GatewayRecord::default()
        }
    }

    #[test]
    fn shadowing_rules_are_explained_by_their_precedence() {
        let plain = || json!({});
        for (hosts, serving_path, path, expected) in [
            (
                vec![(
                    "*",
                    vec![entry("api", "1", "PathPrefix /a/b", plain()), entry("shop", "2", "PathPrefix /a", plain())],
                )],
                "PathPrefix /a/b",
                "PathPrefix /a",
                "its path prefix /a/b is longer",
            ),
            (
                vec![("*", vec![entry("api", "1", "Exact /a", plain()), entry("shop", "2", "PathPrefix /a", plain())])],
                "Exact /a",
                "PathPrefix /a",
                "its path /a is exact",
            ),
            (
                vec![(
                    "*",
                    vec![
                        entry("api", "1", "RegularExpression /.*", plain()),
                        entry("shop", "2", "PathPrefix /a", plain()),
                    ],
                )],
                "RegularExpression /.*",
                "PathPrefix /a",
                "its path is the regular expression /.*, which takes precedence over a prefix",
            ),
            (
                vec![
                    ("a.example", vec![entry("api", "1", "PathPrefix /", plain())]),
                    ("*.example", vec![entry("shop", "2", "PathPrefix /a", plain())]),
                ],
                "PathPrefix /",
                "PathPrefix /a",
                "its hostname a.example is more specific than *.example",
            ),
            (
                vec![(
                    "*",
                    vec![
                        entry("api", "1", "PathPrefix /a", json!({ "method": "GET" })),
                        entry("shop", "2", "PathPrefix /a", plain()),
                    ],
                )],
                "PathPrefix /a",
                "PathPrefix /a",
                "it has a condition on the method, GET",
            ),
            (
                vec![(
                    "*",
                    vec![
                        entry("api", "1", "PathPrefix /a", json!({ "headers": ["x: 1"] })),
                        entry("shop", "2", "PathPrefix /a", plain()),
                    ],
                )],
                "PathPrefix /a",
                "PathPrefix /a",
                "it has more conditions on headers: x: 1",
            ),
            (
                vec![(
                    "*",
                    vec![
                        entry("api", "1", "PathPrefix /a", json!({ "query": ["q=1"] })),
                        entry("shop", "2", "PathPrefix /a", plain()),
                    ],
                )],
                "PathPrefix /a",
                "PathPrefix /a",
                "it has more conditions on the query: q=1",
            ),
            (
                vec![(
                    "*",
                    vec![entry("api", "1", "PathPrefix /a", plain()), entry("shop", "2", "PathPrefix /a", plain())],
                )],
                "PathPrefix /a",
                "PathPrefix /a",
                "both have the same precedence, and its route is older, or its name sorts first",
            ),
            (
                vec![("*", vec![entry("api", "1", "Prefix /a/b", plain()), entry("shop", "2", "Prefix /a", plain())])],
                "Prefix /a/b",
                "Prefix /a",
                "* Prefix /a/b is tried before * Prefix /a",
            ),
        ] {
            let explanation =
                explain(&expectation("shop", "2", path), &listener(&hosts), &served_by("api", "1", serving_path));
            let start = "rule 2 of HTTPRoute default/shop is shadowed by rule 1 of HTTPRoute default/api: ";
            assert_eq!(explanation, format!("{start}{expected}"));
        }
    }

    #[test]
    fn earlier_rule_of_the_same_route_is_named() {
        let matches =
            vec![entry("shop", "0", "PathPrefix /a", json!({})), entry("shop", "1", "PathPrefix /a", json!({}))];
        let explanation = explain(
            &expectation("shop", "1", "PathPrefix /a"),
            &listener(&[("*", matches)]),
            &served_by("shop", "0", "PathPrefix /a"),
        );
        assert!(
            explanation.ends_with("both have the same conditions, and it comes first in the route"),
            "{explanation}"
        );
    }

    #[test]
    fn gateway_with_another_version_of_the_route_is_recognized() {
        let matches = vec![
            entry("shop", "0", "Exact /old", json!({ "method": "GET" })),
            entry("api", "0", "PathPrefix /", json!({})),
        ];
        let listener = listener(&[("a.example", matches)]);
        let expected = expectation("shop", "0", "Exact /new");
        let explanation = explain(&expected, &listener, &served_by("api", "0", "PathPrefix /"));
        assert_eq!(
            explanation,
            "rule 0 of HTTPRoute default/api served the request; the gateway has rule 0 of HTTPRoute default/shop with \
             other conditions: a.example Exact /old GET"
        );
        let unrouted = GatewayRecord { route: None, rule: None, path: None, ..served_by("api", "0", "") };
        assert!(explain(&expected, &listener, &unrouted).starts_with("no rule matches the request; the gateway has"));
        let limited = GatewayRecord { reason: Some("target_too_long_to_match".to_owned()), ..unrouted.clone() };
        assert_eq!(explain(&expected, &listener, &limited), "no rule got the request: target_too_long_to_match");
        let missing = explain(&expectation("shop", "1", "Exact /new"), &listener, &unrouted);
        assert!(missing.starts_with("the gateway does not serve rule 1 of HTTPRoute default/shop"), "{missing}");
        let elsewhere = GatewayRecord { listener: Some("default/web/b".to_owned()), ..unrouted.clone() };
        assert!(explain(&expected, &listener, &elsewhere).starts_with("listener default/web/b gets the requests"));
        let nowhere = GatewayRecord { listener: None, reason: Some("no_listener".to_owned()), ..unrouted };
        assert_eq!(explain(&expected, &listener, &nowhere), "no listener accepted the request: no_listener");
    }
}
