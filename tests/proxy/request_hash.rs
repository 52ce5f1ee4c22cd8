//! Load balancing by hash: what is hashed of a request, and the cookies that are generated for it.
//!
//! Each upstream has a near and a far endpoint, which get half of the hashes each: a third endpoint, which is near as
//! well, is ejected.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Request};
use portico::snapshot::path_edit::PathEdit;
use portico::snapshot::rule::{Filters, HeaderEdits, Rewrite};
use portico::upstream::settings::{
    Balancing, BalancingAlgorithm, CombineKeys, HashKey, HashSource, HashTable, Locality, RequestHash, SameSite,
    SetCookie,
};
use portico::upstream::{EndpointAddress, Endpoints, Outcome, OutcomeClass, Upstream};
use socket2::Socket;

use crate::h2::Http2Client;
use crate::harness::{Endpoint, Options, Route, TestResponse, TestServer, forward, reserve_address, route, upstream};
use crate::mirror::mirror;

/// Two endpoints whose responses say which one it is.
struct Halves {
    near: Endpoint,
    far: Endpoint,
    /// An address at which nothing listens, with the socket that reserves it.
    ejected: (SocketAddr, Socket),
}

impl Halves {
    async fn new() -> Halves {
        let named = |name: &str| {
            let length = name.len();
            Endpoint::responding_with(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}"))
        };
        Halves { near: named("near").await, far: named("far").await, ejected: reserve_address() }
    }

    /// An upstream that divides requests among the endpoints by these keys.
    fn upstream(&self, keys: RequestHash) -> Arc<Upstream> {
        let ejected = self.ejected.0;
        let web = upstream("web", &[]);
        let mut addresses = vec![self.near.address, self.far.address, ejected];
        addresses.sort();
        let level = |address: &SocketAddr| (*address, u8::from(*address == self.far.address));
        web.set_endpoints(Endpoints {
            levels: addresses.iter().map(level).collect(),
            addresses: addresses.into_iter().map(EndpointAddress::Ip).collect(),
            balance: Balancing {
                algorithm: BalancingAlgorithm::ConsistentHash(HashTable::Maglev { table_size: 65_537 }),
                hash: Some(Arc::new(keys)),
                locality: Locality { overprovisioning_percent: 100, ..Locality::default() },
                ..Balancing::default()
            },
            ..Endpoints::default()
        });
        web.report(ejected, &Outcome::of(OutcomeClass::ConnectFailed));
        web
    }
}

fn first(sources: &[HashSource]) -> RequestHash {
    let keys = sources.iter().map(|source| HashKey { source: source.clone(), regex: None }).collect();
    RequestHash { keys, combine: CombineKeys::First, bounded_load_percent: None, subset_size: None }
}

fn header(name: &'static str) -> HashSource {
    HashSource::Header(HeaderName::from_static(name))
}

fn cookie(max_age: Option<Duration>) -> HashSource {
    HashSource::Cookie(SetCookie::new("c", "/", max_age, SameSite::Lax))
}

async fn server(web: &Arc<Upstream>) -> TestServer {
    let options = Options { trusted: vec!["127.0.0.1/32"], ..Options::default() };
    TestServer::with_options(options, vec![route(forward(vec![(1, Arc::clone(web))]))]).await
}

async fn request(server: &TestServer, target: &str, fields: &str) -> TestResponse {
    let host = if fields.contains("host:") { "" } else { "host: a\r\n" };
    server.request(&format!("GET {target} HTTP/1.1\r\n{host}{fields}\r\n")).await
}

fn cookies_of(response: &TestResponse) -> Vec<String> {
    response.head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).map(str::to_owned).collect()
}

