//! Observed requests: what is recorded, what the endpoint and the client see of it, and dry runs.

use std::sync::Arc;

use http::StatusCode;
use portico::plugin_api::{AccessOutcome, Reply};
use portico::proxy::observations::{Observation, ObservationMode, ObservedRequests};
use portico::snapshot::redirect::RedirectAction;
use portico::snapshot::rule::{Action, RouteFailure};
use portico::upstream::settings::{
    Balancing, BalancingAlgorithm, CombineKeys, HashKey, HashSource, HashTable, RequestHash,
};
use portico::upstream::{EndpointAddress, Endpoints};

use crate::harness::{
    Endpoint, Route, TestResponse, TestServer, forward, header, reserve_address, route, routes_to, upstream,
    with_timeout,
};
use crate::mirror::{mirror, mirrored_routes};
use crate::plugins::{ScriptedPlugin, server};

const TOKEN: &str = "00112233445566778899aabbccddeeff";

fn request(method: &str, path: &str, token: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: a.example\r\nportico-observe: {token}\r\n\r\n")
}

/// Registers the token, sends a request with it, and returns the response and the observation.
async fn observe(server: &TestServer, mode: ObservationMode, method: &str, path: &str) -> (TestResponse, Observation) {
    let mut awaited = server.proxy.observed_requests().register(TOKEN, mode);
    let response = server.request(&request(method, path, TOKEN)).await;
    let observation = with_timeout("the observation", awaited.observation()).await;
    (response, observation.expect("the request has ended"))
}

fn observed(route: &str, path: &str) -> Observation {
    Observation {
        listener: Some("default/gw/http".to_owned()),
        route: Some(route.to_owned()),
        rule: Some("0".to_owned()),
        path: Some(path.to_owned()),
        ..Observation::default()
    }
}

#[tokio::test]
async fn observation_names_the_rule_the_backend_and_the_endpoint() {
    let (shop, api) = (Endpoint::ok().await, Endpoint::ok().await);
    let server = TestServer::with_routes(vec![
        Route { path: "/shop", ..route(forward(vec![(1, upstream("shop", &[shop.address]))])) },
        Route { path: "/shop/api", ..route(forward(vec![(1, upstream("api", &[api.address]))])) },
    ])
    .await;
    for (path, name, matched, endpoint) in [
        ("/shop/cart", "HTTPRoute/default/r0", "PathPrefix /shop", &shop),
        ("/shop/api/1", "HTTPRoute/default/r1", "PathPrefix /shop/api", &api),
    ] {
        let (response, observation) = observe(&server, ObservationMode::Serve, "GET", path).await;
        assert_eq!((response.status, &*response.text()), (200, "ok"));
        let service = if endpoint.address == shop.address { "shop" } else { "api" };
        let expected = Observation {
            backend: Some(format!("default/{service}:80")),
            endpoint: Some(endpoint.address),
            picked: Some("preferred"),
            status: Some(200),
            source: Some("endpoint"),
            ..observed(name, matched)
        };
        assert_eq!(observation, expected);
        let received = endpoint.log.requests().pop().unwrap();
        assert_eq!(header(&received, "portico-observe"), None, "{received}");
        assert!(!response.head.contains(TOKEN) && !response.head.contains("HTTPRoute"), "{}", response.head);
    }
}

#[tokio::test]
async fn observation_says_why_the_endpoint_was_picked() {
    let (endpoint, (refusing, _reserved)) = (Endpoint::ok().await, reserve_address());
    let hashed = upstream("hashed", &[]);
    let keys = [HashKey { source: HashSource::Path, regex: None }].into();
    let hash = RequestHash { keys, combine: CombineKeys::First, bounded_load_percent: None, subset_size: None };
    let algorithm = BalancingAlgorithm::ConsistentHash(HashTable::Maglev { table_size: 251 });
    hashed.set_endpoints(Endpoints {
        addresses: vec![EndpointAddress::Ip(endpoint.address)],
        balance: Balancing { algorithm, hash: Some(Arc::new(hash)), ..Balancing::default() },
        ..Endpoints::default()
    });
    let server = TestServer::with_routes(vec![
        Route { path: "/hashed", ..route(forward(vec![(1, hashed)])) },
        Route { path: "/retried", ..route(forward(vec![(1, upstream("retried", &[refusing, endpoint.address]))])) },
    ])
    .await;
    let (_, observation) = observe(&server, ObservationMode::Serve, "GET", "/hashed").await;
    assert_eq!((observation.endpoint, observation.picked), (Some(endpoint.address), Some("hash")));
    // The endpoints get requests in turn, so one of two requests is sent to the one that refuses connections first.
    let mut picked = Vec::new();
    for _ in 0..2 {
        let (_, observation) = observe(&server, ObservationMode::Serve, "GET", "/retried").await;
        assert_eq!(observation.endpoint, Some(endpoint.address));
        picked.extend(observation.picked);
    }
    assert!(picked.contains(&"retry"), "{picked:?}");
}

#[tokio::test]
async fn unknown_tokens_are_fields_like_any_other() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let other = "f".repeat(32);
    server.request(&request("GET", "/", &other)).await;
    let requests: Arc<ObservedRequests> = server.proxy.observed_requests();
    let registered = requests.register(TOKEN, ObservationMode::Serve);
    server.request(&request("GET", "/", &other)).await;
    for received in endpoint.log.requests() {
        assert_eq!(header(&received, "portico-observe"), Some(&*other), "{received}");
    }
    drop(registered);
    let response = server.request(&request("GET", "/", TOKEN)).await;
    assert_eq!(response.status, 200);
    let received = endpoint.log.requests().pop().unwrap();
    assert_eq!(header(&received, "portico-observe"), Some(TOKEN), "the token is not registered anymore");
}

