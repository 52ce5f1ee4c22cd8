//! What the sources say: every object, typed and slimmed, by its key. One writer, the control loop.
//!
//! ```text
//!   manifests, API server ──Batch──▶ Store ──Changes──▶ compile
//!                                      └ mentions.rs: what an object mentions ─▶ refs.rs: who is mentioned by whom
//! ```

mod kept;
mod mentions;
mod object;
mod refs;
mod table;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use object::{AnyObject, Guard, Malformed};
pub use refs::{Mention, Refs};
pub use table::Table;

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

            /// An object of a kind that is kept whole.
            fn object(&self, id: &ObjectId) -> Option<AnyObject> {
                let object = match id.kind {
                    $(Kind::$kind => self.$table.get(&id.key).cloned().map(AnyObject::$kind),)*
                    _ => None,
                };
                let guards = (id.kind == Kind::BackendTlsPolicy).then_some(&self.guards);
                object.or_else(|| guards?.get(&id.key).cloned().map(AnyObject::Guard))
            }

            /// How many objects there are.
            fn len(&self) -> usize {
                self.unserved.len() + self.guards.len() $(+ self.$table.len())*
            }

            /// After many objects came at once.
            fn compact(&mut self) {
                $(self.$table.compact();)*
                let mut refs = std::mem::take(&mut self.refs);
                refs.compact(|id| self.meta(id).map(|meta| &meta.key));
                self.refs = refs;
            }

            fn insert(&mut self, object: AnyObject) -> bool {
                fn put<T: PartialEq>(table: &mut Table<T>, object: Arc<Object<T>>) -> bool {
                    let same = table.get(&object.meta.key).is_some_and(|known| known == &object);
                    if !same {
                        table.insert(object);
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
                    $(Kind::$kind => self.$table.remove(&id.key),)*
                    _ => self.unserved.remove(id).is_some(),
                };
                removed || released
            }
        }
    };
}
kept!(store);

impl Store {
    /// Takes a batch over and says what really changed: an object that says the same as before did not.
    pub fn apply(&mut self, batch: Batch) -> Changes {
        let mut changes = Changes::new();
        for id in batch.removes {
            let before = self.mentions(&id);
            if self.remove(&id) {
                self.refs.remove(&id, &before);
                changes.insert(id);
            }
        }
        for object in batch.upserts {
            let id = object.id();
            let (before, after) = (self.mentions(&id), mentions::mentions(&object));
            if self.insert(object) {
                self.refs.remove(&id, &before);
                self.refs.insert(&id, after);
                changes.insert(id);
            }
        }
        if changes.len() > self.len() / 2 {
            self.compact();
        }
        changes
    }

    /// What an object mentions, each once: read from it again, since to remember it would cost more than the object. Nothing
    /// if it is not there.
    fn mentions(&self, id: &ObjectId) -> Vec<Mention> {
        self.object(id).map(|object| mentions::mentions(&object)).unwrap_or_default()
    }

    fn mentioned_by(&self, id: &ObjectId) -> impl Iterator<Item = ObjectId> + use<> {
        self.mentions(id).into_iter().filter_map(|mention| match mention {
            Mention::Object(target) => Some(target),
            Mention::GrantsIn(_) | Mention::DefaultClass => None,
        })
    }

    /// The Services that this object mentions.
    pub fn services_of(&self, id: &ObjectId) -> impl Iterator<Item = ObjectKey> + use<> {
        self.mentioned_by(id).filter(|target| target.kind == Kind::Service).map(|target| target.key)
    }

    /// The plugins that this object mentions, of either kind.
    pub fn plugins_of(&self, id: &ObjectId) -> impl Iterator<Item = ObjectId> + use<> {
        self.mentioned_by(id).filter(|target| matches!(target.kind, Kind::KongPlugin | Kind::KongClusterPlugin))
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

    #[test]
    fn who_mentions_what_follows_the_objects() {
        let consumer = |secret: &str| {
            let object = json!({"metadata": {"namespace": "a", "name": "ann"}, "credentials": [secret]});
            AnyObject::parse(Kind::KongConsumer, object).unwrap()
        };
        let secret = AnyObject::parse(Kind::Secret, json!({"metadata": {"namespace": "a", "name": "new"}})).unwrap();
        let id = |kind, name| ObjectId::new(kind, ObjectKey::new("a", name));
        let dependents = |store: &Store, name| {
            store.refs().dependents(&id(Kind::Secret, name)).map(ObjectId::to_string).collect::<Vec<_>>()
        };
        let mut store = Store::default();
        store.apply(Batch { upserts: vec![consumer("old")], removes: vec![] });
        assert_eq!(dependents(&store, "old"), ["KongConsumer a/ann"]);

        store.apply(Batch { upserts: vec![consumer("new"), secret], removes: vec![] });
        assert_eq!(dependents(&store, "old"), [""; 0]);
        assert_eq!(dependents(&store, "new"), ["KongConsumer a/ann"]);
        let mentioned = store.refs().mentioned(Kind::Secret).next().unwrap();
        let there = store.meta(mentioned).unwrap();
        assert!(Arc::ptr_eq(&mentioned.key.name, &there.key.name), "no second copy of a name is kept");

        store.apply(Batch { upserts: vec![], removes: vec![id(Kind::KongConsumer, "ann")] });
        assert_eq!(dependents(&store, "new"), [""; 0]);
        assert_eq!(store.refs().mentioned(Kind::Secret).count(), 0);
    }

    #[test]
    fn what_an_object_mentions_is_gone_with_it() {
        let service =
            json!({"metadata": {"namespace": "a", "name": "web", "annotations": {"konghq.com/plugins": "limit"}}});
        let policy = json!({"metadata": {"namespace": "a", "name": "tls"},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}]}});
        let guard = Guard::of(ObjectKey::new("a", "tls"), 1, &policy);
        let service = AnyObject::parse(Kind::Service, service).unwrap();
        let (of_service, of_guard) = (service.id(), ObjectId::new(Kind::BackendTlsPolicy, ObjectKey::new("a", "tls")));
        let mut store = Store::default();
        store.apply(Batch { upserts: vec![service, AnyObject::Guard(Arc::new(guard))], removes: vec![] });
        let plugins: Vec<_> = store.plugins_of(&of_service).map(|id| id.to_string()).collect();
        assert_eq!(plugins, ["KongPlugin a/limit", "KongClusterPlugin limit"]);
        assert_eq!(store.services_of(&of_guard).collect::<Vec<_>>(), [ObjectKey::new("a", "web")]);
        assert_eq!(store.refs().dependents(&of_service).collect::<Vec<_>>(), [&of_guard]);

        store.apply(Batch { upserts: vec![], removes: vec![of_service.clone(), of_guard.clone()] });
        assert_eq!(store.plugins_of(&of_service).count() + store.services_of(&of_guard).count(), 0);
        assert_eq!(store.refs().dependents(&of_service).count(), 0);
    }
}
