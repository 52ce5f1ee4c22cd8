//! Health of endpoints as clients notice it: ejection by failed connections and requests, probes, and the return.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response};
use portico::endpoint_tls::UpstreamProtocol;
use portico::upstream::settings::{HealthSettings, PassiveChecks};
use portico::upstream::{
    Availability, BackendTraffic, EjectionCause, EndpointAddress, Endpoints, HealthChecks, Outcome, OutcomeClass,
    OwnSockets, Upstream, UpstreamKey, UpstreamRegistry,
};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::h2::{Http2Client, post_request};
use crate::h2_upstream::{counting_endpoint, http2_endpoint};
use crate::harness::{
    Client, Endpoint, Route, TestServer, forward, reserve_address, route, upstream, upstream_with_protocol,
    with_timeout,
};

fn endpoints(addresses: &[SocketAddr], passive: PassiveChecks) -> Endpoints {
    let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    addresses.sort();
    let health = HealthSettings { passive, ..HealthSettings::default() };
    let traffic = BackendTraffic { health: Some(Arc::new(health)), ..BackendTraffic::default() };
    Endpoints { addresses, traffic, ..Endpoints::default() }
}

async fn serve(upstream: &Arc<Upstream>) -> TestServer {
    TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(upstream))]))]).await
}

fn availability(upstream: &Upstream, address: SocketAddr) -> Availability {
    let reports = upstream.endpoint_reports();
    let report = reports.iter().find(|report| report.address == Some(address)).unwrap();
    report.health.as_ref().unwrap().availability
}

/// Closes each connection after a request, without a response.
async fn resetting_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
    })
    .await
}

