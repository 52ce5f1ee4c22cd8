//! Validation of whole objects: valid objects, their defaults, and the messages for invalid ones.

use std::collections::BTreeSet;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use serde_json::json;

use super::*;
use crate::api::core::{ConfigMap, EndpointSlice, Namespace, Secret, Service};
use crate::api::gateway::{
    BackendTlsPolicy, Gateway, GatewayClass, GrpcRoute, HttpRoute, ListenerSet, ReferenceGrant, TcpRoute, TlsRoute,
    UdpRoute,
};
use crate::api::kind::GATEWAY_GROUP;
use crate::api::{Object, Resource};

fn object(kind: Kind, spec: Value) -> Value {
    let version = format!("{}/{}", kind.group(), kind.versions()[0]);
    json!({"apiVersion": version, "kind": kind.name(), "metadata": {"name": "web"}, "spec": spec})
}

fn route(rule: &Value) -> Value {
    object(Kind::HttpRoute, json!({"parentRefs": [{"name": "gw"}], "rules": [rule]}))
}

fn gateway(listeners: &Value) -> Value {
    object(Kind::Gateway, json!({"gatewayClassName": "portico", "listeners": listeners}))
}

/// Each violation as `field: message; remedy`.
fn lines(kind: Kind, object: &mut Value, channel: Channel) -> Vec<String> {
    let violations = check(kind, object, channel);
    violations.into_iter().map(|it| format!("{}: {}; {}", it.field, it.message, it.remedy)).collect()
}

/// One valid object of every kind in the standard channel of the Gateway API.
fn valid_objects() -> Vec<(Kind, Value)> {
    let certificate = json!({"mode": "Terminate", "certificateRefs": [{"name": "cert"}]});
    let backends = json!([{"name": "web", "port": 80}]);
    let parents = json!([{"name": "gw"}]);
    vec![
        (Kind::GatewayClass, object(Kind::GatewayClass, json!({"controllerName": "portico.dev/gateway-controller"}))),
        (
            Kind::Gateway,
            object(
                Kind::Gateway,
                json!({
                    "gatewayClassName": "portico",
                    "addresses": [{"value": "127.0.0.1"}, {"type": "Hostname", "value": "gw.example.com"}],
                    "infrastructure": {"labels": {"team": "a"}},
                    "listeners": [
                        {"name": "http", "port": 80, "protocol": "HTTP", "hostname": "*.example.com"},
                        {"name": "https", "port": 443, "protocol": "HTTPS", "tls": certificate,
                            "allowedRoutes": {"namespaces": {"from": "Selector",
                                "selector": {"matchLabels": {"a": "b"}}},
                                "kinds": [{"kind": "HTTPRoute"}]}},
                        {"name": "tls", "port": 8443, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
                        {"name": "tcp", "port": 5432, "protocol": "TCP"},
                        {"name": "udp", "port": 53, "protocol": "UDP"}
                    ]
                }),
            ),
        ),
        (
            Kind::HttpRoute,
            object(
                Kind::HttpRoute,
                json!({
                    "parentRefs": [{"name": "gw", "sectionName": "http"}, {"name": "gw", "sectionName": "https"}],
                    "hostnames": ["www.example.com", "*.example.org"],
                    "rules": [
                        {
                            "name": "api",
                            "matches": [
                                {"path": {"value": "/api/v1"}, "method": "GET",
                                    "headers": [{"name": "X-A", "value": "1"}, {"name": "X-B",
                                        "type": "RegularExpression", "value": "^a.*$"}],
                                    "queryParams": [{"name": "q", "value": "1"}]},
                                {"path": {"type": "RegularExpression", "value": "/v[0-9]+/.*"}}
                            ],
                            "filters": [
                                {"type": "RequestHeaderModifier", "requestHeaderModifier":
                                    {"set": [{"name": "a", "value": "b"}], "remove": ["c"]}},
                                {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "copy",
                                    "port": 80}, "percent": 5}},
                                {"type": "CORS", "cors": {"allowOrigins": ["https://*.example.com",
                                    "https://a.example.org:8443"], "maxAge": 60}}
                            ],
                            "timeouts": {"request": "10s", "backendRequest": "2s500ms"},
                            "retry": {"codes": [502, 503], "attempts": 2, "backoff": "100ms"},
                            "backendRefs": [{"name": "web", "port": 80, "weight": 9}, {"name": "web2", "port": 80,
                                "namespace": "b"}]
                        },
                        {
                            "matches": [{"path": {"value": "/old"}}],
                            "filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https",
                                "statusCode": 301,
                                "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}}}]
                        },
                        {
                            "matches": [{"path": {"value": "/rewrite"}}],
                            "filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": "a.b",
                                "path": {"type": "ReplaceFullPath", "replaceFullPath": "/"}}}],
                            "backendRefs": backends
                        }
                    ]
                }),
            ),
        ),
        (
            Kind::GrpcRoute,
            object(
                Kind::GrpcRoute,
                json!({"parentRefs": parents, "rules": [{
                "matches": [{"method": {"service": "a.b.C", "method": "Do"}}], "backendRefs": backends}]}),
            ),
        ),
        (
            Kind::TlsRoute,
            object(
                Kind::TlsRoute,
                json!({"parentRefs": parents, "hostnames": ["a.example.com"], "rules": [{"backendRefs": backends}]}),
            ),
        ),
        (Kind::TcpRoute, object(Kind::TcpRoute, json!({"parentRefs": parents, "rules": [{"backendRefs": backends}]}))),
        (Kind::UdpRoute, object(Kind::UdpRoute, json!({"parentRefs": parents, "rules": [{"backendRefs": backends}]}))),
        (
            Kind::ReferenceGrant,
            object(
                Kind::ReferenceGrant,
                json!({
                "from": [{"group": GATEWAY_GROUP, "kind": "HTTPRoute", "namespace": "a"}], "to": [{"group": "",
                    "kind": "Service"}]}),
            ),
        ),
        (
            Kind::BackendTlsPolicy,
            object(
                Kind::BackendTlsPolicy,
                json!({
                "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
                "validation": {"hostname": "web.example.com", "caCertificateRefs": [{"group": "",
                    "kind": "ConfigMap", "name": "ca"}]}}),
            ),
        ),
        (
            Kind::ListenerSet,
            object(
                Kind::ListenerSet,
                json!({
                "parentRef": {"name": "gw"}, "listeners": [{"name": "a", "port": 80, "protocol": "HTTP",
                    "hostname": "a.example.com"}]}),
            ),
        ),
    ]
}

