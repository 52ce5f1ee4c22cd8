//! Request mirroring: what mirrors receive, and that they do not affect the original request.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use portico::proxy::ProxyLimits;
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::rule::{Action, Backend, BackendTarget, Filters, HeaderEdits, Mirror, Rewrite, Split};
use portico::upstream::Upstream;

use crate::accounting::scrape;
use crate::harness::{
    Endpoint, Options, Route, TestServer, forward, header, reserve_address, route, upstream, with_timeout,
};

fn mirror(upstream: Arc<Upstream>, share: u32, of: u32) -> Mirror {
    Mirror { upstream, numerator: share, denominator: of }
}

fn mirrors(mirrors: Vec<Mirror>) -> Filters {
    Filters { mirrors: mirrors.into(), ..Filters::default() }
}

fn mirrored_to(original: &Endpoint, copies: Vec<Mirror>) -> Vec<Route> {
    let action = forward(vec![(1, upstream("web", &[original.address]))]);
    vec![Route { filters: mirrors(copies), ..route(action) }]
}

async fn silent() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.read_to_end().await;
    })
    .await
}

/// Waits until the given number of copies has this outcome.
async fn wait_for_count(server: &TestServer, outcome: &str, count: f64) {
    let name = format!("portico_mirrored_requests_total{{outcome=\"{outcome}\"}}");
    with_timeout(&format!("{count} {outcome}"), async {
        while scrape(server)[&name] != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

const POST: &str = "POST /api/x?y=1 HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\nhello";
const CHUNKED: &str =
    "POST /api/x?y=1 HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
const GET: &str = "GET /api/x?y=1 HTTP/1.1\r\nhost: a.example\r\n\r\n";

#[tokio::test]
async fn mirrors_receive_requests_filtered_at_their_level() {
    let (original, rule_mirror, backend_mirror) = (Endpoint::ok().await, Endpoint::ok().await, Endpoint::ok().await);
    let set = |value| HeaderEdits {
        set: vec![(HeaderName::from_static("x-level"), HeaderValue::from_static(value))],
        ..HeaderEdits::default()
    };
    let rule = Filters {
        request_headers: Some(set("rule")),
        rewrite: Some(Rewrite { host: None, path: Some(PathEdit::prefix("/api", "/v2")) }),
        ..mirrors(vec![mirror(upstream("rule", &[rule_mirror.address]), 1, 1)])
    };
    let backend = Backend {
        weight: 1,
        filters: Filters {
            request_headers: Some(set("backend")),
            ..mirrors(vec![mirror(upstream("backend", &[backend_mirror.address]), 1, 1)])
        },
        target: BackendTarget::Upstream(upstream("web", &[original.address])),
    };
    let action = Action::Forward(Split::new(vec![backend]).unwrap());
    let server = TestServer::with_routes(vec![Route { filters: rule, ..route(action) }]).await;
    for (index, (request, body)) in [(GET, ""), (POST, "hello"), (CHUNKED, "hello")].into_iter().enumerate() {
        assert_eq!(server.request(request).await.text(), "ok");
        for (endpoint, level) in [(&original, "backend"), (&rule_mirror, "rule"), (&backend_mirror, "backend")] {
            endpoint.log.wait_for("the request", |log| log.requests().len() > index).await;
            let seen = endpoint.log.requests()[index].clone();
            let method = request.split(' ').next().unwrap();
            assert!(seen.starts_with(&format!("{method} /v2/x?y=1 HTTP/1.1\r\n")), "{seen}");
            assert_eq!(header(&seen, "host"), Some("a.example"), "{seen}");
            assert_eq!(header(&seen, "x-level"), Some(level), "{seen}");
            assert!(seen.ends_with(&format!("\r\n\r\n{body}")), "{seen}");
        }
    }
    wait_for_count(&server, "completed", 6.0).await;
}

#[tokio::test]
async fn each_mirror_receives_its_share() {
    let original = Endpoint::ok().await;
    let (all, half, none) = (Endpoint::ok().await, Endpoint::ok().await, Endpoint::ok().await);
    let copies = vec![
        mirror(upstream("all", &[all.address]), 100, 100),
        mirror(upstream("half", &[half.address]), 50, 100),
        mirror(upstream("none", &[none.address]), 0, 100),
    ];
    let server = TestServer::with_routes(mirrored_to(&original, copies)).await;
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
    let drawn = half.log.requests().len();
    // Eight standard deviations.
    assert!((120..=280).contains(&drawn), "{drawn} of 400");
    assert_eq!(none.log.requests().len(), 0);
}

#[tokio::test]
async fn slow_or_missing_mirrors_do_not_affect_requests() {
    let original = Endpoint::ok().await;
    let silent = silent().await;
    let (dead, _reserved) = reserve_address();
    let copies = vec![
        mirror(upstream("silent", &[silent.address]), 1, 1),
        mirror(upstream("dead", &[dead]), 1, 1),
        mirror(upstream("nobody", &[]), 1, 1),
    ];
    let limits = ProxyLimits { mirror_timeout: std::time::Duration::from_millis(200), ..ProxyLimits::default() };
    let server =
        TestServer::with_options(Options { limits, ..Options::default() }, mirrored_to(&original, copies)).await;
    let mut client = server.connect().await;
    for request in [GET, POST, CHUNKED] {
        client.send(request).await;
        assert_eq!(client.response(false).await.text(), "ok");
    }
    // The unresponsive mirror delays only its own copy, until the mirror timeout.
    wait_for_count(&server, "failed", 9.0).await;
    silent
        .log
        .wait_for("the proxy's connections to close", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 3)
        .await;
}

#[tokio::test]
async fn mirrored_copies_are_limited_in_number_and_size() {
    let original = Endpoint::ok().await;
    let silent = silent().await;
    let limits = ProxyLimits { max_mirror_copies: 2, max_mirror_body: 4, ..ProxyLimits::default() };
    let routes = mirrored_to(&original, vec![mirror(upstream("silent", &[silent.address]), 1, 1)]);
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    let mut client = server.connect().await;
    for (request, outcome, count) in [(POST, "too_large", 1.0), (CHUNKED, "too_large", 2.0)] {
        client.send(request).await;
        assert_eq!(client.response(false).await.text(), "ok");
        wait_for_count(&server, outcome, count).await;
    }
    for _ in 0..5 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    wait_for_count(&server, "too_many", 3.0).await;
    silent.log.wait_for("the copies", |log| log.requests().len() == 2).await;
    assert_eq!(original.log.requests().len(), 7);
}

#[tokio::test]
async fn incomplete_request_is_not_mirrored() {
    let original = Endpoint::scripted(|mut stream, _| async move {
        drop(stream.head().await);
        stream.read_to_end().await;
    })
    .await;
    let copy = Endpoint::ok().await;
    let routes = mirrored_to(&original, vec![mirror(upstream("copy", &[copy.address]), 1, 1)]);
    let server = TestServer::with_routes(routes).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 10\r\n\r\nhalf").await;
    original.log.wait_for("the request", |log| log.connections() == 1).await;
    drop(client);
    wait_for_count(&server, "truncated", 1.0).await;
    assert_eq!(copy.log.connections(), 0);
}
