//! Consumers and their credentials: builds the directory in which plugins look up consumers.
//!
//! If several consumers claim the same name or key, the oldest holds it (if equally old, the first by
//! `namespace/name`), so a new consumer never takes a claim from an existing one. The others get a diagnostic. A
//! consumer without one of its keys keeps its other keys. One without its username or custom id is not admitted: its
//! keys would let a client pass for the consumer that has the name (docs/kong-compatibility.md, 3.7).

mod admission;
mod claim_conflicts;
mod credentials;
pub(super) mod identity;
mod left_out;
mod oauth_client;
pub(super) mod served;

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::plugins::referenced_plugins;
use crate::api::kong::KongConsumer;
use crate::api::names::ENTITY_ID_ANNOTATION;
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::verdicts::rejected_objects::rejected;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::Consumer;
use crate::plugin_api::consumers::plugins::{OrderedPlugins, PluginSubject};
use crate::plugin_api::consumers::{ConsumerDirectory, EntityId, StoredPassword};
use crate::store::{Changes, Store};
use crate::verdict::{Code, Condition, Verdict};
use claim_conflicts::{ClaimConflicts, Claimant, ConsumerClaim};
use credentials::{Credential, RawCredential};
use identity::{consumer_id, derive_uuid, group_name, line_id};
use served::is_served;

/// All consumers and their claims.
#[derive(Debug, Default)]
pub(in crate::compile) struct Consumers {
    /// The served consumers, hashed by consumer id.
    known: HashSet<KnownConsumer>,
    conflicts: ClaimConflicts,
    directory: Arc<ConsumerDirectory>,
}

/// A consumer as its objects describe it. There may be very many, so no data is stored twice.
#[derive(Debug)]
struct KnownConsumer {
    object: Arc<Object<KongConsumer>>,
    consumer: Arc<Consumer>,
    credentials: Box<[Credential]>,
    /// Whether it holds all of its names. Otherwise the directory has none of its names and credentials.
    is_admitted: bool,
    content_hash: u64,
    /// Boxed because most consumers have none.
    diagnostics: Option<Box<ConsumerDiagnostics>>,
}

/// Diagnostics about a consumer, except for contested claims.
#[derive(Clone, Debug, Default)]
struct ConsumerDiagnostics(Vec<Diagnostic>);

/// Objects whose verdict must be updated.
#[derive(Default)]
struct PendingVerdicts {
    objects: BTreeSet<ObjectId>,
    /// Claims with several claimants: the verdicts on all of these must be updated.
    contested: BTreeSet<ConsumerClaim>,
}

impl Consumers {
    /// The current directory.
    pub(in crate::compile) fn directory(&self) -> Arc<ConsumerDirectory> {
        Arc::clone(&self.directory)
    }

    /// Sets the plugins that run on all routes for a consumer or group.
    pub(in crate::compile) fn set_plugins(&mut self, subject: &PluginSubject, plugins: OrderedPlugins) {
        // The directory is copied only if something changed.
        let known = self.directory.plugins_of(subject);
        let is_same = known.map_or(plugins.is_empty(), |known| *known == plugins);
        if !is_same {
            Arc::make_mut(&mut self.directory).set_plugins(subject, plugins);
        }
    }

    /// Reads the touched objects again. Returns the consumers and groups whose verdicts must be updated.
    pub(in crate::compile) fn update(&mut self, cx: CompileContext<'_>, touched: &Changes) -> BTreeSet<ObjectId> {
        let mut pending = PendingVerdicts::default();
        for id in touched {
            match id.kind {
                Kind::KongConsumer => {}
                Kind::KongConsumerGroup => {
                    pending.objects.insert(id.clone());
                    continue;
                }
                _ => continue,
            }
            pending.objects.insert(id.clone());
            let object = cx.store.kong_consumers.get(&id.key).filter(|_| is_served(cx, id));
            let after = object.map(|object| read_consumer(cx, object));
            let before = match &after {
                // Saves the digest: this is `consumer_id(&id.key)`.
                Some(after) => self.known.take(&after.consumer.id),
                None => self.known.take(&consumer_id(&id.key)),
            };
            match (before, after) {
                // Keep the `Arc` of the consumer, which requests and caches hold.
                (Some(before), Some(after)) if before.is_equivalent(&after) => {
                    if before.content_hash != after.content_hash {
                        let directory = Arc::make_mut(&mut self.directory);
                        directory.fingerprint = directory.fingerprint.wrapping_sub(before.content_hash);
                        directory.fingerprint = directory.fingerprint.wrapping_add(after.content_hash);
                    }
                    // Store the new object, because its verdict may differ.
                    let KnownConsumer { consumer, credentials, is_admitted, .. } = before;
                    self.known.insert(KnownConsumer { consumer, credentials, is_admitted, ..after });
                }
                (before, after) => {
                    if let Some(before) = before {
                        self.remove(&before, &mut pending);
                    }
                    if let Some(after) = after {
                        self.add(after, &mut pending);
                    }
                }
            }
        }
        let lacks_credentials = lacks_credentials(cx);
        if lacks_credentials != self.directory.lacks_credentials {
            Arc::make_mut(&mut self.directory).lacks_credentials = lacks_credentials;
        }
        for claim in pending.contested {
            let claimants = self.conflicts.claimants(&claim).map(|claimant| &claimant.key);
            pending.objects.extend(claimants.map(|key| ObjectId::new(Kind::KongConsumer, key.clone())));
        }
        pending.objects
    }

