//! Every request error over every transport: status, body, request ID, metric and access log.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderValue;
use portico::plugin_api::AccessOutcome;
use portico::plugin_api::chain::Protocols;
use portico::proxy::ProxyLimits;
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::kong::KongBehavior;
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::rule::{Action, Filters, Rewrite, RouteFailure};
use portico::snapshot::timeouts_and_retries::{RequestTimeout, TimeoutsAndRetries};
use portico::upstream::UpstreamProtocol;

use crate::accounting::{records, scrape};
use crate::endpoints::unresponsive_address;
use crate::harness::{
    Endpoint, Options, Route, TEST_TIMEOUT, TestServer, forward, reserve_address, route, upstream,
    upstream_with_protocol, with_timeouts_and_retries,
};
use crate::plugins::{ScriptedPlugin, chain};
use crate::transport::{GET_ROOT, TRANSPORTS, Transport, TransportRequest};

struct Case {
    reason: &'static str,
    /// 0 if there is no complete response.
    status: u16,
    request: TransportRequest,
    applies_to: fn(Transport) -> bool,
}

const fn case(word: &'static str, status: u16, ask: TransportRequest) -> Case {
    Case { reason: word, status, request: ask, applies_to: |_| true }
}

const fn at(path: &'static str) -> TransportRequest {
    TransportRequest { path, ..GET_ROOT }
}

const HUNDRED: [(&str, &str); 101] = [("x", "y"); 101];

const CASES: &[Case] = &[
    case("invalid_target", 400, at("/%zz")),
    case("invalid_host", 400, TransportRequest { fields: &[("host", "other.example")], ..GET_ROOT }),
    Case {
        applies_to: |wire| !wire.http2,
        ..case("malformed_request", 400, TransportRequest { fields: &[("x y", "z")], ..GET_ROOT })
    },
    // The h2 library refuses to send it over HTTP/2; h2_hostile.rs writes the frames by hand.
    Case {
        applies_to: |wire| !wire.http2,
        ..case(
            "ambiguous_framing",
            400,
            TransportRequest { fields: &[("content-length", "1"), ("transfer-encoding", "chunked")], ..GET_ROOT },
        )
    },
    case("too_many_headers", 431, TransportRequest { fields: &HUNDRED, ..GET_ROOT }),
    Case {
        applies_to: |wire| wire.http2,
        ..case(
            "upgrade_not_supported",
            501,
            TransportRequest { method: "CONNECT", path: "/h2c", protocol: Some("websocket"), ..GET_ROOT },
        )
    },
    // A chunk that is not followed by CR LF. Over HTTP/2 such a stream is reset, so there is no response.
    Case {
        applies_to: |wire| !wire.http2,
        ..case(
            "invalid_body",
            400,
            TransportRequest {
                method: "POST",
                path: "/ok",
                fields: &[("transfer-encoding", "chunked")],
                raw_body: "3\r\nabcXY0\r\n\r\n",
                ..GET_ROOT
            },
        )
    },
    case("connect_not_supported", 405, TransportRequest { method: "CONNECT", ..GET_ROOT }),
    case("unsupported_expectation", 417, TransportRequest { fields: &[("expect", "a miracle")], ..GET_ROOT }),
    case(
        "request_body_timeout",
        408,
        TransportRequest { method: "POST", path: "/silent", body: Some("hal"), stalls: true, ..GET_ROOT },
    ),
    Case {
        applies_to: |wire| wire.tls,
        ..case("misdirected_request", 421, TransportRequest { host: "b.example", ..GET_ROOT })
    },
    Case {
        applies_to: |wire| !wire.tls,
        ..case("no_listener", 404, TransportRequest { host: "c.example", ..GET_ROOT })
    },
    case("body_too_large", 413, TransportRequest { method: "POST", body: Some("0123456789x"), ..at("/limited") }),
    case("plugin_timeout", 504, at("/pondering")),
    case("no_route", 404, at("/none")),
    case("no_backends", 500, at("/no-backends")),
    case("invalid_backend", 500, at("/invalid-backend")),
    case("unsupported_rule", 500, at("/unsupported-rule")),
    case("no_service", 503, at("/no-service")),
    Case { applies_to: |wire| !wire.tls, ..case("https_only", 426, at("/https-only")) },
    Case { applies_to: |wire| !wire.http2, ..case("http2_only", 426, at("/grpc-only")) },
    Case { applies_to: |wire| wire.http2, ..case("not_grpc", 415, at("/grpc-only")) },
    case("invalid_rewrite", 500, at("/bad-rewrite")),
    case("no_endpoints", 503, at("/no-endpoints")),
    case("connection_refused", 503, at("/refused")),
    case("connect_timeout", 504, at("/deaf")),
    case("response_timeout", 504, at("/silent")),
    case("request_timeout", 504, at("/request-timeout")),
    case("backend_request_timeout", 504, at("/backend-timeout")),
    case("invalid_response", 502, at("/bad-answer")),
    case("no_response", 502, TransportRequest { method: "POST", body: Some("x"), ..at("/no-answer") }),
    case("response_truncated", 0, at("/truncated")),
];

