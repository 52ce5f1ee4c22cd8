//! What can be read of a route or Ingress that is not valid: where it is attached, its hosts and its paths. The
//! requests that these name are refused, because another route, with fewer restrictions, must not get them.

use serde_json::{Map, Value, json};

use super::reduced_route::{entries, reduced_route};
use crate::api::Kind;

/// The `spec` for the refusal of a route. What cannot be read of a match makes it match more, up to all requests to the
/// hosts. `None` if no parent can be read, or if neither hosts nor paths can be. `is_complete`: whether `spec` has all
/// of the object.
pub(super) fn readable_route(kind: Kind, spec: &Value, is_complete: bool) -> Option<Value> {
    if kind == Kind::Ingress {
        return readable_ingress(spec, is_complete);
    }
    let parents = parents(&spec["parentRefs"]);
    if parents.is_empty() && !spec["useDefaultGateways"].is_string() {
        return None;
    }
    let hosts = match kind {
        // Connections and datagrams have no hosts.
        Kind::TcpRoute | Kind::UdpRoute => RouteHosts::All,
        _ => RouteHosts::read(&spec["hostnames"]),
    };
    let rules = rules(kind, &spec["rules"], hosts == RouteHosts::Unknown);
    if hosts == RouteHosts::Unknown && rules.is_empty() {
        return None;
    }
    // Without hosts, only the paths that can be read are refused.
    let has_all = is_complete || hosts == RouteHosts::Unknown;
    let hostnames = match hosts {
        RouteHosts::Named(names) => names,
        RouteHosts::All | RouteHosts::Unknown => Vec::new(),
    };
    let readable = json!({
        "parentRefs": parents,
        "useDefaultGateways": spec["useDefaultGateways"],
        "hostnames": hostnames,
        "rules": rules,
    });
    Some(reduced_route(kind, &readable, has_all))
}

/// The hosts of a route.
#[derive(PartialEq, Eq)]
enum RouteHosts {
    All,
    /// Those that can be read.
    Named(Vec<String>),
    /// There are some, and none can be read.
    Unknown,
}

impl RouteHosts {
    fn read(hosts: &Value) -> RouteHosts {
        let list = match hosts {
            Value::Null => return RouteHosts::All,
            Value::Array(list) if list.is_empty() => return RouteHosts::All,
            Value::Array(list) => list.as_slice(),
            // The brackets of the list are missing.
            host => std::slice::from_ref(host),
        };
        if !list.iter().any(Value::is_string) {
            return RouteHosts::Unknown;
        }
        // An empty name stands for all hosts, in addition to the others, which have precedence.
        let name = |host: &Value| host.as_str().and_then(readable_host).unwrap_or_default();
        RouteHosts::Named(list.iter().filter(|host| !host.is_null()).map(name).collect())
    }
}

/// The host that a text names, without a port. `None` stands for all hosts, also if no host can have this name.
fn readable_host(text: &str) -> Option<String> {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => text,
    };
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_valid = host.len() <= 253 && host.strip_prefix("*.").unwrap_or(host).split('.').all(is_label);
    is_valid.then(|| host.to_ascii_lowercase())
}

/// The references that have at least a name, with those of their other fields that can be read.
fn parents(references: &Value) -> Vec<Value> {
    // The list of one reference may lack its dash.
    let references = if references.is_object() { std::slice::from_ref(references).iter() } else { entries(references) };
    let readable = references.filter(|reference| reference["name"].is_string()).map(|reference| {
        let mut readable = texts_of(reference, &["group", "kind", "namespace", "name", "sectionName"]);
        let port = reference["port"].as_i64().and_then(|port| i32::try_from(port).ok());
        readable.extend(port.map(|port| ("port".to_owned(), port.into())));
        Value::Object(readable)
    });
    readable.collect()
}

