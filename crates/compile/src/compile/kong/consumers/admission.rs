//! Which consumers are admitted: those that hold all of their names. Only these are in the directory with their names
//! and credentials.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::claim_conflicts::{Claimant, ConsumerClaim};
use super::identity::consumer_id;
use super::{Consumers, KnownConsumer, PendingVerdicts};
use crate::api::{Kind, ObjectId, ObjectKey};

impl Consumers {
    /// Adds a consumer, and admits it if no older one has one of its names.
    pub(super) fn add(&mut self, known: KnownConsumer, pending: &mut PendingVerdicts) {
        // A snapshot shares the directory, so the first write copies it; the entries are shared.
        let directory = Arc::make_mut(&mut self.directory);
        directory.consumers.insert(Arc::clone(&known.consumer));
        // The fingerprint is a sum, so it does not depend on the order of consumers.
        directory.fingerprint = directory.fingerprint.wrapping_add(known.content_hash);
        let mut affected = BTreeSet::from([known.object.meta.key.clone()]);
        for name in known.names() {
            if !self.conflicts.is_contested(&name) {
                let holder = name.holder(&self.directory).and_then(|holder| self.known.get(&holder.id));
                let Some(holder) = holder else { continue };
                self.conflicts.insert(&name, holder.claimant());
            }
            self.conflicts.insert(&name, known.claimant());
            affected.extend(self.conflicts.claimants(&name).map(|claimant| claimant.key.clone()));
            pending.contested.insert(name);
        }
        self.known.insert(known);
        self.update_admission(affected, pending);
    }

    /// Removes a consumer that is no longer known; what it held passes to the next claimants.
    pub(super) fn remove(&mut self, before: &KnownConsumer, pending: &mut PendingVerdicts) {
        let directory = Arc::make_mut(&mut self.directory);
        directory.consumers.remove(&*before.consumer.id);
        directory.fingerprint = directory.fingerprint.wrapping_sub(before.content_hash);
        if before.is_admitted {
            self.release(before, pending);
        }
        let mut affected = BTreeSet::new();
        for name in before.names() {
            self.conflicts.withdraw(&name, &before.claimant());
            affected.extend(self.conflicts.claimants(&name).map(|claimant| claimant.key.clone()));
            pending.contested.insert(name);
        }
        self.update_admission(affected, pending);
    }

    /// Admits those of these consumers that hold all of their names, and excludes the others.
    fn update_admission(&mut self, affected: BTreeSet<ObjectKey>, pending: &mut PendingVerdicts) {
        let mut to_admit = Vec::new();
        for key in &affected {
            let Some(mut known) = self.known.take(&consumer_id(key)) else { continue };
            if self.holds_names(&known) {
                if !known.is_admitted {
                    to_admit.push(key);
                }
            } else {
                if known.is_admitted {
                    known.is_admitted = false;
                    self.release(&known, pending);
                    pending.objects.insert(ObjectId::new(Kind::KongConsumer, key.clone()));
                }
                // The directory does not contain these claims.
                for name in known.names() {
                    self.conflicts.insert(&name, known.claimant());
                }
            }
            self.known.insert(known);
        }
        // After the others have released their names.
        for key in to_admit {
            if let Some(mut known) = self.known.take(&consumer_id(key)) {
                known.is_admitted = true;
                self.admit(known, pending);
                pending.objects.insert(ObjectId::new(Kind::KongConsumer, key.clone()));
            }
        }
        for known in affected.iter().filter_map(|key| self.known.get(&consumer_id(key))) {
            for name in known.names().into_iter().filter(|_| known.is_admitted) {
                self.conflicts.forget_sole_claimant(&name);
            }
        }
    }

    fn holds_names(&self, known: &KnownConsumer) -> bool {
        let is_held = |name: ConsumerClaim| {
            self.conflicts.claimants(&name).next().is_none_or(|first| first.key == known.object.meta.key)
        };
        known.names().into_iter().all(is_held)
    }

    /// Enters the names of a consumer into the directory, with its uncontested credentials and the contested ones that
    /// it holds.
    fn admit(&mut self, known: KnownConsumer, pending: &mut PendingVerdicts) {
        let directory = Arc::make_mut(&mut self.directory);
        for name in known.names() {
            known.take_claim(&name, directory);
        }
        let mut contested = Vec::new();
        for claim in known.credential_claims() {
            if !self.conflicts.is_contested(&claim) {
                // The only claimant takes the claim; a second one makes it contested.
                let holder = claim.holder(directory).and_then(|holder| self.known.get(&holder.id));
                let Some(holder) = holder else {
                    known.take_claim(&claim, directory);
                    continue;
                };
                self.conflicts.insert(&claim, holder.claimant());
            }
            self.conflicts.insert(&claim, known.claimant());
            contested.push(claim);
        }
        self.known.insert(known);
        for claim in contested {
            self.assign_to_first(&claim);
            pending.contested.insert(claim);
        }
    }

    /// Removes the names and credentials of a consumer from the directory; contested credentials pass to the next
    /// claimant.
    fn release(&mut self, known: &KnownConsumer, pending: &mut PendingVerdicts) {
        for name in known.names() {
            name.remove_from(Arc::make_mut(&mut self.directory));
        }
        for claim in known.credential_claims() {
            if !self.conflicts.is_contested(&claim) {
                claim.remove_from(Arc::make_mut(&mut self.directory));
                continue;
            }
            if let Some(only) = self.conflicts.remove(&claim, &known.claimant()) {
                self.assign(&claim, &only);
                pending.objects.insert(ObjectId::new(Kind::KongConsumer, only.key));
            } else {
                self.assign_to_first(&claim);
                pending.contested.insert(claim);
            }
        }
    }

    /// Assigns a contested claim to its first claimant.
    fn assign_to_first(&mut self, claim: &ConsumerClaim) {
        let first = self.conflicts.claimants(claim).next().cloned();
        if let Some(first) = first {
            self.assign(claim, &first);
        }
    }

    fn assign(&mut self, claim: &ConsumerClaim, claimant: &Claimant) {
        if let Some(known) = self.known.get(&consumer_id(&claimant.key)) {
            known.take_claim(claim, Arc::make_mut(&mut self.directory));
        }
    }
}
