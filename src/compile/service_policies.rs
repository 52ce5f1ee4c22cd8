//! Policies that target Services of their namespace: which policy applies to a Service, and whether it is accepted.

use super::verdict::{Code, Condition};
use crate::api::gateway::{BackendTlsPolicy, XBackendTrafficPolicy};
use crate::api::kind::CORE_GROUP;
use crate::api::{Kind, Object, ObjectId, ObjectKey, Resource};
use crate::diagnostic::Diagnostic;
use crate::store::{ObjectTable, Store};

/// A kind of policies.
pub(super) trait ServicePolicy: Resource {
    /// The kinds whose requests or connections a policy affects.
    const USERS: &'static [Kind];

    fn targets(&self) -> impl Iterator<Item = PolicyTarget<'_>>;
    fn table(store: &Store) -> &ObjectTable<Self>
    where
        Self: Sized;
}

/// An entry of `spec.targetRefs`.
#[derive(Clone, Copy)]
pub(super) struct PolicyTarget<'a> {
    group: &'a str,
    kind: &'a str,
    name: &'a str,
    /// The name of a port.
    section: Option<&'a str>,
}

impl ServicePolicy for BackendTlsPolicy {
    const USERS: &'static [Kind] = &[Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute, Kind::Ingress];

    fn targets(&self) -> impl Iterator<Item = PolicyTarget<'_>> {
        self.spec.target_refs.iter().map(|target| PolicyTarget {
            group: &target.group,
            kind: &target.kind,
            name: &target.name,
            section: target.section_name.as_deref(),
        })
    }

    fn table(store: &Store) -> &ObjectTable<Self> {
        &store.backend_tls_policies
    }
}

impl ServicePolicy for XBackendTrafficPolicy {
    const USERS: &'static [Kind] = &[Kind::HttpRoute, Kind::GrpcRoute, Kind::Ingress];

    fn targets(&self) -> impl Iterator<Item = PolicyTarget<'_>> {
        self.spec.target_refs.iter().map(|target| PolicyTarget {
            group: &target.group,
            kind: &target.kind,
            name: &target.name,
            section: None,
        })
    }

    fn table(store: &Store) -> &ObjectTable<Self> {
        &store.x_backend_traffic_policies
    }
}

impl PolicyTarget<'_> {
    fn is_service(&self) -> bool {
        self.group == CORE_GROUP && self.kind == Kind::Service.name()
    }
}

/// The policies that name this Service or one of its ports.
pub(super) fn policies_for<'a, P: ServicePolicy>(
    store: &'a Store,
    service: &ObjectKey,
) -> impl Iterator<Item = &'a Object<P>> {
    let id = ObjectId::new(Kind::Service, service.clone());
    // Thousands of routes may depend on the Service, and each of them asks for its policies.
    let policies = store.dependency_index().dependents_of_kind(&id, P::KIND);
    policies.filter_map(|id| P::table(store).get(&id.key)).map(|policy| &**policy)
}

/// The oldest of the policies whose target is this Service with this section, or else the first by name. Whether it can
/// be used does not matter.
pub(super) fn first_policy<'a, P: ServicePolicy>(
    store: &'a Store,
    service: &ObjectKey,
    section: Option<&str>,
) -> Option<&'a Object<P>> {
    let is_target =
        |target: PolicyTarget<'_>| target.is_service() && *target.name == *service.name && target.section == section;
    let policies = policies_for::<P>(store, service).filter(|policy| policy.targets().any(is_target));
    policies.min_by_key(|policy| (policy.meta.created, &policy.meta.key))
}

/// The condition Accepted. `invalid`: why the policy is not used, with the code of the first of these diagnostics.
pub(super) fn accepted<P: ServicePolicy>(
    store: &Store,
    policy: &Object<P>,
    invalid: Option<(Code, Vec<Diagnostic>)>,
) -> Condition {
    let conflicts = conflicts(store, policy);
    let targets = target_problems(store, policy);
    if !conflicts.is_empty() {
        Condition::new(Code::ServicePolicyConflicted, conflicts)
    } else if let Some((code, invalid)) = invalid {
        Condition::new(code, invalid)
    } else if targets.len() == policy.targets().count() {
        Condition::new(Code::ServicePolicyTargetNotFound, targets)
    } else {
        Condition::new(Code::ServicePolicyAccepted, targets)
    }
}

/// The targets for which another policy has precedence.
fn conflicts<P: ServicePolicy>(store: &Store, policy: &Object<P>) -> Vec<Diagnostic> {
    let namespace = &policy.meta.key.namespace;
    let targets = policy.targets().enumerate().filter(|(_, target)| target.is_service());
    let conflicts = targets.filter_map(|(index, target)| {
        let service = ObjectKey { namespace: namespace.clone(), name: target.name.into() };
        let first = first_policy::<P>(store, &service, target.section).map(|first| &first.meta.key);
        let first = first.filter(|first| **first != policy.meta.key)?;
        let port = target.section.map_or_else(String::new, |section| format!("port {section} of "));
        let message = format!("{} {first} is older and applies to {port}Service {service}", P::KIND);
        Some(Diagnostic::error(format!("spec.targetRefs[{index}]"), message, "remove the target from one of them"))
    });
    conflicts.collect()
}

/// The targets that do not exist, or that the policy cannot apply to.
fn target_problems<P: ServicePolicy>(store: &Store, policy: &Object<P>) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for (index, target) in policy.targets().enumerate() {
        let field = |subfield: &str| format!("spec.targetRefs[{index}].{subfield}");
        if !target.is_service() {
            let slash = if target.group == CORE_GROUP { "" } else { "/" };
            let message =
                format!("the policy does not apply to objects of kind {}{slash}{}", target.group, target.kind);
            problems.push(Diagnostic::error(field("kind"), message, "refer to a Service"));
            continue;
        }
        let key = ObjectKey { namespace: policy.meta.key.namespace.clone(), name: target.name.into() };
        let Some(service) = store.services.get(&key) else {
            problems.push(Diagnostic::not_found(
                field("name"),
                format!("Service {key}"),
                "create it or correct the name",
            ));
            continue;
        };
        if let Some(section) = target.section
            && !service.spec.ports.iter().any(|port| port.name == section)
        {
            let message = format!("Service {key} has no port with the name {section}");
            problems.push(Diagnostic::error(field("sectionName"), message, "use the name of one of its ports"));
        }
    }
    problems
}
