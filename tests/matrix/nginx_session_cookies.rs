//! The session cookies of Ingresses of the dialect nginx: their attributes for old browsers, and what becomes of a
//! session whose endpoint fails.

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, get, ingress, rule, rule_for, start};
use super::nginx_retries::{OK, UNAVAILABLE, backend, service, service_named};
use crate::harness::client::ClientResponse;
use crate::harness::site::Site;

/// The field of a request with the cookie of a response.
fn field(set_cookie: &str) -> String {
    format!("cookie: {}\r\n", set_cookie.split(';').next().unwrap())
}

fn cookie(response: &ClientResponse) -> Option<&str> {
    response.field("set-cookie")
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
    // Each rule has its own sessions, so a client without one is sent to any endpoint here.
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

const NEXT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext";
