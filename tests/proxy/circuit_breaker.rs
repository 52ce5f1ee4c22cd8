//! Circuit breakers: when the requests to a Service get no endpoint, and what they get instead.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use portico::snapshot::timeouts_and_retries::{TimeoutSetting, TimeoutsAndRetries};
use portico::upstream::settings::{CircuitBreakerSettings, FallbackResponse};
use portico::upstream::{
    AlternativeBackends, BackendTraffic, CircuitPhase, EndpointAddress, Endpoints, Upstream, UpstreamKey,
    UpstreamRegistry,
};

use crate::accounting::scrape;
use crate::external_auth::{guarded_routes, http_filter};
use crate::h2::Http2Client;
use crate::h2_upstream::{Http2Endpoint, http2_endpoint};
use crate::harness::{
    Endpoint, Options, TestServer, forward, h2c_upstream, reserve_address, retries, route, upstream, with_timeout,
    with_timeouts_and_retries,
};
use crate::retry::sum;
use crate::stream;

/// Opens after two errors in a row, for longer than a test takes.
pub(crate) fn circuit() -> CircuitBreakerSettings {
    CircuitBreakerSettings {
        window: Duration::from_secs(10),
        min_requests: 1_000_000,
        error_percent: 50,
        slow: None,
        consecutive: Some(2),
        statuses: Box::default(),
        open_for: Duration::from_secs(3600),
        max_open_for: Duration::from_secs(3600),
        probes: 1,
        successes: 1,
        ramp_up: Duration::ZERO,
        fallback: None,
    }
}

fn endpoints(endpoint: &Endpoint, circuit: CircuitBreakerSettings) -> Endpoints {
    let traffic = BackendTraffic { overload: circuit.into(), ..BackendTraffic::default() };
    Endpoints { addresses: vec![EndpointAddress::Ip(endpoint.address)], traffic, ..Endpoints::default() }
}

/// A server whose only route leads to the endpoint, with this circuit breaker.
async fn server(endpoint: &Endpoint, circuit: CircuitBreakerSettings) -> (TestServer, Arc<Upstream>) {
    let web = upstream("web", &[]);
    web.set_endpoints(endpoints(endpoint, circuit));
    (TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await, web)
}

fn phase(upstream: &Upstream) -> CircuitPhase {
    upstream.overload_report().unwrap().circuit.unwrap().phase
}

async fn failing_endpoint() -> Endpoint {
    Endpoint::responding_with("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n").await
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

async fn statuses(server: &TestServer, requests: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..requests {
        statuses.push(server.request(GET).await.status);
    }
    statuses
}

#[tokio::test]
async fn open_circuit_responds_without_the_endpoint() {
    let endpoint = failing_endpoint().await;
    let (server, web) = server(&endpoint, circuit()).await;
    assert_eq!(statuses(&server, 4).await, [500, 500, 503, 503]);
    assert_eq!(endpoint.log.requests().len(), 2);
    assert_eq!(phase(&web), CircuitPhase::Open);
    let rejected = server.request(GET).await;
    let retry_after: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
    assert!((3200..=3960).contains(&retry_after), "{retry_after}");
    assert!(rejected.text().contains("The upstream server is currently unavailable"), "{}", rejected.text());
    assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"circuit_open\"}"], 3.0);
    let call = Request::post("http://a/s/m").header("content-type", "application/grpc").body(()).unwrap();
    let response = Http2Client::connect(server.address).await.request(call).await.unwrap();
    assert_eq!((response.status, &response.headers["grpc-status"]), (200, &"14".parse().unwrap()));
}

#[tokio::test]
async fn circuit_opens_if_no_endpoint_is_there() {
    let (dead, _dead_socket) = reserve_address();
    let web = upstream("web", &[]);
    let traffic = BackendTraffic { overload: circuit().into(), ..BackendTraffic::default() };
    web.set_endpoints(Endpoints { addresses: vec![EndpointAddress::Ip(dead)], traffic, ..Endpoints::default() });
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
    assert_eq!(statuses(&server, 3).await, [503, 503, 503]);
    let metrics = scrape(&server);
    assert_eq!(metrics["portico_request_errors_total{reason=\"connection_refused\"}"], 2.0);
    assert_eq!(metrics["portico_request_errors_total{reason=\"circuit_open\"}"], 1.0);
}

