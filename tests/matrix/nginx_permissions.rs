//! What the ConfigMap of ingress-nginx permits of annotations: up to which risk, and without which words. It closes the
//! Ingresses with others and their further names, in all namespaces, and takes requests from canaries.

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, echo, get, ingress, rule, rule_for, start};
use super::nginx_retries::{backend, service_named};
use crate::harness::eventually;
use crate::harness::site::Site;

const HOSTS: [&str; 7] = ["plain", "low", "medium", "other", "high", "further", "main"];

fn config_map(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{namespace: ops, name: nginx}}\ndata: {{{data}}}\n---\n")
}

/// The Ingresses of all hosts, each with an annotation of another risk. The canary has a server of its own.
fn objects() -> String {
    let medium = format!("{PREFIX}denylist-source-range: 192.0.2.0/24");
    let canary = format!("{PREFIX}canary: \"true\", {PREFIX}canary-by-header: x-canary");
    let web = [
        ("plain", String::new()),
        ("low", format!("{PREFIX}use-regex: \"true\"")),
        ("medium", medium.clone()),
        ("high", format!("{PREFIX}server-alias: further.example")),
        ("main", String::new()),
    ]
    .map(|(name, annotations)| ingress("default", name, "01", &annotations, &rule(&format!("{name}.example"), "/")));
    CLASS.to_owned()
        + &echo("default")
        + &echo("other")
        + &service_named("canary", &[backend("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\ncanary")])
        + &web.concat()
        + &ingress("other", "other", "02", &medium, &rule("other.example", "/"))
        + &ingress("default", "canary", "03", &canary, &rule_for("main.example", "/", "canary"))
}

#[test]
fn config_map_says_which_annotations_are_permitted() {
    let site = Site::new();
    site.save("manifests/all.yaml", &objects());
    site.save("manifests/config.yaml", &config_map(""));
    let (program, address) = start(&site, &["--nginx-configmap", "ops/nginx"]);
    let status = |host: &str, fields: &str| get(&address, &format!("{host}.example"), "/", fields).status;
    // Of the hosts, and whether the canary gets its requests.
    let found = || {
        (
            HOSTS.map(|host| status(host, "")),
            get(&address, "main.example", "/", "x-canary: always\r\n").body == "canary",
        )
    };
    let open = [200; 7];
    assert_eq!(found(), (open, true));
    for (data, expected) in [
        ("annotations-risk-level: Medium", ([200, 200, 200, 200, 503, 503, 200], true)),
        ("annotations-risk-level: Low", ([200, 200, 503, 503, 503, 503, 200], false)),
        ("annotations-risk-level: Lowest", (open, true)),
        ("annotation-value-word-blocklist: \"absent, 192.0.2\"", ([200, 200, 503, 503, 200, 200, 200], true)),
        ("annotation-value-word-blocklist: x-can", (open, false)),
        ("annotation-value-word-blocklist: \"\"", (open, true)),
    ] {
        site.save("manifests/config.yaml", &config_map(data));
        eventually(data, || (found() == expected).then_some(()));
    }
    program.stop().expect_success();
}
