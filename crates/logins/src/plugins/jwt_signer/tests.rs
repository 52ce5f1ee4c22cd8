//! Tests of verifying tokens, and of the new ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::fields::{FieldValue, UrlEncodedForm};
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::token::UnverifiedToken;
use crate::plugin_api::token::jwk::PublishedKey;
use crate::plugin_api::token::published_keys::key_set_of_process;
use crate::plugin_api::token::signature::Algorithm;
use crate::plugin_api::token::signature::signing::Signer;
use crate::plugin_api::{ConsumerDirectory, PluginState, RegisteredKind};
use crate::plugin_chain::Chain;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain_with, consumer, noon};
use crate::token_binding::bound_to;

const KIND: RegisteredKind<JwtSigner> = RegisteredKind::NEW;
/// The time of the requests, in seconds since 1970.
const NOW: u64 = 1_767_355_200;

/// An issuer, whose server also introspects the tokens `opaque` and `dpop`, and a plugin with a key of its own.
struct Setup {
    issuer: Signer,
    server: Arc<ScriptedServer>,
    chain: Arc<Chain>,
    state: PluginState,
}

impl Setup {
    fn new(fields: &Value) -> Self {
        let issuer = Signer::for_algorithm(Algorithm::Es256);
        let keys = json!({"keys": [issuer.jwk(Some("k"))]}).to_string();
        let server = ScriptedServer::new(move |request| match request.target.as_str() {
            "/keys" => Ok(response(200, "", &keys)),
            "/introspect" => {
                let form = UrlEncodedForm(&request.body);
                let (is_active, token_type) = match form.find(b"token") {
                    FieldValue::Single(token) if *token == *b"opaque" => (true, "Bearer"),
                    FieldValue::Single(token) if *token == *b"dpop" => (true, "DPoP"),
                    _ => (false, "Bearer"),
                };
                let body = json!({
                    "active": is_active, "sub": "anna", "exp": NOW + 60, "scope": "read", "token_type": token_type,
                });
                Ok(response(200, "", &body.to_string()))
            }
            _ => Ok(response(500, "", "")),
        });
        let mut config = json!({
            "access_token_jwks_uri": "https://issuer.example/keys",
            "access_token_signing_keys": [Signer::for_algorithm(Algorithm::Es256).private_pem()],
        });
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let state = PluginState::default();
        let chain = chain_with(&[(&KIND, config)], &state, &server.services());
        Setup { issuer, server, chain, state }
    }

    fn token(&self, claims: &Value) -> String {
        self.issuer.token(Algorithm::Es256, &json!({"kid": "k"}), claims)
    }

    async fn run(&self, request: TestRequest) -> TestOutcome {
        let mut consumers = ConsumerDirectory::default();
        consumers.add(&consumer("anna", &[]));
        request.with_consumers(&consumers).run(&self.chain).await
    }

    /// The reason of the rejection of a token with these claims.
    async fn rejection(&self, claims: &Value) -> Option<&'static str> {
        let request = TestRequest::get("/").header("authorization", &format!("Bearer {}", self.token(claims)));
        self.run(request).await.reply.map(|reply| reply.reason)
    }

    /// The claims of a new token.
    fn verify(&self, text: &str) -> Value {
        let set = key_set_of_process(&self.state, Some("default"));
        let keys = PublishedKey::parse_set(set.as_bytes()).unwrap();
        let token = UnverifiedToken::parse(text.as_bytes()).unwrap();
        let key = keys.iter().find(|key| key.id.as_deref() == token.key_id()).unwrap();
        assert!(key.for_algorithm(token.algorithm).unwrap().verifies(token.signed, &token.signature));
        Value::Object(token.claims)
    }
}

fn claims(fields: &Value) -> Value {
    let mut claims = json!({"iss": "https://issuer.example", "sub": "anna", "exp": NOW + 60});
    claims.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    claims
}

/// Without the claim of a consumer, the token is only recorded, so that plugins with `anonymous` run afterwards.
#[tokio::test]
async fn tokens_that_identify_no_consumer_are_no_accepted_credential() {
    for (fields, is_accepted) in [(json!({}), false), (json!({"access_token_consumer_claim": ["sub"]}), true)] {
        let setup = Setup::new(&fields);
        let token = setup.token(&claims(&json!({})));
        let outcome = setup.run(TestRequest::get("/").header("authorization", &format!("Bearer {token}"))).await;
        assert_eq!(outcome.message(), None, "{fields}");
        assert!(outcome.state.identity.is_authenticated(), "{fields}");
        assert_eq!(outcome.state.identity.has_accepted_credential(), is_accepted, "{fields}");
    }
}

