//! Validation of core objects, and their defaults.

use serde_json::json;

use super::*;
use crate::schema::{Channel, check};

/// Adds `apiVersion`, `kind` and `metadata`, validates, and returns the object and each violation as `field: message;
/// remedy`.
fn validate(kind: Kind, mut object: Value) -> (Value, Vec<String>) {
    let version =
        if kind.group().is_empty() { "v1".to_owned() } else { format!("{}/{}", kind.group(), kind.versions()[0]) };
    object["apiVersion"] = json!(version);
    object["kind"] = json!(kind.name());
    object["metadata"] = json!({"name": "web"});
    let violations = check(kind, &mut object, Channel::Standard);
    (object, violations.into_iter().map(|it| format!("{}: {}; {}", it.field, it.message, it.remedy)).collect())
}

fn assert_rejected(kind: Kind, cases: impl IntoIterator<Item = (Value, &'static str)>) {
    for (object, expected) in cases {
        assert_eq!(validate(kind, object.clone()).1, [expected], "{object}");
    }
}

fn assert_accepted(kind: Kind, objects: impl IntoIterator<Item = Value>) {
    for object in objects {
        assert_eq!(validate(kind, object.clone()).1, Vec::<String>::new(), "{object}");
    }
}

#[test]
fn service_defaults() {
    let (object, lines) = validate(
        Kind::Service,
        json!({"spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "http", "protocol": "UDP"}]}}),
    );
    // Both ports lack a name; the defaults are applied nevertheless.
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(
        object["spec"],
        json!({"type": "ClusterIP", "sessionAffinity": "None", "ports": [
            {"port": 80, "protocol": "TCP", "targetPort": 80},
            {"port": 81, "protocol": "UDP", "targetPort": "http"}]})
    );
}

#[test]
fn valid_services_pass() {
    assert_accepted(
        Kind::Service,
        [
            json!({"spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080,
                "appProtocol": "kubernetes.io/h2c"}]}}),
            json!({"spec": {"clusterIP": "None"}}),
            json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 53, "name": "a"}, {"port": 53, "name": "b",
                "protocol": "UDP"}]}}),
            json!({"spec": {"type": "ExternalName", "externalName": "example.com."}}),
            json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080}],
                "externalTrafficPolicy": "Local"},
                "status": {"loadBalancer": {}}}),
        ],
    );
}

