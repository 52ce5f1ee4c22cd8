//! The fields of responses.

use super::*;

type Fields<'a> = &'a [(&'a str, &'a str)];

/// One second before the time of the request.
const MINUS_ONE: &str = "expires: Thu, 01 Jan 1970 00:00:09 GMT";

#[test]
fn edits_have_conditions() {
    let html = ("content-type", "text/html; a=b");
    let cases: &[(&str, u16, Fields<'_>, &[&str])] = &[
        ("more_set_headers -s 404 'A: b';", 404, &[], &["a: b"]),
        ("more_set_headers -s 404 'A: b';", 200, &[], &[]),
        ("more_set_headers -s '404 500' -s 503 'A: b' 'C: d';", 503, &[], &["a: b", "c: d"]),
        ("more_set_headers -t 'text/html text/plain' 'A: b';", 200, &[html], &["a: b", "content-type: text/html; a=b"]),
        ("more_set_headers -t text/plain 'A: b';", 200, &[html], &["content-type: text/html; a=b"]),
        ("more_set_headers 'A: b' 'a: c';", 200, &[("a", "1"), ("a", "2")], &["a: c"]),
        ("more_set_headers -a 'A: b';", 200, &[("a", "1")], &["a: 1", "a: b"]),
        ("more_set_headers A 'B:';", 200, &[("a", "1"), ("b", "1"), ("c", "1")], &["c: 1"]),
        (
            "more_set_headers 'Server: x' 'Content-Type: text/plain';",
            200,
            &[html],
            &["content-type: text/plain", "server: x"],
        ),
        ("more_clear_headers -s 404 A;", 404, &[("a", "1")], &[]),
        (
            "more_clear_headers 'X-*' 'C: ignored';",
            200,
            &[("x-a", "1"), ("c", "1"), ("content-length", "1")],
            &["content-length: 1"],
        ),
        // `add_header` appends, after the others, and to usual statuses.
        ("add_header A b; more_clear_headers A;", 200, &[("a", "1")], &["a: b"]),
        ("add_header A b; add_header A c;", 200, &[("a", "1")], &["a: 1", "a: b", "a: c"]),
        ("add_header A b;", 404, &[], &[]),
        ("add_header A b always;", 404, &[], &["a: b"]),
        ("add_header A '';", 200, &[], &[]),
        ("add_header Content-Type text/plain;", 200, &[html], &["content-type: text/plain"]),
        (
            "expires -1; add_header Cache-Control private;",
            200,
            &[("cache-control", "a")],
            &["cache-control: no-cache", "cache-control: private", MINUS_ONE],
        ),
        ("expires 1h;", 404, &[], &[]),
        ("expires off;", 200, &[("expires", "a")], &["expires: a"]),
    ];
    for (text, status, headers, expected) in cases {
        assert_eq!(lines(&response_fields(&location(text), &Request::get("/"), *status, headers)), *expected, "{text}");
    }
}

#[test]
fn texts_read_the_response() {
    let snippet = location(
        "proxy_hide_header X-A; more_set_headers 'X-B: $upstream_http_x_a-$status' 'X-C: $sent_http_x_b';
         more_set_headers 'X-D: $sent_http_x_a' 'X-E: $sent_http_x_f';",
    );
    let headers = [("x-a", "1"), ("x-f", "2"), ("x-f", "3")];
    assert_eq!(
        lines(&response_fields(&snippet, &Request::get("/"), 200, &headers)),
        ["x-b: 1-200", "x-c: 1-200", "x-e: 2, 3", "x-f: 2", "x-f: 3"]
    );
    // A response of Portico has no fields of an endpoint, and none that the location hides.
    let mut headers: HeaderMap = [field("x-a", "1")].into_iter().collect();
    let request = Request::get("/");
    let response = (StatusCode::OK, SnippetResponseOrigin::Portico);
    let steps = RegexSteps::default();
    run(&snippet, &request).set_response_fields(&snippet, &request, response, &mut headers, &steps);
    assert_eq!(lines(&headers), ["x-a: 1", "x-b: -200", "x-c: -200", "x-d: 1"]);
}

#[test]
fn values_cannot_end_a_field() {
    // nginx decodes `$uri`, so that it may contain a line break.
    let snippet = location("add_header A $uri; more_set_headers 'B: $uri'; proxy_set_header C $uri;");
    let request = Request::with("/%0d%0aSet-Cookie:%20a", &[("c", "of the client")]);
    assert!(response_fields(&snippet, &request, 200, &[]).is_empty());
    assert!(request_fields(&snippet, &request).is_empty());
    let snippet = location("return 301 https://b.example$uri;");
    assert_eq!(outcome(&run(&snippet, &request)), "InvalidTarget");
}
