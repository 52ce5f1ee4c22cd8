//! What the sources say: every object, typed and slimmed, by its key. One writer, the control loop.
//!
//! ```text
//!   manifests, API server ──Batch──▶ Store ──Changes──▶ compile
//!                                      └ refs.rs: who mentions whom
//! ```

mod object;
mod refs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use object::{AnyObject, Guard, Malformed};
pub use refs::{Mention, Refs};

use crate::api::core::{ConfigMap, EndpointSlice, Namespace, Secret, Service};
use crate::api::gateway::{BackendTlsPolicy, Gateway, GatewayClass, HttpRoute, ReferenceGrant};
use crate::api::{Meta, Object, ObjectId, ObjectKey};

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

/// Everything the sources said, joined.
#[derive(Debug, Default)]
pub struct Store {
    pub gateway_classes: Table<GatewayClass>,
    pub gateways: Table<Gateway>,
    pub http_routes: Table<HttpRoute>,
    pub backend_tls_policies: Table<BackendTlsPolicy>,
    /// Policies that cannot be read. None of them is in `backend_tls_policies` as well.
    pub guards: BTreeMap<ObjectKey, Arc<Guard>>,
    pub reference_grants: Table<ReferenceGrant>,
    pub services: Table<Service>,
    pub endpoint_slices: Table<EndpointSlice>,
    pub secrets: Table<Secret>,
    pub config_maps: Table<ConfigMap>,
    pub namespaces: Table<Namespace>,
    /// Kinds that are checked but not served, by their metadata.
    pub unserved: BTreeMap<ObjectId, Arc<Meta>>,
    refs: Refs,
}

impl Store {
    /// Takes a batch over and says what really changed: an object that says the same as before did not.
    pub fn apply(&mut self, batch: Batch) -> Changes {
        let mut changes = Changes::new();
        for id in batch.removes {
            if self.remove(&id) {
                self.refs.remove(&id);
                changes.insert(id);
            }
        }
        for object in batch.upserts {
            let id = object.id();
            let mentions = refs::mentions(&object);
            if self.insert(object) {
                self.refs.insert(&id, mentions);
                changes.insert(id);
            }
        }
        changes
    }

    /// Every object there is, as if all had just changed: what a compile from scratch starts with.
    pub fn everything(&self) -> Changes {
        fn ids<T: crate::api::Resource>(table: &Table<T>) -> impl Iterator<Item = ObjectId> + '_ {
            table.keys().map(|key| ObjectId::new(T::KIND, key.clone()))
        }
        ids(&self.gateway_classes)
            .chain(ids(&self.gateways))
            .chain(ids(&self.http_routes))
            .chain(ids(&self.backend_tls_policies))
            .chain(self.guards.keys().map(|key| ObjectId::new(crate::api::Kind::BackendTlsPolicy, key.clone())))
            .chain(ids(&self.reference_grants))
            .chain(ids(&self.services))
            .chain(ids(&self.endpoint_slices))
            .chain(ids(&self.secrets))
            .chain(ids(&self.config_maps))
            .chain(ids(&self.namespaces))
            .chain(self.unserved.keys().cloned())
            .collect()
    }

    /// Who mentions what.
    pub fn refs(&self) -> &Refs {
        &self.refs
    }

    /// The metadata of an object of any kind.
    pub fn meta(&self, id: &ObjectId) -> Option<&Meta> {
        use crate::api::Kind;
        match id.kind {
            Kind::GatewayClass => self.gateway_classes.get(&id.key).map(|object| &object.meta),
            Kind::Gateway => self.gateways.get(&id.key).map(|object| &object.meta),
            Kind::HttpRoute => self.http_routes.get(&id.key).map(|object| &object.meta),
            Kind::BackendTlsPolicy => {
                let guard = self.guards.get(&id.key).map(|guard| &guard.meta);
                self.backend_tls_policies.get(&id.key).map(|object| &object.meta).or(guard)
            }
            Kind::ReferenceGrant => self.reference_grants.get(&id.key).map(|object| &object.meta),
            Kind::Service => self.services.get(&id.key).map(|object| &object.meta),
            Kind::EndpointSlice => self.endpoint_slices.get(&id.key).map(|object| &object.meta),
            Kind::Secret => self.secrets.get(&id.key).map(|object| &object.meta),
            Kind::ConfigMap => self.config_maps.get(&id.key).map(|object| &object.meta),
            Kind::Namespace => self.namespaces.get(&id.key).map(|object| &object.meta),
            _ => self.unserved.get(id).map(|meta| &**meta),
        }
    }

    fn insert(&mut self, object: AnyObject) -> bool {
        fn put<T: PartialEq>(table: &mut Table<T>, object: Arc<Object<T>>) -> bool {
            let same = table.get(&object.meta.key).is_some_and(|known| known == &object);
            if !same {
                table.insert(object.meta.key.clone(), object);
            }
            !same
        }
        match object {
            AnyObject::GatewayClass(object) => put(&mut self.gateway_classes, object),
            AnyObject::Gateway(object) => put(&mut self.gateways, object),
            AnyObject::HttpRoute(object) => put(&mut self.http_routes, object),
            AnyObject::BackendTlsPolicy(object) => {
                let mended = self.guards.remove(&object.meta.key).is_some();
                put(&mut self.backend_tls_policies, object) || mended
            }
            // The last good version says at least what it was about.
            AnyObject::Guard(guard)
                if guard.targets.is_none() && self.backend_tls_policies.contains_key(&guard.meta.key) =>
            {
                false
            }
            AnyObject::Guard(guard) => {
                self.backend_tls_policies.remove(&guard.meta.key);
                self.guards.insert(guard.meta.key.clone(), guard.clone()).as_ref() != Some(&guard)
            }
            AnyObject::ReferenceGrant(object) => put(&mut self.reference_grants, object),
            AnyObject::Service(object) => put(&mut self.services, object),
            AnyObject::EndpointSlice(object) => put(&mut self.endpoint_slices, object),
            AnyObject::Secret(object) => put(&mut self.secrets, object),
            AnyObject::ConfigMap(object) => put(&mut self.config_maps, object),
            AnyObject::Namespace(object) => put(&mut self.namespaces, object),
            AnyObject::Unserved(kind, meta) => {
                let id = ObjectId::new(kind, meta.key.clone());
                let same = self.unserved.get(&id) == Some(&meta);
                self.unserved.insert(id, meta);
                !same
            }
        }
    }

    fn remove(&mut self, id: &ObjectId) -> bool {
        use crate::api::Kind;
        match id.kind {
            Kind::GatewayClass => self.gateway_classes.remove(&id.key).is_some(),
            Kind::Gateway => self.gateways.remove(&id.key).is_some(),
            Kind::HttpRoute => self.http_routes.remove(&id.key).is_some(),
            Kind::BackendTlsPolicy => {
                let guard = self.guards.remove(&id.key).is_some();
                self.backend_tls_policies.remove(&id.key).is_some() || guard
            }
            Kind::ReferenceGrant => self.reference_grants.remove(&id.key).is_some(),
            Kind::Service => self.services.remove(&id.key).is_some(),
            Kind::EndpointSlice => self.endpoint_slices.remove(&id.key).is_some(),
            Kind::Secret => self.secrets.remove(&id.key).is_some(),
            Kind::ConfigMap => self.config_maps.remove(&id.key).is_some(),
            Kind::Namespace => self.namespaces.remove(&id.key).is_some(),
            _ => self.unserved.remove(id).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Kind;
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
}
