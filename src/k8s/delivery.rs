//! What the watches hand over: objects for the store, and beside each what only the writer of its status needs to know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use crate::api::{Kind, ObjectId};
use crate::store::{Batch, Malformed};

/// All that happened since the last delivery, joined: a relist of thousands of objects is one.
#[derive(Debug, Default)]
pub struct Delivery {
    pub batch: Batch,
    /// Objects of kinds that have a status, as they were last seen. None if the object is gone.
    pub observed: BTreeMap<ObjectId, Option<Observed>>,
    /// Objects that cannot be read as their kind; the store keeps their last good version. None if that is mended or gone.
    pub refused: BTreeMap<ObjectId, Option<Refused>>,
    /// What is installed in the cluster, if that is new.
    pub installed: Option<Arc<Installed>>,
    /// Every kind was listed once, or is known not to be listed: before that, nothing may be compiled.
    pub complete: bool,
    /// When the first of it happened.
    pub since: Option<Instant>,
}

/// The API server's own copy of an object, as far as its status is concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub uid: Arc<str>,
    pub resource_version: Arc<str>,
    pub generation: i64,
    /// `Null` if nobody has written one.
    pub status: Arc<Value>,
}

/// Why an object of the API server cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub generation: i64,
    pub why: Malformed,
}

/// What of our kinds the cluster has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Kinds that are watched, with the version that is used of each.
    pub versions: BTreeMap<Kind, String>,
    /// Kinds that exist but that we may not read or whose watch fails, with a sentence that says what would help.
    pub unreadable: BTreeMap<Kind, String>,
    /// Kinds that could not be read before their first list, until that comes: not even what they once said is known.
    pub unknown: BTreeSet<Kind>,
    /// Whether release and channel are known, or known not to be found out: before that, nothing is to be said of them.
    pub release_settled: bool,
    /// The release of the Gateway API's CRDs (`gateway.networking.k8s.io/bundle-version`), if they agree on one.
    pub bundle_version: Option<String>,
    /// Their channel (`gateway.networking.k8s.io/channel`).
    pub channel: Option<String>,
}
