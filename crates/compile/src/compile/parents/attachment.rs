//! Attaches a route to its parents: whether the Gateway or ListenerSet exists, has a matching listener, and allows the
//! route.
//!
//! The checks run in the order that Gateway API specifies. If listeners reject the route for different reasons, the
//! condition reports the latest of the failed checks.

use std::sync::Arc;

use super::plans::{ParentPlans, PlannedParent, parent_id};
use crate::api::gateway::ParentReference;
use crate::api::{Kind, ObjectKey};
use crate::compile::gateways::listener::{ListenerId, ListenerPlan, Namespaces};
use crate::compile::objects::hostname::intersects;
use crate::compile::objects::label_selector;
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::host::HostPattern;
use crate::store::Store;
use crate::verdict::{Code, Condition};

/// The properties of a route that determine where it may attach.
#[derive(Clone, Copy, Debug)]
pub(in crate::compile) struct RouteOrigin<'a> {
    pub kind: Kind,
    pub key: &'a ObjectKey,
    pub hosts: &'a [HostPattern],
}

/// The listeners of one parent that accept the route.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::compile) struct Attachment {
    /// The parent, or the Gateway of the ListenerSet.
    pub gateway: ObjectKey,
    pub listeners: Vec<ListenerId>,
    /// Whether the route counts as attached; false if all of its rules were dropped.
    pub is_counted: bool,
}

pub(in crate::compile) enum ParentResult {
    /// This controller does not serve the parent. There is no note if it is a Gateway of another controller.
    NotServed(Option<Diagnostic>),
    /// The Gateway or ListenerSet does not exist.
    Missing(Diagnostic),
    /// The name of the controller that reports the result, and the result: an attachment, or an Accepted condition with
    /// status False.
    Served(Arc<str>, Result<Attachment, Condition>),
}

/// Resolves the parent reference in `field` of the route, and attaches the route to that parent.
pub(in crate::compile) fn resolve_parent(
    store: &Store,
    parents: &ParentPlans,
    route: &RouteOrigin<'_>,
    reference: &ParentReference,
    field: &str,
) -> ParentResult {
    let Some(id) = parent_id(&route.key.namespace, reference) else {
        let slash = if reference.group.is_empty() { "" } else { "/" };
        let message = format!("parents of kind {}{slash}{} are not served", reference.group, reference.kind);
        return ParentResult::NotServed(Some(Diagnostic::warning(
            format!("{field}.kind"),
            message,
            "attach to a Gateway or ListenerSet",
        )));
    };
    let Some(parent) = parents.parent(&route.key.namespace, reference) else {
        if store.meta(&id).is_some() {
            return ParentResult::NotServed(None);
        }
        let remedy = "create it, or correct name and namespace";
        let missing = Diagnostic::not_found(format!("{field}.name"), id.to_string(), remedy);
        return ParentResult::Missing(missing.into_warning().with_topic(Topic::MissingParent));
    };
    let gateway = parent.gateway;
    let outcome = matching_listeners(store, parent, route, reference, field);
    let attach = |listeners| Attachment { gateway: gateway.key.clone(), listeners, is_counted: true };
    ParentResult::Served(gateway.controller.clone(), outcome.map(attach))
}

fn matching_listeners(
    store: &Store,
    parent: PlannedParent<'_>,
    route: &RouteOrigin<'_>,
    reference: &ParentReference,
    field: &str,
) -> Result<Vec<ListenerId>, Condition> {
    let name = format!("{} {}", parent.kind, parent.key);
    let reject = |code: Code, subfield: &str, message: String, remedy: String| {
        Err(Condition::new(code, vec![Diagnostic::error(format!("{field}{subfield}"), message, remedy)]))
    };
    if parent.listeners.is_empty() {
        // A Gateway has listeners.
        let message = format!("{name} is not accepted, so it has no listeners");
        let remedy = format!("see the conditions of {name}");
        return reject(Code::RouteNoMatchingParent, ".name", message, remedy);
    }
    let referenced: Vec<_> = parent.listeners.iter().filter(|listener| is_referenced(listener, reference)).collect();
    if referenced.is_empty() {
        let (subfield, lack) = match (&reference.section_name, reference.port) {
            (Some(section), Some(port)) => (".sectionName", format!("no listener {section} on port {port}")),
            (Some(section), None) => (".sectionName", format!("no listener {section}")),
            (None, Some(port)) => (".port", format!("no listener on port {port}")),
            (None, None) => (".name", "no listener".to_owned()),
        };
        let available =
            parent.listeners.iter().map(|listener| format!("{} (port {})", listener.id.name, listener.port));
        let available: Vec<_> = available.collect();
        let message = format!("{name} has {lack}");
        return reject(Code::RouteNoMatchingParent, subfield, message, format!("use one of {}", available.join(", ")));
    }
    let allowing: Vec<_> = referenced.iter().filter(|listener| allows_route(store, parent, listener, route)).collect();
    if allowing.is_empty() {
        let is_kind_supported = referenced.iter().any(|listener| supports_kind(listener, route.kind));
        let (message, remedy) = if is_kind_supported {
            (
                format!("{name} does not allow routes of namespace {}", route.key.namespace),
                "change allowedRoutes.namespaces of the listener, or the namespace's labels".to_owned(),
            )
        } else {
            let terminates_tls = route.kind == Kind::TcpRoute
                && referenced.iter().any(|listener| supports_kind(listener, Kind::TlsRoute));
            let remedy = match terminates_tls {
                true => "write a TLSRoute, which listeners of protocol TLS serve whether they end TLS or not",
                false => "change allowedRoutes.kinds or protocol of the listener",
            };
            (format!("no listener of {name} supports routes of kind {}", route.kind), remedy.to_owned())
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
                format!("no hostname intersects a listener hostname of {name}"),
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

fn allows_route(store: &Store, parent: PlannedParent<'_>, listener: &ListenerPlan, route: &RouteOrigin<'_>) -> bool {
    supports_kind(listener, route.kind)
        && match &listener.namespaces {
            Namespaces::All => true,
            Namespaces::None => false,
            Namespaces::Same => route.key.namespace == parent.key.namespace,
            Namespaces::Selector(selector) => store
                .namespaces
                .get(&ObjectKey::cluster(&route.key.namespace))
                .is_some_and(|namespace| label_selector::matches(selector, &namespace.meta.labels)),
        }
}
