//! Keys that all replicas share. Plugins seal with them what they keep at browsers and in other stores, and any replica
//! opens it again.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use aws_lc_rs::rand;

/// The keys of the process. They may be replaced at any time, without building plugins again.
pub struct SharedKeys {
    current: ArcSwap<SharedKeySet>,
}

/// One or two keys, each of which opens what it has sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKeySet {
    /// The key that seals.
    pub sealing: SharedKey,
    /// Another key that opens.
    pub opening: Option<SharedKey>,
}

/// The bytes of a key. They are not shown in any output.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey(Arc<[u8]>);

impl SharedKeys {
    /// Random keys, which only this process has.
    pub fn random() -> Arc<SharedKeys> {
        let mut bytes = [0; KEY_BYTES];
        rand::fill(&mut bytes).expect("the system provides random bytes");
        let keys = SharedKeySet { sealing: SharedKey::new(&bytes), opening: None };
        Arc::new(SharedKeys { current: ArcSwap::from_pointee(keys) })
    }

    /// The keys of now.
    pub fn load(&self) -> Guard<Arc<SharedKeySet>> {
        self.current.load()
    }

    /// Replaces the keys for all that is sealed and opened from now on.
    pub fn replace(&self, keys: SharedKeySet) {
        self.current.store(Arc::new(keys));
    }
}

impl SharedKey {
    pub fn new(bytes: &[u8]) -> Self {
        SharedKey(Arc::from(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SharedKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SharedKeys").finish_non_exhaustive()
    }
}

impl fmt::Debug for SharedKeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SharedKeySet").finish_non_exhaustive()
    }
}

impl fmt::Debug for SharedKey {
    /// Omits the bytes.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedKey")
    }
}

/// The size of a random key.
const KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_never_shown() {
        let keys = SharedKeys::random();
        keys.replace(SharedKeySet { sealing: SharedKey::new(b"marker"), opening: Some(SharedKey::new(b"marker")) });
        let set = keys.load();
        let shown = format!("{keys:?} {set:?} {:?}", set.sealing);
        // Neither as text nor as the list of their bytes.
        assert!(!shown.contains("marker") && !shown.contains("109"), "{shown}");
        assert_eq!(set.sealing.as_bytes(), b"marker");
    }
}