    /// The verdict on a consumer or group: a warning without conditions if it has another class. `None` if it does not
    /// exist or belongs to another control plane.
    pub(in crate::compile) fn verdict(&self, cx: CompileContext<'_>, id: &ObjectId) -> Option<Verdict> {
        if let Some(left_out) = left_out::verdict(cx, id) {
            return Some(left_out);
        }
        if id.kind == Kind::KongConsumerGroup {
            let group = cx.store.kong_consumer_groups.get(&id.key).filter(|_| is_served(cx, id))?;
            let rejection = cx.store.is_rejected(id).then(rejected);
            let of_plugins = referenced_plugins(cx, id.kind, &group.meta).filter_map(Result::err);
            let problems = rejection.into_iter().chain(of_plugins).collect::<Vec<_>>();
            let name = group.spec.as_ref().and_then(|spec| spec.name.as_ref());
            let note = name.map(|_| {
                let message = format!("it has no effect, as in Kong: the name of the group is {}", group.meta.key.name);
                Diagnostic::warning("spec.name", message, "remove it")
            });
            return Some(verdict(group.meta.generation, problems, note.into_iter().collect()));
        }
        let known = self.known.get(&consumer_id(&id.key))?;
        let ConsumerDiagnostics(mut problems) = known.diagnostics.as_deref().cloned().unwrap_or_default();
        problems.extend(cx.store.is_rejected(id).then(rejected));
        // Credentials of a consumer that is not admitted are not compared with those of others.
        let claims = known.claims_with_credentials().filter(|(claim, _)| known.is_admitted || claim.is_name());
        for (claim, credential) in claims {
            let holder = self.conflicts.claimants(&claim).next().map(|first| &first.key);
            if let Some(holder) = holder.filter(|holder| **holder != id.key) {
                let of_credential = |credential| known.field_of(cx, credential);
                let field = credential.map_or_else(|| claim.field_name().to_owned(), of_credential);
                let consequence = if claim.is_name() { ", so the credentials of this one are rejected" } else { "" };
                let message = format!(
                    "KongConsumer {holder} keeps this {}, because it is older, or equally old and first by name\
                     {consequence}",
                    claim.field_name()
                );
                problems.push(Diagnostic::error(field, message, "choose another one, or remove it from that consumer"));
            }
        }
        Some(verdict(known.object.meta.generation, problems, Vec::new()))
    }
}

/// Whether a served consumer refers to a Secret that exists and was not fetched yet. One that may not be fetched does
/// not count: the consumers of one namespace must not change what the clients of others get for good.
fn lacks_credentials(cx: CompileContext<'_>) -> bool {
    let index = cx.store.dependency_index();
    let is_consumer = |id: &ObjectId| id.kind == Kind::KongConsumer && is_served(cx, id);
    cx.store.unfetched().iter().any(|secret| index.dependents(secret).any(is_consumer))
}

fn verdict(generation: i64, problems: Vec<Diagnostic>, notes: Vec<Diagnostic>) -> Verdict {
    let condition = match &problems[..] {
        [] => Condition::without_diagnostics(Code::ObjectProgrammed),
        _ => Condition::new(Code::ObjectInvalid, problems),
    };
    Verdict { generation, conditions: vec![condition], diagnostics: notes, ..Verdict::default() }
}

