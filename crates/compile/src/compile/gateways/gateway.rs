//! Plans a Gateway: whether this controller serves it, its addresses, and which of its listeners can be served. Also
//! decides which GatewayClasses are accepted.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::gateway_ports::GatewayPorts;
use super::listener;
use super::listener::{ListenerId, ListenerPlan, ListenerSource, unserved_warnings};
use super::port_owners::{FamilyPort, PortOwners};
use super::{allowed_listeners, frontend_validation, gateway_parameters, listener_conflicts, observability};
use crate::api::gateway::{ALL_DEFAULT_GATEWAYS, Gateway, GatewayClass, ParentReference};
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::bind_address::BindAddress;
use crate::compile::CompileContext;
use crate::compile::addresses::{AssignedAddresses, ClientPath};
use crate::compile::certificates::SecretCache;
use crate::compile::certificates::backend_client::BackendClient;
use crate::diagnostic::{Diagnostic, Reason, Topic};
use crate::snapshot::certs::Certificates;
use crate::store::{Store, acceptance};
use crate::verdict::{Code, Condition, ListenerVerdict, Verdict};

/// The routes that may have to be planned again because the plan of their Gateway or ListenerSet changed.
#[derive(Debug, PartialEq)]
pub(in crate::compile) enum RouteDifference {
    /// All routes of the Gateway or ListenerSet: their parents may lead to other listeners, or to other ports for
    /// redirects.
    All,
    /// Those that refer to one of these listeners, which admit other routes than before.
    Listeners(BTreeSet<Arc<str>>),
}

impl RouteDifference {
    /// What the routes of an object with these listeners can see of the difference to its listeners before.
    pub(in crate::compile) fn between(listeners: &[ListenerPlan], before: &[ListenerPlan]) -> RouteDifference {
        let seen_by_all = |listeners: &[ListenerPlan]| -> Vec<_> {
            let seen = listeners
                .iter()
                .map(|listener| (listener.id.clone(), listener.port, listener.hostname.clone(), listener.secure));
            seen.collect()
        };
        if seen_by_all(listeners) != seen_by_all(before) {
            return RouteDifference::All;
        }
        let admission = |listener: &ListenerPlan| (listener.supported_kinds.clone(), listener.namespaces.clone());
        let listeners = listeners.iter().zip(before);
        let differing = listeners.filter(|(listener, before)| admission(listener) != admission(before));
        RouteDifference::Listeners(differing.map(|(listener, _)| listener.id.name.clone()).collect())
    }

    /// Whether no route has to be planned again.
    pub(in crate::compile) fn is_none(&self) -> bool {
        matches!(self, RouteDifference::Listeners(names) if names.is_empty())
    }

    /// Whether a route with these parents may have to be planned again.
    pub(in crate::compile) fn affects(&self, parents: &[ParentReference]) -> bool {
        match self {
            RouteDifference::All => true,
            RouteDifference::Listeners(names) if names.is_empty() => false,
            RouteDifference::Listeners(names) => {
                parents.iter().any(|parent| parent.section_name.as_deref().is_none_or(|name| names.contains(name)))
            }
        }
    }
}

/// The compiled state of a served Gateway, except for the routes that attach to it.
#[derive(Debug, PartialEq)]
pub(in crate::compile) struct GatewayPlan {
    pub key: ObjectKey,
    pub generation: i64,
    /// The controller name of its class, in whose name the status of attached routes is written.
    pub controller: Arc<str>,
    class: String,
    pub listeners: Vec<ListenerPlan>,
    /// The certificates of each listener, in the same order.
    pub certificates: Vec<Arc<Certificates>>,
    /// How connections to backends authenticate themselves.
    pub backend_client: BackendClient,
    /// Whether the Gateway is rejected as a whole, and not served.
    pub is_stopped: bool,
    /// Whether routes with `useDefaultGateways` attach to it.
    pub is_default: bool,
    /// Addresses to listen on.
    pub bind_addresses: Vec<IpAddr>,
    /// Addresses to write into the status.
    reported_addresses: Vec<String>,
    conditions: Vec<Condition>,
}

/// The Gateways of these controllers' classes, oldest first, then by name. The earlier Gateway wins a conflict.
pub(in crate::compile) fn gateways_by_age<'a>(
    store: &'a Store,
    controllers: &[String],
) -> Vec<&'a Arc<Object<Gateway>>> {
    let mut gateways: Vec<_> = store
        .gateways
        .values()
        .filter(|gateway| {
            store.class_of(gateway).is_some_and(|class| controllers.contains(&class.spec.controller_name))
        })
        .collect();
    gateways.sort_by(|a, b| (a.meta.created, &a.meta.key).cmp(&(b.meta.created, &b.meta.key)));
    gateways
}

