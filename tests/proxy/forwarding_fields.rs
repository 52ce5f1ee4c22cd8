//! The forwarding fields, which are written when a request is sent, or before something reads or changes its header:
//! endpoints get the same either way.
//!
//! Each request is sent twice, the second time with an element of `Via`, so that the header has the fields from the
//! beginning. What arrives is the same but for that element.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderName, HeaderValue, Response};
use portico::http1::NameCase;
use portico::plugin_api::AccessOutcome;
use portico::snapshot::external_auth::{AuthorizationProtocol, ExternalAuthFilter};
use portico::snapshot::rule::{Action, Backend, BackendTarget, Filters, HeaderEdits, Rewrite, WeightedBackends};
use portico::snapshot::rule_options::{RuleOptions, UpstreamHost};
use portico::upstream::settings::{
    Balancing, BalancingAlgorithm, CombineKeys, HashKey, HashSource, HashTable, RequestHash, RetrySettings,
};
use portico::upstream::{
    AffinityCarrier, AffinitySettings, BackendTraffic, EndpointAddress, Endpoints, Upstream, UpstreamRegistry,
};

use crate::external_auth::{authorization_server, filters, http_filter, http_filter_for_all};
use crate::failover::{alternatives, key};
use crate::h2::Http2Client;
use crate::h2_upstream::http2_endpoint;
use crate::harness::{
    Endpoint, EndpointLog, Options, Route, TestServer, forward, h2c_upstream, retries, route, routes_to, upstream,
    with_timeouts_and_retries,
};
use crate::mirror::mirror;
use crate::plugins::{ScriptedPlugin, chain};
use crate::service_retries::{set_traffic, settings};
use crate::sessions::{cookie, with_session};

/// The names of the fields.
pub(crate) const NAMES: [&str; 6] =
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-request-id", "via"];

/// Without the first line and the end. Those with `Connection` name fields that are added afterwards.
const GETS: &[&str] = &[
    "host: a.example\r\n",
    "HOST: a.example:8080\r\nX-Custom: 1\r\nx_forwarded_for: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 1\r\n",
    "host: a.example\r\nconnection: x-forwarded-for, x-request-id, via, te\r\nte: trailers\r\ncookie: a=1\r\n",
];

/// What arrives at an endpoint: the fields of a request in order of their names, without what differs between two
/// requests.
fn fields(request: &str) -> Vec<String> {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    let mut lines: Vec<String> = head.split("\r\n").map(|line| line.replacen("1.0 a, ", "", 1)).collect();
    for line in &mut lines {
        if let Some((name, id)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("x-request-id")
            && id.len() > 8
        {
            *line = format!("{name}: an id");
        }
    }
    lines.sort();
    lines
}

/// How often endpoints get a field with this name.
pub(crate) fn count(request: &str, name: &str) -> usize {
    let names = request.lines().skip(1).filter_map(|line| line.split_once(':'));
    names.filter(|(field, _)| field.eq_ignore_ascii_case(name)).count()
}

/// An endpoint, and how many requests it gets for each of the client's.
type Expected<'e> = (&'e EndpointLog, usize);

