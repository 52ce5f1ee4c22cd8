//! Consumers and what they show to prove who they are, found without a lock by the plugins that ask for it.
//!
//! The directory belongs to the snapshot. A change copies only the shard that it falls into, so that one edited consumer
//! of a hundred thousand costs what it costs among a hundred. There may be very many, so nothing is in it twice, and what few
//! have takes no room with the others; `tests/memory.rs` says how much that is.

mod shards;
mod text;

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;

use super::signature::Key;
pub use shards::{Index, Shards};
use text::header_of;
pub use text::{Id, Name};

/// Somebody who uses the routes, with everything about them that plugins write into requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Stays the same for as long as the object does.
    pub id: Id,
    pub username: Option<Name>,
    /// Most have nothing of it.
    more: Option<Box<More>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct More {
    custom_id: Option<Name>,
    groups: Box<[Arc<str>]>,
    acls: Box<[Arc<str>]>,
    acls_header: Option<HeaderValue>,
}

impl Consumer {
    pub fn new(
        id: Id,
        username: Option<&str>,
        custom_id: Option<&str>,
        groups: Vec<Arc<str>>,
        acls: Vec<Arc<str>>,
    ) -> Self {
        let more = More {
            custom_id: custom_id.map(Name::from),
            acls_header: if acls.is_empty() { None } else { header_of(&acls.join(", ")) },
            groups: groups.into(),
            acls: acls.into(),
        };
        let more = (more != More::default()).then(|| Box::new(more));
        Consumer { id, username: username.map(Name::from), more }
    }

    /// What a directory elsewhere calls them.
    pub fn custom_id(&self) -> Option<&Name> {
        self.more.as_ref()?.custom_id.as_ref()
    }

    /// Names of KongConsumerGroups.
    pub fn groups(&self) -> &[Arc<str>] {
        self.more.as_ref().map_or(&[], |more| &more.groups)
    }

    /// Groups of `acl` credentials, in order.
    pub fn acls(&self) -> &[Arc<str>] {
        self.more.as_ref().map_or(&[], |more| &more.acls)
    }

    /// `acls`, joined. None if there are none, or if they cannot stand in a header.
    pub fn acls_header(&self) -> Option<&HeaderValue> {
        self.more.as_ref()?.acls_header.as_ref()
    }
}

/// A key of `key-auth`. The key itself is not kept, only its digest.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyCredential {
    /// Also `X-Credential-Identifier`.
    pub id: Id,
    pub digest: Digest,
    pub expires: Option<SystemTime>,
    pub consumer: Arc<Consumer>,
}

impl KeyCredential {
    pub fn new(id: Id, key: &[u8], expires: Option<SystemTime>, consumer: Arc<Consumer>) -> Self {
        KeyCredential { id, digest: digest_of(key), expires, consumer }
    }
}

impl fmt::Debug for KeyCredential {
    /// Without the digest, from which a short key can be guessed.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeyCredential").field("id", &self.id).field("consumer", &self.consumer.id).finish()
    }
}

/// What `basic-auth` compares a password with.
#[derive(Clone, PartialEq, Eq)]
pub struct BasicCredential {
    pub id: Id,
    /// Also `X-Credential-Identifier`.
    pub username: Name,
    /// SHA-256 of the password, which is compared in constant time.
    pub password: Digest,
    pub consumer: Arc<Consumer>,
}

impl BasicCredential {
    pub fn new(id: Id, username: impl Into<Name>, password: &[u8], consumer: Arc<Consumer>) -> Self {
        BasicCredential { id, username: username.into(), password: digest_of(password), consumer }
    }
}

impl fmt::Debug for BasicCredential {
    /// Without the digest, from which a short password can be guessed.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BasicCredential").field("id", &self.id).field("consumer", &self.consumer.id).finish()
    }
}

/// What `jwt` verifies a token with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtCredential {
    pub id: Id,
    /// What tokens of this consumer have in their key claim; also `X-Credential-Identifier`.
    pub claim: Name,
    pub key: Key,
    pub consumer: Arc<Consumer>,
}

impl JwtCredential {
    pub fn new(id: Id, claim: impl Into<Name>, key: Key, consumer: Arc<Consumer>) -> Self {
        JwtCredential { id, claim: claim.into(), key, consumer }
    }
}

/// SHA-256. Looking one up tells nothing about what it was made of, however long it takes.
pub type Digest = [u8; 32];

pub fn digest_of(secret: &[u8]) -> Digest {
    let mut bytes = Digest::default();
    bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
    bytes
}

/// In lower case.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

/// Everybody there is.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// By id. Apart from the names, so that nobody's name can stand in for another's id.
    pub consumers: Shards<ById>,
    pub usernames: Shards<ByUsername>,
    pub custom_ids: Shards<ByCustomId>,
    /// By digest of the key.
    pub keys: Shards<ByKey>,
    /// By username.
    pub passwords: Shards<ByLogin>,
    /// By key claim.
    pub tokens: Shards<ByClaim>,
    /// What tells this directory from others, in every process alike. Whoever fills it says so: of what is in here, keys and
    /// passwords could be guessed from it.
    pub told_apart: u64,
}

impl Directory {
    /// Makes a consumer known under its id and its names.
    pub fn add(&mut self, consumer: &Arc<Consumer>) {
        self.consumers.insert(Arc::clone(consumer));
        self.usernames.insert(Arc::clone(consumer));
        self.custom_ids.insert(Arc::clone(consumer));
    }

    /// By what a configuration calls somebody: an id, or else a username.
    pub fn named(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.consumers.get(name).or_else(|| self.usernames.get(name))
    }

    /// By what an issuer of tokens calls somebody: a username, or else a custom id.
    pub fn called(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.usernames.get(name).or_else(|| self.custom_ids.get(name))
    }
}

macro_rules! indexes {
    ($($name:ident: $entry:ty, $key:expr;)*) => {
        $(
            #[derive(Debug)]
            pub struct $name;

            impl Index for $name {
                type Entry = Arc<$entry>;

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
}
