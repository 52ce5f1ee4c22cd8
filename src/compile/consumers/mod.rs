//! Consumers and their credentials: from objects and Secrets to the directory that plugins look people up in.
//!
//! Of several who want the same name or key the oldest has it, then the first by `namespace/name`; the others are told and
//! keep what is theirs alone. Nobody loses what he has because somebody else wants it (`kong-compat.md` §3.7).

mod claims;
mod credentials;

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::Inputs;
use super::plugins::named;
use super::verdict::{Code, Condition, Problem, Verdict};
use crate::api::kong::{ControlPlaneRef, KongConsumer};
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::plugin::Consumer;
use crate::plugin::consumers::{Directory, Id};
use crate::store::{Changes, Store};
use claims::{Claim, Claimant, Disputes};
use credentials::Credential;

/// Everybody who may be asking, and what they claim.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    /// By id.
    known: HashSet<Known>,
    disputes: Disputes,
    directory: Arc<Directory>,
}

/// A consumer as the objects describe it. There may be very many, so nothing is in it twice.
#[derive(Debug)]
struct Known {
    object: Arc<Object<KongConsumer>>,
    consumer: Arc<Consumer>,
    credentials: Box<[Credential]>,
    told_apart: u64,
    /// Most have none.
    remarks: Option<Box<Remarks>>,
}

/// What is wrong with a consumer apart from claims of others.
#[derive(Clone, Debug, Default)]
struct Remarks(Vec<Problem>);

/// What has to be judged again.
#[derive(Default)]
struct Again {
    objects: BTreeSet<ObjectId>,
    /// Everybody who claims one of these.
    disputed: BTreeSet<Claim>,
}

impl Consumers {
    /// The directory as of now.
    pub(super) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    /// Reads again what was touched. Gives the consumers and groups that have to be judged again.
    pub(super) fn update(&mut self, store: &Store, inputs: &Inputs<'_>, touched: &Changes) -> BTreeSet<ObjectId> {
        let mut again = Again::default();
        for id in touched {
            match id.kind {
                Kind::KongConsumer => {}
                Kind::KongConsumerGroup => {
                    again.objects.insert(id.clone());
                    continue;
                }
                _ => continue,
            }
            again.objects.insert(id.clone());
            let object = store.kong_consumers.get(&id.key).filter(|_| is_ours(store, inputs, id));
            let after = object.map(|object| known(store, inputs, object));
            let before = match &after {
                Some(after) => self.known.take(&after.consumer.id),
                None => self.known.take(&self::id(&id.key)),
            };
            match (before, after) {
                // What requests and caches hold on to stays the very same.
                (Some(before), Some(after)) if before.is_alike(&after) => {
                    if before.told_apart != after.told_apart {
                        let directory = Arc::make_mut(&mut self.directory);
                        directory.told_apart = directory.told_apart.wrapping_sub(before.told_apart);
                        directory.told_apart = directory.told_apart.wrapping_add(after.told_apart);
                    }
                    // With the new object, of which something else may be told.
                    let Known { consumer, credentials, .. } = before;
                    self.known.insert(Known { consumer, credentials, ..after });
                }
                (before, after) => {
                    if let Some(before) = before {
                        self.leave(&before, &mut again);
                    }
                    if let Some(after) = after {
                        self.enter(after, &mut again);
                    }
                }
            }
        }
        for claim in again.disputed {
            let claimants = self.disputes.claimants(&claim).map(|claimant| &claimant.key);
            again.objects.extend(claimants.map(|key| ObjectId::new(Kind::KongConsumer, key.clone())));
        }
        again.objects
    }

    /// Puts somebody into the directory with what is his alone, or his before others.
    fn enter(&mut self, known: Known, again: &mut Again) {
        // A snapshot shares the directory, so this copies it the first time; what is in it is shared again.
        let directory = Arc::make_mut(&mut self.directory);
        directory.consumers.insert(Arc::clone(&known.consumer));
        // A sum, since there is no order.
        directory.told_apart = directory.told_apart.wrapping_add(known.told_apart);
        let mut disputed = Vec::new();
        for claim in known.claims() {
            if !self.disputes.is_disputed(&claim) {
                let holder = claim.holder(directory).and_then(|holder| self.known.get(&holder.id));
                let Some(holder) = holder else {
                    known.take(&claim, directory);
                    continue;
                };
                self.disputes.insert(&claim, holder.claimant());
            }
            self.disputes.insert(&claim, known.claimant());
            disputed.push(claim);
        }
        self.known.insert(known);
        for claim in disputed {
            self.settle(&claim);
            again.disputed.insert(claim);
        }
    }

