//! Tables of requests and responses: what is sent, what the endpoint receives, what the client gets.

use http::{HeaderName, HeaderValue};
use portico::proxy::RejectedPaths;
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::redirect::{RedirectAction, Scheme};
use portico::snapshot::rule::{
    Action, Backend, BackendTarget, Filters, HeaderEdits, Rewrite, RouteFailure, WeightedBackends,
};

use crate::harness::{Client, Endpoint, Options, Route, TestServer, header, route, routes_to, upstream};
use crate::transport::{GET_ROOT, TRANSPORTS, TransportRequest};

/// The message with its header lines sorted, without Date and the number of hops, and with `?` as the request ID.
fn normalized(message: &str) -> String {
    let (head, body) = message.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<String> = head
        .lines()
        .filter(|line| !line.starts_with("date:") && *line != "portico-hops: 1")
        .map(|line| if line.starts_with("x-request-id: ") { "x-request-id: ?".to_owned() } else { line.to_owned() })
        .collect();
    lines[1..].sort();
    (lines.join("\n") + "\n\n" + body).trim_end().to_owned()
}

struct Case {
    name: &'static str,
    request: &'static str,
    /// None if the request must not reach the endpoint.
    received: Option<&'static str>,
    status: u16,
}

/// The headers that Portico adds; `FORWARDED` stands for them in the table.
const FORWARDED: &str = "via: 1.1 portico\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: a.example\nx-forwarded-port: 80\nx-forwarded-proto: http\nx-request-id: ?";

