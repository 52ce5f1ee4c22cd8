//! The directory of consumers and credentials, which plugins search without a lock.
//!
//! The directory belongs to the snapshot. A change copies only the path to the changed entries, so editing one consumer
//! of a hundred thousand costs about as much as editing one of a hundred. Entries are compact: the maps do not store
//! the keys in addition to the entries, and fields that few entries have take no space in other entries.
//! `tests/memory.rs` measures the size.

pub(super) mod digests;
pub(super) mod entity_id;
mod hmac;
pub mod plugins;

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;

use super::password::PasswordHash;
use super::token::signature::VerificationKey;
pub use crate::persistent_map::{MapIndex, PersistentMap};
pub use digests::{Sha256Digest, chain_digest, hex, sha256};
use entity_id::header_value;
pub use entity_id::{EntityId, EntityName};
pub use hmac::{HmacAlgorithm, SigningSecret};
use plugins::{ConsumerPlugins, OrderedPlugins, PluginSubject};

/// A consumer with everything about it that plugins write into requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Stable for the lifetime of the object, and the id of no other consumer.
    pub id: EntityId,
    pub username: Option<EntityName>,
    /// The namespace of the object. `None` in tests of plugins.
    namespace: Option<Arc<str>>,
    /// Tells the object from another one that has had its name. `None` for objects of files, which have no UID.
    object: Option<NonZeroU64>,
    /// Fields that most consumers do not have.
    extras: Option<Box<ConsumerExtras>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ConsumerExtras {
    custom_id: Option<EntityName>,
    groups: Box<[Arc<str>]>,
    acls: Box<[Arc<str>]>,
    acls_header: Option<HeaderValue>,
    /// Whether it may have further groups, whose credentials cannot be read.
    has_unknown_acls: bool,
    /// Boxed because only consumers of a declarative file of Kong have one.
    given_id: Option<Box<EntityId>>,
}

impl Consumer {
    pub fn new(
        id: EntityId,
        username: Option<&str>,
        custom_id: Option<&str>,
        mut groups: Vec<Arc<str>>,
        acls: Vec<Arc<str>>,
    ) -> Self {
        groups.sort();
        groups.dedup();
        let extras = ConsumerExtras {
            custom_id: custom_id.map(EntityName::from),
            acls_header: if acls.is_empty() { None } else { header_value(&acls.join(", ")) },
            groups: groups.into(),
            acls: acls.into(),
            has_unknown_acls: false,
            given_id: None,
        };
        let extras = (extras != ConsumerExtras::default()).then(|| Box::new(extras));
        Consumer { id, username: username.map(EntityName::from), namespace: None, object: None, extras }
    }

    /// The same consumer with an id that its configuration gives it.
    pub fn with_given_id(mut self, id: EntityId) -> Self {
        self.extras.get_or_insert_default().given_id = Some(Box::new(id));
        self
    }

    /// The same consumer with further groups that are not known.
    pub fn with_unknown_acls(mut self) -> Self {
        self.extras.get_or_insert_default().has_unknown_acls = true;
        self
    }

    /// The same consumer as an object of this namespace.
    pub fn of_namespace(self, namespace: Arc<str>) -> Self {
        Consumer { namespace: Some(namespace), ..self }
    }

    /// The same consumer as the object with this UID.
    pub fn of_object(self, uid: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = sha256(uid.as_bytes());
        Consumer { object: NonZeroU64::new(u64::from_be_bytes([a, b, c, d, e, f, g, h])), ..self }
    }

    /// What tells the object from another one that has had its name, and thereby its id. `None` for objects of files.
    pub fn object(&self) -> Option<NonZeroU64> {
        self.object
    }

    /// The namespace of the object.
    pub fn namespace(&self) -> Option<&Arc<str>> {
        self.namespace.as_ref()
    }

    /// The id that backends and logs get: the given one, if there is one.
    pub fn reported_id(&self) -> &EntityId {
        self.extras.as_ref().and_then(|extras| extras.given_id.as_deref()).unwrap_or(&self.id)
    }

    /// The id of the consumer in an external directory.
    pub fn custom_id(&self) -> Option<&EntityName> {
        self.extras.as_ref()?.custom_id.as_ref()
    }

    /// Names of KongConsumerGroups, sorted.
    pub fn groups(&self) -> &[Arc<str>] {
        self.extras.as_ref().map_or(&[], |extras| &extras.groups)
    }

    /// Groups of `acl` credentials, in order.
    pub fn acls(&self) -> &[Arc<str>] {
        self.extras.as_ref().map_or(&[], |extras| &extras.acls)
    }

    /// Whether it may have further ACL groups, whose credentials cannot be read.
    pub fn has_unknown_acls(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.has_unknown_acls)
    }

    /// The ACL groups as a comma-separated header value. `None` if there are none or if they are not a valid header
    /// value.
    pub fn acls_header(&self) -> Option<&HeaderValue> {
        self.extras.as_ref()?.acls_header.as_ref()
    }
}