#[test]
fn valid_objects_pass_and_deserialize_in_both_channels() {
    for (kind, object) in valid_objects() {
        for channel in Channel::ALL {
            let mut object = object.clone();
            assert_eq!(lines(kind, &mut object, channel), Vec::<String>::new(), "{kind} {channel:?}");
            parse(kind, object).unwrap_or_else(|error| panic!("{kind} {channel:?}: {error}"));
        }
    }
}

/// Parses an object as the store does.
fn parse(kind: Kind, object: Value) -> Result<(), serde_json::Error> {
    fn as_type<T: Resource>(object: Value) -> Result<(), serde_json::Error> {
        serde_json::from_value::<Object<T>>(object).map(drop)
    }
    match kind {
        Kind::GatewayClass => as_type::<GatewayClass>(object),
        Kind::Gateway => as_type::<Gateway>(object),
        Kind::ListenerSet => as_type::<ListenerSet>(object),
        Kind::HttpRoute => as_type::<HttpRoute>(object),
        Kind::GrpcRoute => as_type::<GrpcRoute>(object),
        Kind::TlsRoute => as_type::<TlsRoute>(object),
        Kind::TcpRoute => as_type::<TcpRoute>(object),
        Kind::UdpRoute => as_type::<UdpRoute>(object),
        Kind::BackendTlsPolicy => as_type::<BackendTlsPolicy>(object),
        Kind::ReferenceGrant => as_type::<ReferenceGrant>(object),
        Kind::Service => as_type::<Service>(object),
        Kind::EndpointSlice => as_type::<EndpointSlice>(object),
        Kind::Secret => as_type::<Secret>(object),
        Kind::ConfigMap => as_type::<ConfigMap>(object),
        Kind::Namespace => as_type::<Namespace>(object),
        _ => Ok(()),
    }
}

