//! Fingerprint of the served snapshot, computed on demand and cached per snapshot.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::snapshot::Snapshot;
use crate::snapshot::fingerprint::Fingerprint;

#[derive(Debug)]
pub(super) struct FingerprintCache {
    snapshots: Arc<ArcSwap<Snapshot>>,
    /// The last snapshot and its fingerprint. Weak, so that the cache does not keep an old snapshot alive.
    last: Mutex<Option<(Weak<Snapshot>, Fingerprint)>>,
}

impl FingerprintCache {
    pub(super) fn new(snapshots: Arc<ArcSwap<Snapshot>>) -> Arc<Self> {
        Arc::new(FingerprintCache { snapshots, last: Mutex::default() })
    }

    /// The fingerprint of the served snapshot.
    pub(super) fn current(&self) -> Fingerprint {
        // Concurrent callers wait for one computation.
        let mut last = self.last.lock();
        let snapshot = self.snapshots.load_full();
        if let Some((last_snapshot, fingerprint)) = &*last
            && Weak::ptr_eq(last_snapshot, &Arc::downgrade(&snapshot))
        {
            return *fingerprint;
        }
        let fingerprint = snapshot.fingerprint();
        *last = Some((Arc::downgrade(&snapshot), fingerprint));
        fingerprint
    }
}
