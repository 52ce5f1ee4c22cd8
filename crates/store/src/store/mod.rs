//! Stores every object of the sources by key, parsed into its type. The control loop is the only writer.
//!
//! ```text
//!   manifests, API server ──Batch──▶ Store ──Changes──▶ compile
//!                                      └ dependencies/: references of an object
//!                                              └▶ dependency_index.rs: referrers of an object
//! ```

mod acceptance;
mod bounded_value;
mod dependencies;
mod dependency_index;
mod object;
mod object_size;
mod oversized;
mod readable_route;
mod reduced_route;
mod table;
mod unparseable;
mod unserved;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use acceptance::{acceptance, accepting_controller};
pub use bounded_value::BoundedValue;
#[cfg(debug_assertions)]
pub use dependency_index::VISITED as VISITED_DEPENDENTS;
pub use dependency_index::{Dependency, DependencyIndex};
pub use object::{AnyObject, MalformedObject, OversizedObject, UnparseableObject};
pub use object_size::{BYTES_PER_VALUE, MAX_LEVELS, MAX_OBJECT_SIZE, NESTED_TOO_DEEPLY, max_object_size, object_size};
pub use oversized::LargeObjects;
pub use table::ObjectTable;
pub use unparseable::protects;
pub use unserved::{UnservedObject, UnservedTarget};

use crate::api::gateway::{Gateway, GatewayClass};
use crate::api::kind::for_each_served_kind;
use crate::api::{self, Kind, Meta, Object, ObjectId, ObjectKey, Resource};

/// Changes of one source that are applied together, so that a relist costs one compilation. Removals come first: an
/// object that was removed and created again is in both lists.
#[derive(Debug, Default)]
pub struct Batch {
    pub upserts: Vec<AnyObject>,
    pub removes: Vec<ObjectId>,
}

/// The class of a Gateway that was deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct DeletedClass {
    class: Arc<Object<GatewayClass>>,
    /// The class was deleted before this process started: only its controller is known, from the Gateway's status.
    is_from_status: bool,
}

/// Objects that were added, changed or removed since the last compilation.
pub type Changes = BTreeSet<ObjectId>;

