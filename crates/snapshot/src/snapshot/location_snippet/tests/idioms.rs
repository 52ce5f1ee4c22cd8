//! What issues and documents of ingress-nginx recommend.

use super::*;
use crate::snapshot::next_upstream::NextUpstream;

fn check(text: &str, cases: &[(Request, &str)]) {
    let snippet = location(text);
    for (request, expected) in cases {
        assert_eq!(outcome(&run(&snippet, request)), *expected, "{text} {}", request.target);
    }
}

#[test]
fn security_headers_are_set_on_every_status() {
    let snippet = location(
        r#"
        more_set_headers "X-Frame-Options: DENY";
        more_set_headers 'X-Content-Type-Options: nosniff' "Referrer-Policy: no-referrer";
        more_set_headers "Content-Security-Policy: default-src 'self'; img-src *";
        more_clear_headers Server X-Powered-*;
        "#,
    );
    let headers = [("server", "apache"), ("x-powered-by", "php"), ("x-frame-options", "SAMEORIGIN")];
    assert_eq!(
        lines(&response_fields(&snippet, &Request::get("/"), 500, &headers)),
        [
            "content-security-policy: default-src 'self'; img-src *",
            "referrer-policy: no-referrer",
            "x-content-type-options: nosniff",
            "x-frame-options: DENY",
        ]
    );
    assert!(!snippet.restricts());
    assert!(snippet.edits_responses() && !snippet.restricts());
}

#[test]
fn cross_origin_fields_follow_the_origin() {
    let snippet = location(
        r#"
        more_set_headers "Access-Control-Allow-Origin: $http_origin";
        if ($request_method = OPTIONS) {
            add_header Access-Control-Allow-Origin "$http_origin";
            add_header Access-Control-Allow-Methods "GET, POST";
            add_header 'Content-Length' 0;
            return 204;
        }
        "#,
    );
    let request = Request::with("/", &[("origin", "https://b.example")]);
    let expected = ["access-control-allow-origin: https://b.example"];
    assert_eq!(lines(&response_fields(&snippet, &request, 404, &[])), expected);
    let preflight = Request { method: "OPTIONS", ..request };
    assert_eq!(outcome(&run(&snippet, &preflight)), "204");
    let fields = lines(&response_fields(&snippet, &preflight, 204, &[]));
    assert_eq!(
        fields,
        [
            "access-control-allow-methods: GET, POST",
            "access-control-allow-origin: https://b.example",
            "access-control-allow-origin: https://b.example",
        ]
    );
    // Without an origin, the value is empty.
    assert!(response_fields(&snippet, &Request::get("/"), 200, &[]).is_empty());
}

#[test]
fn flags_are_accumulated_in_order() {
    check(
        r#"
        set $block "";
        if ($http_user_agent ~* (curl|wget)) { set $block "${block}A"; }
        if ($arg_key != secret) { set $block "${block}B"; }
        if ($block = AB) { return 403; }
        "#,
        &[
            (Request::with("/", &[("user-agent", "Curl/8")]), "403"),
            (Request::with("/?key=secret", &[("user-agent", "curl/8")]), "passes"),
            (Request::get("/"), "passes"),
        ],
    );
}

#[test]
fn hosts_and_paths_are_redirected() {
    check(
        r"if ($host ~* ^www\.(.*)) { return 301 https://$1$request_uri; }",
        &[
            (Request::of_host("WWW.a.example", "/b%20c?d=e"), "301 to https://a.example/b%20c?d=e"),
            (Request::get("/"), "passes"),
        ],
    );
    check(
        "rewrite ^/old/(.*)$ /new/$1 permanent;",
        &[
            (Request::get("/old/a%20b?c=d"), "301 to /new/a%20b?c=d"),
            (Request::get("/old/a%0db"), "301 to /new/a%0Db"),
            (Request::get("/Old/a"), "passes"),
        ],
    );
    check(
        "if ($http_x_forwarded_proto = 'http') { return 301 https://$host$request_uri; }",
        &[(Request::with("/a", &[("x-forwarded-proto", "http")]), "301 to https://a.example/a")],
    );
    check("return 302 $scheme://b.example;", &[(Request::get("/"), "302 to https://b.example")]);
    check("return https://b.example$request_uri;", &[(Request::get("/a"), "302 to https://b.example/a")]);
}

