//! Attacks on logins: providers that are slow or lie, tokens and keys that are made to cost time, and cookies that were
//! planted, mixed or cut. The attacks on the flow itself are in `mod.rs`.

use serde_json::{Value, json};

use super::browser::Browser;
use super::provider::{Behavior, Provider, SigningKey, base_claims, next_second, with};
use super::{Site, TestResponse, header};

/// The response to the end of a login with this behavior of the provider.
async fn finish_login(provider: &Provider, site: &Site, behavior: Behavior) -> (TestResponse, Browser) {
    provider.set(Behavior::default());
    let mut browser = Browser::default();
    let callback = provider.log_in(&site.begin_login(&mut browser, "/").await);
    provider.set(behavior);
    let response = site.get(&mut browser, &callback).await;
    (response, browser)
}

fn has_session(browser: &Browser) -> bool {
    browser.names().iter().any(|name| name.starts_with("session"))
}

#[tokio::test]
async fn providers_that_lie_give_no_session() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested_member = format!("{{\"access_token\": \"a\", \"token_type\": \"bearer\", \"id_token\": {nested}}}");
    let tokens =
        |id_token: &str| json!({"access_token": "a", "token_type": "bearer", "id_token": id_token}).to_string();
    let huge = "x".repeat(5_000_000);
    for (name, body, status) in [
        ("a page", "<html>Sorry</html>".to_owned(), 503),
        ("nothing", String::new(), 503),
        ("a list", "[]".to_owned(), 503),
        ("no tokens", "{}".to_owned(), 503),
        ("numbers", json!({"access_token": 1, "token_type": 2, "id_token": 3}).to_string(), 503),
        ("nested", nested, 503),
        ("nested in a member", nested_member, 503),
        ("too long", tokens(&huge), 503),
        ("no ID token", json!({"access_token": "a", "token_type": "bearer"}).to_string(), 401),
        ("another type", json!({"access_token": "a", "token_type": "mac", "id_token": "a.b.c"}).to_string(), 503),
        ("no token", tokens("a.b.c"), 401),
    ] {
        let behavior = Behavior { bodies: vec![("/token", body)], ..Behavior::default() };
        let (response, browser) = finish_login(&provider, &site, behavior).await;
        assert_eq!(response.status, status, "{name}: {}", response.text());
        assert!(!has_session(&browser), "{name}: {:?}", browser.names());
    }
    provider.set(Behavior::default());
    site.logged_in(&provider).await;
}

#[tokio::test]
async fn providers_that_do_not_respond_give_no_session() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({"timeout": 200})).await;
    let stalls = || Behavior { stalls_at: Some("/token"), ..Behavior::default() };
    let (response, browser) = finish_login(&provider, &site, stalls()).await;
    assert_eq!((response.status, has_session(&browser)), (503, false), "{}", response.text());
    provider.set(Behavior { stalls_at: Some("/introspect"), ..Behavior::default() });
    assert_eq!(site.send("authorization: Bearer opaque\r\n").await.status, 503);
    assert_eq!(site.endpoint.log.requests().len(), 0);
}

#[tokio::test]
async fn documents_that_lie_begin_no_login() {
    for document in [
        json!({"issuer": "https://evil.example"}).to_string(),
        "<html>".to_owned(),
        json!({"issuer": 1}).to_string(),
        "[".repeat(100_000),
    ] {
        let body = ("/.well-known/openid-configuration", document.clone());
        let provider = Provider::with(Behavior { bodies: vec![body], ..Behavior::default() }).await;
        let site = Site::start(&provider, json!({})).await;
        let response = site.get(&mut Browser::default(), "/").await;
        let start: String = document.chars().take(60).collect();
        assert_eq!((response.status, response.header("location")), (503, None), "{start}");
        assert_eq!(site.endpoint.log.requests().len(), 0);
    }
}

