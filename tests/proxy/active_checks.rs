//! Active health checks over real sockets: endpoints that fail, hang, redirect, send too much, or contradict
//! themselves, and what requests get meanwhile.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Uri};
use portico::endpoint_tls::UpstreamProtocol;
use portico::endpoint_tls::UpstreamTlsSettings;
use portico::upstream::settings::{ActiveCheck, CheckKind, HealthSettings, InitialHealth, StatusRanges};
use portico::upstream::{
    Availability, BackendTraffic, CheckOutcome, CheckReport, EndpointAddress, Endpoints, HealthChecks, OwnSockets,
    ProxyProtocol, Upstream, UpstreamKey, UpstreamRegistry,
};
use tokio::net::TcpListener;

use crate::harness::{Endpoint, TEST_TIMEOUT, TestServer, forward, reserve_address, route, with_timeout};
use crate::polling;
use crate::upstream_tls::{Authority, TlsEndpoint};

/// An upstream whose endpoints are checked.
pub(crate) struct Checked {
    pub(crate) upstream: Arc<Upstream>,
    _registry: Arc<UpstreamRegistry>,
    _checks: HealthChecks,
}

pub(crate) fn key() -> UpstreamKey {
    UpstreamKey { namespace: "shop".into(), service: "web".into(), port: 80, ..UpstreamKey::default() }
}

/// A check that is frequent, and that a busy machine does not let fail.
pub(crate) fn frequent(kind: CheckKind) -> ActiveCheck {
    ActiveCheck {
        kind,
        interval: FREQUENT,
        unhealthy_interval: FREQUENT,
        timeout: TEST_TIMEOUT,
        unhealthy_threshold: 2,
        failure_thresholds: None,
        healthy_threshold: 2,
        initial: InitialHealth::Healthy,
        port: None,
        reuses_connection: true,
    }
}

const FREQUENT: Duration = Duration::from_millis(100);
/// The timeout of checks that are to time out.
const SHORT: Duration = Duration::from_millis(100);

fn http(tls: bool) -> CheckKind {
    CheckKind::Http {
        tls,
        method: Method::GET,
        path: Uri::from_static("/healthz?full"),
        host: HeaderValue::from_static("web.shop.svc"),
        headers: HeaderMap::from_iter([("x-check".parse().unwrap(), HeaderValue::from_static("yes"))]),
        expected: StatusRanges(Box::new([200..=299])),
        failing: None,
    }
}

fn tcp(send: &'static str, expect: &'static str) -> CheckKind {
    CheckKind::Tcp { send: send.as_bytes().into(), expect: expect.as_bytes().into() }
}

impl Checked {
    pub(crate) fn start(key: &UpstreamKey, check: ActiveCheck, addresses: &[SocketAddr]) -> Checked {
        Checked::start_with(key, check, addresses, Arc::default())
    }

    fn start_with(
        key: &UpstreamKey,
        check: ActiveCheck,
        addresses: &[SocketAddr],
        own_sockets: Arc<OwnSockets>,
    ) -> Checked {
        let registry = Arc::new(UpstreamRegistry::default());
        let rate = NonZeroU32::new(1000).unwrap();
        let checks = HealthChecks::start(Arc::clone(&registry), own_sockets, rate).unwrap();
        let upstream = registry.upstream(key);
        let health = HealthSettings { active: Some(Arc::new(check)), ..HealthSettings::default() };
        let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
        addresses.sort();
        let traffic = BackendTraffic { health: Some(Arc::new(health)), ..BackendTraffic::default() };
        upstream.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
        Checked { upstream, _registry: registry, _checks: checks }
    }

    /// Whether an endpoint is not ejected, and the last check of it.
    pub(crate) fn state(&self, address: SocketAddr) -> (bool, Option<Arc<CheckReport>>) {
        let reports = self.upstream.endpoint_reports();
        let report = reports.into_iter().find(|report| report.address == Some(address)).unwrap();
        let availability = report.health.map_or(Availability::Available, |health| health.availability);
        (!matches!(availability, Availability::Ejected(_)), report.check)
    }