#[tokio::test]
async fn dry_run_selects_the_backend_and_forwards_nothing() {
    let (endpoint, mirrored) = (Endpoint::ok().await, Endpoint::ok().await);
    let mirrors = vec![mirror(upstream("mirror", &[mirrored.address]), 1, 1)];
    let server = TestServer::with_routes(mirrored_routes(&endpoint, mirrors)).await;
    let (response, observation) = observe(&server, ObservationMode::DryRun, "DELETE", "/a").await;
    assert_eq!((response.status, response.body.len()), (204, 0), "{}", response.head);
    let expected = Observation {
        backend: Some("default/web:80".to_owned()),
        status: Some(204),
        source: Some("portico"),
        dry_run: true,
        ..observed("HTTPRoute/default/r0", "PathPrefix /")
    };
    assert_eq!(observation, expected);
    // A second request shows that the connection can be used, and that only it was forwarded.
    assert_eq!(observe(&server, ObservationMode::Serve, "GET", "/b").await.0.status, 200);
    mirrored.log.wait_for("the copy of the second request", |log| !log.requests().is_empty()).await;
    for log in [&endpoint.log, &mirrored.log] {
        let requests = log.requests();
        assert!(requests.len() == 1 && requests[0].starts_with("GET /b "), "{requests:?}");
    }
}

/// The client expects a dry run, so that its request is not forwarded if the token is not registered anymore.
#[tokio::test]
async fn unregistered_dry_run_is_refused() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let request = request("DELETE", "/", TOKEN).replace("\r\n\r\n", "\r\nexpect: portico-dry-run\r\n\r\n");
    assert_eq!(server.request(&request).await.status, 417);
    let mut awaited = server.proxy.observed_requests().register(TOKEN, ObservationMode::DryRun);
    assert_eq!(server.request(&request).await.status, 204);
    assert!(with_timeout("the observation", awaited.observation()).await.is_some_and(|found| found.dry_run));
    assert!(endpoint.log.requests().is_empty());
}

#[tokio::test]
async fn dry_run_runs_no_plugin() {
    let endpoint = Endpoint::ok().await;
    let replying = ScriptedPlugin::access(|_| {
        AccessOutcome::Reply(Reply::negotiated(StatusCode::IM_A_TEAPOT, "Short and stout", "terminated"))
    });
    let server = server(vec![replying], &endpoint).await;
    let (response, observation) = observe(&server, ObservationMode::Serve, "GET", "/").await;
    assert_eq!(response.status, 418);
    let served = (observation.source, observation.reason, observation.backend);
    assert_eq!(served, (Some("plugin"), Some("terminated"), None));
    let (response, observation) = observe(&server, ObservationMode::DryRun, "GET", "/").await;
    assert_eq!((response.status, observation.backend.as_deref()), (204, Some("default/web:80")));
    assert!(endpoint.log.requests().is_empty());
}

#[tokio::test]
async fn requests_without_a_backend_have_reasons() {
    let redirect = RedirectAction::new(StatusCode::FOUND);
    let (refused, _reserved) = reserve_address();
    let server = TestServer::with_routes(vec![
        Route { path: "/redirect", ..route(Action::Redirect(redirect)) },
        Route { path: "/fail", ..route(Action::Fail(RouteFailure::NoBackends)) },
        Route { path: "/refused", ..route(forward(vec![(1, upstream("web", &[refused]))])) },
    ])
    .await;
    for (path, mode, status, reason, backend) in [
        ("/redirect", ObservationMode::Serve, 302, None, None),
        ("/redirect", ObservationMode::DryRun, 204, None, None),
        ("/fail", ObservationMode::Serve, 500, Some("no_backends"), None),
        ("/fail", ObservationMode::DryRun, 500, Some("no_backends"), None),
        ("/refused", ObservationMode::Serve, 503, Some("connection_refused"), Some("default/web:80")),
    ] {
        let (response, observation) = observe(&server, mode, "GET", path).await;
        assert_eq!(response.status, status, "{path}");
        assert_eq!((observation.reason, observation.backend.as_deref()), (reason, backend), "{path}");
        assert_eq!((observation.source, observation.status), (Some("portico"), Some(status)), "{path}");
    }
    let (response, observation) = observe(&server, ObservationMode::Serve, "GET", "/elsewhere").await;
    let expected = Observation {
        listener: Some("default/gw/http".to_owned()),
        status: Some(404),
        source: Some("portico"),
        reason: Some("no_route"),
        ..Observation::default()
    };
    assert_eq!((response.status, observation), (404, expected));
}

#[tokio::test]
async fn disconnected_client_leaves_the_route_in_the_record() {
    let silent = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.read_to_end().await;
    })
    .await;
    let server = TestServer::with_routes(routes_to(silent.address)).await;
    let mut awaited = server.proxy.observed_requests().register(TOKEN, ObservationMode::Serve);
    let mut client = server.connect().await;
    client.send(request("GET", "/", TOKEN)).await;
    silent.log.wait_for("the request", |log| !log.requests().is_empty()).await;
    drop(client);
    let observation = with_timeout("the observation", awaited.observation()).await.unwrap();
    assert_eq!((observation.backend.as_deref(), observation.source), (Some("default/web:80"), None));
    assert_eq!((observation.status, observation.reason), (Some(499), Some("client_disconnected")));
}