/// Sends requests with many values, two of each. Those with the same value must go to one endpoint, and those with
/// different ones to both.
async fn check_divided(server: &TestServer, what: &str, request_of: impl Fn(usize) -> (String, String)) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for value in 0..24 {
        let (target, fields) = request_of(value);
        let one = request(server, &target, &fields).await;
        let another = request(server, &target, &fields).await;
        assert_eq!((one.status, one.text()), (200, another.text()), "{what}: {target} {fields}");
        *counts.entry(one.text()).or_default() += 1;
    }
    assert!(counts.len() == 2 && counts.values().all(|count| *count >= 3), "{what}: {counts:?}");
}

#[tokio::test]
async fn requests_with_one_value_go_to_one_endpoint() {
    type RequestOf = fn(usize) -> (String, String);
    let inputs: [(HashSource, RequestOf); 6] = [
        (header("x-user"), |value| {
            (format!("/{value}?q={value}"), "x-user: ann\r\n".replace("ann", &value.to_string()))
        }),
        (cookie(None), |value| ("/".to_owned(), format!("cookie: a=b; c={value}\r\n"))),
        (HashSource::Query("user".into()), |value| (format!("/?x=1&user={value}"), String::new())),
        // Normalized first.
        (HashSource::Path, |value| (format!("/x/../{value}"), String::new())),
        (HashSource::Host, |value| ("/".to_owned(), format!("host: H{value}.example\r\n"))),
        (HashSource::ClientIp { ipv6_prefix: 64 }, |value| {
            ("/".to_owned(), format!("x-forwarded-for: 203.0.113.9, 192.0.2.{value}\r\n"))
        }),
    ];
    let halves = Halves::new().await;
    for (source, request_of) in inputs {
        let server = server(&halves.upstream(first(std::slice::from_ref(&source)))).await;
        check_divided(&server, &format!("{source:?}"), request_of).await;
    }
}

/// The order of HTTPRoutes keeps the expressions of all paths in one automaton, which has no groups.
#[tokio::test]
async fn named_groups_of_path_expressions_are_hashed() {
    let halves = Halves::new().await;
    let web = halves.upstream(first(&[HashSource::UriCapture("id".into())]));
    let by_user = Route { path: r"~/users/(?<id>[0-9]+)(/.*)?", ..route(forward(vec![(1, web)])) };
    let server = TestServer::with_routes(vec![by_user]).await;
    check_divided(&server, "named group", |value| (format!("/users/{value}"), String::new())).await;
    for target in ["/users/7/cart", "/users/./7/orders?id=8", "/users/7/"] {
        let (one, another) = (request(&server, "/users/7", "").await, request(&server, target, "").await);
        assert_eq!((one.status, one.text()), (another.status, another.text()), "{target}");
    }
}

#[tokio::test]
async fn equivalent_requests_go_to_one_endpoint() {
    let halves = Halves::new().await;
    let server_of = async |source| server(&halves.upstream(first(&[source]))).await;
    for (source, requests) in [
        (HashSource::Path, [("/a/1", ""), ("/b/../a/./1?x=2", "")]),
        (HashSource::Host, [("/", "host: shop.example\r\n"), ("/", "host: SHOP.example:8080\r\n")]),
        (header("x-user"), [("/1", "x-user: ann\r\n"), ("/2", "X-USER:   ann \r\nx-user: bob\r\n")]),
        (
            HashSource::ClientIp { ipv6_prefix: 64 },
            [("/", "x-forwarded-for: 2001:db8::1\r\n"), ("/", "x-forwarded-for: 10.0.0.1, 2001:db8::ffff\r\n")],
        ),
    ] {
        let server = server_of(source.clone()).await;
        let [one, another] = requests;
        let one = request(&server, one.0, one.1).await;
        let another = request(&server, another.0, another.1).await;
        assert_eq!(one.text(), another.text(), "{source:?}");
    }
}

