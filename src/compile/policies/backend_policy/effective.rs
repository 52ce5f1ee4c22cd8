//! The settings of an upstream: those of BackendPolicies, and of other sources for blocks that no policy has.

use std::sync::Arc;

use super::block_reader::BlockReader;
use super::blocks::Block;
use super::layers::{backend_key, first_with_block, policies_of_upstream};
use super::{active_check, circuit_breaker, failover, health, limits, load_balancing, retry, session, timeouts};
use crate::api::portico::{BackendPolicy, BackendPolicySpec};
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::policies::target::TargetKind;
use crate::diagnostic::Diagnostic;
use crate::store::Store;
use crate::upstream::settings::{
    ActiveCheck, Balancing, CircuitBreakerSettings, HealthSettings, RequestLimits, RequestTimeouts, RetrySettings,
};
use crate::upstream::{AffinitySettings, BackendTraffic, RetryLimits, UpstreamKey, UpstreamSource};

/// Applies the policies for an upstream to the settings of other sources, which have a lower precedence.
pub(in crate::compile) fn apply(
    store: &Store,
    upstream: &UpstreamKey,
    mut balance: Balancing,
    mut traffic: BackendTraffic,
) -> (Balancing, BackendTraffic) {
    let policies = policies_of_upstream(store, upstream);
    if policies.is_empty() {
        return (balance, traffic);
    }
    let owner = PolicyTarget::of_upstream(store, upstream);
    let mode = DryRun::of(&policies);
    for block in Block::ALL {
        let Some(policy) = first_with_block(&policies, block) else { continue };
        if block.has_dry_run() && mode == DryRun::Mixed && is_dry_run(policy) {
            continue;
        }
        // A block with problems has no effect, and the verdict on the policy says so.
        match translate(block, &policy.spec, &owner).ok() {
            Some(Translated::Balancing(settings)) => balance = settings,
            Some(Translated::Affinity(settings)) => traffic.affinity = settings,
            Some(Translated::PassiveHealth(settings)) => {
                let active = traffic.health.as_ref().and_then(|health| health.active.clone());
                traffic.health = Some(Arc::new(HealthSettings { active, ..settings }));
            }
            Some(Translated::ActiveHealth(check)) => {
                let health = traffic.health.as_deref().cloned().unwrap_or_default();
                traffic.health = Some(Arc::new(HealthSettings { active: Some(Arc::new(check)), ..health }));
            }
            Some(Translated::Limits(settings)) => traffic.limits = Some(Arc::new(settings)),
            Some(Translated::CircuitBreaker(settings)) => traffic.circuit_breaker = Some(Arc::new(settings)),
            Some(Translated::Retry(settings)) => traffic.retries = Some(Arc::new(settings)),
            Some(Translated::RetryBudget(settings)) => traffic.retry_limits = Some(settings),
            Some(Translated::Timeouts(settings)) => traffic.timeouts = Some(Arc::new(settings)),
            Some(Translated::Nothing) => {}
            None => clear(block, &mut balance, &mut traffic),
        }
    }
    traffic.is_dry_run = mode == DryRun::All;
    (balance, traffic)
}

/// Removes the settings of other sources for a block, which a policy with precedence has.
fn clear(block: Block, balance: &mut Balancing, traffic: &mut BackendTraffic) {
    match block {
        Block::LoadBalancing => *balance = Balancing::default(),
        Block::SessionPersistence => traffic.affinity = None,
        Block::PassiveHealth => {
            if let Some(health) = traffic.health.take() {
                let active = health.active.clone();
                traffic.health = active
                    .map(|_| Arc::new(HealthSettings { active: health.active.clone(), ..HealthSettings::default() }));
            }
        }
        Block::ActiveHealth => {
            if let Some(health) = traffic.health.take() {
                traffic.health = Some(Arc::new(HealthSettings { active: None, ..HealthSettings::clone(&health) }));
            }
        }
        Block::Limits => traffic.limits = None,
        Block::CircuitBreaker => traffic.circuit_breaker = None,
        Block::Retry => traffic.retries = None,
        Block::RetryBudget => traffic.retry_limits = None,
        Block::Timeouts => traffic.timeouts = None,
        Block::Failover | Block::Subsets => {}
    }
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
    !is_left_out && translate(block, &policy.spec, &target).is_ok()
}