macro_rules! store {
    ($($module:ident::$kind:ident in $table:ident,)*) => {
        /// The objects of all sources.
        #[derive(Debug, Default)]
        pub struct Store {
            $(pub $table: ObjectTable<api::$module::$kind>,)*
            /// Objects that were rejected. What is stored of them is also in the tables. A table has the last valid
            /// version of a BackendTLSPolicy, and none of other objects here.
            pub unparseable: BTreeMap<ObjectId, Arc<UnparseableObject>>,
            /// Objects whose kinds are validated but not served.
            pub unserved: BTreeMap<ObjectId, Arc<UnservedObject>>,
            /// Objects that are larger than an object may be. What is stored of them is also in the tables.
            pub oversized: BTreeMap<ObjectId, Arc<OversizedObject>>,
            /// The class of each Gateway whose GatewayClass was deleted while the Gateway existed. Deleting a class,
            /// for example to replace it, must not interrupt the traffic of its Gateways.
            pub deleted_classes: BTreeMap<ObjectKey, DeletedClass>,
            /// Secrets and ConfigMaps that exist, but whose content was not fetched yet.
            unfetched: BTreeSet<ObjectId>,
            /// Secrets and ConfigMaps that exist, but whose content the API server does not allow to fetch.
            forbidden: BTreeSet<ObjectId>,
            /// Secrets and ConfigMaps whose referrers changed, since the last `take_changed_references`.
            changed_references: Changes,
            index: DependencyIndex,
        }

        impl Store {
            /// All objects, as if they had just changed; for a compilation from scratch.
            pub fn everything(&self) -> Changes {
                fn ids<T: Resource>(table: &ObjectTable<T>) -> impl Iterator<Item = ObjectId> + '_ {
                    table.keys().map(|key| ObjectId::new(T::KIND, key.clone()))
                }
                let alone = self.unserved.keys().chain(self.oversized.keys()).chain(self.unparseable.keys());
                let mut all: Changes = alone.cloned().collect();
                $(all.extend(ids(&self.$table));)*
                all
            }

            /// All objects.
            pub fn objects(&self) -> impl Iterator<Item = AnyObject> + '_ {
                let has_special = !self.oversized.is_empty() || !self.unparseable.is_empty();
                let is_normal = move |object: &AnyObject| {
                    !has_special || !self.oversized.contains_key(&object.id()) && !self.is_rejected(&object.id())
                };
                std::iter::empty()$(.chain(self.$table.values().cloned().map(AnyObject::$kind)))*
                    .chain(self.unserved.values().cloned().map(AnyObject::Unserved))
                    .filter(is_normal)
                    .chain(self.unparseable.values().cloned().map(AnyObject::Unparseable))
                    .chain(self.oversized.values().cloned().map(AnyObject::Oversized))
            }

            /// The metadata of an object of any kind. A rejected object of which nothing is stored does not exist.
            pub fn meta(&self, id: &ObjectId) -> Option<&Meta> {
                let meta = match id.kind {
                    $(Kind::$kind => self.$table.get(&id.key).map(|object| &object.meta),)*
                    _ => self.unserved.get(id).map(|object| &object.meta),
                };
                let policy = |object: &&Arc<UnparseableObject>| object.kind == Kind::BackendTlsPolicy;
                meta.or_else(|| self.unparseable.get(id).filter(policy).map(|object| &object.meta))
                    .or_else(|| self.oversized.get(id).map(|object| &object.meta))
            }

            /// An object of any kind.
            fn object(&self, id: &ObjectId) -> Option<AnyObject> {
                let object = match id.kind {
                    $(Kind::$kind => self.$table.get(&id.key).cloned().map(AnyObject::$kind),)*
                    _ => self.unserved.get(id).cloned().map(AnyObject::Unserved),
                };
                object.or_else(|| self.unparseable.get(id).cloned().map(AnyObject::Unparseable))
            }

            /// Whether a table has the object, or what is left of it.
            fn is_in_table(&self, id: &ObjectId) -> bool {
                match id.kind {
                    $(Kind::$kind => self.$table.contains_key(&id.key),)*
                    _ => self.unserved.contains_key(id),
                }
            }

            /// The number of objects.
            fn len(&self) -> usize {
                self.unserved.len() + self.unparseable.len() + self.oversized.len() $(+ self.$table.len())*
            }

            /// Reduces the memory use after many objects were added.
            fn compact(&mut self) {
                $(self.$table.compact();)*
                let mut index = std::mem::take(&mut self.index);
                index.compact(|id| self.meta(id).map(|meta| &meta.key));
                self.index = index;
            }

            /// Returns whether the store changed.
            fn insert(&mut self, object: AnyObject) -> bool {
                fn insert_if_different<T: PartialEq>(table: &mut ObjectTable<T>, object: Arc<Object<T>>) -> bool {
                    let differs = table.get(&object.meta.key).is_none_or(|stored| stored != &object);
                    if differs {
                        table.insert(object);
                    }
                    differs
                }
                // `insert_unparseable` and `insert_oversized` have to know whether what is stored is the whole object.
                let is_whole = !matches!(object, AnyObject::Unparseable(_) | AnyObject::Oversized(_));
                let was_unparseable = is_whole
                    && !self.unparseable.is_empty()
                    && self.unparseable.remove(&object.id()).is_some();
                let was_oversized =
                    is_whole && !self.oversized.is_empty() && self.oversized.remove(&object.id()).is_some();
                let differs = match object {
                    $(AnyObject::$kind(object) => insert_if_different(&mut self.$table, object),)*
                    AnyObject::Unparseable(object) => self.insert_unparseable(object),
                    AnyObject::Unserved(object) => {
                        let id = ObjectId::new(object.kind, object.meta.key.clone());
                        let differs = self.unserved.get(&id) != Some(&object);
                        self.unserved.insert(id, object);
                        differs
                    }
                    AnyObject::Oversized(object) => self.insert_oversized(object),
                };
                differs || was_unparseable || was_oversized
            }

            /// Returns whether the object existed.
            fn remove(&mut self, id: &ObjectId) -> bool {
                let was_unparseable = self.unparseable.remove(id).is_some();
                let was_oversized = self.oversized.remove(id).is_some();
                let removed = match id.kind {
                    $(Kind::$kind => self.$table.remove(&id.key),)*
                    _ => self.unserved.remove(id).is_some(),
                };
                removed || was_unparseable || was_oversized
            }
        }
    };
}
for_each_served_kind!(store);