#[tokio::test]
async fn requests_are_forwarded_as_specified() {
    let cases = [
        Case {
            name: "plain",
            request: "GET /x?y=1&z HTTP/1.1\r\nHost: a.example\r\nA: b\r\n\r\n",
            received: Some("GET /x?y=1&z HTTP/1.1\na: b\nhost: a.example\nFORWARDED"),
            status: 200,
        },
        Case {
            name: "a normalized target is forwarded unchanged",
            request: "GET /a%2Fb/%C3%A9//c;d=1?q=%41%2e../ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            received: Some("GET /a%2Fb/%C3%A9//c;d=1?q=%41%2e../ HTTP/1.1\nhost: a.example\nFORWARDED"),
            status: 200,
        },
        Case {
            name: "the normalized path is sent",
            request: "GET /a/%2e%2e/%62?c=%64 HTTP/1.1\r\nHost: a.example\r\n\r\n",
            received: Some("GET /b?c=%64 HTTP/1.1\nhost: a.example\nFORWARDED"),
            status: 200,
        },
        Case {
            name: "absolute form overrides Host",
            request: "GET http://a.example/x?y HTTP/1.1\r\nHost: b.example\r\n\r\n",
            received: Some("GET /x?y HTTP/1.1\nhost: a.example\nFORWARDED"),
            status: 200,
        },
        Case {
            name: "absolute form without path",
            request: "GET http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
            received: Some("GET / HTTP/1.1\nhost: a.example\nFORWARDED"),
            status: 200,
        },
        Case {
            name: "hop-by-hop headers are removed",
            request: "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, X-Hop, TE\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
                      Proxy-Connection: x\r\nUpgrade: websocket\r\nTE: trailers, gzip\r\n\r\n",
            received: Some("GET / HTTP/1.1\nconnection: TE\nhost: a.example\nte: trailers\nFORWARDED"),
            status: 200,
        },
        Case {
            name: "forwarding headers of untrusted clients are replaced",
            request: "GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
                      X-Forwarded-Host: evil\r\nX-Forwarded-Port: 6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: mine\r\n\r\n",
            received: Some("GET / HTTP/1.1\nhost: a.example\nFORWARDED"),
            status: 200,
        },
        Case {
            name: "forwarding headers cannot be removed through Connection",
            request: "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: x-forwarded-for, x-request-id, host\r\n\r\n",
            received: Some("GET / HTTP/1.1\nhost: a.example\nFORWARDED"),
            status: 200,
        },
        Case {
            name: "a body of known length",
            request: "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc",
            received: Some("POST / HTTP/1.1\ncontent-length: 3\nhost: a.example\nFORWARDED\n\nabc"),
            status: 200,
        },
        Case {
            name: "a body in chunks",
            request: "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            received: Some("POST / HTTP/1.1\nhost: a.example\ntransfer-encoding: chunked\nFORWARDED\n\nabcde"),
            status: 200,
        },
        Case {
            name: "a GET with a body keeps it",
            request: "GET / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            received: Some("GET / HTTP/1.1\nhost: a.example\ntransfer-encoding: chunked\nFORWARDED\n\nabc"),
            status: 200,
        },
        Case {
            name: "an empty body stays empty",
            request: "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n",
            received: Some("POST / HTTP/1.1\ncontent-length: 0\nhost: a.example\nFORWARDED"),
            status: 200,
        },
        Case {
            name: "declared trailers",
            request: "POST / HTTP/1.1\r\nHost: a.example\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                      3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n",
            received: Some(
                "POST / HTTP/1.1\nhost: a.example\ntrailer: x-sum\ntransfer-encoding: chunked\nFORWARDED\n\nabcx-sum: 6",
            ),
            status: 200,
        },
        Case {
            name: "HTTP/1.0 without Host",
            request: "GET /x HTTP/1.0\r\n\r\n",
            received: Some(
                "GET /x HTTP/1.1\nhost: LOCAL\nvia: 1.0 portico\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: LOCAL\n\
                 x-forwarded-port: 80\nx-forwarded-proto: http\nx-request-id: ?",
            ),
            status: 200,
        },
        Case {
            name: "an extension method",
            request: "PROPFIND /x HTTP/1.1\r\nHost: a.example\r\n\r\n",
            received: Some("PROPFIND /x HTTP/1.1\nhost: a.example\nFORWARDED"),
            status: 200,
        },
        Case {
            name: "OPTIONS *",
            request: "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n",
            received: None,
            status: 204,
        },
        Case {
            name: "CONNECT",
            request: "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
            received: None,
            status: 405,
        },
        Case { name: "* with GET", request: "GET * HTTP/1.1\r\nHost: a.example\r\n\r\n", received: None, status: 400 },
        Case { name: "no Host", request: "GET / HTTP/1.1\r\n\r\n", received: None, status: 400 },
        Case {
            name: "two Hosts",
            request: "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            received: None,
            status: 400,
        },
        Case { name: "bad Host", request: "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", received: None, status: 400 },
        Case { name: "empty Host", request: "GET / HTTP/1.1\r\nHost:\r\n\r\n", received: None, status: 400 },
        Case {
            name: "a user in the target",
            request: "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            received: None,
            status: 400,
        },
        Case {
            name: "bad escape",
            request: "GET /%zz HTTP/1.1\r\nHost: a.example\r\n\r\n",
            received: None,
            status: 400,
        },
        Case { name: "NUL", request: "GET /%00 HTTP/1.1\r\nHost: a.example\r\n\r\n", received: None, status: 400 },
        Case {
            name: "an unsupported expectation",
            request: "GET / HTTP/1.1\r\nHost: a.example\r\nExpect: tea\r\n\r\n",
            received: None,
            status: 417,
        },
        Case {
            name: "an unsupported transfer coding",
            request: "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            received: None,
            status: 400,
        },
    ];
    for case in cases {
        let endpoint = Endpoint::ok().await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let response = server.request(case.request).await;
        assert_eq!(response.status, case.status, "{}: {response:?}", case.name);
        let local = server.address.to_string();
        let received: Vec<_> =
            endpoint.log.requests().iter().map(|request| normalized(request).replace(&local, "LOCAL")).collect();
        let expected: Vec<_> = case.received.iter().map(|text| text.replace("FORWARDED", FORWARDED)).collect();
        assert_eq!(received, expected, "{}", case.name);
        assert_eq!(response.header("x-request-id").map(str::len), Some(32), "{}", case.name);
    }
}

