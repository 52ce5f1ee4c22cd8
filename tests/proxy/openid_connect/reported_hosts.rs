//! Logins behind a proxy that reports the scheme and the host that the browser has used.

use portico::plugin_api::{AnyPluginKind, PluginState};
use portico::plugin_chain::testing::chain_with;
use portico::plugins::REGISTRY;
use serde_json::{Value, json};

use super::SESSION_SECRET;
use super::provider::{CLIENT, Provider, SECRET, form};
use crate::harness::{Endpoint, Options, Route, TestServer, forward, reserve_address, route, snapshot, upstream};
use crate::http_log::loopback_services;

/// A proxy that trusts its peers and has the plugin, and the endpoint behind it.
async fn start(provider: &Provider, redirect_uri: &Value) -> (TestServer, Endpoint) {
    let config = json!({
        "issuer": provider.issuer, "client_id": [CLIENT], "client_secret": [SECRET], "redirect_uri": redirect_uri,
        "session_secret": SESSION_SECRET,
    });
    let plugins: Vec<(&dyn AnyPluginKind, Value)> = vec![(REGISTRY.find("openid-connect").unwrap(), config)];
    let chain = chain_with(&plugins, &PluginState::default(), &loopback_services());
    let endpoint = Endpoint::ok().await;
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let (address, reserved) = reserve_address();
    let routes = vec![Route { plugins: Some(chain), ..route(action) }];
    let options = Options { trusted: vec!["127.0.0.0/8"], ..Options::default() };
    let server = TestServer::start(options, address, reserved, snapshot(address, routes));
    server.proxy.reconcile().await;
    (server, endpoint)
}

/// Browsers were sent to the host of the connection, which only the proxy in front reaches.
#[tokio::test]
async fn logins_return_to_the_scheme_and_the_host_that_the_browser_has_used() {
    let provider = Provider::start().await;
    let reports = "x-forwarded-proto: https\r\nx-forwarded-host: shop.example\r\nx-forwarded-port: 443\r\n";
    let get = async |server: &TestServer, target: &str, cookie: &str| {
        let fields = format!("host: internal.svc:24000\r\naccept: text/html\r\n{reports}cookie: {cookie}\r\n");
        server.request(&format!("GET {target} HTTP/1.1\r\n{fields}\r\n")).await
    };
    let (server, _endpoint) = start(&provider, &json!(["http://shop.example/callback"])).await;
    let login = get(&server, "/page?a=b", "own=1").await;
    let cookie = login.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let callback = provider.log_in(login.header("location").unwrap());
    let response = get(&server, &callback, &cookie).await;
    assert_eq!((response.status, response.header("location")), (302, Some("https://shop.example/page?a=b")));
    assert!(response.head.contains("; Secure"), "{}", response.head);
    // Without a URI in the configuration, it is that of the page.
    let (server, _endpoint) = start(&provider, &json!([])).await;
    let login = get(&server, "/page?a=b", "own=1").await;
    let query = form(login.header("location").unwrap().split_once('?').unwrap().1);
    assert_eq!(query["redirect_uri"], "https://shop.example/page");
}
