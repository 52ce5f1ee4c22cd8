//! The settings of an upstream: those of BackendPolicies, and of other sources for blocks that no policy has.

use super::blocks::{Block, BlockSettings};
use super::layers::{first_with_block, policies_of_upstream};
use super::policy_target::PolicyTarget;
use crate::api::Object;
use crate::api::portico::{BackendPolicy, BackendPolicySpec};
use crate::compile::policies::target::TargetKind;
use crate::store::Store;
use crate::upstream::settings::Balancing;
use crate::upstream::{BackendTraffic, UpstreamKey};

/// Applies the policies for an upstream to the settings of other sources, which have a lower precedence.
pub(in crate::compile) fn apply(
    store: &Store,
    upstream: &UpstreamKey,
    balance: Balancing,
    traffic: BackendTraffic,
) -> (Balancing, BackendTraffic) {
    let policies = policies_of_upstream(store, upstream);
    if policies.is_empty() {
        return (balance, traffic);
    }
    let owner = PolicyTarget::of_upstream(store, upstream);
    let mode = DryRun::of(&policies);
    let absent = BackendPolicySpec::default();
    let mut settings = BlockSettings { balance, traffic };
    for block in Block::ALL {
        let Some(policy) = first_with_block(&policies, block) else { continue };
        if block.has_dry_run() && mode == DryRun::Mixed && is_dry_run(policy) {
            continue;
        }
        let mut changed = settings.clone();
        match block.translate(&policy.spec, &owner, &mut changed).as_slice() {
            [] => settings = changed,
            // A block with problems has no effect, and the verdict on the policy says so. It displaces those of other
            // sources nevertheless.
            _ => drop(block.translate(&absent, &owner, &mut settings)),
        }
    }
    let BlockSettings { balance, mut traffic } = settings;
    traffic.is_dry_run = mode == DryRun::All;
    (balance, traffic)
}

/// The mode of the policies whose health checks, limits and circuit breaker are those of one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DryRun {
    None,
    All,
    /// An upstream has one mode. The blocks of policies with mode DryRun have no effect at all, since they must not be
    /// enforced.
    Mixed,
}

impl DryRun {
    pub(super) fn of(policies: &[&Object<BackendPolicy>]) -> DryRun {
        let blocks = Block::ALL.into_iter().filter(|block| block.has_dry_run());
        let modes = blocks.filter_map(|block| first_with_block(policies, block)).map(|policy| is_dry_run(policy));
        let (mut is_dry, mut is_enforced) = (false, false);
        modes.for_each(|mode| if mode { is_dry = true } else { is_enforced = true });
        match (is_dry, is_enforced) {
            (false, _) => DryRun::None,
            (true, false) => DryRun::All,
            (true, true) => DryRun::Mixed,
        }
    }
}

/// Whether a block of a policy is valid, and may be enforced or counted where these policies apply.
pub(in crate::compile) fn is_enforceable(
    block: Block,
    policy: &Object<BackendPolicy>,
    policies: &[&Object<BackendPolicy>],
) -> bool {
    // Problems do not depend on the target.
    let target = PolicyTarget::new(TargetKind::Service, &policy.meta.key);
    let is_left_out = block.has_dry_run() && DryRun::of(policies) == DryRun::Mixed && is_dry_run(policy);
    !is_left_out && block.translate(&policy.spec, &target, &mut BlockSettings::default()).is_empty()
}

pub(super) fn is_dry_run(policy: &BackendPolicy) -> bool {
    policy.spec.mode.as_deref() == Some("DryRun")
}
