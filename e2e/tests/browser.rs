//! A real browser, Chromium, logs in at a real OpenID provider, Dex, through Portico: on an HTTPRoute without TLS, and
//! on an Ingress with TLS, strict cookies and the prefix `__Host-`.

mod chromium;
mod grpc_web;
mod pages;

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use portico_e2e::wait::until;
use portico_e2e::without_cluster::{Program, START_TIMEOUT};
use portico_e2e::{programs, without_cluster};
use serde_json::{Value, json};

use self::chromium::{Chromium, Tab};

/// A site that the browser visits.
struct Site {
    /// Its pages begin with this.
    origin: &'static str,
    session_cookie: &'static str,
    same_site: &'static str,
    is_secure: bool,
}

const SHOP: Site =
    Site { origin: "http://shop.example:8080", session_cookie: "session", same_site: "Lax", is_secure: false };

const STORE: Site = Site {
    origin: "https://store.example:8443",
    session_cookie: "__Host-session",
    same_site: "Strict",
    is_secure: true,
};

const MANIFESTS: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, annotations: {konghq.com/plugins: shop}}
spec:
  parentRefs: [{name: web}]
  hostnames: [shop.example]
  rules: [{backendRefs: [{name: echo, port: 9000}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bye}
spec:
  parentRefs: [{name: web}]
  hostnames: [shop.example]
  rules:
  - matches: [{path: {value: /bye}}]
    backendRefs: [{name: echo, port: 9000}]
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: portico}
spec: {controller: portico.dev/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: store, annotations: {konghq.com/plugins: store}}
spec:
  ingressClassName: portico
  rules:
  - host: store.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: echo, port: {number: 9000}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: bye}
spec:
  ingressClassName: portico
  rules:
  - host: store.example
    http:
      paths:
      - {path: /bye, pathType: Prefix, backend: {service: {name: echo, port: {number: 9000}}}}
";

#[test]
fn a_browser_logs_in_and_out() {
    without_cluster::run("portico-browser", &[programs::dex], logs_in_and_out);
}

async fn logs_in_and_out() -> Result<()> {
    let dex = programs::dex()?;
    let folder = tempfile::tempdir()?;
    let mut dex = Command::new(dex);
    dex.args([DEX, TOKEN_LIFETIME, &clients().to_string()]);
    let _dex = Program::start(dex, &folder.path().join("dex.log"), &[DEX]).await?;
    let plugins: String = [SHOP, STORE].iter().map(|site| format!("---\n{}\n", plugin(site))).collect();
    let objects = format!("{plugins}{}{MANIFESTS}", without_cluster::GATEWAY);
    let listens = ["127.0.0.1:8080", "127.0.0.1:8443"];
    let _portico = Program::portico(folder.path(), &objects, &listens).await?;
    for site in [SHOP, STORE] {
        // Each site has a browser of its own, because the provider would remember the user.
        let folder = folder.path().join(site.session_cookie);
        fs::create_dir(&folder)?;
        let mut browser = Chromium::start(&folder)?;
        visit(&mut browser, &site).await.with_context(|| site.origin)?;
    }
    Ok(())
}

/// What a user does on a site: two tabs, a login, a refresh, the end of the session.
async fn visit(browser: &mut Chromium, site: &Site) -> Result<()> {
    let tab = browser.open_tab()?;
    browser.open(&tab, &format!("{}/cart?item=1&color=a%20b", site.origin))?;
    let other_tab = browser.open_tab()?;
    browser.open(&other_tab, &format!("{}/other", site.origin))?;
    log_in(browser, &tab).await?;
    let first = wait_for_page(browser, site, &tab, "/cart?item=1&color=a%20b").await?;
    ensure!(first["path"] == "/cart" && first["query"] == "item=1&color=a%20b", "{first}");
    ensure!(first["headers"]["x-user-email"] == json!(["anna@shop.example"]), "{first}");
    ensure!(first["headers"].get("cookie").is_none(), "the endpoint does not get the session: {first}");
    check_cookies(browser, site, &tab)?;

    // The other tab began a login, too, and finishes it later.
    if browser.evaluate(&other_tab, "location.pathname")?.as_str().is_some_and(|path| path.starts_with("/dex/")) {
        log_in(browser, &other_tab).await?;
    }
    wait_for_page(browser, site, &other_tab, "/other").await?;

    // The access token expires, and every page comes with another one without a login.
    let refreshed = async |browser: &mut Chromium, former: &Value| {
        until("another access token", START_TIMEOUT, async || {
            browser.open(&tab, &format!("{}/again", site.origin))?;
            let page = wait_for_page(browser, site, &tab, "/again").await?;
            let token = page["headers"]["authorization"].clone();
            ensure!(token != *former, "the token is the same");
            Ok(token)
        })
        .await
    };
    let second = refreshed(browser, &first["headers"]["authorization"]).await?;
    refreshed(browser, &second).await?;

    // A script of the page calls the API of the site: with the session, and without a login when that has ended.
    let status =
        "window.done = 0; fetch('/api').then(response => window.done = response.status, () => window.done = -1)";
    browser.evaluate(&tab, status)?;
    browser.wait_for(&tab, "window.done === 200").await?;
    browser.open(&tab, &format!("{}/logout", site.origin))?;
    // The provider may ask before it ends its session.
    browser.wait_for(&tab, "location.pathname === '/bye' || location.pathname.startsWith('/dex/')").await?;
    if browser.evaluate(&tab, "location.pathname")? != "/bye" {
        browser.wait_for(&tab, "document.querySelector('button[type=submit]') !== null").await?;
        browser.click(&tab, "button[type=submit]")?;
    }
    browser.wait_for(&tab, &format!("location.href.startsWith('{}/bye')", site.origin)).await?;
    let cookies = browser.cookies(&tab, site.origin)?;
    ensure!(cookies.iter().all(|cookie| cookie["name"] != site.session_cookie), "{cookies:?}");
    browser.evaluate(&tab, status)?;
    // A login begins only for requests that open a page, and scripts accept all media types.
    browser.wait_for(&tab, "window.done === 401").await?;
    browser.open(&tab, &format!("{}/", site.origin))?;
    browser.wait_for(&tab, "document.querySelector('#password') !== null").await
}

