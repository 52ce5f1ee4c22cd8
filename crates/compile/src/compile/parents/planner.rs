//! Plans the Gateways and ListenerSets that a change affects, and keeps their plans.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::plans::ParentPlans;
use super::references::parent_refs;
use crate::api::gateway::{Gateway, ListenerSet};
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::affected::keys_of_kind;
use crate::compile::certificates::SecretCache;
use crate::compile::gateways::gateway::RouteDifference;
use crate::compile::gateways::gateway_ports::GatewayPorts;
use crate::compile::gateways::listener::{ListenerId, ListenerPlan};
use crate::compile::gateways::listener_set_ports::ListenerSetPorts;
use crate::compile::gateways::port_owners::PortOwners;
use crate::compile::gateways::{allowed_listeners, gateway, listener_conflicts, listener_set};
use crate::compile::objects::route_kind::RouteKind;
use crate::compile::run::CompileRun;
use crate::store::{Changes, Store};

/// Plans Gateways and ListenerSets.
#[derive(Debug, Default)]
pub(in crate::compile) struct ParentPlanner {
    pub plans: ParentPlans,
    port_owners: PortOwners,
    listener_set_ports: ListenerSetPorts,
}

/// What planned Gateways and ListenerSets change for others.
#[derive(Default)]
pub(in crate::compile) struct ParentChanges {
    /// The routes that must be planned again.
    pub routes: BTreeSet<ObjectId>,
    /// In the order in which they changed.
    pub listeners: Vec<ChangedListeners>,
}

/// The listeners of an object that was planned again or deleted.
pub(in crate::compile) struct ChangedListeners {
    pub declared_by: ObjectId,
    /// The Gateway that has the listeners.
    pub gateway: ObjectKey,
    pub listeners: Vec<ListenerId>,
}

/// One update.
struct Planning<'a> {
    cx: CompileContext<'a>,
    secrets: &'a mut SecretCache,
    run: &'a mut CompileRun,
    changes: ParentChanges,
}

impl ParentChanges {
    fn set_listeners(&mut self, declared_by: &ObjectId, gateway: &ObjectKey, listeners: &[ListenerPlan]) {
        self.listeners.push(ChangedListeners {
            declared_by: declared_by.clone(),
            gateway: gateway.clone(),
            listeners: listeners.iter().map(|listener| listener.id.clone()).collect(),
        });
    }
}

impl ParentPlanner {
    /// Plans the touched Gateways and ListenerSets, and those whose ports changed.
    pub(in crate::compile) fn update(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        secrets: &mut SecretCache,
        run: &mut CompileRun,
    ) -> ParentChanges {
        let mut gateways: BTreeSet<ObjectKey> = keys_of_kind(touched, Kind::Gateway).cloned().collect();
        let sets: BTreeSet<ObjectKey> = keys_of_kind(touched, Kind::ListenerSet).cloned().collect();
        // The Gateways that have, or had, a touched ListenerSet.
        let mut gateways_of_sets = BTreeSet::new();
        for key in &sets {
            gateways_of_sets.extend(self.plans.listener_set(key).map(|plan| plan.gateway.clone()));
            let set = cx.store.listener_sets.get(key);
            gateways_of_sets.extend(set.and_then(|set| listener_set::gateway_key(set)));
        }
        if gateways.is_empty() && sets.is_empty() {
            return ParentChanges::default();
        }
        // The labels of a namespace decide whether a Gateway allows its ListenerSets.
        let namespaces_changed = keys_of_kind(touched, Kind::Namespace).next().is_some();
        if self.listener_set_ports.update(cx.store, &sets) || !gateways.is_empty() || namespaces_changed {
            gateways.extend(self.update_port_owners(cx));
        }
        run.objects_planned += gateways.len();
        let mut planning = Planning { cx, secrets, run, changes: ParentChanges::default() };
        for key in &gateways {
            self.plan_gateway(&mut planning, touched, key);
        }
        for key in gateways.union(&gateways_of_sets) {
            let scope = if gateways.contains(key) { SetsToPlan::All } else { SetsToPlan::These(&sets) };
            self.plan_listener_sets(&mut planning, key, scope);
            planning.run.parents_to_update.extend(self.plans.update_overlaps(key));
        }
        for key in sets.iter().filter(|key| self.plans.listener_set(key).is_none()) {
            // Whether it exists changes the verdicts on routes that refer to it.
            let id = ObjectId::new(Kind::ListenerSet, key.clone());
            planning.changes.routes.extend(affected_routes(cx.store, &id, &RouteDifference::All));
            planning.run.parents_to_update.insert(id);
        }
        planning.changes
    }

