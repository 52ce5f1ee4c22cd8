//! Sessions (GEP-1619): which endpoint gets the requests of a client, and when the client gets a new value.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use portico::snapshot::rule::Action;
use portico::upstream::settings::{SameSite, SetCookie};
use portico::upstream::{AffinityCarrier, AffinitySettings, BackendTraffic, EndpointAddress, Endpoints, Upstream};

use crate::harness::{
    Endpoint, Options, TestResponse, TestServer, forward, reserve_address, retries, route, upstream,
    with_timeouts_and_retries,
};

/// An endpoint whose responses have this body.
async fn named_endpoint(name: &str) -> Endpoint {
    let length = name.len();
    Endpoint::responding_with(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}")).await
}

pub(crate) fn cookie(scope: u64) -> AffinitySettings {
    let cookie = SetCookie::new("s", "/", None, SameSite::Strict);
    let carrier = AffinityCarrier::Cookie { cookie, is_permanent: false };
    AffinitySettings { scope, carrier, absolute_timeout: None, idle_timeout: None, strip: false, keys: None }
}

pub(crate) fn with_session(action: Action, settings: AffinitySettings) -> Action {
    let Action::Forward(mut split) = action else { panic!("only a forwarding action has sessions") };
    split.set_affinity(Some(Arc::new(settings)));
    Action::Forward(split)
}

fn set_endpoints(upstream: &Upstream, addresses: &[SocketAddr], traffic: BackendTraffic) {
    let mut addresses: Vec<_> = addresses.iter().copied().map(EndpointAddress::Ip).collect();
    addresses.sort();
    upstream.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
}

