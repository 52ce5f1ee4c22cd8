//! The snippet that the ConfigMap of the dialect nginx has for all locations: next to snippets of Ingresses, those that
//! are rejected, and Ingresses of two namespaces; and what one that cannot be used closes.

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, WITH_CONFIG_MAP, config_map, echo, get, ingress, rule, start};
use crate::harness::site::Site;

const ALL: &str = "if ($arg_deny) { return 403; } add_header X-All $service_name;";

#[test]
fn snippet_of_all_locations_follows_those_of_ingresses() {
    let site = Site::new();
    let snippet = |directives: &str| format!("{PREFIX}configuration-snippet: \"{directives}\"");
    let mut objects = CLASS.to_owned() + &config_map(&format!(", location-snippet: \"{ALL}\""));
    objects += &(echo("default") + &echo("other"));
    for (namespace, name, annotations) in [
        ("default", "plain", String::new()),
        ("default", "own", snippet("add_header X-Own own; if ($arg_early) { return 410; }")),
        ("default", "ends", snippet("if ($arg_deny) { break; }")),
        ("default", "rejected", snippet("add_header X-Own own; root /a;")),
        ("default", "open", snippet("add_header X-Own own")),
        ("other", "foreign", String::new()),
    ] {
        objects += &ingress(namespace, name, "01", &annotations, &rule(&format!("{name}.example"), "/"));
    }
    site.save("manifests/all.yaml", &objects);
    let (program, address) = start(&site, &WITH_CONFIG_MAP);
    for (host, target, status, of_all, own) in [
        ("plain", "/", 200, Some("echo"), None),
        ("plain", "/?deny=1", 403, None, None),
        ("own", "/", 200, Some("echo"), Some("own")),
        ("own", "/?early=1&deny=1", 410, None, None),
        ("own", "/?deny=1", 403, None, None),
        // Its own snippet ends the steps, as the joined text does in nginx.
        ("ends", "/?deny=1", 200, Some("echo"), None),
        // One that is not in effect takes that of the ConfigMap not out of effect.
        ("rejected", "/", 200, Some("echo"), None),
        ("rejected", "/?deny=1", 403, None, None),
        // A directive without its end must not swallow what follows.
        ("open", "/", 503, None, None),
        ("foreign", "/", 200, Some("echo"), None),
        ("foreign", "/?deny=1", 403, None, None),
    ] {
        let response = get(&address, &format!("{host}.example"), target, "");
        let found = (response.status, response.field("x-all"), response.field("x-own"));
        assert_eq!(found, (status, of_all, own), "{host} {target}");
    }
    program.stop().expect_success();
}

#[test]
fn snippet_of_all_locations_that_may_restrict_and_cannot_be_used_closes_all() {
    for (text, more, expected) in [
        ("root /a; deny all;", &[][..], 503),
        ("root /a; deny all;", &["--ignore-foreign-guards"], 200),
        ("root /a; add_header A b;", &[], 200),
        ("rewrite ^/a /b break;", &[], 503),
    ] {
        let site = Site::new();
        let mut objects = CLASS.to_owned() + &config_map(&format!(", location-snippet: \"{text}\"")) + &echo("default");
        objects += &ingress("default", "plain", "01", "", &rule("plain.example", "/"));
        site.save("manifests/all.yaml", &objects);
        let (program, address) = start(&site, &[&WITH_CONFIG_MAP[..], more].concat());
        assert_eq!(get(&address, "plain.example", "/", "").status, expected, "{text} {more:?}");
        program.stop().expect_success();
    }
}
