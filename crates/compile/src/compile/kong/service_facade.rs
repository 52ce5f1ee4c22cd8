//! KongServiceFacades: names in front of Services, with annotations of their own (docs/kong-compatibility.md, 1.14).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::kind::KONG_INCUBATOR_GROUP;
use crate::api::networking::IngressResource;
use crate::api::{Kind, Meta, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::affected::keys_of_kind;
use crate::diagnostic::Diagnostic;
use crate::store::{Changes, Store};
use crate::upstream::UpstreamKey;

/// What a facade leads to.
pub(in crate::compile) struct Facade<'s> {
    pub service: ObjectKey,
    /// The number or name of the port.
    pub port: String,
    /// The facade itself, whose annotations apply instead of those of the Service.
    pub settings_source: (Kind, &'s Meta),
}

/// Whether a backend of an Ingress is a facade.
pub(in crate::compile) fn is_facade(resource: &IngressResource) -> bool {
    resource.api_group.as_deref() == Some(KONG_INCUBATOR_GROUP) && resource.kind == Kind::KongServiceFacade.name()
}

/// The facade to which an Ingress refers at `field`.
pub(in crate::compile) fn find<'s>(
    cx: CompileContext<'s>,
    key: &ObjectKey,
    field: &str,
) -> Result<Facade<'s>, Diagnostic> {
    let name = format!("{} {key}", Kind::KongServiceFacade);
    match cx.store.kong_service_facades.get(key) {
        Some(facade) if cx.inputs.classes.serves_object(cx.store, &facade.meta, None) => {
            let backend_ref = &facade.spec.backend_ref;
            Ok(Facade {
                service: ObjectKey::new(&key.namespace, &backend_ref.name),
                port: backend_ref.port.to_string(),
                settings_source: (Kind::KongServiceFacade, &facade.meta),
            })
        }
        Some(_) => {
            let remedy = "set its annotation kubernetes.io/ingress.class to the class of the Ingress";
            Err(Diagnostic::error(field, format!("{name} does not have a class that Portico serves"), remedy))
        }
        None => Err(Diagnostic::not_found(field, name, "create it or correct the name")),
    }
}

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