// docs/kong-compatibility.md, 5.8
#[tokio::test]
async fn verified_tokens_are_signed_again() {
    let setup = Setup::new(&json!({
        "access_token_consumer_claim": ["sub"], "access_token_upstream_leeway": 10,
        "set_access_token_claims": {"env": "test"}, "add_access_token_claims": {"env": "no", "tier": "gold"},
        "remove_access_token_claims": ["email"],
    }));
    let token = setup.token(&claims(&json!({"email": "a@b.example", "tier": "silver"})));
    let run = async |seconds| {
        let mut request = TestRequest::get("/").header("authorization", &format!("bearer {token}"));
        request.now = noon() + Duration::from_secs(seconds);
        let outcome = setup.run(request).await;
        assert_eq!(outcome.message(), None);
        assert_eq!(outcome.upstream_identity(), (Some("anna"), None, false));
        outcome.upstream_header("authorization").unwrap().to_owned()
    };
    let first = run(0).await;
    let found = setup.verify(first.strip_prefix("Bearer ").unwrap());
    let expected = json!({
        "iss": "kong", "sub": "anna", "exp": NOW + 70, "original_iss": "https://issuer.example", "tier": "silver",
        "env": "test",
    });
    assert_eq!(found.as_object().unwrap().len(), expected.as_object().unwrap().len(), "{found}");
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(found[name].as_f64(), value.as_f64(), "{name}");
        assert_eq!(found[name].as_str(), value.as_str(), "{name}");
    }
    assert_eq!(run(29).await, first, "it is signed once");
    assert_ne!(run(30).await, first);
}

#[tokio::test]
async fn tokens_that_are_not_accepted_are_rejected() {
    let setup = Setup::new(&json!({
        "verify_access_token_notbefore": true, "access_token_leeway": 5,
        "access_token_issuers_allowed": ["https://issuer.example"], "access_token_audiences_allowed": ["a", "b"],
        "access_token_subjects_allowed": ["anna"], "access_token_scopes_required": ["read write", "admin"],
    }));
    let valid = json!({"aud": ["x", "b"], "scope": "write read"});
    let with = |fields: Value| {
        let mut claims = claims(&valid);
        claims.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        claims
    };
    for (fields, is_accepted) in [
        (json!({}), true),
        (json!({"exp": NOW - 4}), true),
        (json!({"exp": NOW - 5}), false),
        (json!({"exp": "never"}), false),
        (json!({"nbf": NOW + 5}), true),
        (json!({"nbf": NOW + 6}), false),
        (json!({"iss": "https://other.example"}), false),
        (json!({"aud": "a"}), true),
        (json!({"aud": "c"}), false),
        (json!({"aud": null}), false),
        (json!({"sub": "bert"}), false),
        (json!({"scope": "read"}), false),
        (json!({"scope": ["admin"]}), true),
        (json!({"scope": 1}), false),
        (json!({"at_hash": "a", "nonce": "n"}), true),
        (json!({"typ": "Refresh"}), false),
        (json!({"events": {}}), false),
    ] {
        let expected = (!is_accepted).then_some("wrong_credentials");
        assert_eq!(setup.rejection(&with(fields.clone())).await, expected, "{fields}");
    }
    let other = Signer::for_algorithm(Algorithm::Es256);
    let forged = other.token(Algorithm::Es256, &json!({"kid": "k"}), &with(json!({})));
    let public_key = setup.issuer.token(Algorithm::Hs256, &json!({"kid": "k"}), &with(json!({})));
    for (header, reason) in [
        (Some(format!("Bearer {forged}")), "wrong_credentials"),
        (Some(format!("Bearer {public_key}")), "wrong_credentials"),
        (Some("Bearer x".to_owned()), "wrong_credentials"),
        (None, "no_credentials"),
    ] {
        let request = TestRequest::get("/");
        let request = header.iter().fold(request, |request, value| request.header("authorization", value));
        let outcome = setup.run(request).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::UNAUTHORIZED), "{header:?}");
        assert_eq!(outcome.response_header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
        assert_eq!(outcome.reply.unwrap().reason, reason);
    }
    let token = setup.token(&with(json!({})));
    let twice = TestRequest::get("/").header("authorization", &token).header("authorization", &token);
    assert_eq!(setup.run(twice).await.reply.unwrap().reason, "wrong_credentials");
}

