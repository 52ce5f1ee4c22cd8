//! The plans of the objects that routes attach to: Gateways and ListenerSets.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::gateway::{ALL_DEFAULT_GATEWAYS, ParentReference};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::compile::gateways::gateway::GatewayPlan;
use crate::compile::gateways::listener::{ListenerId, ListenerPlan};
use crate::compile::gateways::listener_overlaps;
use crate::compile::gateways::listener_set::ListenerSetPlan;
use crate::snapshot::certs::Certificates;
use crate::verdict::Condition;

pub(in crate::compile) type PlanMap<T> = BTreeMap<ObjectKey, Arc<T>>;

/// The plans of all served Gateways and their ListenerSets.
#[derive(Debug, Default)]
pub(in crate::compile) struct ParentPlans {
    pub gateways: PlanMap<GatewayPlan>,
    /// Those to which routes attach without naming them.
    default_gateways: BTreeSet<ObjectKey>,
    listener_sets: PlanMap<ListenerSetPlan>,
    /// The same plans by Gateway, because a Gateway may have thousands of ListenerSets.
    sets_by_gateway: BTreeMap<ObjectKey, SetsOfGateway>,
    /// The listeners of each Gateway that overlap with another one of it.
    overlaps: BTreeMap<ObjectKey, BTreeMap<ListenerId, Condition>>,
}

#[derive(Debug, Default)]
struct SetsOfGateway {
    plans: PlanMap<ListenerSetPlan>,
    /// Those with listeners that others refuse: an edit of any other may end the conflict.
    in_conflict: BTreeSet<ObjectKey>,
}

/// An object that a route refers to as its parent.
#[derive(Clone, Copy)]
pub(in crate::compile) struct PlannedParent<'a> {
    /// The object itself, or the Gateway of the ListenerSet.
    pub gateway: &'a GatewayPlan,
    pub kind: Kind,
    pub key: &'a ObjectKey,
    pub listeners: &'a [ListenerPlan],
}

