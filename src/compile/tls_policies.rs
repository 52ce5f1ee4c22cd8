//! Verdicts on BackendTLSPolicies: an entry for each Gateway whose routes send requests to a target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::affected::keys_of_kind;
use super::backend::backend_tls_policy::{first_policy, policies_for};
use super::backend::policy_validation::ReadValidation;
use super::route_plan::RoutePlan;
use super::verdict::{AncestorReference, AncestorVerdict, Code, Condition, Verdict};
use super::{CompileContext, CompileRun, Compiler};
use crate::api::gateway::{BackendTlsPolicy, PolicyTargetReference};
use crate::api::kind::CORE_GROUP;
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::diagnostic::{Diagnostic, Reason};
use crate::store::{Changes, Store};

/// Which routes and Ingresses send requests to the targets of policies.
#[derive(Debug, Default)]
pub(super) struct TlsPolicyUsers {
    /// By route or Ingress, the policies in whose verdicts it was counted.
    policies: BTreeMap<ObjectId, BTreeSet<ObjectKey>>,
}

/// What uses the targets of one policy.
#[derive(Default)]
struct PolicyUse {
    /// With the name of their controller.
    gateways: BTreeMap<ObjectKey, Arc<str>>,
    has_ingress: bool,
}

impl Compiler {
    /// Whether there may be policies. Nothing is recorded for them otherwise.
    pub(super) fn has_tls_policies(&self, store: &Store) -> bool {
        let has_policies = !store.backend_tls_policies.is_empty() || !store.unparseable_policies.is_empty();
        has_policies || !self.tls_policy_users.policies.is_empty()
    }

    /// Updates the verdicts on touched policies, on those with the same targets, and on those whose targets are used by
    /// `replanned` routes and Ingresses, or were before.
    pub(super) fn update_tls_policy_verdicts(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        replanned: &BTreeSet<ObjectId>,
        run: &mut CompileRun,
    ) {
        let mut outdated: BTreeSet<ObjectKey> = keys_of_kind(touched, Kind::BackendTlsPolicy).cloned().collect();
        for route in replanned {
            outdated.extend(self.tls_policy_users.policies.remove(route).unwrap_or_default());
            for service in cx.store.services_referenced_by(route) {
                outdated.extend(policies_for(cx.store, &service).map(|policy| policy.meta.key.clone()));
            }
        }
        for key in outdated {
            let verdict = self.tls_policy_verdict(cx, &key);
            self.set_verdict(ObjectId::new(Kind::BackendTlsPolicy, key), verdict, run);
        }
    }

    /// `None` if the policy does not exist.
    fn tls_policy_verdict(&mut self, cx: CompileContext<'_>, key: &ObjectKey) -> Option<Verdict> {
        let Some(policy) = cx.store.backend_tls_policies.get(key) else {
            let unparseable = cx.store.unparseable_policies.get(key)?;
            let message = "the policy cannot be parsed, so no requests are sent to its targets";
            let diagnostics = vec![Diagnostic::warning("spec", message, "correct the policy")];
            return Some(Verdict { generation: unparseable.meta.generation, diagnostics, ..Verdict::default() });
        };
        let PolicyUse { gateways, has_ingress } = self.use_of(cx.store, policy);
        let conditions = conditions(cx, policy);
        let mut diagnostics = notes(policy);
        let is_used = !gateways.is_empty() || has_ingress;
        if !is_used {
            // Another controller may use the policy, so no event reports its problems.
            let problems = conditions.iter().flat_map(|condition| &condition.diagnostics);
            diagnostics.extend(problems.cloned().map(Diagnostic::into_warning));
            let message = "no route or Ingress that Portico serves sends requests to a target, so it has no effect";
            diagnostics.push(Diagnostic::warning("spec.targetRefs", message, "refer to the Service in a route"));
        }
        let ancestors = gateways.into_iter().map(|(gateway, controller)| AncestorVerdict {
            reference: AncestorReference::Gateway(gateway),
            controller: Some(controller),
            conditions: conditions.clone(),
        });
        let ancestors = ancestors.collect();
        let conditions = if is_used { conditions } else { Vec::new() };
        Some(Verdict { generation: policy.meta.generation, conditions, ancestors, diagnostics, ..Verdict::default() })
    }

    /// Finds what sends requests to the targets of a policy, and records it.
    fn use_of(&mut self, store: &Store, policy: &Object<BackendTlsPolicy>) -> PolicyUse {
        let key = &policy.meta.key;
        let mut found = PolicyUse::default();
        for service in store.services_referenced_by(&ObjectId::new(Kind::BackendTlsPolicy, key.clone())) {
            let id = ObjectId::new(Kind::Service, service);
            let index = store.dependency_index();
            for route in USERS.iter().flat_map(|kind| index.dependents_of_kind(&id, *kind)) {
                let is_user = if route.kind == Kind::Ingress {
                    let is_served = self.ingresses.is_served(&route.key);
                    found.has_ingress |= is_served;
                    is_served
                } else {
                    let gateways = self.routes.get(route).map(|plan| self.gateways_of(route.kind, plan));
                    let gateways = gateways.unwrap_or_default();
                    let is_user = !gateways.is_empty();
                    found.gateways.extend(gateways);
                    is_user
                };
                if is_user {
                    self.tls_policy_users.policies.entry(route.clone()).or_default().insert(key.clone());
                }
            }
        }
        found
    }