/// A request that is not sent again, on a connection of its own.
async fn post(server: &TestServer) -> String {
    server.request("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.text()
}

#[tokio::test]
async fn unreachable_endpoint_is_probed_apart_from_requests() {
    let (refusing, reserved) = reserve_address();
    let working = Endpoint::ok().await;
    let registry = Arc::new(UpstreamRegistry::default());
    let _checks = HealthChecks::start(Arc::clone(&registry), Arc::new(OwnSockets::default()), NonZeroU32::MIN).unwrap();
    let key = UpstreamKey { namespace: "shop".into(), service: "cart".into(), port: 80, ..UpstreamKey::default() };
    let cart = registry.upstream(&key);
    cart.set_endpoints(endpoints(&[refusing, working.address], PassiveChecks::default()));
    let server = serve(&cart).await;
    let mut client = server.connect().await;
    with_timeout("an ejection", async {
        while availability(&cart, refusing) == Availability::Available {
            assert_eq!(client.get("/").await.text(), "ok", "requests go to the other endpoint");
        }
    })
    .await;

    // From now on, there are no requests.
    reserved.listen(16).unwrap();
    reserved.set_nonblocking(true).unwrap();
    let recovered =
        Endpoint::on_listener(TcpListener::from_std(reserved.into()).unwrap(), |mut stream, _| async move {
            while stream.request().await.is_some() {
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nback").await;
            }
        });
    recovered.log.wait_for("a probe", |log| log.connections() > 0).await;
    assert_eq!(recovered.log.requests(), [""; 0], "it is no request");
    with_timeout("the recovery", async {
        while availability(&cart, refusing) != Availability::Available {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // A lap of both endpoints is among the next three requests.
    let mut texts = Vec::new();
    for _ in 0..3 {
        texts.push(client.get("/").await.text());
    }
    assert!(texts.contains(&"back".to_owned()), "{texts:?}");
}

#[tokio::test]
async fn endpoint_that_resets_connections_is_ejected() {
    let (resetting, working) = (resetting_endpoint().await, Endpoint::ok().await);
    let web = upstream("web", &[resetting.address, working.address]);
    let server = serve(&web).await;
    let mut failures = 0;
    for _ in 0..30 {
        failures += usize::from(post(&server).await != "ok");
    }
    assert_eq!(failures, 5);
    assert_eq!(resetting.log.requests().len(), 5);
    assert_eq!(availability(&web, resetting.address), Availability::Ejected(EjectionCause::LocalOrigin));
}

#[tokio::test]
async fn responses_that_end_too_early_eject() {
    let cut = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    })
    .await;
    let working = Endpoint::ok().await;
    let web = upstream("web", &[cut.address, working.address]);
    let server = serve(&web).await;
    for _ in 0..30 {
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        // The response may be incomplete.
        drop(client.read_to_end().await);
    }
    assert_eq!(cut.log.requests().len(), 5);
    assert_eq!(availability(&web, cut.address), Availability::Ejected(EjectionCause::LocalOrigin));
}

#[tokio::test]
async fn only_endpoint_stays_in_service() {
    let resetting = resetting_endpoint().await;
    let web = upstream("web", &[resetting.address]);
    let server = serve(&web).await;
    for _ in 0..12 {
        post(&server).await;
    }
    assert_eq!(resetting.log.requests().len(), 12);
    assert_eq!(availability(&web, resetting.address), Availability::Available);
}

#[tokio::test]
async fn statuses_eject_only_if_the_policy_counts_them() {
    let failing = Endpoint::responding_with("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nfull").await;
    let working = Endpoint::ok().await;
    let web = upstream("web", &[failing.address, working.address]);
    let server = serve(&web).await;
    let mut client = server.connect().await;
    let requests = async |client: &mut Client| {
        let before = failing.log.requests().len();
        for _ in 0..20 {
            client.get("/").await;
        }
        failing.log.requests().len() - before
    };
    assert_eq!(requests(&mut client).await, 10, "a 503 may be deliberate");
    let addresses = [failing.address, working.address];
    web.set_endpoints(endpoints(&addresses, PassiveChecks { gateway_errors: 3, ..PassiveChecks::default() }));
    assert_eq!(requests(&mut client).await, 3);
    // The endpoint leaves and returns, as in an EndpointSlice while its readiness flaps.
    for addresses in [&addresses[1..], &addresses[..]] {
        web.set_endpoints(endpoints(addresses, PassiveChecks { gateway_errors: 3, ..PassiveChecks::default() }));
    }
    assert_eq!(requests(&mut client).await, 0);
}

#[tokio::test]
async fn half_open_endpoint_returns_with_the_first_success() {
    let flaky = Endpoint::scripted(|mut stream, number| async move {
        while stream.request().await.is_some() {
            if number < 5 {
                return;
            }
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nback").await;
        }
    })
    .await;
    let working = Endpoint::ok().await;
    let web = upstream("web", &[]);
    let base_ejection = Duration::from_millis(50);
    let passive = PassiveChecks { base_ejection, max_ejection: base_ejection, ..PassiveChecks::default() };
    web.set_endpoints(endpoints(&[flaky.address, working.address], passive));
    let server = serve(&web).await;
    with_timeout("an ejection", async {
        while flaky.log.requests().len() < 5 {
            post(&server).await;
        }
    })
    .await;
    let mut client = server.connect().await;
    with_timeout("a trial", async { while client.get("/").await.text() != "back" {} }).await;
    assert_eq!(availability(&web, flaky.address), Availability::Available);
}

/// The status of the response is 200.
#[tokio::test]
async fn grpc_calls_eject_by_the_status_in_their_trailers() {
    let failing = http2_endpoint(h2::server::Builder::new(), |mut call| async move {
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = call.response.send_response(head, false).unwrap();
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "14".parse().unwrap())]);
        stream.send_trailers(trailers).unwrap();
    })
    .await;
    let working = http2_endpoint(h2::server::Builder::new(), |mut call| async move {
        let head = Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
        call.response.send_response(head.body(()).unwrap(), true).unwrap();
    })
    .await;
    let calls = upstream_with_protocol(UpstreamProtocol::Http2, "calls", &[]);
    let passive = PassiveChecks { gateway_errors: 3, ..PassiveChecks::default() };
    calls.set_endpoints(endpoints(&[failing.address, working.address], passive));
    let server = serve(&calls).await;
    let client = Http2Client::connect(server.address).await;
    with_timeout("an ejection", async {
        while availability(&calls, failing.address) == Availability::Available {
            let mut call = post_request("/a.B/C");
            call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            client.request(call).await.unwrap();
        }
    })
    .await;
    assert_eq!(availability(&calls, failing.address), Availability::Ejected(EjectionCause::GatewayErrors));
}

