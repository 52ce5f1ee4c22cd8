//! Copies the body of a response into the store while it is forwarded.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::config::{BodyTest, CacheSettings};
use super::remote::{Epoch, RemoteStore};
use super::store::{CacheKey, FlightGuard, Generation, Partition, StoredResponse};
use crate::plugin_api::StreamingFilter;

/// A response that is stored when its body is complete.
pub(super) struct Collector {
    /// None if the body is too large, or when it is stored.
    pending: Option<UnfinishedBody>,
    max_bytes: usize,
    /// What `Content-Length` announces.
    announced: Option<usize>,
    accepts_body: Option<BodyTest>,
}

struct UnfinishedBody {
    body: BytesMut,
    reserved: usize,
    response: UnfinishedResponse,
}

/// A stored response without its body, and where it is stored.
pub(super) struct UnfinishedResponse {
    /// Its body is empty, and its reservation has room for its head.
    pub(super) response: StoredResponse,
    pub(super) partition: Arc<Partition>,
    pub(super) key: CacheKey,
    pub(super) request: HeaderMap,
    pub(super) generation: Generation,
    /// The server that stores it in place of the partition.
    pub(super) remote: Option<(Arc<RemoteStore>, Epoch)>,
    /// Ends when the response is stored, or cannot be.
    pub(super) flight: Option<FlightGuard>,
}

impl Collector {
    /// `None` if the announced body is too large, or if there is no room for it.
    pub(super) fn new(
        mut response: UnfinishedResponse,
        announced: Option<usize>,
        settings: &CacheSettings,
    ) -> Option<Collector> {
        let (max_bytes, accepts_body) = (settings.max_body, settings.accepts_body);
        let reserved = announced.unwrap_or_default();
        if reserved > max_bytes || !response.response.reservation.grow(reserved) {
            return None;
        }
        let pending = Some(UnfinishedBody { body: BytesMut::with_capacity(reserved), reserved, response });
        Some(Collector { pending, max_bytes, announced, accepts_body })
    }
}

impl StreamingFilter for Collector {
    fn part(&mut self, data: Bytes) -> Bytes {
        let Some(pending) = &mut self.pending else { return data };
        let needed = pending.body.len() + data.len();
        let mut has_room = needed <= self.announced.unwrap_or(self.max_bytes);
        if has_room && needed > pending.reserved {
            // Twice as much each time, as the buffer grows.
            let more = (needed - pending.reserved).max(pending.reserved).max(GROWTH);
            has_room = pending.response.response.reservation.grow(more);
            pending.reserved += more;
            pending.body.reserve(if has_room { pending.reserved - pending.body.len() } else { 0 });
        }
        if has_room {
            pending.body.extend_from_slice(&data);
        } else {
            // Others need not wait for it.
            self.pending = None;
        }
        data
    }

    fn end(&mut self) -> Bytes {
        if let Some(pending) = self.pending.take()
            && self.announced.is_none_or(|announced| announced == pending.body.len())
            && self.accepts_body.is_none_or(|accepts| accepts(&pending.body))
        {
            pending.store();
        }
        Bytes::new()
    }

    fn keeps_bytes(&self) -> bool {
        true
    }
}

impl UnfinishedBody {
    fn store(self) {
        let UnfinishedBody { body, reserved, response: mut unfinished } = self;
        let body = if body.capacity() > body.len() { Bytes::copy_from_slice(&body) } else { body.freeze() };
        unfinished.response.reservation.shrink(reserved - body.len());
        let body = unfinished.response.reservation.split_off(body);
        let response = Arc::new(StoredResponse { body, ..unfinished.response });
        if let Some((remote, epoch)) = unfinished.remote {
            return remote.store(unfinished.key, response, epoch, unfinished.flight);
        }
        unfinished.partition.insert(unfinished.key, &unfinished.request, response, unfinished.generation);
        drop(unfinished.flight);
    }
}

/// How many bytes are reserved at a time for a body of unknown length.
const GROWTH: usize = 16 << 10;
