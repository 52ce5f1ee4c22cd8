//! Which routes and Ingresses send requests to the targets of policies, and the verdicts that follow: an entry for each
//! Gateway whose routes do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::affected::keys_of_kind;
use super::route_plan::RoutePlan;
use super::service_policies::{ServicePolicy, policies_for};
use super::verdict::{AncestorReference, AncestorVerdict, Condition, Verdict};
use super::{CompileContext, Compiler};
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::store::{Changes, Store};

/// The routes and Ingresses that use the targets of policies of one kind.
#[derive(Debug, Default)]
pub(super) struct PolicyUsers {
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

impl PolicyUsers {
    /// Whether there may be policies. Nothing is recorded for them otherwise.
    pub(super) fn may_be_needed<P: ServicePolicy>(&self, store: &Store) -> bool {
        !P::table(store).is_empty() || !self.policies.is_empty()
    }

    /// The touched policies, those with the same targets, and those whose targets are used by `replanned` routes and
    /// Ingresses, or were before.
    pub(super) fn outdated<P: ServicePolicy>(
        &mut self,
        store: &Store,
        touched: &Changes,
        replanned: &BTreeSet<ObjectId>,
    ) -> BTreeSet<ObjectKey> {
        let mut outdated: BTreeSet<ObjectKey> = keys_of_kind(touched, P::KIND).cloned().collect();
        for route in replanned {
            outdated.extend(self.policies.remove(route).unwrap_or_default());
            for service in store.services_referenced_by(route) {
                outdated.extend(policies_for::<P>(store, &service).map(|policy| policy.meta.key.clone()));
            }
        }
        outdated
    }
}

impl Compiler {
    /// The verdict on a policy with these conditions, which are the same for all Gateways. `users`: what is recorded of
    /// the kind of the policy.
    pub(super) fn policy_verdict<P: ServicePolicy>(
        &self,
        cx: CompileContext<'_>,
        policy: &Object<P>,
        conditions: Vec<Condition>,
        mut diagnostics: Vec<Diagnostic>,
        users: &mut PolicyUsers,
    ) -> Verdict {
        let PolicyUse { gateways, has_ingress } = self.use_of(cx.store, policy, users);
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
        Verdict { generation: policy.meta.generation, conditions, ancestors, diagnostics, ..Verdict::default() }
    }

    /// Finds what sends requests to the targets of a policy, and records it.
    fn use_of<P: ServicePolicy>(&self, store: &Store, policy: &Object<P>, users: &mut PolicyUsers) -> PolicyUse {
        let key = &policy.meta.key;
        let mut found = PolicyUse::default();
        for service in store.services_referenced_by(&ObjectId::new(P::KIND, key.clone())) {
            let id = ObjectId::new(Kind::Service, service);
            let index = store.dependency_index();
            for route in P::USERS.iter().flat_map(|kind| index.dependents_of_kind(&id, *kind)) {
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
                    users.policies.entry(route.clone()).or_default().insert(key.clone());
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
            let listeners = attachment.listeners.iter();
            let mut listeners = listeners.filter_map(|id| self.parents.listener(&attachment.gateway, id));
            let applies = kind != Kind::TlsRoute || listeners.any(|listener| listener.protocol.terminates_tls());
            applies.then(|| (attachment.gateway.clone(), Arc::clone(&gateway.controller)))
        });
        attachments.collect()
    }
}
