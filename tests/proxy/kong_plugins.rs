//! What clients of Kong's plugins get on the wire, to the letter: status, headers and body.

use std::sync::Arc;

use portico::plugin::testing::{chain, consumer};
use portico::plugin::{AnyKind, Directory};
use portico::plugins::REGISTRY;
use portico::snapshot::Snapshot;
use portico::snapshot::kong::Manner;
use serde_json::{Value, json};

use crate::harness::{Answer, Endpoint, Gate, Options, Route, forward, reserve, route, snapshot, upstream};

/// Requests go through these plugins, and then to the endpoint. There is a consumer `guest` in the group `guests`.
async fn gate(options: Options, plugins: &[(&str, Value)], endpoint: &Endpoint) -> Gate {
    let plugins: Vec<(&dyn AnyKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let route = Route { plugins: Some(chain(&plugins)), kong: Some(Box::new(Manner::default())), ..route(action) };
    let (address, reserved) = reserve();
    let mut consumers = Directory::default();
    consumers.add(&consumer("guest", &["guests"]));
    let snapshot = Snapshot { consumers: Arc::new(consumers), ..snapshot(address, vec![route]) };
    let gate = Gate::start(options, address, reserved, snapshot);
    gate.proxy.reconcile().await;
    gate
}

/// Status and body, with the request's id in place of `ID`, and these headers, an absent one as `-`.
fn said(answer: &Answer, headers: &[(&str, &str)]) -> (u16, String, Vec<(String, String)>) {
    let id = answer.header("x-kong-request-id").unwrap_or("none");
    let headers = headers.iter().map(|(name, _)| ((*name).to_owned(), answer.header(name).unwrap_or("-").to_owned()));
    (answer.status, answer.text().replace(id, "ID"), headers.collect())
}

struct Case<'a> {
    plugins: &'a [(&'a str, Value)],
    /// Behind `GET / HTTP/1.1` and a Host, unless it begins with a request line of its own.
    request: &'a str,
    status: u16,
    body: &'a str,
    headers: &'a [(&'a str, &'a str)],
}

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