#[test]
fn service_violations() {
    assert_rejected(
        Kind::Service,
        [
            (json!({}), "spec: is missing; add `spec`, a mapping"),
            (
                json!({"spec": {"prots": [], "ports": [{"port": 80}]}}),
                "spec.prots: unknown field `prots`; did you mean `ports`?",
            ),
            (
                json!({"spec": {}}),
                "spec.ports: is missing; add at least one port; only a headless Service (`clusterIP: None`) may \
                    have none",
            ),
            (
                json!({"spec": {"ports": [{"port": "80"}]}}),
                r#"spec.ports[0].port: is the string "80", must be an integer; write it without quotes: `port: 80`"#,
            ),
            (
                json!({"spec": {"ports": [{"port": 0}]}}),
                "spec.ports[0].port: is 0, the least allowed is 1; use a number from 1 to 65535",
            ),
            (
                json!({"spec": {"ports": [{"port": 65536, "targetPort": 1}]}}),
                "spec.ports[0].port: is 65536, the greatest allowed is 65535; use a number from 1 to 65535",
            ),
            (
                json!({"spec": {"ports": [{"port": 80, "protocol": "tcp"}]}}),
                "spec.ports[0].protocol: \"tcp\" is not allowed here; did you mean `TCP`? Allowed are `SCTP`, \
                    `TCP`, `UDP`",
            ),
            (
                json!({"spec": {"ports": [{"port": 80, "targetPort": 70000}]}}),
                "spec.ports[0].targetPort: is 70000, which is not a valid port; use a number from 1 to 65535",
            ),
            (
                json!({"spec": {"ports": [{"port": 80, "targetPort": "80"}]}}),
                "spec.ports[0].targetPort: \"80\" is not the name of a container's port; use at most 15 lower-case \
                    letters, digits and `-`, with at least one letter, no `-` at an end and no `--`, for example \
                    `http-alt`",
            ),
            (
                json!({"spec": {"ports": [{"port": 80, "name": "HTTP"}]}}),
                "spec.ports[0].name: \"HTTP\" is not the name of a port; use at most 63 lower-case letters, digits \
                    and `-`, starting and ending with a letter or digit, for example `web-1`",
            ),
            (
                json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81}]}}),
                "spec.ports[1].name: is missing; each port needs a name when there are several, for example \
                    `name: http`",
            ),
            (
                json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}}),
                r#"spec.ports[1].name: duplicate value: "a"; spec.ports[0] has the same name; change one"#,
            ),
            (
                json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}}),
                "spec.ports[1]: duplicate value: port 80 of TCP; spec.ports[0] has the same number and protocol; \
                    change one or remove it",
            ),
            (
                json!({"spec": {"ports": [{"port": 80}], "type": "Nodeport"}}),
                "spec.type: \"Nodeport\" is not allowed here; did you mean `NodePort`? Allowed are `ClusterIP`, \
                    `ExternalName`, `LoadBalancer`, `NodePort`",
            ),
            (
                json!({"spec": {"type": "ExternalName"}}),
                "spec.externalName: is missing; a Service of type ExternalName needs the DNS name it stands for",
            ),
            (
                json!({"spec": {"type": "ExternalName", "externalName": "https://example.com"}}),
                "spec.externalName: \"https://example.com\" is not a DNS name; use at most 253 lower-case letters, \
                    digits, `-` and `.`, each part between dots starting and ending with a letter or digit, for \
                    example `web.example.com`",
            ),
            (
                json!({"spec": {"clusterIP": "none", "ports": [{"port": 80}]}}),
                "spec.clusterIP: \"none\" is not an address; write `None` for a headless Service, or leave it out \
                    to have an address assigned",
            ),
            (
                json!({"spec": {"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.0.0.1"}}),
                "spec.clusterIP: is set on a Service of type ExternalName; remove it, or change the type",
            ),
            (
                json!({"spec": {"ports": [{"port": 80, "appProtocol": "h2c!"}]}}),
                "spec.ports[0].appProtocol: \"h2c!\" is not an application protocol; use at most 63 letters, \
                    digits, `-`, `_` and `.`, starting and ending with a letter or digit, after an optional DNS \
                    name and `/`, for example `example.com/app`",
            ),
        ],
    );
}