#[test]
fn defaults_match_the_api_server() {
    for (kind, mut object, expected) in [
        (
            Kind::HttpRoute,
            object(Kind::HttpRoute, json!({"parentRefs": [{"name": "gw"}]})),
            json!({
                "parentRefs": [{"name": "gw", "group": GATEWAY_GROUP, "kind": "Gateway"}],
                "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]
            }),
        ),
        (
            Kind::HttpRoute,
            route(&json!({
                "matches": [{"path": {"value": "/a"}, "headers": [{"name": "a", "value": "b"}]},
                    {"path": {"type": "Exact", "value": "/"}}, {}],
                "backendRefs": [{"name": "web", "port": 80, "weight": null}],
                "filters": [{"type": "RequestRedirect", "requestRedirect": {}}]
            })),
            json!({
                "parentRefs": [{"name": "gw", "group": GATEWAY_GROUP, "kind": "Gateway"}],
                "rules": [{
                    "matches": [
                        {"path": {"type": "PathPrefix", "value": "/a"}, "headers": [{"type": "Exact", "name": "a",
                            "value": "b"}]},
                        {"path": {"type": "Exact", "value": "/"}},
                        {"path": {"type": "PathPrefix", "value": "/"}}
                    ],
                    "backendRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1}],
                    "filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 302}}]
                }]
            }),
        ),
        (
            Kind::Gateway,
            gateway(&json!([{"name": "https", "port": 443, "protocol": "HTTPS", "tls": {
                    "certificateRefs": [{"name": "cert"}]}, "allowedRoutes": {}}])),
            json!({
                "gatewayClassName": "portico",
                "listeners": [{
                    "name": "https", "port": 443, "protocol": "HTTPS",
                    "tls": {"mode": "Terminate", "certificateRefs": [{"group": "", "kind": "Secret", "name": "cert"}]},
                    "allowedRoutes": {"namespaces": {"from": "Same"}}
                }]
            }),
        ),
    ] {
        check(kind, &mut object, Channel::Standard);
        assert_eq!(object["spec"], expected, "{kind}");
    }
}

