//! The plugins for GraphQL on the wire.

use portico::plugin_chain::testing::chain;
use portico::plugins::REGISTRY;
use serde_json::{Value, json};

use crate::harness::{Endpoint, Route, TestServer, forward, header, route, upstream};

async fn server(plugin: &str, config: Value, endpoint: &Endpoint) -> TestServer {
    let plugins = Some(chain(&[(REGISTRY.find(plugin).unwrap(), config)]));
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    TestServer::with_routes(vec![Route { plugins, ..route(action) }]).await
}

/// A GraphQL server that sends the same response to all requests.
async fn graphql_endpoint() -> Endpoint {
    let body = r#"{"data":{"a":1}}"#;
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    Endpoint::responding_with(format!("{head}{body}")).await
}

fn post(body: &str) -> String {
    let head = "POST /graphql HTTP/1.1\r\nhost: a.example\r\naccept-encoding: gzip\r\ncontent-type: application/json";
    format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn paths_become_queries_with_a_body_of_their_own() {
    let endpoint = graphql_endpoint().await;
    let query = "query ($id: ID!, $first: Int) { user(id: $id) { orders(first: $first) { id } } }";
    let config = json!({"routes": [{"uri": "/users/:id", "query": query, "methods": ["GET", "PUT"]}]});
    let server = server("degraphql", config, &endpoint).await;
    let chunked = "PUT /users/8 HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\
                   \r\ne\r\n{\"first\":\"30\"}\r\n0\r\n\r\n";
    for (request, variables) in [
        ("GET /users/7?first=2 HTTP/1.1\r\nhost: a\r\n\r\n", json!({"id": "7", "first": 2})),
        (chunked, json!({"id": "8", "first": "30"})),
    ] {
        let response = server.request(request).await;
        assert_eq!((response.status, response.text().as_str()), (200, r#"{"data":{"a":1}}"#), "{request}");
        let received = endpoint.log.requests().pop().unwrap();
        let (head, body) = received.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /graphql HTTP/1.1\r\n"), "{head}");
        assert_eq!(header(head, "content-length"), Some(body.len().to_string().as_str()), "{head}");
        assert_eq!(header(head, "transfer-encoding"), None, "{head}");
        assert_eq!(serde_json::from_str::<Value>(body).unwrap(), json!({"query": query, "variables": variables}));
    }
    for target in ["/graphql", "/users", "/users/7/orders"] {
        let request = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(server.request(&request).await.status, 404, "{target}");
    }
    assert_eq!(endpoint.log.requests().len(), 2);
}

#[tokio::test]
async fn costly_and_ambiguous_requests_do_not_reach_the_endpoint() {
    let endpoint = graphql_endpoint().await;
    let config = json!({"limit": [20], "window_size": [3600], "window_type": "fixed", "max_cost": 10});
    let server = server("graphql-rate-limiting-advanced", config, &endpoint).await;
    let admitted = server.request(&post(r#"{"query": "{ a { b c } }"}"#)).await;
    assert_eq!((admitted.status, admitted.header("x-ratelimit-remaining-hour")), (200, Some("16")));
    let deep = format!(r#"{{"query": "{}"}}"#, "{a".repeat(5000));
    let many = format!(r#"{{"query": "{{ {} }}"}}"#, "a ".repeat(20));
    for body in [
        many.as_str(),
        &deep,
        r#"[{"query": "{ a }"}, {"query": "{ a }"}]"#,
        r#"{"query": "{ a }", "query": "{ b }"}"#,
        r#"{"query": "{ a"}"#,
        r#"{"query": "{ ...f } fragment f on Q { ...f }"}"#,
        "",
        "{",
    ] {
        let response = server.request(&post(body)).await;
        assert_eq!(response.status, 400, "{body:.60}: {}", response.text());
    }
    let in_query = post(r#"{"query": "{ a }"}"#).replacen("/graphql", "/graphql?query=%7Bb%7D", 1);
    assert_eq!(server.request(&in_query).await.status, 400);
    let large = post(&format!(r#"{{"query": "{{ a }}", "x": "{}"}}"#, "x".repeat(1 << 20)));
    assert_eq!(server.request(&large).await.status, 413);
    assert_eq!(endpoint.log.requests().len(), 1);
}

/// Further operations over such a connection would not be seen.
#[tokio::test]
async fn connections_are_not_upgraded() {
    let endpoint = graphql_endpoint().await;
    let limits = json!({"limit": [20], "window_size": [3600]});
    let routes = json!({"routes": [{"uri": "/graphql", "query": "{ a }"}]});
    for (plugin, config) in [("graphql-rate-limiting-advanced", limits), ("degraphql", routes)] {
        let server = server(plugin, config, &endpoint).await;
        let request = "GET /graphql?query=%7Ba%7D HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        assert_eq!(server.request(request).await.status, 400, "{plugin}");
    }
    assert_eq!(endpoint.log.requests().len(), 0);
}

#[tokio::test]
async fn queries_get_stored_responses_and_mutations_do_not() {
    let endpoint = graphql_endpoint().await;
    let server = server("graphql-proxy-cache-advanced", json!({}), &endpoint).await;
    for (body, outcome, received) in [
        (r#"{"query": "{ a }"}"#, "Miss", 1),
        (r#"{"query": "{a}", "variables": {}}"#, "Hit", 1),
        (r#"{"query": "mutation { a }"}"#, "Bypass", 2),
        (r#"{"query": "mutation { a }"}"#, "Bypass", 3),
        (r#"{"query": "{ b }"}"#, "Miss", 4),
    ] {
        let response = server.request(&post(body)).await;
        assert_eq!((response.status, response.header("x-cache-status")), (200, Some(outcome)), "{body}");
        assert_eq!(response.text(), r#"{"data":{"a":1}}"#, "{body}");
        assert_eq!(endpoint.log.requests().len(), received, "{body}");
    }
    let requests = endpoint.log.requests();
    assert_eq!(header(&requests[0], "accept-encoding"), None, "the plugin reads the response");
    assert_eq!(header(&requests[1], "accept-encoding"), Some("gzip"));
}
