//! What a token or a password was found to be, as the cache keeps it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::claims::ClaimSources;
use super::signed_token::TokenClaims;
use crate::plugin_api::consumers::Sha256Digest;
use crate::plugin_api::token::jwk::PublishedKey;
use crate::plugin_kit::digest_cache::DigestEntry;
use crate::token_binding::TokenBinding;

/// The claims of a client whose credential was verified.
#[derive(Debug)]
pub(in crate::plugins::openid_connect) struct TokenIdentity {
    /// Of the credential and of what its verification depends on.
    pub(super) digest: Sha256Digest,
    pub(in crate::plugins::openid_connect) claims: Arc<ClaimSources>,
    /// The key that verified the token. `None` if the provider itself verified the credential.
    pub(super) key: Option<Arc<PublishedKey>>,
    /// The index of the further issuer whose key it is. `None` for a key of the provider.
    pub(in crate::plugins::openid_connect) bearer_issuer: Option<usize>,
    /// The result of the introspection.
    pub(in crate::plugins::openid_connect) introspection: Option<Arc<TokenClaims>>,
    /// The key that the client must have.
    pub(in crate::plugins::openid_connect) binding: TokenBinding,
    /// The access token; for a password, the one that was issued for it.
    pub(in crate::plugins::openid_connect) access_token: Box<str>,
    /// When the result is no longer valid, in seconds since 1970.
    pub(in crate::plugins::openid_connect) expires: u64,
}

impl TokenIdentity {
    /// Whether the result is still valid: its key is still published.
    pub(in crate::plugins::openid_connect) fn is_valid(
        &self,
        is_published: impl FnOnce(&Arc<PublishedKey>) -> bool,
        now: u64,
    ) -> bool {
        self.expires > now && self.key.as_ref().is_none_or(is_published)
    }
}

impl DigestEntry for TokenIdentity {
    fn digest(&self) -> &Sha256Digest {
        &self.digest
    }

    fn is_expired(&self, now: SystemTime) -> bool {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.expires)).is_some_and(|expires| expires <= now)
    }
}
