//! What HTTPRoutes and GRPCRoutes say.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::expectation::{
    ANY_METHOD, Expectation, ExpectedAction, ExpectedBackend, Parent, RequestShape, RequiredProtocols, header,
    is_value_character, method, path_sample, paths_below,
};
use super::regex_sample;
use crate::api::gateway::{
    BackendRef, Filter, GrpcRoute, GrpcRouteMatch, HttpRoute, HttpRouteMatch, HttpValueMatch, ParentReference,
};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};

/// An expectation for each match of an HTTPRoute.
pub(super) fn of_http_route(route: &Object<HttpRoute>) -> Vec<Expectation> {
    let rules = route.spec.rules.iter().map(|rule| RuleFields {
        name: rule.name.as_deref(),
        matches: or_default(&rule.matches, |found| (http_path(found), http_shape(found))),
        filters: &rule.filters,
        backends: &rule.backend_refs,
    });
    expectations(Kind::HttpRoute, &route.meta, &route.spec.parent_refs, &route.spec.hostnames, rules)
}

/// An expectation for each match of a GRPCRoute.
pub(super) fn of_grpc_route(route: &Object<GrpcRoute>) -> Vec<Expectation> {
    let rules = route.spec.rules.iter().map(|rule| RuleFields {
        name: rule.name.as_deref(),
        matches: or_default(&rule.matches, |found| (None, grpc_shape(found))),
        filters: &rule.filters,
        backends: &rule.backend_refs,
    });
    expectations(Kind::GrpcRoute, &route.meta, &route.spec.parent_refs, &route.spec.hostnames, rules)
}

/// The fields of a rule that both kinds have.
struct RuleFields<'a> {
    name: Option<&'a str>,
    matches: Vec<(Option<String>, Result<RequestShape, String>)>,
    filters: &'a [Filter],
    backends: &'a [BackendRef],
}

/// A rule without matches has the default one.
fn or_default<M: Default, T>(matches: &[M], read: fn(&M) -> T) -> Vec<T> {
    if matches.is_empty() { vec![read(&M::default())] } else { matches.iter().map(read).collect() }
}

fn expectations<'a>(
    kind: Kind,
    meta: &Meta,
    parents: &[ParentReference],
    hostnames: &[String],
    rules: impl Iterator<Item = RuleFields<'a>>,
) -> Vec<Expectation> {
    let namespace = &*meta.key.namespace;
    let parents: Vec<Parent> = parents.iter().filter_map(|reference| parent(reference, namespace)).collect();
    let hosts = if hostnames.is_empty() { vec!["*".to_owned()] } else { hostnames.to_vec() };
    let protocols = RequiredProtocols::of(meta);
    let mut expectations = Vec::new();
    for (rule_index, rule) in rules.enumerate() {
        let action = action(rule.filters, rule.backends, namespace);
        for (match_index, (served_path, requests)) in rule.matches.into_iter().enumerate() {
            let as_grpc = |shape: RequestShape| RequestShape { methods: vec![Method::POST], is_grpc: true, ..shape };
            expectations.push(Expectation {
                object: ObjectId::new(kind, meta.key.clone()),
                rule: Some(rule.name.map_or_else(|| rule_index.to_string(), str::to_owned)),
                field: format!("spec.rules[{rule_index}].matches[{match_index}]"),
                served_path,
                hosts: hosts.clone(),
                parents: parents.clone(),
                requires_https: protocols.https,
                requests: if protocols.grpc { requests.map(as_grpc) } else { requests },
                action: action.clone(),
            });
        }
    }
    expectations
}

/// `None` for a parent of an unknown kind.
fn parent(reference: &ParentReference, namespace: &str) -> Option<Parent> {
    let ParentReference { group, kind, namespace: own, name, section_name, port } = reference;
    let kind = Kind::find(group, kind).filter(|kind| matches!(kind, Kind::Gateway | Kind::ListenerSet))?;
    Some(Parent {
        object: ObjectId::new(kind, ObjectKey::new(own.as_deref().unwrap_or(namespace), name)),
        section: section_name.clone(),
        port: port.and_then(|port| u16::try_from(port).ok()),
    })
}

