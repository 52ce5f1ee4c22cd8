//! Failover to the backends of another Service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use portico::upstream::settings::{
    CircuitBreakerSettings, FallbackResponse, OverloadSettings, RequestLimits, RequestTimeouts,
};
use portico::upstream::{
    AlternativeBackends, BackendTraffic, EndpointAddress, Endpoints, Upstream, UpstreamKey, UpstreamRegistry,
};
use tokio::sync::Semaphore;

use crate::circuit_breaker::circuit;
use crate::endpoints::unresponsive_address;
use crate::external_auth::{authorization_server, guarded_routes, http_filter};
use crate::harness::{Endpoint, Options, TestServer, forward, reserve_address, route};
use crate::request_limits;
use crate::sessions;
use crate::stream;

pub(crate) fn key(service: &str) -> UpstreamKey {
    UpstreamKey { namespace: "default".into(), service: service.into(), port: 80, ..UpstreamKey::default() }
}

fn set_endpoints(
    registry: &UpstreamRegistry,
    service: &str,
    addresses: &[SocketAddr],
    alternatives: Option<AlternativeBackends>,
) -> Arc<Upstream> {
    let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    addresses.sort();
    let traffic = BackendTraffic { alternatives: alternatives.map(Arc::new), ..BackendTraffic::default() };
    registry.set_endpoints(&key(service), Endpoints { addresses, traffic, ..Endpoints::default() })
}

pub(crate) fn alternatives(services: &[&str], on_statuses: &[u16]) -> Option<AlternativeBackends> {
    Some(AlternativeBackends {
        failover: services.iter().map(|service| key(service)).collect(),
        min_available_percent: 1,
        on_statuses: on_statuses.into(),
        circuit_fallback: None,
    })
}

async fn named_endpoint(name: &str) -> Endpoint {
    Endpoint::responding_with(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len())).await
}

async fn server(upstream: Arc<Upstream>) -> TestServer {
    TestServer::with_routes(vec![route(forward(vec![(1, upstream)]))]).await
}

/// The body of a response to GET, or its status if it is an error.
async fn get(server: &TestServer) -> String {
    let response = server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    if response.status == 200 { response.text() } else { response.status.to_string() }
}

#[tokio::test]
async fn first_alternative_with_endpoints_gets_the_requests() {
    let (main, second) = (named_endpoint("main").await, named_endpoint("second").await);
    let registry = UpstreamRegistry::default();
    let alternatives = || alternatives(&["first", "second"], &[]);
    let web = set_endpoints(&registry, "web", &[main.address], alternatives());
    set_endpoints(&registry, "first", &[], None);
    set_endpoints(&registry, "second", &[second.address], None);
    let server = server(web).await;
    assert_eq!(get(&server).await, "main");
    set_endpoints(&registry, "web", &[], alternatives());
    assert_eq!(get(&server).await, "second");
    set_endpoints(&registry, "second", &[], None);
    assert_eq!(get(&server).await, "503", "no alternative has endpoints");
    set_endpoints(&registry, "web", &[main.address], alternatives());
    assert_eq!(get(&server).await, "main");
    set_endpoints(&registry, "web", &[], None);
    set_endpoints(&registry, "second", &[second.address], None);
    assert_eq!(get(&server).await, "503", "the policy was removed");
}

#[tokio::test]
async fn ejected_endpoints_are_not_available() {
    let ((dead, _dead_socket), (dead_too, _dead_too_socket)) = (reserve_address(), reserve_address());
    let other = named_endpoint("other").await;
    let registry = UpstreamRegistry::default();
    let web = set_endpoints(&registry, "web", &[dead, dead_too], alternatives(&["other"], &[]));
    set_endpoints(&registry, "other", &[other.address], None);
    let server = server(Arc::clone(&web)).await;
    assert_eq!(get(&server).await, "other", "both endpoints are tried before");
    assert_eq!(web.endpoint_counts().ejected, 2);
    assert_eq!(get(&server).await, "other");
}

#[tokio::test]
async fn threshold_is_a_percentage_of_the_endpoints() {
    let (main, other) = (named_endpoint("main").await, named_endpoint("other").await);
    let (dead, _dead_socket) = reserve_address();
    let registry = UpstreamRegistry::default();
    set_endpoints(&registry, "other", &[other.address], None);
    for (min_available_percent, expected) in [(1, "main"), (50, "main"), (51, "other"), (100, "other")] {
        let alternatives =
            alternatives(&["other"], &[]).map(|configured| AlternativeBackends { min_available_percent, ..configured });
        let web = set_endpoints(&registry, "web", &[main.address, dead], alternatives);
        let server = server(Arc::clone(&web)).await;
        // At most two requests until the dead endpoint was tried; each is sent to the other one then.
        for _ in 0..2 {
            get(&server).await;
        }
        assert_eq!(web.endpoint_counts().ejected, 1);
        assert_eq!(get(&server).await, expected, "{min_available_percent} %");
    }
}

