//! Every annotation of ingress-nginx that restricts requests, on an Ingress of its dialect: it restricts them here too,
//! or the Ingress is not served. And what Ingresses of another namespace, or rejected ones, change for those that are.

use portico::api::foreign_annotations::classify;
use portico::api::ingress_nginx::{PREFIX, names};

use crate::harness::client::try_get;
use crate::harness::eventually;
use crate::harness::program::{Program, run};
use crate::harness::site::Site;

const CLASS: &str = "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
---
";

/// An Ingress with the root of a host, and the echo server as backend.
fn ingress(namespace: &str, name: &str, created: &str, annotations: &str, rules: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{namespace: {namespace}, name: {name}, creationTimestamp: \"2026-01-{created}T00:00:00Z\", \
         annotations: {{{annotations}}}}}
spec:
  ingressClassName: nginx
  rules: [{rules}]
---
"
    )
}

fn rule(host: &str, path: &str) -> String {
    format!(
        "{{host: {host}, http: {{paths: [{{path: \"{path}\", pathType: ImplementationSpecific, \
         backend: {{service: {{name: echo, port: {{number: 80}}}}}}}}]}}}}"
    )
}

/// The echo server as a Service of this namespace.
fn echo(namespace: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{namespace: {namespace}, name: echo}}
spec: {{ports: [{{port: 80, targetPort: @echo@}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{namespace: {namespace}, name: echo, labels: {{kubernetes.io/service-name: echo}}}}
addressType: IPv4
ports: [{{port: @echo@}}]
endpoints: [{{addresses: [\"@address@\"]}}]
---
"
    )
}

fn start(site: &Site, more: &[&str]) -> (Program, String) {
    let address = site.address_of("other");
    let own = ["--nginx-controller-class", "k8s.io/ingress-nginx", "--ingress-http-listen", &address];
    let off = ["--ingress-https-listen", "off", "--access-log", "off"];
    let program = run(site, &[&own[..], &off, more].concat());
    program.wait_started();
    (program, address)
}

fn status(address: &str, host: &str, path: &str) -> u16 {
    try_get(address, host, path).unwrap().status
}

/// A value with which each guard restricts requests, and the status of a request that it restricts.
fn restricting_value(name: &str) -> (&'static str, u16) {
    match name {
        "allowlist-source-range" | "whitelist-source-range" => ("192.0.2.0/24", 403),
        "denylist-source-range" => ("0.0.0.0/0", 403),
        "force-ssl-redirect" => ("\"true\"", 308),
        // Without TLS, it restricts nothing.
        "ssl-redirect" => ("\"true\"", 200),
        // The Ingress has no paths of its own.
        "canary" => ("\"true\"", 404),
        "limit-rps" | "limit-rpm" | "limit-connections" => ("\"1\"", 503),
        "auth-type" => ("basic", 503),
        // It needs a Secret in `auth-tls-secret`, which another row has.
        "auth-tls-verify-client" => ("\"on\"", 200),
        "enable-modsecurity" | "enable-owasp-core-rules" => ("\"true\"", 503),
        _ => ("a/b", 503),
    }
}

#[test]
fn every_guard_of_ingress_nginx_restricts_or_fails_closed() {
    let site = Site::new();
    let is_guard = |name: &&str| {
        let (value, _) = restricting_value(name);
        classify(&format!("{PREFIX}{name}"), value.trim_matches('"')).is_some_and(|annotation| annotation.is_guard())
    };
    let guards: Vec<&str> = names().filter(is_guard).collect();
    assert!(guards.len() > 20, "{guards:?}");
    let mut objects = CLASS.to_owned() + &echo("default");
    for name in &guards {
        let annotation = format!("{PREFIX}{name}: {}", restricting_value(name).0);
        objects += &ingress("default", name, "01", &annotation, &rule(&format!("{name}.example"), "/"));
    }
    objects += &ingress("default", "open", "01", "", &rule("open.example", "/"));
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &[]);
    assert_eq!(status(&address, "open.example", "/"), 200);
    for name in guards {
        // Of the catch-all of the host, too.
        for path in ["/", "/other/path"] {
            let found = status(&address, &format!("{name}.example"), path);
            assert_eq!(found, restricting_value(name).1, "{name} {path}");
        }
    }
}

#[test]
fn guard_of_a_host_closes_the_paths_of_all_ingresses() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("default");
    for (host, annotation) in [
        ("tls", "auth-tls-secret: a/b"),
        ("typo", "auth-tls-secret: b"),
        // It has no effect without a Secret.
        ("verify", "auth-tls-verify-client: optional"),
        ("snippet", "server-snippet: \"deny all;\""),
        ("path", "auth-url: http://a.example"),
    ] {
        let host = format!("{host}.example");
        let annotation = format!("{PREFIX}{annotation}");
        objects += &ingress("default", &format!("guard-{host}"), "02", &annotation, &rule(&host, "/guard"));
        objects += &ingress("default", &format!("open-{host}"), "01", "", &rule(&host, "/open"));
    }
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &[]);
    for (host, open, guard) in [
        ("tls.example", 503, 503),
        ("typo.example", 503, 503),
        ("verify.example", 200, 200),
        ("snippet.example", 503, 503),
        ("path.example", 200, 503),
    ] {
        assert_eq!(status(&address, host, "/open"), open, "{host}");
        assert_eq!(status(&address, host, "/guard"), guard, "{host}");
    }
}

#[test]
fn guarded_expression_that_cannot_be_used_leaves_its_requests_to_no_other_ingress() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("default");
    let cases = [
        ("url", "auth-url: http://a.example", "/(admin)(?R)?", "/admin", 503),
        ("list", "allowlist-source-range: 192.0.2.0/24", "/(admin)(?R)?", "/admin", 503),
        ("bad", "allowlist-source-range: office", "/(admin)(?R)?", "/admin", 503),
        ("group", "auth-url: http://a.example", "/admin/(a|b)(?R)?", "/admin/a", 503),
        ("below", "auth-url: http://a.example", "/admin/(a|b)(?R)?", "/other", 200),
        ("none", "enable-cors: \"true\"", "/(admin)(?R)?", "/admin", 200),
    ];
    for (name, annotation, path, ..) in cases {
        let host = format!("{name}.example");
        let annotations = format!("{PREFIX}use-regex: \"true\", {PREFIX}{annotation}");
        objects += &ingress("default", &format!("guard-{name}"), "01", &annotations, &rule(&host, path));
        objects += &ingress("default", &format!("open-{name}"), "02", "", &rule(&host, "/"));
    }
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &[]);
    for (name, _, _, requested, expected) in cases {
        assert_eq!(status(&address, &format!("{name}.example"), requested), expected, "{name}");
    }
}