#[test]
fn common_mistakes_in_routes() {
    for (rule, expected) in [
        (
            json!({"backendRef": [{"name": "web", "port": 80}]}),
            "spec.rules[0].backendRef: unknown field `backendRef`; did you mean `backendRefs`?",
        ),
        (
            json!({"backendRefs": [{"name": "web", "port": "80"}]}),
            "spec.rules[0].backendRefs[0].port: is the string \"80\", must be an integer; write it without quotes: \
                `port: 80`",
        ),
        (json!({"backendRefs": [{"port": 80}]}), "spec.rules[0].backendRefs[0].name: is missing; add `name`, a string"),
        (
            json!({"backendRefs": [{"name": "web"}]}),
            "spec.rules[0].backendRefs[0]: a reference to a Service needs a port; add port, the port number of the \
                Service",
        ),
        (
            json!({"backendRefs": [{"name": "web", "port": 80, "weight": -1}]}),
            "spec.rules[0].backendRefs[0].weight: is -1, the least allowed is 0; use a number from 0 to 1000000",
        ),
        (
            json!({"matches": [{"path": {"type": "Prefix", "value": "/"}}]}),
            "spec.rules[0].matches[0].path.type: \"Prefix\" is not allowed here; did you mean `PathPrefix`? Allowed \
                are `Exact`, `PathPrefix`, `RegularExpression`",
        ),
        (
            json!({"matches": [{"path": "/api"}]}),
            "spec.rules[0].matches[0].path: is the string \"/api\", must be a mapping; write a mapping; its fields \
                are `type`, `value`",
        ),
        (
            json!({"matches": {"path": {"value": "/"}}}),
            "spec.rules[0].matches: is a mapping, must be a list; make it a list: put `- ` before its first field",
        ),
        (
            json!({"matches": [{"path": {"value": "api"}}]}),
            "spec.rules[0].matches[0].path: the path is not absolute; start it with '/'",
        ),
        (
            json!({"matches": [{"headers": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]}]}),
            "spec.rules[0].matches[0].headers[1]: duplicate value: {\"name\":\"a\"}; \
                spec.rules[0].matches[0].headers[0] has the same `name`; change one or remove it",
        ),
        (
            json!({"timeouts": {"request": "10 s"}}),
            "spec.rules[0].timeouts.request: \"10 s\" is not a duration; use one to four numbers of at most five \
                digits, each with its unit h, m, s or ms, for example `1m30s`",
        ),
        (
            json!({"timeouts": {"request": "10s", "backendRequest": "20s"}}),
            "spec.rules[0].timeouts: backendRequest is longer than request, which includes it; shorten \
                backendRequest, or set request to 0s for no limit",
        ),
        (
            json!({"filters": [{"type": "RequestRedirect"}]}),
            "spec.rules[0].filters[0]: type is RequestRedirect but requestRedirect is missing; add requestRedirect, \
                or change type",
        ),
        (
            json!({"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 300}}]}),
            "spec.rules[0].filters[0].requestRedirect.statusCode: 300 is not allowed here; use one of `301`, `302`, \
                `303`, `307`, `308`",
        ),
        (
            json!({"sessionPersistence": {}}),
            "spec.rules[0].sessionPersistence: field `sessionPersistence` is not in the standard channel; it exists \
                in the experimental channel: set `--channel experimental`, or remove it",
        ),
        (
            json!({"filters": [{"type": "ExternalAuth"}]}),
            "spec.rules[0].filters[0].type: \"ExternalAuth\" is not allowed here; it exists in the experimental \
                channel: set `--channel experimental`, or use one of `CORS`, `ExtensionRef`, \
                `RequestHeaderModifier`, `RequestMirror`, `RequestRedirect`, `ResponseHeaderModifier`, `URLRewrite`",
        ),
    ] {
        assert_eq!(lines(Kind::HttpRoute, &mut route(&rule), Channel::Standard), [expected], "{rule}");
    }
}

#[test]
fn common_mistakes_in_gateways() {
    for (listeners, expected) in [
        (json!([]), "spec.listeners: has 0 items, at least 1 is needed; add 1 item"),
        (json!([{"name": "http", "port": 80}]), "spec.listeners[0].protocol: is missing; add `protocol`, a string"),
        (
            json!([{"name": "http", "port": 80, "protocol": "HTTP", "hostname": "example.com:80"}]),
            r#"spec.listeners[0].hostname: "example.com:80" is not a host name; remove the port: `example.com`"#,
        ),
        (
            json!([{"name": "a", "port": 80, "protocol": "HTTP"}, {"name": "b", "port": 80, "protocol": "HTTP"}]),
            "spec.listeners: listener a: another listener has the same port, protocol and hostname; change the \
                hostname or the port of one",
        ),
        (
            json!([{"name": "a", "port": 443, "protocol": "HTTPS", "tls": {}}]),
            "spec.listeners[0].tls: TLS is terminated but no certificate is set; add certificateRefs, or set mode \
                to Passthrough",
        ),
        (
            json!([{"name": "a", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "all"}}}]),
            "spec.listeners[0].allowedRoutes.namespaces.from: \"all\" is not allowed here; did you mean `All`? \
                Allowed are `All`, `Same`, `Selector`",
        ),
    ] {
        assert_eq!(lines(Kind::Gateway, &mut gateway(&listeners), Channel::Standard), [expected], "{listeners}");
    }
    let mut addresses = gateway(&json!([{"name": "http", "port": 80, "protocol": "HTTP"}]));
    addresses["spec"]["addresses"] = json!([{"value": "web"}]);
    assert_eq!(
        lines(Kind::Gateway, &mut addresses, Channel::Standard),
        ["spec.addresses[0].value: \"web\" is not an IPv4 address, and \"web\" is not an IPv6 address; write an \
                IPv4 address, for example `192.0.2.1`, or write an IPv6 address, for example `2001:db8::1`"]
    );
}

#[test]
fn experimental_kinds_and_versions_are_reported_as_such() {
    let mut backend = object(Kind::XBackend, json!({}));
    assert_eq!(
        lines(Kind::XBackend, &mut backend, Channel::Standard),
        ["kind: XBackend is not in the standard channel of the Gateway API; it requires the experimental \
                channel: set `--channel experimental`"]
    );
    let mut tls = valid_objects().into_iter().find(|(kind, _)| *kind == Kind::TlsRoute).unwrap().1;
    tls["apiVersion"] = json!("gateway.networking.k8s.io/v1alpha3");
    assert_eq!(lines(Kind::TlsRoute, &mut tls, Channel::Experimental), Vec::<String>::new());
    assert_eq!(
        lines(Kind::TlsRoute, &mut tls, Channel::Standard),
        ["apiVersion: TLSRoute is not served as \"gateway.networking.k8s.io/v1alpha3\" in the standard channel; \
                use `gateway.networking.k8s.io/v1`"]
    );
}

