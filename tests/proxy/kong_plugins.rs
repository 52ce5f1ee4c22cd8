//! Exact responses of Kong's plugins on the wire: status, headers and body.

use std::sync::Arc;

use portico::compile::kong::rule_options;
use portico::plugin_api::{AnyPluginKind, ConsumerDirectory};
use portico::plugin_chain::testing::{chain, consumer};
use portico::plugins::REGISTRY;
use portico::proxy::access_log::AccessLogDestination;
use portico::snapshot::Snapshot;
use serde_json::{Value, json};

use crate::accounting::access_log_records;
use crate::harness::{
    Endpoint, Options, Route, TEST_TIMEOUT, TestResponse, TestServer, forward, header, reserve_address, route,
    snapshot, upstream,
};

/// A proxy whose route has these plugins and forwards to the endpoint. The only consumer is `guest`, in the group
/// `guests`.
async fn server(options: Options, plugins: &[(&str, Value)], endpoint: &Endpoint) -> TestServer {
    let plugins: Vec<(&dyn AnyPluginKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let route =
        Route { plugins: Some(chain(&plugins)), options: Some(Box::new(rule_options::defaults())), ..route(action) };
    let (address, reserved) = reserve_address();
    let mut consumers = ConsumerDirectory::default();
    consumers.add(&consumer("guest", &["guests"]));
    let snapshot = Snapshot { consumers: Arc::new(consumers), ..snapshot(address, vec![route]) };
    let server = TestServer::start(options, address, reserved, snapshot);
    server.proxy.reconcile().await;
    server
}

/// The status, the body with `ID` in place of the request ID, and these headers with their values (`-` if absent).
fn response_parts(response: &TestResponse, headers: &[(&str, &str)]) -> (u16, String, Vec<(String, String)>) {
    let id = response.header("x-kong-request-id").unwrap_or("none");
    let headers = headers.iter().map(|(name, _)| ((*name).to_owned(), response.header(name).unwrap_or("-").to_owned()));
    (response.status, response.text().replace(id, "ID"), headers.collect())
}

struct Case<'a> {
    plugins: &'a [(&'a str, Value)],
    /// Headers of a `GET /`, or a request line with headers. The Host is added.
    request: &'a str,
    status: u16,
    body: &'a str,
    /// Headers of the response; the value `-` means that the header must be absent.
    headers: &'a [(&'a str, &'a str)],
}

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

