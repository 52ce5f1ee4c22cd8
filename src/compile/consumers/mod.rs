//! Consumers and their credentials: from objects and Secrets to the directory that plugins look people up in.
//!
//! Of several who want the same name or key the oldest has it, then the first by `namespace/name`; the others are told and
//! keep what is theirs alone. Nobody loses what he has because somebody else wants it (`kong-compat.md` §3.7).

mod claims;
mod credentials;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::Inputs;
use super::plugins::named;
use super::verdict::{Code, Condition, Problem, Verdict};
use crate::api::kong::{ControlPlaneRef, KongConsumer};
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::plugin::Consumer;
use crate::plugin::consumers::Directory;
use crate::store::{Changes, Store};
use claims::{Claim, Claims};
use credentials::Credential;

/// Everybody who may be asking, and what they claim.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    known: BTreeMap<ObjectKey, Known>,
    claims: Claims,
    directory: Arc<Directory>,
}

/// A consumer as the objects describe it.
#[derive(Debug)]
struct Known {
    generation: i64,
    consumer: Arc<Consumer>,
    credentials: Vec<Credential>,
    /// What is wrong with it apart from claims of others.
    problems: Vec<Problem>,
    notes: Vec<Problem>,
}

impl Consumers {
    /// The directory as of now.
    pub(super) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    /// Reads again what was touched. Gives the consumers and groups that have to be judged again.
    pub(super) fn update(&mut self, store: &Store, inputs: &Inputs<'_>, touched: &Changes) -> BTreeSet<ObjectId> {
        let mut again = BTreeSet::new();
        let mut disputed = BTreeSet::new();
        let mut directory = None;
        for id in touched {
            match id.kind {
                Kind::KongConsumer => {}
                Kind::KongConsumerGroup => {
                    again.insert(id.clone());
                    continue;
                }
                _ => continue,
            }
            again.insert(id.clone());
            let object = store.kong_consumers.get(&id.key).filter(|object| is_ours(store, inputs, object));
            if let Some(before) = self.known.remove(&id.key) {
                let directory = directory.get_or_insert_with(|| Directory::clone(&self.directory));
                before.leave(&id.key, &self.claims, directory);
                for claim in before.claims() {
                    disputed.extend(self.claims.remove(&claim, &id.key));
                }
            }
            if let Some(object) = object {
                let known = known(store, inputs, object);
                for claim in known.claims() {
                    disputed.extend(self.claims.insert(claim, (object.meta.created, id.key.clone())));
                }
                self.known.insert(id.key.clone(), known);
                disputed.insert(id.key.clone());
            }
        }
        // Who has what is known only now that all claims are there.
        for key in disputed {
            again.insert(ObjectId::new(Kind::KongConsumer, key.clone()));
            let Some(known) = self.known.get(&key) else { continue };
            let directory = directory.get_or_insert_with(|| Directory::clone(&self.directory));
            known.enter(&key, &self.claims, directory);
        }
        if let Some(directory) = directory {
            self.directory = Arc::new(directory);
        }
        again
    }

    /// What there is to say about a consumer or a group. None if it is not ours.
    pub(super) fn verdict(&self, store: &Store, inputs: &Inputs<'_>, id: &ObjectId) -> Option<Verdict> {
        if id.kind == Kind::KongConsumerGroup {
            let group =
                store.kong_consumer_groups.get(&id.key).filter(|group| inputs.classes.own(store, &group.meta, None))?;
            let problems = named(store, id.kind, &group.meta).filter_map(Result::err).collect::<Vec<_>>();
            return Some(verdict(group.meta.generation, problems, Vec::new()));
        }
        let known = self.known.get(&id.key)?;
        let mut problems = known.problems.clone();
        for (claim, field) in known.claims_with_fields() {
            if let Some(holder) = self.claims.holder(&claim).filter(|holder| **holder != id.key) {
                let message = format!("KongConsumer {holder} has this {} already, and is older", claim.what());
                problems.push(Problem::new(field, message, "choose another, or remove it there"));
            }
        }
        Some(verdict(known.generation, problems, known.notes.clone()))
    }
}

/// Whether a consumer is of our class, and not for a control plane elsewhere.
fn is_ours(store: &Store, inputs: &Inputs<'_>, consumer: &Object<KongConsumer>) -> bool {
    let reference = consumer.spec.as_ref().and_then(|spec| spec.control_plane_ref.as_ref());
    inputs.classes.own(store, &consumer.meta, None) && reference.is_none_or(ControlPlaneRef::is_here)
}

fn verdict(generation: i64, problems: Vec<Problem>, notes: Vec<Problem>) -> Verdict {
    let condition = match &problems[..] {
        [] => Condition::plain(Code::KongProgrammed),
        _ => Condition::new(Code::KongInvalid, problems),
    };
    Verdict { generation, conditions: vec![condition], notes, ..Verdict::default() }
}

