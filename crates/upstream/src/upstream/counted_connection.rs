//! Counts connections to endpoints.

use std::sync::Arc;

use super::UpstreamCounters;

/// A connection, counted as open until this is dropped.
#[derive(Debug)]
pub(super) struct CountedConnection(Arc<UpstreamCounters>);

impl CountedConnection {
    pub(super) fn new(counters: &Arc<UpstreamCounters>) -> Self {
        counters.connected.add(1);
        CountedConnection(Arc::clone(counters))
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.closed.add(1);
    }
}
