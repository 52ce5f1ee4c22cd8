//! Credentials of consumers: each becomes a Secret.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::fields::EntityFields;
use super::model::Entity;
use super::names::Names;
use super::objects::Draft;
use crate::api::kong::annotations::CREDENTIAL_LABEL;
use crate::api::names::ENTITY_ID_ANNOTATION;

/// What credentials are read with.
pub(super) struct CredentialContext {
    pub(super) hashed_passwords: bool,
    /// When the file was read, if its objects are served as they are.
    pub(super) read_at: Option<i64>,
}

/// Values that only one credential has, with the type of the credential and the consumer that it is of.
#[derive(Default)]
pub(super) struct UniqueValues(HashSet<(String, String, String)>);

impl UniqueValues {
    /// Returns false if there is the same value already.
    fn add(&mut self, label: &str, consumer: &str, value: &str) -> bool {
        self.0.insert((label.to_owned(), consumer.to_owned(), value.to_owned()))
    }
}

/// A type of credentials.
struct CredentialType {
    /// Its name in the label of a Secret.
    label: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

impl CredentialType {
    /// The type of the credentials in a collection.
    fn of(collection: &str) -> Self {
        let (label, required, optional): (_, &[&'static str], &[&'static str]) = match collection {
            "keyauth_credentials" => ("key-auth", &["key"], &[]),
            "basicauth_credentials" => ("basic-auth", &["username", "password"], &[]),
            "jwt_secrets" => ("jwt", &["key"], &["secret", "algorithm", "rsa_public_key"]),
            "hmacauth_credentials" => ("hmac-auth", &["username", "secret"], &[]),
            "acls" => ("acl", &["group"], &[]),
            "oauth2_credentials" => ("oauth2", &["client_id", "client_secret"], &["client_type"]),
            _ => ("mtls-auth", &["subject_name"], &[]),
        };
        CredentialType { label, required, optional }
    }
}

/// What was read of a credential.
struct ReadCredential {
    /// The data of its Secret.
    data: Map<String, Value>,
    /// Whether it can be used. If not, the reason is reported.
    is_complete: bool,
    /// In seconds since 1970, if it matters.
    created: Option<i64>,
}

/// The Secret of a credential of this consumer. `None` if the credential cannot be used.
pub(super) fn plan(
    collection: &str,
    mut credential: Entity<'_>,
    consumer: &str,
    context: &CredentialContext,
    names: &mut Names,
    unique: &mut UniqueValues,
) -> Option<Draft> {
    let CredentialType { label, required, optional } = CredentialType::of(collection);
    let path = credential.path().to_owned();
    let findings = credential.fields.findings;
    let mut read = ReadCredential { data: Map::new(), is_complete: true, created: None };
    read_required(&mut credential.fields, label, required, consumer, unique, &mut read);
    for name in optional {
        if let Some(value) = credential.fields.text(name) {
            read.data.insert((*name).to_owned(), json!(value));
        }
    }
    match label {
        "key-auth" => read_lifetime(&mut credential.fields, context, &mut read),
        "oauth2" => read_client(&mut credential, consumer, &mut read),
        "mtls-auth" => read_authority(&mut credential.fields, &mut read),
        _ => {}
    }
    credential.fields.finish();
    if label == "basic-auth" && context.hashed_passwords {
        let message = "the password is a hash in Kong's own format, because _transform is false";
        findings.leave_out(&path, message, "write the password itself, and remove _transform");
        return None;
    }
    if !read.is_complete {
        return None;
    }
    let name = names.name("Secret", &format!("{consumer}-{label}"));
    let mut secret = Draft::new("v1", "Secret", &name, &path).with("stringData", Value::Object(read.data));
    secret.label(CREDENTIAL_LABEL, label);
    if let Some(id) = &credential.id {
        secret.annotate(ENTITY_ID_ANNOTATION, id.as_str());
    }
    secret.created = read.created;
    Some(secret)
}

/// Reads the fields that a credential of this type needs, and rejects values that another credential has.
fn read_required(
    fields: &mut EntityFields<'_>,
    label: &str,
    required: &[&'static str],
    consumer: &str,
    unique: &mut UniqueValues,
    read: &mut ReadCredential,
) {
    // A public client has no secret.
    let is_public = fields.peek("client_type").and_then(Value::as_str) == Some("public");
    for name in required {
        match fields.text(name).filter(|value| !value.is_empty()) {
            Some(value) => {
                // A group has many consumers, but each of them only once.
                let of = if label == "acl" { consumer } else { "" };
                if ["key", "username", "client_id", "group"].contains(name) && !unique.add(label, of, &value) {
                    let message = format!("another credential of {label} has the same {name}");
                    fields.findings.reject(fields.field(name), message, "delete one of the two");
                }
                read.data.insert((*name).to_owned(), json!(value));
            }
            None if is_public && *name == "client_secret" => {}
            None => {
                read.is_complete = false;
                let message = format!("{name} is missing, and Kong would generate one that clients cannot know");
                fields.reject_missing(name, &message, "write it");
            }
        }
    }
}

/// How long a key is valid.
fn read_lifetime(fields: &mut EntityFields<'_>, context: &CredentialContext, read: &mut ReadCredential) {
    let Some(ttl) = fields.number("ttl", 0, i64::MAX).filter(|ttl| *ttl > 0) else { return };
    read.data.insert("ttl".to_owned(), json!(ttl.to_string()));
    // As in Kong, it counts from the creation of the key: when it is read if the file has no time.
    let mut read_created = || fields.decimal("created_at").map(|seconds| seconds as i64);
    read.created = context.read_at.map(|read_at| read_created().unwrap_or(read_at));
}

/// The settings of a client of OAuth 2.0.
fn read_client(credential: &mut Entity<'_>, consumer: &str, read: &mut ReadCredential) {
    read.data.insert("name".to_owned(), json!(credential.name.as_deref().unwrap_or(consumer)));
    let fields = &mut credential.fields;
    if let Some(uris) = fields.texts("redirect_uris") {
        read.data.insert("redirect_uris".to_owned(), json!(uris.join(",")));
    }
    for name in ["oauth2_tokens", "oauth2_authorization_codes"] {
        if fields.has_entries(name) {
            let message = "stored tokens are not supported";
            fields.findings.leave_out(fields.field(name), message, "remove them; clients log in again");
        }
    }
    if let Some(is_hashed) = fields.flag("hash_secret") {
        read.data.insert("hash_secret".to_owned(), json!(is_hashed.to_string()));
    }
}

/// The authority that a certificate has to be from, which is not supported.
fn read_authority(fields: &mut EntityFields<'_>, read: &mut ReadCredential) {
    if let Some(authority) = fields.reference("ca_certificate") {
        let message = "credentials for certificates of one authority only are not supported";
        fields.findings.leave_out(&authority.field, message, "remove ca_certificate, and list it in the plugin");
        read.is_complete = false;
    }
}
