//! What the store keeps of a route or Ingress that is refused: where it is attached, its hosts and its paths. Its
//! requests get an error, and not to a route with fewer restrictions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::Kind;
use crate::api::gateway::ALL_DEFAULT_GATEWAYS;

/// The `spec` without what the refusal does not need. `is_complete`: whether `spec` has all of the object.
pub(super) fn reduced_route(kind: Kind, spec: &Value, is_complete: bool) -> Value {
    if kind == Kind::Ingress {
        return reduced_ingress(spec, is_complete);
    }
    let default_gateways = spec["useDefaultGateways"].as_str().filter(|scope| *scope == ALL_DEFAULT_GATEWAYS);
    let mut reduced = json!({
        "parentRefs": first_entries(&spec["parentRefs"], MAX_PARENTS),
        "useDefaultGateways": default_gateways,
        "rules": [],
    });
    match kind {
        Kind::HttpRoute | Kind::GrpcRoute => {
            reduced["hostnames"] = host_names(&spec["hostnames"], MAX_HOST_NAMES);
            reduced["rules"] = reduced_matches(&spec["rules"], is_complete);
        }
        Kind::TlsRoute => reduced["hostnames"] = host_names(&spec["hostnames"], MAX_SERVER_NAMES),
        // Connections and datagrams have no hosts.
        _ => {}
    }
    reduced
}

/// The first host names of a list. If there are more, an empty one is added, which stands for all hosts.
fn host_names(list: &Value, limit: usize) -> Value {
    let kept = entries(list).take(limit).cloned();
    Value::Array(kept.chain((entries(list).len() > limit).then(|| Value::from(""))).collect())
}

/// The path and the method of each match of an HTTPRoute or GRPCRoute. Without conditions on headers and query
/// parameters, a match applies to more requests, which get an error.
fn reduced_matches(rules: &Value, is_complete: bool) -> Value {
    let (mut remaining, mut has_more) = (MAX_MATCHES, false);
    let mut reduced = Vec::new();
    for rule in entries(rules) {
        let matches = entries(&rule["matches"]);
        // A rule without matches has one, which matches everything.
        has_more = matches.len().max(1) > remaining;
        let kept: Vec<_> =
            matches.take(remaining).map(|entry| json!({"path": entry["path"], "method": entry["method"]})).collect();
        if has_more && kept.is_empty() {
            break;
        }
        remaining -= kept.len().max(1);
        reduced.push(json!({"matches": kept}));
        if has_more {
            break;
        }
    }
    if has_more || !is_complete || reduced.is_empty() {
        // The other matches are unknown, or a route without rules matches everything: all requests to the hosts get an
        // error.
        reduced.push(json!({}));
    }
    Value::Array(reduced)
}

/// The class, the hosts and the paths of an Ingress. If any path of a host may be missing, all requests to the host
/// that match no other path get an error. In an incomplete object, these are all hosts, also those of certificates,
/// which usually are those of rules.
fn reduced_ingress(spec: &Value, is_complete: bool) -> Value {
    let mut remaining = MAX_PATHS;
    let mut reduced = Vec::new();
    // `None` stands for all hosts, as in a rule.
    let mut incomplete_hosts = BTreeSet::new();
    for rule in entries(&spec["rules"]) {
        let (host, http) = (rule["host"].as_str(), &rule["http"]);
        if !is_complete && host.is_none() && http.is_null() {
            // The host is missing, not absent: a rule has at least one of both.
            continue;
        }
        let paths = entries(&http["paths"]);
        let count = paths.len();
        let is_short = |path: &&Value| path["path"].as_str().is_none_or(|path| path.len() <= MAX_PATH_BYTES);
        let kept: Vec<_> = paths
            .take(remaining)
            .take_while(is_short)
            .map(|path| json!({"path": path["path"], "pathType": path["pathType"], "backend": {}}))
            .collect();
        if !is_complete || remaining == 0 || kept.len() < count {
            incomplete_hosts.insert(host);
        }
        // Without `http`, the requests go to the default backend.
        let goes_to_default = is_complete && !http.is_object();
        if remaining > 0 && (goes_to_default || !kept.is_empty()) {
            remaining -= kept.len().max(1);
            let http = if goes_to_default { Value::Null } else { json!({"paths": kept}) };
            reduced.push(json!({"host": host, "http": http}));
        }
    }
    if !is_complete {
        let of_certificates = entries(&spec["tls"]).flat_map(|tls| entries(&tls["hosts"]));
        incomplete_hosts.extend(of_certificates.filter_map(Value::as_str).map(Some));
    }
    if incomplete_hosts.len() > MAX_INCOMPLETE_HOSTS {
        // It is sorted before all names, so it is kept.
        incomplete_hosts.insert(None);
    }
    let incomplete_hosts = incomplete_hosts.iter().take(MAX_INCOMPLETE_HOSTS);
    reduced.extend(incomplete_hosts.map(|host| json!({"host": host, "http": {"paths": [root()]}})));
    let default_backend = if spec["defaultBackend"].is_object() { json!({}) } else { Value::Null };
    json!({"ingressClassName": spec["ingressClassName"], "defaultBackend": default_backend, "rules": reduced})
}

/// The path of all requests to a host.
fn root() -> Value {
    json!({"path": "/", "pathType": "Prefix", "backend": {}})
}

pub(super) fn entries(list: &Value) -> std::slice::Iter<'_, Value> {
    list.as_array().map_or(&[][..], Vec::as_slice).iter()
}

/// The first entries of a list; none if it is something else.
pub(super) fn first_entries(list: &Value, limit: usize) -> Value {
    Value::Array(entries(list).take(limit).cloned().collect())
}

