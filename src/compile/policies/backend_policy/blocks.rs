//! The blocks of a BackendPolicy. Each is taken whole from one policy, so that the halves of two never mix.

use crate::api::portico::{BackendPolicySpec, LoadBalancingSpec};

/// A block of a BackendPolicy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::compile) enum Block {
    /// `loadBalancing` without the session persistence.
    LoadBalancing,
    SessionPersistence,
    /// With `maxEjectionPercent`.
    PassiveHealth,
    ActiveHealth,
    Limits,
    CircuitBreaker,
    Retry,
    RetryBudget,
    Timeouts,
    Failover,
    Subsets,
}

impl Block {
    pub(super) const ALL: [Block; 11] = [
        Block::LoadBalancing,
        Block::SessionPersistence,
        Block::PassiveHealth,
        Block::ActiveHealth,
        Block::Limits,
        Block::CircuitBreaker,
        Block::Retry,
        Block::RetryBudget,
        Block::Timeouts,
        Block::Failover,
        Block::Subsets,
    ];

    /// The path in `spec`.
    pub(in crate::compile) fn path(self) -> &'static str {
        match self {
            Block::LoadBalancing => "loadBalancing",
            Block::SessionPersistence => "loadBalancing.sessionPersistence",
            Block::PassiveHealth => "health.passive",
            Block::ActiveHealth => "health.active",
            Block::Limits => "limits",
            Block::CircuitBreaker => "circuitBreaker",
            Block::Retry => "retry",
            Block::RetryBudget => "retryBudget",
            Block::Timeouts => "timeouts",
            Block::Failover => "failover",
            Block::Subsets => "subsets",
        }
    }

    /// The field of `spec` that contains the block.
    pub(super) fn field(self) -> &'static str {
        self.path().split('.').next().unwrap_or_default()
    }

    /// Whether a policy with mode DryRun computes and counts the block only.
    pub(super) fn has_dry_run(self) -> bool {
        matches!(self, Block::PassiveHealth | Block::ActiveHealth | Block::Limits | Block::CircuitBreaker)
    }

    pub(super) fn is_set(self, spec: &BackendPolicySpec) -> bool {
        let balancing = spec.load_balancing.as_ref();
        let health = spec.health.as_ref();
        match self {
            Block::LoadBalancing => balancing.is_some_and(sets_balancing),
            Block::SessionPersistence => balancing.is_some_and(|balancing| balancing.session_persistence.is_some()),
            Block::PassiveHealth => {
                health.is_some_and(|health| health.passive.is_some() || health.max_ejection_percent.is_some())
            }
            Block::ActiveHealth => health.is_some_and(|health| health.active.is_some()),
            Block::Limits => spec.limits.is_some(),
            Block::CircuitBreaker => spec.circuit_breaker.is_some(),
            Block::Retry => spec.retry.is_some(),
            Block::RetryBudget => spec.retry_budget.is_some(),
            Block::Timeouts => spec.timeouts.is_some(),
            Block::Failover => spec.failover.is_some(),
            Block::Subsets => !spec.subsets.is_empty(),
        }
    }

    /// The blocks that a policy sets.
    pub(super) fn all_in(spec: &BackendPolicySpec) -> impl Iterator<Item = Block> {
        Block::ALL.into_iter().filter(|block| block.is_set(spec))
    }
}

/// Whether `loadBalancing` has more than session persistence. An empty block sets the default algorithm.
fn sets_balancing(balancing: &LoadBalancingSpec) -> bool {
    let without_sessions = LoadBalancingSpec { session_persistence: None, ..balancing.clone() };
    without_sessions != LoadBalancingSpec::default() || balancing.session_persistence.is_none()
}

/// The names of some of the blocks that a policy sets, for messages: a field of `spec` where all its blocks that the
/// policy sets are among them, and the path of the block otherwise.
pub(super) fn names(blocks: &[Block], spec: &BackendPolicySpec) -> String {
    let mut names: Vec<&'static str> = Vec::new();
    for block in blocks {
        let mut siblings = Block::all_in(spec).filter(|sibling| sibling.field() == block.field());
        let name = if siblings.all(|sibling| blocks.contains(&sibling)) { block.field() } else { block.path() };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

/// The verb for a list of blocks with these names.
pub(super) fn is_or_are(names: &str) -> &'static str {
    if names.contains(" and ") { "are" } else { "is" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(blocks: serde_json::Value) -> BackendPolicySpec {
        let mut spec = json!({"targetRefs": []});
        spec.as_object_mut().unwrap().extend(blocks.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn blocks_are_found_and_named() {
        let cases = [
            (json!({}), "", ""),
            (json!({"loadBalancing": {}}), "loadBalancing", "loadBalancing"),
            (json!({"loadBalancing": {"sessionPersistence": {}}}), "loadBalancing.sessionPersistence", "loadBalancing"),
            (
                json!({"loadBalancing": {"algorithm": "Random", "sessionPersistence": {}}}),
                "loadBalancing loadBalancing.sessionPersistence",
                "loadBalancing",
            ),
            (json!({"health": {}}), "", ""),
            (json!({"health": {"maxEjectionPercent": 10}}), "health.passive", "health"),
            (
                json!({"health": {"passive": {}, "active": {}}, "limits": {}, "retry": {}}),
                "health.passive health.active limits retry",
                "health, limits and retry",
            ),
            (
                json!({"circuitBreaker": {}, "retryBudget": {}, "timeouts": {}, "failover": {"backendRefs": []},
                    "subsets": [{"name": "a", "matchLabels": {}}]}),
                "circuitBreaker retryBudget timeouts failover subsets",
                "circuitBreaker, retryBudget, timeouts, failover and subsets",
            ),
        ];
        for (blocks, expected, expected_names) in cases {
            let spec = spec(blocks);
            let blocks: Vec<Block> = Block::all_in(&spec).collect();
            let paths: Vec<&str> = blocks.iter().map(|block| block.path()).collect();
            assert_eq!(paths.join(" "), expected);
            assert_eq!(names(&blocks, &spec), expected_names);
        }
        let both = spec(json!({"health": {"passive": {}, "active": {}}}));
        assert_eq!(names(&[Block::ActiveHealth], &both), "health.active", "not all of health");
        assert!(Block::ALL.is_sorted());
    }
}
