//! ReferenceGrants that let the consumers of other namespaces use routes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::gateway::ReferenceGrantFrom;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::compile::affected::keys_of_kind;
use crate::compile::objects::reference_grants::granted_namespaces;
use crate::plugin_api::chain::ConsumerScope;
use crate::store::{Changes, Store};

/// Whose consumers may use a route: those of its own namespace, and those that ReferenceGrants permit.
pub(super) fn scope(store: &Store, kind: Kind, route: &ObjectKey) -> ConsumerScope {
    let granted: BTreeSet<_> = granted_namespaces(store, Kind::KongConsumer, kind, route).into_iter().collect();
    ConsumerScope::Namespace(granted.into_iter().map(Arc::from).collect())
}

/// Whether a ReferenceGrant in a namespace lets consumers of another one use some of its routes.
pub(super) fn permits_some(store: &Store, namespace: &Arc<str>, of: &str) -> bool {
    let namespace_start = ObjectKey { namespace: Arc::clone(namespace), name: "".into() };
    let grants = store.reference_grants.starting_at(&namespace_start);
    let mut of_namespace = grants.take_while(|grant| grant.meta.key.namespace == *namespace);
    of_namespace.any(|grant| grant.spec.from.iter().any(|from| is_for_consumers(from) && from.namespace == of))
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
