//! Verified tokens, and the proof of each: the key that verified it.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;

use crate::plugin_api::VerifiedSubject;
use crate::plugin_api::consumers::{JwtCredential, Sha256Digest};
use crate::plugin_api::token::TimeClaims;
use crate::plugin_api::token::jwk::PublishedKey;
use crate::plugin_kit::digest_cache::DigestEntry;
use crate::token_binding::TokenBinding;

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
    /// A consumer's credential, with the subject for which its owner acts.
    Credential { credential: Arc<JwtCredential>, subject: VerifiedSubject },
    /// A key of the issuer with this index in the configuration.
    Published { issuer: usize, key: Arc<PublishedKey>, subject: TokenSubject, binding: TokenBinding },
}

impl Proof {
    /// The key that the client must have.
    pub(super) fn binding(&self) -> TokenBinding {
        match self {
            Proof::Credential { .. } => TokenBinding::None,
            Proof::Published { binding, .. } => *binding,
        }
    }
}

/// The subject of a token that an issuer in `jwks` has signed.
#[derive(Debug)]
pub(super) struct TokenSubject {
    /// `None` if the token does not name it.
    pub(super) subject: Option<VerifiedSubject>,
    /// The subject as the value of `X-Credential-Identifier`.
    pub(super) identifier: Option<HeaderValue>,
    /// The value of the claim that identifies the consumer. Empty if the token does not contain the claim, or if the
    /// issuer has the same consumer for all tokens.
    pub(super) claim: Box<str>,
}

impl DigestEntry for VerifiedToken {
    fn digest(&self) -> &Sha256Digest {
        &self.digest
    }

    fn is_expired(&self, now: SystemTime) -> bool {
        self.times.is_expired(now)
    }
}
