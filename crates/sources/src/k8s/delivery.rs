//! What the watches deliver: objects for the store, data that only the writer of statuses needs, and which kinds the
//! cluster has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use crate::api::{Kind, ObjectId};
use crate::store::{Batch, MalformedObject};

/// All changes since the last delivery, combined: a relist of thousands of objects is one delivery.
#[derive(Debug, Default)]
pub struct Delivery {
    pub batch: Batch,
    /// Objects of kinds that have a status, as last seen. None if the object is gone.
    pub observed: BTreeMap<ObjectId, Option<Observed>>,
    /// Objects that cannot be parsed as their kind; the store keeps their last good version. None if the object is
    /// valid again or gone.
    pub rejected: BTreeMap<ObjectId, Option<RejectedObject>>,
    /// What is installed in the cluster, if that changed.
    pub installed: Option<Arc<InstalledApis>>,
    /// Every kind was listed once, or is known not to be listed. Nothing may be compiled before.
    pub complete: bool,
    /// When the first change of the delivery arrived.
    pub since: Option<Instant>,
}

/// The status of an object on the API server, and the metadata that a status write needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub uid: Arc<str>,
    pub resource_version: Arc<str>,
    pub generation: i64,
    /// `Null` if there is none.
    pub status: Arc<Value>,
    /// The object was in a list since the last delivery. Lists are as new as their request, so after the API server was
    /// restored from a backup, a list has objects that are older than those before.
    pub listed: bool,
}

/// Why an object from the API server cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedObject {
    pub generation: i64,
    pub error: MalformedObject,
}

/// Which of the supported kinds the cluster has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstalledApis {
    /// Watched kinds, each with the version in use.
    pub versions: BTreeMap<Kind, String>,
    /// Kinds that exist but may not be read or whose watch fails, each with a message that says what would help.
    pub unreadable: BTreeMap<Kind, String>,
    /// Kinds that could not be read before their first list, until that list arrives: nothing about them is known.
    pub unreadable_before_first_list: BTreeSet<Kind>,
    /// Whether release and channel are known, or known to be unavailable; before that, nothing is reported about them.
    pub release_settled: bool,
    /// The release of the Gateway API's CRDs (`gateway.networking.k8s.io/bundle-version`), if they agree on one.
    pub bundle_version: Option<String>,
    /// The channel of these CRDs (`gateway.networking.k8s.io/channel`), if they agree on one.
    pub channel: Option<String>,
}

impl InstalledApis {
    /// Whether the cluster has a kind, readable or not.
    pub fn has(&self, kind: Kind) -> bool {
        self.can_read(kind) || self.unreadable.contains_key(&kind)
    }

    /// Whether objects of a kind can be read from the cluster.
    pub fn can_read(&self, kind: Kind) -> bool {
        self.versions.contains_key(&kind)
    }
}
