//! Request mirroring: which requests mirrors receive, and that mirrors do not affect the original request.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use portico::limits::ProxyLimits;
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::rule::{
    Action, Backend, BackendTarget, Filters, HeaderEdits, Mirror, Rewrite, WeightedBackends,
};
use portico::upstream::{EndpointAddress, Endpoints, Upstream, UpstreamKey};

use crate::accounting::{scrape, wait_for_metrics};
use crate::harness::{
    Endpoint, Options, Route, TestServer, forward, header, reserve_address, route, upstream, with_timeout,
};

/// A mirror that receives `numerator` of `denominator` requests.
pub(crate) fn mirror(upstream: Arc<Upstream>, numerator: u32, denominator: u32) -> Mirror {
    Mirror { upstream, numerator, denominator }
}

fn mirror_filters(mirrors: Vec<Mirror>) -> Filters {
    Filters { mirrors: mirrors.into(), ..Filters::default() }
}

pub(crate) fn mirrored_routes(original: &Endpoint, mirrors: Vec<Mirror>) -> Vec<Route> {
    let action = forward(vec![(1, upstream("web", &[original.address]))]);
    vec![Route { filters: mirror_filters(mirrors), ..route(action) }]
}

/// An endpoint that reads a request and never responds.
async fn silent_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.read_to_end().await;
    })
    .await
}

/// Waits until the given number of copies has this outcome.
async fn wait_for_count(server: &TestServer, outcome: &str, count: f64) {
    let name = format!("portico_mirrored_requests_total{{outcome=\"{outcome}\"}}");
    wait_for_metrics(server, &format!("{count} copies with outcome {outcome}"), |metrics| metrics[&name] == count)
        .await;
}

const POST: &str = "POST /api/x?y=1 HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\nhello";
const CHUNKED: &str =
    "POST /api/x?y=1 HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
const GET: &str = "GET /api/x?y=1 HTTP/1.1\r\nhost: a.example\r\n\r\n";

#[tokio::test]
async fn mirrors_receive_requests_filtered_at_their_level() {
    let (original, rule_mirror, backend_mirror) = (Endpoint::ok().await, Endpoint::ok().await, Endpoint::ok().await);
    let set_level = |value| HeaderEdits {
        set: vec![(HeaderName::from_static("x-level"), HeaderValue::from_static(value))],
        ..HeaderEdits::default()
    };
    let rule_filters = Filters {
        request_headers: Some(set_level("rule")),
        rewrite: Some(Rewrite { host: None, path: Some(PathEdit::prefix("/api", "/v2")) }),
        ..mirror_filters(vec![mirror(upstream("rule", &[rule_mirror.address]), 1, 1)])
    };
    let backend = Backend {
        weight: 1,
        filters: Filters {
            request_headers: Some(set_level("backend")),
            ..mirror_filters(vec![mirror(upstream("backend", &[backend_mirror.address]), 1, 1)])
        },
        target: BackendTarget::Upstream(upstream("web", &[original.address])),
    };
    let action = Action::Forward(WeightedBackends::new(vec![backend]).unwrap());
    let server = TestServer::with_routes(vec![Route { filters: rule_filters, ..route(action) }]).await;
    for (index, (request, body)) in [(GET, ""), (POST, "hello"), (CHUNKED, "hello")].into_iter().enumerate() {
        assert_eq!(server.request(request).await.text(), "ok");
        for (endpoint, level) in [(&original, "backend"), (&rule_mirror, "rule"), (&backend_mirror, "backend")] {
            endpoint.log.wait_for("the request", |log| log.requests().len() > index).await;
            let received = endpoint.log.requests()[index].clone();
            let method = request.split(' ').next().unwrap();
            assert!(received.starts_with(&format!("{method} /v2/x?y=1 HTTP/1.1\r\n")), "{received}");
            assert_eq!(header(&received, "host"), Some("a.example"), "{received}");
            assert_eq!(header(&received, "x-level"), Some(level), "{received}");
            assert!(received.ends_with(&format!("\r\n\r\n{body}")), "{received}");
        }
    }
    wait_for_count(&server, "completed", 6.0).await;
}