    /// Takes somebody out of the directory, who is no longer known, and lets the next have what was his.
    fn leave(&mut self, before: &Known, again: &mut Again) {
        let directory = Arc::make_mut(&mut self.directory);
        directory.consumers.remove(&*before.consumer.id);
        directory.told_apart = directory.told_apart.wrapping_sub(before.told_apart);
        for claim in before.claims() {
            if !self.disputes.is_disputed(&claim) {
                claim.leave(Arc::make_mut(&mut self.directory));
                continue;
            }
            if let Some(last) = self.disputes.remove(&claim, &before.claimant()) {
                self.give(&claim, &last);
                again.objects.insert(ObjectId::new(Kind::KongConsumer, last.key));
            } else {
                self.settle(&claim);
                again.disputed.insert(claim);
            }
        }
    }

    /// Gives what is disputed to whom it belongs.
    fn settle(&mut self, claim: &Claim) {
        let first = self.disputes.claimants(claim).next().cloned();
        if let Some(first) = first {
            self.give(claim, &first);
        }
    }

    fn give(&mut self, claim: &Claim, claimant: &Claimant) {
        if let Some(known) = self.known.get(&id(&claimant.key)) {
            known.take(claim, Arc::make_mut(&mut self.directory));
        }
    }

    /// What there is to say about a consumer or a group. None if it is not ours.
    pub(super) fn verdict(&self, store: &Store, inputs: &Inputs<'_>, id: &ObjectId) -> Option<Verdict> {
        if id.kind == Kind::KongConsumerGroup {
            let group = store.kong_consumer_groups.get(&id.key).filter(|_| is_ours(store, inputs, id))?;
            let problems = named(store, id.kind, &group.meta).filter_map(Result::err).collect::<Vec<_>>();
            let name = group.spec.as_ref().and_then(|spec| spec.name.as_ref());
            let note = name.map(|_| {
                let message = format!("it has no effect, as in Kong: the group is called {}", group.meta.key.name);
                Problem::new("spec.name", message, "remove it")
            });
            return Some(verdict(group.meta.generation, problems, note.into_iter().collect()));
        }
        let known = self.known.get(&self::id(&id.key))?;
        let Remarks(mut problems) = known.remarks.as_deref().cloned().unwrap_or_default();
        for (claim, credential) in known.stated() {
            let holder = self.disputes.claimants(&claim).next().map(|first| &first.key);
            if let Some(holder) = holder.filter(|holder| **holder != id.key) {
                let field = credential.map_or_else(|| claim.what().to_owned(), |credential| known.field_of(credential));
                let message = format!("KongConsumer {holder} has this {} already, and is older", claim.what());
                problems.push(Problem::new(field, message, "choose another, or remove it there"));
            }
        }
        Some(verdict(known.object.meta.generation, problems, Vec::new()))
    }
}

/// Whether there is such a consumer or group, of our class and not for a control plane elsewhere.
pub(super) fn is_ours(store: &Store, inputs: &Inputs<'_>, id: &ObjectId) -> bool {
    let reference = match id.kind {
        Kind::KongConsumerGroup => {
            let group = store.kong_consumer_groups.get(&id.key).and_then(|group| group.spec.as_ref());
            group.and_then(|spec| spec.control_plane_ref.as_ref())
        }
        _ => {
            let consumer = store.kong_consumers.get(&id.key).and_then(|consumer| consumer.spec.as_ref());
            consumer.and_then(|spec| spec.control_plane_ref.as_ref())
        }
    };
    let is_of_class = store.meta(id).is_some_and(|meta| inputs.classes.own(store, meta, None));
    is_of_class && reference.is_none_or(ControlPlaneRef::is_here)
}

fn verdict(generation: i64, problems: Vec<Problem>, notes: Vec<Problem>) -> Verdict {
    let condition = match &problems[..] {
        [] => Condition::plain(Code::KongProgrammed),
        _ => Condition::new(Code::KongInvalid, problems),
    };
    Verdict { generation, conditions: vec![condition], notes, ..Verdict::default() }
}