/// Otherwise all requests of the rule would have one value.
#[tokio::test]
async fn values_are_those_before_the_filters_of_the_rule() {
    let halves = Halves::new().await;
    let filters = || Filters {
        request_headers: Some(HeaderEdits { remove: vec!["x-user".parse().unwrap()], ..HeaderEdits::default() }),
        rewrite: Some(Rewrite { host: Some("b".parse().unwrap()), path: Some(PathEdit::Full("/same".into())) }),
        ..Filters::default()
    };
    for source in [header("x-user"), header("host"), HashSource::Path, HashSource::Host] {
        let action = forward(vec![(1, halves.upstream(first(std::slice::from_ref(&source))))]);
        let server = TestServer::with_routes(vec![Route { filters: filters(), ..route(action) }]).await;
        let request_of = |value: usize| (format!("/{value}"), format!("host: h{value}\r\nx-user: {value}\r\n"));
        check_divided(&server, &format!("{source:?}"), request_of).await;
    }
    let requests = halves.near.log.requests();
    assert!(requests.iter().all(|request| request.starts_with("GET /same ") && !request.contains("x-user")));
}

#[tokio::test]
async fn first_key_that_the_request_has_counts() {
    let halves = Halves::new().await;
    let server = server(&halves.upstream(first(&[header("x-user"), HashSource::Query("user".into())]))).await;
    check_divided(&server, "query", |value| (format!("/?user={value}"), String::new())).await;
    check_divided(&server, "header", |value| (format!("/?user={}", value % 2), format!("x-user: {value}\r\n"))).await;
}

#[tokio::test]
async fn requests_without_any_key_are_divided_among_the_endpoints() {
    let halves = Halves::new().await;
    let server = server(&halves.upstream(first(&[header("x-user")]))).await;
    for number in 0..64 {
        request(&server, "/", if number % 2 == 0 { "" } else { "x-user:\r\n" }).await;
    }
    let counts = [&halves.near, &halves.far].map(|endpoint| endpoint.log.requests().len());
    assert!(counts.iter().all(|count| *count >= 8), "{counts:?}");
}