    /// Waits for a check with this result, and returns its message.
    pub(crate) async fn result(&self, address: SocketAddr, has_passed: bool) -> String {
        let has_result = || {
            let (is_healthy, check) = self.state(address);
            is_healthy == has_passed && check.is_some_and(|check| check.has_passed == has_passed)
        };
        let condition = format!("a check of {address} that has passed: {has_passed}");
        polling::until(&condition, || async { has_result() }).await;
        self.state(address).1.unwrap().message.as_deref().unwrap_or_default().to_owned()
    }

    async fn until_healthy(&self, address: SocketAddr, is_healthy: bool) {
        polling::until(&format!("healthy: {is_healthy}"), || async { self.state(address).0 == is_healthy }).await;
    }

    pub(crate) fn count(&self, outcome: CheckOutcome) -> u64 {
        self.upstream.check_counts().iter().filter(|(_, found, _)| *found == outcome).map(|(.., count)| count).sum()
    }
}

/// What one endpoint does, and the message of the check that it fails; `None` if it passes.
async fn expect(check: ActiveCheck, endpoint: &Endpoint, failure: Option<&str>) {
    let checked = Checked::start(&key(), check, &[endpoint.address]);
    let message = checked.result(endpoint.address, failure.is_none()).await;
    assert!(message.contains(failure.unwrap_or_default()), "{message:?} has no {failure:?}");
    assert_eq!(message.is_empty(), failure.is_none(), "{message:?}");
}

/// An endpoint that sends these bytes after the first head, and then leaves the connection open.
async fn sending(bytes: &'static str) -> Endpoint {
    Endpoint::scripted(move |mut stream, _| async move {
        stream.head().await;
        stream.send(bytes).await;
        stream.read_to_end().await;
    })
    .await
}

/// An endpoint that sends these bytes after the first head, and then closes the connection.
async fn closing_after(bytes: &'static str) -> Endpoint {
    Endpoint::scripted(move |mut stream, _| async move {
        stream.head().await;
        stream.send(bytes).await;
    })
    .await
}

#[tokio::test]
async fn responses_are_validated() {
    let patient = || frequent(http(false));
    for (response, failure) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", None),
        ("HTTP/1.1 204 No Content\r\n\r\n", None),
        ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", None),
        ("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n", Some("status 500")),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", Some("status 404")),
        ("SSH-2.0-server\r\n\r\n", Some("is invalid")),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", Some("is invalid")),
    ] {
        expect(patient(), &sending(response).await, failure).await;
    }
    for (response, failure) in [
        ("", Some("without a response")),
        ("HTTP/1.1 200 OK\r\ncontent-le", Some("without a response")),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok", Some("incomplete")),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz", Some("incomplete")),
        ("HTTP/1.1 200 OK\r\n\r\nok", None),
    ] {
        expect(patient(), &closing_after(response).await, failure).await;
    }
}

#[tokio::test]
async fn endpoints_that_do_not_finish_their_response_fail_in_time() {
    for response in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok"] {
        let check = ActiveCheck { timeout: SHORT, ..frequent(http(false)) };
        expect(check, &sending(response).await, Some("within 100ms")).await;
    }
}

/// Trap: an endpoint that redirects to a login page is not healthy, and nothing is sent elsewhere.
#[tokio::test]
async fn redirects_are_not_followed() {
    let target = Endpoint::ok().await;
    let location = format!("HTTP/1.1 302 Found\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n", target.address);
    let redirecting = Endpoint::responding_with(location).await;
    let checked = Checked::start(&key(), frequent(http(false)), &[redirecting.address]);
    assert!(checked.result(redirecting.address, false).await.contains("status 302"));
    polling::until("more checks", || async { checked.count(CheckOutcome::Failed) >= 3 }).await;
    assert_eq!(target.log.connections(), 0);
}

