//! The plugin openid-connect on the wire, with a provider that accepts only correct requests: logins and the attacks
//! against them, sessions, logouts, and clients with tokens or passwords.

mod attacks;
mod browser;
mod forgeries;
mod introspection;
mod issuers;
mod limits;
mod logouts;
mod provider;
mod reported_hosts;
mod slow_redis;
mod step_up;
mod stored;
mod two_providers;
mod vendors;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portico::plugin_api::{AnyPluginKind, ConsumerDirectory, PluginState};
use portico::plugin_chain::testing::{chain_with, consumer};
use portico::plugins::REGISTRY;
use portico::snapshot::Snapshot;
use serde_json::{Value, json};

use self::browser::Browser;
use self::provider::{Behavior, CLIENT, Provider, SECRET, SigningKey, base_claims, form, with};
use crate::harness::{
    Endpoint, Options, Route, TestResponse, TestServer, forward, header, refusing_address, reserve_address, route,
    snapshot, upstream,
};
use crate::http_log::loopback_services;

const SESSION_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A proxy whose route has the plugin, and the endpoint behind it. The only consumer is `anna`.
struct Site {
    server: TestServer,
    endpoint: Endpoint,
}

impl Site {
    async fn start(provider: &Provider, config: Value) -> Site {
        Site::with_plugins(provider, config, &[]).await
    }

    async fn with_plugins(provider: &Provider, config: Value, others: &[(&str, Value)]) -> Site {
        Site::with_state(provider, config, others, &PluginState::default()).await
    }

    async fn with_state(provider: &Provider, config: Value, others: &[(&str, Value)], state: &PluginState) -> Site {
        let config = with(
            json!({
                "issuer": provider.issuer, "client_id": [CLIENT], "client_secret": [SECRET],
                "redirect_uri": ["http://shop.example/callback"], "session_secret": SESSION_SECRET,
                "logout_uri_suffix": "/logout",
            }),
            &config,
        );
        let find = |name: &str| REGISTRY.find(name).unwrap();
        let others = others.iter().map(|(name, config)| (find(name), config.clone()));
        let plugins: Vec<(&dyn AnyPluginKind, Value)> =
            [(find("openid-connect"), config)].into_iter().chain(others).collect();
        let chain = chain_with(&plugins, state, &loopback_services());
        let endpoint = Endpoint::ok().await;
        let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
        let (address, reserved) = reserve_address();
        let mut consumers = ConsumerDirectory::default();
        consumers.add(&consumer("anna", &[]));
        let routes = vec![Route { plugins: Some(chain), ..route(action) }];
        let snapshot = Snapshot { consumers: Arc::new(consumers), ..snapshot(address, routes) };
        let server = TestServer::start(Options::default(), address, reserved, snapshot);
        server.proxy.reconcile().await;
        Site { server, endpoint }
    }

    async fn get(&self, browser: &mut Browser, target: &str) -> TestResponse {
        browser.get(self.server.address, target).await
    }

    /// Requests a page, and returns the location of the login.
    async fn begin_login(&self, browser: &mut Browser, target: &str) -> String {
        let response = self.get(browser, target).await;
        assert_eq!(response.status, 302, "{}", response.text());
        assert_eq!(response.header("cache-control"), Some("no-store"));
        response.header("location").unwrap().to_owned()
    }

    /// A browser in which anna has logged in.
    async fn logged_in(&self, provider: &Provider) -> Browser {
        let mut browser = Browser::default();
        let location = self.begin_login(&mut browser, "/").await;
        let response = self.get(&mut browser, &provider.log_in(&location)).await;
        assert_eq!(response.status, 302, "{}", response.text());
        browser
    }

    /// Sends a request with these header lines.
    async fn send(&self, headers: &str) -> TestResponse {
        Browser::default().send(self.server.address, "GET /api HTTP/1.1", headers, "").await
    }

    fn last_request(&self) -> String {
        self.endpoint.log.requests().pop().expect("the endpoint got a request")
    }
}

