//! Logins at a real OpenID provider, `oidc-provider`, through the running program: what a user does in a browser, what
//! clients with tokens do, and what happens when provider, keys or clocks change.

mod browser;
mod clients;
mod failures;
mod keycloak;
mod measured;
mod provider;

use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::objects::GATEWAY;
use crate::harness::program::{Program, run};
use crate::harness::site::Site;
use browser::{Browser, Page, SHOP, input};
use provider::{CLIENT, OidcProvider, ProviderOptions, SECRET};

/// Portico, whose route to the echo server has the plugins. Only the page `/bye` needs no login.
struct Shop {
    site: Site,
    program: Program,
}

impl Shop {
    /// Starts Portico with the plugin openid-connect and these fields of its configuration.
    fn start(site: Site, issuer: &str, fields: &Value) -> Shop {
        let mut config = json!({
            "issuer": issuer, "client_id": [CLIENT], "client_secret": [SECRET],
            "redirect_uri": [format!("{SHOP}/callback")], "session_secret": "0123456789abcdef0123456789abcdef",
            "scopes": ["openid", "email"], "logout_uri_suffix": "/logout", "logout_redirect_uri": [format!("{SHOP}/bye")],
            "backchannel_logout_uri_suffix": "/ended", "upstream_headers_claims": ["sub", "sid"],
            "upstream_headers_names": ["x-user", "x-sid"],
        });
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Shop::with_plugin(site, "openid-connect", &config)
    }

    fn with_plugin(site: Site, name: &str, config: &Value) -> Shop {
        let plugin = json!({
            "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": { "name": "login" },
            "plugin": name, "config": config,
        });
        let route = |name: &str, path: &str, annotations: Value| {
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": { "name": name, "annotations": annotations },
                "spec": { "parentRefs": [{ "name": "good" }], "rules": [{
                    "matches": [{ "path": { "value": path } }],
                    "backendRefs": [{ "name": "echo", "port": 80 }],
                }] },
            })
        };
        let protected = route("shop", "/", json!({ "konghq.com/plugins": "login" }));
        let public = route("bye", "/bye", json!({}));
        site.save("manifests/gateway.yaml", GATEWAY);
        site.save("manifests/shop.yaml", &format!("{plugin}\n---\n{protected}\n---\n{public}\n"));
        let program = run(&site, &["--access-log", "off"]);
        program.wait_started();
        Shop { site, program }
    }

    fn address(&self) -> String {
        self.site.address_of("port")
    }

    fn browser(&self) -> Browser {
        Browser::new(self.address())
    }

    /// A browser in which this user has logged in.
    fn logged_in(&self, user: &str) -> Browser {
        let mut browser = self.browser();
        let page = browser.open(&format!("{SHOP}/"));
        let page = browser.log_in(page, user);
        assert_eq!(page.response.status, 200, "{}: {}", page.url, page.response.body);
        browser
    }
}

/// A provider and a shop with these fields of the plugin's configuration.
fn start(options: impl FnOnce(ProviderOptions) -> ProviderOptions, fields: &Value) -> (OidcProvider, Shop) {
    let site = Site::new();
    let provider = options(ProviderOptions::for_site(&site)).start();
    let shop = Shop::start(site, &provider.issuer, fields);
    (provider, shop)
}

/// The value of a header of the request that the endpoint got.
fn header<'r>(request: &'r Value, name: &str) -> Option<&'r str> {
    request["headers"][name][0].as_str()
}

/// The user whom the endpoint of a page saw. Panics if the page is not of the endpoint.
fn user(page: &Page) -> String {
    assert_eq!(page.response.status, 200, "{}: {}", page.url, page.response.body);
    header(&page.response.json(), "x-user").expect("the page is of a user").to_owned()
}

/// Whether the browser is at the login of the provider.
fn is_login(page: &Page) -> bool {
    page.url.contains("/interaction/") && input(&page.response.body, "prompt").as_deref() == Some("login")
}

