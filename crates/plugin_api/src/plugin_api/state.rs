//! State that plugins keep across configuration changes: found by name, dropped with the last plugin that holds it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, ReentrantMutex};

/// Counters, caches and other shared objects, by type and name. Used when a plugin is built, not during requests.
#[derive(Clone, Debug, Default)]
pub struct PluginState {
    shared: Arc<StateObjects>,
}

#[derive(Debug, Default)]
struct StateObjects {
    /// Held while an object is created, so that no other thread creates the same object. The creation of one object may
    /// create others, so the thread that holds it may take it again.
    creation: ReentrantMutex<()>,
    /// Never locked while an object is created.
    entries: Mutex<StateEntries>,
}

type StateEntries = HashMap<(TypeId, Box<str>), Weak<dyn Any + Send + Sync>>;

impl PluginState {
    /// Returns the object of this name, or creates it if there is none. `create` is called at most once for an object,
    /// and may get and create others. A plugin is rebuilt before the old one is dropped, so the new one gets the same
    /// object.
    pub fn get_or_create<T: Any + Send + Sync>(&self, name: &str, create: impl FnOnce() -> T) -> Arc<T> {
        let _creation = self.shared.creation.lock();
        if let Some(existing) = self.get(name) {
            return existing;
        }
        let created = Arc::new(create());
        // `create` may have created an object of this name: then that one is in use already.
        if let Some(existing) = self.get(name) {
            return existing;
        }
        let untyped: Arc<dyn Any + Send + Sync> = Arc::clone(&created) as _;
        let mut entries = self.shared.entries.lock();
        entries.retain(|_, entry| entry.strong_count() > 0);
        entries.insert((TypeId::of::<T>(), Box::from(name)), Arc::downgrade(&untyped));
        created
    }

    /// Returns the object of this name, if it exists.
    pub fn get<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        let key = (TypeId::of::<T>(), Box::from(name));
        // Released before the object can be dropped, whose `drop` may use this state.
        let object = self.shared.entries.lock().get(&key)?.upgrade()?;
        object.downcast().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

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

    #[test]
    fn the_creation_of_an_object_may_create_others() {
        let state = PluginState::default();
        let outer = state.get_or_create("outer", || {
            let inner = state.get_or_create("inner", || 1_u8);
            (Arc::clone(&inner), state.get::<u8>("inner"), state.get::<u8>("outer"))
        });
        let (inner, found, missing) = &*outer;
        assert_eq!((found.as_ref(), missing), (Some(inner), &None));
        assert!(Arc::ptr_eq(inner, &state.get_or_create("inner", || 2_u8)));
        // The object that the inner call has returned is the one that stays.
        let mut first = None;
        let second = state.get_or_create("same", || {
            first = Some(state.get_or_create("same", || 3_u16));
            4_u16
        });
        assert!(first.is_some_and(|first| Arc::ptr_eq(&first, &second)));
    }

    #[test]
    fn threads_create_an_object_once() {
        let state = PluginState::default();
        let (created, start) = (AtomicUsize::new(0), Barrier::new(8));
        let objects: Vec<Arc<u8>> = thread::scope(|scope| {
            let create = || {
                start.wait();
                state.get_or_create("a", || {
                    created.fetch_add(1, Ordering::Relaxed);
                    thread::yield_now();
                    1_u8
                })
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(created.load(Ordering::Relaxed), 1);
        assert!(objects.iter().all(|object| Arc::ptr_eq(object, &objects[0])));
    }
}
