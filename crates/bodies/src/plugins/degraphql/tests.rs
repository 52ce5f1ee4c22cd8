//! Tests of routes, of the variables of requests, and of configurations.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::json;

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain};

const KIND: &RegisteredKind<DeGraphql> = &RegisteredKind::<DeGraphql>::NEW;

const REPOSITORY: &str = "query ($owner: String! $name: String!) { repository(owner: $owner, name: $name) { forks } }";
const LIST: &str = "query Q($first: Int = 3, $tags: [String!], $open: Boolean, $ratio: Float, $in: Input) { list }";

fn config() -> Value {
    json!({"routes": [
        {"uri": "/:owner/:name", "query": REPOSITORY},
        {"uri": "/repo", "query": REPOSITORY, "methods": ["GET", "PUT"]},
        {"uri": "/list/all", "query": LIST, "methods": ["GET", "POST"]},
        {"uri": "/", "query": "{ me }"},
    ]})
}

async fn run(request: TestRequest) -> TestOutcome {
    request.run(&chain(&[(KIND, config())])).await
}

fn sent(outcome: &TestOutcome) -> Value {
    let body = outcome.state.body_changes.replacement.as_ref().expect("the plugin has made a body");
    assert_eq!(outcome.request.method, Method::POST);
    assert_eq!(outcome.request.uri, "/graphql");
    assert_eq!(outcome.request.headers[CONTENT_TYPE], "application/json");
    assert_eq!(outcome.request.headers[CONTENT_LENGTH], body.len().to_string());
    serde_json::from_slice(body).unwrap()
}

// docs/kong-compatibility.md, 5.10
#[tokio::test]
async fn variables_come_from_path_query_and_body() {
    for (target, query, variables) in [
        ("/kong/a%20b?owner=other&x=1", REPOSITORY, json!({"owner": "kong", "name": "a b"})),
        ("/repo?owner=kong&name=kuma", REPOSITORY, json!({"owner": "kong", "name": "kuma"})),
        ("/repo", REPOSITORY, json!({})),
        (
            "/list/all?first=7&tags=a&tags=b&open=true&ratio=1.5",
            LIST,
            json!({"first": 7, "tags": ["a", "b"], "open": true, "ratio": 1.5}),
        ),
        ("/list/all?first=x&tags=a&open=", LIST, json!({"first": "x", "tags": ["a"], "open": ""})),
        ("/", "{ me }", json!({})),
    ] {
        let outcome = run(TestRequest::get(target)).await;
        assert_eq!(sent(&outcome), json!({"query": query, "variables": variables}), "{target}");
    }
    for (kind, body) in [
        ("application/json", r#"{"first": 5, "in": {"a": [1]}, "tags": "t", "other": 1}"#),
        ("application/x-www-form-urlencoded", "first=5&tags=t&other=1"),
    ] {
        let outcome = run(TestRequest::post("/list/all?open=false", kind, body)).await;
        let mut variables = json!({"first": 5, "tags": ["t"], "open": false});
        if kind == "application/json" {
            (variables["in"], variables["tags"]) = (json!({"a": [1]}), json!("t"));
        }
        assert_eq!(sent(&outcome)["variables"], variables, "{kind}");
    }
}

#[tokio::test]
async fn other_requests_are_rejected() {
    for (request, status) in [
        (TestRequest::get("/a/b/c"), 404),
        (TestRequest::get("/repo/"), 404),
        (TestRequest::get("/graphql"), 404),
        (TestRequest::get("//b"), 404),
        (TestRequest::post("/repo", "application/json", "{}"), 404),
        (TestRequest::get(&"/a".repeat(100)), 404),
        (TestRequest::get("/a/%ff"), 400),
        (TestRequest::post("/list/all", "application/json", "[1]"), 400),
        (TestRequest::post("/list/all", "text/plain", "a"), 400),
        (TestRequest::post("/list/all", "application/json", "{}").header("content-encoding", "gzip"), 400),
    ] {
        let target = request.request.uri().clone();
        let reply = run(request).await.reply_status();
        assert_eq!(reply.map(|status| status.as_u16()), Some(status), "{target}");
    }
}

#[test]
fn wrong_routes_are_refused_with_their_field() {
    let route = |uri: &str, query: &str| json!({"routes": [{"uri": uri, "query": query}]});
    let same = json!({"routes": [
        {"uri": "/a/:b", "query": "query ($b: ID) { a }", "methods": ["GET", "POST"]},
        {"uri": "/a/:c", "query": "query ($c: ID) { a }", "methods": ["POST"]},
    ]});
    for (config, field) in [
        (json!({"graphql_server_path": "graphql"}), "config.graphql_server_path"),
        (json!({"graphql_server_path": "/a b"}), "config.graphql_server_path"),
        (route("me", "{ me }"), "config.routes[0].uri"),
        (route("/a?b", "{ me }"), "config.routes[0].uri"),
        (route("/:", "{ me }"), "config.routes[0].uri"),
        (route("/:1", "query ($a: Int) { me }"), "config.routes[0].uri"),
        (route("/:a/:a", "query ($a: Int) { me }"), "config.routes[0].uri"),
        (route("/:a", "query ($b: Int) { me }"), "config.routes[0].uri"),
        (route("/me", "{ me"), "config.routes[0].query"),
        (route("/me", "query a { me } query b { me }"), "config.routes[0].query"),
        (route("/me", "{ ...f } fragment f on T { ...f }"), "config.routes[0].query"),
        (json!({"routes": [{"uri": "/", "query": "{a}", "methods": ["HEAD"]}]}), "config.routes[0].methods[0]"),
        (json!({"routes": [{"uri": "/", "query": "{a}", "methods": []}]}), "config.routes[0].methods"),
        (json!({"routes": [{"uri": "/"}]}), "config.routes[0]"),
        (same, "config.routes[1].uri"),
    ] {
        let invalid = build(KIND, &config).err().unwrap_or_default();
        let fields: Vec<_> = invalid.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, [field], "{config}");
    }
}
