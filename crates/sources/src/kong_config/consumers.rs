//! Consumers, their groups and their credentials.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value, json};

use super::fields::{EntityFields, EntityReference, FileFindings};
use super::model::{Entity, EntityIndex, EntityKind, Model};
use super::names::Names;
use super::objects::Draft;
use super::settings::TranslationSettings;
use crate::api::kong::annotations::CREDENTIAL_LABEL;
use crate::api::names::ENTITY_ID_ANNOTATION;

/// The consumers and groups, by their positions in the file, and the Secrets with credentials.
pub(super) struct ConsumerPlans {
    pub(super) consumers: Vec<Draft>,
    pub(super) groups: Vec<Draft>,
    pub(super) secrets: Vec<Draft>,
}

/// What credentials are read with.
pub(super) struct CredentialContext {
    pub(super) hashed_passwords: bool,
    /// When the file was read, if its objects are served as they are.
    pub(super) read_at: Option<i64>,
}

pub(super) fn plan(
    model: &mut Model<'_>,
    index: &EntityIndex,
    context: &CredentialContext,
    settings: &TranslationSettings,
    names: &mut Names,
) -> ConsumerPlans {
    let mut members: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); model.consumers.len()];
    let groups = plan_groups(std::mem::take(&mut model.groups), index, &mut members, settings, names);
    let mut consumers = Vec::new();
    let mut custom_ids = HashSet::new();
    for (position, mut consumer) in std::mem::take(&mut model.consumers).into_iter().enumerate() {
        let findings = consumer.fields.findings;
        let custom_id = consumer.fields.text("custom_id");
        if custom_id.as_ref().is_some_and(|id| !custom_ids.insert(id.clone())) {
            let message = "another consumer has the same custom_id";
            findings.reject(consumer.fields.field("custom_id"), message, "change or delete one of the two");
        }
        let field = consumer.fields.field("groups");
        for (number, group) in consumer.fields.list("groups").unwrap_or_default().into_iter().enumerate() {
            let field = format!("{field}[{number}]");
            members[position].extend(find_member(group, field, EntityKind::Group, index, findings));
        }
        let label = consumer.name.clone().or_else(|| custom_id.clone()).unwrap_or_default();
        let is_mistyped = ["username", "custom_id"].iter().any(|name| consumer.fields.is_mistyped(name));
        if label.is_empty() && !is_mistyped {
            let message = "the consumer has neither username nor custom_id";
            findings.reject(consumer.path(), message, "write a username");
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
        consumers.push(draft);
    }
    for mut membership in std::mem::take(&mut model.memberships) {
        let consumer = membership.parent(EntityKind::Consumer, index);
        let group = membership.parent(EntityKind::Group, index);
        if let (Some(consumer), Some(group)) = (consumer, group) {
            members[consumer].insert(group);
        }
        membership.fields.finish();
    }
    for (consumer, groups_of) in consumers.iter_mut().zip(&members) {
        if !groups_of.is_empty() {
            let list: Vec<&str> = groups_of.iter().map(|group| &*groups[*group].name).collect();
            consumer.fields.insert("consumerGroups".to_owned(), json!(list));
        }
    }
    let mut secrets = Vec::new();
    let mut unique = UniqueValues::default();
    for (kind, mut credential) in std::mem::take(&mut model.credentials) {
        let Some(consumer) = credential.owner(EntityKind::Consumer, index) else {
            let message = "this credential belongs to no consumer";
            credential.fields.findings.reject(credential.path(), message, "nest it in a consumer");
            continue;
        };
        let consumer_name = &consumers[consumer].name;
        let secret = plan_credential(kind, credential, consumer_name, context, names, &mut unique);
        let Some(secret) = secret else { continue };
        let list = consumers[consumer].fields.entry("credentials").or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(json!(secret.name));
        }
        secrets.push(secret);
    }
    ConsumerPlans { consumers, groups, secrets }
}

fn plan_groups(
    groups: Vec<Entity<'_>>,
    index: &EntityIndex,
    members: &mut [BTreeSet<usize>],
    settings: &TranslationSettings,
    names: &mut Names,
) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (position, mut group) in groups.into_iter().enumerate() {
        let findings = group.fields.findings;
        let field = group.fields.field("consumers");
        for (number, consumer) in group.fields.list("consumers").unwrap_or_default().into_iter().enumerate() {
            let field = format!("{field}[{number}]");
            if let Some(consumer) = find_member(consumer, field, EntityKind::Consumer, index, findings) {
                members[consumer].insert(position);
            }
        }
        let label = group.name.clone().unwrap_or_default();
        if label.is_empty() && !group.fields.is_mistyped("name") {
            findings.reject(group.path(), "the group has no name", "write a name");
        }
        let name = names.name("KongConsumerGroup", &label);
        if name != label && !label.is_empty() {
            let message = format!("the group is called {name} in X-Consumer-Groups and in access lists");
            findings.differs(group.path(), message, "rename it to lower-case letters, digits and hyphens");
        }
        let draft = Draft::new("configuration.konghq.com/v1beta1", "KongConsumerGroup", &name, group.path());
        drafts.push(draft.of_class(settings));
        group.fields.finish();
    }
    drafts
}

