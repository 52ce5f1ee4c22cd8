//! An endpoint that dies and comes back while requests arrive at a fixed rate: how many fail, and whether the endpoint
//! gets its share again. `make bench` runs the same for longer, next to Envoy.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Uri};
use portico::upstream::settings::{ActiveCheck, CheckKind, HealthSettings, InitialHealth, StatusRanges};
use portico::upstream::{
    BackendTraffic, EndpointAddress, Endpoints, HealthChecks, OwnSockets, UpstreamKey, UpstreamRegistry,
};
use portico_load::failures::{CHECK_PATH, FailingEndpoint, FailoverFigures, Outages, run_through_outages};

use crate::harness::{TestServer, forward, retries, route, with_timeouts_and_retries};

const OUTAGES: Outages = Outages {
    name: "two outages within 12 s",
    endpoints: 2,
    rules: 1,
    rate: 100,
    phase: Duration::from_secs(3),
    count: 2,
    min_share: None,
    full_only: false,
};

/// A check that is frequent enough to find an outage before many requests do.
fn check() -> ActiveCheck {
    let interval = Duration::from_millis(250);
    ActiveCheck {
        kind: CheckKind::Http {
            tls: false,
            method: Method::GET,
            path: Uri::from_static(CHECK_PATH),
            host: HeaderValue::from_static("web.shop.svc"),
            headers: HeaderMap::new(),
            expected: StatusRanges(Box::new([200..=299])),
            failing: None,
        },
        interval,
        unhealthy_interval: interval,
        // A busy machine may not respond for two seconds.
        timeout: Duration::from_secs(3),
        unhealthy_threshold: 1,
        failure_thresholds: None,
        healthy_threshold: 1,
        initial: InitialHealth::Healthy,
        port: None,
        reuses_connection: true,
    }
}

async fn fail_over(check: Option<ActiveCheck>) -> FailoverFigures {
    let endpoints = FailingEndpoint::start_all(OUTAGES.endpoints, 200).unwrap();
    let registry = Arc::new(UpstreamRegistry::default());
    let rate = NonZeroU32::new(100).unwrap();
    let _checks = HealthChecks::start(Arc::clone(&registry), Arc::new(OwnSockets::default()), rate).unwrap();
    let key = UpstreamKey { namespace: "shop".into(), service: "web".into(), port: 80, ..UpstreamKey::default() };
    let web = registry.upstream(&key);
    let mut addresses: Vec<_> = endpoints.iter().map(|endpoint| EndpointAddress::Ip(endpoint.address)).collect();
    addresses.sort();
    let health = HealthSettings { active: check.map(Arc::new), ..HealthSettings::default() };
    let traffic = BackendTraffic { health: Some(Arc::new(health)), ..BackendTraffic::default() };
    web.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
    // Retries would hide what fails.
    let action = with_timeouts_and_retries(forward(vec![(1, web)]), retries(0, &[]));
    let server = TestServer::with_routes(vec![route(action)]).await;
    run_through_outages(&OUTAGES, server.address, &endpoints[0]).await.unwrap()
}

#[tokio::test]
async fn endpoint_that_dies_and_comes_back_fails_few_requests() {
    let (passive, active) = tokio::join!(fail_over(None), fail_over(Some(check())));
    for (name, figures) in [("without checks", passive), ("with checks", active)] {
        assert_eq!(figures.sent, 1200, "{name}");
        // Without health, half of the requests of both outages fail, which are 300. In each outage, those fail that are
        // sent before the first failure is known: at most one of each of the 16 connections.
        assert!(figures.failed <= 32, "{name}: {figures}");
        // Without a return after the first outage, it would be 50 %. The first probe that succeeds is at most a second
        // late, which is a sixth of the time.
        assert!(figures.share >= 60.0, "{name}: {figures}");
    }
}