fn known(store: &Store, inputs: &Inputs<'_>, object: &Arc<Object<KongConsumer>>) -> Known {
    let key = &object.meta.key;
    let mut problems = Vec::new();
    let mut groups = Vec::new();
    for (index, name) in object.consumer_groups.iter().enumerate() {
        let target = ObjectKey { namespace: key.namespace.clone(), name: name.as_str().into() };
        match is_ours(store, inputs, &ObjectId::new(Kind::KongConsumerGroup, target.clone())) {
            true => groups.push(group(&target)),
            false => {
                let is_there = store.kong_consumer_groups.contains_key(&target);
                let what = if is_there { "is of another class or control plane" } else { "does not exist" };
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
    let mut acls = Vec::new();
    let mut raw = Vec::new();
    for (index, name) in object.credentials.iter().enumerate() {
        let field = format!("credentials[{index}]");
        let secret = ObjectKey { namespace: key.namespace.clone(), name: name.as_str().into() };
        match credentials::read(store, &secret, &field) {
            Ok(credentials::Read::Acl(group)) => acls.push(group),
            Ok(credentials::Read::Credential(credential)) => {
                raw.push((secret, credential));
            }
            Ok(credentials::Read::Ignored) => {}
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(named(store, Kind::KongConsumer, &object.meta).filter_map(Result::err));
    acls.sort();
    acls.dedup();
    let consumer = Consumer::new(id(key), object.username.as_deref(), object.custom_id.as_deref(), groups, acls);
    let consumer = Arc::new(consumer);
    let credentials = raw.into_iter().map(|(secret, raw)| Credential::new(uuid(Kind::Secret, &secret), raw, &consumer));
    Known {
        object: Arc::clone(object),
        told_apart: told_apart(store, object, &consumer),
        credentials: credentials.collect(),
        consumer,
        remarks: (!problems.is_empty()).then(|| Box::new(Remarks(problems))),
    }
}

/// What tells a consumer from others, in every process alike: also from one who is older and has the same names. For what is in
/// Secrets stands which version of them it is, since the number is for everybody to see.
fn told_apart(store: &Store, object: &Object<KongConsumer>, consumer: &Consumer) -> u64 {
    let mut hasher = DefaultHasher::new();
    let names = (&*consumer.id, consumer.username.as_deref(), consumer.custom_id().map(|id| &**id));
    (names, consumer.groups(), object.meta.created).hash(&mut hasher);
    for name in &object.credentials {
        let key = ObjectKey::new(&object.meta.key.namespace, name);
        (name, store.secrets.get(&key).map(|secret| secret.meta.revision)).hash(&mut hasher);
    }
    hasher.finish()
}

impl Known {
    /// Whether requests cannot tell it from the other, nor those who claim the same.
    fn is_alike(&self, other: &Known) -> bool {
        let Known { object, consumer, credentials, told_apart: _, remarks: _ } = self;
        (object.meta.created, consumer, credentials) == (other.object.meta.created, &other.consumer, &other.credentials)
    }

    fn claimant(&self) -> Claimant {
        Claimant { created: self.object.meta.created, key: self.object.meta.key.clone() }
    }

    /// What only one consumer can have, in the order of the fields, each with the credential that it is of.
    fn stated(&self) -> impl Iterator<Item = (Claim, Option<&Credential>)> {
        let username = self.consumer.username.iter().map(|name| Claim::Username(Arc::clone(name.text())));
        let custom_id = self.consumer.custom_id().into_iter().map(|id| Claim::CustomId(Arc::clone(id.text())));
        let credentials = self.credentials.iter().map(|credential| (credential.claim(), Some(credential)));
        username.chain(custom_id).map(|claim| (claim, None)).chain(credentials)
    }

    /// Each once.
    fn claims(&self) -> BTreeSet<Claim> {
        self.stated().map(|(claim, _)| claim).collect()
    }

    /// Where the consumer names its Secret. Only for complaints, so that it need not be remembered of all.
    fn field_of(&self, credential: &Credential) -> String {
        let namespace = &self.object.meta.key.namespace;
        let is_its = |name: &String| {
            let secret = ObjectKey { namespace: Arc::clone(namespace), name: name.as_str().into() };
            uuid(Kind::Secret, &secret) == *credential.id()
        };
        match self.object.credentials.iter().position(is_its) {
            Some(index) => format!("credentials[{index}]"),
            None => "credentials".to_owned(),
        }
    }

    /// Puts into the directory what it claims and nobody before it.
    fn take(&self, claim: &Claim, directory: &mut Directory) {
        let consumer = &self.consumer;
        match claim {
            Claim::Username(_) => directory.usernames.insert(Arc::clone(consumer)),
            Claim::CustomId(_) => directory.custom_ids.insert(Arc::clone(consumer)),
            Claim::Key(_) | Claim::Login(_) | Claim::Token(_) => {
                for credential in self.credentials.iter().filter(|credential| credential.claim() == *claim) {
                    credential.enter(directory);
                }
            }
        }
    }
}

/// By id.
impl Borrow<Id> for Known {
    fn borrow(&self) -> &Id {
        &self.consumer.id
    }
}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.consumer.id.hash(state);
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.consumer.id == other.consumer.id
    }
}

impl Eq for Known {}

/// The id under which backends and logs know a consumer: a UUID made of its key, so that it is the same in every replica
/// and after a restore from a backup.
pub(super) fn id(consumer: &ObjectKey) -> Id {
    uuid(Kind::KongConsumer, consumer)
}

/// The name by which plugins know a group.
pub(super) fn group(group: &ObjectKey) -> Arc<str> {
    group.to_string().into()
}

/// In the form of version 8 (RFC 9562, section 5.8), which leaves the bits to us.
fn uuid(kind: Kind, key: &ObjectKey) -> Id {
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
        let digit = |four: u8| char::from_digit(four.into(), 16).expect("half a byte is a digit");
        text.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    Id::of(&text)
}
