//! The session cookies of Ingresses of the dialect nginx: those that ingress-nginx has set, their attributes for old
//! browsers, and what becomes of a session whose endpoint fails.

use std::collections::BTreeSet;

use portico::api::ingress_nginx::PREFIX;
use portico::md5::md5_digits;

use super::nginx_guards::{CLASS, get, ingress, rule, rule_for, start};
use super::nginx_retries::{OK, UNAVAILABLE, backend, service, service_named};
use crate::harness::client::ClientResponse;
use crate::harness::eventually;
use crate::harness::site::Site;

/// The field of a request with the cookie of a response.
fn field(set_cookie: &str) -> String {
    format!("cookie: {}\r\n", set_cookie.split(';').next().unwrap())
}

fn cookie(response: &ClientResponse) -> Option<&str> {
    response.field("set-cookie")
}

fn digits(text: &str) -> String {
    String::from_utf8(md5_digits(&[text.as_bytes()]).into()).unwrap()
}

/// What ends the values of a Service of ingress-nginx.
fn upstream_of(name: &str) -> String {
    digits(&(digits(name) + name))
}

#[test]
fn clients_of_ingress_nginx_keep_their_endpoints() {
    let site = Site::new();
    let prefix = PREFIX;
    let endpoints = [(backend(OK), "ok"), (backend(NEXT), "next")];
    let added = backend(ADDED);
    let annotations = |mode: &str| format!("{prefix}affinity: cookie, {prefix}affinity-mode: {mode}");
    let objects = CLASS.to_owned()
        + &ingress("default", "fixed", "01", &annotations("persistent"), &rule("fixed.example", "/"))
        + &ingress("default", "ring", "02", &annotations("balanced"), &rule("ring.example", "/"));
    let ports: Vec<u16> = endpoints.iter().map(|(port, _)| *port).collect();
    site.save("manifests/all.yaml", &(objects.clone() + &service(&ports)));
    let (program, address) = start(&site, &[]);
    let name = "default-echo-80";
    let upstream = upstream_of(name);
    let value = |port: u16| format!("{}|{upstream}", digits(&format!("{name}127.0.0.1:{port}")));
    let get_with = |host: &str, value: &str| get(&address, host, "/", &format!("cookie: INGRESSCOOKIE={value}\r\n"));
    let check_fixed = |when: &str| {
        for (port, body) in endpoints {
            for _ in 0..6 {
                let response = get_with("fixed.example", &value(port));
                assert_eq!((&*response.body, cookie(&response)), (body, None), "{when}");
            }
        }
    };
    check_fixed("first");
    // A key of an endpoint that is gone, of another Service, and none.
    for field in ["cookie: INGRESSCOOKIE=00000000000000000000000000000000|x\r\n", "cookie: INGRESSCOOKIE=x\r\n", ""] {
        let response = get(&address, "fixed.example", "/", field);
        let (port, _) = endpoints.into_iter().find(|(_, body)| *body == response.body).unwrap();
        let expected = format!("INGRESSCOOKIE={}; Path=/; HttpOnly", value(port));
        assert_eq!(cookie(&response), Some(&*expected), "{field}");
    }
    // Any text is a key of the ring.
    for key in ["1764542000.123.29.480291", "another"] {
        let first = get_with("ring.example", &format!("{key}|{upstream}"));
        for value in [format!("{key}|{upstream}"), key.to_owned(), format!("{key}|x")] {
            let response = get_with("ring.example", &value);
            assert_eq!((&response.body, cookie(&response)), (&first.body, None), "{value}");
        }
    }
    let fresh = get(&address, "ring.example", "/", "");
    let session = field(cookie(&fresh).unwrap());
    assert!(session.trim_end().ends_with(&format!("|{upstream}")), "{session}");
    let again = get(&address, "ring.example", "/", &session);
    assert_eq!((&again.body, cookie(&again)), (&fresh.body, None));
    let too_long = get_with("ring.example", &"x".repeat(257));
    assert!(cookie(&too_long).is_some());
    // Another endpoint takes clients over from the ring only, and without a new cookie.
    site.save("manifests/all.yaml", &(objects + &service(&[&ports[..], &[added]].concat())));
    eventually("the added endpoint", || (get(&address, "fixed.example", "/", "").body == "added").then_some(()));
    check_fixed("with another endpoint");
    let moved: BTreeSet<String> = (0..60)
        .map(|number| {
            let response = get_with("ring.example", &format!("key-{number}|{upstream}"));
            assert_eq!(cookie(&response), None);
            response.body
        })
        .collect();
    assert_eq!(moved, ["added", "next", "ok"].map(str::to_owned).into());
    program.stop().expect_success();
}