impl Store {
    /// Applies a batch and returns the objects that changed; an equal object does not count as changed.
    pub fn apply(&mut self, batch: Batch) -> Changes {
        let mut changes = Changes::new();
        for id in batch.removes {
            let before = self.dependencies(&id);
            self.keep_deleted_class(&id);
            if id.kind == Kind::Gateway {
                // A Gateway that is created again is another one.
                self.deleted_classes.remove(&id.key);
            }
            if self.remove(&id) {
                self.record_references(&before);
                self.index.remove(&id, &before);
                changes.insert(id);
            }
        }
        for mut object in batch.upserts {
            let id = object.id();
            self.take_accepting_controller(&mut object);
            let before = self.dependencies(&id);
            if self.insert(object) {
                let after = self.dependencies(&id);
                self.record_references(&before);
                self.record_references(&after);
                self.index.remove(&id, &before);
                self.index.insert(&id, after);
                changes.insert(id);
            }
        }
        // These decide whether objects that depend on them may use what they refer to.
        let mut dependents: Changes = BTreeSet::new();
        for id in &changes {
            match id.kind {
                Kind::GatewayClass | Kind::IngressClass | Kind::ReferenceGrant => {
                    dependents.extend(self.index.dependents(id).cloned());
                }
                Kind::Gateway | Kind::Namespace => {
                    dependents.extend(self.index.dependents_of_kind(id, Kind::ListenerSet).cloned());
                }
                _ => {}
            }
        }
        // The class of a Gateway is that of its ListenerSets.
        let gateways = dependents.iter().filter(|id| id.kind == Kind::Gateway);
        let sets = gateways.flat_map(|gateway| self.index.dependents_of_kind(gateway, Kind::ListenerSet));
        let sets: Vec<_> = sets.cloned().collect();
        for dependent in dependents.iter().chain(&sets) {
            self.record_references(&self.dependencies(dependent));
        }
        if !self.deleted_classes.is_empty() {
            self.drop_outdated_classes();
        }
        if changes.len() > self.len() / 2 {
            self.compact();
        }
        changes
    }

    /// The class of a Gateway: the existing one, or the one that was deleted while the Gateway existed.
    pub fn class_of(&self, gateway: &Object<Gateway>) -> Option<&Arc<Object<GatewayClass>>> {
        let existing = self.gateway_classes.get(&ObjectKey::cluster(&gateway.spec.gateway_class_name));
        existing.or_else(|| self.deleted_classes.get(&gateway.meta.key).map(|deleted| &deleted.class))
    }

    /// Whether the class of a Gateway was deleted, and only its controller is known.
    pub fn has_unknown_class(&self, gateway: &Object<Gateway>) -> bool {
        self.deleted_classes.get(&gateway.meta.key).is_some_and(|deleted| deleted.is_from_status)
    }

    /// Keeps the class of a new Gateway that was accepted before this process started. If the class exists, it is
    /// dropped as soon as it is in the store.
    fn take_accepting_controller(&mut self, object: &mut AnyObject) {
        let Some(gateway) = object.gateway_mut() else { return };
        // Objects that differ only in their status are equal.
        let Some(controller) = gateway.accepted_by.take() else { return };
        let class = ObjectKey::cluster(&gateway.spec.gateway_class_name);
        let key = &object.meta().key;
        if !self.gateways.contains_key(key) {
            let class = Arc::new(Object { meta: Meta::new(class), body: GatewayClass::of_controller(controller) });
            self.deleted_classes.insert(key.clone(), DeletedClass { class, is_from_status: true });
        }
    }

    /// Keeps a GatewayClass that is about to be deleted for its Gateways.
    fn keep_deleted_class(&mut self, id: &ObjectId) {
        let Some(class) = self.gateway_classes.get(&id.key).filter(|_| id.kind == Kind::GatewayClass) else { return };
        let gateways = self.index.dependents_of_kind(id, Kind::Gateway);
        let deleted = DeletedClass { class: class.clone(), is_from_status: false };
        self.deleted_classes.extend(gateways.map(|gateway| (gateway.key.clone(), deleted.clone())));
    }

