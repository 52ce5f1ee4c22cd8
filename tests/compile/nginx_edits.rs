//! Edits of Ingresses of the dialect `nginx`, which decide together how a host is served. After each step of random
//! sequences, the result is compared with a compilation from scratch.

use portico::api::{Kind, ObjectKey};
use portico::compile::HostOwnership;
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::store::{AnyObject, Batch};
use serde_json::{Value, json};

use super::case::CompilerHarness;
use super::edits::{EDITS, SEEDS, apply_and_compare, parse, pick, put_or_remove};

#[test]
fn random_edits_of_shared_hosts_match_full_compile() {
    let (mut closed_states, mut passing_states) = (0, 0);
    for seed in SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut harness =
            CompilerHarness::new(AddressProvider::Pool(GatewayAddressPool::loopback(vec![])), AddressState::default());
        if seed % 2 == 1 {
            harness.inputs.ingress.host_ownership = HostOwnership::Namespace;
        }
        harness.inputs.ingress.nginx_ssl_passthrough = true;
        harness.inputs.ingress.nginx_config_map = Some(ObjectKey::new("system", "nginx"));
        let metadata = json!({"name": "portico", "annotations": {"portico.dev/dialect": "nginx"}});
        let class = json!({"metadata": metadata, "spec": {"controller": "portico.dev/ingress-controller"}});
        harness.apply(Batch { upserts: vec![parse(Kind::IngressClass, class)], removes: vec![] });
        for step in 0..EDITS {
            let object = match random.u8(..10) {
                0 => config_map(&mut random),
                1 => referenced(&mut random),
                _ => ingress(&mut random),
            };
            let batch = put_or_remove(&mut random, object);
            let (_, state) = apply_and_compare(&mut harness, batch, (seed, step));
            closed_states += usize::from(state.contains("restricts all requests for"));
            passing_states += usize::from(state.contains("Passthrough"));
        }
    }
    assert!(closed_states > 20, "too few states with a closed host: {closed_states}");
    assert!(passing_states > 20, "too few states with a host that passes through: {passing_states}");
}

fn config_map(random: &mut fastrand::Rng) -> AnyObject {
    let data = match random.u8(..6) {
        2.. => json!({
            "allow-snippet-annotations": "true",
            "annotations-risk-level": "Critical",
            "global-allowed-response-headers": "X-A",
        }),
        0 => json!({"ssl-redirect": "false"}),
        1 => json!({"whitelist-source-range": "office"}),
    };
    parse(Kind::ConfigMap, json!({"metadata": {"namespace": "system", "name": "nginx"}, "data": data}))
}

/// What annotations name.
fn referenced(random: &mut fastrand::Rng) -> AnyObject {
    let namespace = pick(random, &["a", "b"]);
    match random.u8(..4) {
        3 => {
            let data = if random.bool() { json!({"ca.crt": AUTHORITY}) } else { json!({"other": ""}) };
            parse(Kind::Secret, json!({"metadata": {"namespace": namespace, "name": "ca"}, "stringData": data}))
        }
        0 => {
            let data = if random.bool() { json!({"auth": "anna:{PLAIN}a"}) } else { json!({"other": ""}) };
            parse(Kind::Secret, json!({"metadata": {"namespace": namespace, "name": "users"}, "stringData": data}))
        }
        1 => {
            let data = json!({(pick(random, &["X-A", "X-B"])): "a"});
            parse(Kind::ConfigMap, json!({"metadata": {"namespace": namespace, "name": "headers"}, "data": data}))
        }
        _ => {
            let metadata = json!({"namespace": namespace, "name": pick(random, &["s", "t"])});
            parse(Kind::Service, json!({"metadata": metadata, "spec": {"ports": [{"port": 80}]}}))
        }
    }
}

