//! What the sources say: every object, typed and slimmed, by its key. One writer, the control loop.
//!
//! ```text
//!   manifests, API server ──Batch──▶ Store ──Changes──▶ compile
//!                                      └ mentions.rs: what an object mentions ─▶ refs.rs: who mentions whom
//! ```

mod kept;
mod mentions;
mod object;
mod refs;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use object::{AnyObject, Guard, Malformed};
pub use refs::{Mention, Refs};

use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey, Resource};
use kept::{bodies, kept};

/// What a source has to say at one moment; it is applied as a whole, so that a relist costs one compile.
#[derive(Debug, Default)]
pub struct Batch {
    pub upserts: Vec<AnyObject>,
    pub removes: Vec<ObjectId>,
}

/// Objects that are new, different or gone since somebody last asked.
pub type Changes = BTreeSet<ObjectId>;

/// All objects of one kind, in the order of their keys: whoever iterates gets the same order every time.
pub type Table<T> = BTreeMap<ObjectKey, Arc<Object<T>>>;

macro_rules! store {
    ($($kind:ident in $table:ident,)*) => {
        /// Everything the sources said, joined.
        #[derive(Debug, Default)]
        pub struct Store {
            $(pub $table: Table<bodies::$kind>,)*
            /// Policies that cannot be read. None of them is in `backend_tls_policies` as well.
            pub guards: BTreeMap<ObjectKey, Arc<Guard>>,
            /// Kinds that are checked but not served, by their metadata.
            pub unserved: BTreeMap<ObjectId, Arc<Meta>>,
            refs: Refs,
        }

        impl Store {
            /// Every object there is, as if all had just changed: what a compile from scratch starts with.
            pub fn everything(&self) -> Changes {
                fn ids<T: Resource>(table: &Table<T>) -> impl Iterator<Item = ObjectId> + '_ {
                    table.keys().map(|key| ObjectId::new(T::KIND, key.clone()))
                }
                let mut all: Changes = self.unserved.keys().cloned().collect();
                $(all.extend(ids(&self.$table));)*
                all.extend(self.guards.keys().map(|key| ObjectId::new(Kind::BackendTlsPolicy, key.clone())));
                all
            }

            /// Every object there is, but for those of kinds that are not served.
            pub fn objects(&self) -> impl Iterator<Item = AnyObject> + '_ {
                std::iter::empty()$(.chain(self.$table.values().cloned().map(AnyObject::$kind)))*
                    .chain(self.guards.values().cloned().map(AnyObject::Guard))
            }

            /// The metadata of an object of any kind.
            pub fn meta(&self, id: &ObjectId) -> Option<&Meta> {
                let meta = match id.kind {
                    $(Kind::$kind => self.$table.get(&id.key).map(|object| &object.meta),)*
                    _ => self.unserved.get(id).map(|meta| &**meta),
                };
                meta.or_else(|| self.guard(id).map(|guard| &guard.meta))
            }

            fn insert(&mut self, object: AnyObject) -> bool {
                fn put<T: PartialEq>(table: &mut Table<T>, object: Arc<Object<T>>) -> bool {
                    let same = table.get(&object.meta.key).is_some_and(|known| known == &object);
                    if !same {
                        table.insert(object.meta.key.clone(), object);
                    }
                    !same
                }
                let mended = !matches!(object, AnyObject::Guard(_)) && self.release(&object.id());
                let differs = match object {
                    $(AnyObject::$kind(object) => put(&mut self.$table, object),)*
                    AnyObject::Guard(guard) => self.guard_by(guard),
                    AnyObject::Unserved(kind, meta) => {
                        let id = ObjectId::new(kind, meta.key.clone());
                        let same = self.unserved.get(&id) == Some(&meta);
                        self.unserved.insert(id, meta);
                        !same
                    }
                };
                differs || mended
            }

            fn remove(&mut self, id: &ObjectId) -> bool {
                let released = self.release(id);
                let removed = match id.kind {
                    $(Kind::$kind => self.$table.remove(&id.key).is_some(),)*
                    _ => self.unserved.remove(id).is_some(),
                };
                removed || released
            }
        }
    };
}
kept!(store);

