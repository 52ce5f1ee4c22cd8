//! Tests of the steps of locations.

use bytes::Bytes;
use http::Request;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, VARY};

use super::*;
use crate::plugin_api::Scheme;
use crate::plugin_chain::Chain;
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, names};
use crate::snapshot::location_path::GroupTemplate;
use crate::snapshot::location_snippet::{MatchedLocation, Snippet, SnippetPlace};
use crate::snapshot::regex::RegexLimit;

fn chain(steps: LocationSteps) -> Arc<Chain> {
    let mut builder = ChainBuilder::default();
    let (ExecutionPlace { kind, priority }, instance) = Arc::new(steps).into_instance("a".into(), "a".into());
    builder.add(kind, priority, AttachmentPoint::Base(BaseScope::Route), instance);
    builder.build(names()).unwrap()
}

fn cross_origin() -> CrossOrigin {
    let value = HeaderValue::from_static;
    CrossOrigin {
        origins: Some([AllowedOrigin::parse("https://a.example").unwrap()].into()),
        allow_methods: value("GET"),
        allow_headers: value("DNT"),
        expose_headers: None,
        allows_credentials: true,
        max_age: value("60"),
    }
}

fn https(keeps_trailing_slash: bool) -> Option<HttpsRedirectOfLocation> {
    Some(HttpsRedirectOfLocation { status: StatusCode::PERMANENT_REDIRECT, keeps_trailing_slash, port: None })
}

fn location(outcome: &TestOutcome) -> Option<&str> {
    outcome.response.headers.get(LOCATION).and_then(|value| value.to_str().ok())
}

#[tokio::test]
async fn plain_text_is_redirected_without_a_slash_at_the_end() {
    for (target, keeps, expected) in [
        ("/", false, "https://test.example"),
        ("/a/", false, "https://test.example/a"),
        ("/a/", true, "https://test.example/a/"),
        ("/a?b=/", false, "https://test.example/a?b="),
        ("/a%2Fb//c?d", false, "https://test.example/a%2Fb//c?d"),
    ] {
        let steps = || LocationSteps { https_redirect: https(keeps), ..LocationSteps::default() };
        let outcome = TestRequest::get(target).run(&chain(steps())).await;
        let found = (outcome.response.status.as_u16(), location(&outcome));
        assert_eq!(found, (308, Some(expected)), "{target}");
        let mut request = TestRequest::get(target);
        request.scheme = Scheme::Https;
        assert!(request.run(&chain(steps())).await.reply.is_none(), "{target}");
    }
    let https_redirect = https(false).map(|redirect| HttpsRedirectOfLocation { port: Some(443), ..redirect });
    let steps = LocationSteps { https_redirect, ..LocationSteps::default() };
    let outcome = TestRequest::get("/a").run(&chain(steps)).await;
    assert_eq!(location(&outcome), Some("https://test.example:443/a"), "the default port, too");
}

#[tokio::test]
async fn all_requests_of_a_host_are_redirected_to_its_twin() {
    let steps = || {
        let redirect = HostRedirect { host: "www.a.example".into(), status: StatusCode::PERMANENT_REDIRECT };
        LocationSteps { host_redirect: Some(redirect), ..LocationSteps::default() }
    };
    for (target, expected) in [
        ("/", "http://www.a.example:80"),
        ("/foo/", "http://www.a.example:80/foo"),
        ("/foo?a=b", "http://www.a.example:80/foo?a=b"),
    ] {
        let outcome = TestRequest::get(target).run(&chain(steps())).await;
        assert_eq!((outcome.response.status.as_u16(), location(&outcome)), (308, Some(expected)), "{target}");
    }
}

#[tokio::test]
async fn steps_run_in_their_order() {
    let everything = || LocationSteps {
        cross_origin: Some(Arc::new(cross_origin())),
        response: Some(FixedResponse { status: StatusCode::FOUND, target: HeaderValue::from_static("/other") }),
        https_redirect: https(false),
        max_body_bytes: Some(3),
        ..LocationSteps::default()
    };
    let post = |origin: &'static str| {
        let request = Request::post("/a").header("content-length", "4").header("origin", origin);
        TestRequest::new(request.body(Bytes::from_static(b"body")).unwrap())
    };
    let preflight = || {
        let request = Request::options("/a").header("origin", "https://a.example");
        TestRequest::new(request.body(Bytes::new()).unwrap())
    };
    let mut steps: Vec<LocationSteps> = (0..4).map(|_| everything()).collect();
    steps[2].response = None;
    (steps[3].response, steps[3].https_redirect) = (None, None);
    let chains: Vec<Arc<Chain>> = steps.into_iter().map(chain).collect();
    for (index, request, status) in [
        (0, preflight(), 204),
        (1, post("https://a.example"), 302),
        (2, post("https://a.example"), 308),
        (3, post("https://b.example"), 413),
    ] {
        let outcome = request.run(&chains[index]).await;
        assert_eq!(outcome.response.status.as_u16(), status, "{index}");
        // Also on redirects and rejections.
        let is_allowed = outcome.response.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).is_some();
        assert_eq!((is_allowed, outcome.response.headers.get(VARY).is_some()), (index != 3, index != 3), "{index}");
    }
}

