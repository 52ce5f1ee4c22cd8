//! Which hosts are converted, what stands in the way of others, and the manifests.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::api::core::Service;
use crate::api::ingress_nginx::PREFIX;
use crate::api::{Kind, ObjectKey};
use crate::report::migration::{MigratedIngress, MigrationVerdict};
use crate::store::AnyObject;

/// An Ingress of namespace `shop` for one host; each path follows its type, and its Service is `web`.
fn ingress(name: &str, host: &str, paths: &[&str], annotations: &[(&str, &str)]) -> Arc<Object<Ingress>> {
    with_spec(("shop", name), host, paths, annotations, &json!({}))
}

fn with_spec(
    (namespace, name): (&str, &str),
    host: &str,
    paths: &[&str],
    annotations: &[(&str, &str)],
    spec: &Value,
) -> Arc<Object<Ingress>> {
    let full = |key: &str| if key.contains('/') { key.to_owned() } else { format!("{PREFIX}{key}") };
    let annotations: BTreeMap<String, &str> = annotations.iter().map(|(key, value)| (full(key), *value)).collect();
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let paths: Vec<Value> = paths
        .iter()
        .map(|path| {
            let (path_type, path) = path.split_once(' ').unwrap();
            json!({"path": path, "pathType": path_type, "backend": backend})
        })
        .collect();
    let mut all = json!({"rules": [{"host": host, "http": {"paths": paths}}]});
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    let metadata = json!({"namespace": namespace, "name": name, "annotations": annotations});
    let object = AnyObject::parse(Kind::Ingress, json!({"metadata": metadata, "spec": all})).unwrap();
    let AnyObject::Ingress(ingress) = object else { panic!("not an Ingress") };
    ingress
}

fn service(key: &ObjectKey, port: &Value) -> Option<Arc<Object<Service>>> {
    let metadata = json!({"namespace": *key.namespace, "name": *key.name});
    let object = AnyObject::parse(Kind::Service, json!({"metadata": metadata, "spec": {"ports": [port]}})).unwrap();
    let AnyObject::Service(service) = object else { panic!("not a Service") };
    (*key.name == *"web").then_some(service)
}

fn converted_with(
    ingresses: &[Arc<Object<Ingress>>],
    config: &[(&str, &str)],
    verdict: MigrationVerdict,
    port: &Value,
) -> GatewayApiOutput {
    let migrated = |ingress: &Arc<Object<Ingress>>| MigratedIngress {
        object: ingress.meta.key.to_string(),
        verdict,
        ..MigratedIngress::default()
    };
    let verdicts: Vec<MigratedIngress> = ingresses.iter().map(migrated).collect();
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), Arc::from(*value))).collect();
    convert(&GatewayApiInput {
        ingresses,
        verdicts: &verdicts,
        config: &config,
        of_others: BTreeMap::from([("other.example".to_owned(), "shop/other-class".to_owned())]),
        with_policies: BTreeSet::from(["policies".to_owned()]),
        routes: BTreeSet::from(["shop/taken.example-https".to_owned()]),
        has_default_backend: false,
        service: &|key| service(key, port),
    })
}

fn converted(ingresses: &[Arc<Object<Ingress>>]) -> GatewayApiOutput {
    converted_with(ingresses, &[], MigrationVerdict::Same, &json!({"name": "http", "port": 80}))
}

/// The fields that stand in the way, without repetitions; none if all is converted.
fn fields(output: &GatewayApiOutput) -> Vec<&str> {
    assert_eq!(output.objects.is_empty(), output.rows.iter().all(|row| !row.converted), "{output:?}");
    let mut fields: Vec<&str> = Vec::new();
    for row in output.rows.iter().filter(|row| !row.converted) {
        assert!(row.request.starts_with("GET http") && !row.reason.is_empty() && !row.remedy.is_empty(), "{row:?}");
        if !fields.contains(&row.field.as_str()) {
            fields.push(&row.field);
        }
    }
    fields
}

