//! Clients without a browser: signed tokens, introspection, userinfo, and credentials of clients.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::provider::{CLIENT, OidcProvider, SECRET, basic};
use super::{SHOP, Shop, header, start};
use crate::harness::client::ClientResponse;
use crate::harness::site::Site;
use crate::identity::provider::ProviderOptions;

fn get(shop: &Shop, authorization: &str) -> ClientResponse {
    shop.browser().request("GET", &format!("{SHOP}/api"), authorization, "")
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

fn revoke(provider: &OidcProvider, token: &str) {
    let response = provider.post("/token/revocation", &basic("robot", "robot secret"), &format!("token={token}"));
    assert_eq!(response.status, 200, "{}", response.body);
}

#[test]
fn signed_tokens_are_verified_with_the_published_keys() {
    let audience = json!({"audience_required": ["https://api.shop.example"]});
    let (provider, shop) = start(|options| options, &audience);
    let token = provider.robot_token(true);
    let response = get(&shop, &bearer(&token));
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(header(&response.json(), "x-user"), Some("robot"));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (head, claims) = signed.split_once('.').unwrap();
    let other = provider.robot_token(true);
    let other_claims = other.split('.').nth(1).unwrap();
    assert_ne!(claims, other_claims, "each token has an id");
    for forged in [
        format!("{head}.{other_claims}.{signature}"),
        format!("{signed}.{}", signature.replace(|_: char| true, "A")),
        format!("eyJhbGciOiJub25lIn0.{claims}."),
    ] {
        assert_eq!(get(&shop, &bearer(&forged)).status, 401, "{forged}");
    }
    let other_audience = Shop::start(Site::new(), &provider.issuer, &json!({"audience_required": ["other"]}));
    assert_eq!(get(&other_audience, &bearer(&token)).status, 403);
}

#[test]
fn opaque_tokens_are_introspected_until_they_are_revoked() {
    let (provider, shop) = start(|options| options, &json!({"cache_introspection": false}));
    let token = provider.robot_token(false);
    let response = get(&shop, &bearer(&token));
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(get(&shop, &bearer("unknown")).status, 401);
    revoke(&provider, &token);
    assert_eq!(get(&shop, &bearer(&token)).status, 401, "a revoked token");
}

#[test]
fn the_plugin_for_introspection_accepts_the_tokens_of_the_provider() {
    let site = Site::new();
    let provider = ProviderOptions::for_site(&site).start();
    let credentials = basic(CLIENT, SECRET);
    let config = json!({
        "introspection_url": format!("{}/token/introspection", provider.issuer),
        "authorization_value": credentials.trim_end().strip_prefix("authorization: ").unwrap(),
        "ttl": 1,
    });
    let shop = Shop::with_plugin(site, "oauth2-introspection", &config);
    let token = provider.robot_token(false);
    let response = get(&shop, &bearer(&token));
    assert_eq!(response.status, 200, "{}", response.body);
    let request = response.json();
    assert_eq!(header(&request, "x-credential-client-id"), Some("robot"));
    assert_eq!(header(&request, "x-credential-scope"), Some("read"));
    assert_eq!(get(&shop, &bearer("unknown")).status, 401);
    revoke(&provider, &token);
    let rejected = || Some(get(&shop, &bearer(&token)).status).filter(|status| *status == 401);
    crate::harness::eventually("the revoked token is rejected after `ttl`", rejected);
}

#[test]
fn the_userinfo_endpoint_decides_about_tokens_of_users() {
    let (provider, shop) = start(|options| options, &json!({}));
    let mut browser = shop.logged_in("anna");
    let page = browser.open(&format!("{SHOP}/"));
    let token = header(&page.response.json(), "authorization").unwrap().to_owned();
    let by_userinfo = json!({"auth_methods": ["userinfo"], "upstream_headers_claims": ["email"],
        "upstream_headers_names": ["x-email"]});
    let api = Shop::start(Site::new(), &provider.issuer, &by_userinfo);
    let response = get(&api, &format!("authorization: {token}\r\n"));
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(header(&response.json(), "x-email"), Some("anna@shop.example"));
    for wrong in ["unknown", &provider.robot_token(false)] {
        assert_eq!(get(&api, &bearer(wrong)).status, 401, "a token without a user");
    }
}

#[test]
fn credentials_of_clients_are_exchanged_for_tokens() {
    let (_provider, shop) = start(|options| options, &json!({"scopes": ["openid", "read"]}));
    // Unlike at the provider, id and secret are not encoded.
    let basic =
        |id: &str, secret: &str| format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{id}:{secret}")));
    let response = get(&shop, &basic("robot", "robot secret"));
    assert_eq!(response.status, 200, "{}", response.body);
    let request: Value = response.json();
    assert!(header(&request, "authorization").is_some_and(|value| value.starts_with("Bearer ")), "{request}");
    for (id, secret) in [("robot", "wrong"), ("stranger", "robot secret"), ("robot", "")] {
        let response = get(&shop, &basic(id, secret));
        assert_eq!(response.status, 401, "{id} {secret}: {}", response.body);
    }
}