/// A key of `key-auth`. Only the digest of the key is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyCredential {
    /// The plugin also sends it in `X-Credential-Identifier`.
    pub id: EntityId,
    pub digest: Sha256Digest,
    pub expires: Option<SystemTime>,
    pub consumer: Arc<Consumer>,
}

impl KeyCredential {
    pub fn new(id: EntityId, key: &[u8], expires: Option<SystemTime>, consumer: Arc<Consumer>) -> Self {
        KeyCredential { id, digest: sha256(key), expires, consumer }
    }

    /// For a key of which only the digest is configured.
    pub fn from_digest(
        id: EntityId,
        digest: Sha256Digest,
        expires: Option<SystemTime>,
        consumer: Arc<Consumer>,
    ) -> Self {
        KeyCredential { id, digest, expires, consumer }
    }
}

impl fmt::Debug for KeyCredential {
    /// Omits the digest, from which a short key can be guessed.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyCredential").field("id", &self.id).field("consumer", &self.consumer.id).finish()
    }
}

/// A username and password of `basic-auth`.
#[derive(Clone, PartialEq, Eq)]
pub struct BasicCredential {
    pub id: EntityId,
    /// The plugin also sends it in `X-Credential-Identifier`.
    pub username: EntityName,
    pub password: StoredPassword,
    pub consumer: Arc<Consumer>,
}

/// What passwords are compared with, in constant time.
#[derive(Clone, PartialEq, Eq)]
pub enum StoredPassword {
    /// SHA-256 of a password that is configured as it is.
    Digest(Sha256Digest),
    /// A hash that is configured in place of the password.
    Hash(Arc<PasswordHash>),
}

impl BasicCredential {
    pub fn new(id: EntityId, username: impl Into<EntityName>, password: &[u8], consumer: Arc<Consumer>) -> Self {
        BasicCredential::with_password(id, username, StoredPassword::Digest(sha256(password)), consumer)
    }

    pub fn with_password(
        id: EntityId,
        username: impl Into<EntityName>,
        password: StoredPassword,
        consumer: Arc<Consumer>,
    ) -> Self {
        BasicCredential { id, username: username.into(), password, consumer }
    }

    fn is_hashed(&self) -> bool {
        matches!(self.password, StoredPassword::Hash(_))
    }
}

impl fmt::Debug for BasicCredential {
    /// Omits the digest, from which a short password can be guessed.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BasicCredential").field("id", &self.id).field("consumer", &self.consumer.id).finish()
    }
}

/// A username and secret of `hmac-auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HmacCredential {
    pub id: EntityId,
    /// The plugin also sends it in `X-Credential-Identifier`.
    pub username: EntityName,
    pub secret: SigningSecret,
    pub consumer: Arc<Consumer>,
}

impl HmacCredential {
    pub fn new(id: EntityId, username: impl Into<EntityName>, secret: &[u8], consumer: Arc<Consumer>) -> Self {
        HmacCredential { id, username: username.into(), secret: SigningSecret::new(secret), consumer }
    }
}

/// A key with which `jwt` verifies tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtCredential {
    pub id: EntityId,
    /// The value of the key claim in tokens of this credential. The plugin also sends it in `X-Credential-Identifier`.
    pub claim: EntityName,
    pub key: VerificationKey,
    pub consumer: Arc<Consumer>,
}

impl JwtCredential {
    pub fn new(id: EntityId, claim: impl Into<EntityName>, key: VerificationKey, consumer: Arc<Consumer>) -> Self {
        JwtCredential { id, claim: claim.into(), key, consumer }
    }
}

/// A name in certificates of `mtls-auth` and `header-cert-auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateCredential {
    pub id: EntityId,
    /// A subject alternative name or a common name. The plugins also send it in `X-Credential-Identifier`.
    pub subject: EntityName,
    pub consumer: Arc<Consumer>,
}

impl CertificateCredential {
    pub fn new(id: EntityId, subject: impl Into<EntityName>, consumer: Arc<Consumer>) -> Self {
        CertificateCredential { id, subject: subject.into(), consumer }
    }
}

/// A client of `oauth2`, to which tokens are issued.
#[derive(Clone, PartialEq, Eq)]
pub struct OAuthClient {
    pub id: EntityId,
    /// The plugin also sends it in `X-Credential-Identifier`.
    pub client_id: EntityName,
    /// `None` for public clients, which have no secret.
    pub secret: Option<StoredPassword>,
    /// Where codes and tokens may be sent, exactly as requests must write it.
    pub redirect_uris: Box<[Box<str>]>,
    pub consumer: Arc<Consumer>,
}

impl fmt::Debug for OAuthClient {
    /// Omits the digest, from which a short secret can be guessed.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OAuthClient").field("id", &self.id).field("consumer", &self.consumer.id).finish()
    }
}