/// The rules of an HTTPRoute or GRPCRoute, with their matches. `only_paths`: without those that match all requests
/// because they cannot be read.
fn rules(kind: Kind, rules: &Value, only_paths: bool) -> Vec<Value> {
    let unknown = || if only_paths { Vec::new() } else { vec![json!({})] };
    let list = match rules {
        Value::Null => return Vec::new(),
        Value::Array(list) => list,
        _ => return unknown(),
    };
    let mut readable = Vec::new();
    for rule in list {
        let matches = match &rule["matches"] {
            Value::Array(matches) if !matches.is_empty() => matches,
            _ => {
                readable.extend(unknown());
                continue;
            }
        };
        let read = matches.iter().flat_map(|entry| match kind {
            Kind::GrpcRoute => vec![call_match(entry)],
            _ => request_matches(entry),
        });
        let kept: Vec<Value> = read.filter_map(|read| read.or_else(|| (!only_paths).then(|| json!({})))).collect();
        if !kept.is_empty() {
            readable.push(json!({"matches": kept}));
        }
    }
    readable
}

/// The requests that a match of an HTTPRoute names. `None` stands for those of a path that cannot be read or is not
/// valid. Of a path without its first `/`, these are added to those that it probably means.
fn request_matches(entry: &Value) -> Vec<Option<Value>> {
    let Some(fields) = entry.as_object() else { return vec![None] };
    let method = entry["method"].as_str().filter(|method| METHODS.contains(method));
    let matched = |path: Value| Some(json!({"path": path, "method": method}));
    let (kind, value) = match fields.get("path").unwrap_or(&Value::Null) {
        Value::Null => return vec![matched(Value::Null)],
        Value::String(path) => ("PathPrefix", path.as_str()),
        path => match (path["type"].as_str(), path["value"].as_str()) {
            (_, None) => return vec![None],
            (Some(kind @ ("RegularExpression" | "Exact")), Some(value)) => (kind, value),
            (_, Some(value)) => ("PathPrefix", value),
        },
    };
    if kind == "RegularExpression" {
        return vec![matched(json!({"type": kind, "value": value}))];
    }
    let path = absolute(value);
    let mut read = Vec::new();
    if is_normalized(&path) && has_path_characters(&path) {
        read.push(matched(json!({"type": kind, "value": path})));
    }
    if read.is_empty() || !value.starts_with('/') {
        read.push(None);
    }
    read
}

/// The match of a GRPCRoute. `None` if its method cannot be read, or no call can have it.
fn call_match(entry: &Value) -> Option<Value> {
    match entry.as_object()?.get("method") {
        None | Some(Value::Null) => Some(json!({})),
        Some(method) => {
            method.as_object()?;
            let names = texts_of(method, &["type", "service", "method"]);
            let is_name = |name: &Value| {
                let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_.".contains(&byte);
                name.as_str().is_some_and(|name| !name.is_empty() && name.bytes().all(is_part))
            };
            let is_expression = names.get("type").is_some_and(|kind| kind == "RegularExpression");
            let can_be_called = ["service", "method"].iter().filter_map(|name| names.get(*name)).all(is_name);
            (is_expression || can_be_called).then(|| json!({"method": names}))
        }
    }
}

/// The same for an Ingress. If its rules are no list, the hosts of its certificates are refused.
fn readable_ingress(spec: &Value, is_complete: bool) -> Option<Value> {
    let has_list = spec["rules"].is_array() || spec["rules"].is_null();
    let rules: Vec<_> = entries(&spec["rules"]).filter_map(ingress_rule).collect();
    let readable = json!({
        "ingressClassName": spec["ingressClassName"].as_str(),
        "defaultBackend": spec["defaultBackend"],
        "rules": rules,
        "tls": spec["tls"],
    });
    let reduced = reduced_route(Kind::Ingress, &readable, has_list && is_complete);
    let names_requests = entries(&reduced["rules"]).next().is_some() || reduced["defaultBackend"].is_object();
    names_requests.then_some(reduced)
}