/// The endpoint never responds, and only the rule limits the time.
#[tokio::test]
async fn circuit_opens_after_request_timeouts() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move { while stream.request().await.is_some() {} }).await;
    let web = upstream("web", &[]);
    web.set_endpoints(endpoints(&endpoint, circuit()));
    let timeouts = TimeoutsAndRetries {
        request: TimeoutSetting::After(Duration::from_millis(50)),
        ..TimeoutsAndRetries::default()
    };
    let action = with_timeouts_and_retries(forward(vec![(1, Arc::clone(&web))]), timeouts);
    let server = TestServer::with_routes(vec![route(action)]).await;
    assert_eq!(statuses(&server, 3).await, [504, 504, 503]);
}

#[tokio::test]
async fn circuit_closes_after_a_success() {
    let endpoint = Endpoint::scripted(|mut stream, connection| async move {
        while stream.request().await.is_some() {
            let status = if connection < 2 { "500 X" } else { "200 OK" };
            stream.send(format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")).await;
        }
    })
    .await;
    // The circuit is half-open at the next request.
    let settings = CircuitBreakerSettings { open_for: Duration::ZERO, max_open_for: Duration::ZERO, ..circuit() };
    let (server, web) = server(&endpoint, settings).await;
    assert_eq!(statuses(&server, 5).await, [500, 500, 200, 200, 200]);
    let circuit = web.overload_report().unwrap().circuit.unwrap();
    assert_eq!((circuit.phase, circuit.transitions), (CircuitPhase::Closed, [1, 1, 1, 1]));
}

#[tokio::test]
async fn fallback_response_replaces_the_error() {
    let endpoint = failing_endpoint().await;
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    let fallback = FallbackResponse { status: StatusCode::OK, headers, body: Bytes::from_static(b"{\"items\":[]}") };
    let (server, _web) = server(&endpoint, CircuitBreakerSettings { fallback: Some(fallback), ..circuit() }).await;
    assert_eq!(statuses(&server, 2).await, [500, 500]);
    let response = server.request(GET).await;
    assert_eq!((response.status, response.text()), (200, "{\"items\":[]}".to_owned()));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let response = server.request("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((response.status, response.header("content-length")), (200, Some("12")));
    // What it was is still visible to the operator.
    assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"circuit_open\"}"], 2.0);
}

#[tokio::test]
async fn fallback_backend_gets_the_requests() {
    let (endpoint, other) = (failing_endpoint().await, Endpoint::ok().await);
    let registry = UpstreamRegistry::default();
    let key = |service: &str| UpstreamKey {
        namespace: "default".into(),
        service: service.into(),
        port: 80,
        ..UpstreamKey::default()
    };
    let addresses = vec![EndpointAddress::Ip(other.address)];
    registry.set_endpoints(&key("other"), Endpoints { addresses, ..Endpoints::default() });
    let mut configured = endpoints(&endpoint, circuit());
    let alternatives = AlternativeBackends { circuit_fallback: Some(key("other")), ..AlternativeBackends::default() };
    configured.traffic.alternatives = Some(Arc::new(alternatives));
    let web = registry.set_endpoints(&key("web"), configured);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, web)]))]).await;
    assert_eq!(statuses(&server, 2).await, [500, 500]);
    let mut client = server.connect().await;
    client.send("POST /form HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").await;
    assert_eq!(client.response().await.text(), "ok");
    let request = &other.log.requests()[0];
    assert!(request.starts_with("POST /form ") && request.ends_with("body"), "{request}");
    assert_eq!(endpoint.log.requests().len(), 2);
}

/// Trap: a rejection by Portico itself is sent again, or counts against an endpoint.
#[tokio::test]
async fn rejections_are_not_retried_and_eject_no_endpoint() {
    let endpoint = failing_endpoint().await;
    let web = upstream("web", &[]);
    web.set_endpoints(endpoints(&endpoint, circuit()));
    let action = with_timeouts_and_retries(forward(vec![(1, Arc::clone(&web))]), retries(3, &[503]));
    let server = TestServer::with_routes(vec![route(action)]).await;
    assert_eq!(statuses(&server, 5).await, [500, 500, 503, 503, 503]);
    assert_eq!(endpoint.log.requests().len(), 2);
    assert_eq!(sum(&scrape(&server), "portico_upstream_retries_total", &[]), 0.0);
    assert_eq!(web.endpoint_counts().ejected, 0);
}

