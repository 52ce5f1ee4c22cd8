//! The limits of tokens, and of what providers send. What exceeds one is valid in every other respect, and is accepted
//! just below the limit.

use serde_json::{Value, json};

use super::Site;
use super::browser::Browser;
use super::provider::{Behavior, CLIENT, Provider, SigningKey, base_claims, with};

/// How many lists may be in each other in a member of an object: serde_json reads 127 levels.
const MAX_DEPTH: usize = 126;

/// Lists in each other.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!("a"), |inner, _| Value::Array(vec![inner]))
}

fn padding(bytes: usize) -> Value {
    "x".repeat(bytes).into()
}

async fn send(site: &Site, token: &str) -> u16 {
    site.send(&format!("authorization: Bearer {token}\r\n")).await.status
}

#[tokio::test]
async fn tokens_have_a_limited_depth_and_length() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    let valid = with(base_claims(&provider.issuer), &json!({"sub": "anna", "aud": CLIENT}));
    let by_claims = |member: Value| provider.key.sign("ES256", &with(valid.clone(), &json!({"a": member})));
    let by_header = |member: Value| {
        let header = json!({"alg": "ES256", "kid": "first", "a": member});
        provider.key.sign_with(&header, valid.to_string())
    };
    // As text, because the lists of a value this deep could not be written.
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let deep = format!("{},\"a\":{deep}}}", valid.to_string().trim_end_matches('}'));
    for (name, token, status) in [
        ("nested claims", by_claims(nested(MAX_DEPTH)), 200),
        ("claims nested too deep", by_claims(nested(MAX_DEPTH + 1)), 401),
        ("claims nested very deep", provider.key.sign_with(&json!({"alg": "ES256"}), deep), 401),
        ("a nested header", by_header(nested(MAX_DEPTH)), 200),
        ("a header nested too deep", by_header(nested(MAX_DEPTH + 1)), 401),
        ("long claims", by_claims(padding(30_000)), 200),
        ("a long header", by_header(padding(30_000)), 200),
        ("more claims than a head may have", by_claims(padding(60_000)), 431),
        ("more of a header than a head may have", by_header(padding(60_000)), 431),
    ] {
        assert_eq!(send(&site, &token).await, status, "{name}");
    }
    assert_eq!(site.endpoint.log.requests().len(), 4);
}

#[tokio::test]
async fn token_responses_have_a_limited_depth_and_length() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({})).await;
    for (name, member, status) in [
        ("nested", nested(MAX_DEPTH), 302),
        ("nested too deep", nested(MAX_DEPTH + 1), 503),
        ("long", padding(200_000), 302),
        ("too long", padding(300_000), 503),
    ] {
        provider.set(Behavior { token_members: json!({"a": member}), ..Behavior::default() });
        let mut browser = Browser::default();
        let callback = provider.log_in(&site.begin_login(&mut browser, "/").await);
        let response = site.get(&mut browser, &callback).await;
        assert_eq!(response.status, status, "{name}: {}", response.text());
        assert_eq!(browser.names().contains(&"session"), status == 302, "{name}: {:?}", browser.names());
    }
}

#[tokio::test]
async fn introspections_have_a_limited_depth_and_length() {
    for (name, member, status) in [
        ("nested", nested(MAX_DEPTH), 200),
        ("nested too deep", nested(MAX_DEPTH + 1), 503),
        ("long", padding(200_000), 200),
        ("too long", padding(300_000), 503),
    ] {
        let introspection = json!({"a": member});
        let provider = Provider::with(Behavior { introspection, ..Behavior::default() }).await;
        let site = Site::start(&provider, json!({})).await;
        assert_eq!(send(&site, "opaque").await, status, "{name}");
    }
}

#[tokio::test]
async fn documents_have_a_limited_depth_and_length() {
    for (name, member, status) in [
        ("nested", nested(MAX_DEPTH), 302),
        ("nested too deep", nested(MAX_DEPTH + 1), 503),
        ("long", padding(200_000), 302),
        ("too long", padding(300_000), 503),
    ] {
        let provider = Provider::with(Behavior { document: json!({"a": member}), ..Behavior::default() }).await;
        let site = Site::start(&provider, json!({})).await;
        let response = site.get(&mut Browser::default(), "/").await;
        assert_eq!(response.status, status, "{name}: {}", response.text());
    }
}

#[tokio::test]
async fn key_sets_have_a_limited_depth_and_length() {
    let provider = Provider::start().await;
    for (name, member, status) in [
        ("nested", nested(MAX_DEPTH), 200),
        ("nested too deep", nested(MAX_DEPTH + 1), 503),
        ("long", padding(1_000_000), 200),
        ("too long", padding(1_100_000), 503),
    ] {
        let set = json!({"keys": [provider.key.jwk()], "a": member}).to_string();
        provider.set(Behavior { bodies: vec![("/keys", set)], ..Behavior::default() });
        let site = Site::start(&provider, json!({})).await;
        assert_eq!(send(&site, &provider.token(&json!({"sub": "anna"}))).await, status, "{name}");
    }
}

/// An issuer that publishes many keys with the same id, or without one, must not multiply the cost of each token.
#[tokio::test]
async fn tokens_are_verified_with_a_few_keys_only() {
    /// As in crates/plugin_api/src/plugin_api/token/key_check.rs.
    const MAX_KEYS_TRIED: usize = 8;
    let provider = Provider::start().await;
    let claims = with(base_claims(&provider.issuer), &json!({"sub": "anna"})).to_string();
    let own = provider.key.jwk();
    for id in [json!("first"), Value::Null] {
        // Keys that cannot verify the token do not count.
        let unfit = [json!({"alg": "ES384"}), json!({"use": "enc"}), json!({"kid": "other", "alg": "RS256"})];
        let unfit = unfit.map(|changes| with(own.clone(), &changes)).to_vec();
        for (before, status) in [(MAX_KEYS_TRIED - 1, 200), (MAX_KEYS_TRIED, 401)] {
            let others = (0..before).map(|_| with(SigningKey::generate("").jwk(), &json!({"kid": id})));
            let keys: Vec<Value> =
                unfit.iter().cloned().chain(others).chain([with(own.clone(), &json!({"kid": id}))]).collect();
            let set = json!({ "keys": keys }).to_string();
            provider.set(Behavior { bodies: vec![("/keys", set)], ..Behavior::default() });
            let site = Site::start(&provider, json!({})).await;
            let header = with(json!({"alg": "ES256"}), &json!({"kid": id}));
            let token = provider.key.sign_with(&header, &claims);
            assert_eq!(send(&site, &token).await, status, "{before} keys before, with the id {id}");
        }
    }
}
