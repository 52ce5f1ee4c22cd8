//! `key-auth`: authenticates consumers by a key in a header, the query or the body.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: keys
//! plugin: key-auth
//! config:
//!   key_names: [apikey]
//!   hide_credentials: true
//! ```
//!
//! Credentials are Secrets labeled `konghq.com/credential: key-auth`, which a KongConsumer lists in `credentials`. Such
//! a Secret has the key in `key`, or the SHA-256 of the key, in hexadecimal digits, in `key_sha256`. If the key is long
//! and random, a reader of the Secret cannot compute it. Keys are looked up by their digest, so the duration of a
//! lookup reveals nothing about them.

use http::{HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::fields::{BodyFields, FieldValue, UrlEncodedForm, remove_from_query};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::{
    AccessOutcome, Assertions, ChangedFields, CredentialLocations, NamedConsumer, Plugin, Reply, RequestCx,
    VerifiedSubject,
};
use crate::plugin_kit::authentication::{
    AuthPolicy, IdentityRealm, VerifiedCredential, challenge, declare_identity, parse_header_name,
};

/// Authenticates consumers by keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Names of the headers, query parameters and body fields that contain the key: letters, digits, `-` and `_`. For
    /// each name in turn, headers, query and body are searched in this order until a key is found. A name with `_` also
    /// matches the header with `-` in its place.
    key_names: Vec<String>,
    /// Remove the fields in `key_names` before the request is sent to the endpoint: always from headers and query, and
    /// from the body if `key_in_body` is set.
    hide_credentials: bool,
    /// Id or username of the consumer for requests without a valid key. If unset, such requests are rejected.
    anonymous: Option<String>,
    /// Search headers.
    key_in_header: bool,
    /// Search the query.
    key_in_query: bool,
    /// Search bodies of the types `application/x-www-form-urlencoded`, `multipart/form-data` and `application/json`.
    /// The bodies of all requests are then buffered, and bodies larger than 1 MiB are rejected with 413.
    key_in_body: bool,
    /// Require a key for OPTIONS requests, too. If false, all of them are forwarded without a key, not only CORS
    /// preflight requests.
    run_on_preflight: bool,
    /// The parameter `realm` of the header `WWW-Authenticate` in 401 responses.
    realm: Option<String>,
    /// Where to look up consumers. If unset, in the KongConsumers of this cluster; the only supported entry,
    /// `scope: cp`, means the same. Unrelated to `realm`.
    identity_realms: Vec<IdentityRealm>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            key_names: vec!["apikey".to_owned()],
            hide_credentials: false,
            anonymous: None,
            key_in_header: true,
            key_in_query: true,
            key_in_body: false,
            run_on_preflight: true,
            realm: None,
            identity_realms: Vec::new(),
        }
    }
}

/// Size limit of bodies to search, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct KeyAuth {
    names: Box<[KeyName]>,
    policy: AuthPolicy,
    challenge: HeaderValue,
    hides_credentials: bool,
    in_header: bool,
    in_query: bool,
    in_body: bool,
}

#[derive(Debug)]
struct KeyName {
    name: Box<str>,
    header: HeaderName,
    /// `api-key` for `api_key`, which Kong accepts, too.
    dashed_header: Option<HeaderName>,
}

impl PluginKind for KeyAuth {
    const NAME: &'static str = "key-auth";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = 1250;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] =
        &[DumpedFields::new(&["identity_realms[].id", "identity_realms[].region"], DumpedValue::Nothing, "3.10")];
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let mut names = Vec::new();
        for (index, name) in config.key_names.into_iter().enumerate() {
            names.extend(KeyName::new(index, name).map_err(|error| invalid.push(error)));
        }
        if names.is_empty() && invalid.is_empty() {
            invalid.push(Diagnostic::in_config(
                "key_names",
                "is empty",
                "list at least one name, for example `apikey`",
            ));
        }
        let policy = AuthPolicy::new(config.anonymous, config.run_on_preflight).map_err(|error| invalid.push(error));
        let challenge = challenge("Key", config.realm.as_deref(), "").map_err(|error| invalid.push(error));
        let (Ok(policy), Ok(challenge), []) = (policy, challenge, &invalid[..]) else { return Err(invalid) };
        if !(config.key_in_header || config.key_in_query || config.key_in_body) {
            let message = "has no location to search for keys, so no request has one";
            let remedy = "set at least one of key_in_header, key_in_query and key_in_body to true";
            cx.note(Diagnostic::in_config("", message, remedy));
        }
        Ok(KeyAuth {
            names: names.into(),
            policy,
            challenge,
            hides_credentials: config.hide_credentials,
            in_header: config.key_in_header,
            in_query: config.key_in_query,
            in_body: config.key_in_body,
        })
    }
}

impl KeyName {
    /// `index` is the index in `key_names`.
    fn new(index: usize, name: String) -> Result<Self, Diagnostic> {
        let path = format!("key_names[{index}]");
        let invalid_name = || {
            let message = format!("`{name}` is not a valid key name");
            Diagnostic::in_config(&path, message, "use letters, digits, `-` and `_` only")
        };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(invalid_name());
        }
        let header = parse_header_name(&path, &name).map_err(|_| invalid_name())?;
        let dashed_header =
            name.contains('_').then(|| parse_header_name(&path, &name.replace('_', "-"))).transpose()?;
        Ok(KeyName { name: name.into(), header, dashed_header })
    }
}