    /// Drops deleted classes that exist again, and those of Gateways that were deleted or have another class.
    fn drop_outdated_classes(&mut self) {
        let Store { deleted_classes, gateway_classes, gateways, .. } = self;
        deleted_classes.retain(|key, DeletedClass { class, .. }| {
            let name = &class.meta.key.name;
            !gateway_classes.contains_key(&class.meta.key)
                && gateways.get(key).is_some_and(|gateway| *gateway.spec.gateway_class_name == **name)
        });
    }

    /// The metadata of all consumers and consumer groups, with their kinds.
    pub fn consumers_and_groups(&self) -> impl Iterator<Item = (Kind, &Meta)> {
        let consumers = self.kong_consumers.values().map(|consumer| (Kind::KongConsumer, &consumer.meta));
        consumers.chain(self.kong_consumer_groups.values().map(|group| (Kind::KongConsumerGroup, &group.meta)))
    }

    /// Whether an object belongs to an IngressClass, and is served only if the class is.
    pub fn has_class(&self, id: &ObjectId) -> bool {
        self.dependencies(id).iter().any(|dependency| match dependency {
            Dependency::DefaultClass => true,
            Dependency::Object(target) => target.kind == Kind::IngressClass,
            Dependency::GrantsIn(_) | Dependency::DefaultGateways => false,
        })
    }

    fn record_references(&mut self, dependencies: &[Dependency]) {
        let objects = dependencies.iter().filter_map(|dependency| match dependency {
            Dependency::Object(target) if target.kind.is_fetched_on_reference() => Some(target.clone()),
            Dependency::Object(_)
            | Dependency::GrantsIn(_)
            | Dependency::DefaultClass
            | Dependency::DefaultGateways => None,
        });
        self.changed_references.extend(objects);
    }

    /// The Secrets and ConfigMaps to which other objects refer than at the last call, or whose referrers changed.
    pub fn take_changed_references(&mut self) -> Changes {
        std::mem::take(&mut self.changed_references)
    }

    /// The Secrets and ConfigMaps that exist, but whose content was not fetched yet.
    pub fn unfetched(&self) -> &BTreeSet<ObjectId> {
        &self.unfetched
    }

    /// The Secrets and ConfigMaps that exist, but whose content the API server does not allow to fetch.
    pub fn forbidden(&self) -> &BTreeSet<ObjectId> {
        &self.forbidden
    }

    /// Sets `unfetched` and `forbidden`, and returns the objects for which that is a change.
    pub fn set_unfetched(&mut self, unfetched: BTreeSet<ObjectId>, forbidden: BTreeSet<ObjectId>) -> Changes {
        let unfetched_before = std::mem::replace(&mut self.unfetched, unfetched);
        let forbidden_before = std::mem::replace(&mut self.forbidden, forbidden);
        let changes = unfetched_before.symmetric_difference(&self.unfetched);
        changes.chain(forbidden_before.symmetric_difference(&self.forbidden)).cloned().collect()
    }

    /// The references of an object, without duplicates; none if it does not exist. They are computed again from the
    /// object, because storing them would take more memory than the object.
    fn dependencies(&self, id: &ObjectId) -> Vec<Dependency> {
        let mut found = self.object(id).map(|object| dependencies::dependencies(&object)).unwrap_or_default();
        if let Some(rejected) = self.unparseable.get(id) {
            // A policy also protects the targets of its rejected version.
            found.extend(dependencies::dependencies(&AnyObject::Unparseable(Arc::clone(rejected))));
            found.sort();
            found.dedup();
        }
        found
    }

    /// The objects that this object refers to.
    pub fn objects_referenced_by(&self, id: &ObjectId) -> impl Iterator<Item = ObjectId> + use<> {
        self.dependencies(id).into_iter().filter_map(|dependency| match dependency {
            Dependency::Object(target) => Some(target),
            Dependency::GrantsIn(_) | Dependency::DefaultClass | Dependency::DefaultGateways => None,
        })
    }