/// The state of a Gateway's class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compile) enum ClassState {
    Missing,
    /// Belongs to another controller, so nothing is reported.
    Foreign,
    Accepted,
    /// Belongs to this controller, but its parameters cannot be used.
    Rejected,
}

pub(in crate::compile) fn class_state(cx: CompileContext<'_>, gateway: &Object<Gateway>) -> ClassState {
    match cx.store.class_of(gateway) {
        None => ClassState::Missing,
        Some(class) if !cx.inputs.controllers.contains(&class.spec.controller_name) => ClassState::Foreign,
        Some(class) if gateway_parameters::of_class(cx.store, class).is_err() => ClassState::Rejected,
        Some(_) => ClassState::Accepted,
    }
}

fn controller_of_class(store: &Store, gateway: &Object<Gateway>) -> Arc<str> {
    store.class_of(gateway).map_or("", |class| class.spec.controller_name.as_str()).into()
}

/// The verdict on a GatewayClass; without conditions if it belongs to another controller.
pub(in crate::compile) fn class_verdict(cx: CompileContext<'_>, class: &Object<GatewayClass>) -> Verdict {
    let mut verdict = Verdict { generation: class.meta.generation, ..Verdict::default() };
    if !cx.inputs.controllers.contains(&class.spec.controller_name) {
        let controllers = cx.inputs.controllers.join(" or ");
        verdict.diagnostics.push(Diagnostic::warning(
            "spec.controllerName",
            format!("{} is another controller", class.spec.controller_name),
            format!("use {controllers} to serve the Gateways of this class with Portico"),
        ));
        return verdict;
    }
    verdict.conditions.push(match gateway_parameters::of_class(cx.store, class) {
        Ok(_) => Condition::without_diagnostics(Code::ClassAccepted),
        Err(problem) => Condition::new(Code::ClassInvalidParameters, vec![problem]),
    });
    verdict.conditions.extend(observability::condition_of_class(cx.store, class));
    verdict
}

/// Assigns every (address, port) to the first Gateway that listens on it and can be served. The listeners of all
/// Gateways have precedence over those of ListenerSets, whose authors must not be able to take the port of a Gateway.
pub(in crate::compile) fn port_owners(cx: CompileContext<'_>) -> PortOwners {
    let mut owners = PortOwners::default();
    let gateways = gateways_by_age(cx.store, cx.inputs.controllers).into_iter();
    let served = gateways.filter_map(|gateway| {
        let assigned = cx.inputs.addresses.get(&gateway.meta.key)?;
        let rejection = rejection(cx.store, gateway, class_state(cx, gateway), &assigned.unsupported);
        (!rejection.is_some_and(|found| found.stops_serving(assigned))).then_some((gateway, assigned))
    });
    let served: Vec<_> = served.collect();
    let own = served.iter().map(|(gateway, assigned)| (gateway, assigned, allowed_listeners::own_ports(gateway)));
    let with_sets = served.iter().map(|(gateway, assigned)| {
        (gateway, assigned, allowed_listeners::wanted_ports(cx.store, gateway, cx.inputs.budgets))
    });
    for (gateway, assigned, ports) in own.chain(with_sets) {
        for wanted in ports {
            let Some(port) = assigned.ports.bound_port(wanted) else { continue };
            for address in &assigned.bind_addresses {
                owners.claim(BindAddress::new(wanted.transport, *address, port), &gateway.meta.key);
            }
        }
    }
    owners
}

