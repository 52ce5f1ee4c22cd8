//! A provider that goes away and comes back, replaces its keys, or has another clock.

use serde_json::json;

use super::provider::ProviderOptions;
use super::{SHOP, Shop, is_login, start, user};
use crate::harness::client::ClientResponse;
use crate::harness::eventually;
use crate::harness::site::Site;

fn bearer(shop: &Shop, token: &str) -> ClientResponse {
    shop.browser().request("GET", &format!("{SHOP}/"), &format!("authorization: Bearer {token}\r\n"), "")
}

#[test]
fn sessions_survive_a_provider_that_goes_away() {
    let site = Site::new();
    let options = ProviderOptions::for_site(&site);
    let provider = options.start();
    let shop = Shop::start(site, &provider.issuer, &json!({}));
    let mut browser = shop.logged_in("anna");
    let signed = provider.robot_token(true);
    assert_eq!(bearer(&shop, &signed).status, 200);
    let mut unfinished = shop.browser();
    let page = unfinished.open(&format!("{SHOP}/"));
    let callback = unfinished.log_in_until_callback(page, "bert");
    drop(provider);
    assert_eq!(user(&browser.open(&format!("{SHOP}/"))), "anna", "the session needs no provider");
    assert_eq!(bearer(&shop, &signed).status, 200, "a token whose key is known needs no provider");
    assert_eq!(bearer(&shop, "opaque").status, 503, "only the provider can decide");
    let response = unfinished.open(&callback).response;
    assert_eq!(response.status, 503, "{}", response.body);
    assert!(!response.body.contains("127.0.0.1"), "{}", response.body);
    let _provider = options.start();
    assert_eq!(bearer(&shop, "opaque").status, 401, "the provider decides again");
    let mut again = shop.browser();
    let page = again.open(&format!("{SHOP}/"));
    assert!(is_login(&page), "{}", page.url);
}

/// The refresh token is kept while the provider is away, and its user does not have to log in again.
#[test]
fn sessions_wait_for_their_refresh_while_the_provider_is_away() {
    let options = |options| ProviderOptions { access_seconds: 1, ..options };
    let (provider, shop) = start(options, &json!({}));
    let mut browser = shop.logged_in("anna");
    drop(provider);
    let unavailable =
        || Some(browser.request("GET", &format!("{SHOP}/"), "", "").status).filter(|status| *status == 503);
    eventually("the token has expired, and cannot be refreshed", unavailable);
    assert_eq!(browser.shop_cookies(), ["session"], "the session is not lost");
}

#[test]
fn tokens_with_rotated_keys_are_accepted() {
    let site = Site::new();
    let options = ProviderOptions::for_site(&site);
    let provider = options.start();
    let shop = Shop::start(site, &provider.issuer, &json!({}));
    let old = provider.robot_token(true);
    assert_eq!(bearer(&shop, &old).status, 200);
    drop(provider);
    let provider = ProviderOptions { key: "second", ..options.clone() }.start();
    // New keys are fetched for a token with an unknown key, at most once in half a minute.
    let new = provider.robot_token(true);
    eventually("the new key is known", || (bearer(&shop, &new).status == 200).then_some(()));
    assert_eq!(bearer(&shop, &old).status, 401, "the former key is no longer published");
    shop.logged_in("anna");
    drop(provider);
    // Another key with the same id.
    let _impostor = options.start();
    assert_eq!(bearer(&shop, &old).status, 401);
}

#[test]
fn clocks_may_differ_by_the_leeway() {
    // ID tokens of the provider are valid for 600 seconds.
    for (clock_seconds, leeway, is_accepted) in [(90, 0, true), (-590, 0, true), (-630, 0, false), (-630, 60, true)] {
        let options = |options| ProviderOptions { clock_seconds, ..options };
        let (_provider, shop) = start(options, &json!({"leeway": leeway}));
        let mut browser = shop.browser();
        let page = browser.open(&format!("{SHOP}/"));
        let page = browser.log_in(page, "anna");
        let expected = if is_accepted { 200 } else { 401 };
        assert_eq!(page.response.status, expected, "{clock_seconds} s, {leeway} s: {}", page.url);
    }
}