#[tokio::test]
async fn trusted_peer_headers_are_kept() {
    let endpoint = Endpoint::ok().await;
    let options = Options { trusted: vec!["127.0.0.0/8"], ..Options::default() };
    let server = TestServer::with_options(options, routes_to(endpoint.address)).await;
    let response = server
        .request(
            "GET / HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: 1.1.1.1\r\nx-forwarded-proto: https\r\n\
             forwarded: for=1.1.1.1\r\nx-real-ip: 1.1.1.1\r\nx-forwarded-path: /a\r\nx-forwarded-prefix: /b\r\n\
             x-request-id: mine\r\n\r\n",
        )
        .await;
    assert_eq!(response.header("x-request-id"), Some("mine"));
    assert_eq!(
        normalized(&endpoint.log.requests()[0].replace("x-request-id: mine", "y: mine")),
        "GET / HTTP/1.1\nforwarded: for=1.1.1.1, for=127.0.0.1\nhost: a.example\nvia: 1.1 portico\n\
         x-forwarded-for: 1.1.1.1, 127.0.0.1\nx-forwarded-host: a.example\nx-forwarded-path: /a\n\
         x-forwarded-port: 443\nx-forwarded-prefix: /b\nx-forwarded-proto: https\nx-real-ip: 1.1.1.1\ny: mine"
    );
}

#[tokio::test]
async fn paths_that_endpoints_read_differently_can_be_rejected() {
    for transport in TRANSPORTS {
        for rejects in [false, true] {
            let endpoint = Endpoint::ok().await;
            let rejected_paths = RejectedPaths {
                backslash: rejects,
                encoded_slash: rejects,
                dot_parameters: rejects,
                empty_segment: rejects,
                path_parameters: rejects,
            };
            let options = Options { rejected_paths, ..Options::default() };
            let server = transport.start_server(options, routes_to(endpoint.address)).await;
            for path in [
                "/public/..\\admin",
                "/public%2fadmin",
                "/public/..;/admin",
                "/public/%2e%2e;/admin",
                "//admin",
                "/public/x/..//admin",
                "/public/%2e%2e//admin",
                "/admin//",
                "/admin;v=1",
                "/admin%3bv=1/users",
            ] {
                let response = transport.send(&server, &TransportRequest { path, ..GET_ROOT }).await.unwrap();
                assert_eq!(response.status, if rejects { 400 } else { 200 }, "{transport:?} {path}");
            }
        }
    }
}

/// RFC 9110, section 7.6.3.
#[tokio::test]
async fn via_names_the_protocol_and_extends_the_list() {
    for transport in TRANSPORTS {
        let endpoint = Endpoint::ok().await;
        let server = transport.start_server(Options::default(), routes_to(endpoint.address)).await;
        let version = if transport.http2 { "2.0" } else { "1.1" };
        let cases: [(&[(&str, &str)], _); 2] = [
            (&[], format!("{version} portico")),
            (&[("via", "1.0 fred, 1.1 p")], format!("1.0 fred, 1.1 p, {version} portico")),
        ];
        for (fields, expected) in cases {
            let response = transport.send(&server, &TransportRequest { fields, ..GET_ROOT }).await.unwrap();
            assert_eq!((response.status, response.header("via")), (200, None), "{transport:?}");
            let received = endpoint.log.requests().pop().unwrap();
            assert_eq!(header(&received, "via"), Some(&*expected), "{transport:?}");
        }
    }
}

#[tokio::test]
async fn what_untrusted_peers_say_about_clients_is_removed() {
    const REPORTS: &[(&str, &str)] = &[
        ("x-real-ip", "6.6.6.6"),
        ("x_real_ip", "6.6.6.6"),
        ("x-forwarded-path", "/evil"),
        ("x-forwarded-prefix", "/evil"),
        ("x-forwarded_prefix", "/evil"),
        ("forwarded", "for=6.6.6.6"),
        ("proxy", "evil:1"),
    ];
    for transport in TRANSPORTS {
        let endpoint = Endpoint::ok().await;
        let server = transport.start_server(Options::default(), routes_to(endpoint.address)).await;
        let request = TransportRequest { fields: REPORTS, ..GET_ROOT };
        assert_eq!(transport.send(&server, &request).await.unwrap().status, 200, "{transport:?}");
        let received = endpoint.log.requests().pop().unwrap().to_lowercase();
        for (name, _) in REPORTS {
            assert!(!received.contains(&format!("\n{name}:")), "{transport:?}: {received}");
        }
        assert!(!received.contains("evil") && !received.contains("6.6.6.6"), "{transport:?}: {received}");
    }
}