/// Sends each request in both ways, and compares what arrives at the endpoints.
async fn expect_same(what: &str, server: &TestServer, endpoints: &[Expected<'_>], requests: &[String]) {
    for request in requests {
        let (line, rest) = request.split_once("\r\n").unwrap();
        let mut arrived = Vec::new();
        for via in ["", "Via: 1.0 a\r\n"] {
            let before: Vec<usize> = endpoints.iter().map(|(log, _)| log.requests().len()).collect();
            let response = server.request(&format!("{line}\r\n{via}{rest}")).await;
            let mut of_endpoints = Vec::new();
            for ((log, count), before) in endpoints.iter().zip(before) {
                log.wait_for(what, |log| log.requests().len() >= before + count).await;
                of_endpoints.push(log.requests()[before..].iter().map(|request| fields(request)).collect::<Vec<_>>());
            }
            assert!(of_endpoints.iter().zip(endpoints).all(|(arrived, (_, count))| arrived.len() == *count), "{what}");
            arrived.push((response.status, of_endpoints));
        }
        assert_eq!(arrived[0], arrived[1], "{what}: {request}");
    }
}

fn get_requests() -> Vec<String> {
    GETS.iter().map(|fields| format!("GET /x?y=1 HTTP/1.1\r\n{fields}\r\n")).collect()
}

fn edits(edits: HeaderEdits) -> Filters {
    Filters { request_headers: Some(edits), ..Filters::default() }
}

fn names() -> Vec<HeaderName> {
    NAMES.map(HeaderName::from_static).into()
}

fn values() -> Vec<(HeaderName, HeaderValue)> {
    names().into_iter().map(|name| (name, HeaderValue::from_static("own"))).collect()
}

/// Forwards to one upstream with filters of its own.
fn filtered(upstream: Arc<Upstream>, filters: Filters) -> Action {
    let backend = Backend { weight: 1, filters, target: BackendTarget::Upstream(upstream) };
    Action::Forward(WeightedBackends::new(vec![backend]).unwrap())
}

#[tokio::test]
async fn every_body_and_upgrade_has_them() {
    let endpoint = Endpoint::ok().await;
    let mut requests = get_requests();
    requests.extend(
        [
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
            "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            "GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n",
        ]
        .map(str::to_owned),
    );
    for name_case in [NameCase::Lower, NameCase::Received] {
        for trusted in [vec![], vec!["127.0.0.0/8"]] {
            let options = Options { name_case, trusted, ..Options::default() };
            let server = TestServer::with_options(options, routes_to(endpoint.address)).await;
            expect_same("plain", &server, &[(&endpoint.log, 1)], &requests).await;
        }
    }
    for request in endpoint.log.requests() {
        for name in NAMES {
            assert_eq!(count(&request, name), 1, "{name}: {request}");
        }
    }
}

#[tokio::test]
async fn values_are_those_of_the_connection_and_the_received_host() {
    let endpoint = Endpoint::ok().await;
    let web = || upstream("web", &[endpoint.address]);
    let inner = HeaderValue::from_static("inner.example");
    let rewrite = Some(Rewrite { host: Some(inner.clone()), path: None });
    let filters = || Filters { rewrite: rewrite.clone(), ..Filters::default() };
    let of_rule = Route { filters: filters(), ..route(forward(vec![(1, web())])) };
    let of_backend = route(filtered(web(), filters()));
    let options = RuleOptions { host: UpstreamHost::Fixed(inner), ..RuleOptions::default() };
    let of_options = Route { options: Some(Box::new(options)), ..route(forward(vec![(1, web())])) };
    let none = route(forward(vec![(1, web())]));
    // The target and the fields decide about the host, which routes may replace.
    let requests = [
        "GET / HTTP/1.1\r\nhost: a.example:8080\r\n\r\n",
        "GET / HTTP/1.1\r\nconnection: host\r\nHOST: a.example:8080\r\n\r\n",
        "GET http://a.example:8080/ HTTP/1.1\r\nhost: b.example\r\n\r\n",
        "GET http://a.example:8080/ HTTP/1.0\r\n\r\n",
    ]
    .map(str::to_owned);
    for (what, route, host) in [
        ("kept host", none, "a.example:8080"),
        ("rewritten host", of_rule, "inner.example"),
        ("rewritten for the backend", of_backend, "inner.example"),
        ("fixed host", of_options, "inner.example"),
    ] {
        let before = endpoint.log.requests().len();
        let server = TestServer::with_routes(vec![route]).await;
        expect_same(what, &server, &[(&endpoint.log, 1)], &requests).await;
        for request in &endpoint.log.requests()[before..] {
            let version = request.lines().find_map(|line| line.strip_prefix("via: ")).unwrap();
            let expected = [
                "GET / HTTP/1.1",
                &format!("host: {host}"),
                "portico-hops: 1",
                &format!("via: {}", version.replacen("1.0 a, ", "", 1)),
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-host: a.example:8080",
                "x-forwarded-port: 80",
                "x-forwarded-proto: http",
                "x-request-id: an id",
            ];
            assert_eq!(fields(request), expected, "{what}");
        }
    }
}

#[tokio::test]
async fn filters_see_and_change_them() {
    let (endpoint, copies) = (Endpoint::ok().await, Endpoint::ok().await);
    let web = || upstream("web", &[endpoint.address]);
    let plain = || forward(vec![(1, web())]);
    let removed = || edits(HeaderEdits { remove: names(), ..HeaderEdits::default() });
    let set = || edits(HeaderEdits { set: values(), ..HeaderEdits::default() });
    let added = || edits(HeaderEdits { add: values(), ..HeaderEdits::default() });
    let mirrored =
        || Filters { mirrors: vec![mirror(upstream("copies", &[copies.address]), 1, 1)].into(), ..Filters::default() };
    // The filters of the rule, its action, how often the endpoint gets each field, and whether there is a copy.
    for (what, filters, action, expected, is_mirrored) in [
        ("removed by the rule", removed(), plain(), 0, false),
        ("set by the rule", set(), plain(), 1, false),
        ("added by the rule", added(), plain(), 2, false),
        ("removed by the backend", Filters::default(), filtered(web(), removed()), 0, false),
        ("added by the backend", Filters::default(), filtered(web(), added()), 2, false),
        ("mirrored by the rule", mirrored(), plain(), 1, true),
        ("mirrored by the backend", Filters::default(), filtered(web(), mirrored()), 1, true),
    ] {
        let before = endpoint.log.requests().len();
        let server = TestServer::with_routes(vec![Route { filters, ..route(action) }]).await;
        let endpoints = [(&*endpoint.log, 1), (&*copies.log, usize::from(is_mirrored))];
        expect_same(what, &server, &endpoints, &get_requests()).await;
        for request in &endpoint.log.requests()[before..] {
            assert_eq!(NAMES.map(|name| count(request, name)), [expected; 6], "{what}: {request}");
        }
    }
    for request in copies.log.requests() {
        assert_eq!(NAMES.map(|name| count(&request, name)), [1; 6], "{request}");
    }
}

#[tokio::test]
async fn plugins_see_and_change_them() {
    let endpoint = Endpoint::ok().await;
    let seen: Arc<Mutex<Vec<usize>>> = Arc::default();
    let seen_by_plugin = Arc::clone(&seen);
    let scripted = ScriptedPlugin::access(move |cx| {
        let count = NAMES.iter().filter(|name| cx.head.headers.contains_key(**name)).count();
        seen_by_plugin.lock().unwrap().push(count);
        cx.head.headers.remove("x-forwarded-host");
        AccessOutcome::Continue
    });
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let server = TestServer::with_routes(vec![Route { plugins: chain(vec![scripted]), ..route(action) }]).await;
    expect_same("a plugin", &server, &[(&endpoint.log, 1)], &get_requests()).await;
    assert_eq!(*seen.lock().unwrap(), vec![NAMES.len(); 2 * GETS.len()]);
    assert!(endpoint.log.requests().iter().all(|request| count(request, "x-forwarded-host") == 0));
}

/// A filter whose server gets all of the fields.
fn informed(filter: ExternalAuthFilter) -> ExternalAuthFilter {
    let mut filter = filter;
    if let AuthorizationProtocol::Http(settings) = &mut filter.protocol {
        settings.request_headers = names().into();
    }
    filter
}

/// A filter whose server decides about all of the fields.
fn deciding(filter: ExternalAuthFilter) -> ExternalAuthFilter {
    let mut filter = filter;
    if let AuthorizationProtocol::Http(settings) = &mut filter.protocol {
        settings.response_headers = Some(names().iter().collect());
    }
    filter
}

#[tokio::test]
async fn authorization_servers_see_and_decide_about_them() {
    let (endpoint, authorization) = (Endpoint::ok().await, authorization_server().await);
    let server_of = || upstream("auth", &[authorization.address]);
    let web = || upstream("web", &[endpoint.address]);
    let plain = || forward(vec![(1, web())]);
    for (what, filters, action) in [
        ("gets few fields", filters(http_filter(server_of())), plain()),
        ("gets the fields", filters(informed(http_filter(server_of()))), plain()),
        ("decides about all fields", filters(informed(http_filter_for_all(server_of(), "all"))), plain()),
        ("decides about them", filters(deciding(http_filter(server_of()))), plain()),
        ("of the backend", Filters::default(), filtered(web(), filters(informed(http_filter(server_of()))))),
        ("of the backend, decides", Filters::default(), filtered(web(), filters(deciding(http_filter(server_of()))))),
    ] {
        let server = TestServer::with_routes(vec![Route { filters, ..route(action) }]).await;
        expect_same(what, &server, &[(&endpoint.log, 1), (&authorization.log, 1)], &get_requests()).await;
    }
}

#[tokio::test]
async fn attempts_have_the_same_fields() {
    let busy = Endpoint::responding_with("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let by_rule = with_timeouts_and_retries(forward(vec![(1, upstream("rule", &[busy.address]))]), retries(1, &[503]));
    let by_service = |attempt_header| {
        let service = upstream("service", &[busy.address]);
        let retries = RetrySettings { attempt_header, ..settings(1, |on| on.server_error = true) };
        let traffic = BackendTraffic { retries: Some(Arc::new(retries)), ..BackendTraffic::default() };
        set_traffic(&service, &[busy.address], traffic);
        forward(vec![(1, service)])
    };
    let mut actions = vec![("retries of the rule", by_rule), ("retries of the Service", by_service(None))];
    for name in ["x-attempt", "x-forwarded-port", "x-request-id"] {
        actions.push((name, by_service(Some(HeaderName::from_static(name)))));
    }
    for (what, action) in actions {
        let server = TestServer::with_routes(vec![route(action)]).await;
        expect_same(what, &server, &[(&busy.log, 2)], &get_requests()[..1]).await;
    }
    for request in busy.log.requests() {
        assert_eq!(NAMES.map(|name| count(&request, name)), [1; 6], "{request}");
    }
}

/// A connection that the endpoint has closed is found out when the request was sent.
#[tokio::test]
async fn requests_that_move_on_to_another_connection_have_the_same_fields() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        if stream.request().await.is_some() {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            // Without a response.
            stream.request().await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let request = get_requests().remove(0);
    assert_eq!(server.request(&request).await.status, 200);
    // One more at the kept connection, which then closes.
    expect_same("a closed connection", &server, &[(&endpoint.log, 2)], &[request]).await;
}

#[tokio::test]
async fn alternatives_get_them() {
    let registry = UpstreamRegistry::default();
    let failing = Endpoint::responding_with("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await;
    let other = Endpoint::ok().await;
    let set = |service: &str, addresses: &[SocketAddr], traffic: BackendTraffic| {
        let addresses = addresses.iter().copied().map(EndpointAddress::Ip).collect();
        registry.set_endpoints(&key(service), Endpoints { addresses, traffic, ..Endpoints::default() })
    };
    let with_alternative =
        || BackendTraffic { alternatives: alternatives(&["other"], &[500]).map(Arc::new), ..BackendTraffic::default() };
    let _other = set("other", &[other.address], BackendTraffic::default());
    for (what, addresses, calls) in
        [("without endpoints", vec![], 0), ("whose response is replaced", vec![failing.address], 1)]
    {
        let web = set("web", &addresses, with_alternative());
        let server = TestServer::with_routes(vec![route(forward(vec![(1, web)]))]).await;
        expect_same(what, &server, &[(&failing.log, calls), (&other.log, 1)], &get_requests()[..1]).await;
    }
    for request in failing.log.requests().iter().chain(&other.log.requests()) {
        assert_eq!(NAMES.map(|name| count(request, name)), [1; 6], "{request}");
    }
}

#[tokio::test]
async fn sessions_may_be_in_one_of_them() {
    let endpoint = Endpoint::ok().await;
    for name in NAMES {
        for strip in [false, true] {
            let carrier = AffinityCarrier::Header(HeaderName::from_static(name));
            let session = AffinitySettings { carrier, strip, ..cookie(1) };
            let of_service = upstream("service", &[]);
            let affinity = Some(Arc::new(session.clone()));
            set_traffic(&of_service, &[endpoint.address], BackendTraffic { affinity, ..BackendTraffic::default() });
            let by_rule = with_session(forward(vec![(1, upstream("web", &[endpoint.address]))]), session);
            for action in [by_rule, forward(vec![(1, of_service)])] {
                let before = endpoint.log.requests().len();
                let server = TestServer::with_routes(vec![route(action)]).await;
                expect_same(name, &server, &[(&endpoint.log, 1)], &get_requests()).await;
                for request in &endpoint.log.requests()[before..] {
                    assert_eq!(count(request, name), usize::from(!strip), "{name}: {request}");
                }
            }
        }
    }
}

#[tokio::test]
async fn they_are_hashed() {
    let endpoints = [Endpoint::ok().await, Endpoint::ok().await];
    let web = upstream("web", &[]);
    let mut addresses = endpoints.each_ref().map(|endpoint| endpoint.address).to_vec();
    addresses.sort();
    let source = HashSource::Header(HeaderName::from_static("x-forwarded-host"));
    let keys = [HashKey { source, regex: None }].into();
    let hash = RequestHash { keys, combine: CombineKeys::First, bounded_load_percent: None, subset_size: None };
    web.set_endpoints(Endpoints {
        addresses: addresses.into_iter().map(EndpointAddress::Ip).collect(),
        balance: Balancing {
            algorithm: BalancingAlgorithm::ConsistentHash(HashTable::Maglev { table_size: 65_537 }),
            hash: Some(Arc::new(hash)),
            ..Balancing::default()
        },
        ..Endpoints::default()
    });
    let server = TestServer::with_routes(vec![route(forward(vec![(1, web)]))]).await;
    // All requests for a host go to one endpoint.
    for number in 0..20 {
        let before = endpoints.each_ref().map(|endpoint| endpoint.log.requests().len());
        for via in ["", "via: 1.0 a\r\n", ""] {
            let request = format!("GET / HTTP/1.1\r\nhost: host-{number}\r\n{via}\r\n");
            assert_eq!(server.request(&request).await.status, 200);
        }
        let counts = [0, 1].map(|index| endpoints[index].log.requests().len() - before[index]);
        assert!(counts == [3, 0] || counts == [0, 3], "host-{number}: {counts:?}");
    }
}

#[tokio::test]
async fn http2_endpoints_and_clients_have_them() {
    let log = Arc::new(EndpointLog::default());
    let log_of_endpoint = Arc::clone(&log);
    let endpoint = http2_endpoint(h2::server::Builder::new(), move |mut call| {
        let log = Arc::clone(&log_of_endpoint);
        async move {
            let headers = call.request.headers().iter();
            let lines: Vec<_> = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            log.record(&format!("{}\r\n{}\r\n\r\n", call.request.uri(), lines.join("\r\n")));
            call.response.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let server = TestServer::with_routes(vec![route(forward(vec![(1, h2c_upstream(endpoint.address))]))]).await;
    expect_same("an HTTP/2 endpoint", &server, &[(&log, 1)], &get_requests()).await;
    let http1 = Endpoint::ok().await;
    server.replace_routes(routes_to(http1.address));
    let client = Http2Client::connect(server.address).await;
    assert_eq!(client.get("/").await.status, 200);
    let request = http1.log.requests().remove(0);
    assert!(fields(&request).contains(&"via: 2.0 portico".to_owned()), "{request}");
    for request in log.requests().iter().chain([&request]) {
        assert_eq!(NAMES.map(|name| count(request, name)), [1; 6], "{request}");
    }
}
