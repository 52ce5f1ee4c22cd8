//! A cache of verified tokens, which avoids verifying the signature of the same token again.
//!
//! A set-associative cache of fixed size without locks. The digest of a token selects a set of a few slots; an entry
//! may be replaced by another token at any time, and its token is then verified again.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::{ArcSwapOption, Guard};
use http::HeaderValue;

use super::time_claims::TimeClaims;
use crate::plugin_api::consumers::{EntityId, JwtCredential, Sha256Digest};
use crate::plugin_api::jwk::PublishedKey;

/// The cache, shared by all `jwt` plugins of the process.
#[derive(Debug, Default)]
pub(super) struct TokenCache {
    /// Allocated on first use.
    slots: OnceLock<Box<[ArcSwapOption<VerifiedToken>]>>,
}

/// A verified token. Valid as long as the key it was verified with is in use.
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

/// The subject of a token of an issuer.
#[derive(Debug)]
pub(super) struct TokenSubject {
    /// Unique id made of issuer and subject.
    pub(super) credential: EntityId,
    /// The subject as the value of `X-Credential-Identifier`.
    pub(super) identifier: Option<HeaderValue>,
    /// The value of the claim that identifies the consumer.
    pub(super) claim: Box<str>,
}

/// With a few hundred bytes per token, a full cache takes some megabytes.
const SETS: usize = 4096;
/// Slots per set.
const WAYS: usize = 4;

impl TokenCache {
    pub(super) fn find(&self, digest: &Sha256Digest) -> Option<Guard<Option<Arc<VerifiedToken>>>> {
        let entries = self.set(digest).iter().map(ArcSwapOption::load);
        entries.into_iter().find(|entry| entry.as_ref().is_some_and(|entry| entry.digest == *digest))
    }

    pub(super) fn insert(&self, entry: Arc<VerifiedToken>, now: SystemTime) {
        let set = self.set(&entry.digest);
        let own = set.iter().position(|place| place.load().as_ref().is_some_and(|known| known.digest == entry.digest));
        let is_free = |place: &ArcSwapOption<VerifiedToken>| {
            place.load().as_ref().is_none_or(|known| known.times.is_expired(now))
        };
        let at = own.or_else(|| set.iter().position(is_free)).unwrap_or_else(|| fastrand::usize(..WAYS));
        set[at].store(Some(entry));
    }

    fn set(&self, digest: &Sha256Digest) -> &[ArcSwapOption<VerifiedToken>] {
        let places = self.slots.get_or_init(|| (0..SETS * WAYS).map(|_| ArcSwapOption::empty()).collect());
        let set = usize::from(u16::from_le_bytes([digest[0], digest[1]])) % SETS;
        &places[set * WAYS..][..WAYS]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::plugin_api::testing::{consumer, noon};

    fn entry(number: u8, exp: u64) -> Arc<VerifiedToken> {
        let key = crate::plugin_api::signature::HmacSecret::new(
            crate::plugin_api::signature::Algorithm::Hs256,
            b"s".to_vec(),
        );
        let key = crate::plugin_api::signature::VerificationKey::Secret(key.unwrap());
        let credential = Arc::new(JwtCredential::new(EntityId::from_text("id"), "claim", key, consumer("anna", &[])));
        let times = TimeClaims::from_claims(json!({"exp": exp}).as_object().unwrap());
        let mut digest = [0; 32];
        digest[31] = number;
        Arc::new(VerifiedToken { digest, proof: Proof::Credential(credential), times })
    }

    #[test]
    fn expired_tokens_are_replaced_first() {
        let verified = TokenCache::default();
        let end = noon().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        for number in 0..4 {
            verified.insert(entry(number, end + 1 + u64::from(number)), noon());
        }
        let found = || (0..6).map(|number| verified.find(&entry(number, 0).digest).is_some()).collect::<Vec<_>>();
        assert_eq!(found(), [true, true, true, true, false, false]);
        verified.insert(entry(4, end + 100), noon() + Duration::from_secs(1));
        assert_eq!(found(), [false, true, true, true, true, false], "the first had expired");
        verified.insert(entry(3, end + 100), noon() + Duration::from_secs(3));
        assert_eq!(found().iter().filter(|found| **found).count(), 4, "a token has one slot");
        verified.insert(entry(5, end + 100), noon());
        assert_eq!(found().iter().filter(|found| **found).count(), 4, "a set has four slots");
    }
}