/// Plans everything about a Gateway that does not depend on routes. `None` if this controller does not serve its class;
/// `foreign_verdict` then returns the verdict.
pub(in crate::compile) fn plan(
    cx: CompileContext<'_>,
    owners: &PortOwners,
    secrets: &mut SecretCache,
    gateway: &Object<Gateway>,
) -> Option<GatewayPlan> {
    let class = class_state(cx, gateway);
    if matches!(class, ClassState::Missing | ClassState::Foreign) {
        return None;
    }
    let no_addresses = Default::default();
    let assigned = cx.inputs.addresses.get(&gateway.meta.key).unwrap_or(&no_addresses);
    let rejection = rejection(cx.store, gateway, class, &assigned.unsupported);
    let is_stopped = rejection.as_ref().is_some_and(|rejection| rejection.stops_serving(assigned));
    let ports = GatewayPorts::new(&gateway.meta.key, assigned, owners, is_stopped);
    let declared_by = ObjectId::new(Kind::Gateway, gateway.meta.key.clone());
    let source = ListenerSource { declared_by: &declared_by, gateway, listeners: &gateway.spec.listeners };
    let conflicts = listener_conflicts::find(&gateway.spec.listeners);
    let (mut listeners, certificates) =
        listener::plan_all(cx, secrets, source, &conflicts, &|port| ports.other_owner(port));
    listeners.iter_mut().for_each(|listener| ports.assign(listener));
    let can_bind = ports.can_bind();

    let mut remarks: Vec<_> = unknown_scope_remark(gateway).into_iter().collect();
    remarks.extend(allowed_listeners::remark(gateway));
    remarks.extend(missing_class_remark(cx, gateway));
    remarks.extend(gateway_parameters::remarks_on_ignored_settings(cx.store, gateway, assigned.client_path));
    remarks.extend(assigned.notes.iter().cloned());
    let mut size_problem = cx.inputs.budgets.size_problem(cx.store, Kind::Gateway, &gateway.meta.key);
    remarks.extend(size_problem.take_if(|problem| !problem.is_error()));
    let rejected_count = listeners.iter().filter(|listener| !listener.accepted()).count();
    let with_rejected_listeners = |code: Code, remarks: Vec<Diagnostic>| {
        let mut problems: Vec<_> = listeners
            .iter()
            .filter(|listener| !listener.accepted())
            .map(|listener| listener.summary("accepted"))
            .collect();
        problems.extend(remarks);
        Condition::new(code, problems)
    };
    let is_too_large = size_problem.is_some();
    let stopped_by_rejection = rejection.is_some().then_some(is_stopped).or(is_too_large.then_some(true));
    let programmed = programmed_condition(stopped_by_rejection, assigned, &listeners);
    let accepted = match rejection {
        // Without its listeners, nothing else about it is of interest.
        _ if size_problem.is_some() => Condition::new(Code::GatewayInvalid, size_problem.into_iter().collect()),
        Some(rejection) => rejection.condition,
        None if rejected_count == 0 => Condition::new(Code::GatewayAccepted, remarks),
        None if rejected_count < listeners.len() => with_rejected_listeners(Code::GatewaySomeListenersInvalid, remarks),
        None => with_rejected_listeners(Code::GatewayNoListenerValid, remarks),
    };
    let insecure = frontend_validation::insecure_fields(gateway);
    let insecure = (!insecure.is_empty()).then(|| Condition::new(Code::GatewayInsecureFrontend, insecure));
    let is_default = gateway.spec.default_scope.as_deref() == Some(ALL_DEFAULT_GATEWAYS);
    let default = is_default.then(|| Condition::without_diagnostics(Code::GatewayDefault));
    let parameters = observability::condition_of_gateway(cx.store, gateway);
    let (backend_client, resolved_refs) = BackendClient::of_gateway(cx.store, secrets, gateway);
    Some(GatewayPlan {
        key: gateway.meta.key.clone(),
        generation: gateway.meta.generation,
        controller: controller_of_class(cx.store, gateway),
        class: gateway.spec.gateway_class_name.clone(),
        is_stopped: is_stopped || is_too_large,
        is_default,
        bind_addresses: if can_bind { assigned.bind_addresses.clone() } else { Vec::new() },
        reported_addresses: if can_bind { assigned.reported_addresses.clone() } else { Vec::new() },
        conditions: [Some(accepted), Some(programmed), resolved_refs, parameters, insecure, default]
            .into_iter()
            .flatten()
            .collect(),
        backend_client,
        listeners,
        certificates,
    })
}

/// The condition Programmed. `is_stopped`: for a rejected Gateway, whether it is not served.
fn programmed_condition(
    is_stopped: Option<bool>,
    assigned: &AssignedAddresses,
    listeners: &[ListenerPlan],
) -> Condition {
    if let Some(is_stopped) = is_stopped {
        let message = match is_stopped {
            true => "the Gateway is not accepted",
            false => "the Gateway is not accepted, so its Service stays as it is and is served as before",
        };
        let problem = Diagnostic::of_object(message, "see its condition Accepted").with_reason(Reason::OtherCondition);
        Condition::new(Code::GatewayNotProgrammed, vec![problem])
    } else if !assigned.unusable.is_empty() {
        Condition::new(Code::GatewayAddressNotUsable, assigned.unusable.clone())
    } else if !assigned.unassigned.is_empty() {
        Condition::new(Code::GatewayAddressNotAssigned, assigned.unassigned.clone())
    } else if listeners.iter().any(|listener| listener.served) {
        Condition::new(Code::GatewayProgrammed, unserved_warnings(listeners))
    } else {
        let problems = listeners.iter().map(|listener| listener.summary("served")).collect();
        Condition::new(Code::GatewayNotProgrammed, problems)
    }
}

