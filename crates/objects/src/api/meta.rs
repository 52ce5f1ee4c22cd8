//! Identity and metadata of objects: kind and key, generation, creation time, labels, and the annotations that Portico
//! reads.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use super::foreign_annotations::is_foreign;
use super::ingress_nginx;
use super::kind::Kind;
use super::names::ANNOTATION_PREFIXES;

/// Namespace and name. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        ObjectKey { namespace: Arc::from(namespace), name: Arc::from(name) }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: &str) -> Self {
        ObjectKey::new("", name)
    }
}

/// `namespace/name`, or only the name for cluster-scoped objects.
impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            formatter.write_str(&self.name)
        } else {
            write!(formatter, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Identifies one object among all kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    pub kind: Kind,
    pub key: ObjectKey,
}

impl ObjectId {
    pub fn new(kind: Kind, key: ObjectKey) -> Self {
        ObjectId { kind, key }
    }
}

/// `HTTPRoute default/web`, as in messages.
impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind, self.key)
    }
}

/// Metadata as kept in the store, without managed fields, annotations that Portico does not read, and other unused
/// fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub key: ObjectKey,
    /// Increases with every change of the spec; a status written for an older generation is stale.
    pub generation: i64,
    /// A hash of the resource version of a Secret. It identifies a version of the Secret without its data, and is equal
    /// in all processes. 0 for a Secret that does not come from an API server, and in the store for all other kinds.
    pub revision: u64,
    /// The UID of a Service, XBackend or KongConsumer. `None` for one that does not come from an API server, and in the
    /// store for all other kinds.
    pub uid: Option<Arc<str>>,
    /// Seconds since 1970. Of conflicting objects, the oldest takes precedence; of equally old ones, the key decides.
    /// An object from a file may have no timestamp; `None` counts as older than every timestamp.
    pub created: Option<i64>,
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    pub annotations: BTreeMap<Arc<str>, Arc<str>>,
}

impl Meta {
    /// The metadata of an object of which nothing but the key is known.
    pub fn new(key: ObjectKey) -> Self {
        Meta {
            key,
            generation: 0,
            revision: 0,
            uid: None,
            created: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMeta {
    #[serde(default)]
    namespace: String,
    name: String,
    #[serde(default)]
    generation: i64,
    resource_version: Option<Box<str>>,
    uid: Option<Arc<str>>,
    creation_timestamp: Option<jiff::Timestamp>,
    #[serde(default)]
    labels: Option<BTreeMap<Arc<str>, Arc<str>>>,
    #[serde(default)]
    annotations: Option<BTreeMap<Arc<str>, Arc<str>>>,
}

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawMeta::deserialize(deserializer)?;
        let mut annotations = raw.annotations.unwrap_or_default();
        let kept = ANNOTATION_PREFIXES.iter().copied().chain(ingress_nginx::prefixes());
        annotations.retain(|key, _| kept.clone().any(|prefix| key.starts_with(prefix)) || is_foreign(key));
        Ok(Meta {
            key: ObjectKey::new(&raw.namespace, &raw.name),
            generation: raw.generation,
            revision: raw.resource_version.map_or(0, |version| hash_revision(&version)),
            uid: raw.uid,
            created: raw.creation_timestamp.map(jiff::Timestamp::as_second),
            labels: raw.labels.unwrap_or_default(),
            annotations,
        })
    }
}

/// Computes the `revision` from a resource version, which is an opaque string. `DefaultHasher::new` has a fixed seed,
/// so all processes compute the same hash.
fn hash_revision(version: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    hasher.finish()
}

/// An object of one kind. Dereferences to its body: `route.spec.rules` next to `route.meta.key`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Object<T> {
    #[serde(rename = "metadata")]
    pub meta: Meta,
    #[serde(flatten)]
    pub body: T,
}

impl<T> Deref for Object<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.body
    }
}