// docs/kong-compatibility.md, 5.1
#[tokio::test]
async fn users_log_in_at_the_provider() {
    let provider = Provider::start().await;
    let headers = json!({
        "consumer_claim": ["sub"], "upstream_headers_claims": ["groups", "sid"],
        "upstream_headers_names": ["x-groups", "x-session"], "authorization_query_args_names": ["prompt"],
        "authorization_query_args_values": ["login"], "scopes": ["openid", "email"],
    });
    let site = Site::start(&provider, headers).await;
    let mut browser = Browser::default();
    let location = site.begin_login(&mut browser, "/page?a=b&c=%20").await;
    let query = form(location.split_once('?').unwrap().1);
    assert_eq!((&*query["scope"], &*query["prompt"]), ("openid email", "login"));
    let response = site.get(&mut browser, &provider.log_in(&location)).await;
    assert_eq!((response.status, response.header("location")), (302, Some("http://shop.example/page?a=b&c=%20")));
    assert_eq!(browser.names(), ["session"], "the cookie of the login is removed");
    assert!(site.endpoint.log.requests().is_empty(), "the endpoint gets nothing before the login");

    let spoofed = "x-consumer-username: root\r\nx_groups: root\r\nx-groups: root\r\ncookie: own=1\r\n";
    let response = browser.send(site.server.address, "GET /page?a=b HTTP/1.1", spoofed, "").await;
    assert_eq!((response.status, response.header("set-cookie")), (200, None));
    let request = site.last_request();
    assert!(request.starts_with("GET /page?a=b "), "{request}");
    let of_request = |name| header(&request, name);
    assert_eq!(of_request("x-consumer-username"), Some("anna"));
    assert_eq!(of_request("x-credential-identifier"), Some("anna"));
    assert_eq!(of_request("x-groups"), Some(r#"["admins","users"]"#));
    assert_eq!((of_request("x_groups"), of_request("x-session")), (None, Some("session-of-anna")));
    assert_eq!(of_request("cookie"), Some("own=1"), "the endpoint gets only other cookies");
    assert!(of_request("authorization").unwrap().starts_with("Bearer ey"));
}

#[tokio::test]
async fn several_tabs_log_in_at_the_same_time() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    let mut browser = Browser::default();
    let first = site.begin_login(&mut browser, "/first").await;
    let second = site.begin_login(&mut browser, "/second").await;
    for (location, page) in [(second, "/second"), (first, "/first")] {
        let response = site.get(&mut browser, &provider.log_in(&location)).await;
        let expected = format!("http://shop.example{page}");
        assert_eq!((response.status, response.header("location")), (302, Some(&*expected)));
    }
    assert_eq!(browser.names(), ["session"]);
}

#[tokio::test]
async fn another_replica_finishes_a_login() {
    let provider = Provider::start().await;
    let (first, second) = (Site::start(&provider, json!({})).await, Site::start(&provider, json!({})).await);
    let mut browser = Browser::default();
    let location = first.begin_login(&mut browser, "/").await;
    assert_eq!(second.get(&mut browser, &provider.log_in(&location)).await.status, 302);
    assert_eq!(first.get(&mut browser, "/").await.status, 200);
    let stranger = Site::start(&provider, json!({"session_secret": "another secret of 32 characters!"})).await;
    assert_eq!(stranger.get(&mut browser, "/").await.status, 302, "a session of another secret");
    let rotated = json!({"session_secret": "another", "session_former_secret": SESSION_SECRET});
    assert_eq!(Site::start(&provider, rotated).await.get(&mut browser, "/").await.status, 200);
    let other_audience = Site::start(&provider, json!({"session_audience": "other"})).await;
    assert_eq!(other_audience.get(&mut browser, "/").await.status, 302);
}

/// An attacker lets a browser open the end of a login that the attacker has begun.
#[tokio::test]
async fn only_the_browser_that_began_a_login_finishes_it() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    let (mut attacker, mut victim) = (Browser::default(), Browser::default());
    let callback = provider.log_in(&site.begin_login(&mut attacker, "/").await);
    let state = callback.split_once("&state=").unwrap().1.to_owned();
    for target in [&*callback, "/callback", "/callback?code=a", "/callback?state=a", "/callback?code=a&state="] {
        let response = site.get(&mut victim, target).await;
        assert_eq!((response.status, response.header("location")), (401, None), "{target}");
        assert!(victim.cookies.is_empty(), "{target}");
    }
    // A login of the victim does not make the attacker's response acceptable.
    site.begin_login(&mut victim, "/").await;
    assert_eq!(site.get(&mut victim, &callback).await.status, 401);
    let twice = format!("{callback}&state={state}");
    assert_eq!(site.get(&mut attacker, &twice).await.status, 401, "a parameter that occurs twice");
    assert_eq!(provider.requests("/token").len(), 0, "no code was redeemed");
    assert_eq!(site.endpoint.log.requests().len(), 0);
}

