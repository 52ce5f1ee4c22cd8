//! Introspected tokens: the provider decides about them, and without it they are not accepted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::provider::{Behavior, Provider, now, with};
use super::{Site, header};
use crate::harness::refusing_address;

const OPAQUE: &str = "authorization: Bearer opaque\r\n";

// RFC 7662, sections 2.2 and 4
#[tokio::test]
async fn introspections_must_be_about_a_valid_access_token_of_the_provider() {
    let provider = Provider::start().await;
    let site = Site::start(&provider, json!({"cache_introspection": false})).await;
    let urn = "urn:ietf:params:oauth:token-type:refresh_token";
    for (introspection, status) in [
        (json!({}), 200),
        (json!({"iss": provider.issuer}), 200),
        (json!({"iss": "https://evil.example"}), 401),
        (json!({"iss": format!("{}/", provider.issuer)}), 401),
        (json!({"iss": [provider.issuer]}), 401),
        (json!({"iss": ""}), 401),
        (json!({"nbf": now()}), 200),
        (json!({"nbf": now() + 600}), 401),
        (json!({"nbf": "1000"}), 401),
        (json!({"exp": null}), 200),
        (json!({"exp": now() - 1}), 401),
        (json!({"exp": 1000.5}), 401),
        (json!({"exp": "99999999999"}), 401),
        (json!({"active": false}), 401),
        (json!({"active": null}), 401),
        (json!({"active": "true"}), 401),
        (json!({"active": 1}), 401),
        (json!({"active": [true]}), 401),
        (json!({"token_type": "Bearer"}), 200),
        (json!({"token_type": "access_token"}), 200),
        (json!({"token_type": "refresh_token"}), 401),
        (json!({"token_type": "Refresh_Token"}), 401),
        (json!({"token_type": "id_token"}), 401),
        (json!({"token_type": urn}), 401),
        // RFC 9449, section 7.2
        (json!({"token_type": "DPoP"}), 401),
        (json!({"token_type": "dpop"}), 401),
        // Ory Hydra and Dex
        (json!({"token_type": "Bearer", "token_use": "access_token"}), 200),
        (json!({"token_type": "Bearer", "token_use": "refresh_token"}), 401),
        // Keycloak
        (json!({"typ": "Bearer"}), 200),
        (json!({"typ": "Refresh"}), 401),
        (json!({"typ": "Offline"}), 401),
        (json!({"typ": "ID"}), 401),
        (json!({"events": {}}), 401),
        (json!({"events": null}), 200),
    ] {
        provider.set(Behavior { introspection: introspection.clone(), ..Behavior::default() });
        let before = site.endpoint.log.requests().len();
        let response = site.send(OPAQUE).await;
        assert_eq!(response.status, status, "{introspection}: {}", response.text());
        assert_eq!(site.endpoint.log.requests().len() - before, usize::from(status == 200), "{introspection}");
    }
}

/// While it is unknown whether a credential is valid, its client must not be taken for the anonymous consumer.
#[tokio::test]
async fn without_the_provider_clients_with_credentials_are_not_anonymous() {
    let provider = Provider::start().await;
    let config = json!({"anonymous": "anna"});
    let site = Site::start(&provider, config.clone()).await;
    let limited = Site::start(&provider, with(config.clone(), &json!({"timeout": 200}))).await;
    let password = format!("authorization: Basic {}\r\n", STANDARD.encode("anna:a:pass wörd"));
    for anonymous in ["", "authorization: Bearer unknown\r\n"] {
        assert_eq!(site.send(anonymous).await.status, 200);
        assert_eq!(header(&site.last_request(), "x-anonymous-consumer"), Some("true"), "{anonymous}");
    }
    let fails = Behavior { introspection_fails: true, ..Behavior::default() };
    let stalls = |path| Behavior { stalls_at: Some(path), ..Behavior::default() };
    let says = |path, body: &str| Behavior { bodies: vec![(path, body.to_owned())], ..Behavior::default() };
    for (name, behavior, credential) in [
        ("an introspection that fails", fails, OPAQUE),
        ("an introspection without a response", stalls("/introspect"), OPAQUE),
        ("an introspection that is a page", says("/introspect", "<html>"), OPAQUE),
        ("an introspection that is a list", says("/introspect", r#"[{"active": true}]"#), OPAQUE),
        ("no response with tokens", stalls("/token"), &password),
        ("a page instead of tokens", says("/token", "<html>"), &password),
    ] {
        provider.set(behavior);
        let response = limited.send(credential).await;
        assert_eq!(response.status, 503, "{name}: {}", response.text());
    }
    provider.set(says("/keys", "<html>"));
    let without_keys = Site::start(&provider, config.clone()).await;
    let signed = format!("authorization: Bearer {}\r\n", provider.token(&json!({"sub": "anna"})));
    assert_eq!(without_keys.send(&signed).await.status, 503, "no keys");
    let mut dead = config;
    dead["issuer"] = json!(format!("http://{}", refusing_address()));
    let without_provider = Site::start(&provider, dead).await;
    for credential in [OPAQUE, &password, &signed] {
        assert_eq!(without_provider.send(credential).await.status, 503, "no provider: {credential}");
    }
    for (site, expected) in [(&site, 2), (&limited, 0), (&without_keys, 0), (&without_provider, 0)] {
        assert_eq!(site.endpoint.log.requests().len(), expected);
    }
}

/// A client that is known, but not allowed, does not become the anonymous consumer.
#[tokio::test]
async fn clients_that_are_forbidden_are_not_anonymous() {
    let provider = Provider::start().await;
    for (fields, status) in [
        (json!({}), 200),
        (json!({"scopes_required": ["write"]}), 403),
        (json!({"consumer_claim": ["sub"]}), 403),
        (json!({"acr_required": ["gold"]}), 401),
    ] {
        let mut config = fields.clone();
        config["anonymous"] = json!("anna");
        let site = Site::start(&provider, config).await;
        assert_eq!(site.send(OPAQUE).await.status, status, "{fields}");
        assert_eq!(site.endpoint.log.requests().len(), usize::from(status == 200), "{fields}");
    }
}
