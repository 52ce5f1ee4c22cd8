//! What the rules that send requests to a target set themselves: their fields and annotations precede policies.

use std::collections::{BTreeMap, BTreeSet};

use super::blocks::Block;
use super::policy_target::is_of_target;
use crate::api::portico::{BackendPolicy, BackendPolicySpec};
use crate::compile::policies::target::{Target, TargetedPolicy};
use crate::compile::policies::users::ServedUsers;
use crate::snapshot::rule::{BackendTarget, RuleId, WeightedBackends};
use crate::store::Store;

/// The rules of a target that set a block themselves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OwnRules {
    /// `rule list of HTTPRoute shop/web`: the first ones.
    pub named: Vec<String>,
    pub count: usize,
    /// Whether all rules of the target are among them.
    pub are_all: bool,
}

/// By block, the rules that set it themselves, for the blocks of a policy that rules can set.
pub(super) fn own_rules(
    store: &Store,
    target: &Target<'_>,
    blocks: &BTreeSet<Block>,
    served: &impl ServedUsers,
) -> BTreeMap<Block, OwnRules> {
    let blocks: Vec<Block> = blocks.iter().copied().filter(|block| SETTABLE.contains(block)).collect();
    let mut own: BTreeMap<Block, OwnRules> = BTreeMap::new();
    if blocks.is_empty() {
        return own;
    }
    let ports = ports(store, target);
    let mut total = 0;
    let mut visit = |id: &RuleId, split: &WeightedBackends| {
        let upstreams = split.all_backends().filter_map(|backend| match &backend.target {
            BackendTarget::Upstream(upstream) => Some(&upstream.key),
            BackendTarget::Fail(_) => None,
        });
        if !upstreams.into_iter().any(|upstream| is_of_target(upstream, target, ports.as_ref())) {
            return;
        }
        total += 1;
        for block in blocks.iter().filter(|block| sets(split, **block)) {
            let rules = own.entry(*block).or_default();
            rules.count += 1;
            if rules.named.len() < MAX_NAMED {
                rules.named.push(format!("rule {} of {}", id.rule, id.route.replacen('/', " ", 1)));
            }
        }
    };
    let index = store.dependency_index();
    for kind in BackendPolicy::USERS {
        for user in index.dependents_of_kind(&target.object_id(), *kind) {
            served.visit_rules(user, &mut visit);
        }
    }
    for rules in own.values_mut() {
        rules.are_all = rules.count == total;
    }
    own
}

/// The blocks that rules can set.
const SETTABLE: [Block; 3] = [Block::SessionPersistence, Block::Retry, Block::Timeouts];
/// How many rules a message names.
const MAX_NAMED: usize = 3;

/// Whether a rule with these backends has settings of its own in place of a block.
fn sets(split: &WeightedBackends, block: Block) -> bool {
    let own = split.timeouts_and_retries.as_deref();
    match block {
        Block::SessionPersistence => split.affinity().is_some(),
        Block::Retry => own.is_some_and(|own| own.retry.is_some() && !own.retry_is_of_service),
        Block::Timeouts => own.is_some_and(|own| own.sets_response_timeout()),
        _ => false,
    }
}

/// Whether a block has an effect whatever the rules set: connections are those of all rules.
pub(super) fn has_parts_for_all_rules(block: Block, spec: &BackendPolicySpec) -> bool {
    let timeouts = spec.timeouts.as_ref().filter(|_| block == Block::Timeouts);
    timeouts.is_some_and(|timeouts| timeouts.connect.is_some() || timeouts.idle.is_some())
}

/// The numbers of the ports that a target is limited to.
fn ports(store: &Store, target: &Target<'_>) -> Option<BTreeSet<i32>> {
    let section = target.section?;
    let service = store.services.get(&target.key);
    let ports = service.into_iter().flat_map(|service| &service.spec.ports);
    Some(ports.filter(|port| port.name == section).map(|port| port.port).collect())
}

/// Which rules precede a policy: `rule list of HTTPRoute shop/web, which sets it itself`.
pub(super) fn described(rules: &OwnRules, pronoun: &str) -> String {
    let OwnRules { named, count, are_all } = rules;
    let mut names = named.join(", ");
    if let Some(more) = count.checked_sub(named.len()).filter(|more| *more > 0) {
        names.push_str(&format!(" and {more} more"));
    }
    let verb = if *count == 1 { "sets" } else { "set" };
    let itself = if *count == 1 { "itself" } else { "themselves" };
    let all = if *are_all { "any rule: " } else { "" };
    let which = if *are_all { "" } else { ", which" };
    format!("{all}{names}{which} {verb} {pronoun} {itself}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_named() {
        let rules = |count: usize, are_all| OwnRules {
            named: (0..count.min(MAX_NAMED)).map(|number| format!("rule {number} of HTTPRoute shop/web")).collect(),
            count,
            are_all,
        };
        for (rules, pronoun, expected) in [
            (rules(1, false), "it", "rule 0 of HTTPRoute shop/web, which sets it itself"),
            (rules(1, true), "it", "any rule: rule 0 of HTTPRoute shop/web sets it itself"),
            (
                rules(2, true),
                "them",
                "any rule: rule 0 of HTTPRoute shop/web, rule 1 of HTTPRoute shop/web set them themselves",
            ),
            (
                rules(5, false),
                "it",
                "rule 0 of HTTPRoute shop/web, rule 1 of HTTPRoute shop/web, rule 2 of HTTPRoute shop/web and 2 more, \
                 which set it themselves",
            ),
        ] {
            assert_eq!(described(&rules, pronoun), expected);
        }
    }
}