// RFC 8725, sections 2 and 3
#[tokio::test]
async fn the_header_of_a_token_does_not_choose_its_verification() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    let claims = with(base_claims(&provider.issuer), &json!({"sub": "anna", "aud": "shop"})).to_string();
    let attacker = SigningKey::generate("attacker");
    let evil = format!("{}/evil", provider.issuer);
    let send = async |token: String| site.send(&format!("authorization: Bearer {token}\r\n")).await.status;
    assert_eq!(send(provider.key.sign_with(&json!({"alg": "ES256", "kid": "first"}), &claims)).await, 200);
    assert_eq!(send(provider.key.sign_with(&json!({"alg": "ES256"}), &claims)).await, 200, "without the id of a key");
    for (name, header) in [
        ("no algorithm", json!({"kid": "first"})),
        ("a number as algorithm", json!({"alg": 1, "kid": "first"})),
        ("an unknown algorithm", json!({"alg": "XX256", "kid": "first"})),
        ("another case", json!({"alg": "es256", "kid": "first"})),
        ("another curve", json!({"alg": "ES384", "kid": "first"})),
        ("another family", json!({"alg": "RS256", "kid": "first"})),
        ("an unknown critical extension", json!({"alg": "ES256", "kid": "first", "crit": ["exp"], "exp": 1})),
        ("an empty list of critical extensions", json!({"alg": "ES256", "kid": "first", "crit": []})),
    ] {
        assert_eq!(send(provider.key.sign_with(&header, &claims)).await, 401, "{name}");
    }
    for (name, header) in [
        ("its own key", json!({"alg": "ES256", "jwk": attacker.jwk()})),
        ("its own key, with the id of another", json!({"alg": "ES256", "kid": "first", "jwk": attacker.jwk()})),
        ("the URL of a key", json!({"alg": "ES256", "kid": "attacker", "jku": evil, "x5u": evil})),
        ("an id that is a path", json!({"alg": "ES256", "kid": "../../dev/null"})),
        ("a very long id", json!({"alg": "ES256", "kid": "x".repeat(3000)})),
    ] {
        assert_eq!(send(attacker.sign_with(&header, &claims)).await, 401, "{name}");
    }
    assert!(provider.requests("/evil").is_empty(), "no URL of a token is requested");
}

/// All of these are signed with the key of the provider, except for the one without a signature.
#[tokio::test]
async fn tokens_that_are_malformed_are_rejected() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    let valid = with(base_claims(&provider.issuer), &json!({"sub": "anna", "aud": "shop"})).to_string();
    let sign = |claims: &[u8]| provider.key.sign_with(&json!({"alg": "ES256"}), claims);
    let signed = sign(valid.as_bytes());
    let no_text = [valid.trim_end_matches('}').as_bytes(), b",\"a\":\"\xff\"}"].concat();
    for (name, token, status) in [
        ("nothing wrong", signed.clone(), 200),
        ("another member", sign(&[valid.trim_end_matches('}').as_bytes(), b",\"a\":\"a\"}"].concat()), 200),
        ("claims that are a list", sign(format!("[{valid}]").as_bytes()), 401),
        ("claims that are no text", sign(&no_text), 401),
        ("two objects", sign(format!("{valid}{valid}").as_bytes()), 401),
        ("no signature", signed[..=signed.rfind('.').unwrap()].to_owned(), 401),
        ("the beginning of a signature", signed[..signed.len() - 4].to_owned(), 401),
        ("a second signature", format!("{signed}.AAAA"), 401),
        ("a large number as expiry", provider.token(&json!({"sub": "a", "exp": -1e300})), 401),
    ] {
        let response = site.send(&format!("authorization: Bearer {token}\r\n")).await;
        assert_eq!(response.status, status, "{name}: {}", response.text());
    }
    assert_eq!(site.endpoint.log.requests().len(), 2);
}

#[tokio::test]
async fn key_sets_with_very_many_keys_cost_little() {
    let key = SigningKey::generate("k").jwk();
    let others = |count: usize| (0..count).map(|number| with(key.clone(), &json!({"kid": format!("k{number}")})));
    let provider = Provider::start().await;
    let own = || std::iter::once(provider.key.jwk());
    for (name, keys, status) in [
        ("10,000 keys, more than a set may have", others(10_000).chain(own()).collect::<Vec<Value>>(), 503),
        ("the key after many others", others(3000).chain(own()).collect(), 401),
        ("the key before many others", own().chain(others(3000)).collect(), 200),
        // Without ids, each key could be the one.
        (
            "the key after many others without ids",
            others(3000).map(|key| with(key, &json!({"kid": null}))).chain(own()).collect(),
            401,
        ),
    ] {
        provider.set(Behavior { bodies: vec![("/keys", json!({ "keys": keys }).to_string())], ..Behavior::default() });
        let site = Site::start(&provider, json!({})).await;
        let token = provider.token(&json!({"sub": "anna"}));
        let response = site.send(&format!("authorization: Bearer {token}\r\n")).await;
        assert_eq!(response.status, status, "{name}: {}", response.text());
    }
}

