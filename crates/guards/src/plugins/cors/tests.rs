//! Tests of CORS headers by configuration and origin.

use http::{Request, Response};
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing;
use crate::plugin_chain::testing::{TestRequest, build, chain};

const KIND: RegisteredKind<CorsPlugin> = RegisteredKind::NEW;

/// `Access-Control-Allow-Origin` and `Vary` of a response whose endpoint allows another origin.
async fn cors_headers(config: &Value, origin: Option<&str>) -> (Option<String>, Option<String>) {
    let request = TestRequest::get("/");
    let mut request = match origin {
        Some(origin) => request.header("origin", origin),
        None => request,
    };
    request.upstream_response =
        Response::builder().header("access-control-allow-origin", "https://endpoint").body(()).unwrap();
    let outcome = request.run(&chain(&[(&KIND, config.clone())])).await;
    let header = |name| outcome.response_header(name).map(str::to_owned);
    (header("access-control-allow-origin"), header("vary"))
}

// docs/kong-compatibility.md, 4.8
// docs/kong-compatibility.md, 7.19
#[tokio::test]
async fn origins_are_matched_with_entries() {
    let vary = Some("Origin");
    let a = "https://a.example";
    for (origins, origin, allowed, varies) in [
        (json!([]), Some(a), Some("*"), None),
        (json!([]), None, Some("*"), None),
        (json!(["*"]), Some(a), Some("*"), None),
        // A single origin is returned for every request.
        (json!(["https://b.example"]), Some(a), Some("https://b.example"), vary),
        (json!(["https://b.example"]), None, Some("https://b.example"), vary),
        (json!(["b.example"]), Some(a), Some("b.example"), vary),
        // Of several origins, the one of the request is returned, without a default port.
        (json!([a, "https://b.example"]), Some(a), Some(a), vary),
        (json!([a, "https://b.example"]), Some("https://a.example:443"), Some(a), vary),
        (json!(["https://a.example:443", "https://b.example"]), Some(a), Some(a), vary),
        (json!([a, "https://b.example"]), Some("https://a.example:8443"), None, vary),
        (json!([a, "https://b.example"]), Some("http://a.example"), None, vary),
        (json!([a, "https://b.example"]), Some("null"), None, vary),
        (json!([a, "https://b.example"]), None, None, vary),
        (json!(["http://a.example:80", "*"]), Some("http://a.example"), Some("http://a.example"), vary),
        (json!(["https://c.example", "*"]), Some(a), Some("*"), vary),
        // A host without a scheme in a list matches only an origin without a scheme, which browsers do not send.
        (json!(["a.example", "b.example"]), Some(a), None, vary),
        (json!(["a.example", "b.example"]), Some("b.example"), Some("b.example"), vary),
        (json!([".*\\.?example(?:-foo)?.test"]), Some("www.example-foo.test"), Some("www.example-foo.test"), vary),
        (json!([".*\\.?example(?:-foo)?.test"]), Some("www.example-fo0.test"), None, vary),
        (json!(["*.example", "https://b.example"]), Some("a.example"), None, vary),
        // An empty origin counts as absent.
        (json!(["https://b.example"]), Some(""), Some("https://b.example"), vary),
        (json!([a, "https://b.example"]), Some(""), None, vary),
        // Expressions without a colon match the whole host, others the whole origin.
        (json!(["(a|b)\\.example"]), Some(a), Some(a), vary),
        (json!(["(a|b)\\.example"]), Some("http://b.example:81"), Some("http://b.example:81"), vary),
        (json!(["(a|b)\\.example"]), Some("https://a.example.evil"), None, vary),
        (json!(["(a|b)\\.example"]), Some("https://xa.example"), None, vary),
        (json!(["https://.*\\.example(:8443)?"]), Some(a), Some(a), vary),
        (json!(["https://.*\\.example(:8443)?"]), Some("https://a.example:8443"), Some("https://a.example:8443"), vary),
        (json!(["https://.*\\.example(:8443)?"]), Some("https://a.example:8444"), None, vary),
        (json!(["a\\.example|b\\.example"]), Some("https://b.example.evil"), None, vary),
        // A longer origin is not matched with expressions.
        (json!(["a+"]), Some(&*format!("https://{}", "a".repeat(60_000))), None, vary),
    ] {
        let found = cors_headers(&json!({"origins": origins}), origin).await;
        assert_eq!((found.0.as_deref(), found.1.as_deref()), (allowed, varies), "{origins} {origin:?}");
    }
}