#[test]
fn users_log_in_and_out() {
    let (provider, shop) = start(|options| options, &json!({}));
    let mut browser = shop.browser();
    let response = browser.request("GET", &format!("{SHOP}/cart?a=1&b=%20"), "", "");
    assert_eq!(response.status, 302);
    let location = response.field("location").unwrap().to_owned();
    assert!(location.starts_with(&format!("{}/auth?", provider.issuer)), "{location}");
    for parameter in ["code_challenge_method=S256", "code_challenge=", "nonce=", "state="] {
        assert!(location.contains(parameter), "{location}");
    }
    let page = browser.open(&location);
    assert!(is_login(&page), "{}", page.response.body);
    let page = browser.log_in(page, "anna");
    assert_eq!(page.url, "http://shop.example/cart?a=1&b=%20");
    assert_eq!(user(&page), "anna");
    let request = page.response.json();
    assert_eq!(header(&request, "cookie"), None, "the endpoint does not get the session");
    assert!(header(&request, "x-sid").is_some_and(|sid| !sid.is_empty()), "{request}");
    assert_eq!(browser.shop_cookies(), ["session"], "the cookie of the login is removed");
    let session = browser.cookies.iter().find(|cookie| cookie.name == "session").unwrap();
    for attribute in ["HttpOnly", "SameSite=Lax"] {
        assert!(session.attributes.contains(attribute), "{}", session.attributes);
    }

    // RP-initiated logout: the provider asks the user, ends its own session, and returns to the shop.
    let page = browser.submit(&format!("{SHOP}/logout"), "");
    assert!(browser.shop_cookies().is_empty());
    assert!(page.url.starts_with(&format!("{}/session/end?", provider.issuer)), "{}", page.url);
    let xsrf = input(&page.response.body, "xsrf").expect("the provider asks");
    let page = browser.submit(&format!("{}/session/end/confirm", provider.issuer), &format!("xsrf={xsrf}&logout=yes"));
    assert_eq!((&*page.url, page.response.status), ("http://shop.example/bye", 200));
    let page = browser.open(&format!("{SHOP}/"));
    assert!(is_login(&page), "the session of the provider has ended, too: {}", page.url);
}

// OpenID Connect Core, section 3.1.2.1: with `max_age`, the provider asks the user again, and the ID token has
// `auth_time`.
#[test]
fn users_log_in_again_when_the_login_is_too_old() {
    let (provider, shop) = start(|options| options, &json!({"max_age": 600}));
    let mut browser = shop.logged_in("anna");
    assert_eq!(user(&browser.open(&format!("{SHOP}/"))), "anna");
    // The session is valid for both, and too old for this one after some seconds.
    let payments = Shop::start(Site::new(), &provider.issuer, &json!({"max_age": 5}));
    browser.shop = payments.address();
    let page = eventually("the login is too old", || Some(browser.open(&format!("{SHOP}/pay"))).filter(is_login));
    let page = browser.log_in(page, "anna");
    assert_eq!(page.url, "http://shop.example/pay");
    browser.shop = shop.address();
    assert_eq!(user(&browser.open(&format!("{SHOP}/"))), "anna");
}

#[test]
fn two_tabs_log_in_at_once() {
    let (_provider, shop) = start(|options| options, &json!({}));
    let mut browser = shop.browser();
    let [first, second] = ["first", "second"].map(|tab| browser.open(&format!("{SHOP}/{tab}")));
    let page = browser.log_in(second, "anna");
    assert_eq!((&*page.url, user(&page)), ("http://shop.example/second", "anna".to_owned()));
    let page = browser.log_in(first, "anna");
    assert_eq!((&*page.url, user(&page)), ("http://shop.example/first", "anna".to_owned()));
    assert_eq!(browser.shop_cookies(), ["session"]);
}

#[test]
fn another_replica_finishes_a_login() {
    let (provider, first) = start(|options| options, &json!({}));
    let second = Shop::start(Site::new(), &provider.issuer, &json!({}));
    let mut browser = first.browser();
    let page = browser.open(&format!("{SHOP}/page"));
    browser.shop = second.address();
    let page = browser.log_in(page, "anna");
    assert_eq!((&*page.url, user(&page)), ("http://shop.example/page", "anna".to_owned()));
    browser.shop = first.address();
    assert_eq!(user(&browser.open(&format!("{SHOP}/page"))), "anna");
    let other_secret = json!({"session_secret": "another secret of 32 characters!"});
    let stranger = Shop::start(Site::new(), &provider.issuer, &other_secret);
    browser.shop = stranger.address();
    let response = browser.request("GET", &format!("{SHOP}/"), "", "");
    assert_eq!(response.status, 302, "a session of another secret");
}