    /// Updates the owners of ports. Returns the Gateways that may have lost or gained a port.
    fn update_port_owners(&mut self, cx: CompileContext<'_>) -> BTreeSet<ObjectKey> {
        let owners = gateway::port_owners(cx);
        let ports = owners.differing_ports(&self.port_owners);
        self.port_owners = owners;
        if ports.is_empty() {
            return BTreeSet::new();
        }
        let wanting = self.plans.gateways.values().filter(|gateway| {
            let mut listeners = self.plans.listeners_of(gateway);
            listeners.any(|(listener, _)| gateway.wants_port_of(listener, &ports))
        });
        wanting.map(|gateway| gateway.key.clone()).collect()
    }

    fn plan_gateway(&mut self, planning: &mut Planning<'_>, touched: &Changes, key: &ObjectKey) {
        let Planning { cx, secrets, run, changes } = planning;
        let id = ObjectId::new(Kind::Gateway, key.clone());
        let object = cx.store.gateways.get(key);
        let plan = object.and_then(|object| gateway::plan(*cx, &self.port_owners, secrets, object));
        if plan.is_none() {
            run.parents_to_update.insert(id.clone());
        }
        if self.plans.gateways.get(key).map(|plan| &**plan) == plan.as_ref() {
            // The plan did not change. A Gateway without a plan may belong to another controller and have just been
            // created or deleted, which changes the verdicts on routes that refer to it.
            if plan.is_some() || !touched.contains(&id) {
                return;
            }
        }
        run.have_gateways_changed = true;
        let (difference, differs_for_sets) = match (&plan, self.plans.gateways.get(key)) {
            (Some(plan), Some(before)) => (plan.difference_for_routes(before), plan.differs_for_all_routes(before)),
            _ => (RouteDifference::All, true),
        };
        changes.routes.extend(affected_routes(cx.store, &id, &difference));
        let is_default = [plan.as_ref(), self.plans.gateways.get(key).map(|plan| &**plan)]
            .map(|plan| plan.is_some_and(|plan| plan.is_default));
        if is_default[0] != is_default[1] || (is_default[0] && !difference.is_none()) {
            changes.routes.extend(cx.store.dependency_index().users_of_default_gateways().cloned());
        }
        if differs_for_sets {
            for set in allowed_listeners::sets_by_age(cx.store, key) {
                let set = ObjectId::new(Kind::ListenerSet, set.meta.key.clone());
                changes.routes.extend(affected_routes(cx.store, &set, &RouteDifference::All));
            }
        }
        changes.set_listeners(&id, key, plan.as_ref().map_or(&[], |plan| &plan.listeners));
        run.parents_to_update.insert(id);
        self.plans.set_gateway(key, plan);
    }

    /// Plans ListenerSets of a Gateway, and those that conflict with other listeners in another way than before.
    fn plan_listener_sets(&mut self, planning: &mut Planning<'_>, gateway: &ObjectKey, scope: SetsToPlan<'_>) {
        let cx = planning.cx;
        let referring = allowed_listeners::sets_by_age(cx.store, gateway);
        let had_set = |key: &&ObjectKey| self.plans.listener_set(key).is_some_and(|plan| plan.gateway == *gateway);
        let left: Vec<_> = match scope {
            SetsToPlan::All => self.plans.sets_of(gateway).map(|set| set.id.key.clone()).collect(),
            SetsToPlan::These(sets) => sets.iter().filter(had_set).cloned().collect(),
        };
        let object = cx.store.gateways.get(gateway).filter(|_| self.plans.gateways.contains_key(gateway));
        let refers = |key: &ObjectKey| {
            let set = cx.store.listener_sets.get(key);
            set.and_then(|set| listener_set::gateway_key(set)).as_ref() == Some(gateway)
        };
        let is_left = |key: &ObjectKey| object.is_none() || !refers(key);
        for key in left.into_iter().filter(is_left) {
            self.set_listener_set(planning, &key, None);
        }
        match object {
            Some(object) => self.plan_sets_of_served(planning, object, &referring, scope),
            None => {
                let outdated = referring.iter().filter(|set| scope.contains(&set.meta.key));
                let outdated = outdated.map(|set| ObjectId::new(Kind::ListenerSet, set.meta.key.clone()));
                planning.run.parents_to_update.extend(outdated);
            }
        }
    }

