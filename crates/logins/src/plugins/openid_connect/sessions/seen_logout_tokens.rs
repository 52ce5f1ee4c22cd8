//! The logout tokens that have ended sessions. None of them does so again: the user may have begun new sessions since.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::plugin_api::consumers::{Sha256Digest, sha256};

/// The logout tokens that one plugin in this process has accepted.
#[derive(Debug, Default)]
pub(super) struct SeenLogoutTokens {
    /// Until which second since 1970 each token is valid, by a digest of its issuer and `jti`.
    valid_until: Mutex<HashMap<Sha256Digest, u64>>,
}

impl SeenLogoutTokens {
    pub(super) fn contains(&self, label: &str, now: u64) -> bool {
        self.valid_until.lock().get(&sha256(label.as_bytes())).is_some_and(|until| *until > now)
    }

    pub(super) fn insert(&self, label: &str, until: u64, now: u64) {
        let mut valid_until = self.valid_until.lock();
        if valid_until.len() >= MAX_TOKENS {
            valid_until.retain(|_, until| *until > now);
        }
        // Rather a token counts twice than that a logout is refused.
        if valid_until.len() >= MAX_TOKENS
            && let Some(first) = valid_until.iter().min_by_key(|(_, until)| **until).map(|(digest, _)| *digest)
        {
            valid_until.remove(&first);
        }
        valid_until.insert(sha256(label.as_bytes()), until);
    }
}

/// How many tokens are known at the same time. Only the provider can make them.
const MAX_TOKENS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_known_while_they_are_valid() {
        let seen = SeenLogoutTokens::default();
        seen.insert("a", 1010, 1000);
        for (label, now, expected) in [("a", 1000, true), ("a", 1009, true), ("a", 1010, false), ("b", 1000, false)] {
            assert_eq!(seen.contains(label, now), expected, "{label} {now}");
        }
    }

    #[test]
    fn the_token_that_expires_first_is_forgotten_for_another_one() {
        let seen = SeenLogoutTokens::default();
        for number in 0..10_000_u64 {
            seen.insert(&number.to_string(), 20_000 - number, 1000);
        }
        seen.insert("new", 30_000, 1000);
        let known = ["9999", "9998", "0", "new"].map(|label| seen.contains(label, 1000));
        assert_eq!(known, [false, true, true, true]);
        seen.insert("newer", 30_000, 19_000);
        assert_eq!(seen.valid_until.lock().len(), 1002, "the others have expired");
    }
}