    /// The Service in front of which a facade is; `None` if the facade does not exist.
    pub fn service_behind_facade(&self, facade: &ObjectKey) -> Option<ObjectKey> {
        let facade = self.kong_service_facades.get(facade)?;
        Some(ObjectKey::new(&facade.meta.key.namespace, &facade.spec.backend_ref.name))
    }

    /// The Services that this object refers to.
    pub fn services_referenced_by(&self, id: &ObjectId) -> impl Iterator<Item = ObjectKey> + use<> {
        self.objects_referenced_by(id).filter(|target| target.kind == Kind::Service).map(|target| target.key)
    }

    /// The Gateways and ListenerSets that this object refers to.
    pub fn parents_referenced_by(&self, id: &ObjectId) -> impl Iterator<Item = ObjectId> + use<> {
        self.objects_referenced_by(id).filter(|target| matches!(target.kind, Kind::Gateway | Kind::ListenerSet))
    }

    /// The XBackends that this object refers to.
    pub fn x_backends_referenced_by(&self, id: &ObjectId) -> impl Iterator<Item = ObjectKey> + use<> {
        self.objects_referenced_by(id).filter(|target| target.kind == Kind::XBackend).map(|target| target.key)
    }

    /// The KongPlugins and KongClusterPlugins that this object refers to.
    pub fn plugins_referenced_by(&self, id: &ObjectId) -> impl Iterator<Item = ObjectId> + use<> {
        self.objects_referenced_by(id)
            .filter(|target| matches!(target.kind, Kind::KongPlugin | Kind::KongClusterPlugin))
    }

    /// The objects that depend on each object.
    pub fn dependency_index(&self) -> &DependencyIndex {
        &self.index
    }

    /// Whether the object was rejected, and no valid version of it is known.
    pub fn is_rejected(&self, id: &ObjectId) -> bool {
        self.unparseable.contains_key(id) && !(id.kind == Kind::BackendTlsPolicy && self.is_in_table(id))
    }

    /// The objects of a kind that were rejected, and of which no valid version is known.
    pub fn rejected_of_kind(&self, kind: Kind) -> impl Iterator<Item = &ObjectKey> {
        let rejected = self.unparseable.keys().filter(move |id| id.kind == kind && self.is_rejected(id));
        rejected.map(|id| &id.key)
    }

    /// Whether it is unknown which class a rejected object has.
    pub fn has_unreadable_class(&self, id: &ObjectId) -> bool {
        self.unparseable.get(id).is_some_and(|object| object.has_unknown_class)
    }

    /// Whether it is unknown which plugins a rejected consumer group has.
    pub fn has_unreadable_plugins(&self, id: &ObjectId) -> bool {
        self.unparseable.get(id).is_some_and(|object| object.has_unknown_plugins)
    }

    /// Returns whether the store changed.
    fn insert_oversized(&mut self, object: Arc<OversizedObject>) -> bool {
        let id = object.id();
        let rest = match &object.stored {
            Some(AnyObject::Unparseable(rest)) => Some(rest),
            _ => None,
        };
        if self.oversized.get(&id) == Some(&object) && self.unparseable.get(&id) == rest {
            return false;
        }
        self.remove(&id);
        if let Some(stored) = &object.stored {
            self.insert(stored.clone());
        }
        self.oversized.insert(id, object);
        true
    }