// RFC 6749, section 3.1, and RFC 9207, section 2.4
#[tokio::test]
async fn callbacks_that_contradict_themselves_redeem_no_code() {
    for names_issuer in [false, true] {
        let provider = Provider::with(Behavior { names_issuer, ..Behavior::default() }).await;
        let site = Site::start(&provider, json!({})).await;
        let good = format!("&iss={}", provider.issuer);
        for added in [
            "&error=access_denied",
            "&error=",
            "&error",
            "&error=access_denied&error=server_error",
            "&code=another",
            "&state=another",
            "&iss=https://evil.example",
            &format!("&iss=https://evil.example{good}"),
            &format!("{good}&iss=https://evil.example"),
            "&iss=",
            "&iss",
        ] {
            let mut browser = Browser::default();
            let callback = provider.log_in(&site.begin_login(&mut browser, "/").await);
            let response = site.get(&mut browser, &format!("{callback}{added}")).await;
            assert_eq!((response.status, has_session(&browser)), (401, false), "{names_issuer} {added}");
        }
        assert!(provider.requests("/token").is_empty(), "no code was redeemed");
        site.logged_in(&provider).await;
    }
}

/// An attacker plants a cookie of the own session in the browser of a victim, and hopes that it becomes one of the
/// victim.
#[tokio::test]
async fn sessions_of_an_attacker_do_not_become_those_of_a_victim() {
    let provider = Provider::start().await;
    let fields = json!({"upstream_headers_claims": ["sid"], "upstream_headers_names": ["x-sid"]});
    let site = Site::start(&provider, fields).await;
    provider.set(Behavior { id_token_claims: json!({"sid": "session-of-mallory"}), ..Behavior::default() });
    let mut attacker = site.logged_in(&provider).await;
    provider.set(Behavior::default());
    let mut victim = Browser::default();
    let location = site.begin_login(&mut victim, "/").await;
    victim.cookies.extend(attacker.cookies.clone());
    let response = site.get(&mut victim, &provider.log_in(&location)).await;
    assert_eq!(response.status, 302, "{}", response.text());
    for (browser, expected) in [(&mut attacker, "session-of-mallory"), (&mut victim, "session-of-anna")] {
        assert_eq!(site.get(browser, "/").await.status, 200);
        assert_eq!(header(&site.last_request(), "x-sid"), Some(expected));
    }
}

#[tokio::test]
async fn parts_of_different_cookies_are_no_session() {
    let provider = Provider::with(Behavior { padding: 5000, ..Behavior::default() }).await;
    let site = Site::start(&provider, json!({})).await;
    let (first, second) = (site.logged_in(&provider).await, site.logged_in(&provider).await);
    let count = first.cookies.len();
    assert!(count >= 3 && second.cookies.len() == count, "{:?}", first.names());
    let mut mixed: Vec<(String, Browser)> = Vec::new();
    for index in 0..count {
        let mut browser = first.clone();
        browser.cookies[index].1 = second.cookies[index].1.clone();
        mixed.push((format!("part {index} is of another session"), browser));
        let mut browser = first.clone();
        browser.cookies.remove(index);
        mixed.push((format!("part {index} is missing"), browser));
        let mut browser = first.clone();
        let value = &mut browser.cookies[index].1;
        value.truncate(value.len() - 1);
        mixed.push((format!("part {index} is cut"), browser));
        let mut browser = first.clone();
        browser.cookies[index].1.clear();
        mixed.push((format!("part {index} is empty"), browser));
    }
    let mut swapped = first.clone();
    let (second_part, third_part) = (swapped.cookies[1].1.clone(), swapped.cookies[2].1.clone());
    (swapped.cookies[1].1, swapped.cookies[2].1) = (third_part, second_part);
    mixed.push(("two parts are swapped".to_owned(), swapped));
    let mut as_login = first.clone();
    as_login.cookies = vec![("authorization_abcdefghijkl".to_owned(), first.cookies[0].1.clone())];
    mixed.push(("a session as a login".to_owned(), as_login));
    for (name, mut browser) in mixed {
        let response = site.get(&mut browser, "/").await;
        assert_eq!(response.status, 302, "{name}: {}", response.text());
    }
    let mut intact = first.clone();
    assert_eq!(site.get(&mut intact, "/").await.status, 200);
    assert_eq!(site.endpoint.log.requests().len(), 1);
}