// RFC 8705, section 3
// RFC 9449, section 7.2
#[tokio::test]
async fn bound_tokens_need_the_key_of_the_client() {
    let (own, other) = (CertificateDer::from(vec![1]), CertificateDer::from(vec![2]));
    let channel = json!({
        "channel_token_request_header": "x-app", "channel_token_jwks_uri": "https://issuer.example/keys",
        "access_token_optional": true, "verify_channel_token_binding": false,
    });
    for (fields, header, is_verified) in [
        (json!({}), "authorization", true),
        (json!({"verify_access_token_binding": false}), "authorization", false),
        (channel.clone(), "x-app", false),
        (json!({"verify_channel_token_binding": true}), "x-app", true),
    ] {
        let mut all = if header == "x-app" { channel.clone() } else { json!({}) };
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let setup = Setup::new(&all);
        for (cnf, certificate, is_accepted) in [
            (json!(null), None, true),
            (bound_to(&own), Some(&own), true),
            (bound_to(&own), Some(&other), false),
            (bound_to(&own), None, false),
            (json!({"jkt": "a"}), Some(&own), false),
        ] {
            let token = setup.token(&claims(&json!({"cnf": cnf})));
            // The second time, the token was signed before.
            for _ in 0..2 {
                let mut request = TestRequest::get("/").header(header, &token);
                request.certificates = certificate.map(|certificate| vec![certificate.clone()]);
                let outcome = setup.run(request).await;
                if let (None, "authorization", Some(signed)) = (&outcome.reply, header, outcome.upstream_header(header))
                {
                    let signed = setup.verify(signed.strip_prefix("Bearer ").unwrap());
                    let expected = (!is_verified).then_some(&cnf);
                    assert_eq!(signed.get("cnf"), expected, "the endpoint cannot verify what Portico has verified");
                }
                let reason = outcome.reply.map(|reply| reply.reason);
                let expected = (!is_accepted && is_verified).then_some("wrong_credentials");
                assert_eq!(reason, expected, "{header} {fields} {cnf}");
            }
        }
    }
}

#[tokio::test]
async fn other_tokens_are_introspected() {
    let setup = Setup::new(&json!({
        "access_token_introspection_endpoint": "https://issuer.example/introspect",
        "access_token_introspection_authorization": "Basic YTpi", "access_token_consumer_claim": ["sub"],
        "access_token_upstream_header": "x-identity",
    }));
    for _ in 0..2 {
        let outcome = setup.run(TestRequest::get("/").header("authorization", "Bearer opaque")).await;
        assert_eq!(outcome.message(), None);
        let claims = setup.verify(outcome.upstream_header("x-identity").unwrap());
        assert_eq!((claims["sub"].as_str(), claims.get("active")), (Some("anna"), None));
        assert_eq!(outcome.upstream_header("authorization"), None);
    }
    let introspections = setup.server.requests.lock().iter().filter(|it| it.target == "/introspect").count();
    assert_eq!(introspections, 1);
    // RFC 9449, section 7.2: a token for DPoP is no bearer token.
    for token in ["other", "dpop"] {
        let outcome = setup.run(TestRequest::get("/").header("authorization", &format!("Bearer {token}"))).await;
        assert_eq!(outcome.reply.unwrap().reason, "wrong_credentials", "{token}");
    }
}

#[tokio::test]
async fn channel_tokens_have_rules_of_their_own() {
    let setup = Setup::new(&json!({
        "access_token_optional": true, "access_token_consumer_claim": ["sub"],
        "channel_token_request_header": "x-app", "channel_token_jwks_uri": "https://issuer.example/keys",
        "channel_token_consumer_claim": ["app", "name"], "channel_token_optional": true,
    }));
    let app = |name: &str| setup.token(&claims(&json!({"app": {"name": name}})));
    let outcome = setup.run(TestRequest::get("/").header("x-app", &app("custom-anna"))).await;
    assert_eq!((outcome.message(), outcome.upstream_identity().0), (None, Some("anna")));
    assert_eq!(outcome.upstream_header("x-app"), None, "there is no header for it");
    let outcome = setup.run(TestRequest::get("/").header("x-app", &app("unknown"))).await;
    assert_eq!(outcome.reply.unwrap().reason, "no_consumer");
    let outcome = setup.run(TestRequest::get("/")).await;
    assert_eq!((outcome.message(), outcome.upstream_identity().0), (None, None));
}