#[tokio::test]
async fn each_mirror_receives_its_share() {
    let original = Endpoint::ok().await;
    let (all, half, none) = (Endpoint::ok().await, Endpoint::ok().await, Endpoint::ok().await);
    let mirrors = vec![
        mirror(upstream("all", &[all.address]), 100, 100),
        mirror(upstream("half", &[half.address]), 50, 100),
        mirror(upstream("none", &[none.address]), 0, 100),
    ];
    let server = TestServer::with_routes(mirrored_routes(&original, mirrors)).await;
    let mut client = server.connect().await;
    for _ in 0..400 {
        assert_eq!(client.get("/").await.status, 200);
    }
    all.log.wait_for("all copies", |log| log.requests().len() == 400).await;
    with_timeout("all responses", async {
        while scrape(&server)["portico_mirrored_requests_total{outcome=\"completed\"}"]
            != 400.0 + half.log.requests().len() as f64
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let half_count = half.log.requests().len();
    // Eight standard deviations, of ten copies each, from the mean.
    assert!((120..=280).contains(&half_count), "{half_count} of 400");
    assert_eq!(none.log.requests().len(), 0);
}

/// A percentage that is counted would mirror one of two kinds of requests that alternate, and the same requests to all
/// mirrors.
#[tokio::test]
async fn each_mirror_draws_for_itself() {
    let original = Endpoint::ok().await;
    let (all, first, second) = (Endpoint::ok().await, Endpoint::ok().await, Endpoint::ok().await);
    let mirrors = vec![
        mirror(upstream("all", &[all.address]), 100, 100),
        mirror(upstream("first", &[first.address]), 50, 100),
        mirror(upstream("second", &[second.address]), 50, 100),
    ];
    let server = TestServer::with_routes(mirrored_routes(&original, mirrors)).await;
    let mut client = server.connect().await;
    for number in 0..400 {
        let kind = if number % 2 == 0 { "login" } else { "data" };
        assert_eq!(client.get(&format!("/{kind}/{number}")).await.status, 200);
    }
    all.log.wait_for("all copies", |log| log.requests().len() == 400).await;
    let paths = |endpoint: &Endpoint| -> std::collections::BTreeSet<String> {
        endpoint.log.requests().iter().map(|request| request.split(' ').nth(1).unwrap().to_owned()).collect()
    };
    let (first, second) = (paths(&first), paths(&second));
    // Eight standard deviations from the mean, also if a few copies are still on their way.
    for mirrored in [&first, &second] {
        for kind in ["/login/", "/data/"] {
            let count = mirrored.iter().filter(|path| path.starts_with(kind)).count();
            assert!((40..=160).contains(&count), "{count} of 200 requests to {kind}");
        }
    }
    let both = first.intersection(&second).count();
    assert!((30..=170).contains(&both), "{both} of 400 requests are mirrored to both");
}

#[tokio::test]
async fn slow_or_missing_mirrors_do_not_affect_requests() {
    let original = Endpoint::ok().await;
    let silent = silent_endpoint().await;
    let (refusing, _reserved) = reserve_address();
    let mirrors = vec![
        mirror(upstream("silent", &[silent.address]), 1, 1),
        mirror(upstream("refusing", &[refusing]), 1, 1),
        mirror(upstream("no-endpoints", &[]), 1, 1),
    ];
    let limits = ProxyLimits { mirror_timeout: std::time::Duration::from_millis(200), ..ProxyLimits::default() };
    let server =
        TestServer::with_options(Options { limits, ..Options::default() }, mirrored_routes(&original, mirrors)).await;
    let mut client = server.connect().await;
    for request in [GET, POST, CHUNKED] {
        client.send(request).await;
        assert_eq!(client.response().await.text(), "ok");
    }
    // The copies for the unresponsive mirror fail at the mirror timeout, without delaying other copies.
    wait_for_count(&server, "failed", 9.0).await;
    silent
        .log
        .wait_for("the proxy's connections to close", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 3)
        .await;
}

#[tokio::test]
async fn mirrored_copies_are_limited_in_number_and_size() {
    let original = Endpoint::ok().await;
    let silent = silent_endpoint().await;
    let limits = ProxyLimits { max_mirror_copies: 2, max_mirror_body: 4, ..ProxyLimits::default() };
    let routes = mirrored_routes(&original, vec![mirror(upstream("silent", &[silent.address]), 1, 1)]);
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let mut client = server.connect().await;
    for (request, outcome, count) in [(POST, "too_large", 1.0), (CHUNKED, "too_large", 2.0)] {
        client.send(request).await;
        assert_eq!(client.response().await.text(), "ok");
        wait_for_count(&server, outcome, count).await;
    }
    for _ in 0..5 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    wait_for_count(&server, "too_many", 3.0).await;
    silent.log.wait_for("the copies", |log| log.requests().len() == 2).await;
    assert_eq!(original.log.requests().len(), 7);
}

/// Without a place, a copy is not made, and its body is not kept.
#[tokio::test]
async fn requests_are_not_copied_while_all_places_are_taken() {
    let (original, copies) = (Endpoint::ok().await, Endpoint::ok().await);
    let limits = ProxyLimits { max_mirror_copies: 0, max_mirror_body: 4, ..ProxyLimits::default() };
    let routes = mirrored_routes(&original, vec![mirror(upstream("copy", &[copies.address]), 1, 1)]);
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    // The length of the body is unknown, so it would be kept until it is too large.
    assert_eq!(server.request(CHUNKED).await.text(), "ok");
    wait_for_count(&server, "too_many", 1.0).await;
    assert_eq!(copies.log.connections(), 0);
}

/// Those of one namespace fill the places, because their Service hangs.
#[tokio::test]
async fn copies_for_one_namespace_leave_places_for_those_of_others() {
    let (original, silent, other) = (Endpoint::ok().await, silent_endpoint().await, Endpoint::ok().await);
    let limits = ProxyLimits { max_mirror_copies: 8, ..ProxyLimits::default() };
    let busy = Upstream::new(UpstreamKey { namespace: "busy".into(), ..UpstreamKey::default() });
    busy.set_endpoints(Endpoints { addresses: vec![EndpointAddress::Ip(silent.address)], ..Endpoints::default() });
    let mut routes = mirrored_routes(&original, vec![mirror(Arc::new(busy), 1, 1)]);
    let others = mirrored_routes(&original, vec![mirror(upstream("copy", &[other.address]), 1, 1)]);
    routes.extend(others.into_iter().map(|route| Route { path: "/other", ..route }));
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let mut client = server.connect().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    wait_for_count(&server, "too_many", 3.0).await;
    assert_eq!(client.get("/other").await.text(), "ok");
    other.log.wait_for("the copy", |log| log.requests().len() == 1).await;
}

/// Clients that send bodies without end take no places from others.
#[tokio::test]
async fn incomplete_requests_leave_the_places_to_others() {
    let original = Endpoint::scripted(|mut stream, _| async move {
        if stream.head().await.is_some_and(|head| head.starts_with("GET")) {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
        stream.read_to_end().await;
    })
    .await;
    let copies = Endpoint::ok().await;
    let limits = ProxyLimits { max_mirror_copies: 2, ..ProxyLimits::default() };
    let routes = mirrored_routes(&original, vec![mirror(upstream("copy", &[copies.address]), 1, 1)]);
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let mut uploads = Vec::new();
    for number in 1..=4 {
        let mut client = server.connect().await;
        client.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 10\r\n\r\nhalf").await;
        original.log.wait_for("the request", |log| log.connections() == number).await;
        uploads.push(client);
    }
    assert_eq!(server.connect().await.get("/").await.text(), "ok");
    wait_for_count(&server, "completed", 1.0).await;
    assert_eq!(copies.log.requests().len(), 1);
}

#[tokio::test]
async fn incomplete_request_is_not_mirrored() {
    let original = Endpoint::scripted(|mut stream, _| async move {
        drop(stream.head().await);
        stream.read_to_end().await;
    })
    .await;
    let mirror_endpoint = Endpoint::ok().await;
    let routes = mirrored_routes(&original, vec![mirror(upstream("copy", &[mirror_endpoint.address]), 1, 1)]);
    let server = TestServer::with_routes(routes).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 10\r\n\r\nhalf").await;
    original.log.wait_for("the request", |log| log.connections() == 1).await;
    drop(client);
    wait_for_count(&server, "truncated", 1.0).await;
    assert_eq!(mirror_endpoint.log.connections(), 0);
}