    /// The Gateways through which requests or connections of a route reach its backends unencrypted, so that a policy
    /// applies to them.
    fn gateways_of(&self, kind: Kind, plan: &RoutePlan) -> Vec<(ObjectKey, Arc<str>)> {
        let attachments = plan.attachments.iter().filter_map(|attachment| {
            let gateway = self.parents.gateways.get(&attachment.gateway)?;
            let mut listeners = gateway.listeners.iter().filter(|listener| attachment.listeners.contains(&listener.id));
            let applies = kind != Kind::TlsRoute || listeners.any(|listener| listener.protocol.terminates_tls());
            applies.then(|| (attachment.gateway.clone(), Arc::clone(&gateway.controller)))
        });
        attachments.collect()
    }
}

/// The kinds whose requests or connections a policy affects.
const USERS: &[Kind] = &[Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute, Kind::Ingress];

/// Accepted and ResolvedRefs. They are the same for all Gateways.
fn conditions(cx: CompileContext<'_>, policy: &Object<BackendTlsPolicy>) -> Vec<Condition> {
    let ReadValidation { trust, invalid, unresolved } = ReadValidation::new(cx, policy);
    let conflicts = conflicts(cx.store, policy);
    let targets = target_problems(cx.store, policy);
    let accepted = if !conflicts.is_empty() {
        Condition::new(Code::TlsPolicyConflicted, conflicts)
    } else if !invalid.is_empty() {
        Condition::new(Code::TlsPolicyInvalid, invalid)
    } else if trust.is_none() {
        let message = "no reference leads to a certificate, so no requests are sent to the targets";
        let remedy = "correct the references; the condition ResolvedRefs has the reasons";
        let problem = Diagnostic::error("spec.validation.caCertificateRefs", message, remedy);
        Condition::new(Code::TlsPolicyNoValidCaCertificate, vec![problem.with_reason(Reason::OtherCondition)])
    } else if targets.len() == policy.spec.target_refs.len() {
        Condition::new(Code::TlsPolicyTargetNotFound, targets)
    } else {
        Condition::new(Code::TlsPolicyAccepted, targets)
    };
    let mut resolved_refs = Condition::without_diagnostics(Code::TlsPolicyResolvedRefs);
    for (code, problem) in unresolved {
        resolved_refs.add(code, problem);
    }
    vec![accepted, resolved_refs]
}

/// The targets for which another policy has precedence.
fn conflicts(store: &Store, policy: &Object<BackendTlsPolicy>) -> Vec<Diagnostic> {
    let namespace = &policy.meta.key.namespace;
    let targets = policy.spec.target_refs.iter().enumerate().filter(|(_, target)| is_service(target));
    let conflicts = targets.filter_map(|(index, target)| {
        let service = ObjectKey { namespace: namespace.clone(), name: target.name.as_str().into() };
        let section = target.section_name.as_deref();
        let first = first_policy(store, &service, section).map(|first| &first.meta.key);
        let first = first.filter(|first| **first != policy.meta.key)?;
        let port = section.map_or_else(String::new, |section| format!("port {section} of "));
        let message = format!("BackendTLSPolicy {first} is older and applies to {port}Service {service}");
        Some(Diagnostic::error(format!("spec.targetRefs[{index}]"), message, "remove the target from one of them"))
    });
    conflicts.collect()
}

/// The targets that do not exist, or that the policy cannot apply to.
fn target_problems(store: &Store, policy: &Object<BackendTlsPolicy>) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for (index, target) in policy.spec.target_refs.iter().enumerate() {
        let field = |subfield: &str| format!("spec.targetRefs[{index}].{subfield}");
        if !is_service(target) {
            let slash = if target.group == CORE_GROUP { "" } else { "/" };
            let message =
                format!("the policy does not apply to objects of kind {}{slash}{}", target.group, target.kind);
            problems.push(Diagnostic::error(field("kind"), message, "refer to a Service"));
            continue;
        }
        let key = ObjectKey { namespace: policy.meta.key.namespace.clone(), name: target.name.as_str().into() };
        let Some(service) = store.services.get(&key) else {
            problems.push(Diagnostic::not_found(
                field("name"),
                format!("Service {key}"),
                "create it or correct the name",
            ));
            continue;
        };
        if let Some(section) = target.section_name.as_deref()
            && !service.spec.ports.iter().any(|port| port.name == section)
        {
            let message = format!("Service {key} has no port with the name {section}");
            problems.push(Diagnostic::error(field("sectionName"), message, "use the name of one of its ports"));
        }
    }
    problems
}

fn is_service(target: &PolicyTargetReference) -> bool {
    target.group == CORE_GROUP && target.kind == Kind::Service.name()
}

/// Warnings about fields without effect.
fn notes(policy: &Object<BackendTlsPolicy>) -> Vec<Diagnostic> {
    let names = policy.spec.options.keys();
    let notes = names.map(|name| {
        let message = "Portico has no option with this name, so it has no effect";
        Diagnostic::warning(format!("spec.options[{name}]"), message, "remove it if only Portico uses the policy")
    });
    notes.collect()
}
