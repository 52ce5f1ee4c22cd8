//! What only one consumer can have, and who has it.
//!
//! The directory knows who has what. Only where several want the same, all of them are written down here.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::api::ObjectKey;
use crate::plugin::Consumer;
use crate::plugin::consumers::{Digest, Directory};

/// A name, or a credential that must lead to one consumer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    pub(super) created: Option<i64>,
    pub(super) key: ObjectKey,
}

/// What several claim.
#[derive(Debug, Default)]
pub(super) struct Disputes {
    /// Two or more of each.
    claimants: HashMap<Claim, BTreeSet<Claimant>>,
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

    /// Who has it.
    pub(super) fn holder<'d>(&self, directory: &'d Directory) -> Option<&'d Arc<Consumer>> {
        match self {
            Claim::Username(name) => directory.usernames.get(&**name),
            Claim::CustomId(id) => directory.custom_ids.get(&**id),
            Claim::Key(digest) => directory.keys.get(digest).map(|made| &made.consumer),
            Claim::Login(name) => directory.passwords.get(&**name).map(|made| &made.consumer),
            Claim::Token(key) => directory.tokens.get(&**key).map(|made| &made.consumer),
        }
    }

    /// Nobody has it any more.
    pub(super) fn leave(&self, directory: &mut Directory) {
        match self {
            Claim::Username(name) => directory.usernames.remove(&**name),
            Claim::CustomId(id) => directory.custom_ids.remove(&**id),
            Claim::Key(digest) => directory.keys.remove(digest),
            Claim::Login(name) => directory.passwords.remove(&**name),
            Claim::Token(key) => directory.tokens.remove(&**key),
        }
    }
}

impl Disputes {
    /// All who claim it, who has it first. Nobody if there is no dispute.
    pub(super) fn claimants<'a>(&'a self, claim: &Claim) -> impl Iterator<Item = &'a Claimant> + use<'a> {
        self.claimants.get(claim).into_iter().flatten()
    }

    pub(super) fn is_disputed(&self, claim: &Claim) -> bool {
        self.claimants.contains_key(claim)
    }

    pub(super) fn insert(&mut self, claim: &Claim, claimant: Claimant) {
        self.claimants.entry(claim.clone()).or_default().insert(claimant);
    }

    /// Ends the dispute if one is left, and gives that one.
    pub(super) fn remove(&mut self, claim: &Claim, claimant: &Claimant) -> Option<Claimant> {
        let claimants = self.claimants.get_mut(claim)?;
        claimants.remove(claimant);
        if claimants.len() > 1 {
            return None;
        }
        self.claimants.remove(claim)?.pop_first()
    }
}