#[tokio::test]
async fn tokens_are_not_accepted_while_keys_are_missing() {
    for fields in [
        json!({"access_token_jwks_uri": "https://issuer.example/down"}),
        json!({"access_token_jwks_uri": null, "access_token_introspection_endpoint": "https://issuer.example/down"}),
    ] {
        let outcome = Setup::new(&fields);
        let request = TestRequest::get("/").header("authorization", &outcome.token(&claims(&json!({}))));
        let outcome = outcome.run(request).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::SERVICE_UNAVAILABLE), "{fields}");
        assert_eq!(outcome.reply.unwrap().reason, "no_keys");
    }
}

/// A token with a new key may be valid.
#[tokio::test(start_paused = true)]
async fn new_keys_that_cannot_be_fetched_are_missing() {
    let issuer = Signer::for_algorithm(Algorithm::Es256);
    let (keys, is_down) = (json!({"keys": [issuer.jwk(Some("a"))]}).to_string(), Arc::new(AtomicBool::new(false)));
    let keys_are_down = Arc::clone(&is_down);
    let server = ScriptedServer::new(move |_| match keys_are_down.load(Ordering::Relaxed) {
        true => Ok(response(500, "", "")),
        false => Ok(response(200, "", &keys)),
    });
    let config = json!({
        "access_token_jwks_uri": "https://issuer.example/keys",
        "access_token_signing_keys": [Signer::for_algorithm(Algorithm::Es256).private_pem()],
    });
    let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &server.services());
    let reason = async |key: &str| {
        let token = issuer.token(Algorithm::Es256, &json!({"kid": key}), &claims(&json!({})));
        let outcome = TestRequest::get("/").header("authorization", &token).run(&chain).await;
        outcome.reply.map(|reply| reply.reason)
    };
    assert_eq!(reason("a").await, None);
    assert_eq!(reason("b").await, Some("wrong_credentials"));
    is_down.store(true, Ordering::Relaxed);
    for request in ["the first one, which causes a fetch", "the next one"] {
        assert_eq!(reason("b").await, Some("no_keys"), "{request}");
    }
    assert_eq!(reason("a").await, None);
}

#[test]
fn invalid_configurations_name_the_field() {
    let key = Signer::for_algorithm(Algorithm::Es256).private_pem();
    let valid = json!({"access_token_jwks_uri": "https://issuer.example/keys", "access_token_signing_keys": [key]});
    assert!(build(&KIND, &valid).is_ok());
    for (fields, field) in [
        (json!({"access_token_jwks_uri": null}), "config.access_token_jwks_uri"),
        (json!({"access_token_jwks_uri": "issuer.example"}), "config.access_token_jwks_uri"),
        (json!({"access_token_signing_keys": []}), "config.access_token_signing_keys"),
        (json!({"access_token_signing_keys": ["x"]}), "config.access_token_signing_keys[0]"),
        (json!({"access_token_signing_algorithm": "RS256"}), "config.access_token_signing_keys[0]"),
        (json!({"access_token_request_header": "a b"}), "config.access_token_request_header"),
        (json!({"access_token_upstream_header": "a b"}), "config.access_token_upstream_header"),
        (json!({"access_token_upstream_header": "a:b c"}), "config.access_token_upstream_header"),
        (json!({"verify_access_token_signature": false}), "config.verify_access_token_signature"),
        (json!({"enable_hs_signatures": true}), "config.enable_hs_signatures"),
        (json!({"access_token_introspection_endpoint": "x"}), "config.access_token_introspection_endpoint"),
        (json!({"channel_token_request_header": "x-app"}), "config.channel_token_jwks_uri"),
    ] {
        let mut config = valid.clone();
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{fields} was accepted"));
        assert_eq!(invalid[0].field, field, "{fields}: {invalid:?}");
    }
}
