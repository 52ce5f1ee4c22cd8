//! Access tokens of several issuers: each is verified with the keys of the issuer that it names, whatever the others
//! publish, and whether or not they are available.

use serde_json::{Value, json};

use super::Site;
use super::browser::Browser;
use super::forgeries::Forgery;
use super::provider::{CLIENT, Provider, SigningKey, base_claims, with};
use crate::harness::refusing_address;

/// The address of a server that does not exist.
fn nowhere() -> String {
    format!("http://{}", refusing_address())
}

/// The fields for a partner with a document, and for an issuer whose name is no URL.
fn issuers(partner: &str, robots: &str) -> Value {
    json!({
        "audience_required": ["shop"],
        "bearer_issuers": [
            {"issuer": partner, "audiences": ["partners"]},
            {"issuer": "robots", "jwks_uri": format!("{robots}/keys"), "audiences": ["robots", "shop"]},
        ],
    })
}

/// A token of anna.
fn token(key: &SigningKey, issuer: &Value, audience: Value) -> String {
    key.sign("ES256", &with(base_claims(""), &json!({"iss": issuer, "aud": audience, "sub": "anna"})))
}

async fn send(site: &Site, token: &str) -> u16 {
    site.send(&format!("authorization: Bearer {token}\r\n")).await.status
}

/// All providers use the same key id.
#[tokio::test]
async fn tokens_are_verified_with_the_keys_of_their_own_issuer() {
    let (own, partner, robots) = (Provider::start().await, Provider::start().await, Provider::start().await);
    let site = Site::start(&own, issuers(&partner.issuer, &robots.issuer)).await;
    let [own_name, partner_name, robots_name] = [json!(own.issuer), json!(partner.issuer), json!("robots")];
    let with_slash = json!(format!("{}/", partner.issuer));
    let [own_key, partner_key, robots_key] = [&own.key, &partner.key, &robots.key];
    for (name, key, issuer, audience, status) in [
        ("the provider", own_key, &own_name, json!("shop"), 200),
        ("the partner", partner_key, &partner_name, json!(["partners"]), 200),
        ("the robots", robots_key, &robots_name, json!(["x", "robots"]), 200),
        ("the provider with the key of the partner", partner_key, &own_name, json!("shop"), 401),
        ("the provider with the key of the robots", robots_key, &own_name, json!("shop"), 401),
        ("the partner with the key of the provider", own_key, &partner_name, json!("partners"), 401),
        ("the partner with the key of the robots", robots_key, &partner_name, json!("partners"), 401),
        ("the robots with the key of the partner", partner_key, &robots_name, json!("shop"), 401),
        ("the audience of another issuer", partner_key, &partner_name, json!("shop"), 401),
        ("the audience of another issuer, at the provider", own_key, &own_name, json!("partners"), 403),
        ("no audience", partner_key, &partner_name, Value::Null, 401),
        ("no issuer, with the key of the provider", own_key, &Value::Null, json!("shop"), 401),
        ("no issuer, with the key of the partner", partner_key, &Value::Null, json!("partners"), 401),
        ("a slash at the end", partner_key, &with_slash, json!("partners"), 401),
        ("another case", robots_key, &json!("Robots"), json!("shop"), 401),
        ("a space at the end", robots_key, &json!("robots "), json!("shop"), 401),
        ("a list of issuers", partner_key, &json!([partner.issuer]), json!("partners"), 401),
        ("an empty issuer", robots_key, &json!(""), json!("shop"), 401),
        ("an unknown issuer", robots_key, &json!("https://evil.example"), json!("shop"), 401),
    ] {
        let token = token(key, issuer, audience);
        // The second time, the result may come from the cache.
        assert_eq!((send(&site, &token).await, send(&site, &token).await), (status, status), "{name}");
    }
    let expired = json!({"iss": "robots", "aud": "robots", "exp": 1000});
    assert_eq!(send(&site, &robots.key.sign("ES256", &with(base_claims(""), &expired))).await, 401);
    let valid = with(base_claims(""), &json!({"iss": "robots", "aud": "robots"}));
    for forgery in Forgery::all(&robots.key) {
        assert_eq!(send(&site, &forgery.token(&valid)).await, 401, "{forgery}");
    }
    assert_eq!(robots.requests("/keys").len(), 1, "forged tokens cause no fetch of the keys");
    assert_eq!(send(&site, &robots.key.sign("ES256", &valid)).await, 200, "the claims are valid");
    let id_token = with(valid, &json!({"typ": "ID"}));
    assert_eq!(send(&site, &robots.key.sign("ES256", &id_token)).await, 401, "an ID token of Keycloak");
    let unknown = SigningKey::generate("second");
    assert_eq!(send(&site, &token(&unknown, &partner_name, json!("partners"))).await, 401, "an unknown key");
}

