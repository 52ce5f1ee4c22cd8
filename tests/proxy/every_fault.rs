//! Every fault over every wire: status, body, request id, metric and log.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderValue;
use portico::plugin::Outcome;
use portico::plugin::chain::Protocols;
use portico::proxy::Limits;
use portico::proxy::access_log::Destination;
use portico::snapshot::kong::Manner;
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::rule::{Action, Failure, Filters, Rewrite};
use portico::snapshot::tries::{Limit, Tries};
use portico::upstream::Protocol;

use crate::books::{records, scrape};
use crate::endpoints::deaf;
use crate::harness::{
    Endpoint, Gate, Options, PATIENCE, Route, forward, reserve, route, trying, upstream, upstream_of,
};
use crate::plugins::{Script, chain};
use crate::wire::{ASK, Ask, WIRES, Wire};

struct Case {
    word: &'static str,
    /// 0 if there is no whole answer.
    status: u16,
    ask: Ask,
    on: fn(Wire) -> bool,
}

const fn case(word: &'static str, status: u16, ask: Ask) -> Case {
    Case { word, status, ask, on: |_| true }
}

const fn at(path: &'static str) -> Ask {
    Ask { path, ..ASK }
}

const HUNDRED: [(&str, &str); 101] = [("x", "y"); 101];

const CASES: &[Case] = &[
    case("bad_target", 400, at("/%zz")),
    case("bad_host", 400, Ask { fields: &[("host", "other.example")], ..ASK }),
    Case { on: |wire| !wire.http2, ..case("unreadable", 400, Ask { fields: &[("x y", "z")], ..ASK }) },
    // A library refuses to send it over HTTP/2; h2_hostile.rs does it by hand.
    Case {
        on: |wire| !wire.http2,
        ..case("bad_framing", 400, Ask { fields: &[("content-length", "1"), ("transfer-encoding", "chunked")], ..ASK })
    },
    case("too_many_fields", 431, Ask { fields: &HUNDRED, ..ASK }),
    Case {
        on: |wire| wire.http2,
        ..case("upgrade", 501, Ask { method: "CONNECT", path: "/h2c", protocol: Some("websocket"), ..ASK })
    },
    // Bytes after a chunk that are no line end. Over HTTP/2 such a stream is reset, and there is nobody to answer.
    Case {
        on: |wire| !wire.http2,
        ..case(
            "broken_body",
            400,
            Ask {
                method: "POST",
                path: "/ok",
                fields: &[("transfer-encoding", "chunked")],
                raw: "3\r\nabcXY0\r\n\r\n",
                ..ASK
            },
        )
    },
    case("connect_method", 405, Ask { method: "CONNECT", ..ASK }),
    case("expectation", 417, Ask { fields: &[("expect", "a miracle")], ..ASK }),
    case("upload_timeout", 408, Ask { method: "POST", path: "/silent", body: Some("hal"), stalls: true, ..ASK }),
    Case { on: |wire| wire.tls, ..case("misdirected", 421, Ask { host: "b.example", ..ASK }) },
    Case { on: |wire| !wire.tls, ..case("no_listener", 404, Ask { host: "c.example", ..ASK }) },
    case("body_too_large", 413, Ask { method: "POST", body: Some("0123456789x"), ..at("/limited") }),
    case("plugin_timeout", 504, at("/pondering")),
    case("no_route", 404, at("/none")),
    case("no_backends", 500, at("/no-backends")),
    case("invalid_backend", 500, at("/invalid-backend")),
    case("unsupported_rule", 500, at("/unsupported-rule")),
    case("no_service", 503, at("/no-service")),
    Case { on: |wire| !wire.tls, ..case("https_only", 426, at("/https-only")) },
    Case { on: |wire| !wire.http2, ..case("http2_only", 426, at("/grpc-only")) },
    Case { on: |wire| wire.http2, ..case("not_grpc", 415, at("/grpc-only")) },
    case("bad_rewrite", 500, at("/bad-rewrite")),
    case("no_endpoints", 503, at("/no-endpoints")),
    case("refused", 503, at("/refused")),
    case("connect_timeout", 504, at("/deaf")),
    case("answer_timeout", 504, at("/silent")),
    case("request_timeout", 504, at("/request-timeout")),
    case("backend_timeout", 504, at("/backend-timeout")),
    case("bad_answer", 502, at("/bad-answer")),
    case("no_answer", 502, Ask { method: "POST", body: Some("x"), ..at("/no-answer") }),
    case("truncated", 0, at("/truncated")),
];