// kong-compat §3.9
// kong-compat §4.0
// kong-compat §4.1
// kong-compat §4.5
// kong-compat §4.6
// kong-compat §4.8
// kong-compat §4.15
// kong-compat §4.16
// kong-compat §4.17
// kong-compat §4.26
// kong-compat §4.27
// kong-compat §4.28
// kong-compat §7.18
#[tokio::test]
async fn what_plugins_answer() {
    let guest = || ("key-auth", json!({"anonymous": "guest"}));
    let keys = || [("key-auth", json!({}))];
    let tokens = || [("jwt", json!({}))];
    let small = || [("request-size-limiting", json!({"allowed_payload_size": 3, "size_unit": "bytes"}))];
    let preflight = "OPTIONS / HTTP/1.1\r\norigin: https://a.example\r\naccess-control-request-method: PUT\r\n";
    let cases = [
        // Nobody is known, and then somebody who may not.
        Case {
            plugins: &[("acl", json!({"allow": ["staff"]}))],
            request: "",
            status: 401,
            body: r#"{"message":"Unauthorized","request_id":"ID"}"#,
            headers: &[JSON, ("www-authenticate", "-")],
        },
        Case {
            plugins: &[guest(), ("acl", json!({"allow": ["staff"]}))],
            request: "",
            status: 403,
            body: r#"{"message":"You cannot consume this service","request_id":"ID"}"#,
            headers: &[JSON],
        },
        Case {
            plugins: &[("basic-auth", json!({}))],
            request: "authorization: Basic YTpi\r\n",
            status: 401,
            body: r#"{"message":"Unauthorized","request_id":"ID"}"#,
            headers: &[JSON, ("www-authenticate", "Basic realm=\"service\"")],
        },
        Case {
            plugins: &[("basic-auth", json!({"realm": null}))],
            request: "",
            status: 401,
            body: r#"{"message":"Unauthorized","request_id":"ID"}"#,
            headers: &[("www-authenticate", "Basic realm=\"service\"")],
        },
        Case {
            plugins: &keys(),
            request: "",
            status: 401,
            body: r#"{"message":"No API key found in request","request_id":"ID"}"#,
            headers: &[JSON, ("www-authenticate", "Key")],
        },
        Case {
            plugins: &keys(),
            request: "apikey: a\r\napikey: b\r\n",
            status: 401,
            body: r#"{"message":"Duplicate API key found","request_id":"ID"}"#,
            headers: &[("www-authenticate", "Key")],
        },
        Case {
            plugins: &keys(),
            request: "apikey: a\r\naccept: text/plain\r\n",
            status: 401,
            body: "Unauthorized\nrequest_id: ID\n",
            headers: &[("content-type", "text/plain; charset=utf-8"), ("www-authenticate", "Key")],
        },
        Case {
            plugins: &[("key-auth", json!({"anonymous": "nobody"}))],
            request: "",
            status: 500,
            body: r#"{"message":"anonymous consumer nobody is configured but doesn't exist","request_id":"ID"}"#,
            headers: &[JSON],
        },
        // These have no id, and are JSON whatever is accepted.
        Case {
            plugins: &tokens(),
            request: "accept: text/plain\r\n",
            status: 401,
            body: r#"{"message":"Unauthorized"}"#,
            headers: &[JSON, ("www-authenticate", "Bearer")],
        },
        Case {
            plugins: &tokens(),
            request: "authorization: Bearer x\r\naccept: text/html\r\n",
            status: 401,
            body: r#"{"message":"Bad token; invalid JSON"}"#,
            headers: &[JSON, ("www-authenticate", "Bearer error=\"invalid_token\"")],
        },
        Case {
            plugins: &tokens(),
            request: "GET /?jwt=a&jwt=b HTTP/1.1\r\n",
            status: 401,
            body: r#"{"message":"Multiple tokens provided"}"#,
            headers: &[JSON],
        },
        Case {
            plugins: &[("bot-detection", json!({}))],
            request: "user-agent: Googlebot/2.1\r\n",
            status: 403,
            body: r#"{"message":"Forbidden","request_id":"ID"}"#,
            headers: &[JSON],
        },
        Case {
            plugins: &[("bot-detection", json!({}))],
            request: "user-agent: a\r\nuser-agent: b\r\n",
            status: 400,
            body: r#"{"message":"Only one User-Agent header allowed","request_id":"ID"}"#,
            headers: &[JSON],
        },
        Case {
            plugins: &[("ip-restriction", json!({"deny": ["127.0.0.0/8"]}))],
            request: "x-forwarded-for: 192.0.2.7\r\n",
            status: 403,
            body: r#"{"message":"IP address not allowed: 127.0.0.1","request_id":"ID"}"#,
            headers: &[JSON],
        },
        // A browser asks before it has any credentials to show. Everything else needs some, and can be read.
        Case {
            plugins: &[("key-auth", json!({})), ("cors", json!({}))],
            request: preflight,
            status: 200,
            body: "",
            headers: &[
                ("content-length", "0"),
                ("access-control-allow-origin", "*"),
                ("access-control-allow-methods", "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT"),
                ("access-control-allow-headers", "-"),
                ("access-control-max-age", "-"),
                ("www-authenticate", "-"),
            ],
        },
        Case {
            plugins: &[("key-auth", json!({})), ("cors", json!({}))],
            request: "OPTIONS / HTTP/1.1\r\norigin: https://a.example\r\n",
            status: 401,
            body: r#"{"message":"No API key found in request","request_id":"ID"}"#,
            headers: &[("access-control-allow-origin", "*"), ("access-control-allow-methods", "-")],
        },
        Case {
            plugins: &[("redirect", json!({"location": "https://b.example/c", "keep_incoming_path": true}))],
            request: "GET /x/../a?b HTTP/1.1\r\n",
            status: 301,
            body: "redirecting",
            headers: &[("location", "https://b.example/a?b")],
        },
        Case {
            plugins: &small(),
            request: "POST / HTTP/1.1\r\ncontent-length: 4\r\n",
            status: 413,
            body: r#"{"message":"Request size limit exceeded","request_id":"ID"}"#,
            headers: &[JSON],
        },
        Case {
            plugins: &small(),
            request: "POST / HTTP/1.1\r\ncontent-length: 4\r\nexpect: 100-continue\r\n",
            status: 417,
            body: r#"{"message":"Request size limit exceeded","request_id":"ID"}"#,
            headers: &[JSON],
        },
        Case {
            plugins: &[("request-size-limiting", json!({"require_content_length": true}))],
            request: "",
            status: 411,
            body: r#"{"message":"A valid Content-Length header is required","request_id":"ID"}"#,
            headers: &[JSON],
        },
        Case {
            plugins: &[("request-termination", json!({}))],
            request: "accept: text/html\r\n",
            status: 503,
            body: r#"{"message":"Service unavailable"}"#,
            headers: &[JSON],
        },
        Case {
            plugins: &[("request-termination", json!({"status_code": 402, "message": "Pay \"me\""}))],
            request: "",
            status: 402,
            body: r#"{"message":"Pay \"me\""}"#,
            headers: &[JSON],
        },
        Case {
            plugins: &[("request-termination", json!({"body": "<p>", "content_type": "text/html", "trigger": "stop"}))],
            request: "GET /?stop HTTP/1.1\r\n",
            status: 503,
            body: "<p>",
            headers: &[("content-type", "text/html")],
        },
    ];
    let endpoint = Endpoint::ok().await;
    for Case { plugins, request, status, body, headers } in cases {
        let gate = gate(Options::default(), plugins, &endpoint).await;
        let (line, fields) = match request.split_once(" HTTP/1.1\r\n") {
            Some((line, fields)) => (line, fields),
            None => ("GET /", request),
        };
        let answer = gate.ask(&format!("{line} HTTP/1.1\r\nhost: a.example\r\n{fields}\r\n")).await;
        let expected = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(said(&answer, headers), (status, body.to_owned(), expected), "{plugins:?} {request}");
    }
    assert!(endpoint.log.requests().is_empty(), "{:?}", endpoint.log.requests());
}

