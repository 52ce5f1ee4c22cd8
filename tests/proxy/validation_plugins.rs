//! Plugins that validate requests and responses, or respond in place of endpoints, on the wire.

use portico::plugin_api::AnyPluginKind;
use portico::plugin_chain::testing::chain;
use portico::plugins::REGISTRY;
use serde_json::{Value, json};

use crate::compression::gzip;
use crate::h2::{Http2Client, post_request, read_response, send_all};
use crate::harness::{Endpoint, Options, Route, TestServer, forward, reserve_address, route, snapshot, upstream};

async fn server(plugins: &[(&str, Value)], endpoint: &Endpoint) -> TestServer {
    let plugins: Vec<(&dyn AnyPluginKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let route = Route { plugins: Some(chain(&plugins)), ..route(action) };
    let (address, reserved) = reserve_address();
    let server = TestServer::start(Options::default(), address, reserved, snapshot(address, vec![route]));
    server.proxy.reconcile().await;
    server
}

/// A request with a body.
fn post(path: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: a.example\r\ncontent-length: {length}\r\n{fields}\r\n{body}")
}

/// An endpoint that sends this body with this content type.
async fn responding(content_type: &'static str, body: &'static str) -> Endpoint {
    Endpoint::scripted(move |mut stream, _| async move {
        while stream.request().await.is_some() {
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n");
            stream.send(format!("{head}{body}")).await;
        }
    })
    .await
}

const JSON: &str = "content-type: application/json\r\naccept: application/json\r\n";

#[tokio::test]
async fn json_that_exceeds_limits_does_not_reach_the_endpoint() {
    let endpoint = Endpoint::ok().await;
    let config = json!({"max_container_depth": 2, "allow_duplicate_object_entry_name": false, "max_body_size": 100});
    let server = server(&[("json-threat-protection", config)], &endpoint).await;
    for (body, status) in [
        ("{\"a\": [1]}".to_owned(), 200),
        ("[[[1]]]".to_owned(), 400),
        ("{\"a\": 1, \"a\": 2}".to_owned(), 400),
        ("{\"a\": ".to_owned(), 400),
        ("[".repeat(100), 400),
        (format!("[{}]", "1,".repeat(60)), 400),
    ] {
        let response = server.request(&post("/", JSON, &body)).await;
        assert_eq!(response.status, status, "{body}");
    }
    let chunked =
        format!("POST / HTTP/1.1\r\nhost: a\r\n{JSON}transfer-encoding: chunked\r\n\r\n5\r\n[[[[[\r\n0\r\n\r\n");
    assert_eq!(server.request(&chunked).await.status, 400);
    assert_eq!(endpoint.log.requests().len(), 1);
}

#[tokio::test]
async fn documents_with_entities_do_not_reach_the_endpoint() {
    let endpoint = Endpoint::ok().await;
    let server = server(&[("xml-threat-protection", json!({"document": 1000}))], &endpoint).await;
    let xml = "content-type: application/xml\r\n";
    let bomb = "<!DOCTYPE a [<!ENTITY b \"bb\"><!ENTITY c \"&b;&b;&b;\">]><a>&c;</a>";
    let large = format!("<a>{}</a>", "b".repeat(1000));
    for (body, status) in [("<a>b</a>", 200), (bomb, 400), ("<a><b></a>", 400), ("<a>&b;</a>", 400), (&large, 413)] {
        assert_eq!(server.request(&post("/", xml, body)).await.status, status, "{body}");
    }
    assert_eq!(server.request(&post("/", "content-type: text/html\r\n", "<a/>")).await.status, 400);
    assert_eq!(endpoint.log.requests().len(), 1);
}

/// In HTTP/2, no header needs to say that a body follows.
#[tokio::test]
async fn bodies_without_a_length_or_a_type_are_not_taken_for_none() {
    let document = json!({"openapi": "3.1.0", "info": {"title": "a", "version": "1"}, "paths": {"/": {"post": {
        "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {"200": {"description": "ok"}},
    }}}});
    for (plugin, config) in [
        ("json-threat-protection", json!({"max_container_depth": 2})),
        ("xml-threat-protection", json!({})),
        ("oas-validation", json!({"api_spec": document.to_string()})),
    ] {
        let endpoint = Endpoint::ok().await;
        let server = server(&[(plugin, config)], &endpoint).await;
        let client = Http2Client::connect(server.address).await;
        assert_eq!(client.request(post_request("/")).await.unwrap().status, 200, "{plugin}: without a body");
        let (response, mut body) = client.start_with_body(post_request("/")).await;
        // The response may come before the end of the body.
        send_all(&mut body, b"[[[1]]]").await.ok();
        assert_eq!(read_response(response).await.unwrap().status, 400, "{plugin}");
        assert_eq!(endpoint.log.requests().len(), 1, "{plugin}");
    }
}

/// The endpoint gets the decompressed body, so that is the one to check.
#[tokio::test]
async fn decompressed_bodies_are_validated() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let document = json!({"openapi": "3.1.0", "info": {"title": "a", "version": "1"}, "paths": {"/": {"post": {
        "requestBody": {"content": {"application/json": {"schema": schema}}},
        "responses": {"200": {"description": "ok"}},
    }}}});
    let by_schema = json!({"version": "draft7", "body_schema": schema.to_string()});
    for (plugin, config) in
        [("request-validator", by_schema), ("oas-validation", json!({"api_spec": document.to_string()}))]
    {
        let endpoint = Endpoint::ok().await;
        let decompression = ("compression", json!({"request": {"decompress": true}}));
        let server = server(&[decompression, (plugin, config)], &endpoint).await;
        let client = Http2Client::connect(server.address).await;
        for (body, status) in [("{\"a\": 1}", 200), ("{\"a\": \"x\"}", 400)] {
            let mut request = post_request("/");
            for (name, value) in [("content-type", "application/json"), ("content-encoding", "gzip")] {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
            let (response, mut stream) = client.start_with_body(request).await;
            send_all(&mut stream, &gzip(body.as_bytes())).await.unwrap();
            assert_eq!(read_response(response).await.unwrap().status, status, "{plugin} {body}");
        }
        assert_eq!(endpoint.log.requests().len(), 1, "{plugin}");
    }
}

#[tokio::test]
async fn injections_are_found_wherever_they_are_configured() {
    let endpoint = Endpoint::ok().await;
    let config = json!({"injection_types": ["sql", "js"], "locations": ["path_and_query", "headers", "body"]});
    let server = server(&[("injection-protection", config)], &endpoint).await;
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nhost: a.example\r\n{fields}\r\n");
    for (request, status) in [
        (get("/search?q=chairs&page=2", ""), 200),
        (get("/search?q=1%27%20or%20%271%27=%271", ""), 400),
        (get("/search?q=1%2527+or+1=1--", ""), 400),
        (get("/%3Cscript%3E", ""), 400),
        (get("/", "referer: https://a.example/?<script>\r\n"), 400),
        (post("/", JSON, "{\"a\": \"\\u003cscript\"}"), 400),
        (post("/", JSON, "{\"a\": \"chair\"}"), 200),
    ] {
        assert_eq!(server.request(&request).await.status, status, "{request}");
    }
    assert_eq!(endpoint.log.requests().len(), 2);
}

#[tokio::test]
async fn invalid_bodies_and_parameters_do_not_reach_the_endpoint() {
    let endpoint = Endpoint::ok().await;
    let config = json!({
        "version": "draft202012",
        "body_schema": "{\"type\": \"object\", \"required\": [\"name\"]}",
        "parameter_schema": [{"name": "page", "in": "query", "required": true, "style": "form", "explode": true,
                              "schema": "{\"type\": \"integer\"}"}],
        "verbose_response": true,
    });
    let server = server(&[("request-validator", config)], &endpoint).await;
    for (path, fields, body, status, message) in [
        ("/?page=1", JSON, "{\"name\": 1}", 200, ""),
        ("/?page=1", JSON, "{}", 400, "lacks the required member"),
        ("/?page=a", JSON, "{\"name\": 1}", 400, "page: must be an integer"),
        ("/", JSON, "{\"name\": 1}", 400, "page: required parameter is missing"),
        ("/?page=1", "content-type: text/plain\r\n", "a", 400, "specified Content-Type is not allowed"),
    ] {
        let response = server.request(&post(path, fields, body)).await;
        assert_eq!(response.status, status, "{path} {body}");
        assert!(response.text().contains(message), "{path} {body}: {}", response.text());
    }
    assert_eq!(endpoint.log.requests().len(), 1);
}

const API: &str = r##"
openapi: 3.1.0
info: {title: Shop, version: "1"}
paths:
  /orders/{id}:
    get:
      parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
      responses:
        200:
          description: ok
          content: {application/json: {schema: {type: object, required: [id]}, example: {id: 7}}}
    put:
      requestBody: {content: {application/json: {schema: {type: object, required: [id]}}}}
      responses: {204: {description: saved}}
"##;

#[tokio::test]
async fn only_requests_of_the_document_reach_the_endpoint() {
    let endpoint = responding("application/json", "{\"id\": 7}").await;
    let server = server(&[("oas-validation", json!({"api_spec": API}))], &endpoint).await;
    let put = |body: &str| post("/orders/7", JSON, body).replacen("POST", "PUT", 1);
    for (request, status) in [
        ("GET /orders/7 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 200),
        ("GET /orders/../orders/8 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 200),
        ("GET /orders/seven HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400),
        ("GET /customers HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400),
        ("DELETE /orders/7 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400),
        (put("{\"id\": 7}"), 200),
        (put("{}"), 400),
    ] {
        assert_eq!(server.request(&request).await.status, status, "{request}");
    }
    assert_eq!(endpoint.log.requests().len(), 3);
}

#[tokio::test]
async fn responses_that_do_not_conform_are_replaced() {
    let config = |extra: Value| {
        let mut config = json!({"api_spec": API, "validate_response_body": true});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        config
    };
    let get = "GET /orders/7 HTTP/1.1\r\nhost: a\r\n\r\n";
    for (content_type, body, extra, status) in [
        ("application/json", "{\"id\": 7}", json!({}), 200),
        ("application/json", "{}", json!({}), 406),
        ("application/json", "not JSON", json!({}), 406),
        ("text/html", "<html>", json!({}), 406),
        ("application/json", "{}", json!({"notify_only_response_body_validation_failure": true}), 200),
    ] {
        let endpoint = responding(content_type, body).await;
        let server = server(&[("oas-validation", config(extra))], &endpoint).await;
        let response = server.request(get).await;
        assert_eq!(response.status, status, "{content_type} {body}");
        assert_eq!(response.text() == body, status == 200, "{}", response.text());
    }
    // A coding that cannot be decoded hides the body.
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while stream.request().await.is_some() {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: br\r\n";
            stream.send(format!("{head}content-length: 9\r\n\r\n{{\"id\": 7}}")).await;
        }
    })
    .await;
    let server = server(&[("oas-validation", config(json!({})))], &endpoint).await;
    assert_eq!(server.request(get).await.status, 406);
}

#[tokio::test]
async fn mocks_respond_in_place_of_the_endpoint() {
    let endpoint = Endpoint::ok().await;
    let server = server(&[("mocking", json!({"api_specification": API}))], &endpoint).await;
    let response = server.request("GET /orders/7 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((response.status, &*response.text()), (200, "{\"id\":7}"));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("x-kong-mocking-plugin"), Some("true"));
    let saved = server.request(&post("/orders/7", JSON, "{}").replacen("POST", "PUT", 1)).await;
    assert_eq!(saved.status, 204);
    assert_eq!(server.request("GET /customers HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 404);
    let delayed = "GET /orders/7 HTTP/1.1\r\nhost: a\r\nx-kong-mocking-delay: 20000\r\n\r\n";
    assert_eq!(server.request(delayed).await.status, 400);
    assert_eq!(endpoint.log.requests().len(), 0);
}