/// An attacker has a code of the victim, or injects an own one into a login of the victim.
#[tokio::test]
async fn codes_of_other_logins_are_not_accepted() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    let (mut attacker, mut victim) = (Browser::default(), Browser::default());
    let attackers = provider.log_in(&site.begin_login(&mut attacker, "/").await);
    let victims = provider.log_in(&site.begin_login(&mut victim, "/").await);
    let code = attackers.split(['=', '&']).nth(1).unwrap();
    let state = victims.split_once("&state=").unwrap().1;
    let injected = site.get(&mut victim, &format!("/callback?code={code}&state={state}")).await;
    assert_eq!(injected.status, 401, "the verifier of PKCE belongs to another login");
    assert!(!injected.text().contains("invalid_grant") && !injected.text().contains("detail"), "{}", injected.text());
    assert!(victim.cookies.is_empty(), "the login has ended, and there is no session");
    assert_eq!(site.get(&mut victim, &victims).await.status, 401, "a login is finished once");
}

#[tokio::test]
async fn invalid_id_tokens_are_not_accepted() {
    let changed = |claims: Value| Behavior { id_token_claims: claims, ..Behavior::default() };
    let behaviors = [
        ("another nonce", changed(json!({"nonce": "x"}))),
        ("no nonce", changed(json!({"nonce": null}))),
        ("another client", changed(json!({"aud": "other"}))),
        ("another party", changed(json!({"aud": [CLIENT, "other"], "azp": "other"}))),
        ("another issuer", changed(json!({"iss": "https://evil.example"}))),
        ("expired", changed(json!({"exp": 1000}))),
        ("no expiry", changed(json!({"exp": null}))),
        ("another access token", changed(json!({"at_hash": "x"}))),
        ("another key", Behavior { signs_with_other_key: true, ..Behavior::default() }),
    ];
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    for (name, behavior) in behaviors {
        provider.set(behavior);
        let mut browser = Browser::default();
        let callback = provider.log_in(&site.begin_login(&mut browser, "/").await);
        let response = site.get(&mut browser, &callback).await;
        assert_eq!(response.status, 401, "{name}");
        assert!(browser.cookies.is_empty(), "{name}: {:?}", browser.names());
    }
    provider.set(Behavior::default());
    site.logged_in(&provider).await;
}

// RFC 9207
#[tokio::test]
async fn responses_of_another_issuer_are_not_accepted() {
    let provider = Provider::with(Behavior { names_issuer: true, ..Behavior::default() }).await;
    let site = Site::start(&provider, json!({})).await;
    for change in [
        |callback: &str| callback.split("&iss=").next().unwrap().to_owned(),
        |callback: &str| format!("{}&iss=https://evil.example", callback.split("&iss=").next().unwrap()),
    ] {
        let mut browser = Browser::default();
        let callback = provider.log_in(&site.begin_login(&mut browser, "/").await);
        assert_eq!(site.get(&mut browser, &change(&callback)).await.status, 401);
    }
    assert_eq!(provider.requests("/token").len(), 0, "the code was not sent to the wrong provider");
    site.logged_in(&provider).await;
}

#[tokio::test]
async fn browsers_return_to_the_same_host_only() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    for target in ["//evil.example/a", "/%2Fevil.example", "/a?next=https://evil.example", "/%5Cevil.example"] {
        let mut browser = Browser::default();
        let location = site.begin_login(&mut browser, target).await;
        let response = site.get(&mut browser, &provider.log_in(&location)).await;
        let page = response.header("location").unwrap();
        assert!(page.starts_with("http://shop.example/"), "{target}: {page}");
    }
    let long = format!("/a?{}", "b".repeat(4000));
    let mut browser = Browser::default();
    let location = site.begin_login(&mut browser, &long).await;
    let response = site.get(&mut browser, &provider.log_in(&location)).await;
    assert_eq!(response.header("location"), Some("http://shop.example/a"), "without the query");
}