fn ingress(random: &mut fastrand::Rng) -> AnyObject {
    let mut annotations = json!({});
    for annotation in [
        ("use-regex", "true"),
        ("rewrite-target", "/$1"),
        ("canary", "true"),
        ("app-root", "/start"),
        ("auth-tls-secret", "a/ca"),
        ("auth-tls-verify-client", "optional"),
        ("proxy-ssl-secret", "a/ca"),
        ("default-backend", "t"),
        ("custom-http-errors", "404"),
        ("upstream-hash-by", "$host"),
        ("server-snippet", "include /etc/nginx/a; deny all;"),
        ("server-snippet", "deny all;"),
        ("server-snippet", "set $key a; location = /a { return 200; }"),
        ("configuration-snippet", "if ($http_x = $key) { return 403; }"),
        ("configuration-snippet", "add_header X-A b;"),
        ("auth-type", "basic"),
        ("auth-secret", "users"),
        ("custom-headers", "a/headers"),
        ("limit-rps", "5"),
        ("affinity", "cookie"),
        ("from-to-www-redirect", "true"),
        ("server-alias", "www.x.example,z.example"),
        ("server-alias", ".z.example,y.example"),
        ("ssl-redirect", "false"),
        ("ssl-passthrough", "true"),
        ("ssl-ciphers", "ECDHE+AESGCM"),
    ] {
        if random.u8(..6) == 0 {
            annotations[format!("nginx.ingress.kubernetes.io/{}", annotation.0)] = json!(annotation.1);
        }
    }
    let metadata = json!({
        "namespace": pick(random, &["a", "b"]),
        "name": pick(random, &["i", "j", "k"]),
        "creationTimestamp": format!("2026-01-0{}T00:00:00Z", random.u8(1..4)),
        "annotations": annotations,
    });
    let service = pick(random, &["s", "t"]);
    let backend = || json!({"service": {"name": service, "port": {"number": 80}}});
    let rule = |random: &mut fastrand::Rng| -> Value {
        let path = |random: &mut fastrand::Rng| {
            let (path, path_type) =
                (pick(random, &["/", "/a", "/a/", "/a(b", "/(.*)"]), pick(random, &["Exact", "Prefix"]));
            json!({"path": path, "pathType": path_type, "backend": backend()})
        };
        let paths: Vec<Value> = (0..random.usize(..3)).map(|_| path(random)).collect();
        let host = pick(random, &["x.example", "y.example", "www.x.example", "*.example", ""]);
        json!({"host": host, "http": {"paths": paths}})
    };
    let rules: Vec<Value> = (0..random.usize(..3)).map(|_| rule(random)).collect();
    let mut spec = json!({"ingressClassName": "portico", "rules": rules});
    if random.u8(..3) == 0 {
        spec["tls"] = json!([{"hosts": ["x.example"]}]);
    }
    if random.u8(..3) == 0 {
        spec["defaultBackend"] = backend();
    }
    parse(Kind::Ingress, json!({"metadata": metadata, "spec": spec}))
}

/// A certificate of an authority.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----
MIIBcTCCARegAwIBAgIUEwEGEPObgYT12KaDOC7+GIRXHB0wCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCY2EwIBcNMjYxMTMwMjAzNDQ1WhgPMjEyNjExMDYyMDM0NDVa
MA0xCzAJBgNVBAMMAmNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE1Zdj+jqi
TbYCGY2H/nnEDd5Zrx1rzEQ8CzlvGOZJGLAwSuLMc9ASRv3U6XPpKAjApcpxbrMQ
WawzRqiTMkx3oKNTMFEwHQYDVR0OBBYEFHgd7tb2sDV9ioch2aJvgxOsrieOMB8G
A1UdIwQYMBaAFHgd7tb2sDV9ioch2aJvgxOsrieOMA8GA1UdEwEB/wQFMAMBAf8w
CgYIKoZIzj0EAwIDSAAwRQIhAIs8aECeDfpTwNYCwv6tKO3C5WSdQwZ6gyZ0B/Xj
wFo1AiAY82UTF0Z+Hri923W1eju0R7+JFGve3fWofyYe/fs58w==
-----END CERTIFICATE-----
";