#[test]
fn locations_are_closed() {
    check("return 403;", &[(Request::get("/"), "403")]);
    check("return 444;", &[(Request::get("/"), "444 and closes")]);
    check("return 503 'Back soon';", &[(Request::get("/"), "503 with \"Back soon\"")]);
    check(
        "if ($http_user_agent ~* \"bot|crawler\") { return 403; }",
        &[(Request::with("/", &[("user-agent", "GoogleBot")]), "403"), (Request::get("/"), "passes")],
    );
    check(
        "set $maintenance 1; if ($remote_addr ~ ^10\\.) { set $maintenance 0; } if ($maintenance) { return 503; }",
        &[(Request::get("/"), "503")],
    );
    check(
        "if ($cookie_session = '') { return 302 /login; }",
        &[(Request::get("/"), "302 to /login"), (Request::with("/", &[("cookie", "a=b; session=c")]), "passes")],
    );
}

#[test]
fn robots_are_served() {
    let snippet = location("default_type text/plain; return 200 \"User-agent: *\\nDisallow: /\";");
    let reply = run(&snippet, &Request::get("/robots.txt")).reply.unwrap();
    assert_eq!(reply.body.as_deref(), Some("User-agent: *\nDisallow: /"));
    assert_eq!(reply.content_type, Some(HeaderValue::from_static("text/plain")));
}

#[test]
fn request_fields_are_set() {
    let snippet = location(
        r#"
        proxy_set_header X-Forwarded-Prefix /x;
        proxy_set_header Accept-Encoding "";
        proxy_set_header X-Client $remote_addr;
        proxy_set_header Host $service_name.example;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
        more_set_input_headers "X-Path: $request_uri";
        more_clear_input_headers X-Internal-*;
        proxy_hide_header X-Powered-By;
        "#,
    );
    let request = Request::with("/a", &[("accept-encoding", "gzip"), ("x-internal-a", "b"), ("x-client", "c")]);
    assert_eq!(
        lines(&request_fields(&snippet, &request)),
        ["x-client: 192.0.2.1", "x-forwarded-prefix: /x", "x-path: /a"]
    );
    let ignored: Vec<_> = snippet.ignored().iter().map(|ignored| (ignored.line, &ignored.directive[..])).collect();
    assert_eq!(ignored, [(6, "proxy_set_header"), (7, "proxy_set_header")]);
    assert!(response_fields(&snippet, &request, 200, &[("x-powered-by", "php")]).is_empty());
}

#[test]
fn settings_have_units() {
    let snippet = location(
        "client_max_body_size 100m; proxy_connect_timeout 5; proxy_read_timeout 1h; proxy_send_timeout 600s;
         send_timeout 1m; keepalive_timeout 0; proxy_next_upstream_tries 2; access_log off;
         proxy_next_upstream error http_503; proxy_next_upstream_timeout 5s;
         proxy_buffering off; proxy_buffers 8 16k; proxy_http_version 1.1;",
    );
    let seconds = |seconds| Some(std::time::Duration::from_secs(seconds));
    let expected = SnippetSettings {
        max_body_bytes: Some(100 << 20),
        connect_timeout: seconds(5),
        read_timeout: seconds(3_600),
        send_timeout: seconds(600),
        client_send_timeout: seconds(60),
        client_keepalive_timeout: seconds(0),
        max_attempts: Some(2),
        next_upstream: NextUpstream::parse(["error", "http_503"]),
        next_upstream_time: seconds(5),
        is_access_log_off: Some(true),
        ..SnippetSettings::default()
    };
    assert_eq!(snippet.settings, expected);
    assert_eq!(snippet.ignored().len(), 3);
    assert!(!snippet.has_effect());
}
