//! A cache of verified tokens, which avoids verifying the signature of the same token again.
//!
//! A set-associative cache of fixed size without locks. The digest of a token selects a set of a few slots. A
//! token may be replaced by another one at any time; the replaced token is verified again when it is used again.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::{ArcSwapOption, Guard};
use http::HeaderValue;

use crate::plugin_api::consumers::{EntityId, JwtCredential, Sha256Digest};
use crate::plugin_api::token::TimeClaims;
use crate::plugin_api::token::jwk::PublishedKey;

/// The cache, shared by all `jwt` plugins of the process.
#[derive(Debug, Default)]
pub(super) struct TokenCache {
    /// Allocated on first use.
    slots: OnceLock<Box<[ArcSwapOption<VerifiedToken>]>>,
}

/// A verified token. It is valid as long as the key that it was verified with is in use.
#[derive(Debug)]
pub(super) struct VerifiedToken {
    /// Digest of the token and of the configuration of the plugin.
    pub(super) digest: Sha256Digest,
    pub(super) proof: Proof,
    pub(super) times: TimeClaims,
}

/// The key that a token was verified with. Keys are compared by pointer, so a replaced key is a different one, even if
/// it has the same value.
#[derive(Debug)]
pub(super) enum Proof {
    /// A consumer's credential.
    Credential(Arc<JwtCredential>),
    /// A key of the issuer with this index in the configuration.
    Published { issuer: usize, key: Arc<PublishedKey>, subject: TokenSubject },
}

/// The subject of a token that an issuer in `jwks` has signed.
#[derive(Debug)]
pub(super) struct TokenSubject {
    /// Unique id made of issuer and subject.
    pub(super) credential: EntityId,
    /// The subject as the value of `X-Credential-Identifier`.
    pub(super) identifier: Option<HeaderValue>,
    /// The value of the claim that identifies the consumer. Empty if the token does not contain the claim, or if the
    /// issuer has the same consumer for all tokens.
    pub(super) claim: Box<str>,
}

/// Number of sets. With a few hundred bytes per token, a full cache takes some megabytes.
const SETS: usize = 4096;
/// Slots per set.
const WAYS: usize = 4;

impl TokenCache {
    pub(super) fn find(&self, digest: &Sha256Digest) -> Option<Guard<Option<Arc<VerifiedToken>>>> {
        let mut tokens = self.set(digest).iter().map(ArcSwapOption::load);
        tokens.find(|token| token.as_ref().is_some_and(|token| token.digest == *digest))
    }

    /// Stores a token in the slot that already contains it. If there is none, a free slot of its set is used, which is
    /// empty or contains an expired token, and otherwise a random one.
    pub(super) fn insert(&self, token: Arc<VerifiedToken>, now: SystemTime) {
        let set = self.set(&token.digest);
        let has_token =
            |slot: &ArcSwapOption<VerifiedToken>| slot.load().as_ref().is_some_and(|old| old.digest == token.digest);
        let is_free =
            |slot: &ArcSwapOption<VerifiedToken>| slot.load().as_ref().is_none_or(|old| old.times.is_expired(now));
        let way = set.iter().position(has_token).or_else(|| set.iter().position(is_free));
        set[way.unwrap_or_else(|| fastrand::usize(..WAYS))].store(Some(token));
    }

    fn set(&self, digest: &Sha256Digest) -> &[ArcSwapOption<VerifiedToken>] {
        let slots = self.slots.get_or_init(|| (0..SETS * WAYS).map(|_| ArcSwapOption::empty()).collect());
        let set_index = usize::from(u16::from_le_bytes([digest[0], digest[1]])) % SETS;
        &slots[set_index * WAYS..][..WAYS]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::plugin_api::testing::{consumer, noon};

    fn token(number: u8, exp: u64) -> Arc<VerifiedToken> {
        let key = crate::plugin_api::token::signature::HmacSecret::new(
            crate::plugin_api::token::signature::Algorithm::Hs256,
            b"s".to_vec(),
        );
        let key = crate::plugin_api::token::signature::VerificationKey::Secret(key.unwrap());
        let credential = Arc::new(JwtCredential::new(EntityId::from_text("id"), "claim", key, consumer("anna", &[])));
        let times = TimeClaims::from_claims(json!({"exp": exp}).as_object().unwrap());
        let mut digest = [0; 32];
        digest[31] = number;
        Arc::new(VerifiedToken { digest, proof: Proof::Credential(credential), times })
    }

    #[test]
    fn expired_tokens_are_replaced_first() {
        let cache = TokenCache::default();
        let noon_second = noon().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        for number in 0..4 {
            cache.insert(token(number, noon_second + 1 + u64::from(number)), noon());
        }
        let is_cached = || (0..6).map(|number| cache.find(&token(number, 0).digest).is_some()).collect::<Vec<_>>();
        assert_eq!(is_cached(), [true, true, true, true, false, false]);
        cache.insert(token(4, noon_second + 100), noon() + Duration::from_secs(1));
        assert_eq!(is_cached(), [false, true, true, true, true, false], "the first had expired");
        cache.insert(token(3, noon_second + 100), noon() + Duration::from_secs(3));
        assert_eq!(is_cached().iter().filter(|is_cached| **is_cached).count(), 4, "a token has one slot");
        cache.insert(token(5, noon_second + 100), noon());
        assert_eq!(is_cached().iter().filter(|is_cached| **is_cached).count(), 4, "a set has four slots");
    }
}