#[tokio::test]
async fn responses_without_end_are_not_read() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let large = Endpoint::scripted(move |mut stream, _| {
        let counter = Arc::clone(&counter);
        async move {
            use tokio::io::AsyncWriteExt;

            stream.head().await;
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await;
            let piece = vec![b'a'; 64 * 1024];
            while stream.socket.write_all(&piece).await.is_ok() {
                counter.fetch_add(piece.len(), SeqCst);
            }
        }
    })
    .await;
    let checked = Checked::start(&key(), frequent(http(false)), &[large.address]);
    assert_eq!(checked.result(large.address, true).await, "", "the status suffices");
    large.log.wait_for("three connections to end", |log| log.ended.load(SeqCst) >= 3).await;
    // Each connection has at most what the buffers of both sockets take.
    let of_each = sent.load(SeqCst) / large.log.connections();
    assert!(of_each < 64 * 1024 * 1024, "{of_each}");
    let endless_heads = Endpoint::scripted(|mut stream, _| async move {
        use tokio::io::AsyncWriteExt;

        stream.head().await;
        stream.send("HTTP/1.1 200 OK\r\n").await;
        while stream.socket.write_all(b"x: 0123456789\r\n").await.is_ok() {}
    })
    .await;
    expect(frequent(http(false)), &endless_heads, Some("is invalid")).await;
}

#[tokio::test]
async fn requests_of_checks_name_the_service_and_not_a_route() {
    let endpoint = Endpoint::ok().await;
    let checked = Checked::start(&key(), frequent(http(false)), &[endpoint.address]);
    endpoint.log.wait_for("two checks", |log| log.requests().len() >= 2).await;
    checked.result(endpoint.address, true).await;
    let requests = endpoint.log.requests();
    let request = requests[0].to_ascii_lowercase();
    assert!(request.starts_with("get /healthz?full http/1.1\r\n"), "{request}");
    for field in ["\r\nhost: web.shop.svc\r\n", "\r\nx-check: yes\r\n", "\r\nuser-agent: portico-health-check/"] {
        assert!(request.contains(field), "{request}");
    }
}

#[tokio::test]
async fn connections_are_kept_on_request() {
    for reuses_connection in [true, false] {
        let endpoint = Endpoint::ok().await;
        let check = ActiveCheck { reuses_connection, ..frequent(http(false)) };
        let checked = Checked::start(&key(), check, &[endpoint.address]);
        endpoint.log.wait_for("four checks", |log| log.requests().len() >= 4).await;
        let connections = endpoint.log.connections();
        if reuses_connection {
            assert_eq!(connections, 1);
        } else {
            assert!(connections >= 4, "{connections}");
            assert!(endpoint.log.requests()[0].contains("connection: close"));
        }
        assert_eq!(checked.count(CheckOutcome::Failed), 0);
    }
}

/// An endpoint may close a connection that is idle, even while a check begins on it.
#[tokio::test]
async fn a_kept_connection_that_was_closed_is_no_failure() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        stream.request().await;
    })
    .await;
    let checked = Checked::start(&key(), frequent(http(false)), &[endpoint.address]);
    polling::until("four checks", || async { checked.count(CheckOutcome::Passed) >= 4 }).await;
    assert_eq!(checked.count(CheckOutcome::Failed), 0);
    assert!(endpoint.log.connections() >= 4);
}

