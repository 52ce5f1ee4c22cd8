//! What a proxy in front of Portico reports about clients: which of it counts, whatever the clients have sent, and that
//! plugins, redirects, logs and endpoints agree about it. The heads are those that HAProxy and nginx send.

use http::StatusCode;
use portico::compile::kong::rule_options;
use portico::plugin_api::{AnyPluginKind, PluginState};
use portico::plugin_chain::testing::chain_with;
use portico::plugins::REGISTRY;
use portico::snapshot::redirect::RedirectAction;
use portico::snapshot::rule::Action;
use serde_json::{Value, json};

use crate::harness::{
    Endpoint, Options, Route, TestServer, forward, header, reserve_address, route, snapshot, upstream,
};
use crate::http_log::loopback_services;

const TRUSTED: &str = "127.0.0.0/8";
const UNTRUSTED: &str = "192.0.2.0/24";

/// A proxy whose route has these plugins. `is_kong`: with the forwarding headers of the dialect `kong`.
async fn server(trusted: &'static str, plugins: &[(&str, Value)], action: Action, is_kong: bool) -> TestServer {
    let plugins: Vec<(&dyn AnyPluginKind, Value)> =
        plugins.iter().map(|(name, config)| (REGISTRY.find(name).unwrap(), config.clone())).collect();
    let build = || chain_with(&plugins, &PluginState::default(), &loopback_services());
    let chain = (!plugins.is_empty()).then(build);
    let options = is_kong.then(|| Box::new(rule_options::defaults()));
    let route = Route { plugins: chain, options, ..route(action) };
    let (address, reserved) = reserve_address();
    let options = Options { trusted: vec![trusted], ..Options::default() };
    let server = TestServer::start(options, address, reserved, snapshot(address, vec![route]));
    server.proxy.reconcile().await;
    server
}

fn to(endpoint: &Endpoint) -> Action {
    forward(vec![(1, upstream("web", &[endpoint.address]))])
}

/// The head that HAProxy sends with `option forwardfor`: the client's fields, then that of HAProxy.
fn by_haproxy(fields_of_client: &str, address: &str) -> String {
    format!("GET /page HTTP/1.1\r\nhost: shop.example\r\n{fields_of_client}x-forwarded-for: {address}\r\n\r\n")
}

/// The head that nginx sends with `X-Forwarded-For $proxy_add_x_forwarded_for` and `Connection $http_connection`.
fn by_nginx(connection: &str, fields_of_client: &str, address: &str) -> String {
    format!(
        "GET /page HTTP/1.1\r\nX-Forwarded-For: {address}\r\nHost: shop.example\r\nConnection: {connection}\r\n\
         {fields_of_client}\r\n"
    )
}

#[tokio::test]
async fn clients_behind_a_proxy_cannot_choose_their_address_with_connection() {
    let client = "203.0.113.7";
    let names = "close, X-Forwarded-For, X-Real-IP";
    let forged = "X-Real-IP: 10.1.2.3\r\n";
    let heads = [
        by_haproxy("", client),
        by_haproxy("connection: close, X-Forwarded-For\r\n", client),
        by_haproxy(&format!("connection: {names}\r\n{}", forged.to_lowercase()), client),
        by_haproxy(&format!("connection: close\r\nconnection: x-FORWARDED-for\r\n{forged}"), client),
        by_nginx("close, X-Forwarded-For", "", client),
        by_nginx(names, forged, client),
        by_nginx("X-Forwarded-For, X-Forwarded-Proto, upgrade", forged, client),
    ];
    for is_kong in [false, true] {
        let endpoint = Endpoint::ok().await;
        let restricted = |config: Value| vec![("ip-restriction", config)];
        let denying = server(TRUSTED, &restricted(json!({"deny": ["203.0.113.7"]})), to(&endpoint), is_kong).await;
        let allowing = server(TRUSTED, &restricted(json!({"allow": ["10.0.0.0/8"]})), to(&endpoint), is_kong).await;
        for head in &heads {
            assert_eq!(denying.request(head).await.status, 403, "{head}");
            assert_eq!(allowing.request(head).await.status, 403, "{head}");
        }
        assert_eq!(endpoint.log.requests().len(), 0);
        let open = server(TRUSTED, &[], to(&endpoint), is_kong).await;
        for head in &heads {
            assert_eq!(open.request(head).await.status, 200, "{head}");
            let received = endpoint.log.requests().pop().unwrap();
            assert_eq!(header(&received, "x-forwarded-for"), Some("203.0.113.7, 127.0.0.1"), "{head}: {received}");
            if is_kong {
                assert_eq!(header(&received, "x-real-ip"), Some(client), "{head}: {received}");
            }
        }
    }
}

