//! Rewrites of URLs and cookies in responses of endpoints. The expected values are those of nginx.

use super::*;
use crate::snapshot::redirect::RedirectBase;

/// The fields of a response with one field, for a request of `https://a.example/b`.
fn rewritten(text: &str, name: &str, value: &str) -> String {
    let fields = response_fields(&location(text), &Request::get("/b"), 302, &[(name, value)]);
    fields.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[test]
fn redirects_are_those_of_the_first_rewrite_that_matches() {
    for (text, value, expected) in [
        ("proxy_redirect http:// https://;", "http://b/a", "https://b/a"),
        ("proxy_redirect http:// https://;", "HTTP://b/a", "HTTP://b/a"),
        ("proxy_redirect http://b/ /x/;", "http://b/a", "https://a.example/x/a"),
        ("proxy_redirect http://b/ /x/;", "/b/a", "/b/a"),
        ("proxy_redirect http://$host/ https://c$uri/;", "http://a.example/d", "https://c/b/d"),
        (
            "proxy_redirect ~^http://([a-z]+)(/.*)?$ https://$1.e$2; proxy_redirect http a;",
            "http://b/c",
            "https://b.e/c",
        ),
        ("proxy_redirect ~^http://([a-z]+)$ https://$1; proxy_redirect http a;", "http://1", "a://1"),
        ("proxy_redirect ~*^/(?<First>[a-z]+) x-$first;", "/FOO/b", "x-FOO"),
        ("proxy_redirect / http://c/$upstream_http_location;", "/z", "http://c//zz"),
        ("proxy_redirect off;", "http://b/a", "http://b/a"),
        ("proxy_redirect http://b/ \"\";", "http://b/", ""),
    ] {
        assert_eq!(rewritten(text, "location", value), expected, "{text} {value}");
    }
    for (value, expected) in [("5; URL=http://b/a", "5; URL=/x/a"), ("5", "5"), ("5; url=/a", "5; url=/a")] {
        assert_eq!(rewritten("proxy_redirect http://b/ /x/;", "refresh", value), expected, "{value}");
    }
}

#[test]
fn cookies_get_another_path_and_domain() {
    let flags = "proxy_cookie_path / \"/; Secure; HttpOnly; SameSite=strict\";";
    let domains = "proxy_cookie_domain .localhost .example.org; proxy_cookie_domain ~\\.([a-z]+)$ $1;";
    let paths = "proxy_cookie_path /one/ /two/; proxy_cookie_path ~^/(x)/(.*)$ /$2/$1; proxy_cookie_path ~*^/y /z;";
    for (text, value, expected) in [
        (flags, "a=b; path=/", "a=b; path=/; Secure; HttpOnly; SameSite=strict"),
        (flags, "a=b;Path=/foo;Max-Age=3", "a=b; Path=/; Secure; HttpOnly; SameSite=strictfoo; Max-Age=3"),
        (flags, "a=b;Max-Age=3", "a=b;Max-Age=3"),
        (flags, "a; Path=/", "a; Path=/"),
        (domains, "a=b; Domain=LOCALHOST", "a=b; Domain=example.org"),
        (domains, "a=b; Domain=.localhost", "a=b; Domain=.example.org"),
        (domains, "a=b; Domain=q.X", "a=b; Domain=X"),
        (domains, "a=b; Domain=q", "a=b; Domain=q"),
        (paths, "a=b; Path=/one/q", "a=b; Path=/two/q"),
        (paths, "a=b; Path=/x/foo", "a=b; Path=/foo/x"),
        (paths, "a=b; Path=/Y/a", "a=b; Path=/z"),
        (paths, "a=b; Path=/X/foo", "a=b; Path=/X/foo"),
        ("proxy_cookie_flags sid secure; proxy_cookie_flags ~ httponly;", "SID=1", "SID=1; Secure"),
        ("proxy_cookie_flags sid secure; proxy_cookie_flags ~ httponly;", "a=1", "a=1; HttpOnly"),
        ("proxy_cookie_flags ~^s $cookie_flag secure;", "Sid=1", "Sid=1; Secure"),
        ("proxy_cookie_flags off;", "a=b;c", "a=b;c"),
    ] {
        assert_eq!(rewritten(text, "set-cookie", value), expected, "{text} {value}");
    }
    let fields = [("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2"), ("location", "/")];
    let fields = response_fields(&location(flags), &Request::get("/"), 200, &fields);
    let expected = ["location: /", "set-cookie: a=1; Path=/; Secure; HttpOnly; SameSite=strict", "set-cookie: b=2"];
    assert_eq!(lines(&fields), expected);
}

#[test]
fn results_that_no_field_may_have_leave_values_as_they_are() {
    let request = Request::get("/%0d%0aSet-Cookie:%20a");
    let fields = [("location", "http://b/"), ("set-cookie", "a=b; Path=/")];
    let snippet = location("proxy_redirect http://b $uri; proxy_cookie_path / $uri;");
    assert_eq!(
        lines(&response_fields(&snippet, &request, 302, &fields)),
        ["location: http://b/", "set-cookie: a=b; Path=/"]
    );
}

#[test]
fn rewrites_are_inherited_unless_a_location_has_some() {
    let set = |arguments: [&str; 2]| {
        let mut rewrites = EndpointRewrites::default();
        rewrites.add_directive("proxy_redirect", &arguments, RegexLimit::MEMORY_ONLY).unwrap();
        rewrites
    };
    let outer = server("proxy_cookie_flags ~ secure; proxy_redirect http://b https://server;");
    assert_eq!(outer.ignored().len(), 1);
    let outer = outer.with_rewrites(&set(["http://b", "https://annotation"]));
    for (text, expected) in [
        ("", ["location: https://annotation/", "set-cookie: a=b; Secure"]),
        ("proxy_redirect http://b https://own;", ["location: https://own/", "set-cookie: a=b; Secure"]),
        ("proxy_redirect off; proxy_cookie_flags off;", ["location: http://b/", "set-cookie: a=b"]),
    ] {
        let inner = Snippet::parse_below(text, &outer, RegexLimit::MEMORY_ONLY).unwrap();
        assert!(inner.has_effect() || text.contains("off"), "{text}");
        let fields = [("location", "http://b/"), ("set-cookie", "a=b")];
        assert_eq!(lines(&response_fields(&inner, &Request::get("/"), 302, &fields)), expected, "{text}");
    }
    let mut relative = set(["http://b", "/c"]);
    for (base, expected) in
        [(RedirectBase::Nothing, "location: /c/d"), (RedirectBase::HostAndPort, "location: https://a.example:8443/c/d")]
    {
        relative.base = base;
        let outer = Snippet::default().with_rewrites(&relative);
        let inner = Snippet::parse_below("", &outer, RegexLimit::MEMORY_ONLY).unwrap();
        let fields = response_fields(&inner, &Request::get("/"), 302, &[("location", "http://b/d")]);
        assert_eq!(lines(&fields), [expected]);
    }
    // A response of Portico says nothing about URLs of the endpoint.
    let snippet = location("proxy_redirect / https://b/;");
    let mut headers: HeaderMap = [field("location", "/a")].into_iter().collect();
    let response = (StatusCode::FOUND, SnippetResponseOrigin::Portico);
    let (request, steps) = (Request::get("/"), RegexSteps::default());
    run(&snippet, &request).set_response_fields(&snippet, &request, response, &mut headers, &steps);
    assert_eq!(lines(&headers), ["location: /a"]);
}

#[test]
fn directives_that_nginx_does_not_accept_are_refused() {
    for text in [
        "proxy_redirect default;",
        "proxy_redirect http://a;",
        "proxy_redirect a b c;",
        "proxy_redirect a b; proxy_redirect off;",
        "proxy_redirect off; proxy_redirect a b;",
        "proxy_redirect ~( b;",
        "proxy_redirect ~(?<a>.) b; add_header A $a;",
        "proxy_redirect a $none;",
        "proxy_cookie_path /;",
        "proxy_cookie_domain off; proxy_cookie_domain a b;",
        "proxy_cookie_flags a;",
        "proxy_cookie_flags a bogus;",
        "proxy_cookie_flags a secure httponly samesite=lax nosecure;",
        "if ($arg_a) { proxy_redirect a b; }",
        "if ($arg_a) { proxy_cookie_path / /a; }",
    ] {
        let parsed = Snippet::parse(text, SnippetPlace::Location, RegexLimit::MEMORY_ONLY);
        assert!(parsed.is_err(), "{text}");
        assert!(!parsed.unwrap_err().restricts, "{text}");
    }
}