// RFC 7636: a code is worth nothing without the verifier, which only the browser's cookie has.
#[test]
fn intercepted_codes_cannot_be_redeemed() {
    let (provider, shop) = start(|options| options, &json!({}));
    let mut victim = shop.browser();
    let page = victim.open(&format!("{SHOP}/"));
    let callback = victim.log_in_until_callback(page, "anna");
    let code = callback.split(['=', '&']).nth(1).unwrap().to_owned();
    let form = format!("grant_type=authorization_code&code={code}&redirect_uri=http%3A%2F%2Fshop.example%2Fcallback");
    for verifier in ["", "&code_verifier=dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"] {
        let response = provider.token((CLIENT, SECRET), &format!("{form}{verifier}"));
        assert_eq!(response["error"], "invalid_grant", "{response}");
    }
    // The attacker injects the code into an own login, or opens the victim's URL in another browser.
    let mut attacker = shop.browser();
    let page = attacker.open(&format!("{SHOP}/"));
    let own = attacker.log_in_until_callback(page, "mallory");
    let own_state = own.split("&state=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let victims_state = callback.split("&state=").nth(1).unwrap().split('&').next().unwrap();
    let mut other = shop.browser();
    assert_eq!(other.open(&callback).response.status, 401);
    assert_eq!(attacker.open(&callback.replace(victims_state, &own_state)).response.status, 401);
    assert!(attacker.shop_cookies().is_empty() && other.shop_cookies().is_empty());
}

#[test]
fn sessions_are_refreshed_with_tokens_that_rotate() {
    let (_provider, shop) = start(|options| ProviderOptions { access_seconds: 2, ..options }, &json!({}));
    let mut browser = shop.logged_in("anna");
    let token = |browser: &mut Browser| {
        let page = browser.open(&format!("{SHOP}/"));
        assert_eq!(user(&page), "anna");
        header(&page.response.json(), "authorization").unwrap().to_owned()
    };
    let mut last = token(&mut browser);
    // Each refresh needs the token of the one before.
    for _ in 0..3 {
        last = eventually("another access token", || Some(token(&mut browser)).filter(|token| *token != last));
    }
    // Several requests with the same expired token are one refresh for the provider.
    let before = browser.clone();
    eventually("another access token", || Some(token(&mut browser)).filter(|token| *token != last));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let mut tab = before.clone();
            std::thread::spawn(move || user(&tab.open(&format!("{SHOP}/"))))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), "anna");
    }
    let last = token(&mut browser);
    eventually("another access token", || Some(token(&mut browser)).filter(|token| *token != last));
}

/// A thief has a copy of the cookies and uses them at a replica that knows of no refresh.
#[test]
fn refresh_tokens_that_are_used_again_end_the_session() {
    let (provider, shop) = start(|options| ProviderOptions { access_seconds: 2, ..options }, &json!({}));
    let replica = Shop::start(Site::new(), &provider.issuer, &json!({}));
    let mut browser = shop.logged_in("anna");
    let mut thief = browser.clone();
    let token = |browser: &mut Browser| {
        let page = browser.open(&format!("{SHOP}/"));
        header(&page.response.json(), "authorization").unwrap().to_owned()
    };
    let first = token(&mut browser);
    eventually("another access token", || Some(token(&mut browser)).filter(|token| *token != first));
    thief.shop = replica.address();
    assert_eq!(thief.request("GET", &format!("{SHOP}/"), "", "").status, 302, "the token was used before");
    let ended = || Some(browser.request("GET", &format!("{SHOP}/"), "", "").status).filter(|status| *status == 302);
    eventually("the session of both ends", ended);
}

// OpenID Connect Back-Channel Logout 1.0
#[test]
fn the_provider_ends_one_session_of_a_user() {
    let (provider, shop) = start(|options| options, &json!({}));
    let (mut office, mut phone) = (shop.logged_in("anna"), shop.logged_in("anna"));
    // The user logs out at the provider, not at the shop.
    let page = office.open(&format!("{}/session/end", provider.issuer));
    let xsrf = input(&page.response.body, "xsrf").expect("the provider asks");
    office.submit(&format!("{}/session/end/confirm", provider.issuer), &format!("xsrf={xsrf}&logout=yes"));
    let ended = || Some(office.request("GET", &format!("{SHOP}/"), "", "").status).filter(|status| *status == 302);
    eventually("the session of the browser ends", ended);
    assert_eq!(user(&phone.open(&format!("{SHOP}/"))), "anna", "another session of the user continues");
}