#[test]
fn expression_of_one_ingress_costs_others_of_its_host_no_budget() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("a") + &echo("b");
    let plain: Vec<String> = (0..600).map(|number| rule("web.example", &format!("/plain/path-{number}"))).collect();
    objects += &ingress("a", "plain", "01", "", &plain.join(", "));
    let annotation = format!("{PREFIX}use-regex: \"true\"");
    objects += &ingress("b", "expression", "02", &annotation, &rule("web.example", "/id/[0-9]+"));
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &[]);
    for path in ["/plain/path-0", "/plain/path-599/x", "/id/7"] {
        assert_eq!(status(&address, "web.example", path), 200, "{path}");
    }
}

#[test]
fn host_of_a_namespace_keeps_its_meaning() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("owner") + &echo("other");
    objects += &ingress("owner", "web", "01", "", &rule("web.example", "/Api"));
    // Each of these would change what the paths of the host mean.
    let prefix = PREFIX;
    for (index, annotations) in [
        format!("{prefix}use-regex: \"true\""),
        format!("{prefix}rewrite-target: /x"),
        format!("{prefix}app-root: /stolen"),
    ]
    .iter()
    .enumerate()
    {
        let path = format!("/other{index}");
        objects += &ingress("other", &format!("b{index}"), "02", annotations, &rule("web.example", &path));
    }
    objects += &ingress("other", "root", "02", "", &rule("web.example", "/"));
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &["--ingress-host-owner", "namespace"]);
    for (path, expected) in
        [("/Api", 200), ("/Api/x", 200), ("/api", 404), ("/Apis", 404), ("/", 404), ("/other0", 404)]
    {
        assert_eq!(status(&address, "web.example", path), expected, "{path}");
    }
}

#[test]
fn rejected_ingress_is_closed_and_others_of_its_host_are_served() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("default");
    objects += &ingress("default", "good", "02", "", &rule("web.example", "/good"));
    let broken = ingress("default", "broken", "01", "", &rule("web.example", "/broken"));
    let guard = format!("{PREFIX}allowlist-source-range: office");
    objects += &ingress("default", "guarded", "01", &guard, &rule("web.example", "/guarded"));
    site.save("manifests/all.yaml", &objects);
    // The API server would not store it. Which protection it has is not known, and the root of the host has that of the
    // oldest Ingress.
    let rejected = broken.replace("ingressClassName: nginx", "ingressClassName: nginx\n  tls: x");
    site.save("manifests/broken.yaml", &rejected);
    let (_program, address) = start(&site, &[]);
    for (path, expected) in
        [("/broken", 503), ("/broken/x", 503), ("/good", 200), ("/guarded", 503), ("/guarded/x", 503), ("/x", 503)]
    {
        assert_eq!(status(&address, "web.example", path), expected, "{path}");
    }
    site.save("manifests/broken.yaml", &broken);
    eventually("served", || (status(&address, "web.example", "/broken") == 200).then_some(()));
}
