//! Snippets of servers, with locations, and what locations inherit from them.

use std::sync::Arc;

use super::*;

/// The only location of a server's snippet, and the run of a request for it.
fn in_location(text: &str, request: &Request) -> (Arc<Snippet>, SnippetRun) {
    let server = server(text);
    let [location] = &server.locations[..] else { panic!("{text}: {server:?}") };
    let run = location.snippet.run_after(run(&server, request), request, &RegexSteps::default());
    (Arc::clone(&location.snippet), run)
}

#[test]
fn locations_have_modifiers() {
    for (text, modifier, path) in [
        ("location /a { deny all; }", LocationModifier::Prefix, "/a"),
        ("location = /a { deny all; }", LocationModifier::Exact, "/a"),
        ("location =/a { deny all; }", LocationModifier::Exact, "/a"),
        ("location ^~ /a { deny all; }", LocationModifier::PrefixBeforeExpressions, "/a"),
        ("location ^~/a { deny all; }", LocationModifier::PrefixBeforeExpressions, "/a"),
        (r"location ~ \.php$ { deny all; }", LocationModifier::Expression, r"\.php$"),
        (r"location ~* \.(git|env) { deny all; }", LocationModifier::ExpressionOfAnyCase, r"\.(git|env)"),
        (r"location ~*^/a { deny all; }", LocationModifier::ExpressionOfAnyCase, "^/a"),
    ] {
        let snippet = server(text);
        let [location] = &snippet.locations[..] else { panic!("{text}") };
        assert_eq!((location.modifier, &*location.path, location.line), (modifier, path, 1), "{text}");
        assert!(location.snippet.restricts() && snippet.restricts(), "{text}");
        assert_eq!(verdict(&location.snippet, &Request::get("/a"), "192.0.2.1"), SnippetVerdict::Deny);
    }
}

#[test]
fn locations_have_steps() {
    for (text, target, expected) in [
        ("location = /metrics { return 404; }", "/metrics", "404"),
        ("location ~ ^/old/(.*)$ { return 301 /new/$1; }", "/old/a", "301 to /new/a"),
        ("location ~* ^/old/(?<rest>.*)$ { return 301 /new/$rest; }", "/OLD/a", "301 to /new/a"),
        ("location ~ ^/old/(.*)$ { if ($host ~ (z)) { set $a b; } return 200 -$1; }", "/old/a", "200 with \"-\""),
        ("set $a b; location / { return 200 $a; }", "/", "200 with \"b\""),
        ("location /a { rewrite ^/a/(.*) /b/$1 last; }", "/a/c", "/b/c"),
        ("rewrite ^/a/(.*) /b/$1; location /b { return 200 $uri; }", "/a/c", "200 with \"/b/c\""),
        ("rewrite ^/a/(.*) /b/$1; location /b { deny all; }", "/a/c", "/b/c"),
    ] {
        let request = Request::get(target);
        assert_eq!(outcome(&in_location(text, &request).1), expected, "{text}");
    }
}

#[test]
fn locations_inherit_from_the_server() {
    let server = server(
        r#"
        add_header X-Added server;
        more_set_headers "X-More: server";
        proxy_set_header X-Sent server;
        more_set_input_headers "X-Input: server";
        client_max_body_size 1m;
        deny 192.0.2.0/24;
        set $mode server;
        if ($host = other.example) { return 404; }
        "#,
    );
    assert_eq!(outcome(&run(&server, &Request::of_host("other.example", "/"))), "404");
    let request = Request::get("/");
    let fields = |text: &str| {
        let location = Snippet::parse_below(text, &server, RegexLimit::MEMORY_ONLY).unwrap();
        let run = location.run_after(run(&server, &request), &request, &RegexSteps::default());
        let mut headers = HeaderMap::new();
        let response = (StatusCode::OK, SnippetResponseOrigin::Upstream);
        run.set_response_fields(&location, &request, response, &mut headers, &RegexSteps::default());
        let denied = run.verdict(&location, "192.0.2.1".parse().unwrap(), &Method::GET) == SnippetVerdict::Deny;
        let edits = run.input_edits(&location, &request).len() + run.sent_edits(&location, &request).len();
        (lines(&headers), denied, edits, location.settings.max_body_bytes)
    };
    let strings = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let inherited = (strings(&["x-added: server", "x-more: server"]), true, 1, Some(1 << 20));
    assert_eq!(fields(""), inherited);
    let own = "add_header X-Own $mode; more_set_headers 'X-Second: a'; allow all; client_max_body_size 2m;
               proxy_set_header A b;";
    let expected = (strings(&["x-more: server", "x-own: server", "x-second: a"]), false, 2, Some(2 << 20));
    assert_eq!(fields(own), expected);
    let ignored: Vec<_> = server.ignored().iter().map(|ignored| (ignored.line, &ignored.directive[..])).collect();
    assert_eq!(ignored, [(4, "proxy_set_header")]);
}