const WEBSOCKET: &str = "connection: Upgrade\r\nupgrade: websocket\r\naccept: text/html\r\n\
                         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n";

#[tokio::test]
async fn only_opening_a_page_begins_a_login() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    for (request_line, headers, status) in [
        ("GET / HTTP/1.1", "accept: text/html\r\n", 302),
        ("GET / HTTP/1.1", "accept: image/png, Application/XHTML+xml;q=0.9\r\n", 302),
        ("HEAD / HTTP/1.1", "accept: text/html\r\n", 302),
        ("GET / HTTP/1.1", "sec-fetch-mode: navigate\r\naccept: */*\r\n", 302),
        // Of scripts and of other programs.
        ("GET / HTTP/1.1", "", 401),
        ("GET / HTTP/1.1", "accept: */*\r\n", 401),
        ("GET / HTTP/1.1", "accept: text/event-stream\r\n", 401),
        ("GET / HTTP/1.1", "accept: text/html-sandboxed\r\n", 401),
        ("GET / HTTP/1.1", "accept: text/html\r\nsec-fetch-mode: cors\r\n", 401),
        ("GET / HTTP/1.1", "accept: text/html\r\nx-requested-with: XMLHttpRequest\r\n", 401),
        // Fetched in advance.
        ("GET / HTTP/1.1", "accept: text/html\r\nsec-fetch-mode: navigate\r\nsec-purpose: prefetch;prerender\r\n", 401),
        ("GET / HTTP/1.1", "accept: text/html\r\npurpose: Prefetch\r\n", 401),
        // The handshake of a WebSocket.
        ("GET / HTTP/1.1", "sec-fetch-mode: websocket\r\naccept: text/html\r\n", 401),
        ("GET / HTTP/1.1", WEBSOCKET, 401),
        ("POST / HTTP/1.1", "accept: text/html\r\n", 401),
        ("GET / HTTP/1.1", "accept: text/html\r\nauthorization: Bearer wrong\r\n", 401),
    ] {
        let response = Browser::default().send(site.server.address, request_line, headers, "").await;
        assert_eq!(response.status, status, "{request_line} {headers}");
    }
    // A login that the user has cancelled.
    let mut browser = Browser::default();
    let location = site.begin_login(&mut browser, "/").await;
    let state = form(location.split_once('?').unwrap().1)["state"].clone();
    let target = format!("/callback?error=access_denied&error_description=secret&state={state}");
    let response = site.get(&mut browser, &target).await;
    assert_eq!(response.status, 401);
    assert!(!response.text().contains("secret") && browser.cookies.is_empty());
    assert_eq!(site.endpoint.log.requests().len(), 0);
}

#[tokio::test]
async fn without_a_redirect_uri_browsers_return_to_the_page() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({"redirect_uri": []})).await;
    let mut browser = Browser::default();
    let location = site.begin_login(&mut browser, "/page?a=b").await;
    let callback = provider.log_in(&location);
    assert!(callback.starts_with("/page?code="), "{callback}");
    let response = site.get(&mut browser, &callback).await;
    assert_eq!(response.header("location"), Some("http://shop.example/page?a=b"));
    // Parameters of the application with the same names, and those of an attacker.
    assert_eq!(site.get(&mut browser, "/page?code=1&state=2").await.status, 200);
    assert_eq!(site.get(&mut Browser::default(), "/page?code=1&state=2").await.status, 401);
}

#[tokio::test]
async fn strict_cookies_work_after_the_login() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({"session_cookie_same_site": "Strict"})).await;
    let mut browser = Browser::default();
    let location = site.begin_login(&mut browser, "/?a=1&b=2").await;
    let response = site.get(&mut browser, &provider.log_in(&location)).await;
    assert_eq!((response.status, response.header("location")), (200, None));
    assert!(response.text().contains("http-equiv=refresh"), "{}", response.text());
    assert!(response.text().contains("/?a=1&amp;b=2\""), "{}", response.text());
    assert_eq!(site.get(&mut browser, "/").await.status, 200);
}