/// Cases that only end by a timeout. They run separately with short timeouts, so that a slow machine does not affect
/// the others.
const WITH_SHORT_TIMEOUTS: [&str; 4] =
    ["request_body_timeout", "plugin_timeout", "connect_timeout", "response_timeout"];

fn limits(hasty: bool) -> ProxyLimits {
    if !hasty {
        return ProxyLimits::default();
    }
    let soon = Duration::from_millis(100);
    ProxyLimits { request_body_timeout: soon, response_timeout: soon, connect_timeout: soon, ..ProxyLimits::default() }
}

async fn faulty_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        let Some(head) = stream.head().await else { return };
        match head.split(' ').nth(1).unwrap() {
            "/bad-answer" => stream.send("nonsense\r\n\r\n").await,
            "/truncated" => stream.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await,
            "/no-answer" => {}
            _ => drop(stream.read_to_end().await),
        }
    })
    .await
}

fn body_limiting_plugin() -> ScriptedPlugin {
    ScriptedPlugin::access(|cx| {
        *cx.body_limit = Some(10);
        AccessOutcome::Continue
    })
}

fn pending_plugin() -> ScriptedPlugin {
    ScriptedPlugin::access(|_| AccessOutcome::Wait(Box::pin(std::future::pending())))
}

fn with_protocols(names: &[&str]) -> Option<Box<KongBehavior>> {
    Some(Box::new(KongBehavior { protocols: Protocols::from_names(names.iter().copied()), ..KongBehavior::default() }))
}

