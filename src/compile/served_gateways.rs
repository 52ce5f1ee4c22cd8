//! Selects Gateways by controller: those of this process's controllers need addresses, and may need a Service in front
//! of them; those of other controllers do not.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::gateway::gateways_by_age;
use super::{Budgets, allowed_listeners, gateway_parameters};
use crate::api::gateway::{Gateway, GatewaySpec};
use crate::api::portico::GatewayServiceSettings;
use crate::api::{Object, ObjectKey};
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

/// What the Service in front of a Gateway depends on. `None` if the class does not exist.
fn expose<'a>(store: &'a Store, gateway: &'a Object<Gateway>, budgets: &Budgets) -> Option<ExposedGateway<'a>> {
    let class = store.class_of(gateway)?;
    let ports = allowed_listeners::wanted_ports(store, gateway, budgets);
    let settings = gateway_parameters::service_settings(store, gateway);
    Some(ExposedGateway { gateway, controller: &class.spec.controller_name, ports, settings })
}