#[tokio::test]
async fn requests_avoid_an_endpoint_that_fails_its_checks() {
    let (fails, log_name) = (Arc::new(AtomicBool::new(false)), "requests to it");
    let is_failing = Arc::clone(&fails);
    let flaky = Endpoint::scripted(move |mut stream, _| {
        let fails = Arc::clone(&is_failing);
        async move {
            while let Some(request) = stream.request().await {
                let is_failed_check = request.starts_with("GET /healthz") && fails.load(SeqCst);
                let status = if is_failed_check { "500 Internal Server Error" } else { "200 OK" };
                stream.send(format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\nflaky")).await;
            }
        }
    })
    .await;
    let steady = Endpoint::responding_with("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsteady").await;
    let checked = Checked::start(&key(), frequent(http(false)), &[flaky.address, steady.address]);
    let routes = vec![route(forward(vec![(1, Arc::clone(&checked.upstream))]))];
    let server = TestServer::with_routes(routes).await;
    let mut client = server.connect().await;
    checked.result(flaky.address, true).await;
    with_timeout(log_name, async { while client.get("/").await.text() != "flaky" {} }).await;

    fails.store(true, SeqCst);
    checked.until_healthy(flaky.address, false).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.text(), "steady", "/ works, but the check fails");
    }
    fails.store(false, SeqCst);
    // A request confirms what the check says.
    with_timeout(log_name, async { while client.get("/").await.text() != "flaky" {} }).await;
}

#[tokio::test]
async fn another_port_can_be_checked() {
    let (endpoint, _reserved) = reserve_address();
    let health = Endpoint::ok().await;
    let check = ActiveCheck { port: Some(health.address.port()), ..frequent(http(false)) };
    let checked = Checked::start(&key(), check, &[endpoint]);
    assert_eq!(checked.result(endpoint, true).await, "");
    let refused = Checked::start(&key(), frequent(http(false)), &[endpoint]);
    assert!(refused.result(endpoint, false).await.contains("refused the connection"));
}

#[tokio::test]
async fn http2_endpoints_are_checked_over_http2() {
    let endpoint = crate::h2_upstream::echo_endpoint().await;
    let http2 = UpstreamKey { protocol: UpstreamProtocol::Http2, ..key() };
    let checked = Checked::start(&http2, frequent(http(false)), &[endpoint.address]);
    assert_eq!(checked.result(endpoint.address, true).await, "");
    let http1 = Endpoint::ok().await;
    let checked = Checked::start(&http2, frequent(http(false)), &[http1.address]);
    assert!(!checked.result(http1.address, false).await.is_empty());
}

#[tokio::test]
async fn tcp_checks_send_and_expect_bytes() {
    let redis = || {
        Endpoint::scripted(|mut stream, _| async move {
            let received = stream.read_some().await.unwrap_or_default();
            if received.starts_with(b"PING") {
                stream.send("noise +PO").await;
                stream.send("NG\r\n").await;
            }
            stream.read_to_end().await;
        })
    };
    expect(frequent(tcp("PING\r\n", "+PONG")), &redis().await, None).await;
    let impatient = |kind| ActiveCheck { timeout: SHORT, ..frequent(kind) };
    expect(impatient(tcp("PING\r\n", "+OK")), &redis().await, Some("within 100ms")).await;
    expect(impatient(tcp("QUIT\r\n", "+PONG")), &redis().await, Some("within 100ms")).await;
    // Kong checks TCP for every type of target, so a bare connection suffices.
    expect(frequent(tcp("", "")), &redis().await, None).await;
    let closing = || Endpoint::scripted(|mut stream, _| async move { stream.send("+P").await });
    expect(frequent(tcp("", "+PONG")), &closing().await, Some("after 2 bytes")).await;
    let flooding = Endpoint::scripted(|mut stream, _| async move {
        use tokio::io::AsyncWriteExt;

        while stream.socket.write_all(&[b'a'; 4096]).await.is_ok() {}
    });
    expect(frequent(tcp("", "+PONG")), &flooding.await, Some("do not contain the expected ones")).await;
}

#[tokio::test]
async fn tcp_checks_begin_with_the_proxy_header() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        let mut received = Vec::new();
        while !received.ends_with(b"PING") {
            let Some(bytes) = stream.read_some().await else { return };
            received.extend(bytes);
        }
        if received == b"PROXY UNKNOWN\r\nPING" {
            stream.send("+PONG").await;
        }
    })
    .await;
    let key = UpstreamKey { proxy_protocol: Some(ProxyProtocol::V1), ..key() };
    let checked = Checked::start(&key, frequent(tcp("PING", "+PONG")), &[endpoint.address]);
    assert_eq!(checked.result(endpoint.address, true).await, "");
}

