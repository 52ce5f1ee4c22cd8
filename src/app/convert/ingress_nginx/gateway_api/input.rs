//! What decides about the manifests of the Gateway API, and what stands in the way of a host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::core::Service;
use crate::api::networking::Ingress;
use crate::api::{Kind, Object, ObjectKey};
use crate::report::migration::MigratedIngress;
use crate::store::Store;

/// What decides about the manifests.
pub(in super::super) struct GatewayApiInput<'a> {
    /// All Ingresses of ingress-nginx.
    pub(in super::super) ingresses: &'a [Arc<Object<Ingress>>],
    pub(in super::super) verdicts: &'a [MigratedIngress],
    /// The keys of the ConfigMap of ingress-nginx.
    pub(in super::super) config: &'a BTreeMap<String, Arc<str>>,
    /// The hosts of Ingresses of other classes, and one of these for each.
    pub(in super::super) of_others: BTreeMap<String, String>,
    /// Whether a Service gets the requests that no path has.
    pub(in super::super) has_default_backend: bool,
    /// The namespaces with policies that may act on a Service.
    pub(in super::super) with_policies: BTreeSet<String>,
    /// The namespaces and names of HTTPRoutes.
    pub(in super::super) routes: BTreeSet<String>,
    pub(in super::super) service: &'a dyn Fn(&ObjectKey) -> Option<Arc<Object<Service>>>,
}

impl GatewayApiInput<'_> {
    /// The namespaces of policies, and the routes, of the input.
    pub(in super::super) fn others(store: &Store) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut with_policies, mut routes) = (BTreeSet::new(), BTreeSet::new());
        for object in store.objects() {
            let key = &object.meta().key;
            match object.id().kind {
                Kind::HttpRoute => drop(routes.insert(key.to_string())),
                kind if POLICIES.contains(&kind) => drop(with_policies.insert(key.namespace.to_string())),
                _ => {}
            }
        }
        (with_policies, routes)
    }
}

/// What stands in the way of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// Namespace and name of the Ingress.
    pub(super) object: String,
    /// The annotation, or another field.
    pub(super) field: String,
    pub(super) reason: String,
    /// An example of a request that would get another response.
    pub(super) request: String,
    pub(super) remedy: String,
}

/// Kinds whose objects act on Services, or on routes, of their namespace.
const POLICIES: [Kind; 4] =
    [Kind::BackendPolicy, Kind::BackendTlsPolicy, Kind::KongUpstreamPolicy, Kind::XBackendTrafficPolicy];