#[tokio::test]
async fn responses_with_listed_statuses_are_replaced() {
    let failing =
        |status: &str| Endpoint::responding_with(format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nmain"));
    let (main, other) = (failing("500 X").await, named_endpoint("other").await);
    let registry = UpstreamRegistry::default();
    let web = set_endpoints(&registry, "web", &[main.address], alternatives(&["other"], &[500, 502]));
    set_endpoints(&registry, "other", &[other.address], None);
    let server = server(web).await;
    assert_eq!(get(&server).await, "other");
    let mut client = server.connect().await;
    client.send("PUT /a HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").await;
    assert_eq!(client.response().await.text(), "other");
    for endpoint in [&main, &other] {
        let requests = endpoint.log.requests();
        assert!(requests[1].starts_with("PUT /a ") && requests[1].ends_with("body"), "{requests:?}");
    }
    // These may not be sent twice.
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").await;
    assert_eq!(client.response().await.status, 500);
    let large = "x".repeat(64 * 1024 + 1);
    client.send(format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{large}", large.len())).await;
    assert_eq!(client.response().await.status, 500);
    assert_eq!(other.log.requests().len(), 2);
    // Another status, and an alternative that cannot respond.
    let not_listed = failing("503 X").await;
    set_endpoints(&registry, "web", &[not_listed.address], alternatives(&["other"], &[500]));
    assert_eq!(get(&server).await, "503");
    let (dead, _dead_socket) = reserve_address();
    set_endpoints(&registry, "web", &[main.address], alternatives(&["other"], &[500]));
    set_endpoints(&registry, "other", &[dead], None);
    assert_eq!(get(&server).await, "500", "a bad response is better than none");
}

/// The requests that found out that the Service was down failed: one if it refused connections, and all of the connect
/// timeout if it did not respond to them.
#[tokio::test]
async fn requests_that_find_the_outage_go_to_the_alternative() {
    let (dead, _dead_socket) = reserve_address();
    let (unresponsive, _queue, _listener) = unresponsive_address().await;
    let other = named_endpoint("other").await;
    for down in [dead, unresponsive] {
        let registry = UpstreamRegistry::default();
        let timeouts = RequestTimeouts { connect: Some(Duration::from_millis(300)), ..RequestTimeouts::default() };
        let traffic = BackendTraffic {
            // The first alternative is down as well.
            alternatives: alternatives(&["down", "other"], &[]).map(Arc::new),
            timeouts: Some(Arc::new(timeouts)),
            ..BackendTraffic::default()
        };
        let addresses = vec![EndpointAddress::Ip(down)];
        set_endpoints(&registry, "down", &[dead], None);
        set_endpoints(&registry, "other", &[other.address], None);
        let web = registry.set_endpoints(&key("web"), Endpoints { addresses, traffic, ..Endpoints::default() });
        let server = server(web).await;
        let first = async {
            let mut client = server.connect().await;
            client.send("POST /form HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nbody").await;
            client.send("more").await;
            client.response().await.text()
        };
        assert_eq!(tokio::join!(first, get(&server), get(&server)), ("other".into(), "other".into(), "other".into()));
        assert!(other.log.requests().iter().any(|request| request.ends_with("\r\n\r\nbodymore")));
        assert!(other.log.requests().iter().all(|request| request.contains("host: a\r\n")));
    }
}

/// Trap: a request that an endpoint may have processed is sent to another Service as well.
#[tokio::test]
async fn requests_that_an_endpoint_got_do_not_go_to_the_alternative() {
    let closing = Endpoint::scripted(|mut stream, _| async move { drop(stream.request().await) }).await;
    let other = named_endpoint("other").await;
    let registry = UpstreamRegistry::default();
    let web = set_endpoints(&registry, "web", &[closing.address], alternatives(&["other"], &[]));
    set_endpoints(&registry, "other", &[other.address], None);
    let server = server(web).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 502);
    assert_eq!(other.log.requests().len(), 0);
}

/// The request that opens the circuit has reached no endpoint either.
#[tokio::test]
async fn request_that_opens_the_circuit_goes_to_its_fallback() {
    let (dead, _dead_socket) = reserve_address();
    let other = named_endpoint("other").await;
    let registry = UpstreamRegistry::default();
    set_endpoints(&registry, "other", &[other.address], None);
    let alternatives = AlternativeBackends { circuit_fallback: Some(key("other")), ..AlternativeBackends::default() };
    let traffic = BackendTraffic {
        alternatives: Some(Arc::new(alternatives)),
        overload: CircuitBreakerSettings { consecutive: Some(2), ..circuit() }.into(),
        ..BackendTraffic::default()
    };
    let addresses = vec![EndpointAddress::Ip(dead)];
    let web = registry.set_endpoints(&key("web"), Endpoints { addresses, traffic, ..Endpoints::default() });
    let server = server(web).await;
    let responses = [get(&server).await, get(&server).await, get(&server).await];
    assert_eq!(responses, ["503", "other", "other"], "the circuit opens at the second error");
}

/// Alternatives of an alternative are not used, so requests cannot go in circles.
#[tokio::test]
async fn upstreams_may_be_alternatives_of_each_other() {
    let registry = UpstreamRegistry::default();
    let web = set_endpoints(&registry, "web", &[], alternatives(&["other", "web"], &[]));
    set_endpoints(&registry, "other", &[], alternatives(&["web"], &[]));
    let server = server(web).await;
    assert_eq!(get(&server).await, "503");
    let other = named_endpoint("other").await;
    set_endpoints(&registry, "other", &[other.address], alternatives(&["web"], &[]));
    assert_eq!(get(&server).await, "other");
}

/// Clients were sent to all endpoints of the alternative in turn, and lost what their endpoint kept for them.
#[tokio::test]
async fn sessions_are_kept_at_the_alternative() {
    let standby = [named_endpoint("a").await, named_endpoint("b").await, named_endpoint("c").await];
    let addresses = standby.each_ref().map(|endpoint| endpoint.address);
    let main = named_endpoint("main").await;
    for is_of_rule in [true, false] {
        let registry = UpstreamRegistry::default();
        let web = set_endpoints(&registry, "web", &[], alternatives(&["standby"], &[]));
        let mut of_standby: Vec<_> = addresses.into_iter().map(EndpointAddress::Ip).collect();
        of_standby.sort();
        let affinity = (!is_of_rule).then(|| Arc::new(sessions::cookie(1)));
        let traffic = BackendTraffic { affinity, ..BackendTraffic::default() };
        registry.set_endpoints(&key("standby"), Endpoints { addresses: of_standby, traffic, ..Endpoints::default() });
        let action = forward(vec![(1, Arc::clone(&web))]);
        let action = if is_of_rule { sessions::with_session(action, sessions::cookie(1)) } else { action };
        let server = TestServer::with_routes(vec![route(action)]).await;
        let first = server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let cookie = sessions::new_cookie(&first).unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: {cookie}\r\n\r\n");
        let body = first.text();
        for _ in 0..12 {
            let response = server.request(&request).await;
            assert_eq!((response.text(), sessions::new_cookie(&response)), (body.clone(), None), "{is_of_rule}");
        }
        // After the outage, the session with the Service itself begins.
        set_endpoints(&registry, "web", &[main.address], alternatives(&["standby"], &[]));
        let response = server.request(&request).await;
        assert_eq!((sessions::new_cookie(&response).is_some(), response.text().as_str()), (is_of_rule, "main"));
    }
}

/// The circuit of an alternative has its own response.
#[tokio::test]
async fn circuit_of_the_alternative_decides_with_its_own_fallback() {
    let failing = Endpoint::responding_with("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n").await;
    let registry = UpstreamRegistry::default();
    let with_circuit = |service: &str, alternatives: Option<AlternativeBackends>, addresses: &[SocketAddr]| {
        let body = Bytes::copy_from_slice(service.as_bytes());
        let fallback = Some(FallbackResponse { status: StatusCode::OK, headers: HeaderMap::new(), body });
        let circuit = CircuitBreakerSettings { consecutive: Some(1), fallback, ..circuit() };
        let traffic = BackendTraffic {
            alternatives: alternatives.map(Arc::new),
            overload: circuit.into(),
            ..BackendTraffic::default()
        };
        let addresses = addresses.iter().copied().map(EndpointAddress::Ip).collect();
        registry.set_endpoints(&key(service), Endpoints { addresses, traffic, ..Endpoints::default() })
    };
    let web = with_circuit("web", alternatives(&["other"], &[]), &[]);
    let _other = with_circuit("other", None, &[failing.address]);
    let server = server(web).await;
    assert_eq!(get(&server).await, "500");
    assert_eq!(get(&server).await, "other");
}

/// The circuit opens because of the request that the other one waits for.
#[tokio::test]
async fn waiting_requests_go_to_the_fallback_of_a_circuit_that_opens() {
    let permits = Arc::new(Semaphore::new(0));
    let of_endpoint = Arc::clone(&permits);
    let failing = Endpoint::scripted(move |mut stream, _| {
        let permits = Arc::clone(&of_endpoint);
        async move {
            while stream.request().await.is_some() {
                permits.acquire().await.unwrap().forget();
                stream.send("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let other = named_endpoint("other").await;
    let registry = UpstreamRegistry::default();
    set_endpoints(&registry, "other", &[other.address], None);
    let limits = RequestLimits {
        max_requests: Some(1),
        max_pending: Some(1),
        queue_timeout: Duration::from_secs(60),
        ..RequestLimits::default()
    };
    let alternatives = AlternativeBackends { circuit_fallback: Some(key("other")), ..AlternativeBackends::default() };
    let traffic = BackendTraffic {
        alternatives: Some(Arc::new(alternatives)),
        overload: OverloadSettings {
            limits: Some(Arc::new(limits)),
            circuit_breaker: Some(Arc::new(CircuitBreakerSettings { consecutive: Some(1), ..circuit() })),
        },
        ..BackendTraffic::default()
    };
    let addresses = vec![EndpointAddress::Ip(failing.address)];
    let web = registry.set_endpoints(&key("web"), Endpoints { addresses, traffic, ..Endpoints::default() });
    let server = server(Arc::clone(&web)).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    failing.log.wait_for("the first request", |log| log.requests().len() == 1).await;
    second.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    request_limits::wait_for(&web, "a waiting request", |report| report.pending == 1).await;
    permits.add_permits(1);
    assert_eq!(first.response().await.status, 500);
    assert_eq!(second.response().await.text(), "other");
}

#[tokio::test]
async fn connections_of_tcp_listeners_fail_over() {
    let other = stream::echo_endpoint().await;
    let registry = UpstreamRegistry::default();
    let db = set_endpoints(&registry, "db", &[], alternatives(&["other"], &[]));
    set_endpoints(&registry, "other", &[other.address], None);
    let server = stream::start(Options::default(), stream::to_upstream(&db)).await;
    let mut client = server.connect().await;
    client.send("hello").await;
    stream::expect_text(&mut client, "hello").await;
    // The connection that finds the outage was reset.
    let (dead, _dead_socket) = reserve_address();
    set_endpoints(&registry, "db", &[dead], alternatives(&["other"], &[]));
    let mut client = server.connect().await;
    client.send("again").await;
    stream::expect_text(&mut client, "again").await;
}

/// What another server decides counts as that of the server itself; a request passes only with its consent.
#[tokio::test]
async fn authorization_servers_have_alternatives() {
    let (endpoint, other) = (Endpoint::ok().await, authorization_server().await);
    let registry = UpstreamRegistry::default();
    let auth = set_endpoints(&registry, "auth", &[], alternatives(&["other"], &[500]));
    let filter = http_filter(Arc::clone(&auth));
    set_endpoints(&registry, "other", &[other.address], None);
    let server = TestServer::with_routes(guarded_routes(filter, &endpoint)).await;
    let status = async |method: &str, path: &str| {
        server.request(&format!("{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")).await.status
    };
    assert_eq!((status("GET", "/").await, status("GET", "/denied").await), (200, 401), "the server has no endpoint");
    // A status that is replaced.
    let failing = Endpoint::responding_with("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n").await;
    set_endpoints(&registry, "auth", &[failing.address], alternatives(&["other"], &[500]));
    assert_eq!((status("GET", "/").await, status("GET", "/denied").await), (200, 401));
    assert_eq!((failing.log.requests().len(), other.log.requests().len()), (2, 4));
    assert_eq!(status("POST", "/").await, 500, "the request may not be sent twice");
    // The request that finds out that the server is down.
    let (dead, _dead_socket) = reserve_address();
    set_endpoints(&registry, "auth", &[dead], alternatives(&["other"], &[500]));
    assert_eq!((status("GET", "/").await, status("GET", "/denied").await), (200, 401));
    set_endpoints(&registry, "auth", &[failing.address], alternatives(&["other"], &[500]));
    // Nothing responds in place of the server.
    set_endpoints(&registry, "other", &[dead], None);
    assert_eq!(status("GET", "/").await, 500);
    set_endpoints(&registry, "auth", &[], alternatives(&["other"], &[500]));
    assert_eq!(status("GET", "/").await, 503);
    assert_eq!(endpoint.log.requests().len(), 3);
}