// docs/kong-compatibility.md, 3.9
// docs/kong-compatibility.md, 4.0
// docs/kong-compatibility.md, 4.1
// docs/kong-compatibility.md, 4.5
// docs/kong-compatibility.md, 4.6
// docs/kong-compatibility.md, 4.8
// docs/kong-compatibility.md, 4.15
// docs/kong-compatibility.md, 4.16
// docs/kong-compatibility.md, 4.17
// docs/kong-compatibility.md, 4.26
// docs/kong-compatibility.md, 4.27
// docs/kong-compatibility.md, 4.28
// docs/kong-compatibility.md, 7.18
#[tokio::test]
async fn plugin_replies_match_kong() {
    let anonymous_guest = || ("key-auth", json!({"anonymous": "guest"}));
    let key_auth = || [("key-auth", json!({}))];
    let jwt = || [("jwt", json!({}))];
    let small_bodies = || [("request-size-limiting", json!({"allowed_payload_size": 3, "size_unit": "bytes"}))];
    let preflight = "OPTIONS / HTTP/1.1\r\norigin: https://a.example\r\naccess-control-request-method: PUT\r\n";
    let cases = [
        // A request without a consumer, and one with a consumer that is not allowed.
        Case {
            plugins: &[("acl", json!({"allow": ["staff"]}))],
            request: "",
            status: 401,
            body: r#"{"message":"Unauthorized","request_id":"ID"}"#,
            headers: &[JSON, ("www-authenticate", "-")],
        },
        Case {
            plugins: &[anonymous_guest(), ("acl", json!({"allow": ["staff"]}))],
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
            plugins: &key_auth(),
            request: "",
            status: 401,
            body: r#"{"message":"No API key found in request","request_id":"ID"}"#,
            headers: &[JSON, ("www-authenticate", "Key")],
        },
        Case {
            plugins: &key_auth(),
            request: "apikey: a\r\napikey: b\r\n",
            status: 401,
            body: r#"{"message":"Duplicate API key found","request_id":"ID"}"#,
            headers: &[("www-authenticate", "Key")],
        },
        Case {
            plugins: &key_auth(),
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
        // The bodies of the JWT plugin have no request ID and are JSON regardless of Accept.
        Case {
            plugins: &jwt(),
            request: "accept: text/plain\r\n",
            status: 401,
            body: r#"{"message":"Unauthorized"}"#,
            headers: &[JSON, ("www-authenticate", "Bearer")],
        },
        Case {
            plugins: &jwt(),
            request: "authorization: Bearer x\r\naccept: text/html\r\n",
            status: 401,
            body: r#"{"message":"Bad token; invalid JSON"}"#,
            headers: &[JSON, ("www-authenticate", "Bearer error=\"invalid_token\"")],
        },
        Case {
            plugins: &jwt(),
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
        // A preflight needs no credentials. Other requests need them, and their errors have CORS headers.
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
            plugins: &small_bodies(),
            request: "POST / HTTP/1.1\r\ncontent-length: 4\r\n",
            status: 413,
            body: r#"{"message":"Request size limit exceeded","request_id":"ID"}"#,
            headers: &[JSON],
        },
        Case {
            plugins: &small_bodies(),
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
        let server = server(Options::default(), plugins, &endpoint).await;
        let (line, fields) = match request.split_once(" HTTP/1.1\r\n") {
            Some((line, fields)) => (line, fields),
            None => ("GET /", request),
        };
        let response = server.request(&format!("{line} HTTP/1.1\r\nhost: a.example\r\n{fields}\r\n")).await;
        let expected = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(response_parts(&response, headers), (status, body.to_owned(), expected), "{plugins:?} {request}");
    }
    assert!(endpoint.log.requests().is_empty(), "{:?}", endpoint.log.requests());
}

/// The length is known only when the body arrives.
// docs/kong-compatibility.md, 4.27
#[tokio::test]
async fn chunked_bodies_beyond_a_limit_end_an_expectation() {
    let endpoint = Endpoint::ok().await;
    let limit = ("request-size-limiting", json!({"allowed_payload_size": 3, "size_unit": "bytes"}));
    let server = server(Options::default(), &[limit], &endpoint).await;
    for (expect, body, status) in [
        ("", "3\r\nabc\r\n0\r\n\r\n", 200),
        ("", "4\r\nabcd\r\n0\r\n\r\n", 413),
        ("expect: 100-continue\r\n", "4\r\nabcd\r\n0\r\n\r\n", 417),
    ] {
        let head = format!("POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n{expect}\r\n");
        let mut client = server.connect().await;
        client.send(&format!("{head}{body}")).await;
        let mut response = client.response().await;
        if response.status == 100 {
            response = client.response().await;
        }
        let message = r#"{"message":"Request size limit exceeded","request_id":"ID"}"#;
        let expected = if status == 200 { "ok" } else { message };
        let parts = response_parts(&response, &[]);
        assert_eq!((parts.0, &*parts.1), (status, expected), "{expect}{body}");
    }
}

/// The limit is that of what the client sends, also if another plugin makes it smaller or larger.
// docs/kong-compatibility.md, 4.27
#[tokio::test]
async fn changed_bodies_are_limited_as_they_were_received() {
    let endpoint = Endpoint::ok().await;
    let limit = || ("request-size-limiting", json!({"allowed_payload_size": 60, "size_unit": "bytes"}));
    let small = r#"{"a":"bbbbbbbbbb"}"#.to_owned();
    let large = format!(r#"{{"a":"{}"}}"#, "b".repeat(100));
    for (transformation, body, status) in [
        (json!({"remove": {"body": ["a"]}}), &small, 200),
        (json!({"remove": {"body": ["a"]}}), &large, 413),
        (json!({"add": {"body": [format!("c:{}", "d".repeat(100))]}}), &small, 200),
        (json!({"add": {"body": ["c:d"]}}), &large, 413),
    ] {
        let plugins = [limit(), ("request-transformer", transformation.clone())];
        let server = server(Options::default(), &plugins, &endpoint).await;
        let head = "POST / HTTP/1.1\r\nhost: a.example\r\ncontent-type: application/json\r\n";
        let length = body.len();
        for framed in [
            format!("content-length: {length}\r\n\r\n{body}"),
            format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        ] {
            let mut client = server.connect().await;
            client.send(&format!("{head}{framed}")).await;
            assert_eq!(client.response().await.status, status, "{transformation} {framed}");
        }
    }
}

// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn rate_limited_response_has_retry_after() {
    let endpoint = Endpoint::ok().await;
    let server = server(Options::default(), &[("rate-limiting", json!({"year": 1}))], &endpoint).await;
    let get = async || server.request("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    let rate_limit_headers = [
        ("x-ratelimit-limit-year", "1"),
        ("x-ratelimit-remaining-year", "0"),
        ("ratelimit-limit", "1"),
        ("ratelimit-remaining", "0"),
    ];
    let expected = || rate_limit_headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let first = get().await;
    assert_eq!(response_parts(&first, &rate_limit_headers), (200, "ok".to_owned(), expected()));
    assert_eq!(first.header("retry-after"), None);
    let second = get().await;
    let body = r#"{"message":"API rate limit exceeded","request_id":"ID"}"#;
    assert_eq!(response_parts(&second, &rate_limit_headers), (429, body.to_owned(), expected()));
    assert!(second.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().unwrap() > 0));
    assert_eq!(second.header("retry-after"), second.header("ratelimit-reset"));
}

/// With the header `X-Request-ID`, the id of the plugin is the id of the request everywhere.
// docs/kong-compatibility.md, 4.7
#[tokio::test]
async fn correlation_id_becomes_the_request_id() {
    let endpoint = Endpoint::ok().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let options = Options { log: AccessLogDestination::File(path.clone()), ..Options::default() };
    let correlation_id = ("correlation-id", json!({"header_name": "X-Request-ID", "generator": "uuid#counter"}));
    let limit = ("request-size-limiting", json!({"allowed_payload_size": 3, "size_unit": "bytes"}));
    let server = server(options, &[correlation_id, limit], &endpoint).await;
    let mut ids = Vec::new();
    // Kong keeps the id of any client, and replaces an empty one.
    for (request, sent_id, status) in [
        ("GET / HTTP/1.1\r\n", None, 200),
        ("GET / HTTP/1.1\r\nx-request-id: of-the-client\r\n", Some("of-the-client"), 200),
        ("GET / HTTP/1.1\r\nx-request-id: \r\n", None, 200),
        ("POST / HTTP/1.1\r\ncontent-length: 4\r\nconnection: close\r\n", None, 413),
    ] {
        let response = server.request(&format!("{request}host: a.example\r\n\r\n")).await;
        assert_eq!(response.status, status, "{request}");
        let id = response.header("x-request-id").unwrap().to_owned();
        match sent_id {
            Some(sent_id) => assert_eq!(id, sent_id),
            None => assert!(id.len() > 36 && id.as_bytes()[36] == b'#', "{request}: {id}"),
        }
        assert_eq!(response.header("x-kong-request-id"), Some(&*id));
        if status == 200 {
            let received = endpoint.log.requests().pop().unwrap();
            assert_eq!(header(&received, "x-request-id"), Some(&*id));
            assert_eq!(header(&received, "x-kong-request-id"), Some(&*id));
        } else {
            assert!(response.text().contains(&id), "{}", response.text());
        }
        ids.push(id);
    }
    assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
    server.log.finish();
    let logged: Vec<_> = access_log_records(&path).iter().map(|record| record["request_id"].clone()).collect();
    assert_eq!(logged, ids);
}

// docs/kong-compatibility.md, 3.6
#[tokio::test]
async fn plugins_do_not_replace_what_identifies_the_gateway() {
    const PRODUCT: &str = concat!("portico/", env!("CARGO_PKG_VERSION"));
    let endpoint = Endpoint::ok().await;
    let transformer = (
        "request-transformer",
        json!({"replace": {"headers": ["X-Kong-Request-Id:old"]},
                       "add": {"headers": ["X-Kong-Request-Id:new"]}}),
    );
    let server_of_client = server(Options::default(), &[transformer], &endpoint).await;
    for sent in ["", "x-kong-request-id: of-the-client\r\n"] {
        let request = format!("GET / HTTP/1.1\r\nhost: a.example\r\n{sent}\r\n");
        let id = server_of_client.request(&request).await.header("x-kong-request-id").unwrap().to_owned();
        let received = endpoint.log.requests().pop().unwrap();
        assert_eq!(received.matches(&id).count(), 2, "as X-Request-ID and X-Kong-Request-Id: {received}");
        assert_eq!(header(&received, "x-kong-request-id"), Some(&*id), "{received}");
    }

    // Kong leaves `Server` to a plugin that sets `Via` to the product token alone.
    for (via, expected) in [("1.1 other", PRODUCT), (PRODUCT, "Demo")] {
        let transformer = json!({"add": {"headers": ["Server:Demo", format!("Via:{via}"), "X-Kong-Request-Id:new"]}});
        let plugins = [("response-transformer", transformer), ("request-termination", json!({}))];
        let terminating = server(Options::default(), &plugins, &endpoint).await;
        let response = terminating.request("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        assert_eq!((response.header("via"), response.header("server")), (Some(via), Some(expected)));
        assert_eq!(response.header("x-kong-request-id"), response.header("x-request-id"));
    }
}

/// Plugins use the client address that trusted peers report.
// docs/kong-compatibility.md, 4.15
// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn plugins_use_addresses_from_trusted_peers() {
    let endpoint = Endpoint::ok().await;
    let trusting_options = || Options { trusted: vec!["127.0.0.0/8"], ..Options::default() };
    let get_from = async |server: &TestServer, address: &str| {
        server.request(&format!("GET / HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: {address}\r\n\r\n")).await
    };
    let restricting_server =
        server(trusting_options(), &[("ip-restriction", json!({"deny": ["192.0.2.7"]}))], &endpoint).await;
    let response = get_from(&restricting_server, "192.0.2.7").await;
    assert_eq!(response.status, 403);
    assert!(response.text().contains("IP address not allowed: 192.0.2.7"), "{}", response.text());
    assert_eq!(get_from(&restricting_server, "192.0.2.8").await.status, 200);

    // The balancer's own address is allowed, but it is not the client.
    let allowing_server =
        server(trusting_options(), &[("ip-restriction", json!({"allow": ["127.0.0.0/8"]}))], &endpoint).await;
    for (address, status) in
        [("127.0.0.2:4711", 200), ("192.0.2.7:4711", 403), ("[2001:db8::1]:1", 403), ("unknown", 403)]
    {
        assert_eq!(get_from(&allowing_server, address).await.status, status, "{address}");
    }
    assert_eq!(get_from(&restricting_server, "192.0.2.7:4711").await.status, 403);
    assert_eq!(get_from(&restricting_server, "unknown").await.status, 403);

    let limiting_server =
        server(trusting_options(), &[("rate-limiting", json!({"year": 1, "limit_by": "ip"}))], &endpoint).await;
    for (address, status) in [
        ("192.0.2.7", 200),
        ("192.0.2.8:1", 200),
        ("192.0.2.7:2", 429),
        ("192.0.2.8", 429),
        // Clients without a readable address share a limit, which is not the balancer's.
        ("unknown", 200),
        ("_hidden", 429),
        ("127.0.0.1", 200),
    ] {
        assert_eq!(get_from(&limiting_server, address).await.status, status, "{address}");
    }
}

/// A body of unknown length is measured, and no part of an oversized body is forwarded as a complete one.
// docs/kong-compatibility.md, 4.27
#[tokio::test]
async fn chunked_bodies_are_measured() {
    let endpoint = Endpoint::ok().await;
    let config = json!({"allowed_payload_size": 3, "size_unit": "bytes", "require_content_length": true});
    let server = server(Options::default(), &[("request-size-limiting", config)], &endpoint).await;
    let post = "POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(server.request(&format!("{post}3\r\nabc\r\n0\r\n\r\n")).await.status, 200);
    let response = server.request(&format!("{post}4\r\nabcd\r\n0\r\n\r\n")).await;
    let body = r#"{"message":"Request size limit exceeded","request_id":"ID"}"#;
    assert_eq!(response_parts(&response, &[]), (413, body.to_owned(), vec![]));
    assert_eq!(endpoint.log.requests().len(), 1);
}

/// Two workers count together: as many requests are admitted as the limit says, and no more.
#[tokio::test]
async fn two_workers_admit_exactly_the_limit() {
    let endpoint = Endpoint::ok().await;
    let options = || Options { workers: 2, ..Options::default() };
    for (plugin, config) in [
        ("rate-limiting", json!({"year": 150, "limit_by": "ip"})),
        (
            "rate-limiting-advanced",
            json!({"limit": [150], "window_size": [31_536_000], "identifier": "ip", "strategy": "local", "sync_rate": -1}),
        ),
        ("usage-plan", json!({"plans": [{"name": "free", "quotas": {"month": 150}}], "limit_by": "ip"})),
    ] {
        let server = server(options(), &[(plugin, config)], &endpoint).await;
        let connections = (0..20).map(|_| async {
            let mut client = server.connect().await;
            let mut admitted = 0;
            for _ in 0..10 {
                match client.get("/").await.status {
                    200 => admitted += 1,
                    status => assert_eq!(status, 429),
                }
            }
            admitted
        });
        let admitted: usize = futures_util::future::join_all(connections).await.into_iter().sum();
        assert_eq!(admitted, 150, "{plugin}");
    }
}
