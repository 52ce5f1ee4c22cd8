//! Series of locations: which labels they have, what is merged, and how many there are.

use http::StatusCode;

use super::super::ProxyStats;
use super::*;
use crate::plugin_api::completed_request::AttemptOutcome;

fn names(ingress: &str, host: &str) -> Arc<LocationNames> {
    Arc::new(LocationNames {
        namespace: "shop".into(),
        ingress: ingress.into(),
        service: "cart".into(),
        service_port: "80".into(),
        path: "/a".into(),
        host: host.into(),
    })
}

fn request<'r>(names: &'r Arc<LocationNames>, method: &'r Method, status: u16) -> LocationRequest<'r> {
    let (duration, alternative, attempt) = (Duration::from_millis(30), None, None);
    LocationRequest { names, alternative, method, status, duration, attempt, received: 95, sent: 1000 }
}

fn stats(metrics: LocationMetrics, max_series: usize) -> ProxyStats {
    ProxyStats::new(2, max_series, Arc::default()).with_locations(Some(metrics))
}

#[test]
fn workers_and_names_that_are_no_labels_are_merged() {
    let stats = stats(LocationMetrics::default(), 10);
    for (worker, host) in [(0, "a.example"), (1, "b.example"), (1, "_")] {
        stats.count_location(stats.worker(worker), &request(&names("web", host), &Method::GET, 200));
    }
    let found: Vec<_> = stats.locations().into_iter().collect();
    let [(labels, counts)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&*labels.ingress, &*labels.path, &*labels.host, labels.method), ("web", "/a", "", "GET"));
    assert_eq!((&*labels.status, &*labels.alternative), ("200", ""));
    assert_eq!((counts.requests, counts.duration.count(), counts.head.count()), (3, 3, 0));
    assert_eq!((counts.received.sum, counts.sent.sum), (285.0, 3000.0));
    let filled = |histogram: &LocationHistogram| histogram.buckets().find(|(_, count)| *count > 0);
    assert_eq!(filled(&counts.duration), Some((0.05, 3)));
    assert_eq!(filled(&counts.received), Some((100.0, 3)));
    assert_eq!(filled(&counts.sent), Some((f64::INFINITY, 3)));
    assert_eq!(filled(&counts.sent_by_magnitude), Some((1000.0, 3)));
    let widths = [&counts.duration, &counts.sent, &counts.sent_by_magnitude].map(|it| it.buckets().count());
    assert_eq!(widths, [12, 11, 8]);
}

#[test]
fn flags_decide_about_hosts_and_statuses() {
    for (has_host, counts_undefined_hosts, has_status_classes, expected) in [
        (false, false, false, &[" 200", " 404"][..]),
        (true, false, false, &["a.example 200", "a.example 404"]),
        (true, true, true, &["_ 2xx", "_ 4xx", "a.example 2xx", "a.example 4xx"]),
    ] {
        let stats = stats(LocationMetrics { has_host, counts_undefined_hosts, has_status_classes }, 10);
        for (host, status) in [("a.example", 200), ("a.example", 404), ("_", 200), ("_", 404)] {
            stats.count_location(stats.worker(0), &request(&names("web", host), &Method::GET, status));
        }
        let found: Vec<_> =
            stats.locations().into_keys().map(|labels| format!("{} {}", labels.host, labels.status)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn last_attempt_and_share_are_counted() {
    let stats = stats(LocationMetrics::default(), 10);
    let (names, method) = (names("web", "a.example"), Method::from_bytes(b"BREW").unwrap());
    let attempt = Attempt {
        first_byte: Some(Duration::from_millis(4)),
        total: Duration::from_millis(20),
        outcome: AttemptOutcome::Status(StatusCode::OK),
        ..Attempt::start(([10, 0, 0, 1], 80).into(), Instant::now())
    };
    let next = Arc::from("shop-next-80");
    let request =
        LocationRequest { attempt: Some(&attempt), alternative: Some(&next), ..request(&names, &method, 200) };
    stats.count_location(stats.worker(0), &request);
    let (labels, counts) = stats.locations().pop_first().unwrap();
    assert_eq!((&*labels.alternative, labels.method), ("shop-next-80", "other"));
    let seconds = [&counts.connect, &counts.head, &counts.response].map(|it| (it.count(), it.sum));
    assert_eq!(seconds, [(1, 0.0), (1, 0.004), (1, 0.02)]);
}

#[tokio::test(start_paused = true)]
async fn number_of_series_is_bounded_and_unused_ones_make_room() {
    let stats = stats(LocationMetrics::default(), 2);
    let count = |ingress: &str| {
        stats.count_location(stats.worker(0), &request(&names(ingress, "_"), &Method::GET, 200));
    };
    let found = || -> Vec<String> {
        let text = |labels: LocationLabels| format!("{} {}", labels.ingress, labels.status);
        stats.locations().into_keys().map(text).collect()
    };
    ["a", "b", "c", "d", "c"].into_iter().for_each(count);
    assert_eq!(found(), ["other other", "a 200", "b 200"]);
    assert_eq!(stats.locations().values().map(|counts| counts.requests).collect::<Vec<_>>(), [3, 1, 1]);
    tokio::time::advance(UNUSED_AFTER / 2).await;
    count("b");
    tokio::time::advance(UNUSED_AFTER / 2 + Duration::from_secs(1)).await;
    count("e");
    assert_eq!(found(), ["other other", "b 200", "e 200"], "the first one was not used");
}

#[test]
fn nothing_is_counted_without_the_flag() {
    let stats = ProxyStats::new(1, 10, Arc::default());
    stats.count_location(stats.worker(0), &request(&names("web", "_"), &Method::GET, 200));
    assert!(stats.locations().is_empty());
}
