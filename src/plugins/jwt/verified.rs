//! Tokens whose signatures were found to be right, so that the next request with one costs no verification.
//!
//! A fixed number of places that are read and written without a lock. A token has a few places that its digest decides;
//! what stands there may be lost to another token at any time, and is then verified again.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::{ArcSwapOption, Guard};
use http::HeaderValue;

use super::times::Times;
use crate::plugin::consumers::{Digest, Id, JwtCredential};
use crate::plugin::jwk::PublishedKey;

/// All that plugins of this process have verified.
#[derive(Debug, Default)]
pub(super) struct Verified {
    /// Made when the first token comes.
    places: OnceLock<Box<[ArcSwapOption<Entry>]>>,
}

/// A token that is genuine for as long as what it was verified with is in use.
#[derive(Debug)]
pub(super) struct Entry {
    /// Of the token, and of the configuration under which it was verified.
    pub(super) digest: Digest,
    pub(super) proof: Proof,
    pub(super) times: Times,
}

/// What a token was verified with. Compared by identity: what was written anew is something else, even if it looks the same.
#[derive(Debug)]
pub(super) enum Proof {
    /// A consumer's credential.
    Credential(Arc<JwtCredential>),
    /// A key of the issuer in this place of the configuration.
    Published { issuer: usize, key: Arc<PublishedKey>, subject: Subject },
}

/// Whom an issuer speaks of.
#[derive(Debug)]
pub(super) struct Subject {
    /// Issuer and subject, which nobody else has.
    pub(super) credential: Id,
    /// The subject, as `X-Credential-Identifier`.
    pub(super) identifier: Option<HeaderValue>,
    /// What the claim holds that names the consumer.
    pub(super) claim: Box<str>,
}

/// At a few hundred bytes for each token, some megabytes when all are taken.
const SETS: usize = 4096;
/// Places that one token can have.
const WAYS: usize = 4;

impl Verified {
    pub(super) fn find(&self, digest: &Digest) -> Option<Guard<Option<Arc<Entry>>>> {
        let entries = self.set(digest).iter().map(ArcSwapOption::load);
        entries.into_iter().find(|entry| entry.as_ref().is_some_and(|entry| entry.digest == *digest))
    }

    pub(super) fn keep(&self, entry: Arc<Entry>, now: SystemTime) {
        let set = self.set(&entry.digest);
        let own = set.iter().position(|place| place.load().as_ref().is_some_and(|known| known.digest == entry.digest));
        let is_free = |place: &ArcSwapOption<Entry>| place.load().as_ref().is_none_or(|known| known.times.is_over(now));
        let at = own.or_else(|| set.iter().position(is_free)).unwrap_or_else(|| fastrand::usize(..WAYS));
        set[at].store(Some(entry));
    }

    fn set(&self, digest: &Digest) -> &[ArcSwapOption<Entry>] {
        let places = self.places.get_or_init(|| (0..SETS * WAYS).map(|_| ArcSwapOption::empty()).collect());
        let set = usize::from(u16::from_le_bytes([digest[0], digest[1]])) % SETS;
        &places[set * WAYS..][..WAYS]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::plugin::testing::{consumer, noon};

    fn entry(number: u8, exp: u64) -> Arc<Entry> {
        let key = crate::plugin::signature::Secret::new(crate::plugin::signature::Algorithm::Hs256, b"s".to_vec());
        let key = crate::plugin::signature::Key::Secret(key.unwrap());
        let credential = Arc::new(JwtCredential::new(Id::of("id"), "claim", key, consumer("anna", &[])));
        let times = Times::of(json!({"exp": exp}).as_object().unwrap());
        let mut digest = [0; 32];
        digest[31] = number;
        Arc::new(Entry { digest, proof: Proof::Credential(credential), times })
    }

    #[test]
    fn it_has_room_for_a_few_and_gives_that_of_the_expired_away_first() {
        let verified = Verified::default();
        let end = noon().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        for number in 0..4 {
            verified.keep(entry(number, end + 1 + u64::from(number)), noon());
        }
        let found = || (0..6).map(|number| verified.find(&entry(number, 0).digest).is_some()).collect::<Vec<_>>();
        assert_eq!(found(), [true, true, true, true, false, false]);
        verified.keep(entry(4, end + 100), noon() + Duration::from_secs(1));
        assert_eq!(found(), [false, true, true, true, true, false], "the first had expired");
        verified.keep(entry(3, end + 100), noon() + Duration::from_secs(3));
        assert_eq!(found().iter().filter(|found| **found).count(), 4, "a token has one place");
        verified.keep(entry(5, end + 100), noon());
        assert_eq!(found().iter().filter(|found| **found).count(), 4, "no more than there are places");
    }
}