impl GatewayPlan {
    /// Whether routes see another Gateway than before, whichever of its listeners they are attached to.
    pub(in crate::compile) fn differs_for_all_routes(&self, other: &GatewayPlan) -> bool {
        self.controller != other.controller || self.backend_client != other.backend_client
    }

    /// What its own routes can see of the difference to another plan. They see no certificates, addresses or
    /// conditions.
    pub(in crate::compile) fn difference_for_routes(&self, other: &GatewayPlan) -> RouteDifference {
        if self.differs_for_all_routes(other) {
            return RouteDifference::All;
        }
        RouteDifference::between(&self.listeners, &other.listeners)
    }

    /// Whether the condition Accepted is false, for another reason than that its own listeners are not valid.
    pub(in crate::compile) fn is_rejected(&self) -> bool {
        let accepted = self.conditions.iter().find(|condition| condition.code.condition() == "Accepted");
        accepted.is_some_and(|accepted| !accepted.code.status() && accepted.code != Code::GatewayNoListenerValid)
    }

    /// Every address at which one of these listeners of the Gateway is reachable.
    pub(in crate::compile) fn sockets<'a>(
        &self,
        listeners: impl Iterator<Item = &'a ListenerPlan>,
    ) -> BTreeSet<BindAddress> {
        let reported: Vec<IpAddr> = self.reported_addresses.iter().filter_map(|address| address.parse().ok()).collect();
        let ports = listeners
            .filter(|listener| listener.opens_port())
            .map(|listener| (listener.transport(), listener.bound_port, listener.port));
        let ports: BTreeSet<_> = ports.collect();
        let sockets = ports.into_iter().flat_map(|(transport, bound, port)| {
            let bound = bound.map(|bound| self.bind_addresses.iter().map(move |ip| (*ip, bound)));
            let reported = reported.iter().map(move |ip| (*ip, port));
            let sockets = bound.into_iter().flatten().chain(reported);
            sockets.map(move |(ip, port)| BindAddress::new(transport, ip, port))
        });
        sockets.collect()
    }

    /// Whether a listener of the Gateway wants one of these ports, whether it got it or not.
    pub(in crate::compile) fn wants_port_of(&self, listener: &ListenerPlan, ports: &BTreeSet<FamilyPort>) -> bool {
        self.bound_sockets(listener).into_iter().any(|address| ports.contains(&FamilyPort::from(address)))
    }

    /// The sockets that a listener binds.
    fn bound_sockets(&self, listener: &ListenerPlan) -> Vec<BindAddress> {
        let Some(port) = listener.bound_port else { return Vec::new() };
        self.bind_addresses.iter().map(|ip| BindAddress::new(listener.transport(), *ip, port)).collect()
    }

    /// The verdicts on listeners of the Gateway.
    pub(in crate::compile) fn listener_verdicts(
        &self,
        listeners: &[ListenerPlan],
        state: &impl ListenerState,
    ) -> Vec<ListenerVerdict> {
        let verdict = |listener: &ListenerPlan| ListenerVerdict {
            name: listener.id.name.to_string(),
            port: listener.port,
            attached_routes: state.attached_routes(&listener.id),
            supported_kinds: listener.supported_kinds.clone(),
            sockets: if listener.opens_port() { self.bound_sockets(listener) } else { Vec::new() },
            conditions: listener.conditions.iter().chain(state.overlap(&listener.id)).cloned().collect(),
        };
        listeners.iter().map(verdict).collect()
    }

    /// The verdict. `attached_sets`: the number of its accepted ListenerSets, if any refers to it.
    pub(in crate::compile) fn verdict(&self, state: &impl ListenerState, attached_sets: Option<u32>) -> Verdict {
        Verdict {
            generation: self.generation,
            conditions: self.conditions.clone(),
            acceptance: Some(acceptance(&self.controller, &self.class)),
            addresses: self.reported_addresses.clone(),
            listeners: self.listener_verdicts(&self.listeners, state),
            attached_listener_sets: attached_sets,
            ..Verdict::default()
        }
    }
}

/// What the status of a listener has in addition to its plan.
pub(in crate::compile) trait ListenerState {
    /// The number of routes that are attached to the listener.
    fn attached_routes(&self, listener: &ListenerId) -> u32;
    /// The condition that it overlaps with another listener.
    fn overlap(&self, listener: &ListenerId) -> Option<&Condition>;
}

