//! Clients that send or read slowly, or leave: nothing of that counts against a Service, and it keeps nothing from the
//! requests of others. One table for all observers of outcomes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use portico::snapshot::timeouts_and_retries::{TimeoutSetting, TimeoutsAndRetries};
use portico::upstream::settings::{
    AdaptiveLimit, AdmissionControl, Balancing, BalancingAlgorithm, CircuitBreakerSettings, HealthSettings,
    HedgeSettings, LatencyAverage, OverloadSettings, PassiveChecks, RequestLimits, RequestTimeouts, RetrySettings,
    SlowRequests,
};
use portico::upstream::{
    AlternativeBackends, BackendTraffic, CircuitPhase, ClientSlot, EndpointAddress, Endpoints, OutcomeObserver,
    Upstream, UpstreamRegistry,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::circuit_breaker::circuit;
use crate::failover;
use crate::h2::{Http2Client, post_request, read_response};
use crate::harness::{
    Client, Endpoint, Route, TEST_TIMEOUT, TestServer, forward, route, upstream, with_timeouts_and_retries,
};

const SECOND: Duration = Duration::from_secs(1);
/// What the Service gives its endpoints, which respond at once. All clients and endpoints share a thread, so three
/// seconds are not enough while other tests keep both cores busy.
const GIVEN: Duration = Duration::from_secs(5);
pub(crate) const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// What a client does to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behavior {
    /// Sends its body in twice the time that the Service gives, to its end.
    SlowUpload,
    /// Does not read its response for longer than the Service gives.
    SlowReader,
    /// Leaves in the middle of its upload.
    EarlyLeaver,
}

const BEHAVIORS: [Behavior; 3] = [Behavior::SlowUpload, Behavior::SlowReader, Behavior::EarlyLeaver];

/// An endpoint that reads all of a request, and responds at once. The response to `/large` does not fit into sockets.
async fn endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let length = if request.starts_with("GET /large ") { 8 << 20 } else { 2 };
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length))).await;
        }
    })
    .await
}

pub(crate) const SLOW: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// The address of a client that is not counted as the slow one. Clients are counted in a few slots, by a hash.
pub(crate) fn other() -> Ipv4Addr {
    let is_other = |address: &Ipv4Addr| ClientSlot::of((*address).into()) != ClientSlot::of(SLOW.into());
    (2..=254).map(|last| Ipv4Addr::new(127, 0, 1, last)).find(is_other).unwrap()
}

pub(crate) async fn stream_of(server: &TestServer, address: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((address, 0))).unwrap();
    socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, server.address.port()))).await.unwrap()
}

pub(crate) async fn client_of(server: &TestServer, address: Ipv4Addr) -> Client {
    Client::from_stream(stream_of(server, address).await)
}

async fn behave(server: &TestServer, behavior: Behavior) {
    let mut client = stream_of(server, SLOW).await;
    match behavior {
        Behavior::SlowUpload | Behavior::EarlyLeaver => {
            client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\n").await.unwrap();
            for part in 0..8 {
                if behavior == Behavior::EarlyLeaver && part == 2 {
                    return;
                }
                sleep(GIVEN / 4).await; // The slowness of the client is what is tested.
                // The timeout may have ended the connection.
                if client.write_all(b"x").await.is_err() {
                    return;
                }
            }
            drop(client.read(&mut [0; 1024]).await);
        }
        Behavior::SlowReader => {
            client.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            sleep(2 * GIVEN).await; // The slowness of the client is what is tested.
        }
    }
}

