//! The fingerprint of the snapshot that is served, made when somebody asks and the snapshot is another one than then.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::snapshot::Snapshot;
use crate::snapshot::fingerprint::Fingerprint;

#[derive(Debug)]
pub(super) struct Fingerprints {
    snapshots: Arc<ArcSwap<Snapshot>>,
    /// Weak, so that a snapshot that nobody serves is not kept.
    last: Mutex<Option<(Weak<Snapshot>, Fingerprint)>>,
}

impl Fingerprints {
    pub(super) fn of(snapshots: Arc<ArcSwap<Snapshot>>) -> Arc<Self> {
        Arc::new(Fingerprints { snapshots, last: Mutex::default() })
    }

    pub(super) fn now(&self) -> Fingerprint {
        // Whoever asks meanwhile waits for the same one.
        let mut last = self.last.lock();
        let snapshot = self.snapshots.load_full();
        if let Some((known, fingerprint)) = &*last
            && Weak::ptr_eq(known, &Arc::downgrade(&snapshot))
        {
            return *fingerprint;
        }
        let fingerprint = snapshot.fingerprint();
        *last = Some((Arc::downgrade(&snapshot), fingerprint));
        fingerprint
    }
}