/// The cookie of a login that has begun is not a session, under whatever name it is sent.
#[tokio::test]
async fn logins_that_have_begun_are_no_sessions() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    let mut browser = Browser::default();
    site.begin_login(&mut browser, "/").await;
    let value = browser.cookies[0].1.clone();
    for name in ["session", "session_1", "remember"] {
        let mut renamed = Browser { cookies: vec![(name.to_owned(), value.clone())] };
        assert_eq!(site.get(&mut renamed, "/").await.status, 302, "{name}");
    }
    // Very many cookies, of which most belong to no login.
    let mut flooded = Browser::default();
    for number in 0..150 {
        flooded.cookies.push((format!("authorization_{number:012}"), "1.AAAAAAAAAAAAAAAA".to_owned()));
    }
    let location = site.begin_login(&mut flooded, "/").await;
    let callback = provider.log_in(&location);
    assert_eq!(site.get(&mut flooded, &callback).await.status, 302, "the login is found among all");
    assert_eq!(site.endpoint.log.requests().len(), 0);
}

#[tokio::test]
async fn logouts_lead_only_to_the_configured_page() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({"logout_redirect_uri": ["http://shop.example/bye"]})).await;
    let mut browser = site.logged_in(&provider).await;
    let target = "POST /logout?post_logout_redirect_uri=https://evil.example&redirect=//evil.example HTTP/1.1";
    let headers = "x-forwarded-host: evil.example\r\nreferer: https://evil.example/\r\n";
    let response = browser.send(site.server.address, target, headers, "").await;
    let location = response.header("location").unwrap();
    assert!(location.starts_with(&format!("{}/logout?", provider.issuer)), "{location}");
    assert!(location.contains("post_logout_redirect_uri=http%3A%2F%2Fshop.example%2Fbye"), "{location}");
    assert!(!location.contains("evil.example"), "{location}");
    // Nor does a request without a session learn anything of another one.
    let response = Browser::default().send(site.server.address, "POST /logout HTTP/1.1", "", "").await;
    assert!(!response.header("location").unwrap().contains("id_token_hint"), "{:?}", response.header("location"));
}

/// A provider that is replaced by an attacker's cannot continue the sessions of users.
#[tokio::test]
async fn refreshes_accept_only_tokens_of_the_same_login() {
    for changes in [
        json!({"sub": "mallory"}),
        json!({"aud": "other"}),
        json!({"iss": "https://evil.example"}),
        json!({"exp": 1000}),
        json!({"azp": "other"}),
    ] {
        let provider = Provider::with(Behavior { expires_in: Some(0), ..Behavior::default() }).await;
        let site = Site::start(&provider, json!({})).await;
        let mut browser = site.logged_in(&provider).await;
        provider.set(Behavior { id_token_claims: changes.clone(), ..Behavior::default() });
        assert_eq!(site.get(&mut browser, "/").await.status, 302, "{changes}");
        assert_eq!(site.endpoint.log.requests().len(), 0, "{changes}");
    }
}

/// An attacker has seen a logout token of a user, and sends it again and again.
#[tokio::test]
async fn logout_tokens_of_users_end_sessions_once() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({"backchannel_logout_uri_suffix": "/ended"})).await;
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let claims = |id: &str| json!({"aud": "shop", "events": event, "jti": id, "sub": "anna"});
    let send = async |token: &str| {
        let form_type = "content-type: application/x-www-form-urlencoded\r\n";
        let body = format!("logout_token={token}");
        Browser::default().send(site.server.address, "POST /ended HTTP/1.1", form_type, &body).await.status
    };
    let mut browser = site.logged_in(&provider).await;
    let token = provider.token(&claims("1"));
    assert_eq!(send(&token).await, 200);
    assert_eq!(site.get(&mut browser, "/").await.status, 302);
    // Sessions that began in the second of the logout have ended, too.
    next_second().await;
    let mut browser = site.logged_in(&provider).await;
    assert_eq!(send(&token).await, 200, "the provider may not have got the first response");
    assert_eq!(site.get(&mut browser, "/").await.status, 200);
    assert_eq!(send(&provider.token(&claims("2"))).await, 200);
    assert_eq!(site.get(&mut browser, "/").await.status, 302, "another logout");
}