// docs/kong-compatibility.md, 4.8
// docs/kong-compatibility.md, 7.19
#[tokio::test]
async fn wildcard_hosts_match_only_subdomains() {
    let single = json!(["https://*.company.com"]);
    let listed = json!(["https://other.example", "https://*.company.com"]);
    let with_port = json!(["https://*.company.com:8443"]);
    let any_port = json!(["https://*.company.com:*"]);
    let any_scheme = json!(["*.company.com"]);
    for (origins, origin, is_allowed) in [
        (&single, "https://shop.company.com", true),
        (&single, "https://a.b.company.com", true),
        (&single, "https://Shop.Company.com", true),
        (&single, "https://shop.company.com:443", true),
        (&single, "https://xcompany.com", false),
        (&single, "https://company.com", false),
        (&single, "https://.company.com", false),
        (&single, "http://shop.company.com", false),
        (&single, "https://shop.company.com:8443", false),
        (&single, "https://shop.company.com.evil.example", false),
        (&single, "https://shop-company.com", false),
        (&single, "https://evil.example/.company.com", false),
        (&single, "https://evil.example?.company.com", false),
        (&listed, "https://other.example", true),
        (&listed, "https://shop.company.com", true),
        (&listed, "https://xcompany.com", false),
        (&listed, "https://company.com", false),
        (&listed, "https://shop.other.example", false),
        (&with_port, "https://shop.company.com:8443", true),
        (&with_port, "https://shop.company.com", false),
        (&any_port, "https://shop.company.com:1", true),
        (&any_port, "https://xcompany.com", false),
        (&any_scheme, "http://shop.company.com", true),
        (&any_scheme, "http://xcompany.com", false),
    ] {
        let (allowed, vary) = cors_headers(&json!({"origins": origins}), Some(origin)).await;
        assert_eq!(allowed.is_some(), is_allowed, "{origins} {origin}");
        assert_eq!(vary.as_deref(), Some("Origin"), "{origins} {origin}");
    }
}

#[test]
fn only_wildcard_hosts_get_a_note() {
    let config = json!({"origins": ["https://*.company.com", "https://a.example", "https://.*\\.example"]});
    let notes = testing::notes(&KIND, &config);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(notes[0].field, "config.origins[0]");
    assert!(notes[0].message.contains("subdomains"), "{notes:?}");
    assert_eq!(testing::notes(&KIND, &json!({"origins": ["*"]})), []);
}

// docs/kong-compatibility.md, 4.8
#[tokio::test]
async fn preflight_requests_get_a_reply() {
    let listed = json!({
        "origins": ["https://a.example", "https://b.example"], "headers": ["X-One", "X-Two"],
        "methods": ["GET", "POST"], "max_age": 3600, "credentials": true, "private_network": true,
        "exposed_headers": ["X-Three"],
    });
    let all_methods = "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT";
    for (config, request_headers, expected) in [
        (json!({}), "", vec![("allow-origin", "*"), ("allow-methods", all_methods)]),
        (
            json!({"private_network": false}),
            "headers: x-a,x-b\nprivate-network: true",
            vec![("allow-origin", "*"), ("allow-methods", all_methods), ("allow-headers", "x-a,x-b")],
        ),
        (
            listed.clone(),
            "headers: x-a\nprivate-network: true",
            vec![
                ("allow-origin", "https://a.example"),
                ("allow-credentials", "true"),
                ("allow-headers", "X-One,X-Two"),
                ("allow-methods", "GET,POST"),
                ("max-age", "3600"),
                ("allow-private-network", "true"),
            ],
        ),
        (json!({"max_age": -1}), "", vec![("allow-origin", "*"), ("allow-methods", all_methods), ("max-age", "-1")]),
    ] {
        let mut request = Request::options("/").header("origin", "https://a.example");
        request = request.header("access-control-request-method", "PUT");
        for (name, value) in request_headers.lines().filter_map(|line| line.split_once(": ")) {
            request = request.header(format!("access-control-request-{name}"), value);
        }
        let outcome =
            TestRequest::new(request.body(bytes::Bytes::new()).unwrap()).run(&chain(&[(&KIND, config.clone())])).await;
        let reply = outcome.reply.as_ref().unwrap();
        assert_eq!((reply.status, &reply.body), (StatusCode::OK, &ReplyBody::Empty), "{config}");
        let found =
            outcome.response.headers.iter().filter_map(|(name, value)| {
                Some((name.as_str().strip_prefix("access-control-")?, value.to_str().ok()?))
            });
        let (mut found, mut expected) = (found.collect::<Vec<_>>(), expected);
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{config} {request_headers}");
    }
}

