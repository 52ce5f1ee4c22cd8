//! The claims of the tokens: what all of them have, and what is known about a client.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};
use http::HeaderValue;
use serde_json::{Map, Value, json};

use super::{Config, SubjectSource};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{EntityId, Sha256Digest, sha256};
use crate::plugin_api::{Consumer, RequestCx};
use crate::plugin_kit::authentication::CREDENTIAL_IDENTIFIER;

/// Claims that `claims` of a configuration cannot set.
const OWN_CLAIMS: [&str; 9] = ["aud", "consumer", "exp", "groups", "iat", "iss", "jti", "nbf", "sub"];

/// The claims that do not depend on the client.
#[derive(Debug)]
pub(super) struct TokenClaims {
    fixed: Map<String, Value>,
    /// Of `fixed` and `subject_source`.
    digest: Sha256Digest,
    pub(super) subject_source: SubjectSource,
}

impl TokenClaims {
    pub(super) fn new(config: &Config, invalid: &mut Vec<Diagnostic>) -> Option<Self> {
        let errors_before = invalid.len();
        if config.issuer.is_empty() {
            let remedy = "set it to a URL or a name of this installation, such as https://gateway.example";
            invalid.push(Diagnostic::in_config("issuer", "is missing", remedy));
        }
        for (index, _) in config.audience.iter().enumerate().filter(|(_, name)| name.is_empty()) {
            let remedy = "set it to the name of a backend, or remove it";
            invalid.push(Diagnostic::in_config(format!("audience[{index}]"), "is empty", remedy));
        }
        for name in config.claims.keys().filter(|name| OWN_CLAIMS.contains(&name.as_str())) {
            let remedy = "remove it; issuer, audience and ttl have fields of their own";
            invalid.push(Diagnostic::in_config(format!("claims[{name}]"), "is set by the plugin", remedy));
        }
        let mut fixed = Map::new();
        fixed.insert("iss".to_owned(), config.issuer.as_str().into());
        match &config.audience[..] {
            [] => {}
            [only] => _ = fixed.insert("aud".to_owned(), only.as_str().into()),
            all => _ = fixed.insert("aud".to_owned(), all.into()),
        }
        fixed.extend(config.claims.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
        let subject_source = config.subject;
        let digest = sha256(format!("{subject_source:?} {}", Value::Object(fixed.clone())).as_bytes());
        (invalid.len() == errors_before).then_some(TokenClaims { fixed, digest, subject_source })
    }

    pub(super) fn for_client(
        &self,
        client: &ClientClaims<'_>,
        subject: &str,
        groups: &[&str],
        now: SystemTime,
        ttl: Duration,
    ) -> Map<String, Value> {
        let mut claims = self.fixed.clone();
        let issued = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        claims.insert("sub".to_owned(), subject.into());
        claims.insert("iat".to_owned(), issued.into());
        claims.insert("exp".to_owned(), (issued + ttl.as_secs()).into());
        claims.insert("groups".to_owned(), groups.into());
        if let Some(consumer) = client.consumer {
            let mut fields = json!({"id": &**consumer.reported_id()});
            if let Some(username) = &consumer.username {
                fields["username"] = (**username).into();
            }
            if let Some(custom_id) = consumer.custom_id() {
                fields["custom_id"] = (**custom_id).into();
            }
            claims.insert("consumer".to_owned(), fields);
        }
        claims
    }
}

/// What is known about the client of a request.
pub(super) struct ClientClaims<'c> {
    consumer: Option<&'c Arc<Consumer>>,
    credential: Option<&'c EntityId>,
    /// What the authentication plugin wrote to `X-Credential-Identifier`.
    identifier: Option<&'c HeaderValue>,
    authenticated_groups: &'c [Arc<str>],
}

impl<'c> ClientClaims<'c> {
    /// `None` if no plugin has authenticated the request, or only by a credential without a subject. The consumer for
    /// requests without credentials counts as authenticated: the configuration has chosen it.
    pub(super) fn of(cx: &'c RequestCx<'_>) -> Option<Self> {
        let identity = &*cx.identity;
        if identity.consumer.is_none() && identity.credential().is_none() {
            return None;
        }
        // Without a credential, no plugin has set the header, and the client may have.
        let identifier = identity.credential().and_then(|_| cx.head.headers.get(CREDENTIAL_IDENTIFIER));
        Some(ClientClaims {
            consumer: identity.consumer.as_ref(),
            credential: identity.credential(),
            identifier,
            authenticated_groups: &identity.groups,
        })
    }

    /// Distinguishes clients whose tokens differ, and tokens with other claims than these.
    pub(super) fn digest(&self, claims: &TokenClaims) -> Sha256Digest {
        let mut context = Context::new(&SHA256);
        let mut add = |part: Option<&[u8]>| {
            // With their lengths, so that no two lists of parts have the same bytes.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            context.update(&length.to_le_bytes());
            context.update(part.unwrap_or_default());
        };
        add(Some(&claims.digest[..]));
        add(self.consumer.map(|consumer| consumer.id.as_bytes()));
        add(self.consumer.map(|consumer| consumer.reported_id().as_bytes()));
        add(self.consumer.and_then(|consumer| consumer.username.as_ref()).map(|name| name.as_bytes()));
        add(self.consumer.and_then(|consumer| consumer.custom_id()).map(|id| id.as_bytes()));
        add(self.credential.map(|credential| credential.as_bytes()));
        add(self.identifier.map(HeaderValue::as_bytes));
        for group in self.groups() {
            add(Some(group.as_bytes()));
        }
        let mut digest = Sha256Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    pub(super) fn subject(&self, source: SubjectSource) -> Cow<'c, str> {
        let of_consumer = match source {
            SubjectSource::Consumer => self.consumer.map(|consumer| {
                let name = consumer.username.as_ref().or_else(|| consumer.custom_id());
                name.map_or(&**consumer.reported_id(), |name| &**name)
            }),
            SubjectSource::Id => self.consumer.map(|consumer| &**consumer.reported_id()),
            SubjectSource::Identifier => None,
        };
        if let Some(subject) = of_consumer {
            return subject.into();
        }
        let identifier = self.identifier.filter(|_| source == SubjectSource::Identifier);
        let identifier = identifier.map(|identifier| String::from_utf8_lossy(identifier.as_bytes()));
        let credential = || self.credential.map(|credential| Cow::Borrowed(&**credential));
        let consumer = || self.consumer.map(|consumer| Cow::Borrowed(&**consumer.reported_id()));
        identifier.or_else(credential).or_else(consumer).unwrap_or_default()
    }

    /// The groups of the consumer's `acl` credentials, and those that the authentication plugin has found.
    pub(super) fn groups(&self) -> Vec<&'c str> {
        let of_consumer = self.consumer.map(|consumer| consumer.acls()).unwrap_or_default();
        let mut groups: Vec<&str> = of_consumer.iter().map(|group| &**group).collect();
        for group in self.authenticated_groups {
            if !groups.contains(&&**group) {
                groups.push(group);
            }
        }
        groups
    }
}