#[tokio::test]
async fn redirects_of_a_location_are_absolute() {
    for (status, target, expected) in [
        (301, "https://b.example/", Some("https://b.example/")),
        (308, "/login", Some("http://test.example/login")),
        (302, "relative", Some("relative")),
        (300, "/login", None),
        (304, "/login", None),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let response = Some(FixedResponse { status, target: HeaderValue::from_static(target) });
        let outcome = TestRequest::get("/a").run(&chain(LocationSteps { response, ..LocationSteps::default() })).await;
        assert_eq!((outcome.response.status, location(&outcome)), (status, expected), "{target}");
    }
}

#[tokio::test]
async fn redirects_to_paths_may_stay_relative() {
    let response = || Some(FixedResponse { status: StatusCode::FOUND, target: HeaderValue::from_static("/login") });
    let steps = LocationSteps { response: response(), base: RedirectBase::Nothing, ..LocationSteps::default() };
    assert_eq!(location(&TestRequest::get("/a").run(&chain(steps)).await), Some("/login"));
    for (server, of_location, expected) in [
        ("", "return 302 /b;", "/b"),
        ("", "return 302 http://c/;", "http://c/"),
        // That of the server is none of a location.
        ("return 302 /b;", "", "http://test.example/b"),
    ] {
        let mut steps = snippets(server, of_location);
        steps.snippets.as_mut().unwrap().base = RedirectBase::Nothing;
        let outcome = TestRequest::get("/a").run(&chain(steps)).await;
        assert_eq!(location(&outcome), Some(expected), "{server} {of_location}");
    }
}

#[tokio::test]
async fn transport_security_is_for_tls_only() {
    let value = Some(HeaderValue::from_static("max-age=1"));
    let steps = || LocationSteps { transport_security: value.clone(), ..LocationSteps::default() };
    for scheme in [Scheme::Http, Scheme::Https] {
        let mut request = TestRequest::get("/");
        request.scheme = scheme;
        let headers = request.run(&chain(steps())).await.response.headers;
        assert_eq!(headers.contains_key(STRICT_TRANSPORT_SECURITY), scheme == Scheme::Https);
    }
}

#[tokio::test]
async fn replaced_path_may_be_the_target_of_a_redirect() {
    let target = GroupTemplate::parse("https://b.example/$1").unwrap();
    let replacement = PathReplacement::new("/a/(.*)", target, None, RegexLimit::MEMORY_ONLY).unwrap();
    let steps = || LocationSteps { replacement: Some(Arc::new(replacement.clone())), ..LocationSteps::default() };
    for (target, expected) in [
        ("/a/b?c=d", Some("https://b.example/b?c=d")),
        ("/a/b?", Some("https://b.example/b")),
        ("/a/b%20c", Some("https://b.example/b%20c")),
        ("/b", None),
    ] {
        let outcome = TestRequest::get(target).run(&chain(steps())).await;
        assert_eq!(location(&outcome), expected, "{target}");
    }
}

/// The snippets of a server and of a location that serves all paths.
fn snippets(server: &str, location: &str) -> LocationSteps {
    let server = Snippet::parse(server, SnippetPlace::Server, RegexLimit::MEMORY_ONLY).unwrap();
    let location = Snippet::parse_below(location, &server, RegexLimit::MEMORY_ONLY).unwrap();
    let names = LocationNames { service: "cart".into(), ..LocationNames::default() };
    let matched = MatchedLocation::Prefix("/".into());
    let snippets = LocationSnippets::new(Some(Arc::new(server)), Arc::new(location), names, matched);
    LocationSteps { snippets: Some(snippets), ..LocationSteps::default() }
}

