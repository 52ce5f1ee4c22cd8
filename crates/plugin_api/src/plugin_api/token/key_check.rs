//! Verification of the signature of a token with the keys of its issuer.

use std::sync::Arc;

use super::jwk::PublishedKey;
use super::key_set::KeySet;
use super::unverified_token::UnverifiedToken;

/// Limit of the keys that one token is verified with.
const MAX_KEYS_TRIED: usize = 8;

/// The result of verifying a token with the keys of an issuer.
pub enum KeyCheck {
    Verified(Arc<PublishedKey>),
    InvalidSignature,
    /// The key that the token refers to is one of another issuer, whose keys are in the same set.
    OtherIssuer,
    /// The token refers to a key that the issuer did not publish when the keys were fetched.
    UnknownKey,
    /// The keys have never been fetched successfully, or the token refers to an unknown key and the last fetch has
    /// failed: it may be a new one.
    NoKeys,
}

impl KeySet {
    /// Verifies the signature of a token. The caller has checked that the issuer may use the algorithm of the token.
    pub fn verify(&self, token: &UnverifiedToken<'_>) -> KeyCheck {
        let keys = self.current();
        let Some(keys) = keys.as_ref() else { return KeyCheck::NoKeys };
        let Some(id) = token.key_id() else {
            let can_verify =
                |key: &&Arc<PublishedKey>| key.for_algorithm(token.algorithm).is_some() && key.may_sign(token);
            let candidates = keys.iter().filter(can_verify).take(MAX_KEYS_TRIED);
            return first_verifying_key(token, candidates).map_or(KeyCheck::InvalidSignature, KeyCheck::Verified);
        };
        let keys_with_id = || keys.iter().filter(|key| key.id.as_deref() == Some(id));
        let of_issuer = || keys_with_id().filter(|key| key.may_sign(token));
        match first_verifying_key(token, of_issuer().take(MAX_KEYS_TRIED)) {
            Some(key) => KeyCheck::Verified(key),
            None if of_issuer().next().is_some() => KeyCheck::InvalidSignature,
            None if keys_with_id().next().is_some() => KeyCheck::OtherIssuer,
            None if self.has_failed_fetch() => KeyCheck::NoKeys,
            None => KeyCheck::UnknownKey,
        }
    }

    /// Whether the issuer still publishes this key.
    pub fn publishes(&self, key: &Arc<PublishedKey>) -> bool {
        self.current().iter().flatten().any(|published| Arc::ptr_eq(published, key))
    }
}

/// The first of the keys that verifies the signature of the token.
fn first_verifying_key<'k>(
    token: &UnverifiedToken<'_>,
    mut keys: impl Iterator<Item = &'k Arc<PublishedKey>>,
) -> Option<Arc<PublishedKey>> {
    let verifies = |key: &&Arc<PublishedKey>| {
        key.for_algorithm(token.algorithm).is_some_and(|key| key.verifies(token.signed, &token.signature))
    };
    keys.find(verifies).cloned()
}