fn action(filters: &[Filter], backends: &[BackendRef], namespace: &str) -> ExpectedAction {
    if filters.iter().any(|filter| filter.request_redirect.is_some()) {
        return ExpectedAction::Redirect;
    }
    let backends = backends.iter().filter(|backend| backend.weight > 0);
    let services: Option<Vec<ExpectedBackend>> = backends
        .map(|BackendRef { target, .. }| {
            let is_service = target.group.is_empty() && target.kind == Kind::Service.name();
            is_service.then(|| ExpectedBackend {
                service: format!("{}/{}", target.namespace.as_deref().unwrap_or(namespace), target.name),
                port: target.port.and_then(|port| u16::try_from(port).ok()),
            })
        })
        .collect();
    match services {
        Some(services) if !services.is_empty() => ExpectedAction::Forward(services),
        Some(_) | None => ExpectedAction::NotCompared,
    }
}

fn http_path(route_match: &HttpRouteMatch) -> Option<String> {
    let Some(path) = &route_match.path else { return Some("PathPrefix /".to_owned()) };
    let value = match &*path.kind {
        "PathPrefix" if path.value != "/" => path.value.strip_suffix('/').unwrap_or(&path.value),
        _ => &path.value,
    };
    Some(format!("{} {value}", path.kind))
}

fn http_shape(route_match: &HttpRouteMatch) -> Result<RequestShape, String> {
    let paths = match &route_match.path {
        None => paths_below("/"),
        Some(path) => match &*path.kind {
            "Exact" => vec![path.value.clone()],
            "PathPrefix" => paths_below(&path.value),
            "RegularExpression" => vec![path_sample(&path.value)?],
            other => return Err(format!("{other} is not a known type of path match")),
        },
    };
    let parameters = first_of_each_name(&route_match.query_params, str::to_owned).map(|parameter| {
        let value = value_sample(parameter, |character| !character.is_control())?;
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        Ok(format!("{}={}", encode(&parameter.name), encode(&value)))
    });
    Ok(RequestShape {
        paths,
        methods: match &route_match.method {
            Some(name) => vec![method(name)?],
            None => ANY_METHOD.to_vec(),
        },
        query: parameters.collect::<Result<Vec<_>, String>>()?.join("&"),
        headers: headers(&route_match.headers)?,
        is_grpc: false,
    })
}

fn grpc_shape(route_match: &GrpcRouteMatch) -> Result<RequestShape, String> {
    let (service, called) = match &route_match.method {
        None => (None, None),
        Some(method) => {
            let is_name_character = |character: char| character.is_ascii_alphanumeric() || "._".contains(character);
            let name = |text: &Option<String>| match (text.as_deref().filter(|text| !text.is_empty()), &*method.kind) {
                (None, _) => Ok(None),
                (Some(text), "Exact") => Ok(Some(text.to_owned())),
                (Some(text), "RegularExpression") => regex_sample::sample(text, is_name_character).map(Some),
                (Some(_), other) => Err(format!("{other} is not a known type of method match")),
            };
            (name(&method.service)?, name(&method.method)?)
        }
    };
    let service = service.as_deref().unwrap_or("portico.verify.Service");
    let called = called.as_deref().unwrap_or("PorticoVerify");
    Ok(RequestShape {
        paths: vec![format!("/{service}/{called}")],
        methods: vec![Method::POST],
        query: String::new(),
        headers: headers(&route_match.headers)?,
        is_grpc: true,
    })
}

fn headers(conditions: &[HttpValueMatch]) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let conditions = first_of_each_name(conditions, str::to_ascii_lowercase);
    conditions.map(|condition| header(&condition.name, &value_sample(condition, is_value_character)?)).collect()
}

fn value_sample(condition: &HttpValueMatch, is_usable: fn(char) -> bool) -> Result<String, String> {
    match &*condition.kind {
        "Exact" => Ok(condition.value.clone()),
        "RegularExpression" => regex_sample::sample(&condition.value, is_usable),
        other => Err(format!("{other} is not a known type of match for {}", condition.name)),
    }
}