impl ParentPlans {
    /// The Gateway or ListenerSet that `reference` leads to from a route of this namespace; `None` if it is not served.
    pub(in crate::compile) fn parent(
        &self,
        route_namespace: &str,
        reference: &ParentReference,
    ) -> Option<PlannedParent<'_>> {
        let id = parent_id(route_namespace, reference)?;
        match id.kind {
            Kind::Gateway => {
                let gateway = self.gateways.get(&id.key)?;
                Some(PlannedParent { gateway, kind: id.kind, key: &gateway.key, listeners: &gateway.listeners })
            }
            _ => {
                let set = self.listener_sets.get(&id.key)?;
                let gateway = self.gateways.get(&set.gateway)?;
                Some(PlannedParent { gateway, kind: id.kind, key: &set.id.key, listeners: &set.listeners })
            }
        }
    }

    /// The parents of a route of this namespace: those that it names, and the default Gateways, if its field
    /// `useDefaultGateways` is `default_scope`.
    pub(in crate::compile) fn parents_of<'a>(
        &self,
        route_namespace: &str,
        named: &'a [ParentReference],
        default_scope: Option<&str>,
    ) -> Cow<'a, [ParentReference]> {
        if default_scope != Some(ALL_DEFAULT_GATEWAYS) || self.default_gateways.is_empty() {
            return Cow::Borrowed(named);
        }
        let is_named = |gateway: &ObjectKey| {
            named.iter().any(|parent| {
                let is_whole = parent.section_name.is_none() && parent.port.is_none();
                let id = parent_id(route_namespace, parent).filter(|_| is_whole);
                id.is_some_and(|id| id.kind == Kind::Gateway && id.key == *gateway)
            })
        };
        let unnamed = self.default_gateways.iter().filter(|gateway| !is_named(gateway));
        let defaults = unnamed.map(|key| ParentReference::of_gateway(&key.namespace, &key.name));
        Cow::Owned(named.iter().cloned().chain(defaults).collect())
    }

    /// Whether there are default Gateways.
    pub(in crate::compile) fn has_default_gateways(&self) -> bool {
        !self.default_gateways.is_empty()
    }

    /// Sets or removes a plan.
    pub(in crate::compile) fn set_gateway(&mut self, key: &ObjectKey, plan: Option<GatewayPlan>) {
        match plan {
            Some(plan) => {
                match plan.is_default {
                    true => self.default_gateways.insert(key.clone()),
                    false => self.default_gateways.remove(key),
                };
                self.gateways.insert(key.clone(), Arc::new(plan));
            }
            None => {
                self.default_gateways.remove(key);
                self.gateways.remove(key);
            }
        }
    }

    pub(in crate::compile) fn listener_set(&self, key: &ObjectKey) -> Option<&Arc<ListenerSetPlan>> {
        self.listener_sets.get(key)
    }

    /// The ListenerSets of a Gateway, by name.
    pub(in crate::compile) fn sets_of(&self, gateway: &ObjectKey) -> impl Iterator<Item = &Arc<ListenerSetPlan>> {
        self.sets_by_gateway.get(gateway).into_iter().flat_map(|sets| sets.plans.values())
    }

    /// The ListenerSets of a Gateway with listeners that others refuse.
    pub(in crate::compile) fn sets_in_conflict(&self, gateway: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.sets_by_gateway.get(gateway).into_iter().flat_map(|sets| &sets.in_conflict)
    }

    /// The listeners of a Gateway, then those of its ListenerSets, with their certificates.
    pub(in crate::compile) fn listeners_of<'a>(
        &'a self,
        gateway: &'a GatewayPlan,
    ) -> impl Iterator<Item = (&'a ListenerPlan, &'a Arc<Certificates>)> {
        let own = gateway.listeners.iter().zip(&gateway.certificates);
        own.chain(self.sets_of(&gateway.key).flat_map(|set| set.listeners.iter().zip(&set.certificates)))
    }

    /// A listener of a Gateway or of one of its ListenerSets.
    pub(in crate::compile) fn listener(&self, gateway: &ObjectKey, id: &ListenerId) -> Option<&ListenerPlan> {
        let listeners = match id.declared_by.kind {
            Kind::Gateway => &self.gateways.get(gateway)?.listeners,
            _ => &self.listener_sets.get(&id.declared_by.key)?.listeners,
        };
        listeners.iter().find(|listener| listener.id == *id)
    }

    /// Sets or removes a plan, and returns the plan before.
    pub(in crate::compile) fn set_listener_set(
        &mut self,
        key: &ObjectKey,
        plan: Option<ListenerSetPlan>,
    ) -> Option<Arc<ListenerSetPlan>> {
        let before = self.listener_sets.remove(key);
        if let Some(before) = &before
            && let Some(sets) = self.sets_by_gateway.get_mut(&before.gateway)
        {
            sets.plans.remove(key);
            sets.in_conflict.remove(key);
            if sets.plans.is_empty() {
                self.sets_by_gateway.remove(&before.gateway);
            }
        }
        if let Some(plan) = plan.map(Arc::new) {
            let sets = self.sets_by_gateway.entry(plan.gateway.clone()).or_default();
            sets.plans.insert(key.clone(), Arc::clone(&plan));
            if !plan.conflicts.is_empty() {
                sets.in_conflict.insert(key.clone());
            }
            self.listener_sets.insert(key.clone(), plan);
        }
        before
    }

    /// Finds the overlapping listeners of a Gateway again. Returns the objects whose listeners overlap in another way
    /// than before.
    pub(in crate::compile) fn update_overlaps(&mut self, gateway: &ObjectKey) -> BTreeSet<ObjectId> {
        let overlaps = self.gateways.get(gateway).map(|plan| self.find_overlaps(plan)).unwrap_or_default();
        let before = self.overlaps.remove(gateway).unwrap_or_default();
        let listeners = before.keys().chain(overlaps.keys());
        let changed = listeners.filter(|listener| before.get(*listener) != overlaps.get(*listener));
        let changed = changed.map(|listener| listener.declared_by.clone()).collect();
        if !overlaps.is_empty() {
            self.overlaps.insert(gateway.clone(), overlaps);
        }
        changed
    }

    fn find_overlaps(&self, gateway: &GatewayPlan) -> BTreeMap<ListenerId, Condition> {
        let listeners = self.listeners_of(gateway).map(|(listener, certificates)| (listener, &**certificates));
        let overlaps = listener_overlaps::find(listeners);
        if overlaps.is_empty() {
            return BTreeMap::new();
        }
        let listeners = self.listeners_of(gateway).enumerate();
        let overlapping = listeners
            .filter_map(|(position, (listener, _))| Some((listener.id.clone(), overlaps.get(&position)?.clone())));
        overlapping.collect()
    }

    /// The condition that a listener of a Gateway overlaps with another one.
    pub(in crate::compile) fn overlap(&self, gateway: &ObjectKey, listener: &ListenerId) -> Option<&Condition> {
        self.overlaps.get(gateway)?.get(listener)
    }
}

/// The Gateway or ListenerSet that `reference` leads to from a route of this namespace; `None` for other kinds.
pub(in crate::compile) fn parent_id(route_namespace: &str, reference: &ParentReference) -> Option<ObjectId> {
    let kind = Kind::find(&reference.group, &reference.kind)?;
    let namespace = reference.namespace.as_deref().unwrap_or(route_namespace);
    matches!(kind, Kind::Gateway | Kind::ListenerSet)
        .then(|| ObjectId::new(kind, ObjectKey::new(namespace, &reference.name)))
}