/// What these ask for is never answered, so that only they have little time, and a slow machine makes no difference.
const HASTY: [&str; 4] = ["upload_timeout", "plugin_timeout", "connect_timeout", "answer_timeout"];

fn limits(hasty: bool) -> Limits {
    if !hasty {
        return Limits::default();
    }
    let soon = Duration::from_millis(100);
    Limits { upload_timeout: soon, answer_timeout: soon, connect_timeout: soon, ..Limits::default() }
}

async fn scripted() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        let Some(head) = stream.head().await else { return };
        match head.split(' ').nth(1).unwrap() {
            "/bad-answer" => stream.send("nonsense\r\n\r\n").await,
            "/truncated" => stream.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await,
            "/no-answer" => {}
            _ => drop(stream.rest().await),
        }
    })
    .await
}

fn limits_bodies() -> Script {
    Script::access(|cx| {
        *cx.body_limit = Some(10);
        Outcome::Next
    })
}

fn ponders() -> Script {
    Script::access(|_| Outcome::Wait(Box::pin(std::future::pending())))
}

fn speaking(names: &[&str]) -> Option<Box<Manner>> {
    Some(Box::new(Manner { protocols: Protocols::of(names.iter().copied()), ..Manner::default() }))
}

#[tokio::test]
async fn every_fault_is_told_alike_over_every_wire() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = scripted().await;
    let (unused, _reserved) = reserve();
    let (unreached, _queue, _socket) = deaf().await;
    let within = |request, backend_request| Tries { request, backend_request, ..Tries::default() };
    let soon = || Limit::After(Duration::from_millis(100));
    for (wire, hasty) in WIRES.into_iter().flat_map(|wire| [(wire, false), (wire, true)]) {
        let web = || forward(vec![(1, upstream("web", &[endpoint.address]))]);
        let rule = |path, action| Route { path, ..route(action) };
        let path = Some(PathEdit::Full("/not a path".into()));
        let rewrite = Filters { rewrite: Some(Rewrite { host: None::<HeaderValue>, path }), ..Filters::default() };
        let routes = vec![
            rule("/ok", web()),
            rule("/silent", web()),
            rule("/bad-answer", web()),
            rule("/no-answer", web()),
            rule("/truncated", web()),
            Route { plugins: chain(vec![limits_bodies()]), ..rule("/limited", web()) },
            Route { plugins: chain(vec![ponders()]), ..rule("/pondering", web()) },
            rule("/no-backends", Action::Fail(Failure::NoBackends)),
            rule("/invalid-backend", Action::Fail(Failure::InvalidBackend)),
            rule("/unsupported-rule", Action::Fail(Failure::Unsupported)),
            rule("/no-service", Action::Fail(Failure::NoService)),
            Route { kong: speaking(&["https"]), ..rule("/https-only", web()) },
            Route { kong: speaking(&["grpc"]), ..rule("/grpc-only", web()) },
            Route { filters: rewrite, ..rule("/bad-rewrite", web()) },
            rule("/no-endpoints", forward(vec![(1, upstream("none", &[]))])),
            rule("/refused", forward(vec![(1, upstream("refused", &[unused]))])),
            rule("/deaf", forward(vec![(1, upstream("deaf", &[unreached]))])),
            rule("/h2c", forward(vec![(1, upstream_of(Protocol::Http2, "h2c", &[unused]))])),
            rule("/request-timeout", trying(web(), within(soon(), Limit::Unset))),
            rule("/backend-timeout", trying(web(), within(Limit::Unset, soon()))),
        ];
        let path = folder.path().join(format!("{wire:?} {hasty}"));
        let options = Options { limits: limits(hasty), log: Destination::File(path.clone()), ..Options::default() };
        let gate = wire.open(options, routes).await;
        let mut told = Vec::new();
        let mut before = faults(&gate);
        for case in CASES.iter().filter(|case| (case.on)(wire) && HASTY.contains(&case.word) == hasty) {
            let what = format!("{} over {wire:?}", case.word);
            let reply = wire.ask(&gate, &case.ask).await;
            assert_eq!(reply.as_ref().map_or(0, |reply| reply.status), case.status, "{what}");
            let mut id = None;
            if let Some(reply) = reply {
                id = reply.field("x-request-id");
                let body: serde_json::Value = serde_json::from_str(&reply.body).expect(&what);
                assert_eq!(body["request_id"].as_str(), id.as_deref(), "{what}");
                assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}");
                assert_eq!(reply.field("content-type").unwrap(), "application/json; charset=utf-8", "{what}");
                assert_eq!(reply.field("allow").is_some(), case.status == 405, "{what}");
            }
            let after = faults(&gate);
            *before.entry(case.word.to_owned()).or_default() += 1;
            assert_eq!(after, before, "{what}");
            told.push((case, id));
        }
        assert_eq!(gate.proxy.drain(PATIENCE).await, 0);
        gate.log.finish();
        let records = records(&path);
        assert_eq!(records.len(), told.len(), "{wire:?}");
        for (record, (case, id)) in records.iter().zip(told) {
            assert_eq!(record["fault"], case.word, "{wire:?}");
            assert_eq!(record["protocol"], if wire.http2 { "HTTP/2" } else { "HTTP/1.1" }, "{record}");
            assert_eq!(record["tls"].as_str(), wire.tls.then_some("TLSv1.3"), "{record}");
            assert!(record["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
            assert_eq!(record["method"], case.ask.method, "{record}");
            if id.is_some() {
                assert_eq!(record["request_id"].as_str(), id.as_deref(), "{record}");
                assert_eq!(record["status"], case.status, "{record}");
            }
        }
    }
}