#[tokio::test]
async fn long_sessions_are_divided_between_cookies() {
    let provider = Provider::with(Behavior { padding: 5000, ..Behavior::default() }).await;
    let site = Site::start(&provider, json!({})).await;
    let mut browser = site.logged_in(&provider).await;
    assert!(browser.names().len() > 2, "{:?}", browser.names());
    assert_eq!(site.get(&mut browser, "/").await.status, 200);
    browser.cookies.pop();
    assert_eq!(site.get(&mut browser, "/").await.status, 302, "a part is missing");
    provider.set(Behavior { padding: 30_000, ..Behavior::default() });
    let mut browser = Browser::default();
    let callback = provider.log_in(&site.begin_login(&mut browser, "/").await);
    assert_eq!(site.get(&mut browser, &callback).await.status, 401, "too long for cookies");
}

#[tokio::test]
async fn expired_tokens_are_refreshed_once() {
    let provider = Provider::with(Behavior { expires_in: Some(0), ..Behavior::default() }).await;
    let site = Site::start(&provider, json!({})).await;
    let mut browser = site.logged_in(&provider).await;
    provider.set(Behavior::default());
    // The provider would end the session if a refresh token was used twice.
    let before = browser.clone();
    let mut tabs = [browser.clone(), browser.clone(), browser.clone()];
    let [first, second, third] = &mut tabs;
    let responses = tokio::join!(site.get(first, "/"), site.get(second, "/"), site.get(third, "/"));
    for response in [responses.0, responses.1, responses.2] {
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(response.header("set-cookie").unwrap().starts_with("session=1."));
    }
    assert_eq!(provider.refreshes(), 1);
    // A request with the former cookie, which another tab still has.
    browser.cookies = before.cookies;
    assert_eq!(site.get(&mut browser, "/").await.status, 200);
    assert_eq!(provider.refreshes(), 1);
}

#[tokio::test]
async fn sessions_end_when_their_tokens_are_not_refreshed() {
    let provider = Provider::with(Behavior { expires_in: Some(0), ..Behavior::default() }).await;
    let site = Site::start(&provider, json!({})).await;
    let mut browser = site.logged_in(&provider).await;
    provider.set(Behavior { refuses_refreshes: true, ..Behavior::default() });
    assert_eq!(site.get(&mut browser, "/").await.status, 302, "another login");
    // ID tokens of another user are not accepted for the session.
    provider.set(Behavior { expires_in: Some(0), ..Behavior::default() });
    let mut browser = site.logged_in(&provider).await;
    provider.set(Behavior { id_token_claims: json!({"sub": "bert"}), ..Behavior::default() });
    assert_eq!(site.get(&mut browser, "/").await.status, 302);
    provider.set(Behavior { expires_in: Some(0), ..Behavior::default() });
    let never = Site::start(&provider, json!({"refresh_tokens": false})).await;
    let mut browser = never.logged_in(&provider).await;
    assert_eq!(never.get(&mut browser, "/").await.status, 302);
    assert_eq!(site.endpoint.log.requests().len() + never.endpoint.log.requests().len(), 0);
}

#[tokio::test]
async fn logout_ends_the_session_and_revokes_its_tokens() {
    let provider = Provider::start().await;
    let config = json!({"logout_revoke": true, "logout_redirect_uri": ["http://shop.example/bye"]});
    let site = Site::start(&provider, config).await;
    let mut browser = site.logged_in(&provider).await;
    assert_eq!(site.get(&mut browser, "/logout").await.status, 200, "GET is not one of the methods");
    let response = browser.send(site.server.address, "POST /logout HTTP/1.1", "", "").await;
    assert_eq!(response.status, 303);
    let (endpoint, query) = response.header("location").unwrap().split_once('?').unwrap();
    assert_eq!(endpoint, format!("{}/logout", provider.issuer));
    let query = form(query);
    assert_eq!((&*query["client_id"], &*query["post_logout_redirect_uri"]), (CLIENT, "http://shop.example/bye"));
    assert!(query["id_token_hint"].starts_with("ey"));
    assert!(browser.cookies.is_empty());
    let revoked = provider.revoked();
    assert!(revoked[0].starts_with("refresh-") && revoked[1].starts_with("ey"), "{revoked:?}");
    assert_eq!(site.get(&mut browser, "/").await.status, 302);
}

