//! Parents of a route: does the Gateway exist, has it such a listener, and does that let the route in.
//!
//! The steps are those of Gateway API, in this order; when listeners refuse for different causes, the furthest step that
//! any of them reached is what the route is told.

use std::sync::Arc;

use super::gateway::GatewayPlan;
use super::hostname::intersects;
use super::listener::{ListenerPlan, Namespaces};
use super::verdict::{Code, Condition, Problem};
use super::{Plans, selector};
use crate::api::gateway::ParentReference;
use crate::api::kind::GATEWAY_GROUP;
use crate::api::{Kind, ObjectKey};
use crate::snapshot::host::HostPattern;
use crate::store::Store;

/// What of a route decides where it may attach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route<'a> {
    pub kind: Kind,
    pub key: &'a ObjectKey,
    pub hosts: &'a [HostPattern],
}

/// The listeners of one Gateway that took the route in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attachment {
    pub gateway: ObjectKey,
    pub listeners: Vec<Arc<str>>,
    /// Counted as attached; a route whose rules all had to be dropped is not.
    pub accepted: bool,
}

pub(super) enum Parent {
    /// Nothing to write; a note for whoever looks, unless it is simply somebody else's.
    NotOurs(Option<Problem>),
    /// There is no such Gateway, ours or anybody's.
    Missing(Problem),
    /// In the name of which controller, and what it says.
    Ours(Arc<str>, Result<Attachment, Condition>),
}

pub(super) fn parent(
    store: &Store,
    gateways: &Plans<GatewayPlan>,
    route: &Route<'_>,
    reference: &ParentReference,
    field: &str,
) -> Parent {
    if reference.group != GATEWAY_GROUP || reference.kind != Kind::Gateway.name() {
        let slash = if reference.group.is_empty() { "" } else { "/" };
        let message = format!("parents of kind {}{slash}{} are not served", reference.group, reference.kind);
        return Parent::NotOurs(Some(Problem::new(format!("{field}.kind"), message, "attach to a Gateway")));
    }
    let namespace = reference.namespace.as_deref().unwrap_or(&route.key.namespace);
    let key = ObjectKey::new(namespace, &reference.name);
    let Some(gateway) = gateways.get(&key) else {
        if store.gateways.contains_key(&key) {
            return Parent::NotOurs(None);
        }
        let message = format!("Gateway {key} does not exist");
        let remedy = "create it, or correct name and namespace";
        return Parent::Missing(Problem::new(format!("{field}.name"), message, remedy));
    };
    let outcome = listeners(store, gateway, route, reference, field);
    let outcome = outcome.map(|listeners| Attachment { gateway: key, listeners, accepted: true });
    Parent::Ours(gateway.controller.clone(), outcome)
}

fn listeners(
    store: &Store,
    gateway: &GatewayPlan,
    route: &Route<'_>,
    reference: &ParentReference,
    field: &str,
) -> Result<Vec<Arc<str>>, Condition> {
    let refused = |code: Code, part: &str, message: String, remedy: String| {
        Err(Condition::new(code, vec![Problem::new(format!("{field}{part}"), message, remedy)]))
    };
    let named: Vec<_> = gateway.listeners.iter().filter(|listener| is_named(listener, reference)).collect();
    if named.is_empty() {
        let (part, asked) = match (&reference.section_name, reference.port) {
            (Some(section), Some(port)) => (".sectionName", format!("no listener {section} on port {port}")),
            (Some(section), None) => (".sectionName", format!("no listener {section}")),
            (None, Some(port)) => (".port", format!("no listener on port {port}")),
            (None, None) => (".name", "no listener".to_owned()),
        };
        let known = gateway.listeners.iter().map(|listener| format!("{} (port {})", listener.name, listener.port));
        let known: Vec<_> = known.collect();
        let message = format!("Gateway {} has {asked}", gateway.key);
        return refused(Code::RouteNoMatchingParent, part, message, format!("use one of {}", known.join(", ")));
    }
    let allowing: Vec<_> = named.iter().filter(|listener| allows(store, gateway, listener, route)).collect();
    if allowing.is_empty() {
        let kinds = named.iter().any(|listener| supports(listener, route.kind));
        let (message, remedy) = if kinds {
            (
                format!("Gateway {} lets in no routes of namespace {}", gateway.key, route.key.namespace),
                "change allowedRoutes.namespaces of the listener, or the namespace's labels".to_owned(),
            )
        } else {
            (
                format!("no listener of Gateway {} takes routes of kind {}", gateway.key, route.kind),
                "change allowedRoutes.kinds or protocol of the listener".to_owned(),
            )
        };
        return refused(Code::RouteNotAllowedByListeners, "", message, remedy);
    }
    let matching: Vec<Arc<str>> = allowing
        .iter()
        .filter(|listener| route.hosts.iter().any(|host| intersects(host, &listener.hostname)))
        .map(|listener| listener.name.clone())
        .collect();
    if matching.is_empty() {
        let hostnames: Vec<_> = allowing.iter().map(|listener| listener.hostname.to_string()).collect();
        return Err(Condition::new(
            Code::RouteNoMatchingListenerHostname,
            vec![Problem::new(
                "spec.hostnames",
                format!("no hostname is one of Gateway {}", gateway.key),
                format!("use hostnames within {}", hostnames.join(" or ")),
            )],
        ));
    }
    Ok(matching)
}

fn is_named(listener: &ListenerPlan, reference: &ParentReference) -> bool {
    reference.section_name.as_deref().is_none_or(|section| section == &*listener.name)
        && reference.port.is_none_or(|port| port == i32::from(listener.port))
}

fn supports(listener: &ListenerPlan, kind: Kind) -> bool {
    listener.supported_kinds.iter().any(|supported| supported.group == kind.group() && supported.kind == kind.name())
}

fn allows(store: &Store, gateway: &GatewayPlan, listener: &ListenerPlan, route: &Route<'_>) -> bool {
    supports(listener, route.kind)
        && match &listener.namespaces {
            Namespaces::All => true,
            Namespaces::Same => route.key.namespace == gateway.key.namespace,
            Namespaces::Selector(wanted) => store
                .namespaces
                .get(&ObjectKey::cluster(&route.key.namespace))
                .is_some_and(|namespace| selector::matches(wanted, &namespace.meta.labels)),
        }
}
