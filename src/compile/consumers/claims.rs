//! What only one consumer can have, and who has it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::api::ObjectKey;
use crate::plugin::consumers::{Digest, Directory};

/// A name, or a credential that must lead to one consumer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Claim {
    Username(Arc<str>),
    CustomId(Arc<str>),
    /// By its digest.
    Key(Digest),
    /// A username of basic-auth.
    Login(Arc<str>),
    /// What stands in the key claim of a token.
    Token(Arc<str>),
}

/// Seconds since 1970, then the key: who comes first has it.
type Claimant = (Option<i64>, ObjectKey);

#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Sorted. Nearly always one.
    claimants: HashMap<Claim, SmallVec<[Claimant; 1]>>,
}

impl Claim {
    /// For messages, which never say the key itself.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Claim::Username(_) => "username",
            Claim::CustomId(_) => "custom_id",
            Claim::Key(_) => "key of key-auth",
            Claim::Login(_) => "username of basic-auth",
            Claim::Token(_) => "key of jwt",
        }
    }

    pub(super) fn leave(&self, directory: &mut Directory) {
        match self {
            Claim::Username(name) => directory.usernames.remove(name),
            Claim::CustomId(id) => directory.custom_ids.remove(id),
            Claim::Key(digest) => directory.keys.remove(digest),
            Claim::Login(name) => directory.passwords.remove(name),
            Claim::Token(key) => directory.tokens.remove(key),
        }
    }
}

impl Claims {
    /// Who has it.
    pub(super) fn holder(&self, claim: &Claim) -> Option<&ObjectKey> {
        self.claimants.get(claim)?.first().map(|(_, key)| key)
    }

    /// Gives everybody who claims it, if there is a dispute.
    pub(super) fn insert(&mut self, claim: Claim, claimant: Claimant) -> BTreeSet<ObjectKey> {
        let claimants = self.claimants.entry(claim).or_default();
        if let Err(at) = claimants.binary_search(&claimant) {
            claimants.insert(at, claimant);
        }
        match &claimants[..] {
            [_] => BTreeSet::new(),
            several => several.iter().map(|(_, key)| key.clone()).collect(),
        }
    }

    /// Gives those who go on claiming it.
    pub(super) fn remove(&mut self, claim: &Claim, key: &ObjectKey) -> BTreeSet<ObjectKey> {
        let Some(claimants) = self.claimants.get_mut(claim) else { return BTreeSet::new() };
        claimants.retain(|(_, claimant)| claimant != key);
        if claimants.is_empty() {
            self.claimants.remove(claim);
            return BTreeSet::new();
        }
        claimants.iter().map(|(_, key)| key.clone()).collect()
    }
}