/// A proxy in front of the endpoint has rejected the request.
#[tokio::test]
async fn overload_of_another_proxy_is_neither_retried_nor_an_error() {
    let response = "HTTP/1.1 503 X\r\nx-envoy-overloaded: true\r\ncontent-length: 0\r\n\r\n";
    let endpoint = Endpoint::responding_with(response).await;
    let web = upstream("web", &[]);
    web.set_endpoints(endpoints(&endpoint, circuit()));
    let action = with_timeouts_and_retries(forward(vec![(1, Arc::clone(&web))]), retries(3, &[503]));
    let server = TestServer::with_routes(vec![route(action)]).await;
    assert_eq!(statuses(&server, 5).await, [503; 5]);
    assert_eq!(endpoint.log.requests().len(), 5);
    assert_eq!(phase(&web), CircuitPhase::Closed);
}

#[tokio::test]
async fn errors_of_clients_do_not_open_the_circuit() {
    let endpoint = Endpoint::responding_with("HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n").await;
    let (server, web) = server(&endpoint, circuit()).await;
    assert_eq!(statuses(&server, 5).await, [404; 5]);
    assert_eq!(phase(&web), CircuitPhase::Closed);
    // A client that disconnects before the response, and one whose body ends early.
    for request in [GET, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nbo"] {
        for _ in 0..3 {
            let mut client = server.connect().await;
            client.send(request).await;
            drop(client);
        }
    }
    assert_eq!(statuses(&server, 1).await, [404]);
    assert_eq!(phase(&web), CircuitPhase::Closed);
}

#[tokio::test]
async fn circuit_of_an_authorization_server_decides_with_its_fallback() {
    let (authorization, endpoint) = (failing_endpoint().await, Endpoint::ok().await);
    for (status, expected) in [(401, 401), (200, 200)] {
        let auth = upstream("auth", &[]);
        let status = StatusCode::from_u16(status).unwrap();
        let fallback = FallbackResponse { status, headers: HeaderMap::new(), body: Bytes::new() };
        auth.set_endpoints(endpoints(&authorization, CircuitBreakerSettings { fallback: Some(fallback), ..circuit() }));
        let server = TestServer::with_routes(guarded_routes(http_filter(Arc::clone(&auth)), &endpoint)).await;
        statuses(&server, 2).await;
        assert_eq!(phase(&auth), CircuitPhase::Open);
        assert_eq!(statuses(&server, 2).await, [expected; 2]);
    }
    let auth = upstream("auth", &[]);
    auth.set_endpoints(endpoints(&authorization, circuit()));
    let server = TestServer::with_routes(guarded_routes(http_filter(auth), &endpoint)).await;
    statuses(&server, 2).await;
    assert_eq!(statuses(&server, 1).await, [503], "without a fallback no request passes");
}

#[tokio::test]
async fn connections_of_tcp_listeners_have_the_same_circuit() {
    let (dead, dead_socket) = reserve_address();
    let db = upstream("db", &[]);
    let traffic = BackendTraffic { overload: circuit().into(), ..BackendTraffic::default() };
    db.set_endpoints(Endpoints { addresses: vec![EndpointAddress::Ip(dead)], traffic, ..Endpoints::default() });
    let server = stream::start(Options::default(), stream::to_upstream(&db)).await;
    for _ in 0..3 {
        stream::assert_reset_at_once(&server).await;
    }
    stream::wait_for_outcome(&server, "circuit_open", 1.0).await;
    assert_eq!(stream::outcome_count(&server, "connection_refused"), 2.0);
    drop(dead_socket);
}

/// Responds to calls with a message, and then with the status that the field `x-status` of the call names. `reset`
/// breaks the stream off, and `none` ends it without a status.
async fn grpc_endpoint() -> Http2Endpoint {
    http2_endpoint(h2::server::Builder::new(), |mut call| async move {
        let status = call.request.headers()["x-status"].clone();
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = call.response.send_response(head, false).unwrap();
        stream.send_data(Bytes::from_static(b"message"), status == "none").unwrap();
        if status == "reset" {
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
        } else if status != "none" {
            stream.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), status)])).unwrap();
        }
    })
    .await
}

