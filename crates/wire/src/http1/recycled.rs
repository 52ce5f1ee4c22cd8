//! Memory that the messages of a thread use again: every message has a head, whose map costs two allocations, and whose
//! bytes cost another one.

use std::cell::RefCell;

use bytes::BytesMut;
use http::HeaderMap;

thread_local! {
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty map.
pub(super) fn take_map() -> HeaderMap {
    MAPS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps the memory of the map for another head, unless it is unusually large or there are enough.
pub fn recycle_map(mut map: HeaderMap) {
    if map.capacity() == 0 || map.capacity() > MAX_FIELDS {
        return;
    }
    // Outside of the closure, because the values run code of other crates when they are dropped.
    map.clear();
    MAPS.with_borrow_mut(|maps| {
        if maps.len() < MAX_KEPT {
            maps.push(map);
        }
    });
}

/// An empty buffer for the head of a message.
pub fn take_buffer() -> BytesMut {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps the memory of the buffer, unless it is unusually large or there are enough.
pub(super) fn recycle_buffer(mut buffer: BytesMut) {
    if buffer.capacity() == 0 || buffer.capacity() > MAX_BYTES {
        return;
    }
    buffer.clear();
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() < MAX_KEPT {
            buffers.push(buffer);
        }
    });
}

/// About the usual number of concurrent requests of one worker.
const MAX_KEPT: usize = 64;
const MAX_FIELDS: usize = 64;
const MAX_BYTES: usize = 4096;
