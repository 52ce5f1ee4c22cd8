//! Selects Gateways by controller: those of this process's controllers need addresses, and may need a Service in front
//! of them; those of other controllers do not.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::gateway::gateways_by_age;
use super::{allowed_listeners, gateway_parameters, listener_set};
use crate::api::gateway::{ALL_DEFAULT_GATEWAYS, Gateway, GatewaySpec};
use crate::api::portico::GatewayServiceSettings;
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::compile::Budgets;
use crate::store::Store;
use crate::transport_protocol::TransportPort;

/// A Gateway of this controller that may need a Service in front of it.
#[derive(Clone, Debug)]
pub struct ExposedGateway<'a> {
    pub gateway: &'a Object<Gateway>,
    /// The controller name of its class.
    pub controller: &'a str,
    /// The ports of the listeners whose protocol is served, including those of ListenerSets.
    pub ports: BTreeSet<TransportPort>,
    /// The settings of its Service. `None` while they cannot be read; an existing Service then stays as it is.
    pub settings: Option<GatewayServiceSettings>,
}

/// The Gateways of these controllers, with what their Services need.
pub fn exposed_gateways<'a>(
    store: &'a Store,
    controllers: &'a [String],
    budgets: &'a Budgets,
) -> impl Iterator<Item = ExposedGateway<'a>> {
    gateways_by_age(store, controllers).into_iter().filter_map(|gateway| expose(store, gateway, budgets))
}

/// The Gateways that belong to another controller. A Gateway whose class does not exist, possibly only for a moment, is
/// not one of them.
pub fn foreign_gateways<'a>(store: &'a Store, controllers: &'a [String]) -> impl Iterator<Item = &'a ObjectKey> {
    let is_foreign = |gateway: &&Arc<Object<Gateway>>| {
        let class = store.class_of(gateway);
        class.is_some_and(|class| !controllers.contains(&class.spec.controller_name))
    };
    store.gateways.values().filter(is_foreign).map(|gateway| &gateway.meta.key)
}

/// The Gateways of these controllers, which need addresses, oldest first.
pub fn addressable_gateways<'a>(
    store: &'a Store,
    controllers: &'a [String],
) -> impl Iterator<Item = (&'a ObjectKey, &'a GatewaySpec)> + Clone {
    gateways_by_age(store, controllers).into_iter().map(|gateway| (&gateway.meta.key, &gateway.spec))
}

/// A test of routes: whether a route refers to a Gateway of these controllers or to one of its ListenerSets, or is for
/// default Gateways of these controllers. It may be that nothing allows the route to attach.
pub fn routes_to_gateways<'a>(store: &'a Store, controllers: &'a [String]) -> impl Fn(&ObjectId) -> bool {
    let gateways = gateways_by_age(store, controllers);
    let has_default =
        gateways.iter().any(|gateway| gateway.spec.default_scope.as_deref() == Some(ALL_DEFAULT_GATEWAYS));
    let for_defaults = store.dependency_index().users_of_default_gateways().filter(|_| has_default);
    let for_defaults: BTreeSet<&ObjectId> = for_defaults.collect();
    let gateways: BTreeSet<&ObjectKey> = gateways.into_iter().map(|gateway| &gateway.meta.key).collect();
    move |route| {
        let mut named = store.parents_referenced_by(route).filter_map(|parent| match parent.kind {
            Kind::ListenerSet => store.listener_sets.get(&parent.key).and_then(|set| listener_set::gateway_key(set)),
            _ => Some(parent.key),
        });
        for_defaults.contains(route) || named.any(|gateway| gateways.contains(&gateway))
    }
}

/// What the Service in front of a Gateway depends on. `None` if the class does not exist.
fn expose<'a>(store: &'a Store, gateway: &'a Object<Gateway>, budgets: &Budgets) -> Option<ExposedGateway<'a>> {
    let class = store.class_of(gateway)?;
    let ports = allowed_listeners::wanted_ports(store, gateway, budgets);
    let settings = gateway_parameters::service_settings(store, gateway);
    Some(ExposedGateway { gateway, controller: &class.spec.controller_name, ports, settings })
}