/// All consumers and credentials.
#[derive(Clone, Debug, Default)]
pub struct ConsumerDirectory {
    /// By id. Separate from the usernames, so that a username cannot be mistaken for the id of another consumer.
    pub consumers: PersistentMap<ById>,
    pub usernames: PersistentMap<ByUsername>,
    pub custom_ids: PersistentMap<ByCustomId>,
    /// By digest of the key.
    pub keys: PersistentMap<ByKey>,
    /// By username. [`ConsumerDirectory::insert_password`] also counts the hashes.
    pub passwords: PersistentMap<ByLogin>,
    /// How many of the passwords are hashes. With any, requests may wait for a check.
    hashed_passwords: usize,
    /// By key claim.
    pub tokens: PersistentMap<ByClaim>,
    /// The secrets for signatures of requests, by username.
    pub signers: PersistentMap<BySigner>,
    /// By a name in the certificate.
    pub certificates: PersistentMap<BySubject>,
    /// The clients that get tokens, by client id.
    pub oauth_clients: PersistentMap<ByClientId>,
    /// Whether credentials exist that Portico could not fetch. A client with an unknown credential may have one of
    /// them.
    pub lacks_credentials: bool,
    /// The plugins that run for consumers and groups on all rules. `None` if there are none.
    pub plugins: Option<Arc<ConsumerPlugins>>,
    /// Fingerprint of the contents, equal in every process. The code that fills the directory computes it without the
    /// contents of Secrets, because a fingerprint of the fields above would allow guessing keys and passwords.
    pub fingerprint: u64,
}

impl ConsumerDirectory {
    /// Adds a consumer under its id, username and custom id.
    pub fn add(&mut self, consumer: &Arc<Consumer>) {
        self.consumers.insert(Arc::clone(consumer));
        self.usernames.insert(Arc::clone(consumer));
        self.custom_ids.insert(Arc::clone(consumer));
    }

    /// Inserts a username and password, or replaces those of the same username.
    pub fn insert_password(&mut self, credential: Arc<BasicCredential>) {
        self.remove_password(&credential.username);
        self.hashed_passwords += usize::from(credential.is_hashed());
        self.passwords.insert(credential);
    }

    pub fn remove_password(&mut self, username: &str) {
        if let Some(removed) = self.passwords.get(username) {
            self.hashed_passwords -= usize::from(removed.is_hashed());
            self.passwords.remove(username);
        }
    }

    /// Whether any password is a hash.
    pub fn has_hashed_passwords(&self) -> bool {
        self.hashed_passwords > 0
    }

    /// The plugins that run for this consumer or group on all rules. `None` if there are none.
    pub fn plugins_of(&self, subject: &PluginSubject) -> Option<&OrderedPlugins> {
        self.plugins.as_ref()?.of(subject)
    }

    /// Replaces the plugins that run for this consumer or group on all rules.
    pub fn set_plugins(&mut self, subject: &PluginSubject, plugins: OrderedPlugins) {
        let directory = Arc::make_mut(self.plugins.get_or_insert_default());
        // The fingerprint is a sum, so it does not depend on the order of changes.
        self.fingerprint = self.fingerprint.wrapping_sub(subject.content_hash(directory.of(subject)));
        directory.set(subject, plugins);
        self.fingerprint = self.fingerprint.wrapping_add(subject.content_hash(directory.of(subject)));
        if directory.is_empty() {
            self.plugins = None;
        }
    }

    /// Looks up a consumer that a configuration names, by id or else by username.
    pub fn by_id_or_username(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.consumers.get(name).or_else(|| self.usernames.get(name))
    }

    /// Looks up a consumer that a token names, by username or else by custom id.
    pub fn by_username_or_custom_id(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.usernames.get(name).or_else(|| self.custom_ids.get(name))
    }
}

/// Defines the entry type and the key of each map of the directory. An entry without the key is not in the map.
macro_rules! indexes {
    ($($name:ident: $entry:ty, $key:expr;)*) => {
        $(
            #[derive(Debug)]
            pub struct $name;

            impl MapIndex for $name {
                type Entry = Arc<$entry>;
                type Key = [u8];

                fn key(entry: &Arc<$entry>) -> Option<&[u8]> {
                    let key: fn(&$entry) -> Option<&[u8]> = $key;
                    key(entry)
                }
            }
        )*
    };
}
indexes! {
    ById: Consumer, |consumer| Some(consumer.id.header().as_bytes());
    ByUsername: Consumer, |consumer| consumer.username.as_ref().map(|name| name.as_bytes());
    ByCustomId: Consumer, |consumer| consumer.custom_id().map(|id| id.as_bytes());
    ByKey: KeyCredential, |key| Some(&key.digest);
    ByLogin: BasicCredential, |basic| Some(basic.username.as_bytes());
    ByClaim: JwtCredential, |jwt| Some(jwt.claim.as_bytes());
    BySigner: HmacCredential, |hmac| Some(hmac.username.as_bytes());
    BySubject: CertificateCredential, |certificate| Some(certificate.subject.as_bytes());
    ByClientId: OAuthClient, |client| Some(client.client_id.as_bytes());
}