/// A Service whose policy makes one observer as strict as it can be.
fn watched_by(observer: OutcomeObserver, addresses: &[SocketAddr]) -> Arc<Upstream> {
    let mut traffic = BackendTraffic {
        timeouts: Some(Arc::new(RequestTimeouts { backend_request: Some(GIVEN), ..RequestTimeouts::default() })),
        ..BackendTraffic::default()
    };
    let mut balance = Balancing::default();
    let limits = |limits: RequestLimits| OverloadSettings { limits: Some(Arc::new(limits)), circuit_breaker: None };
    match observer {
        OutcomeObserver::Ejections => {
            let passive = PassiveChecks { local_origin_failures: 1, ..PassiveChecks::default() };
            traffic.health = Some(Arc::new(HealthSettings { passive, ..HealthSettings::default() }));
        }
        OutcomeObserver::Latency => {
            let average = LatencyAverage { decay: 60 * SECOND, failure_penalty: 60 * SECOND };
            balance.algorithm = BalancingAlgorithm::PeakEwma(average);
        }
        OutcomeObserver::Circuit => {
            let slow = Some(SlowRequests { after: GIVEN, percent: 1 });
            let strict = CircuitBreakerSettings { min_requests: 1, slow, consecutive: Some(1), ..circuit() };
            traffic.overload = strict.into();
        }
        OutcomeObserver::AdmissionControl => {
            let admission = AdmissionControl {
                threshold_percent: 100,
                aggression: 1000,
                max_reject_percent: 100,
                window: 60 * SECOND,
            };
            traffic.overload = limits(RequestLimits { admission: Some(admission), ..RequestLimits::default() });
        }
        OutcomeObserver::AdaptiveLimit => {
            let adaptive = Some(AdaptiveLimit { min: 1, max: 1000 });
            traffic.overload = limits(RequestLimits { adaptive, ..RequestLimits::default() });
        }
        OutcomeObserver::ResponseTimes => {
            let hedge = Some(HedgeSettings { delay: None });
            traffic.retries = Some(Arc::new(RetrySettings { hedge, ..RetrySettings::default() }));
        }
    }
    let web = upstream("web", &[]);
    let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    addresses.sort();
    web.set_endpoints(Endpoints { addresses, balance, traffic, ..Endpoints::default() });
    web
}

/// What shows that the observer has found the Service worse than it is.
fn objection(observer: OutcomeObserver, web: &Upstream) -> Option<String> {
    let overload = web.overload_report();
    match observer {
        OutcomeObserver::Ejections => (web.endpoint_counts().ejected > 0).then(|| "an endpoint is ejected".to_owned()),
        OutcomeObserver::Circuit => {
            let circuit = overload.unwrap().circuit.unwrap();
            (circuit.phase != CircuitPhase::Closed || circuit.errors > 0).then(|| format!("{circuit:?}"))
        }
        // One rejects requests at random, which the caller would see. What the other one finds depends on the load of
        // the machine; its own tests have fixed times.
        OutcomeObserver::AdmissionControl | OutcomeObserver::Latency => None,
        OutcomeObserver::AdaptiveLimit => {
            let limit = overload.unwrap().limit.unwrap();
            (limit < 20).then(|| format!("the limit is {limit}"))
        }
        OutcomeObserver::ResponseTimes => {
            let settings = web.attempt_settings().unwrap();
            let percentile = settings.response_times.as_ref().unwrap().percentile_95();
            percentile.filter(|time| *time >= GIVEN).map(|time| format!("responses are believed to take {time:?}"))
        }
    }
}

/// What the requests of others suffer while clients behave in this way, and what the observer has found.
async fn suffering(observer: OutcomeObserver, behavior: Behavior) -> Option<String> {
    let endpoints = [endpoint().await, endpoint().await];
    let web = watched_by(observer, &endpoints.each_ref().map(|endpoint| endpoint.address));
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
    join_all((0..4).map(|_| behave(&server, behavior))).await;
    let mut other = client_of(&server, other()).await;
    for number in 0..60 {
        other.send(GET).await;
        let response = timeout(TEST_TIMEOUT, other.response()).await.unwrap();
        if response.status != 200 {
            return Some(format!("request {number} of another client got {}", response.status));
        }
    }
    objection(observer, &web)
}

/// Slow uploads of one client ended in 503 for all clients, and in the ejection of endpoints that work.
#[tokio::test]
async fn clients_that_are_slow_or_leave_change_nothing_for_others() {
    let rows = OutcomeObserver::ALL.into_iter().flat_map(|observer| BEHAVIORS.map(|behavior| (observer, behavior)));
    let suffered = join_all(rows.map(async |(observer, behavior)| {
        suffering(observer, behavior).await.map(|what| format!("{behavior:?}, {observer:?}: {what}"))
    }));
    let suffered: Vec<String> = suffered.await.into_iter().flatten().collect();
    assert!(suffered.is_empty(), "{suffered:#?}");
}

