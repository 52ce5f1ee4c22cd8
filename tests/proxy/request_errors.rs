//! Every request error over every transport: status, body, request ID, metric and access log.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderValue;
use portico::compile::kong::rule_options;
use portico::limits::ProxyLimits;
use portico::plugin_api::AccessOutcome;
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::rule::{Action, Filters, Rewrite, RouteFailure};
use portico::snapshot::rule_options::{Protocols, RuleOptions};
use portico::snapshot::timeouts_and_retries::{TimeoutSetting, TimeoutsAndRetries};

use crate::accounting::{access_log_records, scrape};
use crate::endpoints::unresponsive_address;
use crate::harness::{
    Endpoint, Options, Route, TEST_TIMEOUT, TestServer, forward, h2c_upstream, reserve_address, route, upstream,
    with_timeouts_and_retries,
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

/// A case for every transport.
const fn case(reason: &'static str, status: u16, request: TransportRequest) -> Case {
    Case { reason, status, request, applies_to: |_| true }
}

const fn get(path: &'static str) -> TransportRequest {
    TransportRequest { path, ..GET_ROOT }
}

/// More fields than the default of `max_request_fields`.
const TOO_MANY_FIELDS: [(&str, &str); 101] = [("x", "y"); 101];

const CASES: &[Case] = &[
    case("invalid_target", 400, get("/%zz")),
    case("invalid_host", 400, TransportRequest { fields: &[("host", "other.example")], ..GET_ROOT }),
    Case {
        applies_to: |transport| !transport.http2,
        ..case("malformed_request", 400, TransportRequest { fields: &[("x y", "z")], ..GET_ROOT })
    },
    // The h2 library refuses to send these fields over HTTP/2; h2_hostile.rs writes the frames by hand.
    Case {
        applies_to: |transport| !transport.http2,
        ..case(
            "ambiguous_framing",
            400,
            TransportRequest { fields: &[("content-length", "1"), ("transfer-encoding", "chunked")], ..GET_ROOT },
        )
    },
    case("too_many_headers", 431, TransportRequest { fields: &TOO_MANY_FIELDS, ..GET_ROOT }),
    Case {
        applies_to: |transport| transport.http2,
        ..case(
            "upgrade_not_supported",
            501,
            TransportRequest { method: "CONNECT", path: "/h2c", protocol: Some("websocket"), ..GET_ROOT },
        )
    },
    // A chunk without CR LF after it. HTTP/2 has no chunks, and a stream with an invalid body is reset.
    Case {
        applies_to: |transport| !transport.http2,
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
    case("trace_not_allowed", 405, TransportRequest { method: "TRACE", ..get("/ok") }),
    case("connect_not_supported", 405, TransportRequest { method: "CONNECT", ..GET_ROOT }),
    case("unsupported_expectation", 417, TransportRequest { fields: &[("expect", "a miracle")], ..GET_ROOT }),
    case("loop_detected", 508, TransportRequest { fields: &[("portico-hops", "8")], ..get("/ok") }),
    case(
        "request_body_timeout",
        408,
        TransportRequest { method: "POST", path: "/silent", body: Some("hal"), stalls: true, ..GET_ROOT },
    ),
    Case {
        applies_to: |transport| transport.tls,
        ..case("misdirected_request", 421, TransportRequest { host: "b.example", ..GET_ROOT })
    },
    case("no_listener", 404, TransportRequest { host: "c.example", ..GET_ROOT }),
    case("body_too_large", 413, TransportRequest { method: "POST", body: Some("0123456789x"), ..get("/limited") }),
    case("plugin_timeout", 504, get("/pending-plugin")),
    case("no_route", 404, get("/none")),
    case("no_backends", 500, get("/no-backends")),
    case("invalid_backend", 500, get("/invalid-backend")),
    case("unsupported_rule", 500, get("/unsupported-rule")),
    case("no_service", 503, get("/no-service")),
    case("unsupported_protection", 503, get("/unsupported-protection")),
    Case { applies_to: |transport| !transport.tls, ..case("https_only", 426, get("/https-only")) },
    Case {
        applies_to: |transport| !transport.http2,
        ..case(
            "http2_only",
            426,
            TransportRequest { fields: &[("content-type", "application/grpc")], ..get("/grpc-only") },
        )
    },
    case("not_grpc", 415, get("/grpc-only")),
    case("invalid_rewrite", 500, get("/bad-rewrite")),
    case("no_endpoints", 503, get("/no-endpoints")),
    case("connection_refused", 503, get("/refused")),
    case("connect_timeout", 504, get("/unresponsive")),
    case("response_timeout", 504, get("/silent")),
    case("request_timeout", 504, get("/request-timeout")),
    case("backend_request_timeout", 504, get("/backend-timeout")),
    case("invalid_response", 502, get("/bad-response")),
    case("no_response", 502, TransportRequest { method: "POST", body: Some("x"), ..get("/no-response") }),
    case("response_truncated", 0, get("/truncated")),
];

/// A timeout of the proxy.
type TimeoutOf = fn(&mut ProxyLimits) -> &mut Duration;

/// The cases that only a timeout of the proxy ends. Those of each row run separately, with a short timeout of their own
/// and the defaults of all others, so that a slow machine causes no other error.
const SHORT_TIMEOUTS: [(&[&str], TimeoutOf); 3] = [
    (&["request_body_timeout"], |limits| &mut limits.request_body_timeout),
    (&["connect_timeout"], |limits| &mut limits.connect_timeout),
    (&["plugin_timeout", "response_timeout"], |limits| &mut limits.response_timeout),
];

/// The limits of the proxy, and the cases to run with them.
fn limits_and_cases() -> Vec<(ProxyLimits, Vec<&'static Case>)> {
    let is_in = |case: &Case, reasons: &[&str]| reasons.contains(&case.reason);
    let others = CASES.iter().filter(|case| !SHORT_TIMEOUTS.iter().any(|(reasons, _)| is_in(case, reasons)));
    let mut groups = vec![(ProxyLimits::default(), others.collect())];
    for (reasons, timeout) in SHORT_TIMEOUTS {
        let mut limits = ProxyLimits::default();
        *timeout(&mut limits) = Duration::from_millis(100);
        groups.push((limits, CASES.iter().filter(|case| is_in(case, reasons)).collect()));
    }
    groups
}

/// An endpoint whose response to each path is wrong or missing.
async fn invalid_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        let Some(head) = stream.head().await else { return };
        match head.split(' ').nth(1).unwrap() {
            "/bad-response" => stream.send("nonsense\r\n\r\n").await,
            "/truncated" => stream.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await,
            "/no-response" => {}
            _ => drop(stream.read_to_end().await),
        }
    })
    .await
}