/// A deadline that the client has set says nothing about the endpoint (envoyproxy/envoy#22395).
#[tokio::test]
async fn deadlines_of_clients_eject_no_endpoint() {
    let overdue = http2_endpoint(h2::server::Builder::new(), |mut call| async move {
        let head = Response::builder().header("content-type", "application/grpc").header("grpc-status", "4");
        call.response.send_response(head.body(()).unwrap(), true).unwrap();
    })
    .await;
    for (timeout, expected) in [(Some("100S"), true), (None, false)] {
        let working = http2_endpoint(h2::server::Builder::new(), |mut call| async move {
            let head = Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
            call.response.send_response(head.body(()).unwrap(), true).unwrap();
        })
        .await;
        let calls = upstream_with_protocol(UpstreamProtocol::Http2, "calls", &[]);
        let passive = PassiveChecks { gateway_errors: 3, ..PassiveChecks::default() };
        calls.set_endpoints(endpoints(&[overdue.address, working.address], passive));
        let server = serve(&calls).await;
        let client = Http2Client::connect(server.address).await;
        for _ in 0..12 {
            let mut call = post_request("/a.B/C");
            call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            if let Some(timeout) = timeout {
                call.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
            }
            client.request(call).await.unwrap();
        }
        let is_available = availability(&calls, overdue.address) == Availability::Available;
        assert_eq!(is_available, expected, "{timeout:?}");
    }
}

/// A connection to the endpoint has looked dead, so one from before is not used. Its request in progress ends.
#[tokio::test]
async fn marked_http2_connections_get_no_requests() {
    let (release, released) = watch::channel(false);
    let endpoint = counting_endpoint(h2::server::Builder::new(), released, |path| path == "/hold").await;
    let web = upstream_with_protocol(UpstreamProtocol::Http2, "web", &[]);
    web.set_endpoints(endpoints(&[endpoint.address], PassiveChecks::default()));
    let server = serve(&web).await;
    let mut client = server.connect().await;
    assert_eq!((client.get("/").await.status, client.get("/").await.status), (200, 200));
    assert_eq!(endpoint.connections(), 1);
    let mut held = server.connect().await;
    held.send("GET /hold HTTP/1.1\r\nhost: a\r\n\r\n").await;
    with_timeout("the request", async {
        while endpoint.requests() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    web.report(endpoint.address, &Outcome::of(OutcomeClass::Stale));
    assert_eq!(availability(&web, endpoint.address), Availability::Suspect);
    assert_eq!((client.get("/").await.status, client.get("/").await.status), (200, 200));
    assert_eq!(endpoint.connections(), 2, "one that was opened after the mark");
    release.send(true).unwrap();
    assert_eq!(held.response().await.status, 200);
    assert_eq!(availability(&web, endpoint.address), Availability::Available, "a connection was opened");
}

/// If each rule counted for itself, none of many would have enough failures.
#[tokio::test]
async fn failures_of_all_routes_count_together() {
    let (resetting, working) = (resetting_endpoint().await, Endpoint::ok().await);
    let web = upstream("web", &[resetting.address, working.address]);
    let routes = ["/a", "/b", "/c", "/d", "/e", "/f"];
    let server = TestServer::with_routes(
        routes.map(|path| Route { path, ..route(forward(vec![(1, Arc::clone(&web))])) }).into(),
    )
    .await;
    for path in routes.iter().cycle().take(24) {
        let request = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        server.request(&request).await;
    }
    assert_eq!(resetting.log.requests().len(), 5);
    assert_eq!(availability(&web, resetting.address), Availability::Ejected(EjectionCause::LocalOrigin));
}
