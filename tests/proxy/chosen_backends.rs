//! Plugins that choose Services, on the wire: what such a request gets, and what happens without an endpoint.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use portico::plugin_api::services::OfflineServices;
use portico::plugin_api::{PluginServices, PluginState};
use portico::plugin_chain::testing::{chain, chain_with};
use portico::plugins::REGISTRY;
use portico::snapshot::rule::{Action, Backend, BackendTarget, Filters, Rewrite, RouteFailure};
use serde_json::{Value, json};

use crate::harness::{Client, Endpoint, Route, TestServer, forward, header, route, upstream};

/// A proxy whose route forwards to `shop`, and whose plugin may choose these backends.
async fn server(plugin: &str, config: Value, shop: SocketAddr, chosen: Vec<Backend>) -> TestServer {
    let plugins = chain(&[(REGISTRY.find(plugin).unwrap(), config)]);
    TestServer::with_routes(vec![Route { plugins: Some(plugins), ..route(choosing(shop, chosen)) }]).await
}

/// Forwards to `shop`, unless a plugin chooses one of the others.
fn choosing(shop: SocketAddr, chosen: Vec<Backend>) -> Action {
    let Action::Forward(mut split) = forward(vec![(1, upstream("shop", &[shop]))]) else { panic!("forwards") };
    split.set_chosen_by_plugins(chosen);
    Action::Forward(split)
}

fn to(service: &str, addresses: &[SocketAddr]) -> Backend {
    let target = BackendTarget::Upstream(upstream(service, addresses));
    Backend { weight: 1, filters: Filters::default(), target }
}

/// The body of the response to a request.
async fn text(client: &mut Client, request: &str) -> String {
    client.send(request).await;
    client.response().await.text()
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n{fields}\r\n")
}

// docs/kong-compatibility.md, 5.5
#[tokio::test]
async fn canary_gets_its_requests_with_another_path_and_host() {
    let (shop, next) =
        (Endpoint::responding_with(response("shop")).await, Endpoint::responding_with(response("next")).await);
    let host = HeaderValue::from_static("next.default.80.svc");
    let rewrite = Some(Rewrite { host: Some(host), path: None });
    let filters = Filters { rewrite, ..Filters::default() };
    let config = json!({
        "percentage": 0, "upstream_host": "next.default.80.svc", "upstream_uri": "/v2",
        "canary_by_header_name": "X-Canary",
    });
    let chosen = Backend { filters, ..to("next", &[next.address]) };
    let server = server("canary", config, shop.address, vec![chosen]).await;
    let mut client = server.connect().await;
    assert_eq!(text(&mut client, &get("/cart?a=b", "")).await, "shop");
    assert_eq!(text(&mut client, &get("/cart?a=b", "x-canary: always\r\n")).await, "next");
    assert_eq!(text(&mut client, &get("/cart?a=b", "x-canary: never\r\n")).await, "shop");
    let [shop, next] = [&shop, &next].map(|endpoint| endpoint.log.requests());
    assert!(shop.iter().all(|request| request.starts_with("GET /cart?a=b ")), "{shop:?}");
    assert!(next[0].starts_with("GET /v2?a=b ") && next.len() == 1, "{next:?}");
    assert_eq!(header(&next[0], "host"), Some("next.default.80.svc"));
    assert_eq!(header(&shop[0], "host"), Some("a.example"));
}

// docs/kong-compatibility.md, 5.5
#[tokio::test]
async fn canary_without_endpoints_falls_back_only_if_it_may() {
    let shop = Endpoint::responding_with(response("shop")).await;
    for (has_fallback, backend, expected) in [
        (true, to("next", &[]), 200),
        (false, to("next", &[]), 503),
        (true, failing(RouteFailure::InvalidBackend), 200),
        (false, failing(RouteFailure::InvalidBackend), 500),
    ] {
        let config =
            json!({"percentage": 100, "upstream_host": "next.default.80.svc", "upstream_fallback": has_fallback});
        let server = server("canary", config, shop.address, vec![backend]).await;
        assert_eq!(server.request(&get("/", "")).await.status, expected, "{has_fallback}");
    }
}

// docs/kong-compatibility.md, 5.5
#[tokio::test]
async fn response_of_a_fallback_is_not_stored_as_that_of_the_canary() {
    let [shop, next] =
        [Endpoint::responding_with(response("shop")).await, Endpoint::responding_with(response("next")).await];
    let fallback = json!({"percentage": 100, "upstream_host": "next.default.80.svc", "upstream_fallback": true});
    let state = PluginState::default();
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    let routes = |endpoints: &[SocketAddr]| {
        let [canary, cache] = ["canary", "proxy-cache"].map(|name| REGISTRY.find(name).unwrap());
        let plugins =
            [(canary, fallback.clone()), (cache, json!({"strategy": "memory", "content_type": ["text/plain"]}))];
        let action = choosing(shop.address, vec![to("next", endpoints)]);
        vec![Route { plugins: Some(chain_with(&plugins, &state, &services)), ..route(action) }]
    };
    let server = TestServer::with_routes(routes(&[])).await;
    assert!(server.request(&get("/", "")).await.text().contains("shop"));
    server.replace_routes(routes(&[next.address]));
    server.proxy.reconcile().await;
    assert!(server.request(&get("/", "")).await.text().contains("next"));
}

// docs/kong-compatibility.md, 5.11
#[tokio::test]
async fn headers_select_the_service_of_their_rule() {
    let shop = Endpoint::responding_with(response("shop")).await;
    let [eu, us] = [Endpoint::responding_with(response("eu")).await, Endpoint::responding_with(response("us")).await];
    let rule = |region: &str| json!({"condition": {"x-region": region}, "upstream_name": format!("{region}.a.80.svc")});
    let config = json!({"rules": [rule("eu"), rule("us")]});
    let chosen = vec![to("eu", &[eu.address]), to("us", &[us.address])];
    let server = server("route-by-header", config, shop.address, chosen).await;
    let mut client = server.connect().await;
    for (fields, expected) in
        [("", "shop"), ("x-region: us\r\n", "us"), ("x-region: eu\r\n", "eu"), ("x-region: x\r\n", "shop")]
    {
        assert_eq!(text(&mut client, &get("/", fields)).await, expected, "{fields}");
    }
}

// docs/kong-compatibility.md, 5.11
#[tokio::test]
async fn stored_responses_are_those_of_the_chosen_service() {
    let shop = Endpoint::responding_with(response("shop")).await;
    let eu = Endpoint::responding_with(response("eu")).await;
    let rules = json!([{"condition": {"x-region": "eu"}, "upstream_name": "eu.a.80.svc"}]);
    let cache = json!({"strategy": "memory", "content_type": ["text/plain"], "cache_ttl": 60});
    let kind = |name: &str| REGISTRY.find(name).unwrap();
    let plugins = chain(&[(kind("route-by-header"), json!({"rules": rules})), (kind("proxy-cache"), cache)]);
    let action = choosing(shop.address, vec![to("eu", &[eu.address])]);
    let server = TestServer::with_routes(vec![Route { plugins: Some(plugins), ..route(action) }]).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        for (fields, expected) in [("", "shop"), ("x-region: eu\r\n", "eu")] {
            assert_eq!(text(&mut client, &get("/price", fields)).await, expected, "{fields}");
        }
    }
    assert_eq!([shop.log.requests().len(), eu.log.requests().len()], [1, 1], "the others come from the cache");
}

fn failing(failure: RouteFailure) -> Backend {
    Backend { weight: 1, filters: Filters::default(), target: BackendTarget::Fail(failure) }
}

fn response(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