fn body_limiting_plugin() -> ScriptedPlugin {
    ScriptedPlugin::access(|cx| {
        cx.body_changes.limit = Some(10);
        AccessOutcome::Continue
    })
}

fn pending_plugin() -> ScriptedPlugin {
    ScriptedPlugin::access(|_| AccessOutcome::Wait(Box::pin(std::future::pending())))
}

fn with_protocols(names: &[&str]) -> Option<Box<RuleOptions>> {
    Some(Box::new(RuleOptions { protocols: Protocols::from_names(names.iter().copied()), ..rule_options::defaults() }))
}

#[tokio::test]
async fn request_errors_are_equal_over_every_transport() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = invalid_endpoint().await;
    let (refusing, _reserved) = reserve_address();
    let (unresponsive, _queue, _socket) = unresponsive_address().await;
    let timeouts =
        |request, backend_request| TimeoutsAndRetries { request, backend_request, ..TimeoutsAndRetries::default() };
    let short = || TimeoutSetting::After(Duration::from_millis(100));
    let transports_and_groups = TRANSPORTS.into_iter().flat_map(|transport| {
        limits_and_cases()
            .into_iter()
            .enumerate()
            .map(move |(index, (limits, cases))| (transport, index, limits, cases))
    });
    for (transport, group, limits, cases) in transports_and_groups {
        let web = || forward(vec![(1, upstream("web", &[endpoint.address]))]);
        let rule = |path, action| Route { path, ..route(action) };
        let path = Some(PathEdit::Full("/not a path".into()));
        let rewrite = Filters { rewrite: Some(Rewrite { host: None::<HeaderValue>, path }), ..Filters::default() };
        let routes = vec![
            rule("/ok", web()),
            rule("/silent", web()),
            rule("/bad-response", web()),
            rule("/no-response", web()),
            rule("/truncated", web()),
            Route { plugins: chain(vec![body_limiting_plugin()]), ..rule("/limited", web()) },
            Route { plugins: chain(vec![pending_plugin()]), ..rule("/pending-plugin", web()) },
            rule("/no-backends", Action::Fail(RouteFailure::NoBackends)),
            rule("/invalid-backend", Action::Fail(RouteFailure::InvalidBackend)),
            rule("/unsupported-rule", Action::Fail(RouteFailure::Unsupported)),
            rule("/no-service", Action::Fail(RouteFailure::NoService)),
            rule("/unsupported-protection", Action::Fail(RouteFailure::UnsupportedProtection)),
            Route { options: with_protocols(&["https"]), ..rule("/https-only", web()) },
            Route { options: with_protocols(&["grpc"]), ..rule("/grpc-only", web()) },
            Route { filters: rewrite, ..rule("/bad-rewrite", web()) },
            rule("/no-endpoints", forward(vec![(1, upstream("none", &[]))])),
            rule("/refused", forward(vec![(1, upstream("refused", &[refusing]))])),
            rule("/unresponsive", forward(vec![(1, upstream("unresponsive", &[unresponsive]))])),
            rule("/h2c", forward(vec![(1, h2c_upstream(refusing))])),
            rule("/request-timeout", with_timeouts_and_retries(web(), timeouts(short(), TimeoutSetting::Unset))),
            rule("/backend-timeout", with_timeouts_and_retries(web(), timeouts(TimeoutSetting::Unset, short()))),
        ];
        let path = folder.path().join(format!("{transport:?} {group}"));
        let options = Options { limits, log: AccessLogDestination::File(path.clone()), ..Options::default() };
        let server = transport.start_server(options, routes).await;
        let mut responses = Vec::new();
        let mut expected_counts = error_counts(&server);
        for case in cases.into_iter().filter(|case| (case.applies_to)(transport)) {
            let what = format!("{} over {transport:?}", case.reason);
            let reply = transport.send(&server, &case.request).await;
            assert_eq!(reply.as_ref().map_or(0, |reply| reply.status), case.status, "{what}");
            let mut request_id = None;
            if let Some(reply) = reply {
                request_id = reply.header("x-request-id");
                let body: serde_json::Value = serde_json::from_str(&reply.body).expect(&what);
                assert_eq!(body["request_id"].as_str(), request_id.as_deref(), "{what}");
                assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}");
                assert_eq!(reply.header("content-type").unwrap(), "application/json; charset=utf-8", "{what}");
                assert_eq!(reply.header("allow").is_some(), case.status == 405, "{what}");
            }
            let counts = error_counts(&server);
            *expected_counts.entry(case.reason.to_owned()).or_default() += 1;
            assert_eq!(counts, expected_counts, "{what}");
            responses.push((case, request_id));
        }
        assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
        server.log.finish();
        let records = access_log_records(&path);
        assert_eq!(records.len(), responses.len(), "{transport:?}");
        for (record, (case, request_id)) in records.iter().zip(responses) {
            assert_eq!(record["error"], case.reason, "{transport:?}");
            assert_eq!(record["protocol"], if transport.http2 { "HTTP/2" } else { "HTTP/1.1" }, "{record}");
            assert_eq!(record["tls"].as_str(), transport.tls.then_some("TLSv1.3"), "{record}");
            assert!(record["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
            assert_eq!(record["method"], case.request.method, "{record}");
            if request_id.is_some() {
                assert_eq!(record["request_id"].as_str(), request_id.as_deref(), "{record}");
                assert_eq!(record["status"], case.status, "{record}");
            }
        }
    }
}