#[tokio::test]
async fn snippets_run_before_redirects_and_those_of_the_server_before_preflights() {
    let steps = |server: &str, location: &str| LocationSteps {
        cross_origin: Some(Arc::new(cross_origin())),
        response: Some(FixedResponse { status: StatusCode::FOUND, target: HeaderValue::from_static("/other") }),
        ..snippets(server, location)
    };
    let request = |method: Method| {
        let request = Request::builder().method(method).uri("/a").header("origin", "https://a.example");
        TestRequest::new(request.body(Bytes::new()).unwrap())
    };
    for (server, location, method, status) in [
        ("return 418;", "return 410;", Method::OPTIONS, 418),
        ("", "return 410;", Method::OPTIONS, 204),
        ("", "return 410;", Method::GET, 410),
        ("", "set $a 1;", Method::GET, 302),
        ("location = /a { return 200 text; }", "return 410;", Method::OPTIONS, 200),
        ("location = /a { deny 192.0.2.1; }", "", Method::GET, 403),
        ("location = /a { deny 192.0.2.2; }", "", Method::GET, 404),
        // A redirect precedes rules of addresses.
        ("", "deny all;", Method::GET, 302),
        ("deny all;", "", Method::OPTIONS, 204),
    ] {
        let outcome = request(method).run(&chain(steps(server, location))).await;
        assert_eq!(outcome.response.status.as_u16(), status, "{server} {location}");
    }
}

#[tokio::test]
async fn rules_of_addresses_are_those_of_the_location() {
    for (server, location, status) in [
        ("", "deny all;", 403),
        ("deny all;", "", 403),
        ("deny all;", "allow all;", 200),
        ("deny all; location /a { allow all; return 410; }", "", 410),
    ] {
        let outcome = TestRequest::get("/a").run(&chain(snippets(server, location))).await;
        assert_eq!(outcome.response.status.as_u16(), status, "{server} {location}");
    }
}

#[tokio::test]
async fn conditions_match_values_that_are_no_text() {
    let text = "if ($http_user_agent ~* curl) { return 403; } if ($cookie_a = b) { return 410; }";
    let chain = chain(snippets("", text));
    for (name, value, status) in
        [("user-agent", &b"curl\xff"[..], 403), ("cookie", b"x=\xff; A=b", 410), ("user-agent", b"\xff", 200)]
    {
        let mut request = TestRequest::get("/a");
        request.request.headers_mut().insert(name, HeaderValue::from_bytes(value).unwrap());
        assert_eq!(request.run(&chain).await.response.status.as_u16(), status, "{value:?}");
    }
}

#[tokio::test]
async fn texts_of_snippets_have_a_media_type_and_variables() {
    let steps = snippets("add_header X-From $arg_a always;", "return 200 \"$service_name $request_uri\";");
    let outcome = TestRequest::get("/b?a=c").run(&chain(steps)).await;
    let reply = outcome.reply.as_ref().unwrap();
    assert_eq!(reply.body, ReplyBody::Raw("cart /b?a=c".into()));
    let header = |name: &str| outcome.response.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!((header("content-type"), header("x-from")), (Some("text/html"), Some("c")));
}

#[tokio::test]
async fn the_endpoint_gets_the_fields_and_the_target_of_a_snippet() {
    let steps =
        snippets("", "proxy_set_header X-Host $host; rewrite ^/a/(.*) /b/$1 break; proxy_set_header X-Gone \"\";");
    let request = TestRequest::get("/a/c?d=e").header("x-gone", "1").header("x-host", "forged");
    let outcome = request.run(&chain(steps)).await;
    assert!(outcome.reply.is_none());
    assert_eq!(outcome.request.uri.to_string(), "/b/c?d=e");
    assert_eq!((outcome.upstream_header("x-host"), outcome.upstream_header("x-gone")), (Some("test.example"), None));
}

#[tokio::test]
async fn responses_have_the_fields_of_the_last_true_condition() {
    let text = "add_header X-A outer; if ($arg_b) { add_header X-B $arg_b; } if ($arg_c) { return 403; }";
    for (target, expected) in [
        ("/", (Some("outer"), None)),
        ("/?b=1", (None, Some("1"))),
        // Without `always`, not on errors.
        ("/?c=1", (None, None)),
    ] {
        let outcome = TestRequest::get(target).run(&chain(snippets("", text))).await;
        let header = |name: &str| outcome.response.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!((header("x-a"), header("x-b")), expected, "{target}");
    }
}

/// The status of the reply, or else the target that the endpoint gets.
fn status_or_target(outcome: &TestOutcome) -> String {
    outcome.reply_status().map_or_else(|| outcome.request.uri.to_string(), |status| status.as_str().to_owned())
}