// kong-compat §4.25
#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let endpoint = Endpoint::ok().await;
    let gate = gate(Options::default(), &[("rate-limiting", json!({"year": 1}))], &endpoint).await;
    let ask = async || gate.ask("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    let limits = [
        ("x-ratelimit-limit-year", "1"),
        ("x-ratelimit-remaining-year", "0"),
        ("ratelimit-limit", "1"),
        ("ratelimit-remaining", "0"),
    ];
    let expected = || limits.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let first = ask().await;
    assert_eq!(said(&first, &limits), (200, "ok".to_owned(), expected()));
    assert_eq!(first.header("retry-after"), None);
    let second = ask().await;
    let body = r#"{"message":"API rate limit exceeded","request_id":"ID"}"#;
    assert_eq!(said(&second, &limits), (429, body.to_owned(), expected()));
    assert!(second.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().unwrap() > 0));
    assert_eq!(second.header("retry-after"), second.header("ratelimit-reset"));
}

/// Addresses are the client's, as far as trusted peers tell them.
// kong-compat §4.15
// kong-compat §4.25
#[tokio::test]
async fn addresses_are_those_that_trusted_peers_tell() {
    let endpoint = Endpoint::ok().await;
    let trusting = || Options { trusted: vec!["127.0.0.0/8"], ..Options::default() };
    let ask = async |gate: &Gate, address: &str| {
        gate.ask(&format!("GET / HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: {address}\r\n\r\n")).await
    };
    let restricted = gate(trusting(), &[("ip-restriction", json!({"deny": ["192.0.2.7"]}))], &endpoint).await;
    let answer = ask(&restricted, "192.0.2.7").await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("IP address not allowed: 192.0.2.7"), "{}", answer.text());
    assert_eq!(ask(&restricted, "192.0.2.8").await.status, 200);

    let limited = gate(trusting(), &[("rate-limiting", json!({"year": 1, "limit_by": "ip"}))], &endpoint).await;
    for (address, status) in [("192.0.2.7", 200), ("192.0.2.8", 200), ("192.0.2.7", 429)] {
        assert_eq!(ask(&limited, address).await.status, status, "{address}");
    }
}

/// What no length was said of is measured, and nothing of it is taken for the whole.
// kong-compat §4.27
#[tokio::test]
async fn bodies_without_a_length_are_measured() {
    let endpoint = Endpoint::ok().await;
    let config = json!({"allowed_payload_size": 3, "size_unit": "bytes", "require_content_length": true});
    let gate = gate(Options::default(), &[("request-size-limiting", config)], &endpoint).await;
    let post = "POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(gate.ask(&format!("{post}3\r\nabc\r\n0\r\n\r\n")).await.status, 200);
    let answer = gate.ask(&format!("{post}4\r\nabcd\r\n0\r\n\r\n")).await;
    let body = r#"{"message":"Request size limit exceeded","request_id":"ID"}"#;
    assert_eq!(said(&answer, &[]), (413, body.to_owned(), vec![]));
    assert_eq!(endpoint.log.requests().len(), 1);
}
