//! Endpoints that pass their checks and probes, and fail requests; and endpoints on which a probe hangs.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Uri};
use portico::endpoint_tls::UpstreamProtocol;
use portico::endpoint_tls::UpstreamTlsSettings;
use portico::upstream::settings::{ActiveCheck, CheckKind, HealthSettings, InitialHealth, StatusRanges};
use portico::upstream::{
    BackendTraffic, EndpointAddress, Endpoints, HealthChecks, OwnSockets, Upstream, UpstreamKey, UpstreamRegistry,
};
use tokio::net::TcpListener;

use crate::harness::{
    Endpoint, LONGER_THAN_PAUSES, Options, TestServer, forward, reserve_address, retries, route,
    with_timeouts_and_retries,
};
use crate::polling;
use crate::upstream_tls::{Authority, TlsEndpoint};

/// A Service with these endpoints and checks, and the server in front of it, which sends no request again.
struct Lied {
    upstream: Arc<Upstream>,
    server: TestServer,
    _registry: Arc<UpstreamRegistry>,
    _checks: HealthChecks,
}

impl Lied {
    async fn start(tls: Option<UpstreamTlsSettings>, check: Option<ActiveCheck>, addresses: &[SocketAddr]) -> Lied {
        let registry = Arc::new(UpstreamRegistry::default());
        let rate = NonZeroU32::new(100).unwrap();
        let checks = HealthChecks::start(Arc::clone(&registry), Arc::new(OwnSockets::default()), rate).unwrap();
        let key =
            UpstreamKey { namespace: "shop".into(), service: "web".into(), port: 80, tls, ..UpstreamKey::default() };
        let upstream = registry.upstream(&key);
        let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
        addresses.sort();
        let health = HealthSettings { active: check.map(Arc::new), ..HealthSettings::default() };
        let traffic = BackendTraffic { health: Some(Arc::new(health)), ..BackendTraffic::default() };
        upstream.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
        let action = with_timeouts_and_retries(forward(vec![(1, Arc::clone(&upstream))]), retries(0, &[]));
        let mut options = Options::default();
        options.limits.connect_timeout = LONGER_THAN_PAUSES;
        let server = TestServer::with_options(options, vec![route(action)]).await;
        Lied { upstream, server, _registry: registry, _checks: checks }
    }

    /// The number of failures among these requests, each on a connection of its own.
    async fn failures(&self, requests: usize) -> usize {
        let mut failures = 0;
        for _ in 0..requests {
            failures += usize::from(self.server.request(GET).await.status != 200);
        }
        failures
    }

    fn is_healthy(&self, address: SocketAddr) -> bool {
        self.upstream.endpoint_reports().iter().any(|report| report.address == Some(address) && report.is_healthy)
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: web.shop.svc\r\nconnection: close\r\n\r\n";

fn check() -> ActiveCheck {
    ActiveCheck {
        kind: CheckKind::Http {
            tls: false,
            method: Method::GET,
            path: Uri::from_static("/healthz"),
            host: HeaderValue::from_static("web.shop.svc"),
            headers: HeaderMap::new(),
            expected: StatusRanges(Box::new([200..=299])),
            failing: None,
        },
        interval: Duration::from_millis(100),
        unhealthy_interval: Duration::from_millis(100),
        timeout: LONGER_THAN_PAUSES,
        unhealthy_threshold: 1,
        failure_thresholds: None,
        healthy_threshold: 1,
        initial: InitialHealth::Healthy,
        port: None,
        reuses_connection: true,
    }
}

/// A check that passes ends no ejection that requests have caused. Envoy returns such an endpoint to service.
#[tokio::test]
async fn passing_checks_do_not_return_an_endpoint_that_fails_requests() {
    let lying = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            if !request.starts_with("GET /healthz") {
                return;
            }
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let honest = Endpoint::ok().await;
    let lied = Lied::start(None, Some(check()), &[lying.address, honest.address]).await;
    assert_eq!(lied.failures(30).await, 5, "as many as eject it");
    let checks = || lying.log.requests().iter().filter(|request| request.starts_with("GET /healthz")).count();
    let before = checks();
    polling::until("more checks", || async { checks() >= before + 5 }).await;
    assert_eq!(lied.failures(30).await, 0);
    assert!(!lied.is_healthy(lying.address));
}

/// The connection of a probe works, and that of each request is closed.
#[tokio::test]
async fn endpoint_that_only_accepts_connections_is_ejected_again() {
    let (lying, reserved) = reserve_address();
    let honest = Endpoint::ok().await;
    let lied = Lied::start(None, None, &[lying, honest.address]).await;
    assert_eq!(lied.failures(10).await, 1, "the connection that is refused");
    reserved.listen(16).unwrap();
    reserved.set_nonblocking(true).unwrap();
    let accepting = TcpListener::from_std(reserved.into()).unwrap();
    let _lying = Endpoint::on_listener(accepting, |mut stream, _| async move {
        stream.request().await;
    });
    polling::until("the probe to succeed", || async { lied.is_healthy(lying) }).await;
    assert_eq!(lied.failures(30).await, 5, "as many as eject it again");
    assert!(!lied.is_healthy(lying));
}

/// An endpoint that accepts connections and begins no handshake.
#[tokio::test]
async fn probes_that_hang_end_and_leave_the_endpoint_ejected() {
    let authority = Authority::new("trusted");
    let hanging = Endpoint::scripted(|mut stream, _| async move {
        stream.read_to_end().await;
    })
    .await;
    let working = TlsEndpoint::with_certificate(authority.issue(&["web.shop.svc"], &[])).await;
    let tls = UpstreamTlsSettings::new(UpstreamProtocol::Http1, authority.trust(None), None).unwrap();
    let lied = Lied::start(Some(tls), None, &[hanging.address, working.address]).await;
    // A handshake ejects an endpoint only if the same name has worked with another one.
    let mut failures = 0;
    while lied.is_healthy(hanging.address) {
        failures += lied.failures(1).await;
        assert!(failures <= 2, "it is ejected by the first failures");
    }
    let connections = hanging.log.connections();
    hanging.log.wait_for("two probes to end", |log| log.ended.load(SeqCst) >= connections + 2).await;
    // The ones that have ended, and one that may have begun since.
    let open = hanging.log.connections() - hanging.log.ended.load(SeqCst);
    assert!(open <= 1, "{open} probes are open");
    assert_eq!(lied.failures(20).await, 0);
    assert!(!lied.is_healthy(hanging.address));
}
