//! The ListenerSets of a Gateway, and the ports of its listeners.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::listener_protocol::port;
use crate::api::gateway::{Gateway, ListenerSet};
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::compile::Budgets;
use crate::compile::objects::label_selector;
use crate::diagnostic::Diagnostic;
use crate::store::Store;
use crate::transport_protocol::TransportPort;

/// The ListenerSets that refer to a Gateway, oldest first, then by namespace and name. The earlier one wins a conflict.
pub(in crate::compile) fn sets_by_age<'a>(store: &'a Store, gateway: &ObjectKey) -> Vec<&'a Arc<Object<ListenerSet>>> {
    let mut sets: Vec<_> = sets_in_any_order(store, gateway).collect();
    sets.sort_by(|a, b| (a.meta.created, &a.meta.key).cmp(&(b.meta.created, &b.meta.key)));
    sets
}

fn sets_in_any_order<'a>(
    store: &'a Store,
    gateway: &ObjectKey,
) -> impl Iterator<Item = &'a Arc<Object<ListenerSet>>> + use<'a> {
    let id = ObjectId::new(Kind::Gateway, gateway.clone());
    let referrers = store.dependency_index().dependents_of_kind(&id, Kind::ListenerSet);
    referrers.filter_map(|set| store.listener_sets.get(&set.key))
}

/// Whether a Gateway allows the ListenerSets of a namespace. Without `allowedListeners`, it allows none.
pub(in crate::compile) fn allows_namespace(store: &Store, gateway: &Object<Gateway>, namespace: &str) -> bool {
    let allowed = gateway.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let Some(allowed) = allowed else { return false };
    match allowed.from.as_deref() {
        Some("All") => true,
        Some("Same") => *gateway.meta.key.namespace == *namespace,
        // As in Kubernetes, a missing selector matches nothing, and an empty one everything.
        Some("Selector") => allowed.selector.as_ref().is_some_and(|selector| {
            let namespace = store.namespaces.get(&ObjectKey::cluster(namespace));
            namespace.is_some_and(|namespace| label_selector::matches(selector, &namespace.meta.labels))
        }),
        _ => false,
    }
}

/// A remark on a value that is not supported, with which fewer ListenerSets are allowed.
pub(in crate::compile) fn remark(gateway: &Gateway) -> Option<Diagnostic> {
    let allowed = gateway.spec.allowed_listeners.as_ref()?.namespaces.as_ref()?;
    let field = "spec.allowedListeners.namespaces";
    match allowed.from.as_deref() {
        None | Some("All" | "Same" | "None") => None,
        Some("Selector") => {
            let expressions = allowed.selector.iter().flat_map(|selector| &selector.match_expressions);
            let unknown = expressions.map(|expression| &expression.operator).enumerate();
            let (index, operator) = unknown.into_iter().find(|(_, name)| !label_selector::is_known_operator(name))?;
            let field = format!("{field}.selector.matchExpressions[{index}].operator");
            let message = format!("{operator} is not an operator of a label selector, so no ListenerSet is allowed");
            Some(Diagnostic::error(field, message, "use In, NotIn, Exists or DoesNotExist"))
        }
        Some(other) => {
            let message = format!("{other} is not a supported value, so no ListenerSet is allowed");
            Some(Diagnostic::error(format!("{field}.from"), message, "use All, Same, Selector or None"))
        }
    }
}

/// The ports of the listeners that a Gateway itself declares, as far as their protocol is served.
pub(in crate::compile) fn own_ports(gateway: &Gateway) -> BTreeSet<TransportPort> {
    gateway.spec.listeners.iter().filter_map(port).collect()
}

/// The ports of the listeners of a Gateway and of its ListenerSets, as far as their protocol is served.
/// ListenerSets add ports up to the limit of `budgets`.
pub(in crate::compile) fn wanted_ports(
    store: &Store,
    gateway: &Object<Gateway>,
    budgets: &Budgets,
) -> BTreeSet<TransportPort> {
    let is_allowed = |set: &&Arc<Object<ListenerSet>>| allows_namespace(store, gateway, &set.meta.key.namespace);
    let own = own_ports(gateway);
    let mut all = own.clone();
    let sets = sets_in_any_order(store, &gateway.meta.key).filter(is_allowed);
    all.extend(sets.flat_map(|set| &set.spec.listeners).filter_map(port));
    if all.len() <= budgets.gateway_ports {
        return all;
    }
    // Only if there are too many does their order matter, in which there may be thousands of ListenerSets.
    let mut ports = own;
    let sets = sets_by_age(store, &gateway.meta.key).into_iter().filter(is_allowed);
    for port in sets.flat_map(|set| &set.spec.listeners).filter_map(port) {
        if ports.len() < budgets.gateway_ports {
            ports.insert(port);
        }
    }
    ports
}