/// Faults that need more than one request to show, and where they do.
const ELSEWHERE: [(&str, &str); 11] = [
    ("tls_handshake", "upstream_tls.rs"),
    ("grpcs_only", "kong.rs"),
    ("target_too_long", "unreadable.rs"),
    ("header_too_large", "unreadable.rs"),
    ("client_gone", "books.rs"),
    ("no_room", "endpoints.rs"),
    ("refused_stream", "h2_hostile.rs"),
    ("flood", "h2_hostile.rs"),
    ("tunnel_idle", "upgrade.rs"),
    ("tunnel_broken", "upgrade.rs"),
    ("tunnel_cut", "upgrade.rs"),
];

/// The page is compared with the code elsewhere; a new fault needs a case here.
#[test]
fn every_fault_of_the_page_has_a_case() {
    let root = env!("CARGO_MANIFEST_DIR");
    let page = std::fs::read_to_string(format!("{root}/docs/faults.md")).unwrap();
    let (page, _) = page.split_once("\n## Before there is a request").expect("what has no word comes last");
    let words = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let here = |word: &str| CASES.iter().any(|case| case.word == word);
    for word in words.filter(|word| !here(word)) {
        let (_, file) = ELSEWHERE.iter().find(|(known, _)| *known == word).expect(word);
        let test = std::fs::read_to_string(format!("{root}/tests/proxy/{file}")).unwrap();
        assert!(
            test.contains(&format!("\"{word}\"")) || test.contains(&format!("reason=\\\"{word}\\\"")),
            "{file}: {word}"
        );
    }
}

/// How often which fault was counted.
fn faults(gate: &Gate) -> BTreeMap<String, u64> {
    let reason =
        |name: &str| Some(name.strip_prefix("portico_faults_total{reason=\"")?.strip_suffix("\"}")?.to_owned());
    scrape(gate).iter().filter_map(|(name, count)| Some((reason(name)?, *count as u64))).collect()
}
