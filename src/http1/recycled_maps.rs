//! Header maps that the heads of a thread use again: building a map costs two allocations, and every message has one.

use std::cell::RefCell;

use http::HeaderMap;

thread_local! {
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map.
pub(super) fn take_map() -> HeaderMap {
    MAPS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps the memory of the map for another head, unless it is unusually large or there are enough.
pub fn recycle_map(mut map: HeaderMap) {
    if map.capacity() == 0 || map.capacity() > MAX_CAPACITY {
        return;
    }
    MAPS.with_borrow_mut(|maps| {
        if maps.len() < MAX_MAPS {
            map.clear();
            maps.push(map);
        }
    });
}

/// About the usual number of concurrent requests of one worker.
const MAX_MAPS: usize = 64;
const MAX_CAPACITY: usize = 64;