fn known(store: &Store, inputs: &Inputs<'_>, object: &Object<KongConsumer>) -> Known {
    let key = &object.meta.key;
    let mut problems = Vec::new();
    let mut groups = Vec::new();
    for (index, name) in object.consumer_groups.iter().enumerate() {
        let target = ObjectKey { namespace: key.namespace.clone(), name: name.as_str().into() };
        let known = store.kong_consumer_groups.get(&target);
        match known.filter(|group| inputs.classes.own(store, &group.meta, None)) {
            Some(_) => groups.push(group(&target)),
            None => {
                let what = if known.is_some() { "is of another class" } else { "does not exist" };
                let field = format!("consumerGroups[{index}]");
                let message = format!("KongConsumerGroup {target} {what}");
                problems.push(Problem::new(
                    field,
                    message,
                    "create it with the class of the consumer, or correct the name",
                ));
            }
        }
    }
    let mut notes = Vec::new();
    let mut acls = Vec::new();
    let mut raw = Vec::new();
    for (index, name) in object.credentials.iter().enumerate() {
        let field = format!("credentials[{index}]");
        let secret = ObjectKey { namespace: key.namespace.clone(), name: name.as_str().into() };
        match credentials::read(store, &secret, &field) {
            Ok(credentials::Read::Acl(group)) => acls.push(group),
            Ok(credentials::Read::Credential(credential)) => raw.push((secret, field, credential)),
            Ok(credentials::Read::Ignored(note)) => notes.extend(note),
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(named(store, Kind::KongConsumer, &object.meta).filter_map(Result::err));
    acls.sort();
    acls.dedup();
    let consumer = Consumer::new(id(key), object.username.as_deref(), object.custom_id.as_deref(), groups, acls);
    let consumer = Arc::new(consumer);
    let credentials = raw
        .into_iter()
        .map(|(secret, field, raw)| Credential::new(uuid(Kind::Secret, &secret), field, raw, &consumer))
        .collect();
    Known { generation: object.meta.generation, consumer, credentials, problems, notes }
}

impl Known {
    /// What only one consumer can have, each with the field that claims it.
    fn claims_with_fields(&self) -> Vec<(Claim, String)> {
        let username = self.consumer.username.iter().map(|name| (Claim::Username(name.clone()), "username".to_owned()));
        let custom_id = self.consumer.custom_id.iter().map(|id| (Claim::CustomId(id.clone()), "custom_id".to_owned()));
        let credentials =
            self.credentials.iter().map(|credential| (credential.claim.clone(), credential.field.clone()));
        username.chain(custom_id).chain(credentials).collect()
    }

    fn claims(&self) -> Vec<Claim> {
        self.claims_with_fields().into_iter().map(|(claim, _)| claim).collect()
    }

    /// Puts into the directory what is its own.
    fn enter(&self, key: &ObjectKey, claims: &Claims, directory: &mut Directory) {
        let is_mine = |claim: &Claim| claims.holder(claim).is_some_and(|holder| holder == key);
        let consumer = &self.consumer;
        directory.consumers.insert(Arc::clone(&consumer.id), Arc::clone(consumer));
        if let Some(name) = consumer.username.as_ref().filter(|name| is_mine(&Claim::Username(Arc::clone(name)))) {
            directory.usernames.insert(Arc::clone(name), Arc::clone(consumer));
        }
        if let Some(id) = consumer.custom_id.as_ref().filter(|id| is_mine(&Claim::CustomId(Arc::clone(id)))) {
            directory.custom_ids.insert(Arc::clone(id), Arc::clone(consumer));
        }
        for credential in self.credentials.iter().filter(|credential| is_mine(&credential.claim)) {
            credential.enter(directory);
        }
    }

    /// Takes out of the directory what was its own.
    fn leave(&self, key: &ObjectKey, claims: &Claims, directory: &mut Directory) {
        let is_mine = |claim: &Claim| claims.holder(claim).is_some_and(|holder| holder == key);
        directory.consumers.remove(&self.consumer.id);
        for claim in self.claims().iter().filter(|claim| is_mine(claim)) {
            claim.leave(directory);
        }
    }
}

/// The id under which backends and logs know a consumer: a UUID made of its key, so that it is the same in every replica
/// and after a restore from a backup.
pub(super) fn id(consumer: &ObjectKey) -> Arc<str> {
    uuid(Kind::KongConsumer, consumer)
}

/// The name by which plugins know a group.
pub(super) fn group(group: &ObjectKey) -> Arc<str> {
    group.to_string().into()
}

/// In the form of version 8 (RFC 9562, section 5.8), which leaves the bits to us.
fn uuid(kind: Kind, key: &ObjectKey) -> Arc<str> {
    let digest = digest(&SHA256, format!("{kind}/{key}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text.into()
}
