//! Tests of valid and invalid JSON Web Key Sets.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::plugin_api::token::signature::signing::Signer;

/// Parses a set of these keys.
fn parse(keys: &[Value]) -> Vec<PublishedKey> {
    PublishedKey::parse_set(json!({"keys": keys, "more": 1}).to_string().as_bytes()).unwrap()
}

#[test]
fn keys_of_every_family_verify_signatures() {
    let algorithms = [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::Es512, Algorithm::EdDsa];
    for algorithm in algorithms {
        let signer = Signer::for_algorithm(algorithm);
        let [key] = &parse(&[signer.jwk(Some("a"))])[..] else { panic!("{algorithm}: no key") };
        assert_eq!(key.id.as_deref(), Some("a"));
        for other in Algorithm::ALL {
            let Some(key) = key.for_algorithm(other) else {
                assert_ne!(other.family(), algorithm.family(), "{other}");
                continue;
            };
            assert_eq!(other.family(), algorithm.family(), "{other}");
            assert!(key.verifies(b"m", &signer.sign(other, b"m")), "{other}");
        }
    }
}

#[test]
fn unusable_keys_are_ignored() {
    let rsa = Signer::for_algorithm(Algorithm::Rs256).jwk(None);
    let curve = Signer::for_algorithm(Algorithm::Es256).jwk(None);
    let with_member = |key: &Value, name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    let algorithms = |key: &PublishedKey| {
        Algorithm::ALL
            .into_iter()
            .filter(|algorithm| key.for_algorithm(*algorithm).is_some())
            .map(Algorithm::name)
            .collect::<Vec<_>>()
    };
    let cases: [(Value, &[&str]); 19] = [
        (rsa.clone(), &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
        (with_member(&rsa, "alg", "PS384".into()), &["PS384"]),
        (with_member(&rsa, "alg", "ES256".into()), &[]),
        (with_member(&rsa, "alg", "HS256".into()), &[]),
        (with_member(&rsa, "alg", "RSA-OAEP".into()), &[]),
        (with_member(&rsa, "alg", 7.into()), &[]),
        (with_member(&rsa, "use", "enc".into()), &[]),
        (with_member(&curve, "use", "sig".into()), &["ES256"]),
        (with_member(&curve, "key_ops", json!(["verify"])), &["ES256"]),
        (with_member(&curve, "key_ops", json!(["encrypt"])), &[]),
        (with_member(&curve, "crv", "P-384".into()), &[]),
        (with_member(&curve, "crv", "secp256k1".into()), &[]),
        (with_member(&curve, "x", "AA".into()), &[]),
        (with_member(&curve, "y", curve["x"].clone()), &[]),
        (with_member(&rsa, "n", "AQAB".into()), &[]),
        (with_member(&rsa, "e", "".into()), &[]),
        (json!({"kty": "oct", "k": "YQ", "alg": "HS256"}), &[]),
        (json!({"kty": "OKP", "crv": "Ed448", "x": "YQ"}), &[]),
        (json!("key"), &[]),
    ];
    for (jwk, expected) in cases {
        let found: Vec<&str> = parse(std::slice::from_ref(&jwk)).iter().flat_map(algorithms).collect();
        assert_eq!(found, expected, "{jwk}");
    }
    assert_eq!(parse(&vec![curve; MAX_KEYS + 1]).len(), MAX_KEYS);
    assert!(parse(&[]).is_empty(), "an empty set is valid");
}

#[test]
fn invalid_key_sets_are_rejected() {
    for text in ["", "[]", "{}", r#"{"keys": {}}"#, "<html>", r#"{"keys": []"#] {
        assert_eq!(PublishedKey::parse_set(text.as_bytes()), Err(InvalidKeySet), "{text}");
    }
}

proptest! {
    #[test]
    fn parsing_key_sets_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        kty in prop_oneof![Just("RSA"), Just("EC"), Just("OKP"), Just("oct")],
        crv in prop_oneof![Just("P-256"), Just("P-521"), Just("Ed25519")],
        value in "[A-Za-z0-9_=-]{0,90}",
    ) {
        let _arbitrary = PublishedKey::parse_set(&bytes);
        let key = json!({"kty": kty, "crv": crv, "x": value, "y": value, "n": value, "e": value, "k": value});
        let _well_formed = PublishedKey::parse_set(json!({"keys": [key]}).to_string().as_bytes());
    }
}