#[test]
fn only_annotations_with_an_equal_are_converted() {
    for (key, value, is_converted) in [
        ("ssl-redirect", "false", true),
        ("ssl-redirect", "on", false),
        ("proxy-body-size", "8m", true),
        ("proxy-body-size", "8mb", false),
        ("proxy-read-timeout", "60", true),
        ("proxy-read-timeout", "3600", false),
        ("proxy-connect-timeout", "5", true),
        ("proxy-connect-timeout", "60", false),
        ("rewrite-target", "/", false),
        ("rewrite-target", "", true),
        ("use-regex", "false", false),
        ("whitelist-source-range", "192.0.2.0/24", false),
        ("auth-type", "basic", false),
        ("enable-cors", "true", false),
        ("canary", "true", false),
        ("server-snippet", "deny all;", false),
        ("permanent-redirect", "https://a.example", false),
        ("backend-protocol", "HTTPS", false),
        ("not-known", "x", false),
        ("konghq.com/plugins", "limit", false),
        ("traefik.ingress.kubernetes.io/router.middlewares", "x", false),
        ("cert-manager.io/cluster-issuer", "x", true),
        ("kubernetes.io/ingress.class", "nginx", true),
    ] {
        let output = converted(&[ingress("web", "a.example", &["Prefix /"], &[(key, value)])]);
        let field = if key.contains('/') { key.to_owned() } else { format!("{PREFIX}{key}") };
        let expected = if is_converted { Vec::new() } else { vec![format!("metadata.annotations[{field}]")] };
        assert_eq!(fields(&output), expected, "{key}: {value}");
    }
}

#[test]
fn only_paths_that_both_match_in_the_same_way_are_converted() {
    for (path, is_converted) in [
        ("Prefix /", true),
        ("Exact /", true),
        ("Prefix /a-b/c_d.e~f", true),
        ("ImplementationSpecific /a", true),
        ("Exact /a", true),
        ("Prefix /a/", false),
        ("Exact /a/", false),
        ("Prefix /a//b", false),
        ("Prefix //", false),
        ("Prefix /a/../b", false),
        ("Prefix /a%20b", false),
        ("Prefix /a(b)", false),
        ("Prefix /é", false),
        ("Exact /.well-known/acme-challenge/x", false),
    ] {
        let output = converted(&[ingress("web", "a.example", &[path], &[])]);
        let (_, text) = path.split_once(' ').unwrap();
        let expected = if is_converted { Vec::new() } else { vec![format!("path {text:?}")] };
        assert_eq!(fields(&output), expected, "{path}");
    }
}