fn call(status: &str) -> Request<()> {
    let call = Request::post("http://a/s/m").header("content-type", "application/grpc").header("x-status", status);
    call.body(()).unwrap()
}

async fn call_with(server: &TestServer, call: Request<()>) {
    // The response may be broken off.
    drop(Http2Client::connect(server.address).await.request(call).await);
}

/// Two calls with the status, in a row.
async fn phase_after_calls(endpoint: &Http2Endpoint, status: &str, timeout: Option<&str>) -> CircuitPhase {
    let calls = h2c_upstream(endpoint.address);
    let traffic = BackendTraffic { overload: circuit().into(), ..BackendTraffic::default() };
    let addresses = vec![EndpointAddress::Ip(endpoint.address)];
    calls.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&calls))]))]).await;
    for _ in 0..2 {
        let mut call = call(status);
        if let Some(timeout) = timeout {
            call.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        call_with(&server, call).await;
    }
    phase(&calls)
}

/// The status of the response is 200, whatever its trailers say (envoyproxy/envoy#11049).
#[tokio::test]
async fn circuit_opens_by_the_statuses_in_trailers() {
    let endpoint = grpc_endpoint().await;
    for (status, expected) in [
        ("14", CircuitPhase::Open),
        ("13", CircuitPhase::Open),
        ("reset", CircuitPhase::Open),
        // A client takes a missing status for 2, UNKNOWN.
        ("none", CircuitPhase::Open),
        ("0", CircuitPhase::Closed),
        ("5", CircuitPhase::Closed),
        ("8", CircuitPhase::Closed),
    ] {
        assert_eq!(phase_after_calls(&endpoint, status, None).await, expected, "{status}");
    }
}

/// A client that sets short deadlines must not stop the requests of others (envoyproxy/envoy#22395).
#[tokio::test]
async fn circuit_does_not_open_by_the_deadlines_of_clients() {
    let endpoint = grpc_endpoint().await;
    assert_eq!(phase_after_calls(&endpoint, "4", None).await, CircuitPhase::Open);
    assert_eq!(phase_after_calls(&endpoint, "4", Some("100S")).await, CircuitPhase::Closed);
    assert_eq!(phase_after_calls(&endpoint, "14", Some("100S")).await, CircuitPhase::Open);
}

/// A stream may last for hours, and the circuit stays half-open until its trial has a result.
#[tokio::test]
async fn first_message_of_a_stream_is_a_success_of_a_half_open_circuit() {
    let endpoint = http2_endpoint(h2::server::Builder::new(), |mut call| async move {
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = call.response.send_response(head, false).unwrap();
        if call.request.headers()["x-status"] == "open" {
            stream.send_data(Bytes::from_static(b"message"), false).unwrap();
            std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
        } else {
            stream
                .send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), "14".parse().unwrap())]))
                .unwrap();
        }
    })
    .await;
    let calls = h2c_upstream(endpoint.address);
    let settings = CircuitBreakerSettings { open_for: Duration::ZERO, max_open_for: Duration::ZERO, ..circuit() };
    let traffic = BackendTraffic { overload: settings.into(), ..BackendTraffic::default() };
    let addresses = vec![EndpointAddress::Ip(endpoint.address)];
    calls.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&calls))]))]).await;
    for _ in 0..2 {
        call_with(&server, call("14")).await;
    }
    let client = Http2Client::connect(server.address).await;
    let (response, _sent) = client.start(call("open")).await;
    let mut body = with_timeout("a response", response).await.unwrap().into_body();
    assert_eq!(with_timeout("a message", body.data()).await.unwrap().unwrap(), &b"message"[..]);
    with_timeout("the end of the half-open phase", async {
        // Without a ramp, a circuit that is closing is closed.
        while phase(&calls) != CircuitPhase::Closed {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(calls.overload_report().unwrap().circuit.unwrap().transitions[CircuitPhase::Open as usize], 1);
}