/// The host of a rule and its paths. `None` if neither can be read.
fn ingress_rule(rule: &Value) -> Option<Value> {
    let rule = rule.as_object()?;
    let host = rule.get("host").unwrap_or(&Value::Null);
    let is_unknown_host = !host.is_null() && !host.is_string();
    let host = host.as_str().and_then(readable_host);
    let http = rule.get("http").unwrap_or(&Value::Null);
    if http.is_null() {
        return (!is_unknown_host).then(|| json!({"host": host}));
    }
    let all = || (!is_unknown_host).then(|| json!({"path": "/", "pathType": "Prefix"}));
    let paths: Vec<_> = match http["paths"].as_array() {
        Some(paths) => paths.iter().filter_map(|path| ingress_path(path).or_else(all)).collect(),
        None => all().into_iter().collect(),
    };
    (!paths.is_empty()).then(|| json!({"host": host, "http": {"paths": paths}}))
}

/// `None` if the path cannot be read.
fn ingress_path(path: &Value) -> Option<Value> {
    let kind = path["pathType"].as_str().filter(|kind| ["Exact", "Prefix"].contains(kind));
    let kind = kind.unwrap_or("ImplementationSpecific");
    match path.as_object()?.get("path") {
        None | Some(Value::Null) => Some(json!({"path": "/", "pathType": "Prefix"})),
        Some(path) => {
            let path = absolute(path.as_str()?);
            let is_usable = kind == "ImplementationSpecific" || is_normalized(&path);
            is_usable.then(|| json!({"path": path, "pathType": kind}))
        }
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Whether requests can have the path: it has no segments that are resolved or merged.
fn is_normalized(path: &str) -> bool {
    let is_resolved = ["//", "/./", "/../", "%2f", "%2F"].iter().any(|part| path.contains(part));
    !is_resolved && !path.ends_with("/.") && !path.ends_with("/..")
}

/// Whether the path has only characters that it may have without being escaped.
fn has_path_characters(path: &str) -> bool {
    let is_escape =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let is_valid = |(index, byte): (usize, u8)| match byte {
        b'%' => is_escape(&path[index + 1..]),
        byte => byte.is_ascii_alphanumeric() || b"-/._~!$&()*+,;=:@'".contains(&byte),
    };
    path.bytes().enumerate().all(is_valid)
}

/// The methods that a match may name.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Those of the named fields that are texts.
fn texts_of(object: &Value, names: &[&str]) -> Map<String, Value> {
    let text = |name: &&str| object[*name].as_str().map(|text| ((*name).to_owned(), Value::from(text)));
    names.iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hosts of a route with its matches, each as its path and method.
    fn refused(mut spec: Value) -> String {
        if spec.get("parentRefs").is_none() {
            spec["parentRefs"] = json!([{"name": "g"}]);
        }
        let Some(reduced) = readable_route(Kind::HttpRoute, &spec, true) else { return "nothing".to_owned() };
        let hosts: Vec<_> = entries(&reduced["hostnames"]).filter_map(Value::as_str).collect();
        let matches = entries(&reduced["rules"]).flat_map(|rule| match rule["matches"].as_array() {
            Some(matches) if !matches.is_empty() => matches.clone(),
            _ => vec![json!({})],
        });
        let matches = matches.map(|entry| {
            let [method, kind, path] =
                [&entry["method"], &entry["path"]["type"], &entry["path"]["value"]].map(|part| part.as_str());
            let parts: Vec<_> = [method, kind, path].into_iter().flatten().collect();
            if parts.is_empty() { "all".to_owned() } else { parts.join(" ") }
        });
        format!("{}: {}", hosts.join(" "), matches.collect::<Vec<_>>().join(", "))
    }

    fn path(path: Value) -> Value {
        json!([{"matches": [{"path": path}]}])
    }

    #[test]
    fn routes_are_refused_where_hosts_or_paths_can_be_read() {
        let admin = || path(json!({"value": "/admin"}));
        for (spec, expected) in [
            (json!({"hostnames": ["a.example"], "rules": admin(), "unknown": 5}), "a.example: PathPrefix /admin"),
            (json!({"hostnames": "a.example", "rules": admin()}), "a.example: PathPrefix /admin"),
            // An empty name stands for all hosts.
            (json!({"hostnames": [5, "a.example"], "rules": admin()}), " a.example: PathPrefix /admin"),
            (json!({"hostnames": [null, "a.example"], "rules": admin()}), "a.example: PathPrefix /admin"),
            (json!({"hostnames": [5], "rules": admin()}), ": PathPrefix /admin"),
            (json!({"hostnames": ["a.example:80"], "rules": admin()}), "a.example: PathPrefix /admin"),
            (json!({"hostnames": ["A.example", "*.b.example"], "rules": "none"}), "a.example *.b.example: all"),
            (json!({"hostnames": ["*"], "rules": admin()}), ": PathPrefix /admin"),
            (json!({"hostnames": ["*"], "rules": "none"}), ": all"),
            (json!({"hostnames": ["a.example", "b_c!"], "rules": admin()}), "a.example : PathPrefix /admin"),
            (json!({"rules": path(json!("admin"))}), ": PathPrefix /admin, all"),
            (json!({"rules": path(json!("/adm//in"))}), ": all"),
            (json!({"rules": path(json!({"type": "Exact", "value": "/dot/../x"}))}), ": all"),
            (json!({"rules": path(json!({"value": "/a b"}))}), ": all"),
            (json!({"rules": path(json!({"value": "/a%20b"}))}), ": PathPrefix /a%20b"),
            (json!({"rules": path(json!({"value": "/a%2"}))}), ": all"),
            (json!({"hostnames": 5, "rules": path(json!("/a b"))}), "nothing"),
            (json!({"hostnames": 5, "rules": path(json!("admin"))}), ": PathPrefix /admin"),
            (json!({"rules": path(json!({"type": "Prefix", "value": "/x"}))}), ": PathPrefix /x"),
            (json!({"rules": path(json!({"type": "Exact", "value": "/x"}))}), ": Exact /x"),
            (json!({"rules": [{"matches": [{"method": "POST", "path": null}]}]}), ": POST"),
            (json!({"rules": [{"matches": [{"method": 5}]}]}), ": all"),
            (json!({"rules": [{"matches": [{"method": "get"}]}]}), ": all"),
            // What cannot be read matches all requests to the hosts.
            (json!({"hostnames": ["a.example"], "rules": path(json!(5))}), "a.example: all"),
            (json!({"hostnames": ["a.example"], "rules": "none"}), "a.example: all"),
            (json!({"hostnames": ["a.example"], "rules": [5]}), "a.example: all"),
            (json!({"hostnames": ["a.example"]}), "a.example: all"),
            // The parts that can be read name no request.
            (json!({"hostnames": 5, "rules": path(json!(5))}), "nothing"),
            (json!({"hostnames": [[]], "rules": "none"}), "nothing"),
            (json!({"parentRefs": [{"name": 5}], "rules": admin()}), "nothing"),
            (json!({"parentRefs": 5, "rules": admin()}), "nothing"),
            (json!({"parentRefs": {"name": "g", "port": "80"}, "rules": admin()}), ": PathPrefix /admin"),
            (json!({"parentRefs": 5, "useDefaultGateways": "All", "rules": admin()}), ": PathPrefix /admin"),
        ] {
            assert_eq!(refused(spec.clone()), expected, "{spec}");
        }
        let calls =
            json!({"parentRefs": [{"name": "g"}], "rules": [{"matches": [{"method": {"service": "s", "method": 5}}]}]});
        let reduced = readable_route(Kind::GrpcRoute, &calls, true).unwrap();
        assert_eq!(reduced["rules"][0]["matches"][0]["method"], json!({"service": "s"}));
        // No call has such a name, so all calls get an error.
        for service in ["/s.S", " s.S", ""] {
            let calls =
                json!({"parentRefs": [{"name": "g"}], "rules": [{"matches": [{"method": {"service": service}}]}]});
            let reduced = readable_route(Kind::GrpcRoute, &calls, true).unwrap();
            assert_eq!(reduced["rules"][0]["matches"][0]["method"], Value::Null, "{service:?}");
        }
    }

    /// What is missing of the list may be any match or path.
    #[test]
    fn incomplete_routes_refuse_all_requests_to_their_hosts() {
        let rules = |hosts: Value, is_complete: bool| {
            let spec = json!({"parentRefs": [{"name": "g"}], "hostnames": hosts, "rules": path(json!("/admin"))});
            let reduced = readable_route(Kind::HttpRoute, &spec, is_complete).unwrap();
            entries(&reduced["rules"]).len()
        };
        assert_eq!((rules(json!(["a"]), true), rules(json!(["a"]), false)), (1, 2));
        assert_eq!(rules(json!(5), false), 1, "other objects keep the requests to their hosts");
        let rule = json!({"host": "a", "http": {"paths": [{"path": "/admin", "pathType": "Exact"}]}});
        let spec = json!({"rules": [rule], "tls": [{"hosts": ["b"]}]});
        let hosts = |is_complete: bool| {
            let reduced = readable_route(Kind::Ingress, &spec, is_complete).unwrap();
            let hosts = entries(&reduced["rules"]).filter_map(|rule| rule["host"].as_str());
            hosts.collect::<Vec<_>>().join(" ")
        };
        assert_eq!((hosts(true), hosts(false)), ("a".to_owned(), "a a b".to_owned()));
    }

    #[test]
    fn ingresses_are_refused_where_hosts_or_paths_can_be_read() {
        let paths = |paths: Value| json!({"paths": paths});
        let rule = |host: Value, http: Value| json!({"rules": [{"host": host, "http": http}]});
        let admin = || paths(json!([{"path": "/admin"}]));
        for (spec, expected) in [
            (rule(json!("a"), admin()), "a /admin"),
            (rule(json!(["a"]), admin()), "* /admin"),
            (rule(json!("a:80"), admin()), "a /admin"),
            (rule(json!("*"), admin()), "* /admin"),
            (rule(json!("*"), json!("/admin")), "* /"),
            (rule(json!("a"), paths(json!([{"path": "/x//y", "pathType": "Exact"}]))), "a /"),
            (rule(json!("a"), paths(json!([{"path": ["/admin"]}]))), "a /"),
            (rule(json!("a"), paths(json!([5, {"path": "x", "pathType": "Exact"}]))), "a /, a /x"),
            (rule(json!("a"), json!("/admin")), "a /"),
            (rule(json!("a"), json!(null)), "a default"),
            (json!({"rules": {"host": "a"}, "tls": [{"hosts": ["b"]}]}), "b /"),
            (json!({"rules": [5], "defaultBackend": {"service": 5}}), "default"),
            (rule(json!(["a"]), paths(json!([5]))), "nothing"),
            (json!({"rules": "a"}), "nothing"),
        ] {
            let found = readable_route(Kind::Ingress, &spec, true).map(|reduced| {
                let rules = entries(&reduced["rules"]).flat_map(|rule| {
                    let host = rule["host"].as_str().unwrap_or("*");
                    let paths: Vec<_> = match rule["http"]["paths"].as_array() {
                        Some(paths) => paths.iter().filter_map(|path| path["path"].as_str()).collect(),
                        None => vec!["default"],
                    };
                    paths.into_iter().map(|path| format!("{host} {path}")).collect::<Vec<_>>()
                });
                let default = reduced["defaultBackend"].is_object().then(|| "default".to_owned());
                rules.chain(default).collect::<Vec<_>>().join(", ")
            });
            assert_eq!(found.as_deref().unwrap_or("nothing"), expected, "{spec}");
        }
    }
}