/// The entries of these lists that are kept. The Gateway API allows at most 32 parents and 16 hosts, but files may have
/// more.
pub(super) const MAX_PARENTS: usize = 192;
const MAX_HOST_NAMES: usize = 192;

/// The maximum number of entries of these lists in the Gateway API.
const MAX_SERVER_NAMES: usize = 1024;
const MAX_MATCHES: usize = 128;

/// The paths of an Ingress that are kept, of all hosts together.
const MAX_PATHS: usize = 64;

/// The hosts of an Ingress that are kept although some of their paths are not. With more, requests to all hosts are
/// refused, unless another object serves the host.
const MAX_INCOMPLETE_HOSTS: usize = 192;

/// The longest path of an Ingress that is kept, as long as the longest of an HTTPRoute.
const MAX_PATH_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// A route with unknown matches refuses all requests to its hosts.
    #[test]
    fn unknown_matches_are_all_requests() {
        let refuses_all = |rules: Value, is_complete: bool| {
            let Value::Array(reduced) = reduced_matches(&rules, is_complete) else { panic!() };
            reduced.last() == Some(&json!({}))
        };
        let rule = |matches: usize| json!({"matches": vec![json!({"method": "GET"}); matches]});
        for (rules, is_complete, expected) in [
            (json!([rule(1)]), true, false),
            (json!([rule(1)]), false, true),
            (json!([]), true, true),
            (json!([rule(128)]), true, false),
            (json!([rule(100), rule(28)]), true, false),
            (json!([rule(129)]), true, true),
            (json!([rule(100), rule(29)]), true, true),
            (json!([rule(128), rule(1)]), true, true),
            (json!([rule(128), {}]), true, true),
        ] {
            let count = entries(&rules).map(|rule| entries(&rule["matches"]).len()).collect::<Vec<_>>();
            assert_eq!(refuses_all(rules, is_complete), expected, "{count:?} {is_complete}");
        }
    }

    /// A route with more hosts than are kept refuses the requests to all hosts, too.
    #[test]
    fn hosts_beyond_the_limit_are_all_hosts() {
        for (kind, count, kept, last) in [
            (Kind::HttpRoute, 17, 17, "a"),
            (Kind::HttpRoute, 193, 193, ""),
            (Kind::HttpRoute, 500, 193, ""),
            (Kind::TlsRoute, 2000, 1025, ""),
        ] {
            let parents = vec![json!({"name": "g"}); count];
            let reduced = reduced_route(kind, &json!({"hostnames": vec!["a"; count], "parentRefs": parents}), true);
            let hosts = reduced["hostnames"].as_array().unwrap();
            assert_eq!((hosts.len(), hosts.last()), (kept, Some(&json!(last))), "{kind} {count}");
            assert_eq!(reduced["parentRefs"].as_array().unwrap().len(), count.min(MAX_PARENTS));
        }
    }

    /// The hosts of the rules, each with its last path; `*` for all hosts.
    fn hosts_and_paths(spec: &Value, is_complete: bool) -> String {
        let reduced = reduced_ingress(spec, is_complete);
        let rules = entries(&reduced["rules"]).map(|rule| {
            let path =
                entries(&rule["http"]["paths"]).next_back().map_or("default", |path| path["path"].as_str().unwrap());
            format!("{} {path}", rule["host"].as_str().unwrap_or("*"))
        });
        rules.collect::<Vec<_>>().join(", ")
    }

    /// The API server writes `tls` before `rules`.
    #[test]
    fn requests_to_hosts_with_missing_paths_are_refused() {
        let http = |paths: usize| {
            let path = |number| json!({"path": format!("/{number}"), "pathType": "Exact", "backend": {}});
            json!({"paths": (0..paths).map(path).collect::<Vec<_>>()})
        };
        // Rules are missing, and hosts of certificates replace them.
        let tls = json!([{"hosts": ["b", "a"], "secretName": "s"}, {"hosts": vec!["c"; 300]}]);
        let spec = json!({"tls": tls, "rules": [{"host": "a", "http": http(1)}]});
        assert_eq!(hosts_and_paths(&spec, true), "a /0");
        assert_eq!(hosts_and_paths(&spec, false), "a /0, a /, b /, c /");
        // A rule ends before its paths, or before its host.
        let spec = json!({"rules": [{"http": http(1)}, {"host": "b"}, {}]});
        assert_eq!(hosts_and_paths(&spec, true), "* /0, b default, * default");
        assert_eq!(hosts_and_paths(&spec, false), "* /0, * /, b /");
        // A later rule has the host of an earlier one, or none.
        let rule = |host: &str| json!({"host": host, "http": http(1)});
        let spec = json!({"rules": [rule("a"), {"host": "b", "http": http(300)}, rule("a"), {"http": http(1)}]});
        assert_eq!(hosts_and_paths(&spec, true), "a /0, b /62, * /, a /, b /");
        // All hosts of an object with more rules than are kept.
        let rules: Vec<_> = (0..256).map(|number| rule(&format!("{number:03}"))).collect();
        let kept = hosts_and_paths(&json!({"rules": rules}), true);
        assert!(kept.contains("063 /0, 064 /, ") && kept.ends_with(", 255 /"), "{kept}");
        // With one more, no other object gets the requests to the hosts that are not kept.
        let rules: Vec<_> = (0..257).map(|number| rule(&format!("{number:03}"))).collect();
        let kept = hosts_and_paths(&json!({"rules": rules}), true);
        assert!(kept.contains("063 /0, * /, 064 /, ") && kept.ends_with(", 254 /"), "{kept}");
    }
}