/// The URLs to which logins and logouts redirect are in logs, without what could be used in another request.
#[tokio::test]
async fn logs_have_no_secret_of_a_login_or_logout() {
    let (provider, logs) = (Provider::start().await, Endpoint::ok().await);
    let log = json!({"http_endpoint": format!("http://{}/log", logs.address)});
    let config = json!({"logout_redirect_uri": ["http://shop.example/bye"]});
    let site = Site::with_plugins(&provider, config, &[("http-log", log)]).await;
    let mut browser = Browser::default();
    let login = site.begin_login(&mut browser, "/").await;
    assert_eq!(site.get(&mut browser, &provider.log_in(&login)).await.status, 302);
    let logout = browser.send(site.server.address, "POST /logout HTTP/1.1", "", "").await;
    let [of_login, of_logout] =
        [&*login, logout.header("location").unwrap()].map(|location| form(location.split_once('?').unwrap().1));
    let logged = || logs.log.requests().concat();
    let arrived = async {
        while !logged().contains("bye") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await; // Nothing tells that the log has arrived.
        }
    };
    tokio::time::timeout(crate::harness::TEST_TIMEOUT, arrived).await.unwrap();
    assert!(logged().contains(CLIENT), "the URLs are logged");
    for (name, value) in
        [("state", &of_login["state"]), ("nonce", &of_login["nonce"]), ("id_token_hint", &of_logout["id_token_hint"])]
    {
        assert!(!logged().contains(&**value), "{name}");
    }
}

// OpenID Connect Back-Channel Logout 1.0, section 2.6
#[tokio::test]
async fn the_provider_ends_sessions_by_logout_tokens() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({"backchannel_logout_uri_suffix": "/ended"})).await;
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let valid = json!({"aud": CLIENT, "events": event, "jti": "1", "sid": "session-of-anna"});
    let send = async |token: String| {
        let form_type = "content-type: application/x-www-form-urlencoded\r\n";
        let body = format!("logout_token={token}");
        Browser::default().send(site.server.address, "POST /ended HTTP/1.1", form_type, &body).await.status
    };
    let mut browser = site.logged_in(&provider).await;
    for changes in [
        json!({"nonce": "n"}),
        json!({"aud": "other"}),
        json!({"events": null}),
        json!({"events": {"http://schemas.openid.net/event/backchannel-logout": true}}),
        json!({"exp": 1000}),
        json!({"iss": "https://evil.example"}),
        json!({"sid": null}),
        json!({"jti": null}),
        json!({"jti": ""}),
    ] {
        let token = provider.token(&with(valid.clone(), &changes));
        assert_eq!(send(token).await, 400, "{changes}");
    }
    let forged = with(base_claims(&provider.issuer), &valid);
    assert_eq!(send(SigningKey::generate("first").sign("ES256", &forged)).await, 400, "another key");
    let unsigned =
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#) + "." + &URL_SAFE_NO_PAD.encode(forged.to_string()) + ".";
    assert_eq!(send(unsigned).await, 400);
    assert_eq!(send(String::new()).await, 400);
    assert_eq!(site.get(&mut browser, "/").await.status, 200, "the session continues");
    let logout_token = provider.token(&valid);
    let as_access_token = site.send(&format!("authorization: Bearer {logout_token}\r\n")).await;
    assert_eq!(as_access_token.status, 401, "a logout token is no access token");
    assert_eq!(send(logout_token).await, 200);
    assert_eq!(site.get(&mut browser, "/").await.status, 302, "the session has ended");
}

/// The provider sends logout tokens to one address of a client, whose cookies count at several plugins.
// OpenID Connect Back-Channel Logout 1.0, section 2.7
#[tokio::test]
async fn logout_tokens_end_sessions_at_all_plugins_of_the_client() {
    let (provider, state) = (Provider::start().await, PluginState::default());
    let receiving = json!({"backchannel_logout_uri_suffix": "/ended"});
    let site = Site::with_state(&provider, receiving, &[], &state).await;
    let other = Site::with_state(&provider, json!({"session_absolute_timeout": 999_999}), &[], &state).await;
    let mut browser = site.logged_in(&provider).await;
    assert_eq!(other.get(&mut browser, "/").await.status, 200);
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let token = provider.token(&json!({"aud": CLIENT, "events": event, "jti": "1", "sid": "session-of-anna"}));
    let (form_type, body) = ("content-type: application/x-www-form-urlencoded\r\n", format!("logout_token={token}"));
    let logout = Browser::default().send(site.server.address, "POST /ended HTTP/1.1", form_type, &body).await;
    assert_eq!(logout.status, 200);
    let cookies = browser.cookies.clone();
    assert_eq!(other.get(&mut browser, "/").await.status, 302, "the session has ended there, too");
    assert_eq!(site.get(&mut Browser { cookies }, "/").await.status, 302);
}

