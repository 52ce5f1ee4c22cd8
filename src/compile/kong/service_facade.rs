//! KongServiceFacades: names in front of Services, with annotations of their own (docs/kong-compatibility.md, 1.14).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::{Kind, Meta, ObjectId, ObjectKey};
use crate::compile::affected::keys_of_kind;
use crate::store::{Changes, Store};
use crate::upstream::UpstreamKey;

/// The metadata of the facade that an upstream uses instead of its Service.
pub(super) fn of_upstream<'s>(store: &'s Store, upstream: &UpstreamKey) -> Option<&'s Meta> {
    let id = id(upstream, upstream.facade.as_ref()?);
    store.kong_service_facades.get(&id.key).map(|facade| &facade.meta)
}

/// The identity of the facade with this name, in the namespace of an upstream.
pub(in crate::compile) fn id(upstream: &UpstreamKey, name: &Arc<str>) -> ObjectId {
    ObjectId::new(Kind::KongServiceFacade, ObjectKey { namespace: upstream.namespace.clone(), name: name.clone() })
}

/// The Service behind a facade; `None` if the object is not a facade or does not exist.
pub(in crate::compile) fn service(store: &Store, id: &ObjectId) -> Option<ObjectKey> {
    if id.kind != Kind::KongServiceFacade {
        return None;
    }
    let facade = store.kong_service_facades.get(&id.key)?;
    Some(ObjectKey::new(&id.key.namespace, &facade.spec.backend_ref.name))
}

/// The Services behind the changed facades, whose annotations may select another load-balancing algorithm.
pub(in crate::compile) fn services_of_changed(store: &Store, changes: &Changes) -> BTreeSet<ObjectKey> {
    let facades = keys_of_kind(changes, Kind::KongServiceFacade);
    facades.filter_map(|key| service(store, &ObjectId::new(Kind::KongServiceFacade, key.clone()))).collect()
}
