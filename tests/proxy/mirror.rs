//! Mirrors: what they see, and that nobody else notices.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use portico::proxy::Limits;
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::rule::{Action, Backend, Filters, HeaderEdits, Mirror, Rewrite, Split, Target};
use portico::upstream::Upstream;

use crate::books::scrape;
use crate::harness::{Endpoint, Gate, Options, Route, forward, header, reserve, route, upstream, within};

fn mirror(upstream: Arc<Upstream>, share: u32, of: u32) -> Mirror {
    Mirror { upstream, share, of }
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
        stream.rest().await;
    })
    .await
}

/// Waits until so many copies ended so.
async fn counted(gate: &Gate, outcome: &str, count: f64) {
    let name = format!("portico_mirrored_requests_total{{outcome=\"{outcome}\"}}");
    within(&format!("{count} {outcome}"), async {
        while scrape(gate)[&name] != count {
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
async fn mirrors_see_what_the_filters_of_their_level_make_of_the_request() {
    let (original, of_rule, of_backend) = (Endpoint::ok().await, Endpoint::ok().await, Endpoint::ok().await);
    let set = |value| HeaderEdits {
        set: vec![(HeaderName::from_static("x-level"), HeaderValue::from_static(value))],
        ..HeaderEdits::default()
    };
    let rule = Filters {
        request_headers: Some(set("rule")),
        rewrite: Some(Rewrite { host: None, path: Some(PathEdit::prefix("/api", "/v2")) }),
        ..mirrors(vec![mirror(upstream("rule", &[of_rule.address]), 1, 1)])
    };
    let backend = Backend {
        weight: 1,
        filters: Filters {
            request_headers: Some(set("backend")),
            ..mirrors(vec![mirror(upstream("backend", &[of_backend.address]), 1, 1)])
        },
        target: Target::Upstream(upstream("web", &[original.address])),
    };
    let action = Action::Forward(Split::new(vec![backend]).unwrap());
    let gate = Gate::open(vec![Route { filters: rule, ..route(action) }]).await;
    for (index, (request, body)) in [(GET, ""), (POST, "hello"), (CHUNKED, "hello")].into_iter().enumerate() {
        assert_eq!(gate.ask(request).await.text(), "ok");
        for (endpoint, level) in [(&original, "backend"), (&of_rule, "rule"), (&of_backend, "backend")] {
            endpoint.log.until("the request", |log| log.requests().len() > index).await;
            let seen = endpoint.log.requests()[index].clone();
            let method = request.split(' ').next().unwrap();
            assert!(seen.starts_with(&format!("{method} /v2/x?y=1 HTTP/1.1\r\n")), "{seen}");
            assert_eq!(header(&seen, "host"), Some("a.example"), "{seen}");
            assert_eq!(header(&seen, "x-level"), Some(level), "{seen}");
            assert!(seen.ends_with(&format!("\r\n\r\n{body}")), "{seen}");
        }
    }
    counted(&gate, "answered", 6.0).await;
}

#[tokio::test]
async fn each_of_several_mirrors_gets_its_share() {
    let original = Endpoint::ok().await;
    let (all, half, none) = (Endpoint::ok().await, Endpoint::ok().await, Endpoint::ok().await);
    let copies = vec![
        mirror(upstream("all", &[all.address]), 100, 100),
        mirror(upstream("half", &[half.address]), 50, 100),
        mirror(upstream("none", &[none.address]), 0, 100),
    ];
    let gate = Gate::open(mirrored_to(&original, copies)).await;
    let mut client = gate.client().await;
    for _ in 0..400 {
        assert_eq!(client.get("/").await.status, 200);
    }
    all.log.until("all copies", |log| log.requests().len() == 400).await;
    within("all answers", async {
        while scrape(&gate)["portico_mirrored_requests_total{outcome=\"answered\"}"]
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
async fn a_mirror_that_is_slow_or_gone_changes_nothing() {
    let original = Endpoint::ok().await;
    let silent = silent().await;
    let (dead, _reserved) = reserve();
    let copies = vec![
        mirror(upstream("silent", &[silent.address]), 1, 1),
        mirror(upstream("dead", &[dead]), 1, 1),
        mirror(upstream("nobody", &[]), 1, 1),
    ];
    let limits = Limits { mirror_timeout: std::time::Duration::from_millis(200), ..Limits::default() };
    let gate = Gate::with(Options { limits, ..Options::default() }, mirrored_to(&original, copies)).await;
    let mut client = gate.client().await;
    for request in [GET, POST, CHUNKED] {
        client.send(request).await;
        assert_eq!(client.answer(false).await.text(), "ok");
    }
    // The silent one costs its patience and no more.
    counted(&gate, "failed", 9.0).await;
    silent.log.until("our end", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 3).await;
}

#[tokio::test]
async fn copies_are_bounded_in_number_and_size() {
    let original = Endpoint::ok().await;
    let silent = silent().await;
    let limits = Limits { mirror_copies: 2, mirror_body: 4, ..Limits::default() };
    let routes = mirrored_to(&original, vec![mirror(upstream("silent", &[silent.address]), 1, 1)]);
    let gate = Gate::with(Options { limits, ..Options::default() }, routes).await;
    let mut client = gate.client().await;
    for (request, outcome, count) in [(POST, "too_large", 1.0), (CHUNKED, "too_large", 2.0)] {
        client.send(request).await;
        assert_eq!(client.answer(false).await.text(), "ok");
        counted(&gate, outcome, count).await;
    }
    for _ in 0..5 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    counted(&gate, "too_many", 3.0).await;
    silent.log.until("the copies", |log| log.requests().len() == 2).await;
    assert_eq!(original.log.requests().len(), 7);
}

#[tokio::test]
async fn half_a_request_is_not_mirrored() {
    let original = Endpoint::scripted(|mut stream, _| async move {
        drop(stream.head().await);
        stream.rest().await;
    })
    .await;
    let copy = Endpoint::ok().await;
    let routes = mirrored_to(&original, vec![mirror(upstream("copy", &[copy.address]), 1, 1)]);
    let gate = Gate::open(routes).await;
    let mut client = gate.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 10\r\n\r\nhalf").await;
    original.log.until("the request", |log| log.connections() == 1).await;
    drop(client);
    counted(&gate, "cut_short", 1.0).await;
    assert_eq!(copy.log.connections(), 0);
}