// docs/kong-compatibility.md, 4.8
#[tokio::test]
async fn other_requests_are_forwarded() {
    let chain = chain(&[(&KIND, json!({"exposed_headers": ["X-Three", "X-Four"]}))]);
    for (method, headers) in [
        ("OPTIONS", vec![("origin", "https://a.example")]),
        ("OPTIONS", vec![("access-control-request-method", "PUT")]),
        ("GET", vec![("origin", "https://a.example"), ("access-control-request-method", "PUT")]),
    ] {
        let request = headers
            .iter()
            .fold(Request::builder().method(method), |request, (name, value)| request.header(*name, *value));
        let outcome = TestRequest::new(request.body(bytes::Bytes::new()).unwrap()).run(&chain).await;
        assert!(outcome.reply.is_none(), "{method} {headers:?}");
        assert_eq!(outcome.response_header("access-control-allow-origin"), Some("*"));
        assert_eq!(outcome.response_header("access-control-expose-headers"), Some("X-Three,X-Four"));
        assert_eq!(outcome.response_header("access-control-allow-methods"), None);
    }
}

// docs/kong-compatibility.md, 4.8
#[tokio::test]
async fn forwarded_preflight_responses_are_unchanged() {
    let chain = chain(&[(&KIND, json!({"preflight_continue": true, "origins": ["https://b.example"]}))]);
    let request = Request::options("/").header("origin", "https://a.example");
    let request = request.header("access-control-request-method", "PUT").body(bytes::Bytes::new()).unwrap();
    let mut test_request = TestRequest::new(request);
    test_request.upstream_response =
        Response::builder().header("access-control-allow-origin", "https://endpoint").body(()).unwrap();
    let outcome = test_request.run(&chain).await;
    assert!(outcome.reply.is_none());
    assert_eq!(outcome.response.headers.len(), 1, "{:?}", outcome.response.headers);
    assert_eq!(outcome.response_header("access-control-allow-origin"), Some("https://endpoint"));
}

// docs/kong-compatibility.md, 4.8
#[tokio::test]
async fn credentials_replace_the_wildcard_by_the_origin() {
    for (origins, origin, allowed, credentials, vary) in [
        (json!([]), Some("https://a.example"), Some("https://a.example"), Some("true"), Some("Origin")),
        (json!(["*"]), Some("https://a.example"), Some("https://a.example"), Some("true"), Some("Origin")),
        (json!([]), None, Some("*"), None, None),
        (json!(["https://b.example"]), None, Some("https://b.example"), Some("true"), Some("Origin")),
    ] {
        let request = TestRequest::get("/");
        let request = match origin {
            Some(origin) => request.header("origin", origin),
            None => request,
        };
        let outcome = request.run(&chain(&[(&KIND, json!({"origins": origins, "credentials": true}))])).await;
        assert_eq!(outcome.response_header("access-control-allow-origin"), allowed, "{origins} {origin:?}");
        assert_eq!(outcome.response_header("access-control-allow-credentials"), credentials, "{origins} {origin:?}");
        assert_eq!(outcome.response_header("vary"), vary, "{origins} {origin:?}");
    }
}

// docs/kong-compatibility.md, 4.8
#[tokio::test]
async fn allow_origin_absent_false_omits_headers_without_origin() {
    let chain = chain(&[(&KIND, json!({"allow_origin_absent": false, "exposed_headers": ["X"]}))]);
    let outcome = TestRequest::get("/").run(&chain).await;
    assert!(outcome.response.headers.is_empty(), "{:?}", outcome.response.headers);
    let outcome = TestRequest::get("/").header("origin", "").run(&chain).await;
    assert!(outcome.response.headers.is_empty(), "an empty origin: {:?}", outcome.response.headers);
    let outcome = TestRequest::get("/").header("origin", "https://a.example").run(&chain).await;
    assert_eq!(outcome.response_header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn vary_of_the_endpoint_is_kept() {
    for (endpoint_vary, expected) in [("Accept", vec!["Accept", "Origin"]), ("accept, origin", vec!["accept, origin"])]
    {
        let mut request = TestRequest::get("/").header("origin", "https://a.example");
        request.upstream_response = Response::builder().header("vary", endpoint_vary).body(()).unwrap();
        let outcome = request.run(&chain(&[(&KIND, json!({"origins": ["https://a.example"]}))])).await;
        let vary: Vec<_> = outcome.response.headers.get_all("vary").iter().collect();
        assert_eq!(vary, expected);
    }
}

#[test]
fn invalid_configurations_are_rejected() {
    for (config, field) in [
        (json!({"origins": ["*", "("]}), "config.origins[1]"),
        (json!({"origins": [""]}), "config.origins[0]"),
        (json!({"origins": [".*.example.com", "invalid_**regex"]}), "config.origins[1]"),
        (json!({"origins": ["https?://*.company.com"]}), "config.origins[0]"),
        (json!({"origins": ["a.example", "https://a{4000}"]}), "config.origins"),
        (json!({"origins": ["https://*.company.*"]}), "config.origins[0]"),
        (json!({"headers": ["X A"]}), "config.headers[0]"),
        (json!({"exposed_headers": ["X", "\n"]}), "config.exposed_headers[1]"),
        (json!({"methods": ["get"]}), "config.methods[0]"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
    }
}
