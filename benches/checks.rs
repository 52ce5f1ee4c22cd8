//! Measures the CPU cost of active health checks of 1,000 endpoints, by type, without that of the endpoints.
//!
//! Run by `make bench`. The endpoints are in this process, on another thread than the checks.

#![expect(clippy::unwrap_used, reason = "a panic fails the benchmark")]
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Uri};
use portico::upstream::settings::{ActiveCheck, CheckKind, HealthSettings, InitialHealth, StatusRanges};
use portico::upstream::{
    BackendTraffic, CheckOutcome, EndpointAddress, Endpoints, HealthChecks, OwnSockets, Upstream, UpstreamKey,
    UpstreamRegistry,
};
use portico_load::failures::{CHECK_PATH, FailingEndpoint};
use tokio::time::sleep;

/// The allocator of releases.
#[cfg(feature = "alloc-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ENDPOINTS: usize = 1_000;
/// Each endpoint is checked once in a second, ten times as often as by default.
const INTERVAL: Duration = Duration::from_secs(1);
/// In which the first checks open connections, and the others get apart.
const SETTLE: Duration = Duration::from_secs(4);
const DURATION: Duration = Duration::from_secs(10);
/// The name of the thread of the checks.
const THREAD: &str = "health-checks";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("{ENDPOINTS} endpoints                 CPU µs/check    % of a core with a check every 10 s");
    for (name, kind, reuses_connection) in [
        ("HTTP, kept connections", http(), true),
        ("HTTP, new connections", http(), false),
        ("TCP, new connections", CheckKind::Tcp { send: Box::default(), expect: Box::default() }, false),
    ] {
        let (checks, cpu) = run(kind, reuses_connection).await;
        let micros = cpu.as_secs_f64() * 1e6 / checks as f64;
        // As many checks in a second as endpoints in the ten seconds of an interval.
        println!("{name:<30} {micros:>12.1} {:>36.2}", micros * ENDPOINTS as f64 / 10.0 / 1e4);
    }
}

fn http() -> CheckKind {
    CheckKind::Http {
        tls: false,
        method: Method::GET,
        path: Uri::from_static(CHECK_PATH),
        host: HeaderValue::from_static("web.shop.svc"),
        headers: HeaderMap::new(),
        expected: StatusRanges(Box::new([200..=299])),
        failing: None,
    }
}

/// The number of checks, all of which have passed, and the CPU time of their thread.
async fn run(kind: CheckKind, reuses_connection: bool) -> (u64, Duration) {
    let endpoints = FailingEndpoint::start_all(ENDPOINTS, 200).unwrap();
    let registry = Arc::new(UpstreamRegistry::default());
    let rate = NonZeroU32::new(2 * ENDPOINTS as u32).unwrap();
    let _checks = HealthChecks::start(Arc::clone(&registry), Arc::new(OwnSockets::default()), rate).unwrap();
    let key = UpstreamKey { namespace: "shop".into(), service: "web".into(), port: 80, ..UpstreamKey::default() };
    let upstream = registry.upstream(&key);
    let active = ActiveCheck {
        kind,
        interval: INTERVAL,
        unhealthy_interval: INTERVAL,
        timeout: INTERVAL,
        unhealthy_threshold: 3,
        failure_thresholds: None,
        healthy_threshold: 2,
        initial: InitialHealth::Healthy,
        port: None,
        reuses_connection,
    };
    let health = HealthSettings { active: Some(Arc::new(active)), ..HealthSettings::default() };
    let mut addresses: Vec<SocketAddr> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    addresses.sort();
    let traffic = BackendTraffic { health: Some(Arc::new(health)), ..BackendTraffic::default() };
    let addresses = addresses.into_iter().map(EndpointAddress::Ip).collect();
    upstream.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
    sleep(SETTLE).await;
    let (passed_before, cpu_before) = (passed(&upstream), cpu_of_checks());
    sleep(DURATION).await;
    (passed(&upstream) - passed_before, cpu_of_checks() - cpu_before)
}

fn passed(upstream: &Upstream) -> u64 {
    let counts = upstream.check_counts();
    counts.iter().filter(|(_, outcome, _)| *outcome == CheckOutcome::Passed).map(|(.., count)| count).sum()
}

/// CPU time of the thread of the checks.
fn cpu_of_checks() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let of_checks =
        threads.filter(|thread| fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == THREAD));
    let nanos = |thread: fs::DirEntry| {
        let schedstat = fs::read_to_string(thread.path().join("schedstat")).unwrap();
        schedstat.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    Duration::from_nanos(of_checks.map(nanos).sum())
}