#[tokio::test]
async fn rewrites_lead_to_the_location_again() {
    let locations = "location = /old { rewrite ^ /new last; } location = /new { return 410; } \
                     location = /older { rewrite ^ /app; } location /private { deny all; }";
    let moves = "rewrite ^/a/(.*) /b/$1 last; rewrite ^/b/(.*) /c/$1 break;";
    let count = |limit: usize| {
        let ones = "1".repeat(limit);
        format!("set $n \"${{n}}1\"; if ($n != {ones}) {{ rewrite ^ /n last; }} return 200 $n;")
    };
    for (server, location, target, expected) in [
        ("", moves, "/a/x?y", "/c/x?y"),
        ("", "rewrite ^/a /b; rewrite ^/b(.*)$ /c$1 break;", "/a", "/c"),
        ("", "if ($uri = /b) { return 410; } rewrite ^/a /b; break;", "/a", "/b"),
        ("", "if ($uri = /b) { return 410; } rewrite ^/a /b;", "/a", "410"),
        ("", "rewrite ^(.*)$ /a$1 last;", "/x", "500"),
        ("", &*count(11), "/", "200"),
        ("", &*count(12), "/", "500"),
        // The location is that of the path after the snippet of the server.
        ("rewrite ^/a/(.*) /b/$1 last; location = /b/x { return 410; }", "", "/a/x", "410"),
        ("rewrite ^/a/(.*) /b/$1; location = /b/x { return 410; }", "", "/a/y?z", "/b/y?z"),
        ("rewrite ^/a/(.*) /b/$1 break; location = /b/x { return 410; }", "", "/a/x", "410"),
        ("rewrite ^/a/(.*) /b/$1 last; location = /a/x { return 410; }", moves, "/a/x", "/c/x"),
        // Locations of the server.
        (locations, "", "/old", "410"),
        (locations, "if ($uri = /app) { return 418; }", "/older", "418"),
        (locations, "", "/older", "/app"),
        (
            "location = /old { more_set_input_headers 'X-A: b'; rewrite ^ /new last; }",
            "if ($http_x_a = b) { return 418; }",
            "/old",
            "418",
        ),
        (locations, "rewrite ^/open/(.*) /private/$1 last;", "/open/x", "403"),
        (locations, "rewrite ^/open/(.*) /private/$1;", "/open/x", "403"),
        ("location / { rewrite ^(.*)$ /a$1 last; }", "", "/x", "500"),
    ] {
        let outcome = TestRequest::get(target).run(&chain(snippets(server, location))).await;
        assert_eq!(status_or_target(&outcome), expected, "{server} {location} {target}");
    }
}

#[tokio::test]
async fn a_search_comes_after_the_steps_of_the_location() {
    let redirect = || Some(FixedResponse { status: StatusCode::FOUND, target: HeaderValue::from_static("/other") });
    for (flag, response, https_redirect, expected) in [
        ("last", None, None, "410"),
        ("last", redirect(), None, "410"),
        ("", redirect(), None, "302"),
        ("last", redirect(), https(false), "308"),
    ] {
        let snippets = snippets("", &format!("if ($uri = /b) {{ return 410; }} rewrite ^/a /b {flag};"));
        let outcome = TestRequest::get("/a").run(&chain(LocationSteps { response, https_redirect, ..snippets })).await;
        assert_eq!(status_or_target(&outcome), expected, "{flag}");
    }
}

#[tokio::test]
async fn errors_have_a_page_with_the_fields_of_its_redirect() {
    let text = "error_page 403 https://b.example/?u=$uri; add_header X-A b; if ($arg_c) { return 403; } \
                if ($arg_d) { return 403 text; } if ($arg_e) { return 410; }";
    for (target, expected) in [
        ("/", (200, None, Some("b"))),
        ("/x?c=1", (302, Some("https://b.example/?u=/x"), Some("b"))),
        ("/x?d=1", (403, None, None)),
        ("/x?e=1", (410, None, None)),
    ] {
        let outcome = TestRequest::get(target).run(&chain(snippets("", text))).await;
        let found = (outcome.response.status.as_u16(), location(&outcome), outcome.response_header("x-a"));
        assert_eq!(found, expected, "{target}");
    }
    let outcome = TestRequest::get("/").run(&chain(snippets("error_page 403 http://b.example;", "deny all;"))).await;
    assert_eq!((outcome.response.status.as_u16(), location(&outcome)), (302, Some("http://b.example")));
}
