//! Collects the references of each kind of object, which are its dependencies.
//!
//! ```text
//!   mod.rs          each served kind has an implementation of `HasReferences`; what is stored instead of an object
//!   collector.rs    the collector, with the references that several kinds have
//!   gateways.rs     GatewayClass, Gateway, ListenerSet
//!   routes.rs       the routes of Gateways
//!   ingresses.rs    Ingress, IngressClass, TCPIngress, UDPIngress
//!   services.rs     Service, KongServiceFacade, EndpointSlice, XBackend
//!   policies.rs     BackendPolicy, BackendTLSPolicy, XBackendTrafficPolicy
//!   plugins.rs      KongPlugin, KongClusterPlugin, and the kinds that plugins read
//! ```

mod collector;
mod gateways;
mod ingresses;
mod plugins;
mod policies;
mod routes;
mod services;
#[cfg(test)]
mod tests;

use super::{AnyObject, Dependency};
use crate::api::Meta;
use crate::api::core::{ClusterTrustBundle, ConfigMap, Namespace, Secret};
use crate::api::gateway::ReferenceGrant;
use crate::api::kind::for_each_served_kind;
use crate::api::kong::{IngressClassParameters, KongIngress, KongLicense, KongUpstreamPolicy};
use crate::api::portico::GatewayParameters;
use collector::{DependencyCollector, HasReferences};

/// All references that affect the meaning of an object, without duplicates.
pub(super) fn dependencies(object: &AnyObject) -> Vec<Dependency> {
    let mut collector = DependencyCollector::new(object.meta());
    add_references(object, &mut collector);
    collector.finish()
}

macro_rules! add_references {
    ($($module:ident::$kind:ident in $table:ident,)*) => {
        fn add_references(object: &AnyObject, collector: &mut DependencyCollector) {
            match object {
                $(AnyObject::$kind(object) => object.body.add_references(&object.meta, collector),)*
                AnyObject::Oversized(object) => add_stored(object.stored.as_ref(), collector),
                AnyObject::Unparseable(object) => {
                    for target in object.targets.iter().flatten() {
                        collector.add_target_service(&target.group, &target.kind, &target.name);
                    }
                    add_stored(object.stored.as_ref(), collector);
                }
                AnyObject::Unserved(object) => {
                    for named in &object.targets {
                        collector.add(Dependency::Object(named.target.clone()));
                    }
                }
            }
        }
    };
}
for_each_served_kind!(add_references);

/// The references of what is stored instead of an object.
fn add_stored(stored: Option<&AnyObject>, collector: &mut DependencyCollector) {
    if let Some(stored) = stored {
        add_references(stored, collector);
    }
}

macro_rules! without_references {
    ($($kind:ident)*) => {
        $(impl HasReferences for $kind {
            fn add_references(&self, _: &Meta, _: &mut DependencyCollector) {}
        })*
    };
}
without_references! {
    ClusterTrustBundle ConfigMap GatewayParameters IngressClassParameters KongIngress KongLicense KongUpstreamPolicy
    Namespace ReferenceGrant Secret
}