/// The same uploads, when the route limits the time.
#[tokio::test]
async fn slow_uploads_within_the_timeouts_of_a_route_open_no_circuit() {
    let of_route = |timeouts: TimeoutsAndRetries| async move {
        let endpoint = endpoint().await;
        let web = upstream("web", &[]);
        let traffic = BackendTraffic {
            overload: CircuitBreakerSettings { consecutive: Some(1), ..circuit() }.into(),
            ..BackendTraffic::default()
        };
        let addresses = vec![EndpointAddress::Ip(endpoint.address)];
        web.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
        let action = with_timeouts_and_retries(forward(vec![(1, Arc::clone(&web))]), timeouts);
        let server = TestServer::with_routes(vec![route(action)]).await;
        join_all((0..3).map(|_| behave(&server, Behavior::SlowUpload))).await;
        server.request(GET).await.status
    };
    let limit = TimeoutSetting::After(GIVEN);
    for timeouts in [
        TimeoutsAndRetries { request: limit, ..TimeoutsAndRetries::default() },
        TimeoutsAndRetries { backend_request: limit, ..TimeoutsAndRetries::default() },
    ] {
        assert_eq!(of_route(timeouts.clone()).await, 200, "{timeouts:?}");
    }
}

/// A route that may use the Service of another team, with a timeout in which nothing responds.
#[tokio::test]
async fn short_timeouts_of_a_route_of_another_namespace_stop_no_service() {
    let slow = Endpoint::scripted(|mut stream, _| async move {
        while stream.request().await.is_some() {
            sleep(Duration::from_millis(300)).await; // The time of the endpoint is what is tested.
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    for (request, backend_request) in [(true, false), (false, true)] {
        let limit =
            |is_set| if is_set { TimeoutSetting::After(Duration::from_millis(20)) } else { TimeoutSetting::Unset };
        let timeouts = TimeoutsAndRetries {
            request: limit(request),
            backend_request: limit(backend_request),
            ..TimeoutsAndRetries::default()
        };
        let web = upstream("web", &[]);
        let traffic = BackendTraffic {
            overload: CircuitBreakerSettings { consecutive: Some(1), ..circuit() }.into(),
            ..BackendTraffic::default()
        };
        let addresses = vec![EndpointAddress::Ip(slow.address)];
        web.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
        let impatient = with_timeouts_and_retries(forward(vec![(1, Arc::clone(&web))]), timeouts);
        let server = TestServer::with_routes(vec![
            Route { namespace: "other", path: "/other", ..route(impatient) },
            route(forward(vec![(1, Arc::clone(&web))])),
        ])
        .await;
        for _ in 0..3 {
            assert_eq!(server.request("GET /other HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 504);
        }
        assert_eq!(server.request(GET).await.status, 200, "the owner's route");
    }
}

/// A Service whose circuit is half-open after the first request, and whose endpoint works again. It closes after five
/// successes.
async fn recovered_service(alternatives: Option<AlternativeBackends>) -> (TestServer, Arc<Upstream>) {
    let endpoint = Endpoint::scripted(|mut stream, connection| async move {
        while stream.request().await.is_some() {
            let status = if connection < 1 { "500 X" } else { "200 OK" };
            stream.send(format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")).await;
        }
    })
    .await;
    let settings = CircuitBreakerSettings {
        consecutive: Some(1),
        open_for: Duration::ZERO,
        max_open_for: Duration::ZERO,
        successes: 5,
        ..circuit()
    };
    let alternatives = alternatives.map(Arc::new);
    let traffic = BackendTraffic { overload: settings.into(), alternatives, ..BackendTraffic::default() };
    let addresses = vec![EndpointAddress::Ip(endpoint.address)];
    let endpoints = Endpoints { addresses, traffic, ..Endpoints::default() };
    let web = UpstreamRegistry::default().set_endpoints(&failover::key("web"), endpoints);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
    assert_eq!(server.request(GET).await.status, 500);
    (server, web)
}

/// The trial of a half-open circuit was an upload without end, and others got 503 for as long as it lasted.
#[tokio::test]
async fn slow_upload_keeps_no_recovered_service_down() {
    let (server, web) = recovered_service(None).await;
    let mut uploads = Vec::new();
    // No complete request comes for more than a second, so that the uploads get the places that there are for them.
    let began = Instant::now();
    while began.elapsed() < SECOND + SECOND / 2 {
        let mut upload = client_of(&server, SLOW).await;
        upload.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n").await;
        uploads.push(upload);
        sleep(SECOND / 10).await; // The times at which requests come are what is tested.
    }
    for number in 0..5 {
        assert_eq!(server.request(GET).await.status, 200, "request {number}");
    }
    assert_eq!(web.overload_report().unwrap().circuit.unwrap().phase, CircuitPhase::Closed);
}

/// Requests whose small bodies had arrived waited for the places of uploads, which one client had.
#[tokio::test]
async fn small_bodies_close_the_circuit_of_a_recovered_service() {
    for alternatives in [None, failover::alternatives(&["other"], &[502])] {
        let (server, web) = recovered_service(alternatives).await;
        let mut upload = client_of(&server, SLOW).await;
        upload.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nx").await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(server.request(&format!("{head}hello")).await.status, 200);
        let in_two_packets = async {
            let mut client = client_of(&server, other()).await;
            client.send(head).await;
            sleep(Duration::from_millis(20)).await; // The time at which the body arrives is what is tested.
            client.send("hello").await;
            client.response().await.status
        };
        let began = Instant::now();
        let status = in_two_packets.await;
        // A busy machine may pause for longer than Portico waits for the body.
        assert!(status == 200 || began.elapsed() > SECOND / 2, "{status}");
        let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(server.request(chunked).await.status, 200);
        for _ in 0..2 {
            let client = Http2Client::connect(server.address).await;
            let (response, mut body) = client.start_with_body(post_request("/")).await;
            body.send_data(Bytes::from_static(b"hello"), true).unwrap();
            assert_eq!(read_response(response).await.unwrap().status, 200);
        }
        if status != 200 {
            server.request(GET).await;
        }
        assert_eq!(web.overload_report().unwrap().circuit.unwrap().phase, CircuitPhase::Closed);
    }
}

/// An endpoint that hangs was excused by uploads that took more than a tenth of the timeout.
#[tokio::test]
async fn hung_endpoint_is_not_excused_by_short_uploads() {
    let hung = Endpoint::scripted(|mut stream, _| async move { while stream.request().await.is_some() {} }).await;
    let web = watched_by(OutcomeObserver::Circuit, &[hung.address]);
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
    let mut client = client_of(&server, SLOW).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nx").await;
    sleep(GIVEN / 4).await; // The slowness of the client is what is tested.
    client.send("x").await;
    assert_eq!(client.response().await.status, 504);
    assert_eq!(web.overload_report().unwrap().circuit.unwrap().phase, CircuitPhase::Open);
}

/// Servers give up requests that do not arrive, which says nothing about them.
#[tokio::test]
async fn endpoints_that_give_up_slow_uploads_are_not_blamed() {
    for observer in [OutcomeObserver::Circuit, OutcomeObserver::Ejections] {
        let impatient = || {
            Endpoint::scripted(|mut stream, _| async move {
                while let Some(head) = stream.head().await {
                    if head.starts_with("POST ") {
                        sleep(2 * SECOND).await; // That long it waits for the body.
                        return;
                    }
                    stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            })
        };
        let endpoints = [impatient().await, impatient().await];
        let web = watched_by(observer, &endpoints.each_ref().map(|endpoint| endpoint.address));
        let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
        let uploads = (0..4).map(async |_| {
            let mut upload = client_of(&server, SLOW).await;
            upload.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nx").await;
            upload.response().await.status
        });
        let statuses = join_all(uploads).await;
        assert!(statuses.iter().all(|status| *status >= 400), "{statuses:?}");
        let mut other = client_of(&server, other()).await;
        other.send(GET).await;
        assert_eq!(other.response().await.status, 200, "{observer:?}");
        assert_eq!(objection(observer, &web), None, "{observer:?}");
    }
}

/// One client had all places of the Service, with responses that it did not read.
#[tokio::test]
async fn slow_readers_of_one_client_leave_half_of_the_places_to_others() {
    let endpoint = endpoint().await;
    let web = upstream("web", &[]);
    let limits = RequestLimits {
        max_requests: Some(4),
        max_pending: Some(4),
        queue_timeout: SECOND,
        ..RequestLimits::default()
    };
    let overload = OverloadSettings { limits: Some(Arc::new(limits)), circuit_breaker: None };
    let traffic = BackendTraffic { overload, ..BackendTraffic::default() };
    let addresses = vec![EndpointAddress::Ip(endpoint.address)];
    web.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
    let mut readers = Vec::new();
    for _ in 0..12 {
        let mut reader = client_of(&server, SLOW).await;
        reader.send("GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
        readers.push(reader);
    }
    // Those of the reader that wait give up.
    sleep(2 * SECOND).await; // Until the sockets of the reader are full, too.
    let mut statuses = Vec::new();
    for _ in 0..6 {
        let mut other = client_of(&server, other()).await;
        other.send(GET).await;
        statuses.push(other.response().await.status);
    }
    assert_eq!(statuses, [200; 6]);
    drop(readers);
}

/// One client had all places of the Service, with uploads that it did not continue.
#[tokio::test]
async fn slow_uploads_of_one_client_leave_half_of_the_places_to_others() {
    let endpoint = endpoint().await;
    let web = upstream("web", &[]);
    let limits = RequestLimits {
        max_requests: Some(4),
        max_pending: Some(4),
        queue_timeout: SECOND,
        ..RequestLimits::default()
    };
    let overload = OverloadSettings { limits: Some(Arc::new(limits)), circuit_breaker: None };
    let traffic = BackendTraffic { overload, ..BackendTraffic::default() };
    let addresses = vec![EndpointAddress::Ip(endpoint.address)];
    web.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
    let mut uploads = Vec::new();
    for _ in 0..12 {
        let mut upload = client_of(&server, SLOW).await;
        upload.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nx").await;
        uploads.push(upload);
    }
    let full = async {
        while web.overload_report().is_none_or(|report| (report.active, report.pending) != (4, 4)) {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, full).await.unwrap();
    let requests = (0..12).map(async |_| {
        let mut other = client_of(&server, other()).await;
        other.send(GET).await;
        other.response().await.status
    });
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(request.await);
    }
    assert_eq!(statuses, [200; 12]);
}

/// The client left after half a second, and the endpoint, which works again, got no request for ten.
#[tokio::test]
async fn trial_whose_client_leaves_makes_place_for_the_next_request() {
    let trial = Endpoint::scripted(|mut stream, connection| async move {
        while stream.request().await.is_some() {
            match connection {
                0 => stream.send("HTTP/1.1 503 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await,
                // The trial gets no response.
                1 => {
                    stream.read_to_end().await;
                }
                _ => stream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await,
            }
        }
    })
    .await;
    let good = endpoint().await;
    let web = upstream("web", &[]);
    let passive = PassiveChecks {
        gateway_errors: 1,
        base_ejection: Duration::from_millis(1),
        max_ejection: Duration::from_millis(1),
        ..PassiveChecks::default()
    };
    let health = HealthSettings { passive, ..HealthSettings::default() };
    let traffic = BackendTraffic { health: Some(Arc::new(health)), ..BackendTraffic::default() };
    let mut addresses: Vec<_> = [trial.address, good.address].map(EndpointAddress::Ip).into();
    addresses.sort();
    web.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
    let got = |count| trial.log.requests().len() >= count;
    let ejected = async {
        while !got(1) {
            server.request(GET).await;
        }
    };
    timeout(TEST_TIMEOUT, ejected).await.unwrap();
    sleep(Duration::from_millis(50)).await; // Until the ejection ends.
    let left = async {
        // The request that the endpoint is tried with gets no response.
        while !got(2) {
            let mut client = client_of(&server, SLOW).await;
            client.send(GET).await;
            drop(timeout(Duration::from_millis(200), client.response()).await);
        }
    };
    timeout(TEST_TIMEOUT, left).await.unwrap();
    let recovered = async {
        while !got(3) {
            server.request(GET).await;
        }
    };
    timeout(5 * SECOND, recovered).await.expect("no other request was the next trial");
    assert_eq!(web.endpoint_counts().ejected, 0);
}