/// The verdict on a Gateway that this controller does not serve: a note, but no conditions.
pub(in crate::compile) fn foreign_verdict(cx: CompileContext<'_>, gateway: &Object<Gateway>) -> Verdict {
    let name = &gateway.spec.gateway_class_name;
    let (field, class) = ("spec.gatewayClassName", format!("GatewayClass {name}"));
    let note = match class_state(cx, gateway) {
        ClassState::Missing if are_classes_unreadable(cx) => {
            let message = format!("{class} cannot be read, so it is unknown whether Portico serves the Gateway");
            Diagnostic::error(field, message, LET_READ_CLASSES)
        }
        ClassState::Missing => {
            let controllers = cx.inputs.controllers.join(" or ");
            Diagnostic::not_found(
                field,
                class,
                format!("create it with controllerName {controllers}, or correct the name"),
            )
            .with_topic(Topic::MissingClass)
        }
        _ => {
            let remedy = "to serve it with Portico, use a GatewayClass of Portico";
            Diagnostic::error(field, format!("{class} belongs to another controller"), remedy)
        }
    };
    Verdict { generation: gateway.meta.generation, diagnostics: vec![note.into_warning()], ..Verdict::default() }
}

/// Why a Gateway is rejected as a whole.
pub(in crate::compile) struct Rejection {
    /// The condition Accepted.
    condition: Condition,
    /// Whether only the settings of its Service are unknown.
    is_about_parameters: bool,
}

impl Rejection {
    /// Whether the Gateway is not served. Without its parameters, an existing Service stays as it is, and Portico
    /// continues to serve it: an object that has only settings of Services must not interrupt traffic while it is
    /// replaced.
    fn stops_serving(&self, assigned: &AssignedAddresses) -> bool {
        !(self.is_about_parameters && matches!(assigned.client_path, ClientPath::Service(_)))
    }
}

/// Why a Gateway is rejected as a whole; `None` if it is not. `unsupported`: diagnostics about its addresses.
pub(in crate::compile) fn rejection(
    store: &Store,
    gateway: &Object<Gateway>,
    class: ClassState,
    unsupported: &[Diagnostic],
) -> Option<Rejection> {
    if class == ClassState::Rejected {
        let name = &gateway.spec.gateway_class_name;
        let message = format!("GatewayClass {name} is not accepted");
        let problem = Diagnostic::error("spec.gatewayClassName", message, "see its conditions");
        let condition = Condition::new(Code::GatewayInvalid, vec![problem]);
        return Some(Rejection { condition, is_about_parameters: true });
    }
    if let Err(problem) = gateway_parameters::of_gateway(store, gateway) {
        let condition = Condition::new(Code::GatewayInvalidParameters, vec![problem]);
        return Some(Rejection { condition, is_about_parameters: true });
    }
    (!unsupported.is_empty()).then(|| {
        let condition = Condition::new(Code::GatewayUnsupportedAddress, unsupported.to_vec());
        Rejection { condition, is_about_parameters: false }
    })
}

/// A remark on a Gateway whose class was deleted or cannot be read, and which is served as before.
fn missing_class_remark(cx: CompileContext<'_>, gateway: &Object<Gateway>) -> Option<Diagnostic> {
    let name = &gateway.spec.gateway_class_name;
    if cx.store.gateway_classes.contains_key(&ObjectKey::cluster(name)) {
        return None;
    }
    let (message, remedy) = if are_classes_unreadable(cx) {
        let message = format!("GatewayClass {name} cannot be read; until it is read, the Gateway is served as before");
        (message, LET_READ_CLASSES.to_owned())
    } else {
        let message =
            format!("GatewayClass {name} was deleted; until it exists again, the Gateway is served as before");
        let remedy =
            format!("create it with controllerName {}, or delete the Gateway", controller_of_class(cx.store, gateway));
        (message, remedy)
    };
    Some(Diagnostic::error("spec.gatewayClassName", message, remedy))
}

/// Whether a class that is not in the store may exist.
fn are_classes_unreadable(cx: CompileContext<'_>) -> bool {
    cx.inputs.unreadable_kinds.contains(&Kind::GatewayClass)
}

const LET_READ_CLASSES: &str =
    "let Portico's ClusterRole list and watch gatewayclasses; the log has the reason of the failure";

/// A remark on a scope that has no effect, so that users do not rely on it.
fn unknown_scope_remark(gateway: &Object<Gateway>) -> Option<Diagnostic> {
    let scope = gateway.spec.default_scope.as_deref()?;
    let is_known = ["", "None", ALL_DEFAULT_GATEWAYS].contains(&scope);
    let message = format!("{scope} is not a supported value, so routes attach only by parentRefs");
    (!is_known).then(|| Diagnostic::error("spec.defaultScope", message, "use All or None"))
}