fn read_consumer(cx: CompileContext<'_>, object: &Arc<Object<KongConsumer>>) -> KnownConsumer {
    let key = &object.meta.key;
    let mut problems = Vec::new();
    let mut groups = Vec::new();
    for (index, name) in object.consumer_groups.iter().enumerate() {
        let target = ObjectKey { namespace: key.namespace.clone(), name: name.as_str().into() };
        match is_served(cx, &ObjectId::new(Kind::KongConsumerGroup, target.clone())) {
            true => groups.push(group_name(&target)),
            false => {
                let field = format!("consumerGroups[{index}]");
                let group = format!("KongConsumerGroup {target}");
                let remedy = "create it with the consumer's class, or correct the name";
                problems.push(match cx.store.kong_consumer_groups.contains_key(&target) {
                    true => Diagnostic::error(field, format!("{group} has another class or control plane"), remedy),
                    false => Diagnostic::not_found(field, group, remedy),
                });
            }
        }
    }
    let (mut acls, mut has_unknown_acls) = (Vec::new(), false);
    let mut raw_credentials = Vec::new();
    for (index, name) in object.credentials.iter().enumerate() {
        let field = format!("credentials[{index}]");
        let secret = ObjectKey { namespace: key.namespace.clone(), name: name.as_str().into() };
        match credentials::read_credential(cx.store, &secret, &field) {
            Ok(credentials::CredentialSecret::Acl(group)) => acls.push(group),
            Ok(credentials::CredentialSecret::Credential(credential)) => {
                raw_credentials.push((credential_id(cx, &secret), credential));
            }
            Ok(credentials::CredentialSecret::Htpasswd(htpasswd)) => {
                raw_credentials.extend(htpasswd.entries.into_iter().map(|(username, hash)| {
                    let password = StoredPassword::Hash(hash);
                    (line_id(&secret, &username), RawCredential::Basic { username, password })
                }));
                problems.extend(htpasswd.problems);
            }
            Ok(credentials::CredentialSecret::Ignored) => {}
            Err(problem) => {
                has_unknown_acls |= credentials::may_be_group(cx.store, &secret);
                problems.push(problem);
            }
        }
    }
    problems.extend(referenced_plugins(cx, Kind::KongConsumer, &object.meta).filter_map(Result::err));
    acls.sort();
    acls.dedup();
    let mut consumer =
        Consumer::new(consumer_id(key), object.username.as_deref(), object.custom_id.as_deref(), groups, acls)
            .of_namespace(Arc::clone(&key.namespace));
    if has_unknown_acls {
        consumer = consumer.with_unknown_acls();
    }
    if let Some(uid) = &object.meta.uid {
        consumer = consumer.of_object(uid);
    }
    if let Some(id) = given_id(cx, &object.meta) {
        consumer = consumer.with_given_id(id);
    }
    let consumer = Arc::new(consumer);
    let credentials = raw_credentials.into_iter().map(|(id, raw)| Credential::new(id, raw, &consumer));
    KnownConsumer {
        object: Arc::clone(object),
        content_hash: content_hash(cx.store, object, &consumer),
        credentials: credentials.collect(),
        is_admitted: false,
        consumer,
        diagnostics: (!problems.is_empty()).then(|| Box::new(ConsumerDiagnostics(problems))),
    }
}

/// The id of the credential in a Secret.
fn credential_id(cx: CompileContext<'_>, secret: &ObjectKey) -> EntityId {
    let given = cx.store.secrets.get(secret).and_then(|secret| given_id(cx, &secret.meta));
    given.unwrap_or_else(|| derive_uuid(Kind::Secret, secret))
}

/// The id that an annotation gives to a consumer or credential. It has no effect in a cluster.
fn given_id(cx: CompileContext<'_>, meta: &Meta) -> Option<EntityId> {
    let is_trusted = cx.inputs.upstreams.trust_model().trusts_given_names();
    let id = meta.annotations.get(ENTITY_ID_ANNOTATION).filter(|id| is_trusted && !id.is_empty());
    id.map(|id| EntityId::from_text(id))
}

/// A hash that distinguishes consumers, equal in all processes. It covers the creation time. Of Secrets it covers the
/// resource version and not the content, because metrics expose a fingerprint that includes this hash.
fn content_hash(store: &Store, object: &Object<KongConsumer>, consumer: &Consumer) -> u64 {
    let mut hasher = DefaultHasher::new();
    let names = (&**consumer.reported_id(), consumer.username.as_deref(), consumer.custom_id().map(|id| &**id));
    (names, consumer.groups(), object.meta.created, consumer.object()).hash(&mut hasher);
    for name in &object.credentials {
        let key = ObjectKey::new(&object.meta.key.namespace, name);
        (name, store.secrets.get(&key).map(|secret| secret.meta.revision)).hash(&mut hasher);
    }
    hasher.finish()
}

impl KnownConsumer {
    /// Whether `other` can replace it without effect on requests and on contested claims.
    fn is_equivalent(&self, other: &KnownConsumer) -> bool {
        let KnownConsumer { object, consumer, credentials, is_admitted: _, content_hash: _, diagnostics: _ } = self;
        (object.meta.created, consumer, credentials) == (other.object.meta.created, &other.consumer, &other.credentials)
    }