impl Plugin for KeyAuth {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.policy.skips(cx) {
            return AccessOutcome::Continue;
        }
        let digest = self.find_key(cx);
        if self.hides_credentials {
            self.remove_keys(cx);
        }
        let consumers = cx.consumers;
        let credential = digest.and_then(|digest| {
            let credential = consumers.keys.get(digest).ok_or(KeyRejection::WrongKey)?;
            let is_expired = credential.expires.is_some_and(|expires| expires <= cx.now);
            if is_expired { Err(KeyRejection::WrongKey) } else { Ok(credential) }
        });
        let reply = match credential {
            Ok(credential) => {
                let (consumer, identifier) = (Some(&credential.consumer), Some(credential.id.header()));
                let subject = Some(VerifiedSubject::of_credential(&credential.id));
                self.policy.accept(cx, VerifiedCredential { consumer, subject, identifier });
                None
            }
            Err(rejection) => self
                .policy
                .reject(cx, || rejection.reply().with_header(header::WWW_AUTHENTICATE, self.challenge.clone())),
        };
        reply.map_or(AccessOutcome::Continue, AccessOutcome::Reply)
    }

    fn named_consumers(&self) -> Vec<NamedConsumer<'_>> {
        self.policy.anonymous_consumer().into_iter().collect()
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if self.hides_credentials {
            let headers = self.names.iter().flat_map(|name| [Some(&name.header), name.dashed_header.as_ref()]);
            fields.request.add_all(headers.flatten());
            // That of a body without its key.
            fields.request.add(&header::CONTENT_LENGTH);
        }
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        let names = || self.names.iter();
        Some(CredentialLocations {
            headers: names()
                .flat_map(|name| [Some(&name.header), name.dashed_header.as_ref()])
                .flatten()
                .cloned()
                .collect(),
            parameters: names().map(|name| name.name.clone()).collect(),
            ..CredentialLocations::default()
        })
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.in_body.then_some(MAX_BODY_BYTES)
    }
}

/// Why a request is rejected.
enum KeyRejection {
    NoKey,
    SeveralKeys,
    /// The key is unknown or expired.
    WrongKey,
}

impl KeyRejection {
    fn reply(self) -> Box<Reply> {
        const STATUS: StatusCode = StatusCode::UNAUTHORIZED;
        match self {
            KeyRejection::NoKey => Reply::negotiated(STATUS, "No API key found in request", "no_credentials"),
            KeyRejection::SeveralKeys => Reply::negotiated(STATUS, "Duplicate API key found", "several_credentials"),
            KeyRejection::WrongKey => Reply::negotiated(STATUS, "Unauthorized", "wrong_credentials"),
        }
    }
}

impl KeyAuth {
    /// The digest of the key in the request, in the order of `key_names`. It may be at several places, but no other key
    /// of that name may: the endpoint might read that one.
    fn find_key(&self, cx: &RequestCx<'_>) -> Result<Sha256Digest, KeyRejection> {
        let query = UrlEncodedForm(cx.query.filter(|_| self.in_query).unwrap_or_default().as_bytes());
        let body = self.body_fields(cx);
        for name in &self.names {
            let mut found = if self.in_header { name.in_header(cx) } else { FieldValue::Absent };
            if !query.0.is_empty() {
                found = found.or_same(query.find(name.name.as_bytes()));
            }
            if let Some(body) = &body {
                found = found.or_same(body.find(&name.name));
            }
            match found {
                FieldValue::Absent | FieldValue::NotString => {}
                FieldValue::Single(key) if key.is_empty() => return Err(KeyRejection::NoKey),
                FieldValue::Single(key) => return Ok(sha256(&key)),
                FieldValue::Multiple => return Err(KeyRejection::SeveralKeys),
            }
        }
        Err(KeyRejection::NoKey)
    }

    fn body_fields<'c>(&self, cx: &'c RequestCx<'_>) -> Option<BodyFields<'c>> {
        let body = cx.current_body().filter(|_| self.in_body)?;
        BodyFields::parse(&cx.head.headers, body)
    }

    /// Removes all keys from headers and query, even if these are not searched, and from the body if it is searched.
    fn remove_keys(&self, cx: &mut RequestCx<'_>) {
        let is_key = |name: &[u8]| self.names.iter().any(|key_name| key_name.name.as_bytes() == name);
        for name in &self.names {
            cx.head.headers.remove(&name.header);
            if let Some(dashed_header) = &name.dashed_header {
                cx.head.headers.remove(dashed_header);
            }
        }
        remove_from_query(cx.head, is_key);
        if let Some(body) = self.body_fields(cx).and_then(|fields| fields.without(is_key)) {
            cx.replace_body(body.into());
        }
    }
}

impl KeyName {
    fn in_header<'c>(&self, cx: &'c RequestCx<'_>) -> FieldValue<'c> {
        let found = FieldValue::from_header(&cx.head.headers, &self.header);
        let Some(dashed_header) = &self.dashed_header else { return found };
        match FieldValue::from_header(&cx.head.headers, dashed_header) {
            FieldValue::Absent => found,
            dashed if found == FieldValue::Absent || found == dashed => dashed,
            // The endpoint may read the other one.
            _ => FieldValue::Multiple,
        }
    }
}

#[cfg(test)]
mod tests;
