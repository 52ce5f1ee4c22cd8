//! Updates the verdicts that a change affects.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::gateway::ListenerState;
use super::kong::verdict_updates::VerdictSource;
use super::listener::ListenerId;
use super::parent_plans::ParentPlans;
use super::route_plan::RouteKind;
use super::routers::Routers;
use super::verdict::{Condition, Verdict};
use super::{CompileContext, CompileRun, Compiler, gateway, ingress_class, kong, listener_set, notes};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::store::{Changes, Store};

/// The state of the listeners of a Gateway and its ListenerSets.
struct ListenersOfGateway<'a> {
    gateway: &'a ObjectKey,
    parents: &'a ParentPlans,
    routers: &'a Routers,
}

impl ListenerState for ListenersOfGateway<'_> {
    fn attached_routes(&self, listener: &ListenerId) -> u32 {
        self.routers.attached_count(listener)
    }

    fn overlap(&self, listener: &ListenerId) -> Option<&Condition> {
        self.parents.overlap(self.gateway, listener)
    }
}

impl Compiler {
    /// Updates the verdicts on `outdated` Ingresses; on all Ingresses if the sockets of Ingresses or Gateways changed.
    pub(super) fn update_ingress_verdicts(
        &mut self,
        cx: CompileContext<'_>,
        mut outdated: BTreeSet<ObjectKey>,
        run: &mut CompileRun,
    ) {
        let taken_by_gateways = self.routers.sockets_taken_by_gateways();
        let ingress_sockets = self.ingresses.binds().keys().copied().collect();
        if taken_by_gateways != self.sockets_taken_by_gateways || ingress_sockets != self.ingress_sockets {
            (self.sockets_taken_by_gateways, self.ingress_sockets) = (taken_by_gateways, ingress_sockets);
            outdated.extend(self.ingresses.keys().cloned());
        }
        for key in outdated {
            let verdict = self.ingresses.verdict(cx, &key, &self.sockets_taken_by_gateways);
            self.set_verdict(ObjectId::new(Kind::Ingress, key), verdict, run);
        }
    }

    /// Updates the verdicts on Gateways and ListenerSets whose plan or attached routes changed.
    pub(super) fn update_parent_verdicts(&mut self, cx: CompileContext<'_>, run: &mut CompileRun) {
        for id in std::mem::take(&mut run.parents_to_update) {
            let verdict = match id.kind {
                Kind::Gateway => self.gateway_verdict(cx, &id.key),
                _ => self.listener_set_verdict(cx, &id.key),
            };
            self.set_verdict(id, verdict, run);
        }
    }

    fn gateway_verdict(&self, cx: CompileContext<'_>, key: &ObjectKey) -> Option<Verdict> {
        let Some(plan) = self.parents.gateways.get(key) else {
            return cx.store.gateways.get(key).map(|object| gateway::foreign_verdict(cx, object));
        };
        let mut sets = self.parents.sets_of(key).peekable();
        let attached_sets = sets.peek().is_some().then(|| {
            let accepted = sets.filter(|set| set.is_accepted()).count();
            u32::try_from(accepted).unwrap_or(u32::MAX)
        });
        Some(plan.verdict(&self.listener_state(key), attached_sets))
    }

    fn listener_set_verdict(&self, cx: CompileContext<'_>, key: &ObjectKey) -> Option<Verdict> {
        let set = self.parents.listener_set(key);
        match set.and_then(|set| Some((set, self.parents.gateways.get(&set.gateway)?))) {
            Some((set, gateway)) => Some(set.verdict(gateway, &self.listener_state(&set.gateway))),
            None => listener_set::foreign_verdict(cx.store, key),
        }
    }

    fn listener_state<'a>(&'a self, gateway: &'a ObjectKey) -> ListenersOfGateway<'a> {
        ListenersOfGateway { gateway, parents: &self.parents, routers: &self.routers }
    }

    /// Updates the verdicts on touched objects whose kind no other step updates.
    pub(super) fn update_other_verdicts(&mut self, cx: CompileContext<'_>, touched: &Changes, run: &mut CompileRun) {
        for id in touched {
            let is_used = self.is_used(cx.store, id);
            let verdict = match id.kind {
                Kind::Gateway | Kind::ListenerSet | Kind::Ingress => continue,
                Kind::BackendTlsPolicy | Kind::XBackendTrafficPolicy | Kind::XBackend => continue,
                kind if RouteKind::of(kind).is_some() || !kind.is_served() => continue,
                Kind::IngressClass => {
                    cx.store.ingress_classes.get(&id.key).map(|class| ingress_class::verdict(cx, class))
                }
                Kind::GatewayClass => {
                    cx.store.gateway_classes.get(&id.key).map(|class| gateway::class_verdict(cx, class))
                }
                _ => match kong::verdict_updates::verdict(cx, id, is_used) {
                    VerdictSource::OwnStep => continue,
                    VerdictSource::Known(verdict) => verdict,
                    VerdictSource::OtherKind => {
                        notes::verdict(cx, id, &self.forbidden, &self.policy_conflicts, is_used)
                    }
                },
            };
            self.set_verdict(id.clone(), verdict, run);
        }
    }

    /// For a Service: whether a route refers to it directly, instead of to a facade. For a facade: whether an Ingress
    /// refers to it.
    fn is_used(&self, store: &Store, id: &ObjectId) -> bool {
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

    /// Sets the verdicts on touched objects of which nothing is stored, because they are larger than an object may be.
    pub(super) fn update_oversized_verdicts(&mut self, touched: &Changes, run: &mut CompileRun) {
        for id in run.oversized.not_stored(touched) {
            self.set_verdict(id, None, run);
        }
    }

    pub(super) fn set_verdict(&mut self, id: ObjectId, verdict: Option<Verdict>, run: &mut CompileRun) {
        let verdict = run.oversized.apply(&id, verdict);
        if self.verdicts.get(&id).map(|known| &**known) == verdict.as_ref() {
            return;
        }
        match verdict {
            Some(verdict) => {
                // Equal verdicts in a row, such as those on many new routes, share one allocation.
                if *self.last_verdict != verdict {
                    self.last_verdict = Arc::new(verdict);
                }
                self.verdicts.insert(id.clone(), Arc::clone(&self.last_verdict))
            }
            None => self.verdicts.remove(&id),
        };
        run.verdicts_changed.insert(id);
    }

    /// Rebuilds the map if most verdicts changed, to save memory: insertions in key order leave its nodes half empty,
    /// and a map collected at once has full nodes.
    pub(super) fn compact_verdicts(&mut self, run: &CompileRun) {
        if run.verdicts_changed.len() > self.verdicts.len() / 2 {
            self.verdicts = std::mem::take(&mut self.verdicts).into_iter().collect();
        }
    }
}
