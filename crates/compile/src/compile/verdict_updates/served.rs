//! What the compiler serves: verdicts on other objects depend on it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::{Kind, ObjectId, ObjectKey};
use crate::compile::backend::forbidden_addresses::ForbiddenAddresses;
use crate::compile::backend::upstream_usage::UpstreamUsage;
use crate::compile::ingress::{IngressCompiler, StreamIngressCompiler};
use crate::compile::kong;
use crate::compile::kong::policy_conflicts::PolicyConflicts;
use crate::compile::parents::plans::ParentPlans;
use crate::compile::policies::users::ServedUsers;
use crate::compile::routes::plan::{PlannedRules, RoutePlans};
use crate::snapshot::rule::{Action, RouteRule, RuleId, WeightedBackends};
use crate::store::Store;

/// The results of all steps that plan objects.
#[derive(Clone, Copy)]
pub(in crate::compile) struct ServedObjects<'a> {
    pub parents: &'a ParentPlans,
    pub routes: &'a RoutePlans,
    pub ingresses: &'a IngressCompiler,
    pub stream_ingresses: &'a StreamIngressCompiler,
    pub upstream_usage: &'a UpstreamUsage,
    pub forbidden: &'a ForbiddenAddresses,
    pub policy_conflicts: &'a PolicyConflicts,
}

impl ServedObjects<'_> {
    /// Whether a route or Ingress is served, so that requests reach its backends.
    pub(super) fn is_served_user(&self, id: &ObjectId) -> bool {
        match id.kind {
            Kind::Ingress | Kind::TcpIngress | Kind::UdpIngress => self.is_served_ingress(id),
            _ => self.routes.get(id).is_some_and(|plan| !plan.attachments.is_empty()),
        }
    }

    /// For a Service: whether a route refers to it directly, instead of to a facade. For a facade: whether an Ingress
    /// refers to it.
    pub(super) fn is_used(&self, store: &Store, id: &ObjectId) -> bool {
        // The TLS settings of `unreachable_services` are invalid, so no upstream is compiled for them.
        let would_use = |route: &ObjectId| {
            self.routes
                .get(route)
                .is_some_and(|plan| !plan.attachments.is_empty() && plan.unreachable_services.contains(&id.key))
        };
        match id.kind {
            Kind::Service => {
                self.upstream_usage.of_service(&id.key).any(|upstream| upstream.facade.is_none())
                    || store.dependency_index().dependents(id).any(would_use)
            }
            _ => kong::service_facade::service(store, id).is_some_and(|service| {
                self.upstream_usage.of_service(&service).any(|upstream| upstream.facade.as_ref() == Some(&id.key.name))
            }),
        }
    }
}

impl ServedUsers for ServedObjects<'_> {
    fn gateways_of_route(&self, route: &ObjectId, includes_passthrough: bool) -> Vec<(ObjectKey, Arc<str>)> {
        let attachments = self.routes.get(route).map(|plan| &*plan.attachments).unwrap_or_default();
        let gateways = attachments.iter().filter_map(|attachment| {
            let gateway = self.parents.gateways.get(&attachment.gateway)?;
            let listeners = attachment.listeners.iter();
            let mut listeners = listeners.filter_map(|id| self.parents.listener(&attachment.gateway, id));
            let is_included = includes_passthrough
                || route.kind != Kind::TlsRoute
                || listeners.any(|listener| listener.protocol.terminates_tls());
            is_included.then(|| (attachment.gateway.clone(), Arc::clone(&gateway.controller)))
        });
        gateways.collect()
    }

    fn is_served_ingress(&self, ingress: &ObjectId) -> bool {
        match ingress.kind {
            Kind::Ingress => self.ingresses.is_served(&ingress.key),
            _ => self.stream_ingresses.is_served(ingress),
        }
    }

    fn visit_rules(&self, user: &ObjectId, visit: &mut dyn FnMut(&RuleId, &WeightedBackends)) {
        let mut visited: BTreeSet<*const RouteRule> = BTreeSet::new();
        let mut visit_once = |rule: &Arc<RouteRule>| {
            if let Action::Forward(split) = &rule.action
                && visited.insert(Arc::as_ptr(rule))
            {
                visit(&rule.id, split);
            }
        };
        if user.kind == Kind::Ingress {
            self.ingresses.rules(&user.key).for_each(visit_once);
            return;
        }
        let plan = self.routes.get(user).filter(|plan| !plan.attachments.is_empty());
        if let Some(PlannedRules::Http { matches, .. }) = plan.map(|plan| &plan.rules) {
            matches.rules().for_each(&mut visit_once);
        }
    }
}
