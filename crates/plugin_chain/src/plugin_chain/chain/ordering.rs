//! The order of the access phase in a chain of which some plugins have the field `ordering`. Other phases run in the
//! order of the priorities.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attachment::BaseScope;
use super::slot::ChainSlot;
use crate::plugin_api::instance::ExecutionPlace;

/// The plugins before and after which one runs in the access phase, by the names of their kinds. Those that the chain
/// does not have are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessOrdering {
    pub before: Vec<String>,
    pub after: Vec<String>,
}

/// The orderings of the plugins of a chain: of each kind, that of the base instance.
#[derive(Debug, Default)]
pub(super) struct Orderings(BTreeMap<&'static str, (BaseScope, Option<Arc<AccessOrdering>>)>);

/// Kinds of plugins of which each would have to run before the next one, and the last before the first.
pub(super) type OrderingCycle = Vec<&'static str>;

impl Orderings {
    /// Sets the ordering of an instance. As with instances, the most specific one counts, and of those the first.
    pub(super) fn add(&mut self, kind: &'static str, base: BaseScope, ordering: Option<&Arc<AccessOrdering>>) {
        let known = self.0.entry(kind).or_insert_with(|| (base, ordering.cloned()));
        if base < known.0 {
            *known = (base, ordering.cloned());
        }
    }

    /// Moves slots, which are in the order of their priorities, and sets their turns. Returns whether one moved. If the
    /// orderings contradict each other, none moves.
    pub(super) fn arrange(&self, slots: &mut Vec<ChainSlot>) -> bool {
        let places: Vec<_> = slots.iter().map(|slot| slot.place).collect();
        let Ok(order) = self.access_order(&places) else { return false };
        let mut remaining: Vec<_> = std::mem::take(slots).into_iter().map(Some).collect();
        for (position, turn) in order {
            if let Some(mut slot) = remaining[position].take() {
                slot.turn = places[turn];
                slots.push(slot);
            }
        }
        slots.iter().any(ChainSlot::is_moved)
    }

    /// The order of plugins at these places, which are sorted: for each, its position among the places, and the
    /// position whose turn it gets.
    ///
    /// As in Kong, the plugins take their turns by priority, and what must run before one is placed directly before it.
    pub(super) fn access_order(&self, places: &[ExecutionPlace]) -> Result<Vec<(usize, usize)>, OrderingCycle> {
        let mut walk = DepthFirstWalk {
            places,
            earlier: vec![BTreeSet::new(); places.len()],
            path: Vec::new(),
            order: Vec::new(),
        };
        let position = |name: &str| places.iter().position(|place| place.kind == name);
        for (kind, (_, ordering)) in &self.0 {
            let Some((ordering, own)) = ordering.as_ref().zip(position(kind)) else { continue };
            for other in ordering.before.iter().filter_map(|name| position(name)) {
                walk.earlier[other].insert(own);
            }
            walk.earlier[own].extend(ordering.after.iter().filter_map(|name| position(name)));
        }
        for turn in 0..places.len() {
            walk.place(turn, turn)?;
        }
        Ok(walk.order)
    }
}

/// The walk through the plugins of a chain.
struct DepthFirstWalk<'a> {
    places: &'a [ExecutionPlace],
    /// By position, what must run earlier.
    earlier: Vec<BTreeSet<usize>>,
    /// What waits for the current plugin to be placed.
    path: Vec<usize>,
    order: Vec<(usize, usize)>,
}