    /// `referring`: the ListenerSets that refer to the Gateway, oldest first.
    fn plan_sets_of_served(
        &mut self,
        planning: &mut Planning<'_>,
        gateway: &Object<Gateway>,
        referring: &[&Arc<Object<ListenerSet>>],
        scope: SetsToPlan<'_>,
    ) {
        let cx = planning.cx;
        let Some(gateway_plan) = self.plans.gateways.get(&gateway.meta.key).cloned() else { return };
        let no_addresses = Default::default();
        let assigned = cx.inputs.addresses.get(&gateway.meta.key).unwrap_or(&no_addresses);
        let owners = std::mem::take(&mut self.port_owners);
        let ports = GatewayPorts::new(&gateway.meta.key, assigned, &owners, gateway_plan.is_stopped);
        let is_allowed = |set: &&&Arc<Object<ListenerSet>>| {
            allowed_listeners::allows_namespace(cx.store, gateway, &set.meta.key.namespace)
        };
        let allowed = referring.iter().filter(is_allowed).map(|set| &***set);
        let mut conflicts = listener_conflicts::find_in_sets(
            &gateway.meta.key,
            &gateway.spec.listeners,
            allowed,
            cx.inputs.budgets.gateway_ports,
        );
        let to_plan: BTreeSet<ObjectKey> = match scope {
            SetsToPlan::All => referring.iter().map(|set| set.meta.key.clone()).collect(),
            SetsToPlan::These(sets) => {
                let in_conflict = conflicts.keys().copied().chain(self.plans.sets_in_conflict(&gateway.meta.key));
                in_conflict.chain(sets).cloned().collect()
            }
        };
        for key in &to_plan {
            let set = cx.store.listener_sets.get(key);
            let Some(set) = set.filter(|set| listener_set::gateway_key(set).as_ref() == Some(&gateway.meta.key)) else {
                continue;
            };
            let conflicts = conflicts.remove(key).unwrap_or_default();
            let before = self.plans.listener_set(key);
            if !scope.contains(key) && before.is_some_and(|before| before.conflicts == conflicts) {
                continue;
            }
            planning.run.objects_planned += 1;
            let plan = listener_set::plan(cx, planning.secrets, gateway, &gateway_plan, ports, set, conflicts);
            if before.map(|before| &**before) != Some(&plan) {
                self.set_listener_set(planning, key, Some(plan));
            }
        }
        self.port_owners = owners;
    }

    /// Sets or removes the plan of a ListenerSet.
    fn set_listener_set(
        &mut self,
        planning: &mut Planning<'_>,
        key: &ObjectKey,
        plan: Option<listener_set::ListenerSetPlan>,
    ) {
        let Planning { cx, run, changes, .. } = planning;
        let id = ObjectId::new(Kind::ListenerSet, key.clone());
        run.have_gateways_changed = true;
        run.parents_to_update.insert(id.clone());
        let before = self.plans.set_listener_set(key, plan);
        let after = self.plans.listener_set(key);
        let gateways = [before.as_ref(), after].into_iter().flatten().map(|plan| &plan.gateway);
        run.parents_to_update.extend(gateways.map(|gateway| ObjectId::new(Kind::Gateway, gateway.clone())));
        let difference = match (&before, after) {
            (Some(before), Some(after)) if before.gateway == after.gateway => {
                RouteDifference::between(&after.listeners, &before.listeners)
            }
            _ => RouteDifference::All,
        };
        changes.routes.extend(affected_routes(cx.store, &id, &difference));
        match (after, before) {
            (Some(after), _) => changes.set_listeners(&id, &after.gateway, &after.listeners),
            (None, Some(before)) => changes.set_listeners(&id, &before.gateway, &[]),
            (None, None) => {}
        }
    }
}

/// Which ListenerSets of a Gateway must be planned again.
#[derive(Clone, Copy)]
enum SetsToPlan<'a> {
    All,
    These(&'a BTreeSet<ObjectKey>),
}

impl SetsToPlan<'_> {
    fn contains(self, set: &ObjectKey) -> bool {
        match self {
            SetsToPlan::All => true,
            SetsToPlan::These(sets) => sets.contains(set),
        }
    }
}

/// The routes of a Gateway or ListenerSet that may have to be planned again.
fn affected_routes<'s>(
    store: &'s Store,
    parent: &ObjectId,
    difference: &'s RouteDifference,
) -> impl Iterator<Item = ObjectId> + 's {
    let dependents = (!difference.is_none()).then(|| store.dependency_index().dependents(parent));
    let routes = dependents.into_iter().flatten().filter(|id| RouteKind::of(id.kind).is_some());
    routes.filter(|id| difference.affects(parent_refs(store, id))).cloned()
}
