//! Tests of `error-pages`: which responses get which page.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain};

const KIND: RegisteredKind<ErrorPages> = RegisteredKind::NEW;

fn page(statuses: Value, from: &str) -> Value {
    json!({
        "statuses": statuses, "from": from,
        "bodies": [
            {"content_type": "text/html; charset=utf-8", "template": "<p>{{status}} {{title}} {{host}}{{path}}</p>"},
            {"content_type": "application/problem+json", "template": "{\"status\": {{status}}}"},
            {"content_type": "text/plain", "template": "{{status}}"},
        ],
    })
}

/// The outcome for a backend that responds with this status and these fields.
async fn run(config: Value, request: TestRequest, status: u16, headers: &[(&'static str, &str)]) -> TestOutcome {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let request = TestRequest { upstream_response: response.body(()).unwrap(), ..request };
    request.run(&chain(&[(&KIND, config)])).await
}

fn content_type(outcome: &TestOutcome) -> &str {
    outcome.response_header("content-type").unwrap_or_default()
}

#[tokio::test]
async fn pages_are_selected_by_status_and_source() {
    for (statuses, from, status, expected) in [
        (json!([404]), "backend", 404, true),
        (json!([404]), "both", 404, true),
        (json!([404]), "gateway", 404, false),
        (json!([404]), "both", 403, false),
        (json!(["500-504"]), "both", 503, true),
        (json!(["500-504"]), "both", 505, false),
        (json!(["4xx", "599"]), "both", 418, true),
        (json!(["4xx", "599"]), "both", 599, true),
        (json!(["4xx"]), "both", 200, false),
    ] {
        let config = json!({"pages": [page(statuses.clone(), from)]});
        let outcome = run(config, TestRequest::get("/"), status, &[]).await;
        assert_eq!(outcome.response.status, status);
        assert_eq!(content_type(&outcome).starts_with("text/html"), expected, "{statuses} {from} {status}");
    }
}

#[tokio::test]
async fn the_format_is_negotiated() {
    for (accept, expected) in [
        (None, "text/html; charset=utf-8"),
        (Some("text/html,application/xhtml+xml,*/*;q=0.8"), "text/html; charset=utf-8"),
        (Some("application/json"), "application/problem+json"),
        (Some("application/problem+json;q=0.5, text/plain;q=0.4"), "application/problem+json"),
        (Some("text/*;q=0.5, text/html;q=0.1"), "text/plain"),
        (Some("image/png"), "text/html; charset=utf-8"),
        (Some("nonsense;;q=;,"), "text/html; charset=utf-8"),
    ] {
        let mut request = TestRequest::get("/");
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        let outcome = run(json!({"pages": [page(json!(["4xx"]), "both")]}), request, 404, &[]).await;
        assert_eq!(content_type(&outcome), expected, "{accept:?}");
        assert_eq!(outcome.response_header("vary"), Some("Accept"), "{accept:?}");
    }
}

#[tokio::test]
async fn fields_that_do_not_describe_the_former_body_are_kept() {
    let headers = [
        ("www-authenticate", "Basic"),
        ("retry-after", "5"),
        ("set-cookie", "a=b"),
        ("content-encoding", "gzip"),
        ("content-language", "de"),
        ("etag", "\"1\""),
        ("digest", "x"),
        ("content-security-policy", "default-src 'none'"),
    ];
    let config = json!({"pages": [page(json!([401]), "both")]});
    let outcome = run(config.clone(), TestRequest::get("/"), 401, &headers).await;
    for (name, value) in headers {
        let is_kept = !["content-encoding", "content-language", "etag", "digest"].contains(&name);
        assert_eq!(outcome.response_header(name), is_kept.then_some(value), "{name}");
    }
    assert_eq!(outcome.response_header("cache-control"), Some("no-store"));
    let outcome = run(config, TestRequest::get("/"), 401, &[("cache-control", "max-age=5")]).await;
    assert_eq!(outcome.response_header("cache-control"), Some("max-age=5"));
    let config = json!({"pages": [page(json!([401]), "both")], "cache_control": ""});
    let outcome = run(config, TestRequest::get("/"), 401, &[]).await;
    assert_eq!(outcome.response_header("cache-control"), None);
}

#[tokio::test]
async fn pages_belong_to_hosts() {
    for (hosts, host, expected) in [
        (json!(["shop.example"]), "Shop.example:8080", true),
        (json!(["shop.example"]), "a.shop.example", false),
        (json!(["*.shop.example"]), "a.shop.example", true),
        (json!(["*.shop.example"]), "shop.example", false),
        (json!(["*.shop.example"]), "ashop.example", false),
    ] {
        let mut page = page(json!([404]), "both");
        page["hosts"] = hosts.clone();
        let outcome = run(json!({"pages": [page]}), TestRequest::get("/").header("host", host), 404, &[]).await;
        assert_eq!(!content_type(&outcome).is_empty(), expected, "{hosts} {host}");
    }
}

#[tokio::test]
async fn grpc_responses_stay_as_they_are() {
    let config = json!({"pages": [page(json!(["5xx"]), "both")]});
    let outcome = run(config, TestRequest::get("/"), 503, &[("content-type", "Application/gRPC+proto")]).await;
    assert_eq!(content_type(&outcome), "Application/gRPC+proto");
}

#[test]
fn only_the_port_is_removed_from_a_host() {
    for (host, expected) in
        [("a.example", "a.example"), ("a.example:80", "a.example"), ("[::1]:80", "[::1]:80"), ("", ""), ("a:b", "a:b")]
    {
        assert_eq!(host_name(host), expected);
    }
}

#[test]
fn invalid_configurations_are_refused_with_their_field() {
    let with = |field: &str, value: Value| {
        let mut page = page(json!([404]), "both");
        page[field] = value;
        json!({"pages": [page]})
    };
    let body = |content_type: &str, template: &str| json!([{"content_type": content_type, "template": template}]);
    for (config, field) in [
        (json!({}), "config.pages"),
        (json!({"pages": vec![page(json!([404]), "both"); 101]}), "config.pages"),
        (json!({"pages": [page(json!([404]), "both")], "cache_control": "a\nb"}), "config.cache_control"),
        (with("statuses", json!([])), "config.pages[0].statuses"),
        (with("statuses", json!([404, 200])), "config.pages[0].statuses[1]"),
        (with("statuses", json!(["500-400"])), "config.pages[0].statuses[0]"),
        (with("statuses", json!(["6xx"])), "config.pages[0].statuses[0]"),
        (with("hosts", json!(["a b"])), "config.pages[0].hosts[0]"),
        (with("hosts", json!(["a.example:80"])), "config.pages[0].hosts[0]"),
        (with("from", json!("plugins")), "config.pages[0].from"),
        (with("bodies", json!([])), "config.pages[0].bodies"),
        (json!({"pages": [page(json!(["4xx"]), "both"), page(json!([404]), "backend")]}), "config.pages[1]"),
        (json!({"pages": [page(json!([404, 410]), "backend"), page(json!([410]), "backend")]}), "config.pages[1]"),
        (
            with(
                "bodies",
                json!([
                    {"content_type": "text/html", "template": "a"},
                    {"content_type": "Text/html; charset=utf-8", "template": "b"},
                ]),
            ),
            "config.pages[0].bodies[1].content_type",
        ),
        (with("bodies", body("image/png", "")), "config.pages[0].bodies[0].content_type"),
        (with("bodies", body("text/html\n", "")), "config.pages[0].bodies[0].content_type"),
        (with("bodies", body("text/html", "{{secret}}")), "config.pages[0].bodies[0].template"),
        (with("bodies", body("text/html", &"x".repeat(1_048_577))), "config.pages"),
    ] {
        let problems = build(&KIND, &config).map(drop).unwrap_err();
        assert_eq!(problems.iter().map(|problem| &*problem.field).collect::<Vec<_>>(), [field]);
    }
}

#[tokio::test]
async fn the_first_page_that_fits_is_sent_and_the_status_stays() {
    let other =
        json!({"statuses": ["4xx"], "from": "both", "bodies": [{"content_type": "text/plain", "template": ""}]});
    let config = json!({"pages": [page(json!([404]), "both"), other]});
    for (status, expected) in [(404, "text/html; charset=utf-8"), (405, "text/plain")] {
        let outcome = run(config.clone(), TestRequest::get("/"), status, &[]).await;
        assert_eq!(
            (outcome.response.status, content_type(&outcome)),
            (StatusCode::from_u16(status).unwrap(), expected)
        );
    }
}