pub(super) fn is_dry_run(policy: &BackendPolicy) -> bool {
    policy.spec.mode.as_deref() == Some("DryRun")
}

/// The settings of one block.
pub(super) enum Translated {
    Balancing(Balancing),
    Affinity(Option<Arc<AffinitySettings>>),
    PassiveHealth(HealthSettings),
    ActiveHealth(ActiveCheck),
    Limits(RequestLimits),
    CircuitBreaker(CircuitBreakerSettings),
    Retry(RetrySettings),
    RetryBudget(RetryLimits),
    Timeouts(RequestTimeouts),
    /// The block has no settings of an upstream.
    Nothing,
}

/// What the settings of a block depend on besides the block.
pub(super) struct PolicyTarget {
    /// The name that identifies sessions in all replicas.
    owner: String,
    /// The host of health checks.
    host: String,
}

impl PolicyTarget {
    fn of_upstream(store: &Store, upstream: &UpstreamKey) -> PolicyTarget {
        let key = backend_key(upstream);
        match upstream.source {
            UpstreamSource::Service => PolicyTarget::new(TargetKind::Service, &key),
            UpstreamSource::XBackend => {
                let target = PolicyTarget::new(TargetKind::XBackend, &key);
                let backend = store.x_backends.get(&key);
                let external = backend.and_then(|backend| backend.spec.external_hostname.as_ref());
                match external {
                    Some(external) => PolicyTarget { host: external.hostname.clone(), ..target },
                    None => target,
                }
            }
        }
    }

    pub(super) fn new(kind: TargetKind, key: &ObjectKey) -> PolicyTarget {
        let kind = match kind {
            TargetKind::Service | TargetKind::Facade => Kind::Service,
            TargetKind::XBackend => Kind::XBackend,
        };
        let ObjectKey { namespace, name } = key;
        PolicyTarget { owner: format!("{kind}/{namespace}/{name}"), host: format!("{name}.{namespace}.svc") }
    }
}

/// Translates a block that is set, or returns the problems with it.
pub(super) fn translate(
    block: Block,
    spec: &BackendPolicySpec,
    target: &PolicyTarget,
) -> Result<Translated, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let translated = translate_block(block, spec, target, &mut problems);
    match translated.filter(|_| problems.is_empty()) {
        Some(translated) => Ok(translated),
        None => Err(problems),
    }
}

fn translate_block(
    block: Block,
    spec: &BackendPolicySpec,
    target: &PolicyTarget,
    problems: &mut Vec<Diagnostic>,
) -> Option<Translated> {
    let sessions = spec.load_balancing.as_ref().and_then(|balancing| balancing.session_persistence.as_ref());
    if block == Block::SessionPersistence {
        return Some(Translated::Affinity(session::translate(sessions?, &target.owner, problems)));
    }
    let path = if block == Block::PassiveHealth { "health" } else { block.path() };
    let reader = &mut BlockReader::new(format!("spec.{path}"), problems);
    Some(match block {
        Block::LoadBalancing => Translated::Balancing(load_balancing::translate(spec.load_balancing.as_ref()?, reader)),
        Block::SessionPersistence => return None,
        Block::PassiveHealth => Translated::PassiveHealth(health::translate(spec.health.as_ref()?, reader)),
        Block::ActiveHealth => {
            let check = spec.health.as_ref()?.active.as_ref()?;
            Translated::ActiveHealth(active_check::translate(check, &target.host, reader)?)
        }
        Block::Limits => Translated::Limits(limits::translate(spec.limits.as_ref()?, reader)),
        Block::CircuitBreaker => {
            Translated::CircuitBreaker(circuit_breaker::translate(spec.circuit_breaker.as_ref()?, reader))
        }
        Block::Retry => Translated::Retry(retry::translate(spec.retry.as_ref()?, reader)),
        Block::RetryBudget => Translated::RetryBudget(retry::retry_limits(spec.retry_budget.as_ref()?, reader)),
        Block::Timeouts => Translated::Timeouts(timeouts::translate(spec.timeouts.as_ref()?, reader)),
        Block::Failover => {
            failover::failover_settings(spec.failover.as_ref()?, problems);
            Translated::Nothing
        }
        Block::Subsets => Translated::Nothing,
    })
}