/// Of several conditions with the same name, the Gateway API uses the first one.
fn first_of_each_name(conditions: &[HttpValueMatch], key: fn(&str) -> String) -> impl Iterator<Item = &HttpValueMatch> {
    let mut names = BTreeSet::new();
    conditions.iter().filter(move |condition| names.insert(key(&condition.name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn http_route(spec: serde_json::Value) -> Vec<Expectation> {
        let metadata = json!({ "name": "shop", "namespace": "default" });
        of_http_route(&serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap())
    }

    #[test]
    fn http_route_has_an_expectation_for_each_match() {
        let expectations = http_route(json!({
            "parentRefs": [
                { "name": "web", "sectionName": "http" },
                { "kind": "ListenerSet", "namespace": "shop", "name": "more" },
                { "group": "", "kind": "Service", "name": "mesh" },
            ],
            "hostnames": ["shop.example"],
            "rules": [
                {
                    "name": "cart",
                    "matches": [
                        {
                            "path": { "type": "Exact", "value": "/cart" },
                            "method": "PUT",
                            "headers": [
                                { "name": "X-Canary", "value": "1" },
                                { "name": "x-canary", "value": "2" },
                                { "name": "x-user", "type": "RegularExpression", "value": "[a-f]{2}" },
                            ],
                            "queryParams": [{ "name": "page size", "value": "a&b" }, { "name": "q", "value": "1" }],
                        },
                        { "path": { "type": "RegularExpression", "value": "(" } },
                    ],
                    "backendRefs": [{ "name": "cart", "port": 80 }, { "name": "old", "port": 80, "weight": 0 }],
                },
                { "filters": [{ "type": "RequestRedirect", "requestRedirect": { "scheme": "https" } }] },
                { "backendRefs": [{ "group": "example.com", "kind": "Bucket", "name": "b" }] },
            ],
        }));
        let fields = expectations.iter().map(|expectation| (expectation.rule.as_deref(), &*expectation.field));
        assert_eq!(
            fields.collect::<Vec<_>>(),
            [
                (Some("cart"), "spec.rules[0].matches[0]"),
                (Some("cart"), "spec.rules[0].matches[1]"),
                (Some("1"), "spec.rules[1].matches[0]"),
                (Some("2"), "spec.rules[2].matches[0]"),
            ]
        );
        let first = &expectations[0];
        assert_eq!(
            (&first.hosts[..], first.served_path.as_deref()),
            (&["shop.example".to_owned()][..], Some("Exact /cart"))
        );
        let web = ObjectId::new(Kind::Gateway, ObjectKey::new("default", "web"));
        let more = ObjectId::new(Kind::ListenerSet, ObjectKey::new("shop", "more"));
        let parents = [(web, Some("http".to_owned())), (more, None)];
        assert_eq!(first.parents, parents.map(|(object, section)| Parent { object, section, port: None }));
        let shape = first.requests.as_ref().unwrap();
        assert_eq!((&shape.paths[..], &shape.methods[..]), (&["/cart".to_owned()][..], &[Method::PUT][..]));
        assert_eq!(shape.query, "page%20size=a%26b&q=1");
        let headers = shape.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        assert_eq!(headers.collect::<Vec<_>>(), [("x-canary", "1"), ("x-user", "aa")]);
        let cart = ExpectedBackend { service: "default/cart".to_owned(), port: Some(80) };
        assert_eq!(first.action, ExpectedAction::Forward(vec![cart]));
        assert!(expectations[1].requests.as_ref().unwrap_err().contains("is not a valid regular expression"));
        assert_eq!(expectations[2].action, ExpectedAction::Redirect);
        assert_eq!(expectations[3].action, ExpectedAction::NotCompared);
        assert_eq!(expectations[3].requests.as_ref().unwrap().paths, ["/", "/portico-verify"]);
    }

    #[test]
    fn grpc_route_matches_calls() {
        let route = |matches: serde_json::Value| {
            let spec =
                json!({ "rules": [{ "matches": matches, "backendRefs": [{ "name": "greeter", "port": 50051 }] }] });
            let metadata = json!({ "name": "greeter", "namespace": "default" });
            let object = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
            let path = |expectation: &Expectation| expectation.requests.clone().map(|shape| shape.paths[0].clone());
            of_grpc_route(&object).iter().map(path).collect::<Vec<_>>()
        };
        assert_eq!(route(json!([])), [Ok("/portico.verify.Service/PorticoVerify".to_owned())]);
        assert_eq!(
            route(json!([
                { "method": { "service": "helloworld.Greeter", "method": "SayHello" } },
                { "method": { "method": "SayHello" } },
                { "method": { "type": "RegularExpression", "service": "helloworld\\.(Greeter|Speaker)" } },
            ])),
            [
                Ok("/helloworld.Greeter/SayHello".to_owned()),
                Ok("/portico.verify.Service/SayHello".to_owned()),
                Ok("/helloworld.Greeter/PorticoVerify".to_owned()),
            ]
        );
    }
}