/// Types name and password into the form of the provider, and allows the access.
async fn log_in(browser: &mut Chromium, tab: &Tab) -> Result<()> {
    browser.wait_for(tab, "document.querySelector('#submit-login') !== null || location.port !== '5556'").await?;
    if browser.evaluate(tab, "location.port")? != "5556" {
        return Ok(());
    }
    browser.type_into(tab, "#login", "anna@shop.example")?;
    browser.type_into(tab, "#password", "annas password")?;
    browser.click(tab, "#submit-login")?;
    // The consent, which the provider requests for each login.
    let consent = "document.querySelector('button[type=submit]')?.innerText.includes('Grant') ?? false";
    browser.wait_for(tab, &format!("location.port !== '5556' || ({consent})")).await?;
    if browser.evaluate(tab, consent)? == true {
        browser.click(tab, "button[type=submit]")?;
    }
    Ok(())
}

/// Waits until a tab shows a page of the endpoint, and returns the request that the endpoint got.
async fn wait_for_page(browser: &mut Chromium, site: &Site, tab: &Tab, target: &str) -> Result<Value> {
    let url = format!("{}{target}", site.origin);
    // The browser shows JSON in an element of its own.
    let text = "(document.querySelector('pre')?.innerText ?? '')";
    let is_shown = format!("location.href === {} && {text}.startsWith('{{')", json!(url));
    browser.wait_for(tab, &is_shown).await?;
    let text = browser.evaluate(tab, text)?;
    serde_json::from_str(text.as_str().unwrap_or_default()).with_context(|| format!("{text}"))
}

fn check_cookies(browser: &mut Chromium, site: &Site, tab: &Tab) -> Result<()> {
    let cookies = browser.cookies(tab, site.origin)?;
    let session = cookies.iter().find(|cookie| cookie["name"] == site.session_cookie);
    let session = session.with_context(|| format!("the browser has not stored the session: {cookies:?}"))?;
    ensure!(session["httpOnly"] == true && session["secure"] == site.is_secure, "{session}");
    ensure!(session["sameSite"] == site.same_site, "{session}");
    let readable = browser.evaluate(tab, "document.cookie")?;
    ensure!(readable == "", "scripts can read cookies: {readable}");
    Ok(())
}

fn plugin(site: &Site) -> Value {
    let name = if site.is_secure { "store" } else { "shop" };
    json!({
        "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": { "name": name },
        "plugin": "openid-connect",
        "config": {
            "issuer": format!("http://{DEX}/dex"), "client_id": [name], "client_secret": ["only-for-tests"],
            "redirect_uri": [format!("{}/callback", site.origin)],
            "scopes": ["openid", "email", "offline_access"],
            "session_secret": "0123456789abcdef0123456789abcdef", "session_cookie_name": site.session_cookie,
            "session_cookie_same_site": site.same_site, "leeway": 60,
            "logout_methods": ["GET"], "logout_uri_suffix": "/logout",
            "logout_redirect_uri": [format!("{}/bye", site.origin)],
            "upstream_headers_claims": ["email"], "upstream_headers_names": ["x-user-email"],
        },
    })
}

fn clients() -> Value {
    let client = |id: &str, site: &Site| {
        json!({
            "id": id, "name": id, "secret": "only-for-tests",
            "redirectURIs": [format!("{}/callback", site.origin)],
            "postLogoutRedirectURIs": [format!("{}/bye", site.origin)],
        })
    };
    json!([client("shop", &SHOP), client("store", &STORE)])
}

/// The address of the provider.
const DEX: &str = "127.0.0.1:5556";
/// Until the provider's tokens expire.
const TOKEN_LIFETIME: &str = "5s";