#[tokio::test]
async fn checks_have_the_tls_identity_of_requests() {
    let authority = Authority::new("trusted");
    let right = TlsEndpoint::with_certificate(authority.issue(&["web.shop.svc"], &[])).await;
    let wrong_name = TlsEndpoint::with_certificate(authority.issue(&["other.shop.svc"], &[])).await;
    let untrusted = TlsEndpoint::with_certificate(Authority::new("other").issue(&["web.shop.svc"], &[])).await;
    // It responds to a handshake as to a malformed request.
    let plain = Endpoint::scripted(|mut stream, _| async move {
        stream.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let verified = |protocol| {
        let tls = Some(UpstreamTlsSettings::new(protocol, authority.trust(None), None).unwrap());
        UpstreamKey { protocol, tls, ..key() }
    };
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        for (address, failure) in [
            (right.address, None),
            (wrong_name.address, Some("not valid for")),
            (untrusted.address, Some("not trusted")),
            (plain.address, Some("TLS")),
        ] {
            let checked = Checked::start(&verified(protocol), frequent(http(false)), &[address]);
            let message = checked.result(address, failure.is_none()).await;
            assert!(message.contains(failure.unwrap_or_default()), "{protocol:?}: {message:?} has no {failure:?}");
        }
    }
    // Requests are not encrypted, so nothing says which certificate is right.
    for (address, has_passed) in [(untrusted.address, true), (plain.address, false)] {
        let checked = Checked::start(&key(), frequent(http(true)), &[address]);
        checked.result(address, has_passed).await;
    }
}

/// A check of the admin listener, for example, would make it trust what a user of the cluster configures.
#[tokio::test]
async fn listeners_of_this_process_are_not_checked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own_sockets = Arc::new(OwnSockets::default());
    own_sockets.add_fixed(address);
    let checked = Checked::start_with(&key(), frequent(tcp("", "")), &[address], own_sockets);
    assert!(checked.result(address, false).await.contains("is a listener of this Portico process"));
    let accepted = std::pin::pin!(listener.accept());
    assert!(futures_util::FutureExt::now_or_never(accepted).is_none());
}

/// Trap: checks in sequence, of which slow ones delay all others.
#[tokio::test]
async fn endpoints_that_hang_delay_no_other_checks() {
    let hanging = sending("").await;
    let steady = Endpoint::ok().await;
    let others: Vec<SocketAddr> =
        (1..=250).map(|host| SocketAddr::from(([127, 1, 0, host], hanging.address.port()))).collect();
    // On all addresses of the loopback network.
    let listener = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _hanging = Endpoint::on_listener(listener, |mut stream, _| async move {
        stream.read_to_end().await;
    });
    let hung: Vec<_> = others.iter().map(|address| SocketAddr::new(address.ip(), port)).collect();
    let registry = Arc::new(UpstreamRegistry::default());
    let _checks = HealthChecks::start(Arc::clone(&registry), Arc::default(), NonZeroU32::new(1000).unwrap()).unwrap();
    let set = |service: &str, addresses: &[SocketAddr]| {
        let upstream = registry.upstream(&UpstreamKey { service: service.into(), ..key() });
        let health = HealthSettings { active: Some(Arc::new(frequent(http(false)))), ..HealthSettings::default() };
        let addresses = addresses.iter().copied().map(EndpointAddress::Ip).collect();
        let traffic = BackendTraffic { health: Some(Arc::new(health)), ..BackendTraffic::default() };
        upstream.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
        upstream
    };
    let _hung = set("hung", &hung);
    let other = set("steady", &[steady.address]);
    let passed = || other.check_counts().iter().map(|(.., count)| count).sum::<u64>();
    polling::until("checks of the other Service", || async { passed() >= 5 }).await;
}