#[test]
fn only_hosts_of_one_namespace_and_class_are_converted() {
    for (host, expected) in [
        ("a.example", None),
        ("A.Example", None),
        ("*.a.example", Some("spec.rules[].host")),
        ("", Some("spec.rules[].host")),
        ("192.0.2.1", Some("spec.rules[].host")),
        ("taken.example", Some("spec.rules[].host")),
        ("other.example", Some("spec.rules[].host")),
    ] {
        let output = converted(&[ingress("web", host, &["Prefix /"], &[])]);
        assert_eq!(fields(&output), Vec::from_iter(expected), "{host:?}");
    }
    let own = || ingress("web", "a.example", &["Prefix /"], &[]);
    let elsewhere = with_spec(("blog", "web"), "a.example", &["Prefix /b"], &[], &json!({}));
    assert_eq!(fields(&converted(&[own(), elsewhere])), ["metadata.namespace"]);
    assert_eq!(fields(&converted(&[own(), ingress("twin", "a.example", &["Prefix /"], &[])])), ["spec.rules"]);
    let beside_policy = with_spec(("policies", "web"), "a.example", &["Prefix /"], &[], &json!({}));
    assert_eq!(fields(&converted(&[beside_policy])), ["metadata.namespace"]);
    let wildcard = ingress("wildcard", "*.example", &["Prefix /"], &[]);
    assert_eq!(fields(&converted(&[own(), wildcard])), ["spec.rules[].host"]);
    let without_rules = with_spec(("shop", "all"), "", &[], &[], &json!({"rules": []}));
    assert_eq!(fields(&converted(&[without_rules])), ["spec.rules"]);
    let with_default = json!({"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}});
    let with_default = with_spec(("shop", "web"), "a.example", &["Prefix /a"], &[], &with_default);
    assert_eq!(fields(&converted(&[with_default])), ["spec.defaultBackend"]);
}

/// A guard of one Ingress would not apply to the paths that it shares with others.
#[test]
fn one_ingress_keeps_all_of_its_hosts_back() {
    let guarded = ingress("guarded", "a.example", &["Prefix /a"], &[("auth-type", "basic")]);
    let open = ingress("open", "a.example", &["Prefix /"], &[]);
    let other = ingress("other", "b.example", &["Prefix /"], &[]);
    let output = converted(&[guarded, open, other]);
    let rows: Vec<(&str, bool, &str)> =
        output.rows.iter().map(|row| (row.object.as_str(), row.converted, row.reason.as_str())).collect();
    let reason = "Ingress shop/guarded has paths of the same host and is not converted";
    assert_eq!(rows[0], ("shop/guarded", false, "it has no equal in the Gateway API"));
    assert_eq!(rows[1..], [("shop/open", false, reason), ("shop/other", true, "")]);
    let hosts = output.objects.iter().filter_map(|object| object["spec"]["hostnames"][0].as_str());
    assert_eq!(hosts.collect::<Vec<_>>(), ["b.example"]);
}

#[test]
fn verdicts_settings_and_services_stand_in_the_way() {
    let web = [ingress("web", "a.example", &["Prefix /"], &[])];
    let port = json!({"port": 80});
    for verdict in [MigrationVerdict::Differs, MigrationVerdict::LeftOut, MigrationVerdict::Invalid] {
        assert_eq!(fields(&converted_with(&web, &[], verdict, &port)), ["verdict"]);
    }
    for (key, value, is_converted) in [
        ("worker-processes", "4", true),
        ("proxy-body-size", "8m", true),
        ("proxy-body-size", "8mb", false),
        ("use-forwarded-headers", "true", false),
        ("global-auth-url", "http://a.example", false),
    ] {
        let output = converted_with(&web, &[(key, value)], MigrationVerdict::Same, &port);
        let expected = if is_converted { Vec::new() } else { vec![format!("ConfigMap, {key}")] };
        assert_eq!(fields(&output), expected, "{key}");
    }
    for (port, is_converted) in [
        (json!({"port": 80, "appProtocol": "http"}), true),
        (json!({"port": 80, "appProtocol": "kubernetes.io/h2c"}), false),
        (json!({"port": 81}), false),
        (json!({"port": 80, "protocol": "UDP"}), false),
    ] {
        let output = converted_with(&web, &[], MigrationVerdict::Same, &port);
        let expected: &[&str] = if is_converted { &[] } else { &["backend of path \"/\""] };
        assert_eq!(fields(&output), expected, "{port}");
    }
}

#[test]
fn certificates_are_those_of_one_secret() {
    let tls = |hosts: Value, secret: Value| json!({"tls": [{"hosts": hosts, "secretName": secret}]});
    let with = |name: &str, path: &str, spec: Value| with_spec(("shop", name), "a.example", &[path], &[], &spec);
    let own = || with("web", "Prefix /", tls(json!(["a.example"]), json!("one")));
    let output = converted(&[own()]);
    assert_eq!(fields(&output), [] as [&str; 0]);
    let kinds: Vec<&str> = output.objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Gateway", "KongPlugin", "HTTPRoute", "HTTPRoute"]);
    assert!(output.notes[0].ends_with("shop/one"), "{:?}", output.notes);
    let redirect = &output.objects[2]["spec"]["rules"][0]["filters"][0]["requestRedirect"];
    assert_eq!(*redirect, json!({"scheme": "https", "statusCode": 308}));
    let header = &output.objects[3]["spec"]["rules"][0]["filters"][2]["responseHeaderModifier"]["set"][0];
    assert_eq!(header["value"], "max-age=31536000; includeSubDomains");

    for other in [
        with("other", "Prefix /b", tls(json!(["a.example"]), json!("two"))),
        with_spec(("shop", "other"), "b.example", &["Prefix /"], &[], &tls(json!(["a.example"]), json!("two"))),
    ] {
        assert!(fields(&converted(&[own(), other])).contains(&"spec.tls"));
    }
    for spec in
        [tls(json!(["b.example"]), json!("one")), json!({"tls": [{}]}), json!({"tls": [{"hosts": ["a.example"]}]})]
    {
        assert_eq!(fields(&converted(&[with("web", "Prefix /", spec)])), ["spec.tls"]);
    }
    let plain = with_spec(("shop", "plain"), "a.example", &["Prefix /b"], &[("ssl-redirect", "false")], &json!({}));
    assert_eq!(fields(&converted(&[own(), plain])), ["ssl-redirect"]);
}

#[test]
fn a_gateway_has_at_most_64_listeners() {
    let all: Vec<_> = (0..70)
        .map(|index| {
            let host = format!("h{index}.example");
            let spec = json!({"tls": [{"hosts": [host], "secretName": "one"}]});
            with_spec(("shop", &format!("i{index}")), &host, &["Prefix /"], &[], &spec)
        })
        .collect();
    let output = converted(&all);
    assert_eq!(output.objects[0]["spec"]["listeners"].as_array().unwrap().len(), 64);
    assert_eq!(output.rows.iter().filter(|row| !row.converted).count(), 7);
    assert_eq!(fields(&output), ["spec.tls"]);
}

/// Routes of 16 rules each, and certificates of other namespaces than that of the Gateway.
#[test]
fn large_hosts_and_several_namespaces_have_more_objects() {
    let paths: Vec<String> = (0..20).map(|index| format!("Prefix /p{index}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let tls = json!({"tls": [{"hosts": ["b.example"], "secretName": "one"}]});
    let unlimited = [("proxy-body-size", "0")];
    let output = converted(&[
        ingress("web", "a.example", &paths, &unlimited),
        with_spec(("blog", "web"), "b.example", &["Prefix /"], &unlimited, &tls),
    ]);
    let names: Vec<String> = output
        .objects
        .iter()
        .map(|object| {
            let metadata = &object["metadata"];
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            [text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"])].join(" ")
        })
        .collect();
    let expected = [
        "Gateway default ingress-nginx",
        "ReferenceGrant blog ingress-nginx-certificates",
        "HTTPRoute blog b.example-http",
        "HTTPRoute blog b.example-https",
        "HTTPRoute shop a.example-http",
        "HTTPRoute shop a.example-http-2",
    ];
    assert_eq!(names, expected);
    let rules: Vec<usize> =
        [4, 5].map(|index: usize| output.objects[index]["spec"]["rules"].as_array().unwrap().len()).to_vec();
    assert_eq!(rules, [16, 4]);
}

#[test]
fn each_difference_has_one_example_for_all_hosts() {
    let output = converted(&[
        ingress("web", "a.example", &["Prefix /"], &[]),
        ingress("more", "b.example", &["Prefix /api", "Exact /"], &[]),
    ]);
    let requests: Vec<&str> = output.differences.iter().map(|difference| difference.request.as_str()).collect();
    assert!(requests.contains(&"GET http://a.example/a/../b"), "{requests:#?}");
    assert!(requests.contains(&"GET http://b.example//api"), "{requests:#?}");
    assert!(!requests.iter().any(|request| request.contains("https://a.example/ on")), "{requests:#?}");
    assert!(converted(&[]).differences.is_empty());
}
