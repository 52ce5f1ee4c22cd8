//! Logins at Keycloak: roles in nested claims, refresh, logout on both sides, and authentication levels that it does
//! not have.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::browser::{Browser, Page, SHOP};
use super::provider::{CLIENT, SECRET};
use super::{Shop, header, user};
use crate::harness::client::try_get;
use crate::harness::ports::free_port;
use crate::harness::program::{Program, output, root};
use crate::harness::site::Site;
use crate::harness::{eventually, eventually_within};

/// The first start compiles Keycloak's configuration, for two minutes on one core.
const START_TIMEOUT: Duration = Duration::from_secs(600);
/// Until access tokens of the first client expire, in seconds.
const ACCESS_SECONDS: u32 = 5;
/// A second client, whose tokens do not expire during the test.
const PHONE: &str = "phone";

/// A running Keycloak with the realm `shop`.
struct Keycloak {
    issuer: String,
    /// Ended before its folder is removed.
    _process: Program,
    _site: Site,
}

impl Keycloak {
    /// Starts Keycloak, and waits until the realm is served. `phone`: the address of Portico for the second client.
    fn start(phone: &str) -> Keycloak {
        let site = Site::new();
        let mut command = Command::new("bash");
        command.arg(root().join("scripts/keycloak.sh")).arg(site.path("."));
        let installed = output(command);
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        site.save_bytes("data/import/shop.json", realm(phone).to_string().as_bytes());
        let (port, management_port) = (free_port([127, 0, 0, 1]), free_port([127, 0, 0, 1]));
        let mut command = Command::new("bash");
        command.arg("bin/kc.sh").args(["start-dev", "--import-realm", "--cache", "local", "--http-host", "127.0.0.1"]);
        command.args(["--http-port", &port.to_string(), "--http-management-port", &management_port.to_string()]);
        command.env("JAVA_OPTS_KC_HEAP", "-Xms64m -Xmx512m").current_dir(site.path("."));
        let process = Program::start_group(command);
        let issuer = format!("http://127.0.0.1:{port}/realms/shop");
        let address = format!("127.0.0.1:{port}");
        eventually_within(START_TIMEOUT, "Keycloak serves the realm", || {
            let response = try_get(&address, &address, "/realms/shop/.well-known/openid-configuration");
            response.ok().filter(|response| response.status == 200)
        });
        Keycloak { issuer, _process: process, _site: site }
    }
}

/// Users with the password `any`, of whom anna is staff, and two clients.
fn realm(phone: &str) -> Value {
    let password = json!([{ "type": "password", "value": "any" }]);
    let user = |name: &str, roles: &[&str]| {
        json!({
            "username": name, "enabled": true, "email": format!("{name}@shop.example"), "firstName": name,
            "lastName": "Example", "realmRoles": roles, "credentials": password,
        })
    };
    let client = |name: &str, attributes: Value| {
        json!({
            "clientId": name, "secret": SECRET, "redirectUris": [format!("{SHOP}/callback")], "attributes": attributes,
        })
    };
    let shop = json!({
        "post.logout.redirect.uris": format!("{SHOP}/bye"), "access.token.lifespan": ACCESS_SECONDS.to_string(),
    });
    let of_phone = json!({
        "backchannel.logout.url": format!("http://{phone}/ended"), "backchannel.logout.session.required": "true",
    });
    json!({
        "realm": "shop", "enabled": true, "sslRequired": "none", "accessTokenLifespan": 3600,
        "roles": { "realm": [{ "name": "staff" }] },
        "clients": [client(CLIENT, shop), client(PHONE, of_phone)],
        "users": [user("anna", &["staff"]), user("bert", &[])],
    })
}

/// Fills in the form of Keycloak.
fn log_in(browser: &mut Browser, page: &Page, user: &str) -> Page {
    let (_, form) = page.response.body.split_once("id=\"kc-form-login\"").expect("the form of a login");
    let (_, action) = form.split_once("action=\"").expect("the form has an action");
    let action = action.split('"').next().unwrap().replace("&amp;", "&");
    browser.submit(&action, &format!("username={user}&password=any&credentialId="))
}