#[tokio::test]
async fn request_errors_are_equal_over_every_transport() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = faulty_endpoint().await;
    let (unused, _reserved) = reserve_address();
    let (unreached, _queue, _socket) = unresponsive_address().await;
    let within =
        |request, backend_request| TimeoutsAndRetries { request, backend_request, ..TimeoutsAndRetries::default() };
    let soon = || RequestTimeout::After(Duration::from_millis(100));
    for (wire, hasty) in TRANSPORTS.into_iter().flat_map(|wire| [(wire, false), (wire, true)]) {
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
            Route { plugins: chain(vec![body_limiting_plugin()]), ..rule("/limited", web()) },
            Route { plugins: chain(vec![pending_plugin()]), ..rule("/pondering", web()) },
            rule("/no-backends", Action::Fail(RouteFailure::NoBackends)),
            rule("/invalid-backend", Action::Fail(RouteFailure::InvalidBackend)),
            rule("/unsupported-rule", Action::Fail(RouteFailure::Unsupported)),
            rule("/no-service", Action::Fail(RouteFailure::NoService)),
            Route { kong: with_protocols(&["https"]), ..rule("/https-only", web()) },
            Route { kong: with_protocols(&["grpc"]), ..rule("/grpc-only", web()) },
            Route { filters: rewrite, ..rule("/bad-rewrite", web()) },
            rule("/no-endpoints", forward(vec![(1, upstream("none", &[]))])),
            rule("/refused", forward(vec![(1, upstream("refused", &[unused]))])),
            rule("/deaf", forward(vec![(1, upstream("deaf", &[unreached]))])),
            rule("/h2c", forward(vec![(1, upstream_with_protocol(UpstreamProtocol::Http2, "h2c", &[unused]))])),
            rule("/request-timeout", with_timeouts_and_retries(web(), within(soon(), RequestTimeout::Unset))),
            rule("/backend-timeout", with_timeouts_and_retries(web(), within(RequestTimeout::Unset, soon()))),
        ];
        let path = folder.path().join(format!("{wire:?} {hasty}"));
        let options =
            Options { limits: limits(hasty), log: AccessLogDestination::File(path.clone()), ..Options::default() };
        let server = wire.start_server(options, routes).await;
        let mut responses = Vec::new();
        let mut before = error_counts(&server);
        for case in
            CASES.iter().filter(|case| (case.applies_to)(wire) && WITH_SHORT_TIMEOUTS.contains(&case.reason) == hasty)
        {
            let what = format!("{} over {wire:?}", case.reason);
            let reply = wire.send(&server, &case.request).await;
            assert_eq!(reply.as_ref().map_or(0, |reply| reply.status), case.status, "{what}");
            let mut id = None;
            if let Some(reply) = reply {
                id = reply.header("x-request-id");
                let body: serde_json::Value = serde_json::from_str(&reply.body).expect(&what);
                assert_eq!(body["request_id"].as_str(), id.as_deref(), "{what}");
                assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}");
                assert_eq!(reply.header("content-type").unwrap(), "application/json; charset=utf-8", "{what}");
                assert_eq!(reply.header("allow").is_some(), case.status == 405, "{what}");
            }
            let after = error_counts(&server);
            *before.entry(case.reason.to_owned()).or_default() += 1;
            assert_eq!(after, before, "{what}");
            responses.push((case, id));
        }
        assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
        server.log.finish();
        let records = records(&path);
        assert_eq!(records.len(), responses.len(), "{wire:?}");
        for (record, (case, id)) in records.iter().zip(responses) {
            assert_eq!(record["error"], case.reason, "{wire:?}");
            assert_eq!(record["protocol"], if wire.http2 { "HTTP/2" } else { "HTTP/1.1" }, "{record}");
            assert_eq!(record["tls"].as_str(), wire.tls.then_some("TLSv1.3"), "{record}");
            assert!(record["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
            assert_eq!(record["method"], case.request.method, "{record}");
            if id.is_some() {
                assert_eq!(record["request_id"].as_str(), id.as_deref(), "{record}");
                assert_eq!(record["status"], case.status, "{record}");
            }
        }
    }
}

/// Request errors that need more than one request, and the files that test them.
const TESTED_IN: [(&str, &str); 11] = [
    ("tls_handshake", "upstream_tls.rs"),
    ("grpcs_only", "kong.rs"),
    ("target_too_long", "malformed_requests.rs"),
    ("header_too_large", "malformed_requests.rs"),
    ("client_disconnected", "accounting.rs"),
    ("connection_limit", "endpoints.rs"),
    ("refused_stream", "h2_hostile.rs"),
    ("http2_flood", "h2_hostile.rs"),
    ("tunnel_idle", "upgrade.rs"),
    ("tunnel_broken", "upgrade.rs"),
    ("tunnel_closed", "upgrade.rs"),
];

/// The unit test of the request errors compares the page with the code; every error on the page needs a case here.
#[test]
fn every_documented_request_error_has_a_case() {
    let root = env!("CARGO_MANIFEST_DIR");
    let page = std::fs::read_to_string(format!("{root}/docs/request-errors.md")).unwrap();
    let (page, _) = page.split_once("\n## Before there is a request").expect("the section on connections comes last");
    let words = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let here = |word: &str| CASES.iter().any(|case| case.reason == word);
    for word in words.filter(|word| !here(word)) {
        let (_, file) = TESTED_IN.iter().find(|(known, _)| *known == word).expect(word);
        let test = std::fs::read_to_string(format!("{root}/tests/proxy/{file}")).unwrap();
        assert!(
            test.contains(&format!("\"{word}\"")) || test.contains(&format!("reason=\\\"{word}\\\"")),
            "{file}: {word}"
        );
    }
}

/// Count of each request error by its reason.
fn error_counts(server: &TestServer) -> BTreeMap<String, u64> {
    let reason =
        |name: &str| Some(name.strip_prefix("portico_request_errors_total{reason=\"")?.strip_suffix("\"}")?.to_owned());
    scrape(server).iter().filter_map(|(name, count)| Some((reason(name)?, *count as u64))).collect()
}
