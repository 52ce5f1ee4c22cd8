//! Consumers and what they show to prove who they are, found without a lock by the plugins that ask for it.
//!
//! The directory belongs to the snapshot. A change copies only the shard that it falls into, so that one edited consumer
//! of a hundred thousand costs what it costs among a hundred.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use foldhash::quality::FixedState;
use http::HeaderValue;

use super::signature::Key;

/// Somebody who uses the routes, with everything about them that plugins write into requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// A UUID that stays the same for as long as the object does.
    pub id: Arc<str>,
    pub username: Option<Arc<str>>,
    pub custom_id: Option<Arc<str>>,
    /// Names of KongConsumerGroups.
    pub groups: Box<[Arc<str>]>,
    /// Groups of `acl` credentials, in order.
    pub acls: Box<[Arc<str>]>,
    pub headers: ConsumerHeaders,
}

/// `X-Consumer-ID` and its like, ready to be put into a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerHeaders {
    pub id: HeaderValue,
    /// Absent if there is none, or if it cannot stand in a header.
    pub username: Option<HeaderValue>,
    pub custom_id: Option<HeaderValue>,
    /// `acls`, joined.
    pub acls: Option<HeaderValue>,
}

impl Consumer {
    pub fn new(
        id: impl Into<Arc<str>>,
        username: Option<&str>,
        custom_id: Option<&str>,
        groups: Vec<Arc<str>>,
        acls: Vec<Arc<str>>,
    ) -> Self {
        let id = id.into();
        let headers = ConsumerHeaders {
            id: header_of(&id).unwrap_or(HeaderValue::from_static("")),
            username: username.and_then(header_of),
            custom_id: custom_id.and_then(header_of),
            acls: if acls.is_empty() { None } else { header_of(&acls.join(", ")) },
        };
        Consumer {
            id,
            username: username.map(Arc::from),
            custom_id: custom_id.map(Arc::from),
            groups: groups.into(),
            acls: acls.into(),
            headers,
        }
    }
}

/// A key of `key-auth`. The key itself is not kept, only its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCredential {
    pub id: Arc<str>,
    /// The id, as `X-Credential-Identifier`.
    pub identifier: Option<HeaderValue>,
    pub expires: Option<SystemTime>,
    pub consumer: Arc<Consumer>,
}

impl KeyCredential {
    pub fn new(id: impl Into<Arc<str>>, expires: Option<SystemTime>, consumer: Arc<Consumer>) -> Self {
        let id = id.into();
        KeyCredential { identifier: header_of(&id), id, expires, consumer }
    }
}

/// What `basic-auth` compares a password with.
#[derive(Clone, PartialEq, Eq)]
pub struct BasicCredential {
    pub id: Arc<str>,
    /// The username, as `X-Credential-Identifier`.
    pub identifier: Option<HeaderValue>,
    /// SHA-256 of the password, which is compared in constant time.
    pub password: Digest,
    pub consumer: Arc<Consumer>,
}

impl BasicCredential {
    pub fn new(id: impl Into<Arc<str>>, username: &str, password: &[u8], consumer: Arc<Consumer>) -> Self {
        BasicCredential { id: id.into(), identifier: header_of(username), password: digest_of(password), consumer }
    }
}

impl std::fmt::Debug for BasicCredential {
    /// Without the digest, from which a short password can be guessed.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BasicCredential").field("id", &self.id).field("consumer", &self.consumer.id).finish()
    }
}

/// What `jwt` verifies a token with, by its key claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtCredential {
    pub id: Arc<str>,
    /// The key claim, as `X-Credential-Identifier`.
    pub identifier: Option<HeaderValue>,
    pub key: Key,
    pub consumer: Arc<Consumer>,
}

impl JwtCredential {
    /// `claim` is what tokens of this consumer have in their key claim.
    pub fn new(id: impl Into<Arc<str>>, claim: &str, key: Key, consumer: Arc<Consumer>) -> Self {
        JwtCredential { id: id.into(), identifier: header_of(claim), key, consumer }
    }
}

/// None if it cannot stand in a header.
fn header_of(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).ok()
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
    pub consumers: Shards<Arc<str>, Arc<Consumer>>,
    pub usernames: Shards<Arc<str>, Arc<Consumer>>,
    pub custom_ids: Shards<Arc<str>, Arc<Consumer>>,
    /// By digest of the key.
    pub keys: Shards<Digest, Arc<KeyCredential>>,
    /// By username.
    pub passwords: Shards<Arc<str>, Arc<BasicCredential>>,
    /// By key claim.
    pub tokens: Shards<Arc<str>, Arc<JwtCredential>>,
    /// What tells this directory from others, in every process alike. Whoever fills it says so: of what is in here, keys and
    /// passwords could be guessed from it.
    pub told_apart: u64,
}

impl Directory {
    /// Makes a consumer known under its id and its names.
    pub fn add(&mut self, consumer: &Arc<Consumer>) {
        self.consumers.insert(Arc::clone(&consumer.id), Arc::clone(consumer));
        if let Some(username) = &consumer.username {
            self.usernames.insert(Arc::clone(username), Arc::clone(consumer));
        }
        if let Some(custom_id) = &consumer.custom_id {
            self.custom_ids.insert(Arc::clone(custom_id), Arc::clone(consumer));
        }
    }

    /// Forgets a consumer, but not the credentials that lead to it.
    pub fn remove(&mut self, consumer: &Consumer) {
        self.consumers.remove(&consumer.id);
        if let Some(username) = &consumer.username {
            self.usernames.remove(username);
        }
        if let Some(custom_id) = &consumer.custom_id {
            self.custom_ids.remove(custom_id);
        }
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

/// A map in parts that are shared with the map it was made from.
#[derive(Debug)]
pub struct Shards<K, V> {
    shards: Box<[Arc<HashMap<K, V, FixedState>>]>,
}

/// A hundred thousand entries are then four hundred in each, which one change copies.
const SHARDS: usize = 256;

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards[shard_of(key)].get(key)
    }

    pub fn insert(&mut self, key: K, value: V) {
        let shard = shard_of(&key);
        Arc::make_mut(&mut self.shards[shard]).insert(key, value);
    }

    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let shard = shard_of(key);
        if self.shards[shard].contains_key(key) {
            Arc::make_mut(&mut self.shards[shard]).remove(key);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_empty())
    }
}

fn shard_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    // Another hash than that of the maps, whose entries would share their upper bits otherwise.
    usize::try_from(FixedState::with_seed(1).hash_one(key) % SHARDS as u64).unwrap_or_default()
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        let empty = Arc::new(HashMap::default());
        Shards { shards: (0..SHARDS).map(|_| Arc::clone(&empty)).collect() }
    }
}

impl<K, V> Clone for Shards<K, V> {
    fn clone(&self) -> Self {
        Shards { shards: self.shards.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_map_it_was_made_from_alone() {
        let mut before = Shards::<Arc<str>, usize>::default();
        for number in 0..1000 {
            before.insert(number.to_string().into(), number);
        }
        let mut after = before.clone();
        after.insert("7".into(), 8);
        after.remove("9");
        after.remove("no such key");
        assert_eq!((before.get("7"), before.get("9"), before.len()), (Some(&7), Some(&9), 1000));
        assert_eq!((after.get("7"), after.get("9"), after.len()), (Some(&8), None, 999));
        let shared = before.shards.iter().zip(&after.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 2, "{shared} shards are shared");
    }
}