#[test]
fn endpoint_slice_addresses_match_their_type() {
    assert_accepted(
        Kind::EndpointSlice,
        [
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1", "10.0.0.1"],
                "conditions": {"ready": true}}],
                "ports": [{"port": 80}, {"port": 81, "name": "b"}]}),
            json!({"addressType": "IPv6", "endpoints": [{"addresses": ["::1"]}]}),
            json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.example.com."]}]}),
            json!({"addressType": "IPv4"}),
            json!({"addressType": "IPv4", "endpoints": null, "ports": null}),
        ],
    );
    assert_rejected(
        Kind::EndpointSlice,
        [
            (json!({"endpoints": []}), "addressType: is missing; add `addressType`: one of `FQDN`, `IPv4`, `IPv6`"),
            (
                json!({"addressType": "ipv4"}),
                r#"addressType: "ipv4" is not allowed here; did you mean `IPv4`? Allowed are `FQDN`, `IPv4`, `IPv6`"#,
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["::1"]}]}),
                "endpoints[0].addresses[0]: \"::1\" is not an IPv4 address; move it to an EndpointSlice of \
                    `addressType: IPv6`, or change `addressType`",
            ),
            (
                json!({"addressType": "IPv6", "endpoints": [{"addresses": ["web"]}]}),
                r#"endpoints[0].addresses[0]: "web" is not an IPv6 address; write one, for example `2001:db8::1`"#,
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.256"]}]}),
                r#"endpoints[0].addresses[0]: "10.0.0.256" is not an IPv4 address; write one, for example `192.0.2.1`"#,
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1:80"]}]}),
                "endpoints[0].addresses[0]: \"10.0.0.1:80\" is not an IPv4 address; remove the port: it belongs \
                    under `ports`",
            ),
            (
                json!({"addressType": "FQDN", "endpoints": [{"addresses": ["10.0.0.1"]}]}),
                "endpoints[0].addresses[0]: \"10.0.0.1\" is not a full DNS name; move it to an EndpointSlice of \
                    `addressType: IPv4`, or change `addressType`",
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": []}]}),
                "endpoints[0].addresses: has 0 items, at least 1 is needed; add 1 item",
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{}]}),
                "endpoints[0].addresses: is missing; add `addresses`, a list",
            ),
            (
                json!({"addressType": "IPv4", "endpoints": vec![json!({"addresses": ["10.0.0.1"]}); 1001]}),
                "endpoints: has 1001 items, at most 1000 are allowed; remove 1, or divide them among several objects",
            ),
            (
                json!({"addressType": "IPv4", "ports": (0..101).map(|n| json!({"port": 80,
                    "name": format!("p{n}")})).collect::<Vec<_>>()}),
                "ports: has 101 items, at most 100 are allowed; remove 1, or divide them among several objects",
            ),
            (
                json!({"addressType": "IPv4", "ports": [{"port": 80}, {"port": 81}]}),
                r#"ports[1].name: duplicate value: ""; ports[0] has the same name; change one"#,
            ),
        ],
    );
    let (object, _) = validate(Kind::EndpointSlice, json!({"addressType": "IPv4", "ports": [{"port": 80}]}));
    assert_eq!(object["ports"], json!([{"port": 80, "name": "", "protocol": "TCP"}]));
}

#[test]
fn secrets_and_config_maps_check_keys_and_size() {
    assert_accepted(
        Kind::Secret,
        [
            json!({"data": {"a": "aGk=", "b": ""}}),
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "aGk="}, "stringData": {"tls.key": "x"}}),
            json!({"type": "example.com/mine", "stringData": {"a": "ä"}}),
            // Exactly the limit: base64 of 1 MiB.
            json!({"data": {"a": format!("{}AA==", "AAAA".repeat(349_525))}}),
        ],
    );
    let tls = "kubernetes.io/tls";
    assert_rejected(
        Kind::Secret,
        [
            (
                json!({"data": {"a": "hunter2!"}}),
                "data[a]: the value is not base64; encode it as base64; a Secret takes plain text under `stringData`",
            ),
            (
                json!({"data": {"a": 1234}}),
                "data[a]: is a number, must be a string; put what is written there in quotes",
            ),
            (
                json!({"stringData": {"pin": true}}),
                "stringData[pin]: is a boolean, must be a string; put what is written there in quotes",
            ),
            (
                json!({"type": tls, "data": {"tls.crt": ""}}),
                "data[tls.key]: is missing; a Secret of type kubernetes.io/tls needs `tls.key` under `data` or \
                    `stringData`",
            ),
            (json!({"stringdata": {}}), "stringdata: unknown field `stringdata`; did you mean `stringData`?"),
            (
                json!({"data": {"a/b": ""}}),
                "data[a/b]: is not a valid data key; use at most 253 letters, digits, `-`, `_` and `.`, not \
                    starting with `..`, for example `tls.crt`",
            ),
            (
                json!({"type": "kubernetes.io/basic-auth"}),
                "data[username]: is missing; a Secret of type kubernetes.io/basic-auth needs `username` or `password`",
            ),
            (
                json!({"data": {"a": format!("{}AAA=", "AAAA".repeat(349_525))}}),
                "data: holds 1048577 bytes, at most 1048576 are allowed; divide it among several objects",
            ),
        ],
    );
    assert_accepted(Kind::ConfigMap, [json!({"data": {"ca.crt": "x"}, "binaryData": {"b": "aGk="}}), json!({})]);
    assert_rejected(
        Kind::ConfigMap,
        [
            (
                json!({"data": {"a": "x"}, "binaryData": {"a": "aGk="}}),
                "binaryData[a]: is also a key of `data`; remove one of the two",
            ),
            (
                json!({"data": {"a": {"b": 1}}}),
                "data[a]: is a mapping, must be a string; write a string, for example `text`",
            ),
            (
                json!({"binaryData": {"a": "?"}}),
                "binaryData[a]: \"?\" is not base64; encode it as base64; a Secret takes plain text under \
                    `stringData`",
            ),
            (
                json!({"data": {"a": "x".repeat(1_048_577)}}),
                "data: holds 1048577 bytes, at most 1048576 are allowed; divide it among several objects",
            ),
        ],
    );
    assert_eq!(validate(Kind::Secret, json!({})).0["type"], "Opaque");
}