impl Store {
    /// Takes a batch over and says what really changed: an object that says the same as before did not. A plugin also
    /// counts as changed when other consumers or groups use it than before, since then it runs elsewhere.
    pub fn apply(&mut self, batch: Batch) -> Changes {
        let mut changes = Changes::new();
        for id in batch.removes {
            if self.remove(&id) {
                let before = self.attached_by(&id);
                self.refs.remove(&id);
                changes.extend(before);
                changes.insert(id);
            }
        }
        for object in batch.upserts {
            let id = object.id();
            let mentions = mentions::mentions(&object);
            if self.insert(object) {
                let before = self.attached_by(&id);
                self.refs.insert(&id, mentions);
                changes.extend(before.symmetric_difference(&self.attached_by(&id)).cloned());
                changes.insert(id);
            }
        }
        changes
    }

    /// The plugins that are there and that this consumer or group attaches to itself.
    fn attached_by(&self, id: &ObjectId) -> BTreeSet<ObjectId> {
        if !matches!(id.kind, Kind::KongConsumer | Kind::KongConsumerGroup) {
            return BTreeSet::new();
        }
        self.refs.plugins(id).filter(|plugin| self.meta(plugin).is_some()).cloned().collect()
    }

    /// Who mentions what.
    pub fn refs(&self) -> &Refs {
        &self.refs
    }

    fn guard(&self, id: &ObjectId) -> Option<&Guard> {
        self.guards.get(&id.key).filter(|_| id.kind == Kind::BackendTlsPolicy).map(|guard| &**guard)
    }

    /// Says whether it stood for a policy that cannot be read.
    fn release(&mut self, id: &ObjectId) -> bool {
        id.kind == Kind::BackendTlsPolicy && self.guards.remove(&id.key).is_some()
    }

    /// Says whether that is new.
    fn guard_by(&mut self, guard: Arc<Guard>) -> bool {
        let key = guard.meta.key.clone();
        // The last good version says at least what it was about.
        if guard.targets.is_none() && self.backend_tls_policies.contains_key(&key) {
            return false;
        }
        self.backend_tls_policies.remove(&key);
        self.guards.insert(key, Arc::clone(&guard)).as_ref() != Some(&guard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn namespace(name: &str, team: &str) -> AnyObject {
        AnyObject::parse(Kind::Namespace, json!({"metadata": {"name": name, "labels": {"team": team}}})).unwrap()
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let mut store = Store::default();
        let batch = |objects: Vec<AnyObject>| Batch { upserts: objects, removes: vec![] };
        assert_eq!(store.apply(batch(vec![namespace("a", "x"), namespace("b", "x")])).len(), 2);
        assert_eq!(store.apply(batch(vec![namespace("a", "x")])).len(), 0);
        let id = ObjectId::new(Kind::Namespace, ObjectKey::cluster("a"));
        assert_eq!(store.apply(batch(vec![namespace("a", "y")])), Changes::from([id.clone()]));
        let gone = Batch { upserts: vec![], removes: vec![id.clone(), ObjectId::new(Kind::Gateway, id.key.clone())] };
        assert_eq!(store.apply(gone), Changes::from([id]), "what was never there is not a change");
        assert_eq!(store.everything().len(), 1);
    }

    // kong-compat §1.4
    #[test]
    fn a_plugin_that_other_consumers_use_has_changed() {
        let plugin = json!({"metadata": {"name": "limit", "namespace": "a"}, "plugin": "rate-limiting"});
        let plugin = AnyObject::parse(Kind::KongPlugin, plugin).unwrap();
        let consumer = |plugins: &str, username: &str| {
            let metadata = json!({"name": "ann", "namespace": "a", "annotations": {"konghq.com/plugins": plugins, "example.com/x": "y"}});
            AnyObject::parse(Kind::KongConsumer, json!({"metadata": metadata, "username": username})).unwrap()
        };
        let (id, ann) = (plugin.id(), consumer("", "ann").id());
        let mut store = Store::default();
        store.apply(Batch { upserts: vec![plugin], removes: vec![] });
        for (plugins, username, expected) in [
            ("missing", "ann", vec![&ann]),
            ("missing,limit", "ann", vec![&id, &ann]),
            ("limit", "ann", vec![&ann]),
            ("limit", "Ann", vec![&ann]),
            ("", "Ann", vec![&id, &ann]),
            ("limit", "Ann", vec![&id, &ann]),
        ] {
            let changes = store.apply(Batch { upserts: vec![consumer(plugins, username)], removes: vec![] });
            assert_eq!(changes.iter().collect::<Vec<_>>(), expected, "{plugins} {username}");
        }
        let gone = store.apply(Batch { upserts: vec![], removes: vec![ann.clone()] });
        assert_eq!(gone, Changes::from([id, ann]));
    }
}