/// An application that gets the ID token of a user must not be able to use it at APIs.
// OpenID Connect Core 1.0, sections 2 and 3.3.2.11
// RFC 8725, section 3.11
#[tokio::test]
async fn id_tokens_of_no_issuer_are_access_tokens() {
    let (own, partner) = (Provider::start().await, Provider::start().await);
    let fields = issuers(&partner.issuer, &partner.issuer);
    let site = Site::start(&own, fields.clone()).await;
    let lenient = Site::start(&own, with(fields, &json!({"allow_id_tokens": true}))).await;
    for (provider, audience) in [(&own, "shop"), (&partner, "partners")] {
        for (typ, claims, statuses) in [
            (json!(null), json!({}), [200, 200]),
            (json!("JWT"), json!({"nonce": "n"}), [401, 200]),
            (json!("JWT"), json!({"at_hash": "h"}), [401, 200]),
            (json!("JWT"), json!({"c_hash": "h"}), [401, 200]),
            (json!("JWT"), json!({"typ": "ID"}), [401, 200]),
            (json!("JWT"), json!({"typ": "Bearer", "nonce": "n"}), [200, 200]),
            (json!("at+jwt"), json!({"nonce": "n"}), [200, 200]),
            (json!("logout+jwt"), json!({}), [401, 401]),
            (json!("dpop+jwt"), json!({}), [401, 401]),
            (json!("secevent+jwt"), json!({}), [401, 401]),
        ] {
            let header = with(json!({"alg": "ES256", "kid": "first"}), &json!({"typ": typ}));
            let identity = json!({"aud": audience, "sub": "anna"});
            let claims = with(with(base_claims(&provider.issuer), &identity), &claims);
            let token = provider.key.sign_with(&header, claims.to_string());
            let found = [send(&site, &token).await, send(&lenient, &token).await];
            assert_eq!(found, statuses, "{header} {claims}");
        }
    }
}

/// Only the provider logs users in and out.
#[tokio::test]
async fn further_issuers_only_issue_access_tokens() {
    let (own, partner) = (Provider::start().await, Provider::start().await);
    let fields = with(issuers(&partner.issuer, &partner.issuer), &json!({"backchannel_logout_uri_suffix": "/ended"}));
    let site = Site::start(&own, fields).await;
    let mut browser = site.logged_in(&own).await;
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let claims = json!({"aud": [CLIENT, "partners"], "azp": CLIENT, "events": event, "jti": "1", "sub": "anna"});
    for issuer in [&partner.issuer, &own.issuer] {
        let token = partner.key.sign("ES256", &with(base_claims(issuer), &claims));
        let form_type = "content-type: application/x-www-form-urlencoded\r\n";
        let body = format!("logout_token={token}");
        let response = Browser::default().send(site.server.address, "POST /ended HTTP/1.1", form_type, &body).await;
        assert_eq!(response.status, 400, "{issuer}");
        assert_eq!(send(&site, &token).await, 401, "a logout token is no access token");
    }
    assert_eq!(site.get(&mut browser, "/").await.status, 200, "the session continues");
    assert_eq!(send(&site, "opaque").await, 403, "introspected by the provider, and for no audience");
    assert_eq!((own.requests("/introspect").len(), partner.requests("/introspect").len()), (1, 0));
}

#[tokio::test]
async fn an_issuer_that_is_not_available_does_not_affect_the_others() {
    let (own, partner) = (Provider::start().await, Provider::start().await);
    let dead = nowhere();
    for (name, fields, statuses) in [
        ("the robots", issuers(&partner.issuer, &dead), [200, 200, 503]),
        ("the partner", issuers(&dead, &partner.issuer), [200, 503, 200]),
        (
            "the provider",
            with(issuers(&partner.issuer, &partner.issuer), &json!({"issuer": dead})),
            // The document might say that the provider has this name.
            [503, 200, 200],
        ),
    ] {
        let site = Site::start(&own, fields).await;
        let of_dead = name == "the partner";
        let partner_name = if of_dead { json!(dead) } else { json!(partner.issuer) };
        let tokens = [
            token(&own.key, &json!(own.issuer), json!("shop")),
            token(&partner.key, &partner_name, json!("partners")),
            token(&partner.key, &json!("robots"), json!("robots")),
        ];
        for (token, status) in tokens.iter().zip(statuses) {
            assert_eq!(send(&site, token).await, status, "{name} is not available: {token}");
        }
        assert_eq!(site.endpoint.log.requests().len(), 2, "{name}");
    }
}
