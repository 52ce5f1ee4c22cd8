//! A stored response.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::StatusCode;

use super::{Reservation, StoredFields};
use crate::plugins::proxy_cache::semantics::cache_control::CacheControl;
use crate::plugins::proxy_cache::semantics::reuse::StoredState;
use crate::plugins::proxy_cache::semantics::storing::Freshness;
use crate::plugins::proxy_cache::semantics::vary::Vary;

/// A complete response of an endpoint, before any filter has changed it.
#[derive(Debug)]
pub(crate) struct StoredResponse {
    pub(crate) status: StatusCode,
    /// Without the fields of one connection.
    pub(crate) fields: StoredFields,
    pub(crate) body: Bytes,
    pub(crate) vary: Vary,
    /// The names by which it can be purged.
    pub(crate) tags: Box<[Box<[u8]>]>,
    pub(crate) directives: CacheControl,
    pub(crate) freshness: Freshness,
    /// When the response was received.
    pub(crate) received: SystemTime,
    /// When it is removed, whether it is fresh or not.
    pub(crate) keep_until: SystemTime,
    pub(crate) reservation: Reservation,
}

impl StoredResponse {
    /// Its age now.
    pub(crate) fn age(&self, now: SystemTime) -> Duration {
        self.freshness.initial_age.saturating_add(self.time_stored(now))
    }

    /// The time since it was received.
    pub(crate) fn time_stored(&self, now: SystemTime) -> Duration {
        now.duration_since(self.received).unwrap_or_default()
    }

    pub(crate) fn state(&self, now: SystemTime) -> StoredState {
        StoredState { directives: self.directives, lifetime: self.freshness.lifetime, age: self.age(now) }
    }

    pub(super) fn has_tag(&self, tag: &[u8]) -> bool {
        self.tags.iter().any(|own| **own == *tag)
    }
}

/// The memory of a response without its body.
pub(crate) fn head_bytes(fields: &StoredFields, vary: &Vary, tags: &[Box<[u8]>]) -> usize {
    let tags: usize = tags.iter().map(|tag| tag.len() + 16).sum();
    RESPONSE_BYTES + fields.bytes() + tags + vary.bytes()
}

/// What a response takes in addition to its fields and its body: structures, its entry, and places in the queue.
const RESPONSE_BYTES: usize = 800;