#[tokio::test]
async fn responses_are_forwarded_as_specified() {
    // (request, response of the endpoint, what the client reads)
    let get = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";
    let head = "HEAD / HTTP/1.1\r\nhost: a.example\r\n\r\n";
    let http1_0_get = "GET / HTTP/1.0\r\nhost: a.example\r\n\r\n";
    let cases = [
        (
            get,
            "HTTP/1.1 200 Fine\r\ncontent-length: 2\r\na: b\r\na: c\r\n\r\nok",
            "HTTP/1.1 200 Fine\na: b\na: c\ncontent-length: 2\nx-request-id: ?\n\nok",
        ),
        (
            get,
            "HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            "HTTP/1.1 404 Not Found\ntransfer-encoding: chunked\nx-request-id: ?\n\nno",
        ),
        (get, "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\nx-request-id: ?"),
        (
            get,
            "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n",
            "HTTP/1.1 304 Not Modified\netag: \"x\"\nx-request-id: ?",
        ),
        (head, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "HTTP/1.1 200 OK\ncontent-length: 5\nx-request-id: ?"),
        (
            get,
            "HTTP/1.1 200 OK\r\nconnection: x-hop, close\r\nx-hop: 1\r\nkeep-alive: 1\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\ncontent-length: 0\nx-request-id: ?",
        ),
        (
            get,
            "HTTP/1.1 200 OK\r\nx-request-id: theirs\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\ncontent-length: 0\nx-request-id: ?",
        ),
        (
            get,
            "HTTP/1.0 200 OK\r\n\r\nuntil the end",
            "HTTP/1.1 200 OK\ntransfer-encoding: chunked\nx-request-id: ?\n\nuntil the end",
        ),
        (
            http1_0_get,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\nx-request-id: ?\n\nok",
        ),
        (
            get,
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\ncontent-length: 0\nx-request-id: ?",
        ),
        // A message with two framings is forwarded with the chunked one.
        (
            get,
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\ntransfer-encoding: chunked\nx-request-id: ?\n\nok",
        ),
    ];
    for (request, endpoint_response, expected) in cases {
        let endpoint = Endpoint::scripted(move |mut stream, _| async move {
            stream.request().await;
            stream.send(endpoint_response).await;
        })
        .await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let response = server.request(request).await;
        assert_eq!(normalized(&(response.head.clone() + &response.text())), expected, "{endpoint_response}");
    }
}

#[tokio::test]
async fn response_trailers_reach_a_client_that_accepts_them() {
    let endpoint = Endpoint::responding_with(
        "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n",
    )
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let response = server.request("GET / HTTP/1.1\r\nhost: a.example\r\nconnection: te\r\nte: trailers\r\n\r\n").await;
    assert_eq!(response.text(), "okx-sum: 1\r\n");
}

