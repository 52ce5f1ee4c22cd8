//! Hosts for requests: one that the hostnames of a route and of a listener match.

/// A host that both patterns match, which are `*`, `a.example`, `*.a.example` or, of Ingresses, `a.*`. `None` if they
/// have none in common.
pub(super) fn host_for(route: &str, listener: &str) -> Option<String> {
    let pattern = match (route, listener) {
        (pattern, "*") | ("*", pattern) => pattern,
        _ if covers(listener, route) => route,
        _ if covers(route, listener) => listener,
        _ => return None,
    };
    Some(match (pattern.strip_prefix("*."), pattern.strip_suffix(".*")) {
        _ if pattern == "*" => format!("{LABEL}.invalid"),
        (Some(domain), _) => format!("{LABEL}.{domain}"),
        (None, Some(name)) => format!("{name}.invalid"),
        (None, None) => pattern.to_owned(),
    })
}

/// Whether the first pattern matches every host that the second one matches.
fn covers(wide: &str, narrow: &str) -> bool {
    let is_below = |domain: &str| narrow.strip_suffix(domain).is_some_and(|labels| labels.ends_with('.'));
    wide.eq_ignore_ascii_case(narrow) || wide.strip_prefix("*.").is_some_and(is_below)
}

/// A label that no route is likely to name, for hosts that a wildcard matches.
const LABEL: &str = "portico-verify";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_matches_the_route_and_the_listener() {
        for (route, listener, expected) in [
            ("*", "*", Some("portico-verify.invalid")),
            ("a.example", "*", Some("a.example")),
            ("*", "a.example", Some("a.example")),
            ("*.example", "*", Some("portico-verify.example")),
            ("*.example", "a.example", Some("a.example")),
            ("a.example", "*.example", Some("a.example")),
            ("*.example", "*.a.example", Some("portico-verify.a.example")),
            ("*.a.example", "*.example", Some("portico-verify.a.example")),
            ("*.example", "*.example", Some("portico-verify.example")),
            ("example", "*.example", None),
            ("b.example", "a.example", None),
            ("*.b.example", "*.a.example", None),
            ("aexample", "*.example", None),
            ("shop.*", "*", Some("shop.invalid")),
            ("a.example:8080", "*", Some("a.example:8080")),
        ] {
            assert_eq!(host_for(route, listener).as_deref(), expected, "{route} on {listener}");
        }
    }
}