    fn claimant(&self) -> Claimant {
        Claimant { created: self.object.meta.created, key: self.object.meta.key.clone() }
    }

    /// The claims in field order, each with its credential.
    fn claims_with_credentials(&self) -> impl Iterator<Item = (ConsumerClaim, Option<&Credential>)> {
        let username = self.consumer.username.iter().map(|name| ConsumerClaim::Username(Arc::clone(name.text())));
        let custom_id = self.consumer.custom_id().into_iter().map(|id| ConsumerClaim::CustomId(Arc::clone(id.text())));
        let credentials = self.credentials.iter().map(|credential| (credential.claim(), Some(credential)));
        username.chain(custom_id).map(|claim| (claim, None)).chain(credentials)
    }

    /// The names that it needs to be admitted.
    fn names(&self) -> BTreeSet<ConsumerClaim> {
        self.claims_with_credentials().map(|(claim, _)| claim).filter(ConsumerClaim::is_name).collect()
    }

    /// The distinct claims of its credentials.
    fn credential_claims(&self) -> BTreeSet<ConsumerClaim> {
        self.claims_with_credentials().map(|(claim, _)| claim).filter(|claim| !claim.is_name()).collect()
    }

    /// The field that refers to the Secret of the credential. Computed on demand, because only diagnostics need it.
    fn field_of(&self, cx: CompileContext<'_>, credential: &Credential) -> String {
        let namespace = &self.object.meta.key.namespace;
        let is_its_secret = |name: &String| {
            let secret = ObjectKey { namespace: Arc::clone(namespace), name: name.as_str().into() };
            let line = credential.username().map(|username| line_id(&secret, username));
            credential_id(cx, &secret) == *credential.id() || line.as_ref() == Some(credential.id())
        };
        match self.object.credentials.iter().position(is_its_secret) {
            Some(index) => format!("credentials[{index}]"),
            None => "credentials".to_owned(),
        }
    }

    /// Enters the claim into the directory for this consumer.
    fn take_claim(&self, claim: &ConsumerClaim, directory: &mut ConsumerDirectory) {
        let consumer = &self.consumer;
        match claim {
            ConsumerClaim::Username(_) => directory.usernames.insert(Arc::clone(consumer)),
            ConsumerClaim::CustomId(_) => directory.custom_ids.insert(Arc::clone(consumer)),
            // All other claims are those of credentials, whose types know their maps.
            _ => {
                for credential in self.credentials.iter().filter(|credential| credential.claim() == *claim) {
                    credential.insert_into(directory);
                }
            }
        }
    }
}

/// Consumers are looked up by id.
impl Borrow<EntityId> for KnownConsumer {
    fn borrow(&self) -> &EntityId {
        &self.consumer.id
    }
}

impl Hash for KnownConsumer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.consumer.id.hash(state);
    }
}

impl PartialEq for KnownConsumer {
    fn eq(&self, other: &Self) -> bool {
        self.consumer.id == other.consumer.id
    }
}

impl Eq for KnownConsumer {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compile::testing::TestInputs;
    use crate::endpoint_tls::TrustAnchors;
    use crate::plugin_api::PluginRegistry;
    use crate::ssrf_guard::{AddressPolicy, AddressSources, TrustModel};
    use crate::store::{AnyObject, Batch};
    use crate::upstream::UpstreamRegistry;

    /// Endpoints may decide by the id, so users of a cluster must not choose it, whatever else they may choose.
    #[test]
    fn only_files_give_consumers_their_ids() {
        let in_cluster = TrustModel::MultiTenant { addresses: AddressPolicy::default(), sources: AddressSources::ALL };
        for (trust, is_given) in [(TrustModel::SingleTenant, true), (in_cluster, false)] {
            let metadata = json!({"namespace": "a", "name": "c", "annotations": {ENTITY_ID_ANNOTATION: "of-another"}});
            let object = AnyObject::parse(Kind::KongConsumer, json!({"metadata": metadata, "username": "c"})).unwrap();
            let mut store = Store::default();
            store.apply(Batch { upserts: vec![object], removes: vec![] });
            let mut inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
            inputs.upstreams = UpstreamRegistry::new(TrustAnchors::new([]), trust);
            let inputs = inputs.as_inputs();
            let object = &store.kong_consumers[&ObjectKey::new("a", "c")];
            let consumer = read_consumer(CompileContext::new(&store, &inputs), object).consumer;
            let expected = if is_given { "of-another" } else { &*consumer.id };
            assert_eq!(&**consumer.reported_id(), expected);
        }
    }
}
