//! State that plugins keep across configuration changes: found by name, dropped with the last plugin that holds it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Counters, caches and other shared objects, by type and name. Used when a plugin is built, not during requests.
#[derive(Clone, Debug, Default)]
pub struct PluginState {
    entries: Arc<Mutex<StateEntries>>,
}

type StateEntries = HashMap<(TypeId, Box<str>), Weak<dyn Any + Send + Sync>>;

impl PluginState {
    /// Returns the object of this name, or creates it if there is none; `create` must not use this state. A plugin is
    /// rebuilt before the old one is dropped, so the new one gets the same object.
    pub fn get_or_create<T: Any + Send + Sync>(&self, name: &str, create: impl FnOnce() -> T) -> Arc<T> {
        let key = (TypeId::of::<T>(), Box::from(name));
        let mut entries = self.entries.lock();
        if let Some(existing) = entries.get(&key).and_then(Weak::upgrade).and_then(|object| object.downcast().ok()) {
            return existing;
        }
        let created = Arc::new(create());
        let untyped: Arc<dyn Any + Send + Sync> = Arc::clone(&created) as _;
        entries.retain(|_, entry| entry.strong_count() > 0);
        entries.insert(key, Arc::downgrade(&untyped));
        created
    }

    /// Returns the object of this name, if it exists.
    pub fn get<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        let key = (TypeId::of::<T>(), Box::from(name));
        self.entries.lock().get(&key)?.upgrade()?.downcast().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_objects_live_as_long_as_their_users() {
        let state = PluginState::default();
        let first = state.get_or_create("a", || Mutex::new(1));
        *first.lock() = 2;
        assert_eq!(*state.get_or_create("a", || Mutex::new(1)).lock(), 2);
        assert_eq!(*state.get_or_create("b", || Mutex::new(1)).lock(), 1, "another name");
        assert_eq!(state.get_or_create("a", || 7_u8), Arc::new(7), "another type");
        drop(first);
        assert!(state.get::<Mutex<i32>>("a").is_none());
        assert_eq!(*state.get_or_create("a", || Mutex::new(1)).lock(), 1);
    }
}
