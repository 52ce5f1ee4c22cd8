//! Consumers and their groups, with the names of their credentials.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value, json};

use super::credentials::{self, CredentialContext, UniqueValues};
use super::fields::{EntityFields, EntityReference};
use super::model::{Entity, EntityIndex, EntityKind, Model};
use super::names::Names;
use super::objects::Draft;
use super::settings::TranslationSettings;
use crate::api::names::ENTITY_ID_ANNOTATION;

/// The consumers and groups, by their positions in the file, and the Secrets with credentials.
pub(super) struct ConsumerPlans {
    pub(super) consumers: Vec<Draft>,
    pub(super) groups: Vec<Draft>,
    pub(super) secrets: Vec<Draft>,
}

pub(super) fn plan(
    model: &mut Model<'_>,
    index: &EntityIndex,
    context: &CredentialContext,
    settings: &TranslationSettings,
    names: &mut Names,
) -> ConsumerPlans {
    let mut members: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); model.consumers.len()];
    let mut groups = Vec::new();
    for (position, mut group) in std::mem::take(&mut model.groups).into_iter().enumerate() {
        for consumer in read_members(&mut group.fields, "consumers", EntityKind::Consumer, index) {
            members[consumer].insert(position);
        }
        groups.push(plan_group(group, settings, names));
    }
    let mut consumers = Vec::new();
    let mut custom_ids = HashSet::new();
    for (mut consumer, groups) in std::mem::take(&mut model.consumers).into_iter().zip(&mut members) {
        let custom_id = read_custom_id(&mut consumer.fields, &mut custom_ids);
        groups.extend(read_members(&mut consumer.fields, "groups", EntityKind::Group, index));
        consumers.push(plan_consumer(consumer, custom_id, settings, names));
    }
    for membership in std::mem::take(&mut model.memberships) {
        if let Some((consumer, group)) = read_membership(membership, index) {
            members[consumer].insert(group);
        }
    }
    name_groups(&mut consumers, &members, &groups);
    let secrets = plan_credentials(std::mem::take(&mut model.credentials), &mut consumers, index, context, names);
    ConsumerPlans { consumers, groups, secrets }
}

fn plan_group(group: Entity<'_>, settings: &TranslationSettings, names: &mut Names) -> Draft {
    let label = group.name.clone().unwrap_or_default();
    if label.is_empty() {
        group.reject_unnamed("the group has no name", "write a name");
    }
    let name = names.name("KongConsumerGroup", &label);
    if name != label && !label.is_empty() {
        let message = format!("the group is called {name} in X-Consumer-Groups and in access lists");
        let remedy = "rename it to lower-case letters, digits and hyphens";
        group.fields.findings.differs(group.path(), message, remedy);
    }
    let draft = Draft::new("configuration.konghq.com/v1beta1", "KongConsumerGroup", &name, group.path());
    group.fields.finish();
    draft.of_class(settings)
}

/// The id of a consumer in another system, which no other consumer has.
fn read_custom_id(fields: &mut EntityFields<'_>, others: &mut HashSet<String>) -> Option<String> {
    let custom_id = fields.text("custom_id");
    if custom_id.as_ref().is_some_and(|id| !others.insert(id.clone())) {
        let message = "another consumer has the same custom_id";
        fields.findings.reject(fields.field("custom_id"), message, "change or delete one of the two");
    }
    custom_id
}

fn plan_consumer(
    consumer: Entity<'_>,
    custom_id: Option<String>,
    settings: &TranslationSettings,
    names: &mut Names,
) -> Draft {
    let label = consumer.name.as_ref().or(custom_id.as_ref()).cloned().unwrap_or_default();
    let is_mistyped = ["username", "custom_id"].iter().any(|name| consumer.fields.is_mistyped(name));
    if label.is_empty() && !is_mistyped {
        let message = "the consumer has neither username nor custom_id";
        consumer.fields.findings.reject(consumer.path(), message, "write a username");
    }
    let name = names.name("KongConsumer", &label);
    let mut draft = Draft::new("configuration.konghq.com/v1", "KongConsumer", &name, consumer.path());
    draft = draft.of_class(settings);
    for (field, value) in [("username", &consumer.name), ("custom_id", &custom_id)] {
        if let Some(value) = value {
            draft.fields.insert(field.to_owned(), json!(value));
        }
    }
    if let Some(id) = &consumer.id {
        draft.annotate(ENTITY_ID_ANNOTATION, id.as_str());
    }
    consumer.fields.finish();
    draft
}

/// The positions of the entities that a list of members means. An entry is a text, or an object with a name.
fn read_members(
    fields: &mut EntityFields<'_>,
    list: &'static str,
    kind: EntityKind,
    index: &EntityIndex,
) -> Vec<usize> {
    let (field, findings) = (fields.field(list), fields.findings);
    let members = fields.list(list).unwrap_or_default().into_iter().enumerate();
    let find = |(number, member)| {
        let field = format!("{field}[{number}]");
        let member = Value::Object(Map::from_iter([("member".to_owned(), member)]));
        let EntityReference { key, .. } =
            EntityFields::new(field.clone(), member, None, findings).reference("member")?;
        index.resolve(kind, &EntityReference { key, field }, findings)
    };
    members.filter_map(find).collect()
}

/// The positions of the consumer and of the group of which it is a member.
fn read_membership(mut membership: Entity<'_>, index: &EntityIndex) -> Option<(usize, usize)> {
    let consumer = membership.parent(EntityKind::Consumer, index);
    let group = membership.parent(EntityKind::Group, index);
    membership.fields.finish();
    consumer.zip(group)
}

/// Lets the consumers name their groups.
fn name_groups(consumers: &mut [Draft], members: &[BTreeSet<usize>], groups: &[Draft]) {
    for (consumer, groups_of) in consumers.iter_mut().zip(members) {
        if !groups_of.is_empty() {
            let list: Vec<&str> = groups_of.iter().map(|group| &*groups[*group].name).collect();
            consumer.fields.insert("consumerGroups".to_owned(), json!(list));
        }
    }
}

/// The Secrets of credentials, which the consumers name.
fn plan_credentials(
    credentials: Vec<(&'static str, Entity<'_>)>,
    consumers: &mut [Draft],
    index: &EntityIndex,
    context: &CredentialContext,
    names: &mut Names,
) -> Vec<Draft> {
    let mut secrets = Vec::new();
    let mut unique = UniqueValues::default();
    for (collection, mut credential) in credentials {
        let Some(consumer) = credential.owner(EntityKind::Consumer, index) else {
            let message = "this credential belongs to no consumer";
            credential.fields.findings.reject(credential.path(), message, "nest it in a consumer");
            continue;
        };
        let consumer = &mut consumers[consumer];
        let secret = credentials::plan(collection, credential, &consumer.name, context, names, &mut unique);
        let Some(secret) = secret else { continue };
        let list = consumer.fields.entry("credentials").or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(json!(secret.name));
        }
        secrets.push(secret);
    }
    secrets
}