    /// Returns whether the store changed. The last valid version of an object stays, and only a BackendTLSPolicy may
    /// then have further targets, whose connections must not be in plain text.
    fn insert_unparseable(&mut self, object: Arc<UnparseableObject>) -> bool {
        let id = object.id();
        let (before, oversized) = (self.unparseable.get(&id), self.oversized.get(&id));
        let is_reduced = oversized.is_some_and(|oversized| !oversized.is_whole);
        if before == Some(&object) && !is_reduced {
            return false;
        }
        let is_valid = before.is_none_or(|before| before.stored.is_none()) && !is_reduced;
        if is_valid && self.is_in_table(&id) {
            // If the targets cannot be read, those of an earlier rejected version stay protected.
            let has_targets = object.targets.is_some();
            if has_targets {
                self.unparseable.insert(id, object);
            }
            return has_targets;
        }
        self.remove(&id);
        if let Some(stored) = &object.stored {
            self.insert(stored.clone());
        }
        self.unparseable.insert(id, object);
        true
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
    fn equal_objects_are_not_changes() {
        let mut store = Store::default();
        let batch = |objects: Vec<AnyObject>| Batch { upserts: objects, removes: vec![] };
        assert_eq!(store.apply(batch(vec![namespace("a", "x"), namespace("b", "x")])).len(), 2);
        assert_eq!(store.apply(batch(vec![namespace("a", "x")])).len(), 0);
        let id = ObjectId::new(Kind::Namespace, ObjectKey::cluster("a"));
        assert_eq!(store.apply(batch(vec![namespace("a", "y")])), Changes::from([id.clone()]));
        let removal =
            Batch { upserts: vec![], removes: vec![id.clone(), ObjectId::new(Kind::Gateway, id.key.clone())] };
        assert_eq!(store.apply(removal), Changes::from([id]), "removing a missing object is not a change");
        assert_eq!(store.everything().len(), 1);
    }

    #[test]
    fn dependents_follow_object_changes() {
        let consumer = |secret: &str| {
            let object = json!({"metadata": {"namespace": "a", "name": "ann"}, "credentials": [secret]});
            AnyObject::parse(Kind::KongConsumer, object).unwrap()
        };
        let secret = AnyObject::parse(Kind::Secret, json!({"metadata": {"namespace": "a", "name": "new"}})).unwrap();
        let id = |kind, name| ObjectId::new(kind, ObjectKey::new("a", name));
        let dependents = |store: &Store, name| {
            store.dependency_index().dependents(&id(Kind::Secret, name)).map(ObjectId::to_string).collect::<Vec<_>>()
        };
        let mut store = Store::default();
        store.apply(Batch { upserts: vec![consumer("old")], removes: vec![] });
        assert_eq!(dependents(&store, "old"), ["KongConsumer a/ann"]);

        store.apply(Batch { upserts: vec![consumer("new"), secret], removes: vec![] });
        assert_eq!(dependents(&store, "old"), [""; 0]);
        assert_eq!(dependents(&store, "new"), ["KongConsumer a/ann"]);
        let referenced = store.dependency_index().referenced(Kind::Secret).next().unwrap();
        let stored = store.meta(referenced).unwrap();
        assert!(Arc::ptr_eq(&referenced.key.name, &stored.key.name), "names are stored once");

        store.apply(Batch { upserts: vec![], removes: vec![id(Kind::KongConsumer, "ann")] });
        assert_eq!(dependents(&store, "new"), [""; 0]);
        assert_eq!(store.dependency_index().referenced(Kind::Secret).count(), 0);
    }

    #[test]
    fn gateways_keep_a_deleted_class_until_it_exists_again() {
        let class = |controller: &str| {
            let object = json!({"metadata": {"name": "c"}, "spec": {"controllerName": controller}});
            AnyObject::parse(Kind::GatewayClass, object).unwrap()
        };
        let gateway = |name: &str, class: &str| {
            let object = json!({"metadata": {"namespace": "a", "name": name},
                "spec": {"gatewayClassName": class, "listeners": []}});
            AnyObject::parse(Kind::Gateway, object).unwrap()
        };
        let controller = |store: &Store, name: &str| {
            let gateway = &store.gateways[&ObjectKey::new("a", name)];
            store.class_of(gateway).map(|class| class.spec.controller_name.clone())
        };
        let mut store = Store::default();
        let apply = |store: &mut Store, upserts, removes| drop(store.apply(Batch { upserts, removes }));
        apply(&mut store, vec![class("x/y"), gateway("old", "c"), gateway("moved", "c")], vec![]);
        apply(&mut store, vec![], vec![class("x/y").id()]);
        assert_eq!(controller(&store, "old").as_deref(), Some("x/y"));
        apply(&mut store, vec![gateway("new", "c"), gateway("moved", "other")], vec![]);
        assert_eq!(controller(&store, "new"), None, "it never had the class");
        assert_eq!(controller(&store, "moved"), None, "it has another class");
        apply(&mut store, vec![class("foreign/z")], vec![]);
        assert_eq!(controller(&store, "old").as_deref(), Some("foreign/z"));
        apply(&mut store, vec![], vec![class("foreign/z").id()]);
        apply(&mut store, vec![], vec![gateway("old", "c").id()]);
        let kept: Vec<_> = store.deleted_classes.keys().map(|key| key.name.to_string()).collect();
        assert_eq!(kept, ["new"]);
    }

    #[test]
    fn gateways_keep_a_class_that_was_deleted_before_the_process_started() {
        let gateway = |name: &str, accepted_by: Option<&str>| {
            let object = json!({"metadata": {"namespace": "a", "name": name},
                "spec": {"gatewayClassName": "c", "listeners": []}});
            let object = AnyObject::parse(Kind::Gateway, object).unwrap();
            let AnyObject::Gateway(mut gateway) = object else { panic!("not a Gateway") };
            Arc::make_mut(&mut gateway).body.accepted_by = accepted_by.map(str::to_owned);
            AnyObject::Gateway(gateway)
        };
        let class = json!({"metadata": {"name": "c"}, "spec": {"controllerName": "foreign/z"}});
        let class = AnyObject::parse(Kind::GatewayClass, class).unwrap();
        let controller = |store: &Store, name: &str| {
            let gateway = &store.gateways[&ObjectKey::new("a", name)];
            (store.class_of(gateway).map(|class| class.spec.controller_name.clone()), store.has_unknown_class(gateway))
        };
        let mut store = Store::default();
        let mut apply = |upserts, removes| {
            let changes = store.apply(Batch { upserts, removes });
            let of = |name: &str| controller(&store, name);
            (changes.len(), of("accepted"), of("new"))
        };
        let (ours, none) = ((Some("x/y".to_owned()), true), (None, false));
        let gateways = vec![gateway("accepted", Some("x/y")), gateway("new", None)];
        assert_eq!(apply(gateways, vec![]), (2, ours.clone(), none.clone()));
        // The status of a Gateway that is known already decides nothing, and is not a change of the Gateway.
        let written = vec![gateway("accepted", Some("x/z")), gateway("new", Some("x/y"))];
        assert_eq!(apply(written, vec![]), (0, ours, none.clone()));
        let foreign = (Some("foreign/z".to_owned()), false);
        assert_eq!(apply(vec![class.clone()], vec![]), (1, foreign.clone(), foreign.clone()), "the class exists");
        assert_eq!(apply(vec![], vec![class.id()]), (1, foreign.clone(), foreign), "the class was read");
        let again = gateway("accepted", None);
        assert_eq!(apply(vec![again.clone()], vec![again.id()]).1, none, "created again, without a status");
    }

    #[test]
    fn references_are_removed_with_the_object() {
        let service =
            json!({"metadata": {"namespace": "a", "name": "web", "annotations": {"konghq.com/plugins": "limit"}}});
        let policy = json!({"metadata": {"namespace": "a", "name": "tls"},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}]}});
        let unparseable = UnparseableObject::read(Kind::BackendTlsPolicy, &policy).unwrap();
        let service = AnyObject::parse(Kind::Service, service).unwrap();
        let (service_id, policy_id) = (service.id(), ObjectId::new(Kind::BackendTlsPolicy, ObjectKey::new("a", "tls")));
        let mut store = Store::default();
        store.apply(Batch { upserts: vec![service, AnyObject::Unparseable(Arc::new(unparseable))], removes: vec![] });
        let plugins: Vec<_> = store.plugins_referenced_by(&service_id).map(|id| id.to_string()).collect();
        assert_eq!(plugins, ["KongPlugin a/limit", "KongClusterPlugin limit"]);
        assert_eq!(store.services_referenced_by(&policy_id).collect::<Vec<_>>(), [ObjectKey::new("a", "web")]);
        assert_eq!(store.dependency_index().dependents(&service_id).collect::<Vec<_>>(), [&policy_id]);

        store.apply(Batch { upserts: vec![], removes: vec![service_id.clone(), policy_id.clone()] });
        assert_eq!(
            store.plugins_referenced_by(&service_id).count() + store.services_referenced_by(&policy_id).count(),
            0
        );
        assert_eq!(store.dependency_index().dependents(&service_id).count(), 0);
    }
}