fn is_login(page: &Page) -> bool {
    page.response.body.contains("id=\"kc-form-login\"")
}

#[test]
#[ignore = "only in make test-full: Keycloak has 177 MB, and starts for two minutes"]
fn keycloak_logs_users_in_and_out() {
    let (site, site_of_phone) = (Site::new(), Site::new());
    let keycloak = Keycloak::start(&site_of_phone.address_of("port"));
    let fields = json!({
        "roles_claim": ["realm_access", "roles"], "roles_required": ["staff"], "max_age": 3600,
        "upstream_headers_claims": ["preferred_username", "sid"], "scopes": ["openid", "email"],
    });
    let shop = Shop::start(site, &keycloak.issuer, &fields);
    let mut browser = shop.browser();
    let page = browser.open(&format!("{SHOP}/cart?a=1"));
    assert!(page.url.starts_with(&format!("{}/protocol/openid-connect/auth?", keycloak.issuer)), "{}", page.url);
    let page = log_in(&mut browser, &page, "anna");
    assert_eq!((&*page.url, user(&page)), ("http://shop.example/cart?a=1", "anna".to_owned()));
    let first = header(&page.response.json(), "authorization").unwrap().to_owned();
    eventually("another access token", || {
        let page = browser.open(&format!("{SHOP}/"));
        assert_eq!(user(&page), "anna");
        Some(()).filter(|()| header(&page.response.json(), "authorization") != Some(&*first))
    });

    let mut other = shop.browser();
    let page = other.open(&format!("{SHOP}/"));
    let page = log_in(&mut other, &page, "bert");
    assert_eq!((&*page.url, page.response.status), ("http://shop.example/", 403), "bert is not staff");

    // Keycloak knows no level `gold`: it wants the password again, and logs the user in at its usual level.
    let level = json!({"acr_required": ["gold"], "scopes": ["openid", "email"]});
    let payments = Shop::start(Site::new(), &keycloak.issuer, &level);
    let mut elsewhere = browser.clone();
    elsewhere.shop = payments.address();
    let page = elsewhere.open(&format!("{SHOP}/pay"));
    let page = log_in(&mut elsewhere, &page, "anna");
    assert_eq!(page.response.status, 403, "{}: {}", page.url, page.response.body);
    assert!(page.url.starts_with("http://shop.example/callback?"), "{}", page.url);

    let page = browser.submit(&format!("{SHOP}/logout"), "");
    assert_eq!((&*page.url, page.response.status), ("http://shop.example/bye", 200), "{}", page.response.body);
    let page = browser.open(&format!("{SHOP}/"));
    assert!(is_login(&page), "the session of Keycloak has ended, too: {}", page.url);

    let at_phone = Shop::start(site_of_phone, &keycloak.issuer, &json!({"client_id": [PHONE]}));
    let mut phone = at_phone.browser();
    let page = phone.open(&format!("{SHOP}/"));
    let page = log_in(&mut phone, &page, "anna");
    assert_eq!(page.response.status, 200, "{}", page.response.body);
    // The user logs out at Keycloak, which reports it to Portico.
    let mut elsewhere = phone.clone();
    let page = elsewhere.open(&format!("{}/protocol/openid-connect/logout", keycloak.issuer));
    let (_, form) = page.response.body.split_once("action=\"").expect("Keycloak asks");
    let action = form.split('"').next().unwrap().replace("&amp;", "&");
    let code = super::input(&page.response.body, "session_code").expect("the form has a code");
    let origin = keycloak.issuer.strip_suffix("/realms/shop").unwrap();
    elsewhere.submit(&format!("{origin}{action}"), &format!("session_code={code}&confirmLogout=Logout"));
    eventually("the session has ended", || {
        Some(phone.request("GET", &format!("{SHOP}/"), "", "").status).filter(|status| *status == 302)
    });
}