#[test]
fn cel_rules_are_skipped_for_malformed_values_only() {
    // The filter's CEL rules compare its type with its fields. They are skipped because the type is missing; those of
    // `timeouts` are not.
    let mut malformed =
        route(&json!({"filters": [{"requestRedirect": {}}], "timeouts": {"request": "1s", "backendRequest": "2s"}}));
    let violations = lines(Kind::HttpRoute, &mut malformed, Channel::Standard);
    assert_eq!(violations.len(), 2, "{violations:?}");
    assert!(violations[0].starts_with("spec.rules[0].filters[0].type: is missing"), "{violations:?}");
    assert!(violations[1].starts_with("spec.rules[0].timeouts: backendRequest is longer"), "{violations:?}");
}

#[test]
fn errors_of_an_object_are_reported_together() {
    let rule_with_path =
        |path: Value| json!({"matches": [{"path": path}], "backendRefs": [{"name": "web", "port": "80"}]});
    let fields = |kind, mut object: Value| -> Vec<String> {
        check(kind, &mut object, Channel::Standard).into_iter().map(|violation| violation.field).collect()
    };
    // An unknown field blocks no CEL rule, even if it resembles a field that is also set.
    for unknown in ["odd", "typ"] {
        let mut path = json!({"type": "PathPrefix", "value": "shop"});
        path[unknown] = json!("x");
        let reported = fields(Kind::HttpRoute, route(&rule_with_path(path)));
        let unknown = format!("spec.rules[0].matches[0].path.{unknown}");
        let expected = [&*unknown, "spec.rules[0].backendRefs[0].port", "spec.rules[0].matches[0].path"];
        assert_eq!(reported.iter().collect::<BTreeSet<_>>(), expected.map(str::to_owned).iter().collect(), "{unknown}");
    }
    // The CEL rule that requires `requestRedirect` is skipped, since the misspelled field is reported already.
    let redirect = json!({"filters": [{"type": "RequestRedirect", "requestRedirec": {}}]});
    assert_eq!(fields(Kind::HttpRoute, route(&redirect)), ["spec.rules[0].filters[0].requestRedirec"]);

    let backend = json!({"servic": {"name": "web", "port": {"number": 80}}});
    let entry = json!({"path": "shop", "pathTyp": "x", "pathType": "Prefix", "backend": backend});
    let ingress =
        object(Kind::Ingress, json!({"color": 1, "rules": [{"host": "1.2.3.4", "http": {"paths": [entry]}}]}));
    let path = "spec.rules[0].http.paths[0]";
    let expected = [
        "spec.color".to_owned(),
        format!("{path}.backend.servic"),
        format!("{path}.pathTyp"),
        "spec.rules[0].host".to_owned(),
        format!("{path}.path"),
    ];
    let reported = fields(Kind::Ingress, ingress);
    assert_eq!(reported.iter().collect::<BTreeSet<_>>(), expected.iter().collect(), "{reported:?}");
}