/// The entity that an entry of a list of members means: a text, or an object with a name.
fn find_member(
    value: Value,
    field: String,
    kind: EntityKind,
    index: &EntityIndex,
    findings: &FileFindings,
) -> Option<usize> {
    let mut fields = Map::new();
    fields.insert("member".to_owned(), value);
    let EntityReference { key, .. } =
        EntityFields::new(field.clone(), Value::Object(fields), None, findings).reference("member")?;
    index.resolve(kind, &EntityReference { key, field }, findings)
}

/// Values that only one credential has, with the type of the credential and the consumer that it is of.
#[derive(Default)]
struct UniqueValues(HashSet<(String, String, String)>);

impl UniqueValues {
    /// Returns false if there is the same value already.
    fn add(&mut self, label: &str, consumer: &str, value: &str) -> bool {
        self.0.insert((label.to_owned(), consumer.to_owned(), value.to_owned()))
    }
}

/// The Secret of a credential.
fn plan_credential(
    kind: &str,
    mut credential: Entity<'_>,
    consumer: &str,
    context: &CredentialContext,
    names: &mut Names,
    unique: &mut UniqueValues,
) -> Option<Draft> {
    let (label, required, optional): (&str, &[&'static str], &[&'static str]) = match kind {
        "keyauth_credentials" => ("key-auth", &["key"], &[]),
        "basicauth_credentials" => ("basic-auth", &["username", "password"], &[]),
        "jwt_secrets" => ("jwt", &["key"], &["secret", "algorithm", "rsa_public_key"]),
        "hmacauth_credentials" => ("hmac-auth", &["username", "secret"], &[]),
        "acls" => ("acl", &["group"], &[]),
        "oauth2_credentials" => ("oauth2", &["client_id", "client_secret"], &["client_type"]),
        _ => ("mtls-auth", &["subject_name"], &[]),
    };
    let path = credential.path().to_owned();
    let findings = credential.fields.findings;
    let mut data = Map::new();
    let (mut is_complete, mut created) = (true, None);
    // A public client has no secret.
    let is_public = credential.fields.peek("client_type").and_then(Value::as_str) == Some("public");
    for name in required {
        match credential.fields.text(name).filter(|value| !value.is_empty()) {
            Some(value) => {
                // A group has many consumers, but each of them only once.
                let of = if label == "acl" { consumer } else { "" };
                if ["key", "username", "client_id", "group"].contains(name) && !unique.add(label, of, &value) {
                    let message = format!("another credential of {label} has the same {name}");
                    findings.reject(credential.fields.field(name), message, "delete one of the two");
                }
                data.insert((*name).to_owned(), json!(value));
            }
            None if is_public && *name == "client_secret" => {}
            None if credential.fields.is_mistyped(name) => is_complete = false,
            None => {
                is_complete = false;
                let message = format!("{name} is missing, and Kong would generate one that clients cannot know");
                findings.reject(credential.fields.field(name), message, "write it");
            }
        }
    }
    for name in optional {
        if let Some(value) = credential.fields.text(name) {
            data.insert((*name).to_owned(), json!(value));
        }
    }
    match label {
        "key-auth" => {
            if let Some(ttl) = credential.fields.number("ttl", 0, i64::MAX).filter(|ttl| *ttl > 0) {
                data.insert("ttl".to_owned(), json!(ttl.to_string()));
                // As in Kong, it counts from the creation of the key: when it is read if the file has no time.
                let mut read_created = || credential.fields.decimal("created_at").map(|seconds| seconds as i64);
                created = context.read_at.map(|read_at| read_created().unwrap_or(read_at));
            }
        }
        "oauth2" => {
            data.insert("name".to_owned(), json!(credential.name.clone().unwrap_or_else(|| consumer.to_owned())));
            if let Some(uris) = credential.fields.texts("redirect_uris") {
                data.insert("redirect_uris".to_owned(), json!(uris.join(",")));
            }
            for name in ["oauth2_tokens", "oauth2_authorization_codes"] {
                if credential.fields.list(name).is_some_and(|list| !list.is_empty()) {
                    let field = credential.fields.field(name);
                    findings.leave_out(field, "stored tokens are not supported", "remove them; clients log in again");
                }
            }
            if let Some(is_hashed) = credential.fields.flag("hash_secret") {
                data.insert("hash_secret".to_owned(), json!(is_hashed.to_string()));
            }
        }
        "mtls-auth" => {
            if let Some(authority) = credential.fields.reference("ca_certificate") {
                let message = "credentials for certificates of one authority only are not supported";
                findings.leave_out(&authority.field, message, "remove ca_certificate, and list it in the plugin");
                is_complete = false;
            }
        }
        _ => {}
    }
    credential.fields.finish();
    if label == "basic-auth" && context.hashed_passwords {
        let message = "the password is a hash in Kong's own format, because _transform is false";
        findings.leave_out(&path, message, "write the password itself, and remove _transform");
        return None;
    }
    if !is_complete {
        return None;
    }
    let name = names.name("Secret", &format!("{consumer}-{label}"));
    let mut secret = Draft::new("v1", "Secret", &name, &path).with("stringData", Value::Object(data));
    secret.label(CREDENTIAL_LABEL, label);
    if let Some(id) = &credential.id {
        secret.annotate(ENTITY_ID_ANNOTATION, id.as_str());
    }
    secret.created = created;
    Some(secret)
}
