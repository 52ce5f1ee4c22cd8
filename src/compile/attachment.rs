//! Attaches a route to its parents: whether the Gateway exists, has a matching listener, and allows the route.
//!
//! The checks run in the order that Gateway API specifies. If listeners reject the route for different reasons, the
//! condition reports the latest of the failed checks.

use std::sync::Arc;

use super::gateway::GatewayPlan;
use super::hostname::intersects;
use super::listener::{ListenerId, ListenerPlan, Namespaces};
use super::verdict::{Code, Condition};
use super::{PlanMap, label_selector};
use crate::api::gateway::ParentReference;
use crate::api::kind::GATEWAY_GROUP;
use crate::api::{Kind, ObjectKey};
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::host::HostPattern;
use crate::store::Store;

/// The properties of a route that determine where it may attach.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteOrigin<'a> {
    pub kind: Kind,
    pub key: &'a ObjectKey,
    pub hosts: &'a [HostPattern],
}

/// The listeners of one Gateway that accept the route.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attachment {
    pub gateway: ObjectKey,
    pub listeners: Vec<ListenerId>,
    /// Whether the route counts as attached; false if all of its rules were dropped.
    pub is_counted: bool,
}

pub(super) enum ParentResult {
    /// This controller does not serve the parent. There is no note if it is a Gateway of another controller.
    NotServed(Option<Diagnostic>),
    /// The Gateway does not exist.
    Missing(Diagnostic),
    /// The name of the controller that reports the result, and the result: an attachment, or an Accepted condition with
    /// status False.
    Served(Arc<str>, Result<Attachment, Condition>),
}

/// Resolves the parent reference in `field` of the route, and attaches the route to that parent.
pub(super) fn resolve_parent(
    store: &Store,
    gateways: &PlanMap<GatewayPlan>,
    route: &RouteOrigin<'_>,
    reference: &ParentReference,
    field: &str,
) -> ParentResult {
    if reference.group != GATEWAY_GROUP || reference.kind != Kind::Gateway.name() {
        let slash = if reference.group.is_empty() { "" } else { "/" };
        let message = format!("parents of kind {}{slash}{} are not served", reference.group, reference.kind);
        return ParentResult::NotServed(Some(Diagnostic::warning(
            format!("{field}.kind"),
            message,
            "attach to a Gateway",
        )));
    }
    let key = parent_key(route.key, reference);
    let Some(gateway) = gateways.get(&key) else {
        if store.gateways.contains_key(&key) {
            return ParentResult::NotServed(None);
        }
        let remedy = "create it, or correct name and namespace";
        let missing = Diagnostic::not_found(format!("{field}.name"), format!("Gateway {key}"), remedy);
        return ParentResult::Missing(missing.into_warning().with_topic(Topic::MissingParent));
    };
    let outcome = matching_listeners(store, gateway, route, reference, field);
    let outcome = outcome.map(|listeners| Attachment { gateway: key, listeners, is_counted: true });
    ParentResult::Served(gateway.controller.clone(), outcome)
}

/// The Gateway to which a parent reference of the route refers.
pub(super) fn parent_key(route: &ObjectKey, reference: &ParentReference) -> ObjectKey {
    ObjectKey::new(reference.namespace.as_deref().unwrap_or(&route.namespace), &reference.name)
}

fn matching_listeners(
    store: &Store,
    gateway: &GatewayPlan,
    route: &RouteOrigin<'_>,
    reference: &ParentReference,
    field: &str,
) -> Result<Vec<ListenerId>, Condition> {
    let reject = |code: Code, subfield: &str, message: String, remedy: String| {
        Err(Condition::new(code, vec![Diagnostic::error(format!("{field}{subfield}"), message, remedy)]))
    };
    let referenced: Vec<_> = gateway.listeners.iter().filter(|listener| is_referenced(listener, reference)).collect();
    if referenced.is_empty() {
        let (subfield, lack) = match (&reference.section_name, reference.port) {
            (Some(section), Some(port)) => (".sectionName", format!("no listener {section} on port {port}")),
            (Some(section), None) => (".sectionName", format!("no listener {section}")),
            (None, Some(port)) => (".port", format!("no listener on port {port}")),
            (None, None) => (".name", "no listener".to_owned()),
        };
        let available =
            gateway.listeners.iter().map(|listener| format!("{} (port {})", listener.id.name, listener.port));
        let available: Vec<_> = available.collect();
        let message = format!("Gateway {} has {lack}", gateway.key);
        return reject(Code::RouteNoMatchingParent, subfield, message, format!("use one of {}", available.join(", ")));
    }
    let allowing: Vec<_> = referenced.iter().filter(|listener| allows_route(store, gateway, listener, route)).collect();
    if allowing.is_empty() {
        let is_kind_supported = referenced.iter().any(|listener| supports_kind(listener, route.kind));
        let (message, remedy) = if is_kind_supported {
            (
                format!("Gateway {} does not allow routes of namespace {}", gateway.key, route.key.namespace),
                "change allowedRoutes.namespaces of the listener, or the namespace's labels".to_owned(),
            )
        } else {
            (
                format!("no listener of Gateway {} supports routes of kind {}", gateway.key, route.kind),
                "change allowedRoutes.kinds or protocol of the listener".to_owned(),
            )
        };
        return reject(Code::RouteNotAllowedByListeners, "", message, remedy);
    }
    let matching: Vec<_> = allowing
        .iter()
        .filter(|listener| route.hosts.iter().any(|host| intersects(host, &listener.hostname)))
        .map(|listener| listener.id.clone())
        .collect();
    if matching.is_empty() {
        let hostnames: Vec<_> = allowing.iter().map(|listener| listener.hostname.to_string()).collect();
        return Err(Condition::new(
            Code::RouteNoMatchingListenerHostname,
            vec![Diagnostic::error(
                "spec.hostnames",
                format!("no hostname intersects a listener hostname of Gateway {}", gateway.key),
                format!("use hostnames within {}", hostnames.join(" or ")),
            )],
        ));
    }
    Ok(matching)
}

fn is_referenced(listener: &ListenerPlan, reference: &ParentReference) -> bool {
    reference.section_name.as_deref().is_none_or(|section| section == &*listener.id.name)
        && reference.port.is_none_or(|port| port == i32::from(listener.port))
}

fn supports_kind(listener: &ListenerPlan, kind: Kind) -> bool {
    listener.supported_kinds.iter().any(|supported| supported.group == kind.group() && supported.kind == kind.name())
}

fn allows_route(store: &Store, gateway: &GatewayPlan, listener: &ListenerPlan, route: &RouteOrigin<'_>) -> bool {
    supports_kind(listener, route.kind)
        && match &listener.namespaces {
            Namespaces::All => true,
            Namespaces::None => false,
            Namespaces::Same => route.key.namespace == gateway.key.namespace,
            Namespaces::Selector(selector) => store
                .namespaces
                .get(&ObjectKey::cluster(&route.key.namespace))
                .is_some_and(|namespace| label_selector::matches(selector, &namespace.meta.labels)),
        }
}