/// Request errors without a case, because one request is not enough to cause them, and the files that test them.
const TESTED_IN: [(&str, &str); 32] = [
    ("external_auth_denied", "external_auth.rs"),
    ("external_auth_unavailable", "external_auth.rs"),
    ("external_auth_timeout", "external_auth.rs"),
    ("external_auth_invalid", "external_auth.rs"),
    ("no_authorization_server", "external_auth.rs"),
    ("call_deadline", "grpc.rs"),
    ("retry_budget", "retry_budget.rs"),
    ("unavailable", "balancing_settings.rs"),
    ("over_limit", "request_limits.rs"),
    ("queue_timeout", "request_limits.rs"),
    ("circuit_open", "circuit_breaker.rs"),
    ("tls_handshake", "upstream_tls.rs"),
    ("grpcs_only", "kong.rs"),
    ("unsupported_version", "malformed_requests.rs"),
    ("target_too_long", "malformed_requests.rs"),
    ("target_too_long_to_match", "regex_steps.rs"),
    ("header_too_long_to_match", "regex_steps.rs"),
    ("header_too_large", "malformed_requests.rs"),
    ("client_disconnected", "accounting.rs"),
    ("slow_request_body", "minimum_rates.rs"),
    ("slow_client", "minimum_rates.rs"),
    ("connection_limit", "endpoints.rs"),
    ("buffer_limit", "buffer_limit.rs"),
    ("refused_stream", "h2_hostile.rs"),
    ("http2_flood", "h2_hostile.rs"),
    ("tunnel_idle", "upgrade.rs"),
    ("tunnel_broken", "upgrade.rs"),
    ("tunnel_closed", "upgrade.rs"),
    ("client_message_too_large", "websocket_limits.rs"),
    ("endpoint_message_too_large", "websocket_limits.rs"),
    ("invalid_client_frame", "websocket_limits.rs"),
    ("invalid_endpoint_frame", "websocket_limits.rs"),
];