#[tokio::test]
async fn cookie_is_generated_for_clients_without_one() {
    let halves = Halves::new().await;
    let server = server(&halves.upstream(first(&[header("x-user"), cookie(Some(Duration::from_secs(3600)))]))).await;
    let mut names = BTreeMap::new();
    for _ in 0..24 {
        let response = request(&server, "/", "").await;
        let cookies = cookies_of(&response);
        let [cookie] = &cookies[..] else { panic!("{cookies:?}") };
        let (value, attributes) = cookie.split_once(';').unwrap();
        assert_eq!(attributes, " Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
        assert_eq!(value.len(), "c=".len() + 32, "128 bits");
        let next = request(&server, "/", &format!("cookie: {value}\r\n")).await;
        assert_eq!((next.text(), cookies_of(&next).len()), (response.text(), 0));
        *names.entry(response.text()).or_insert(0) += 1;
    }
    assert!(names.len() == 2 && names.values().all(|count| *count >= 3), "{names:?}");
    assert!(cookies_of(&request(&server, "/", "x-user: ann\r\n").await).is_empty(), "an earlier key counts");
    let secure = request(&server, "/", "x-forwarded-proto: https\r\n").await;
    assert!(cookies_of(&secure)[0].ends_with("; SameSite=Lax; Secure"), "{}", secure.head);
}

#[tokio::test]
async fn session_cookies_have_no_age() {
    let halves = Halves::new().await;
    let server = server(&halves.upstream(first(&[cookie(None)]))).await;
    let response = request(&server, "/", "cookie: c=; cc=1\r\n").await;
    assert!(cookies_of(&response)[0].ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{}", response.head);
}

/// Clients keep one of two cookies with a name.
#[tokio::test]
async fn cookies_of_endpoints_with_the_name_of_a_generated_one_are_reported() {
    for (name, is_reported) in [("c", true), ("d", false)] {
        let response = format!("HTTP/1.1 200 OK\r\nset-cookie: {name}=1; Path=/\r\ncontent-length: 0\r\n\r\n");
        let endpoint = Endpoint::responding_with(response).await;
        let web = upstream("web", &[]);
        web.set_endpoints(Endpoints {
            addresses: vec![EndpointAddress::Ip(endpoint.address)],
            balance: Balancing {
                algorithm: BalancingAlgorithm::ConsistentHash(HashTable::Maglev { table_size: 65_537 }),
                hash: Some(Arc::new(first(&[cookie(None)]))),
                ..Balancing::default()
            },
            ..Endpoints::default()
        });
        let response = request(&server(&web).await, "/", "").await;
        assert_eq!(cookies_of(&response).len(), 2, "{}", response.head);
        // A Service has one warning in a minute.
        assert_eq!(!web.should_warn(), is_reported, "{name}");
    }
}

#[tokio::test]
async fn http2_requests_are_hashed_like_others() {
    let halves = Halves::new().await;
    let server = server(&halves.upstream(first(&[header("x-user"), HashSource::Host, HashSource::Path]))).await;
    let client = Http2Client::connect(server.address).await;
    for value in 0..24 {
        let user = format!("user-{value}");
        let over_http1 = request(&server, "/", &format!("x-user: {user}\r\n")).await;
        let over_http2 = Request::get("http://a.example/x").header("x-user", &user).body(()).unwrap();
        let over_http2 = client.request(over_http2).await.unwrap();
        assert_eq!(String::from_utf8(over_http2.body).unwrap(), over_http1.text(), "{user}");
    }
}

#[tokio::test]
async fn hostile_values_are_hashed() {
    let halves = Halves::new().await;
    let keys = [header("x-user"), cookie(None), HashSource::Query("user".into())];
    let server = server(&halves.upstream(first(&keys))).await;
    let long = "a".repeat(6_000);
    for fields in [
        format!("x-user: {long}\r\n"),
        "x-user: \u{fffd}\u{e9}\r\n".to_owned(),
        format!("cookie: {};c={long}\r\n", "c=;".repeat(500)),
        "cookie: c\r\ncookie: =\r\ncookie: ;;;\r\n".to_owned(),
        "x-forwarded-for: nobody\r\n".to_owned(),
    ] {
        for target in ["/?user=%ff%zz&&=&user", "/?%75ser=1", "/?user=a=b"] {
            assert_eq!(request(&server, target, &fields).await.status, 200, "{target} {fields}");
        }
    }
}

/// The key is that of the client's request, and the mirror generates no cookie.
#[tokio::test]
async fn mirrors_are_chosen_by_the_request_of_the_client() {
    let (original, mirrors) = (Endpoint::ok().await, Halves::new().await);
    let mirrored = mirrors.upstream(first(&[cookie(None), header("x-user")]));
    let filters = Filters {
        request_headers: Some(HeaderEdits { remove: vec!["x-user".parse().unwrap()], ..HeaderEdits::default() }),
        mirrors: vec![mirror(mirrored, 1, 1)].into(),
        ..Filters::default()
    };
    let action = forward(vec![(1, upstream("original", &[original.address]))]);
    let server = TestServer::with_routes(vec![Route { filters, ..route(action) }]).await;
    let copies = |endpoint: &Endpoint| endpoint.log.requests().len();
    let mut users = [0, 0];
    for user in 0..24 {
        let before = [copies(&mirrors.near), copies(&mirrors.far)];
        for _ in 0..2 {
            let response = request(&server, "/", &format!("x-user: {user}\r\n")).await;
            assert!(cookies_of(&response).is_empty(), "{}", response.head);
        }
        let changed = async |endpoint: &Endpoint, before: usize| {
            endpoint.log.wait_for("both copies", |log| log.requests().len() == before + 2).await;
        };
        let index = tokio::select! {
            () = changed(&mirrors.near, before[0]) => 0,
            () = changed(&mirrors.far, before[1]) => 1,
        };
        users[index] += 1;
    }
    assert!(users.iter().all(|count| *count >= 3), "{users:?}");
}
