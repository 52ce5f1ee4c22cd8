//! Names and credentials that identify one consumer, and those that several consumers claim.
//!
//! The directory contains the holder of each claim that it serves. [`ClaimConflicts`] contains the other claims, with
//! all of their claimants: contested ones, and the names of consumers that lack another name.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::api::ObjectKey;
use crate::plugin_api::Consumer;
use crate::plugin_api::consumers::{ConsumerDirectory, Sha256Digest};

/// A name or credential that must identify one consumer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ConsumerClaim {
    Username(Arc<str>),
    CustomId(Arc<str>),
    /// The key's digest.
    ApiKey(Sha256Digest),
    /// A username of basic-auth.
    BasicAuthUsername(Arc<str>),
    /// A username of hmac-auth.
    HmacAuthUsername(Arc<str>),
    /// The value of a token's key claim.
    JwtKey(Arc<str>),
    /// A name in certificates.
    CertificateSubject(Arc<str>),
    OAuthClientId(Arc<str>),
}

/// A consumer that claims a name or credential. Claimants are ordered by creation (seconds since 1970), then by key;
/// the first one holds the claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    pub(super) created: Option<i64>,
    pub(super) key: ObjectKey,
}

/// Claims that are contested, or that the directory does not contain.
#[derive(Debug, Default)]
pub(super) struct ClaimConflicts {
    /// Two or more per claim, or a consumer that is not admitted.
    claimants: HashMap<ConsumerClaim, BTreeSet<Claimant>>,
}

impl ConsumerClaim {
    /// Whether it is a name of the consumer itself, without which the consumer is not admitted.
    pub(super) fn is_name(&self) -> bool {
        matches!(self, ConsumerClaim::Username(_) | ConsumerClaim::CustomId(_))
    }

    /// The name of the field for messages, which never contain the key itself.
    pub(super) fn field_name(&self) -> &'static str {
        match self {
            ConsumerClaim::Username(_) => "username",
            ConsumerClaim::CustomId(_) => "custom_id",
            ConsumerClaim::ApiKey(_) => "key of key-auth",
            ConsumerClaim::BasicAuthUsername(_) => "username of basic-auth",
            ConsumerClaim::HmacAuthUsername(_) => "username of hmac-auth",
            ConsumerClaim::JwtKey(_) => "key of jwt",
            ConsumerClaim::CertificateSubject(_) => "subject_name of mtls-auth",
            ConsumerClaim::OAuthClientId(_) => "client_id of oauth2",
        }
    }

    /// The consumer that holds the claim.
    pub(super) fn holder<'d>(&self, directory: &'d ConsumerDirectory) -> Option<&'d Arc<Consumer>> {
        match self {
            ConsumerClaim::Username(name) => directory.usernames.get(&**name),
            ConsumerClaim::CustomId(id) => directory.custom_ids.get(&**id),
            ConsumerClaim::ApiKey(digest) => directory.keys.get(digest).map(|credential| &credential.consumer),
            ConsumerClaim::BasicAuthUsername(name) => {
                directory.passwords.get(&**name).map(|credential| &credential.consumer)
            }
            ConsumerClaim::HmacAuthUsername(name) => {
                directory.signers.get(&**name).map(|credential| &credential.consumer)
            }
            ConsumerClaim::JwtKey(key) => directory.tokens.get(&**key).map(|credential| &credential.consumer),
            ConsumerClaim::CertificateSubject(name) => {
                directory.certificates.get(&**name).map(|credential| &credential.consumer)
            }
            ConsumerClaim::OAuthClientId(id) => directory.oauth_clients.get(&**id).map(|client| &client.consumer),
        }
    }

    /// Removes the claim from the directory.
    pub(super) fn remove_from(&self, directory: &mut ConsumerDirectory) {
        match self {
            ConsumerClaim::Username(name) => directory.usernames.remove(&**name),
            ConsumerClaim::CustomId(id) => directory.custom_ids.remove(&**id),
            ConsumerClaim::ApiKey(digest) => directory.keys.remove(digest),
            ConsumerClaim::BasicAuthUsername(name) => directory.remove_password(name),
            ConsumerClaim::HmacAuthUsername(name) => directory.signers.remove(&**name),
            ConsumerClaim::JwtKey(key) => directory.tokens.remove(&**key),
            ConsumerClaim::CertificateSubject(name) => directory.certificates.remove(&**name),
            ConsumerClaim::OAuthClientId(id) => directory.oauth_clients.remove(&**id),
        }
    }
}

impl ClaimConflicts {
    /// All claimants in order; none if only the directory contains the claim.
    pub(super) fn claimants<'a>(&'a self, claim: &ConsumerClaim) -> impl Iterator<Item = &'a Claimant> + use<'a> {
        self.claimants.get(claim).into_iter().flatten()
    }

    pub(super) fn is_contested(&self, claim: &ConsumerClaim) -> bool {
        self.claimants.contains_key(claim)
    }

    pub(super) fn insert(&mut self, claim: &ConsumerClaim, claimant: Claimant) {
        self.claimants.entry(claim.clone()).or_default().insert(claimant);
    }

    /// Removes a claimant of a name.
    pub(super) fn withdraw(&mut self, name: &ConsumerClaim, claimant: &Claimant) {
        if let Some(claimants) = self.claimants.get_mut(name) {
            claimants.remove(claimant);
            if claimants.is_empty() {
                self.claimants.remove(name);
            }
        }
    }

    /// Forgets a name with one claimant, which is in the directory.
    pub(super) fn forget_sole_claimant(&mut self, name: &ConsumerClaim) {
        if self.claimants.get(name).is_some_and(|claimants| claimants.len() == 1) {
            self.claimants.remove(name);
        }
    }

    /// Removes a claimant of a credential. If only one is left, the claim is no longer contested, and that claimant is
    /// returned.
    pub(super) fn remove(&mut self, claim: &ConsumerClaim, claimant: &Claimant) -> Option<Claimant> {
        let claimants = self.claimants.get_mut(claim)?;
        claimants.remove(claimant);
        if claimants.len() > 1 {
            return None;
        }
        self.claimants.remove(claim)?.pop_first()
    }
}
