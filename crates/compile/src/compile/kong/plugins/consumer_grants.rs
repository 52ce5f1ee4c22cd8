//! ReferenceGrants that let the consumers of other namespaces use routes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::gateway::{ReferenceGrantFrom, ReferenceGrantTo};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::compile::affected::keys_of_kind;
use crate::compile::objects::reference_grants::granted_namespaces;
use crate::plugin_chain::chain::ConsumerScope;
use crate::store::{Changes, Store};

/// Whose consumers may use a rule: those that the namespaces of all these objects admit, of which each admits its own
/// and those that ReferenceGrants permit. They are the route, and the Services whose plugins decide by consumers: the
/// owner of a route cannot pass the guard of a Service as a consumer of its own.
pub(super) fn scope<'o>(store: &Store, objects: impl IntoIterator<Item = (Kind, &'o ObjectKey)>) -> ConsumerScope {
    let admitted = objects.into_iter().map(|(kind, key)| -> BTreeSet<&str> {
        let granted = granted_namespaces(store, Kind::KongConsumer, kind, key);
        granted.chain([&*key.namespace]).collect()
    });
    let admitted = admitted.reduce(|some, others| some.intersection(&others).copied().collect());
    ConsumerScope::Namespaces(admitted.into_iter().flatten().map(Arc::from).collect())
}

/// Whether a ReferenceGrant in a namespace lets consumers of another one use some of its routes.
pub(super) fn permits_some(store: &Store, namespace: &Arc<str>, of: &str) -> bool {
    let namespace_start = ObjectKey { namespace: Arc::clone(namespace), name: "".into() };
    let grants = store.reference_grants.starting_at(&namespace_start);
    let mut of_namespace = grants.take_while(|grant| grant.meta.key.namespace == *namespace);
    of_namespace.any(|grant| {
        grant.spec.to.iter().any(is_route)
            && grant.spec.from.iter().any(|from| is_for_consumers(from) && from.namespace == of)
    })
}

fn is_route(to: &ReferenceGrantTo) -> bool {
    let routes = [Kind::HttpRoute, Kind::GrpcRoute, Kind::Ingress];
    routes.iter().any(|kind| to.group == kind.group() && to.kind == kind.name())
}

fn is_for_consumers(from: &ReferenceGrantFrom) -> bool {
    from.group == Kind::KongConsumer.group() && from.kind == Kind::KongConsumer.name()
}

/// The ReferenceGrants for consumers.
#[derive(Debug, Default)]
pub(super) struct ConsumerGrants(BTreeSet<ObjectKey>);

impl ConsumerGrants {
    /// Reads the touched grants again. Returns the routes whose consumers may have changed.
    pub(super) fn update(&mut self, store: &Store, touched: &Changes) -> Vec<ObjectId> {
        let mut namespaces = BTreeSet::new();
        for key in keys_of_kind(touched, Kind::ReferenceGrant) {
            let froms = store.reference_grants.get(key).map_or(&[][..], |grant| &grant.spec.from);
            let is_concerned = froms.iter().any(is_for_consumers);
            let was_concerned = match is_concerned {
                true => !self.0.insert(key.clone()),
                false => self.0.remove(key),
            };
            if is_concerned || was_concerned {
                namespaces.insert(&key.namespace);
            }
        }
        if namespaces.is_empty() {
            return Vec::new();
        }
        let http = store.http_routes.keys().map(|key| (Kind::HttpRoute, key));
        let grpc = store.grpc_routes.keys().map(|key| (Kind::GrpcRoute, key));
        let ingresses = store.ingresses.keys().map(|key| (Kind::Ingress, key));
        let concerned = http.chain(grpc).chain(ingresses).filter(|(_, key)| namespaces.contains(&key.namespace));
        concerned.map(|(kind, key)| ObjectId::new(kind, key.clone())).collect()
    }
}