/// Arbitrary JSON with a preference for names and values of the schemas.
fn json_value() -> impl Strategy<Value = Value> {
    const NAMES: &[&str] = &["name", "type", "port", "value", "kind", "group", "namespace", "path", "labels", "status"];
    const TEXTS: &[&str] =
        &["", "/", "HTTP", "PathPrefix", "10.0.0.1", "10s", "a.b", "ä*", "1:1", "gateway.networking.k8s.io"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(TEXTS).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let name = || prop_oneof![4 => proptest::sample::select(NAMES).prop_map(str::to_owned), 1 => any::<String>()];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Extends `pointers` with the JSON pointers of a value (`pointer`) and of all values in it.
fn json_pointers(value: &Value, pointer: &str, pointers: &mut Vec<String>) {
    pointers.push(pointer.to_owned());
    match value {
        Value::Array(values) => {
            values
                .iter()
                .enumerate()
                .for_each(|(index, value)| json_pointers(value, &format!("{pointer}/{index}"), pointers));
        }
        Value::Object(map) => {
            map.iter().for_each(|(name, value)| {
                json_pointers(value, &format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")), pointers)
            });
        }
        _ => {}
    }
}

/// A valid object of any kind, in which one to three values are then replaced or removed.
fn mutated_objects() -> impl Strategy<Value = (Kind, Value)> {
    let mut objects = valid_objects();
    for (kind, body) in [
        (
            Kind::Service,
            json!({"spec": {"ports": [{"name": "a", "port": 80, "targetPort": "http"}], "selector": {"a": "b"}}}),
        ),
        (
            Kind::EndpointSlice,
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
        ),
        (
            Kind::Secret,
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "aGk=", "tls.key": "aGk="},
                "stringData": {"a": "b"}}),
        ),
        (Kind::ConfigMap, json!({"data": {"a": "b"}, "binaryData": {"c": "aGk="}})),
        (Kind::Namespace, json!({"spec": {"finalizers": ["kubernetes"]}})),
    ] {
        let mut object = body;
        let version = if kind.group().is_empty() { "v1".to_owned() } else { format!("{}/v1", kind.group()) };
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind.name());
        object["metadata"] = json!({"name": "web", "labels": {"a": "b"}, "annotations": {"c/d": "e"},
            "finalizers": ["a/b"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]});
        objects.push((kind, object));
    }
    let replacement = (any::<proptest::sample::Index>(), proptest::option::of(json_value()));
    (proptest::sample::select(objects), proptest::collection::vec(replacement, 1..4)).prop_map(
        |((kind, mut object), replacements)| {
            for (index, value) in replacements {
                let mut pointers = Vec::new();
                json_pointers(&object, "", &mut pointers);
                replace(&mut object, index.get::<String>(&pointers), value);
            }
            (kind, object)
        },
    )
}

/// Replaces or removes the value at a JSON pointer.
fn replace(object: &mut Value, pointer: &str, value: Option<Value>) {
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        *object = value.unwrap_or(Value::Null);
        return;
    };
    let last = last.replace("~1", "/").replace("~0", "~");
    match object.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            match value {
                Some(value) => map.insert(last, value),
                None => map.shift_remove(&last),
            };
        }
        Some(Value::Array(values)) => {
            let index: usize = last.parse().unwrap();
            match value {
                Some(value) => values[index] = value,
                None => drop(values.remove(index)),
            }
        }
        _ => unreachable!("a value has a pointer only in a mapping or a list"),
    }
}

proptest! {
    /// Violations of any object are limited in number and length, and each has a message and a remedy.
    #[test]
    fn violations_are_limited_and_have_remedies((kind, object) in mutated_objects(), experimental in any::<bool>()) {
        let channel = if experimental { Channel::Experimental } else { Channel::Standard };
        let mut object = object;
        let violations = check(kind, &mut object, channel);
        // The first 50, and one that says how many more there are.
        assert!(violations.len() <= 51);
        assert!(violations.iter().all(|it| !it.message.is_empty() && !it.remedy.is_empty()), "{violations:?}");
        assert!(violations.iter().all(|it| it.message.len() + it.remedy.len() < 2000), "{violations:?}");
        assert!(violations.iter().all(|it| !it.message.contains("cannot be evaluated")), "{violations:?}");
        // An object without violations deserializes: schema and types agree.
        if violations.is_empty() {
            parse(kind, object).unwrap();
        }
    }

    /// Validating twice gives the same result: defaults are valid, and are applied once.
    #[test]
    fn validation_is_idempotent((kind, object) in mutated_objects()) {
        let mut once = object;
        let first = check(kind, &mut once, Channel::Experimental);
        let mut twice = once.clone();
        assert_eq!(check(kind, &mut twice, Channel::Experimental), first);
        assert_eq!(twice, once);
    }

    /// No value of a Secret is ever quoted.
    #[test]
    fn secret_values_are_never_quoted(text in "[a-z]{12}", number in 100_000_000_000_i64..999_999_999_999,
        case in 0..5) {
        let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"},
            "type": "kubernetes.io/tls",
            "data": {"k": format!("!{text}")}, "stringData": {"k": number}});
        match case {
            0 => object["data"] = json!(text),
            1 => object["stringData"] = json!([text, number]),
            2 => object["data"]["k"] = json!({"x": text}),
            3 => object["type"] = json!(number),
            _ => {}
        }
        let lines = lines(Kind::Secret, &mut object, Channel::Standard);
        assert!(!lines.is_empty());
        assert!(lines.iter().all(|line| !line.contains(&text) && !line.contains(&number.to_string())), "{lines:?}");
    }
}