/// Every error on `docs/request-errors.md` needs a case. A unit test of the request errors compares that page with the
/// code.
#[test]
fn every_documented_request_error_has_a_case() {
    let root = env!("CARGO_MANIFEST_DIR");
    let page = std::fs::read_to_string(format!("{root}/docs/request-errors.md")).unwrap();
    let (page, _) = page.split_once("\n## Before there is a request").expect("the section on connections comes last");
    let reasons = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let has_case = |reason: &str| CASES.iter().any(|case| case.reason == reason);
    for reason in reasons.filter(|reason| !has_case(reason)) {
        let (_, file) = TESTED_IN.iter().find(|(tested, _)| *tested == reason).expect(reason);
        let source = std::fs::read_to_string(format!("{root}/tests/proxy/{file}")).unwrap();
        assert!(
            source.contains(&format!("\"{reason}\"")) || source.contains(&format!("reason=\\\"{reason}\\\"")),
            "{file}: {reason}"
        );
    }
}

/// Count of each request error by its reason.
fn error_counts(server: &TestServer) -> BTreeMap<String, u64> {
    let reason =
        |name: &str| Some(name.strip_prefix("portico_request_errors_total{reason=\"")?.strip_suffix("\"}")?.to_owned());
    scrape(server).iter().filter_map(|(name, count)| Some((reason(name)?, *count as u64))).collect()
}
