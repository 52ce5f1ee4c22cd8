//! Load at a fixed rate while routes, weights, endpoints and certificates are edited and backends start and stop: every
//! response comes from a backend that was configured at some time during the request, and no request fails.
//!
//! `make test` runs it for a few seconds, `make soak` for a minute with 2,000 requests per second.

#![expect(clippy::unwrap_used, reason = "a panic fails the test, in helpers too")]

mod editors;
mod gateway;
mod history;
#[path = "../harness/polling.rs"]
mod polling;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portico_load::backend::Backend;
use portico_load::{CompletedRequest, LoadResponse, Plan, Protocol, Report, RequestShape, Tls, run};
use tokio::time::Instant;

use crate::editors::{ConfigurationHistory, Editors};
use crate::gateway::Gateway;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_are_correct_during_changes() {
    let seconds: u64 = setting("SOAK_SECONDS", 3);
    let rate: u32 = setting("SOAK_RATE", 300);
    let min_edits: usize = setting("SOAK_EDITS", 3);

    let configuration = Arc::new(ConfigurationHistory::new());
    let loopback = ([127, 0, 0, 1], 0).into();
    let a = Backend::start(loopback, "a").await.unwrap();
    let b = Backend::start(loopback, "b").await.unwrap();
    let hasty = Backend::start(loopback, "hasty").await.unwrap();
    let gateway = Arc::new(Gateway::start(&[("a", a.address), ("b", b.address), ("hasty", hasty.address)]));
    let stop = Arc::new(AtomicBool::new(false));
    let editors = Editors::start(&gateway, &configuration, hasty, &stop).await;

    let response_check = {
        let configuration = Arc::clone(&configuration);
        move |sent: &CompletedRequest<'_>, response: &LoadResponse| configuration.check_response(sent, response)
    };
    let certificate_check = {
        let configuration = Arc::clone(&configuration);
        move |begin: Instant, end: Instant, certificate: &[u8]| configuration.check_certificate(begin, end, certificate)
    };
    let plain = Plan {
        rate: Some(rate / 2),
        single_use: 16,
        response_check: Some(Arc::new(response_check)),
        certificate_check: Some(Arc::new(certificate_check)),
        ..Plan::new(gateway.address, shapes(), Duration::from_secs(seconds), 16)
    };
    // A handshake costs as much as many requests, so few connections are new.
    let secure = |protocol| Plan {
        target: gateway.secure,
        rate: Some(rate / 4),
        single_use: 2,
        tls: Some(Tls::new("soak.example", protocol).unwrap()),
        protocol,
        ..plain.clone()
    };
    let plans = [plain.clone(), secure(Protocol::Http1), secure(Protocol::Http2)];
    let expected_requests: u64 = plans.iter().map(|plan| u64::from(plan.rate.unwrap()) * seconds).sum();
    let reports = futures_util::future::join_all(plans.map(run)).await;
    stop.store(true, Ordering::SeqCst);
    let edit_counts = editors.finish().await;

    let text: String = reports.iter().map(ToString::to_string).collect();
    println!("{text}{edit_counts}");
    assert!(reports.iter().all(Report::is_clean), "{text}");
    assert_eq!(
        reports.iter().map(|report| report.good).sum::<u64>(),
        expected_requests,
        "every request was sent and completed"
    );
    for (what, count) in edit_counts.edits {
        assert!(count >= min_edits, "only {count} edits of {what}");
    }
}

/// All shapes of requests for each edited route, and requests to the backend that closes connections.
fn shapes() -> Vec<RequestShape> {
    let mut shapes = Vec::new();
    for path in ["/routes", "/weights", "/endpoints"] {
        shapes.push(RequestShape::get("soak.example", path));
        shapes.push(RequestShape::get("soak.example", &format!("{path}/bytes/50000")));
        shapes.push(RequestShape::post("soak.example", path, 700, false));
        shapes.push(RequestShape::post("soak.example", path, 30_000, true));
    }
    // Only GET: a POST on a connection that is being closed is not retried and would fail.
    shapes.push(RequestShape::get("soak.example", "/hasty"));
    shapes
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    let Ok(text) = env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number"))
}