#[tokio::test]
async fn signed_access_tokens_are_verified_with_the_published_keys() {
    let provider = Provider::start().await;
    let config = json!({
        "audience_required": ["shop api", "admin"], "consumer_claim": ["sub"], "claims_forbidden": ["act"],
        "credential_claim": ["client_id"], "authenticated_groups_claim": ["groups"],
    });
    let acl = json!({"allow": ["admins"], "always_use_authenticated_groups": true});
    let site = Site::with_plugins(&provider, config, &[("acl", acl)]).await;
    let valid = json!({"sub": "anna", "aud": ["api", "shop"], "client_id": "app", "groups": ["admins"]});
    let other_key = SigningKey::generate("first");
    let unknown_key = SigningKey::generate("second");
    let forged = with(base_claims(&provider.issuer), &valid);
    let token = |changes: Value| {
        // Also those that are removed.
        let mut claims = valid.clone();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        provider.token(&claims)
    };
    for (name, token, status) in [
        ("valid", token(json!({})), 200),
        ("again, from the cache", token(json!({})), 200),
        ("expired", token(json!({"exp": 1000})), 401),
        ("no expiry", token(json!({"exp": null})), 401),
        ("not valid yet", token(json!({"nbf": 99_999_999_999_u64})), 401),
        ("another issuer", token(json!({"iss": "https://evil.example"})), 401),
        ("another key", other_key.sign("ES256", &forged), 401),
        ("an unknown key", unknown_key.sign("ES256", &forged), 401),
        ("one audience of two", token(json!({"aud": ["api"]})), 403),
        ("the other audience", token(json!({"aud": "admin"})), 200),
        ("a forbidden claim", token(json!({"act": {}})), 403),
        ("no consumer", token(json!({"sub": "bert"})), 403),
        ("another group", token(json!({"groups": ["users"]})), 403),
        ("an ID token of Keycloak", token(json!({"typ": "ID"})), 401),
        ("no token at all", "a.b.c".to_owned(), 401),
    ] {
        let response = site.send(&format!("authorization: Bearer {token}\r\n")).await;
        assert_eq!(response.status, status, "{name}: {}", response.text());
    }
    let request = site.last_request();
    assert_eq!(header(&request, "x-credential-identifier"), Some("app"));
    assert_eq!(header(&request, "x-authenticated-groups"), Some("admins"));
    assert_eq!(provider.requests("/keys").len(), 2, "the unknown key causes another fetch");
}

#[tokio::test]
async fn other_access_tokens_are_introspected() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({"scopes_required": ["read"]})).await;
    for (token, status) in [("opaque", 200), ("opaque", 200), ("opaque-expired", 401), ("unknown", 401)] {
        let response = site.send(&format!("authorization: Bearer {token}\r\n")).await;
        assert_eq!(response.status, status, "{token}: {}", response.text());
    }
    assert_eq!(header(&site.last_request(), "authorization"), Some("Bearer opaque"));
    let count = |token: &str| {
        let requests = provider.requests("/introspect");
        requests
            .iter()
            .filter(|request| request.ends_with(&format!("token={token}&token_type_hint=access_token")))
            .count()
    };
    assert_eq!(count("opaque"), 1, "the result is cached");
    let other_clock = Site::start(&provider, json!({"leeway": 60})).await;
    let response = other_clock.send("authorization: Bearer opaque-expired\r\n").await;
    assert_eq!(response.status, 200, "it has expired within the leeway: {}", response.text());
    provider.set(Behavior { introspection_fails: true, ..Behavior::default() });
    assert_eq!(site.send("authorization: Bearer new\r\n").await.status, 503, "undecided");
    let by_query = Browser::default().send(site.server.address, "GET /?access_token=opaque&a HTTP/1.1", "", "").await;
    assert_eq!((by_query.status, site.last_request().starts_with("GET /?a ")), (200, true));
    let both = "authorization: Bearer opaque\r\n";
    let both = Browser::default().send(site.server.address, "GET /?access_token=other HTTP/1.1", both, "").await;
    assert_eq!(both.status, 401, "two different tokens");
    let without = json!({"auth_methods": ["userinfo"], "scopes_required": []});
    let userinfo = Site::start(&provider, without).await;
    assert_eq!(userinfo.send("authorization: Bearer opaque\r\n").await.status, 200);
    assert_eq!(userinfo.send("authorization: Bearer unknown\r\n").await.status, 401);
}