#[test]
fn trust_bundles_are_named_after_their_signer() {
    let violations = |name: &str, spec: Value| {
        let mut object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle",
            "metadata": {"name": name}, "spec": spec});
        let violations = check(Kind::ClusterTrustBundle, &mut object, Channel::Standard);
        violations.into_iter().map(|it| format!("{}: {}; {}", it.field, it.message, it.remedy)).collect::<Vec<_>>()
    };
    for (name, signer) in [("roots", None), ("example.com:a.b:roots", Some("example.com/a.b"))] {
        let mut spec = json!({"trustBundle": "x"});
        if let Some(signer) = signer {
            spec["signerName"] = json!(signer);
        }
        assert_eq!(violations(name, spec), [""; 0], "{name}");
    }
    for (name, spec, expected) in [
        (
            "example.com:a:roots",
            json!({"trustBundle": "x"}),
            "metadata.name: has the prefix of a signer; remove the prefix, or write the signer under `spec.signerName`",
        ),
        (
            "roots",
            json!({"trustBundle": "x", "signerName": "example.com/a"}),
            "metadata.name: lacks the prefix of its signer; use `example.com:a:NAME`",
        ),
        (
            "example.com:a:b:roots",
            json!({"trustBundle": "x", "signerName": "example.com/a"}),
            "metadata.name: lacks the prefix of its signer; use `example.com:a:NAME`",
        ),
        (
            "roots",
            json!({"trustBundle": "x".repeat(1_048_577)}),
            "spec.trustBundle: holds 1048577 bytes, at most 1048576 are allowed; divide it among several objects",
        ),
        ("roots", json!({}), "spec.trustBundle: is missing; add `trustBundle`, a string"),
    ] {
        assert_eq!(violations(name, spec), [expected], "{name}");
    }
    assert_eq!(violations("Roots:", json!({"trustBundle": "x"})).len(), 2, "grammar and prefix");
}

#[test]
fn namespaces_get_their_name_label() {
    for labels in [json!(null), json!({"a": "b"}), json!({"kubernetes.io/metadata.name": "wrong"})] {
        let mut object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web", "labels": labels}});
        assert_eq!(check(Kind::Namespace, &mut object, Channel::Standard), []);
        assert_eq!(object["metadata"]["labels"]["kubernetes.io/metadata.name"], "web");
    }
}

#[test]
fn defaults_are_not_taken_from_invalid_values() {
    let metadata = json!({"name": "web"});
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"ports": [{"port": 65536}]}});
    assert_eq!(check(Kind::Service, &mut service, Channel::Standard).len(), 1);
    assert_eq!(service["spec"]["ports"][0]["targetPort"], Value::Null);

    let mut namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "Web"}});
    assert_eq!(check(Kind::Namespace, &mut namespace, Channel::Standard).len(), 1);
    assert_eq!(namespace["metadata"], json!({"name": "Web"}));
}

#[test]
fn null_in_a_string_map_is_the_empty_string() {
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"b": null},
        "annotations": null},
        "data": {"c": null}, "binaryData": {"d": null}});
    assert_eq!(check(Kind::ConfigMap, &mut object, Channel::Standard), []);
    assert_eq!(object["metadata"], json!({"name": "a", "labels": {"b": ""}}));
    assert_eq!((&object["data"], &object["binaryData"]), (&json!({"c": ""}), &json!({"d": ""})));
}