/// A client on the machine of the proxy, or whose packets get its address.
#[tokio::test]
async fn clients_with_the_address_of_the_proxy_cannot_choose_another_one() {
    let endpoint = Endpoint::ok().await;
    // What Portico itself adds to the fields of the proxy is no report about the client.
    for is_kong in [false, true] {
        let config = json!({"allow": ["10.0.0.0/8"]});
        let server = server(TRUSTED, &[("ip-restriction", config)], to(&endpoint), is_kong).await;
        for head in [
            by_haproxy("x-real-ip: 10.1.2.3\r\n", "127.0.0.1"),
            by_nginx("close", "X-Real-IP: 10.1.2.3\r\n", "127.0.0.1"),
            by_nginx("close, X-Forwarded-For", "X-Real-IP: 10.1.2.3\r\n", "127.0.0.1"),
            by_haproxy("x-forwarded-for: 127.0.0.1\r\nx-real-ip: 10.1.2.3\r\n", "127.0.0.1"),
        ] {
            assert_eq!(server.request(&head).await.status, 403, "{head}");
        }
        // A proxy that sends nothing else.
        let head = "GET / HTTP/1.1\r\nhost: shop.example\r\nx-real-ip: 10.1.2.3\r\n\r\n";
        assert_eq!(server.request(head).await.status, 200, "{is_kong}");
    }
}

/// What a server that decides about requests, a log, a redirect and the endpoint learn of a request.
#[derive(Debug, PartialEq, Eq)]
struct Learned {
    /// `X-Forwarded-Proto`, `-Host` and `-Port` of forward-auth.
    decided: [String; 3],
    /// `X-Original-URL` of forward-auth.
    url: String,
    logged_url: String,
    logged_address: String,
    location: String,
    /// `X-Forwarded-Proto`, `-Host` and `-Port`.
    forwarded: [String; 3],
}

struct Observers {
    forwarding: TestServer,
    redirecting: TestServer,
    auth: Endpoint,
    logs: Endpoint,
    endpoint: Endpoint,
}

impl Observers {
    async fn start(trusted: &'static str) -> Self {
        let accepts = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let (auth, logs) = (Endpoint::responding_with(accepts).await, Endpoint::responding_with(accepts).await);
        let endpoint = Endpoint::ok().await;
        let plugins = [
            ("forward-auth", json!({"address": format!("http://{}/", auth.address)})),
            ("http-log", json!({"http_endpoint": format!("http://{}/", logs.address), "queue": {"max_batch_size": 1}})),
        ];
        let redirect = RedirectAction::new(StatusCode::FOUND);
        Observers {
            forwarding: server(trusted, &plugins, to(&endpoint), false).await,
            redirecting: server(trusted, &[], Action::Redirect(redirect), false).await,
            auth,
            logs,
            endpoint,
        }
    }

    async fn learn(&self, head: &str) -> Learned {
        let number = self.logs.log.requests().len();
        assert_eq!(self.forwarding.request(head).await.status, 200, "{head}");
        let redirect = self.redirecting.request(head).await;
        self.logs.log.wait_for("logs", |log| log.requests().len() > number).await;
        let logged = self.logs.log.requests().pop().unwrap();
        let logged: Value = serde_json::from_str(logged.split_once("\r\n\r\n").unwrap().1).unwrap();
        let of = |request: &str| {
            let value = |name| header(request, name).unwrap_or("-").to_owned();
            [value("x-forwarded-proto"), value("x-forwarded-host"), value("x-forwarded-port")]
        };
        let decided = self.auth.log.requests().pop().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Learned {
            decided: of(&decided),
            url: header(&decided, "x-original-url").unwrap().to_owned(),
            logged_url: text(&logged["request"]["url"]),
            logged_address: text(&logged["client_ip"]),
            location: redirect.header("location").unwrap().to_owned(),
            forwarded: of(&self.endpoint.log.requests().pop().unwrap()),
        }
    }
}

