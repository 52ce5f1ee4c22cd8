//! What plugins remember beyond a change of their configuration: found by name, gone with its last user.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Counters, caches and the like, by type and name. Asked when a plugin is built, never by a request.
#[derive(Clone, Debug, Default)]
pub struct State {
    entries: Arc<Mutex<Entries>>,
}

type Entries = HashMap<(TypeId, Box<str>), Weak<dyn Any + Send + Sync>>;

impl State {
    /// What is kept under this name, made now if nobody holds it. A plugin that is built anew asks before the one that it
    /// replaces is gone, so both have the same.
    pub fn shared<T: Any + Send + Sync>(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let key = (TypeId::of::<T>(), Box::from(name));
        let mut entries = self.entries.lock();
        if let Some(known) = entries.get(&key).and_then(Weak::upgrade).and_then(|known| known.downcast().ok()) {
            return known;
        }
        let made = Arc::new(make());
        let erased: Arc<dyn Any + Send + Sync> = Arc::clone(&made) as _;
        entries.retain(|_, entry| entry.strong_count() > 0);
        entries.insert(key, Arc::downgrade(&erased));
        made
    }

    /// What is kept under this name, if somebody holds it.
    pub fn existing<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        let key = (TypeId::of::<T>(), Box::from(name));
        self.entries.lock().get(&key)?.upgrade()?.downcast().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lives_as_long_as_somebody_holds_it() {
        let state = State::default();
        let first = state.shared("a", || Mutex::new(1));
        *first.lock() = 2;
        assert_eq!(*state.shared("a", || Mutex::new(1)).lock(), 2);
        assert_eq!(*state.shared("b", || Mutex::new(1)).lock(), 1, "another name");
        assert_eq!(state.shared("a", || 7_u8), Arc::new(7), "another type");
        drop(first);
        assert!(state.existing::<Mutex<i32>>("a").is_none());
        assert_eq!(*state.shared("a", || Mutex::new(1)).lock(), 1);
    }
}
