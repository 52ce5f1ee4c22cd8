//! The blocks of a BackendPolicy. Each is taken whole from one policy, so that the halves of two never mix.
//!
//! Whatever differs between the blocks is in this file: their paths, where the policy has them, and the settings that
//! they become, with a file for the fields of each.

mod active_check;
mod block_reader;
mod circuit_breaker;
mod failover;
mod health;
mod limits;
mod load_balancing;
mod request_hash;
mod retry;
mod session;
mod timeouts;

use std::sync::Arc;

use block_reader::BlockReader;
pub(in crate::compile) use failover::failover_settings;
pub(super) use load_balancing::failover_level;
pub(super) use timeouts::notes as timeout_notes;

use super::policy_target::PolicyTarget;
use crate::api::portico::{BackendPolicySpec, LoadBalancingSpec};
use crate::diagnostic::Diagnostic;
use crate::upstream::BackendTraffic;
use crate::upstream::settings::{Balancing, HealthSettings};

/// The settings of an upstream, of which each block sets a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BlockSettings {
    pub balance: Balancing,
    pub traffic: BackendTraffic,
}

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

    /// Sets what the block says, or its default if it is absent. Returns the problems: with one, the settings are not
    /// to be used.
    pub(super) fn translate(
        self,
        spec: &BackendPolicySpec,
        target: &PolicyTarget,
        settings: &mut BlockSettings,
    ) -> Vec<Diagnostic> {
        let BlockSettings { balance, traffic } = settings;
        let mut problems = Vec::new();
        let path = if self == Block::PassiveHealth { "health" } else { self.path() };
        let reader = &mut BlockReader::new(format!("spec.{path}"), &mut problems);
        match self {
            Block::LoadBalancing => {
                let block = spec.load_balancing.as_ref();
                *balance = block.map(|spec| load_balancing::translate(spec, reader)).unwrap_or_default();
            }
            Block::SessionPersistence => {
                let block = spec.load_balancing.as_ref().and_then(|spec| spec.session_persistence.as_ref());
                traffic.affinity = block.and_then(|spec| session::translate(spec, &target.owner, &mut problems));
            }
            Block::PassiveHealth => {
                let active = traffic.health.as_ref().and_then(|health| health.active.clone());
                let passive = spec.health.as_ref().map(|spec| health::translate(spec, reader));
                let is_set = passive.is_some() || active.is_some();
                let health = HealthSettings { active, ..passive.unwrap_or_default() };
                traffic.health = is_set.then(|| Arc::new(health));
            }
            Block::ActiveHealth => {
                let block = spec.health.as_ref().and_then(|health| health.active.as_ref());
                let check = block.and_then(|spec| active_check::translate(spec, &target.host, reader));
                if check.is_some() || traffic.health.is_some() {
                    let passive = traffic.health.as_deref().cloned().unwrap_or_default();
                    traffic.health = Some(Arc::new(HealthSettings { active: check.map(Arc::new), ..passive }));
                }
            }
            Block::Limits => {
                traffic.overload.limits = spec.limits.as_ref().map(|spec| Arc::new(limits::translate(spec, reader)));
            }
            Block::CircuitBreaker => {
                let block = spec.circuit_breaker.as_ref();
                traffic.overload.circuit_breaker = block.map(|spec| Arc::new(circuit_breaker::translate(spec, reader)));
            }
            Block::Retry => {
                traffic.retries = spec.retry.as_ref().map(|spec| Arc::new(retry::translate(spec, reader)));
            }
            Block::RetryBudget => {
                traffic.retry_limits = spec.retry_budget.as_ref().map(|spec| retry::retry_limits(spec, reader));
            }
            Block::Timeouts => {
                traffic.timeouts = spec.timeouts.as_ref().map(|spec| Arc::new(timeouts::translate(spec, reader)));
            }
            // The settings refer to other upstreams, so they are not those of one upstream.
            Block::Failover => drop(spec.failover.as_ref().map(|spec| failover_settings(spec, &mut problems))),
            Block::Subsets => {}
        }
        problems
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
    use crate::api::ObjectKey;
    use crate::compile::policies::target::TargetKind;

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

    #[test]
    fn an_absent_block_resets_its_settings_only() {
        let target = PolicyTarget::new(TargetKind::Service, &ObjectKey::new("shop", "cart"));
        let present = spec(json!({
            "loadBalancing": {"algorithm": "Random", "sessionPersistence": {}}, "health": {"passive": {}, "active": {}},
            "limits": {"maxRequests": 5}, "circuitBreaker": {}, "retry": {}, "retryBudget": {}, "timeouts": {},
        }));
        let absent = spec(json!({}));
        let mut all = BlockSettings::default();
        for block in Block::ALL {
            assert!(block.translate(&present, &target, &mut all).is_empty(), "{}", block.path());
        }
        let mut settings = all.clone();
        for (position, block) in Block::ALL.iter().enumerate() {
            block.translate(&absent, &target, &mut settings);
            // The blocks that follow are still those of the policy.
            let mut expected = BlockSettings::default();
            for following in &Block::ALL[position + 1..] {
                following.translate(&present, &target, &mut expected);
            }
            // No settings of health checks are those by default.
            for settings in [&mut settings, &mut expected] {
                settings.traffic.health.get_or_insert_default();
            }
            assert_eq!(settings, expected, "{}", block.path());
        }
        assert_ne!(all, BlockSettings::default());
    }
}