#[tokio::test]
async fn filters_edit_requests_and_responses() {
    let endpoint = Endpoint::responding_with("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nserver: x\r\n\r\n").await;
    let field =
        |name: &'static str, value: &'static str| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let edits = |level: &'static str| HeaderEdits {
        set: vec![field("x-set", level)],
        add: vec![field("x-add", level)],
        remove: vec![HeaderName::from_static("server"), HeaderName::from_static("user-agent")],
    };
    let filters = |level: &'static str, rewrite| Filters {
        request_headers: Some(edits(level)),
        response_headers: Some(edits(level)),
        rewrite,
        ..Filters::default()
    };
    let rewrite =
        Rewrite { host: Some(HeaderValue::from_static("inner.example")), path: Some(PathEdit::prefix("/api", "/v2")) };
    let backend = Backend {
        weight: 1,
        filters: filters("backend", None),
        target: BackendTarget::Upstream(upstream("web", &[endpoint.address])),
    };
    let action = Action::Forward(WeightedBackends::new(vec![backend]).unwrap());
    let server =
        TestServer::with_routes(vec![Route { path: "/api", filters: filters("rule", Some(rewrite)), ..route(action) }])
            .await;
    let response =
        server.request("GET /api/x?y=1 HTTP/1.1\r\nhost: a.example\r\nuser-agent: me\r\nx-set: client\r\n\r\n").await;
    assert_eq!(
        normalized(&endpoint.log.requests()[0]),
        "GET /v2/x?y=1 HTTP/1.1\nhost: inner.example\nvia: 1.1 portico\nx-add: backend\nx-add: rule\nx-forwarded-for: 127.0.0.1\n\
         x-forwarded-host: a.example\nx-forwarded-port: 80\nx-forwarded-proto: http\nx-request-id: ?\nx-set: backend"
    );
    assert_eq!(
        normalized(&response.head),
        "HTTP/1.1 200 OK\ncontent-length: 0\nx-add: backend\nx-add: rule\nx-request-id: ?\nx-set: rule"
    );
}

#[tokio::test]
async fn redirect_has_the_configured_location() {
    let redirect = RedirectAction {
        scheme: Some(Scheme::Https),
        path: Some(PathEdit::full("/new")),
        ..RedirectAction::new(http::StatusCode::MOVED_PERMANENTLY)
    };
    let server = TestServer::with_routes(vec![route(Action::Redirect(redirect))]).await;
    let response = server.request("GET /old?q=1 HTTP/1.1\r\nhost: a.example:8080\r\n\r\n").await;
    assert_eq!((response.status, response.header("location")), (301, Some("https://a.example/new?q=1")));
}

#[tokio::test]
async fn failing_rule_does_not_affect_other_rules() {
    for (failure, status) in
        [(RouteFailure::NoBackends, 500), (RouteFailure::InvalidBackend, 500), (RouteFailure::Unsupported, 500)]
    {
        let endpoint = Endpoint::ok().await;
        let mut routes = routes_to(endpoint.address);
        routes.push(Route { path: "/broken", ..route(Action::Fail(failure)) });
        let server = TestServer::with_routes(routes).await;
        let mut client: Client = server.connect().await;
        assert_eq!(client.get("/broken/x").await.status, status);
        assert_eq!(client.get("/brokenx").await.status, 200, "on the same connection");
        assert_eq!(endpoint.log.requests().len(), 1);
    }
}

#[tokio::test]
async fn client_decides_whether_the_connection_stays_open() {
    // (request, Connection of the response, whether the connection stays open)
    let cases = [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", None, true),
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", Some("close"), false),
        ("GET / HTTP/1.0\r\nhost: a\r\n\r\n", None, false),
        ("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n", Some("keep-alive"), true),
    ];
    for (request, connection, stays_open) in cases {
        let endpoint = Endpoint::ok().await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let mut client = server.connect().await;
        client.send(request).await;
        assert_eq!(client.response().await.header("connection"), connection, "{request}");
        if stays_open {
            assert_eq!(client.get("/").await.text(), "ok", "{request}");
        } else {
            assert_eq!(client.read_to_end().await.unwrap(), b"", "{request}");
        }
    }
}

#[tokio::test]
async fn upgrade_request_may_get_a_plain_response() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    for protocol in ["websocket", "h2c", "TLS/1.2"] {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n");
        client.send(request).await;
        assert_eq!(client.response().await.text(), "ok");
    }
    assert_eq!(client.get("/").await.text(), "ok");
    let has_upgrade: Vec<_> = endpoint.log.requests().iter().map(|request| request.contains("upgrade")).collect();
    assert_eq!(has_upgrade, [true, false, false, false], "only WebSocket upgrades are forwarded");
    assert_eq!(endpoint.log.connections(), 1);
}
