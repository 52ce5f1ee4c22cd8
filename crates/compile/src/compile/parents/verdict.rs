//! The verdict on a Gateway or ListenerSet.

use super::plans::ParentPlans;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::gateways::gateway::{self, ListenerState};
use crate::compile::gateways::listener::ListenerId;
use crate::compile::gateways::listener_set;
use crate::verdict::{Condition, Verdict};

/// `None` if the object does not exist. `attached_routes`: how many routes are attached to each listener.
pub(in crate::compile) fn verdict(
    cx: CompileContext<'_>,
    plans: &ParentPlans,
    attached_routes: &dyn Fn(&ListenerId) -> u32,
    id: &ObjectId,
) -> Option<Verdict> {
    let key = &id.key;
    if id.kind == Kind::Gateway {
        let Some(plan) = plans.gateways.get(key) else {
            return cx.store.gateways.get(key).map(|object| gateway::foreign_verdict(cx, object));
        };
        let mut sets = plans.sets_of(key).peekable();
        let attached_sets = sets.peek().is_some().then(|| {
            let accepted = sets.filter(|set| set.is_accepted()).count();
            u32::try_from(accepted).unwrap_or(u32::MAX)
        });
        return Some(plan.verdict(&ListenersOfGateway { gateway: key, plans, attached_routes }, attached_sets));
    }
    let set = plans.listener_set(key);
    match set.and_then(|set| Some((set, plans.gateways.get(&set.gateway)?))) {
        Some((set, gateway)) => {
            let state = ListenersOfGateway { gateway: &set.gateway, plans, attached_routes };
            Some(set.verdict(gateway, &state))
        }
        None => listener_set::foreign_verdict(cx.store, key),
    }
}

/// The state of the listeners of a Gateway and its ListenerSets.
struct ListenersOfGateway<'a> {
    gateway: &'a ObjectKey,
    plans: &'a ParentPlans,
    attached_routes: &'a dyn Fn(&ListenerId) -> u32,
}

impl ListenerState for ListenersOfGateway<'_> {
    fn attached_routes(&self, listener: &ListenerId) -> u32 {
        (self.attached_routes)(listener)
    }

    fn overlap(&self, listener: &ListenerId) -> Option<&Condition> {
        self.plans.overlap(self.gateway, listener)
    }
}