#[tokio::test]
async fn everything_uses_the_scheme_host_and_port_that_the_client_used() {
    let reports = "x-forwarded-for: 203.0.113.7\r\nx-forwarded-proto: https\r\n";
    let head = |host: &str, fields: &str| format!("GET /a?b HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n");
    let learned = |[scheme, host, port]: [&str; 3], origin: &str, logged: &str, address: &str| Learned {
        decided: [scheme, host, port].map(str::to_owned),
        url: format!("{origin}/a?b"),
        logged_url: format!("{logged}/a?b"),
        logged_address: address.to_owned(),
        location: format!("{}/a?b", origin.replace(":24000", "")),
        forwarded: [scheme, host, port].map(str::to_owned),
    };
    let client = "203.0.113.7";
    let trusting = Observers::start(TRUSTED).await;
    for (host, fields, expected) in [
        // The proxy reports everything.
        (
            "internal.svc:24000",
            format!("{reports}x-forwarded-host: shop.example\r\nx-forwarded-port: 443\r\n"),
            learned(["https", "shop.example", "443"], "https://shop.example", "https://shop.example:443", client),
        ),
        // Also if the client names it in `Connection`.
        (
            "internal.svc:24000",
            format!(
                "connection: close, x-forwarded-proto, x-forwarded-host, x-forwarded-port, x-forwarded-for\r\n\
                 {reports}x-forwarded-host: shop.example\r\nx-forwarded-port: 443\r\n"
            ),
            learned(["https", "shop.example", "443"], "https://shop.example", "https://shop.example:443", client),
        ),
        // The port apart from the host.
        (
            "internal.svc",
            format!("{reports}x-forwarded-host: shop.example\r\nx-forwarded-port: 8443\r\n"),
            learned(
                ["https", "shop.example", "8443"],
                "https://shop.example:8443",
                "https://shop.example:8443",
                client,
            ),
        ),
        // The scheme alone: its port is not that of the listener.
        (
            "shop.example",
            reports.to_owned(),
            learned(["https", "shop.example", "443"], "https://shop.example", "https://shop.example:443", client),
        ),
        // Nothing.
        (
            "shop.example",
            String::new(),
            learned(["http", "shop.example", "80"], "http://shop.example", "http://shop.example:80", "127.0.0.1"),
        ),
    ] {
        assert_eq!(trusting.learn(&head(host, &fields)).await, expected, "{fields}");
    }
    let untrusting = Observers::start(UNTRUSTED).await;
    let fields = format!("{reports}x-forwarded-host: evil.example\r\nx-forwarded-port: 443\r\nx-real-ip: 10.1.2.3\r\n");
    assert_eq!(
        untrusting.learn(&head("shop.example:24000", &fields)).await,
        Learned {
            location: "http://shop.example/a?b".to_owned(),
            ..learned(
                ["http", "shop.example:24000", "80"],
                "http://shop.example:24000",
                "http://shop.example:24000",
                "127.0.0.1",
            )
        }
    );
}

/// What means the request as it has reached Portico keeps its host and port.
#[tokio::test]
async fn echoes_have_the_host_that_has_reached_portico() {
    let endpoint = Endpoint::ok().await;
    let server = server(TRUSTED, &[("request-termination", json!({"echo": true}))], to(&endpoint), false).await;
    let reports = "x-forwarded-host: shop.example\r\nx-forwarded-port: 8443\r\n";
    let response = server.request(&format!("GET / HTTP/1.1\r\nhost: internal.svc:24000\r\n{reports}\r\n")).await;
    let echo: Value = serde_json::from_str(&response.text()).unwrap();
    assert_eq!((&echo["request"]["host"], &echo["request"]["port"]), (&json!("internal.svc"), &json!(80)), "{echo}");
}