async fn get(server: &TestServer, headers: &str) -> TestResponse {
    server.request(&format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n")).await
}

/// The cookie of a response, without its attributes.
pub(crate) fn new_cookie(response: &TestResponse) -> Option<String> {
    let cookie = response.head.lines().find_map(|line| line.strip_prefix("set-cookie: "))?;
    Some(cookie.split(';').next().unwrap().to_owned())
}

fn body(response: &TestResponse) -> String {
    String::from_utf8(response.body.clone()).unwrap()
}

#[tokio::test]
async fn requests_with_the_cookie_go_to_one_endpoint() {
    let endpoints = [named_endpoint("a").await, named_endpoint("b").await, named_endpoint("c").await];
    let web = upstream("web", &endpoints.each_ref().map(|endpoint| endpoint.address));
    let server =
        TestServer::with_routes(vec![route(with_session(forward(vec![(1, Arc::clone(&web))]), cookie(1)))]).await;
    let first = get(&server, "").await;
    let set_cookie = first.head.lines().find(|line| line.starts_with("set-cookie")).unwrap();
    assert!(set_cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "plain text has no Secure: {set_cookie}");
    let cookie_field = format!("cookie: x=y; {}\r\n", new_cookie(&first).unwrap());
    for _ in 0..50 {
        let response = get(&server, &cookie_field).await;
        assert_eq!((body(&response), new_cookie(&response)), (body(&first), None));
    }
    // Without the cookie, requests are balanced. The first request has begun a lap, in which each endpoint gets one.
    let mut bodies = vec![body(&first)];
    for _ in 0..2 {
        bodies.push(body(&get(&server, "").await));
    }
    bodies.sort();
    assert_eq!(bodies, ["a", "b", "c"]);
    // The endpoint gets the cookie, too.
    let requests = endpoints.iter().flat_map(|endpoint| endpoint.log.requests());
    assert_eq!(requests.filter(|request| request.contains("cookie: x=y; s=")).count(), 50);
}

#[tokio::test]
async fn another_process_and_another_snapshot_know_the_session() {
    let endpoints = [named_endpoint("a").await, named_endpoint("b").await];
    let addresses = endpoints.each_ref().map(|endpoint| endpoint.address);
    let routes = || vec![route(with_session(forward(vec![(1, upstream("web", &addresses))]), cookie(1)))];
    let (server, replica) = (TestServer::with_routes(routes()).await, TestServer::with_routes(routes()).await);
    let first = get(&server, "").await;
    let cookie_field = format!("cookie: {}\r\n", new_cookie(&first).unwrap());
    server.replace_routes(routes());
    for server in [&server, &replica, &server, &replica] {
        let response = get(server, &cookie_field).await;
        assert_eq!((body(&response), new_cookie(&response)), (body(&first), None));
    }
}

#[tokio::test]
async fn invalid_values_get_a_new_session() {
    let endpoint = named_endpoint("a").await;
    let web = upstream("web", &[endpoint.address]);
    let server = TestServer::with_routes(vec![route(with_session(forward(vec![(1, web)]), cookie(1)))]).await;
    let valid = new_cookie(&get(&server, "").await).unwrap();
    let (start, last) = valid.split_at(valid.len() - 5);
    let changed = format!("{start}{}{}", if last.starts_with('A') { 'B' } else { 'A' }, &last[1..]);
    for value in ["s=", "s=127.0.0.1:80", &changed, &"s=AQ".repeat(40), "other=1"] {
        let response = get(&server, &format!("cookie: {value}\r\n")).await;
        assert_eq!(response.status, 200, "{value}");
        assert!(new_cookie(&response).is_some(), "{value}");
    }
    // A valid one counts, wherever it is.
    let response = get(&server, &format!("cookie: {changed}\r\ncookie: x=1; {valid}\r\n")).await;
    assert_eq!(new_cookie(&response), None);
}

#[tokio::test]
async fn sessions_of_a_header_are_sent_in_that_header() {
    let endpoints = [named_endpoint("a").await, named_endpoint("b").await];
    let web = upstream("web", &endpoints.each_ref().map(|endpoint| endpoint.address));
    let carrier = AffinityCarrier::Header(HeaderName::from_static("x-session"));
    let settings = AffinitySettings { carrier, absolute_timeout: Some(Duration::from_secs(3600)), ..cookie(1) };
    let server = TestServer::with_routes(vec![route(with_session(forward(vec![(1, web)]), settings))]).await;
    let first = get(&server, "").await;
    let session = first.head.lines().find(|line| line.starts_with("x-session: ")).unwrap();
    for _ in 0..10 {
        let response = get(&server, &format!("{session}\r\n")).await;
        assert_eq!(body(&response), body(&first));
        assert!(!response.head.contains("x-session") && !response.head.contains("set-cookie"), "{}", response.head);
    }
}

#[tokio::test]
async fn weights_are_kept_and_each_backend_has_its_endpoint() {
    let endpoints = [
        named_endpoint("a1").await,
        named_endpoint("a2").await,
        named_endpoint("b1").await,
        named_endpoint("b2").await,
    ];
    let address = |index: usize| endpoints[index].address;
    let backends = vec![(7, upstream("a", &[address(0), address(1)])), (3, upstream("b", &[address(2), address(3)]))];
    let server = TestServer::with_routes(vec![route(with_session(forward(backends), cookie(1)))]).await;
    let mut jar = String::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..100 {
        let response = get(&server, &format!("cookie: {jar}\r\n")).await;
        *counts.entry(body(&response)).or_default() += 1;
        jar = new_cookie(&response).unwrap_or(jar);
    }
    let shares: Vec<_> = counts.iter().map(|(name, count)| (&name[..1], *count)).collect();
    assert_eq!(shares, [("a", 70), ("b", 30)], "one endpoint of each: {counts:?}");
}

#[tokio::test]
async fn client_of_a_failed_or_removed_endpoint_gets_another_one() {
    let (dead, _reserved) = reserve_address();
    let (alive, other) = (named_endpoint("alive").await, named_endpoint("other").await);
    let web = upstream("web", &[dead]);
    let server =
        TestServer::with_routes(vec![route(with_session(forward(vec![(1, Arc::clone(&web))]), cookie(1)))]).await;
    // A session with the dead endpoint, as if it had been alive.
    let settings = Arc::new(cookie(1));
    let issued = portico::upstream::RequestAffinity::read(settings, &web, [].into_iter(), 1);
    let session = format!("s={}", issued.new_value(&web, dead, 1).unwrap().value);
    set_endpoints(&web, &[dead, alive.address], BackendTraffic::default());
    let moved = get(&server, &format!("cookie: {session}\r\n")).await;
    assert_eq!(body(&moved), "alive");
    let session = new_cookie(&moved).unwrap();
    let response = get(&server, &format!("cookie: {session}\r\n")).await;
    assert_eq!((body(&response), new_cookie(&response)), ("alive".to_owned(), None));
    set_endpoints(&web, &[other.address], BackendTraffic::default());
    let moved = get(&server, &format!("cookie: {session}\r\n")).await;
    assert_eq!(body(&moved), "other");
    assert!(new_cookie(&moved).is_some());
}

#[tokio::test]
async fn retry_moves_the_session() {
    let failing = Endpoint::responding_with("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n").await;
    let web = upstream("web", &[failing.address]);
    let action = |upstream| with_session(forward(vec![(1, upstream)]), cookie(1));
    let policy = retries(1, &[503]);
    let routes = vec![route(with_timeouts_and_retries(action(Arc::clone(&web)), policy))];
    let server = TestServer::with_routes(routes).await;
    let failed = get(&server, "").await;
    assert_eq!(failed.status, 503);
    let session = new_cookie(&failed).unwrap();
    let healthy = named_endpoint("healthy").await;
    set_endpoints(&web, &[failing.address, healthy.address], BackendTraffic::default());
    let requests = failing.log.requests().len();
    let retried = get(&server, &format!("cookie: {session}\r\n")).await;
    assert_eq!((retried.status, failing.log.requests().len()), (200, requests + 1), "the session decides first");
    let response = get(&server, &format!("cookie: {}\r\n", new_cookie(&retried).unwrap())).await;
    assert_eq!((body(&response), failing.log.requests().len()), ("healthy".to_owned(), requests + 1));
}

#[tokio::test]
async fn rule_precedes_the_sessions_of_the_service() {
    let endpoint = named_endpoint("a").await;
    let web = upstream("web", &[endpoint.address]);
    let carrier = AffinityCarrier::Header(HeaderName::from_static("x-service"));
    let affinity = Some(Arc::new(AffinitySettings { carrier, ..cookie(2) }));
    set_endpoints(&web, &[endpoint.address], BackendTraffic { affinity, ..BackendTraffic::default() });
    let action = || forward(vec![(1, Arc::clone(&web))]);
    let server = TestServer::with_routes(vec![route(action())]).await;
    let response = get(&server, "").await;
    assert!(response.head.contains("x-service: ") && new_cookie(&response).is_none(), "{}", response.head);
    server.replace_routes(vec![route(with_session(action(), cookie(1)))]);
    let response = get(&server, "").await;
    assert!(!response.head.contains("x-service: ") && new_cookie(&response).is_some(), "{}", response.head);
    server.replace_routes(vec![route(action())]);
    set_endpoints(&web, &[endpoint.address], BackendTraffic::default());
    let response = get(&server, "").await;
    assert!(!response.head.contains("x-service: ") && new_cookie(&response).is_none(), "{}", response.head);
}

#[tokio::test]
async fn cookies_are_secure_if_the_client_uses_https() {
    let endpoint = named_endpoint("a").await;
    let web = upstream("web", &[endpoint.address]);
    let options = Options { trusted: vec!["127.0.0.1/32"], ..Options::default() };
    let routes = vec![route(with_session(forward(vec![(1, web)]), cookie(1)))];
    let server = TestServer::with_options(options, routes).await;
    for (headers, is_secure) in [("", false), ("x-forwarded-proto: https\r\n", true)] {
        let response = get(&server, headers).await;
        let cookie = response.head.lines().find(|line| line.starts_with("set-cookie")).unwrap();
        let expected = if is_secure { "; SameSite=Strict; Secure" } else { "; SameSite=Strict" };
        assert!(cookie.ends_with(expected), "{cookie}");
    }
}

/// A load balancer with TLS in front need not be trusted: browsers would drop these cookies without `Secure`.
#[tokio::test]
async fn cookies_that_browsers_keep_only_if_secure_are_secure_over_plain_http() {
    let endpoint = named_endpoint("a").await;
    let web = upstream("web", &[endpoint.address]);
    for (name, same_site, is_secure) in [
        ("a", SameSite::None, true),
        ("__Host-a", SameSite::Strict, true),
        ("__Secure-a", SameSite::Lax, true),
        ("a", SameSite::Lax, false),
    ] {
        let set_cookie = SetCookie::new(name, "/", None, same_site);
        let carrier = AffinityCarrier::Cookie { cookie: set_cookie, is_permanent: false };
        let settings = AffinitySettings { carrier, ..cookie(1) };
        let action = with_session(forward(vec![(1, Arc::clone(&web))]), settings);
        let response = get(&TestServer::with_routes(vec![route(action)]).await, "").await;
        assert_eq!(response.head.contains("; Secure"), is_secure, "{name} {same_site:?}: {}", response.head);
    }
}

/// Clients keep one of two cookies with a name: they lose their session, or the one of the application.
#[tokio::test]
async fn cookies_of_endpoints_with_the_name_of_the_session_are_reported() {
    let response = "HTTP/1.1 200 OK\r\nset-cookie: JSESSIONID=1; Path=/\r\ncontent-length: 0\r\n\r\n";
    let endpoint = Endpoint::responding_with(response).await;
    for (name, is_reported) in [("JSESSIONID", true), ("PORTICOSESSION", false)] {
        let web = upstream("web", &[endpoint.address]);
        let set_cookie = SetCookie::new(name, "/", None, SameSite::Strict);
        let carrier = AffinityCarrier::Cookie { cookie: set_cookie, is_permanent: false };
        let settings = AffinitySettings { carrier, ..cookie(1) };
        let action = with_session(forward(vec![(1, Arc::clone(&web))]), settings);
        let response = get(&TestServer::with_routes(vec![route(action)]).await, "").await;
        assert_eq!(response.head.matches("set-cookie: ").count(), 2, "{}", response.head);
        // A Service has one warning in a minute.
        assert_eq!(!web.should_warn(), is_reported, "{name}");
    }
}

#[tokio::test]
async fn stripped_sessions_are_not_sent_to_endpoints() {
    let endpoints = [named_endpoint("a").await, named_endpoint("b").await];
    let addresses = endpoints.each_ref().map(|endpoint| endpoint.address);
    let header = AffinityCarrier::Header(HeaderName::from_static("x-session"));
    for carrier in [cookie(1).carrier, header] {
        let settings = AffinitySettings { carrier, strip: true, ..cookie(1) };
        let action = with_session(forward(vec![(1, upstream("web", &addresses))]), settings);
        let server = TestServer::with_routes(vec![route(action)]).await;
        let first = get(&server, "").await;
        let session = match new_cookie(&first) {
            Some(cookie) => format!("cookie: a=1; {cookie}; b=2\r\ncookie: s=forged\r\n"),
            None => format!("{}\r\n", first.head.lines().find(|line| line.starts_with("x-session")).unwrap()),
        };
        for _ in 0..4 {
            assert_eq!(body(&get(&server, &session).await), body(&first));
        }
    }
    let requests: Vec<_> = endpoints.iter().flat_map(|endpoint| endpoint.log.requests()).collect();
    assert_eq!(requests.iter().filter(|request| request.contains("cookie: a=1; b=2\r\n")).count(), 4, "{requests:?}");
    assert!(requests.iter().all(|request| !request.contains("s=") && !request.contains("x-session")), "{requests:?}");
}

/// Browsers keep a renewed cookie no longer than its session lasts.
#[tokio::test]
async fn renewed_permanent_cookies_have_the_rest_of_their_lifetime() {
    let endpoint = named_endpoint("a").await;
    let set_cookie = SetCookie::new("s", "/", None, SameSite::Strict);
    let carrier = AffinityCarrier::Cookie { cookie: set_cookie, is_permanent: true };
    let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
    let (absolute_timeout, idle_timeout) = (Some(hour), Some(10 * minute));
    let settings = AffinitySettings { carrier, absolute_timeout, idle_timeout, ..cookie(1) };
    let web = upstream("web", &[endpoint.address]);
    let action = with_session(forward(vec![(1, Arc::clone(&web))]), settings.clone());
    let server = TestServer::with_routes(vec![route(action)]).await;
    let max_age = |response: &TestResponse| -> Option<u64> {
        let cookie = response.head.lines().find_map(|line| line.strip_prefix("set-cookie: "))?;
        cookie.split("; ").find_map(|attribute| attribute.strip_prefix("Max-Age="))?.parse().ok()
    };
    let first = get(&server, "").await;
    assert_eq!(max_age(&first), Some(3600), "{}", first.head);
    // A session that began five minutes ago, since which it was not renewed.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let began = u32::try_from(now - 300).unwrap();
    let issued = portico::upstream::RequestAffinity::read(Arc::new(settings), &web, [].into_iter(), began);
    let session = issued.new_value(&web, endpoint.address, began).unwrap().value;
    let renewed = get(&server, &format!("cookie: s={session}\r\n")).await;
    let rest = max_age(&renewed).unwrap();
    assert!((3_200..=3_300).contains(&rest), "{}", renewed.head);
}
