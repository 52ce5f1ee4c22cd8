//! What tokens of one user at one client have in common, so that a renewed token stands for the same as the old one.

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Map, Value};

/// The digest of all claims but those that each token has for itself: times, ids, and hashes of other tokens.
pub fn lasting_claims<'c>(tokens: impl IntoIterator<Item = &'c Map<String, Value>>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut add = |text: &str| {
        context.update(&(text.len() as u64).to_le_bytes());
        context.update(text.as_bytes());
    };
    for claims in tokens {
        let lasting = claims.iter().filter(|(name, _)| !OF_ONE_TOKEN.contains(&name.as_str()));
        add(&lasting.clone().count().to_string());
        for (name, value) in lasting {
            add(name);
            add(&value.to_string());
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// RFC 7519, section 4.1, and OpenID Connect Core, sections 2 and 3.3.2.11; the last three are those that Microsoft
/// Entra documents as internal.
const OF_ONE_TOKEN: [&str; 10] = ["exp", "iat", "nbf", "jti", "at_hash", "c_hash", "nonce", "aio", "rh", "uti"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_renewed_token_stands_for_the_same() {
        let digest = |tokens: &[Value]| lasting_claims(tokens.iter().map(|token| token.as_object().unwrap()));
        let token = digest(&[json!({"sub": "anna", "scope": "read", "exp": 1, "jti": "a"})]);
        assert_eq!(token, digest(&[json!({"sub": "anna", "scope": "read", "exp": 2, "iat": 1, "jti": "b"})]));
        for other in [
            json!({"sub": "bert", "scope": "read"}),
            json!({"sub": "anna", "scope": "read write"}),
            json!({"sub": "anna"}),
            json!({"sub": "anna", "scope": ["read"]}),
        ] {
            assert_ne!(token, digest(std::slice::from_ref(&other)), "{other}");
        }
        assert_ne!(digest(&[json!({"a": 1}), json!({"b": 2})]), digest(&[json!({"a": 1, "b": 2})]));
    }
}