/// Two Services with the same endpoints: the sessions of one are none of the other.
#[test]
fn keys_belong_to_one_service_and_the_port_as_written() {
    let site = Site::new();
    let prefix = PREFIX;
    let ports = [backend(OK), backend(NEXT)];
    let annotations = format!("{prefix}affinity: cookie, {prefix}affinity-mode: persistent");
    let named = service_named("named", &ports).replace("ports: [{port: 80}]", "ports: [{name: web, port: 80}]");
    let named = named.replace("ports: [{port: ", "ports: [{name: web, port: ");
    let by_name = rule_for("named.example", "/", "named").replace("port: {number: 80}", "port: {name: web}");
    let objects = CLASS.to_owned()
        + &service(&ports)
        + &named
        + &ingress("default", "a", "01", &annotations, &rule("a.example", "/"))
        + &ingress("default", "named", "01", &annotations, &by_name);
    site.save("manifests/all.yaml", &objects);
    let (program, address) = start(&site, &[]);
    let value = |name: &str| format!("{}|{}", digits(&format!("{name}127.0.0.1:{}", ports[1])), upstream_of(name));
    for (host, name, is_known) in [
        ("a.example", "default-echo-80", true),
        ("a.example", "default-named-web", false),
        ("named.example", "default-named-web", true),
        ("named.example", "default-named-80", false),
    ] {
        let response = get(&address, host, "/", &format!("cookie: INGRESSCOOKIE={}\r\n", value(name)));
        assert_eq!(cookie(&response).is_none(), is_known, "{host} {name}");
        if is_known {
            assert_eq!(response.body, "next", "{host}");
        }
    }
    program.stop().expect_success();
}

#[test]
fn old_browsers_get_the_cookie_without_same_site_none() {
    let site = Site::new();
    let prefix = PREFIX;
    let mut objects = CLASS.to_owned() + &service(&[backend(OK)]);
    for (name, same_site) in [("exact", "None"), ("lower", "none")] {
        let annotations = format!(
            "{prefix}affinity: cookie, {prefix}session-cookie-samesite: {same_site}, \
             {prefix}session-cookie-conditional-samesite-none: \"true\""
        );
        objects += &ingress("default", name, "01", &annotations, &rule(&format!("{name}.example"), "/"));
    }
    site.save("manifests/all.yaml", &objects);
    let (program, address) = start(&site, &[]);
    let agent = |version: &str| format!("user-agent: Mozilla/5.0 (X11) Chrome/{version}.0 Safari/537.36\r\n");
    for (host, fields, has_none) in [
        ("exact.example", agent("60"), false),
        ("exact.example", agent("80"), true),
        ("exact.example", String::new(), true),
        ("lower.example", agent("60"), true),
    ] {
        let response = get(&address, host, "/", &fields);
        let cookie = cookie(&response).unwrap();
        assert_eq!(cookie.contains("SameSite=None"), has_none, "{host} {fields} {cookie}");
    }
    program.stop().expect_success();
}

#[test]
fn sessions_move_when_their_endpoint_fails() {
    let site = Site::new();
    let prefix = PREFIX;
    let annotations = format!(
        "{prefix}affinity: cookie, {prefix}session-cookie-change-on-failure: \"true\", \
         {prefix}load-balance: round_robin"
    );
    let retried = format!("{annotations}, {prefix}proxy-next-upstream: http_503");
    let objects = CLASS.to_owned()
        + &service(&[backend(OK), backend(UNAVAILABLE)])
        + &ingress("default", "a", "01", &annotations, &rule("a.example", "/"))
        + &ingress("default", "b", "01", &retried, &rule("b.example", "/"));
    site.save("manifests/all.yaml", &objects);
    let (program, address) = start(&site, &[]);
    // A session at the endpoint that fails.
    let failed = (0..40).map(|_| get(&address, "a.example", "/", "")).find(|response| response.status == 503).unwrap();
    let session = field(cookie(&failed).unwrap());
    let again = get(&address, "a.example", "/", &session);
    assert_eq!((again.status, cookie(&again)), (503, None), "without a retry, the session stays");
    // A client without a session is sent to any endpoint.
    for _ in 0..4 {
        let moved = get(&address, "b.example", "/", "");
        assert_eq!(moved.status, 200);
        let session = field(cookie(&moved).unwrap());
        let stays = get(&address, "b.example", "/", &session);
        assert_eq!((stays.status, cookie(&stays)), (200, None), "the cookie is that of the endpoint that responded");
    }
    program.stop().expect_success();
}

#[test]
fn clients_stay_at_their_version_unless_the_canary_has_no_sessions() {
    let site = Site::new();
    let prefix = PREFIX;
    let session = format!("{prefix}affinity: cookie");
    let canary = format!("{prefix}canary: \"true\", {prefix}canary-weight: \"50\"");
    let legacy = format!("{canary}, {prefix}affinity-canary-behavior: legacy");
    let mut objects = CLASS.to_owned()
        + &service(&[backend(OK), backend(OK)])
        + &service_named("next", &[backend(NEXT), backend(NEXT)]);
    for (name, canary) in [("sticky", &canary), ("legacy", &legacy)] {
        let host = format!("{name}.example");
        objects += &ingress("default", name, "01", &session, &rule(&host, "/"));
        objects += &ingress("default", &format!("{name}-next"), "02", canary, &rule_for(&host, "/", "next"));
    }
    site.save("manifests/all.yaml", &objects);
    let (program, address) = start(&site, &[]);
    for (host, body, has_session) in [
        ("sticky.example", "ok", true),
        ("sticky.example", "next", true),
        ("legacy.example", "ok", true),
        ("legacy.example", "next", false),
    ] {
        let first = (0..40).map(|_| get(&address, host, "/", "")).find(|response| response.body == body).unwrap();
        assert_eq!(cookie(&first).is_some(), has_session, "{host} {body}");
        let Some(session) = cookie(&first).map(field) else { continue };
        for _ in 0..12 {
            let again = get(&address, host, "/", &session);
            assert_eq!((&again.body[..], cookie(&again)), (body, None), "{host}");
        }
    }
    program.stop().expect_success();
}

const ADDED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nadded";
const NEXT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext";