impl DepthFirstWalk<'_> {
    /// Each plugin is placed once, so the depth is at most the number of kinds.
    fn place(&mut self, position: usize, turn: usize) -> Result<(), OrderingCycle> {
        if self.order.iter().any(|(placed, _)| *placed == position) {
            return Ok(());
        }
        if let Some(start) = self.path.iter().position(|waiting| *waiting == position) {
            // What is deeper in the path must run earlier.
            return Err(self.path[start..].iter().rev().map(|position| self.places[*position].kind).collect());
        }
        self.path.push(position);
        for earlier in self.earlier[position].clone() {
            self.place(earlier, turn)?;
        }
        self.path.pop();
        self.order.push((position, turn));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 5] = ["cors", "key-auth", "acl", "rate-limiting", "request-transformer"];

    /// The order of the plugins above, of which some have an ordering: `a<b` of the first one before the second, `a>b`
    /// of the first one after the second.
    fn order_with(rules: &[&str]) -> Result<String, OrderingCycle> {
        let priorities = (0..KINDS.len()).rev().map(|priority| i32::try_from(priority).unwrap());
        let places: Vec<_> =
            KINDS.into_iter().zip(priorities).map(|(kind, priority)| ExecutionPlace { kind, priority }).collect();
        let mut by_kind: BTreeMap<&'static str, AccessOrdering> = BTreeMap::new();
        for rule in rules {
            let (own, is_before, other) = match (rule.split_once('<'), rule.split_once('>')) {
                (Some((own, other)), _) => (own, true, other),
                (_, Some((own, other))) => (own, false, other),
                _ => panic!("{rule}"),
            };
            let own = KINDS.into_iter().find(|kind| *kind == own).unwrap();
            let ordering = by_kind.entry(own).or_default();
            if is_before { &mut ordering.before } else { &mut ordering.after }.push(other.to_owned());
        }
        let mut orderings = Orderings::default();
        for (kind, ordering) in by_kind {
            orderings.add(kind, BaseScope::Route, Some(&Arc::new(ordering)));
        }
        let order = orderings.access_order(&places)?;
        Ok(order.iter().map(|(position, _)| places[*position].kind).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_must_run_earlier_is_placed_directly_before() {
        for (rules, expected) in [
            (&[][..], "cors key-auth acl rate-limiting request-transformer"),
            (&["rate-limiting<key-auth"], "cors rate-limiting key-auth acl request-transformer"),
            // The same rule, written on the other plugin.
            (&["key-auth>rate-limiting"], "cors rate-limiting key-auth acl request-transformer"),
            (
                &["rate-limiting<key-auth", "request-transformer<rate-limiting"],
                "cors request-transformer rate-limiting key-auth acl",
            ),
            // Both before one: by their priorities.
            (&["request-transformer<cors", "acl<cors"], "acl request-transformer cors key-auth rate-limiting"),
            (&["key-auth<acl"], "cors key-auth acl rate-limiting request-transformer"),
            (&["acl<missing"], "cors key-auth acl rate-limiting request-transformer"),
        ] {
            assert_eq!(order_with(rules).as_deref(), Ok(expected), "{rules:?}");
        }
    }

    #[test]
    fn contradictions_are_found() {
        for (rules, expected) in [
            (&["acl<cors", "cors<acl"][..], &["acl", "cors"][..]),
            (&["acl>cors", "cors>acl"], &["acl", "cors"]),
            (&["acl<key-auth", "cors<acl", "key-auth<cors"], &["key-auth", "cors", "acl"]),
        ] {
            let cycle = order_with(rules).unwrap_err();
            let names = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<BTreeSet<_>>();
            assert_eq!(names(&cycle), names(expected), "{rules:?}");
        }
    }

    #[test]
    fn most_specific_instance_decides() {
        let places = ["a", "b"].map(|kind| ExecutionPlace { kind, priority: if kind == "a" { 2 } else { 1 } });
        let before_a = Arc::new(AccessOrdering { before: vec!["a".to_owned()], after: Vec::new() });
        let mut orderings = Orderings::default();
        orderings.add("b", BaseScope::Global, Some(&before_a));
        assert_eq!(orderings.access_order(&places), Ok(vec![(1, 0), (0, 0)]));
        orderings.add("b", BaseScope::Route, None);
        orderings.add("b", BaseScope::Service, Some(&before_a));
        assert_eq!(orderings.access_order(&places), Ok(vec![(0, 0), (1, 1)]));
    }
}