#[tokio::test]
async fn groups_of_claims_and_of_consumers_are_those_of_acl() {
    let provider = Provider::start().await;
    let by_claim = json!({"authenticated_groups_claim": ["groups"], "consumer_claim": null});
    let by_consumer = json!({"authenticated_groups_claim": ["groups"], "consumer_claim": ["sub"]});
    for (config, allow, expected) in [
        (&by_claim, "users", 200),
        (&by_claim, "others", 403),
        // The consumer anna has no groups, and those of the claim do not count.
        (&by_consumer, "users", 403),
    ] {
        let site = Site::with_plugins(&provider, config.clone(), &[("acl", json!({"allow": [allow]}))]).await;
        let mut browser = site.logged_in(&provider).await;
        assert_eq!(site.get(&mut browser, "/").await.status, expected, "{config} {allow}");
    }
}

/// Clients with a key need no login, and those with a session no key.
#[tokio::test]
async fn keys_are_an_alternative_to_logins() {
    let provider = Provider::start().await;
    let others = [("key-auth", json!({"anonymous": "anna"}))];
    let site = Site::with_plugins(&provider, json!({}), &others).await;
    let mut browser = site.logged_in(&provider).await;
    assert_eq!(site.get(&mut browser, "/").await.status, 200);
    // openid-connect has no `anonymous`, so that it is required, and a key alone is not enough.
    assert_eq!(site.get(&mut Browser::default(), "/").await.status, 302);
}

#[tokio::test]
async fn passwords_are_exchanged_for_tokens() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    let basic = |text: &str| format!("authorization: Basic {}\r\n", STANDARD.encode(text));
    for (credentials, status, subject) in [
        ("anna:a:pass wörd", 200, "anna"),
        ("anna:a:pass wörd", 200, "anna"),
        ("robot:robot secret", 200, "robot"),
        ("anna:wrong", 401, ""),
        ("robot:wrong", 401, ""),
    ] {
        let response = site.send(&basic(credentials)).await;
        assert_eq!(response.status, status, "{credentials}: {}", response.text());
        if status == 200 {
            let request = site.last_request();
            assert_eq!(header(&request, "x-credential-identifier"), Some(subject));
            assert!(header(&request, "authorization").unwrap().starts_with("Bearer ey"), "not the password");
        }
        assert_eq!(response.header("set-cookie"), None);
    }
    let requests = provider.requests("/token");
    let of_anna = requests.iter().filter(|request| request.contains("a%3Apass")).count();
    assert_eq!(of_anna, 1, "the token is cached");
    let only_tokens = Site::start(&provider, json!({"auth_methods": ["bearer"]})).await;
    assert_eq!(only_tokens.send(&basic("anna:a:pass wörd")).await.status, 401);
}

#[tokio::test]
async fn an_unavailable_provider_rejects_what_it_must_decide() {
    let provider = Provider::start().await;
    let dead = format!("http://{}", refusing_address());
    let site = Site::start(&provider, json!({"issuer": dead})).await;
    for headers in ["accept: text/html\r\n", "authorization: Bearer opaque\r\n", "authorization: Basic YTpi\r\n"] {
        let response = site.send(headers).await;
        assert_eq!(response.status, 503, "{headers}");
        assert!(!response.text().contains("127.0.0.1"), "{}", response.text());
    }
    assert_eq!(site.get(&mut Browser::default(), "/callback?code=a&state=b").await.status, 401);
    assert_eq!(site.endpoint.log.requests().len(), 0);
}
