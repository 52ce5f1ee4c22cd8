//! Fields of BackendPolicies that are valid, but have no effect, most of them because this version does not serve them.
//! Each is reported, so that none is ignored silently.

use crate::api::portico::BackendPolicySpec;
use crate::diagnostic::Diagnostic;

use super::blocks::Block;

/// The fields of a policy that have no effect, each with its block.
pub(super) fn unserved_fields(spec: &BackendPolicySpec) -> Vec<(Block, Diagnostic)> {
    let mut unserved = Vec::new();
    let mut report = |block: Block, field: &str, message: &str, remedy: &str| {
        unserved.push((block, Diagnostic::warning(format!("spec.{field}"), message, remedy)));
    };
    let balancing = spec.load_balancing.as_ref();
    if let Some(locality) = balancing.and_then(|balancing| balancing.locality.as_ref()) {
        if locality.mode.as_deref() == Some("ZoneAware") {
            let message = "ZoneAware is not served by this version, so Auto is in effect";
            report(Block::LoadBalancing, "loadBalancing.locality.mode", message, "use PreferSameZone");
        }
        if !locality.failover.is_empty() {
            let message = "levels of endpoints are not served by this version, so the field has no effect";
            report(Block::LoadBalancing, "loadBalancing.locality.failover", message, "remove it, or use mode");
        }
    }
    let active = spec.health.as_ref().and_then(|health| health.active.as_ref());
    if active.is_some_and(|active| active.probers.as_deref() == Some("Shared")) {
        let message = "Shared is not served by this version, so each process checks all endpoints";
        report(Block::ActiveHealth, "health.active.probers", message, "use Each");
    }
    if let Some(fallback) = spec.circuit_breaker.as_ref().and_then(|breaker| breaker.fallback.as_ref())
        && fallback.stale.is_some()
    {
        let message = "responses of a cache are not served by this version, so an open circuit gives status 503";
        report(Block::CircuitBreaker, "circuitBreaker.fallback.stale", message, "use response");
    }
    if let Some(limits) = &spec.limits
        && limits.max_pending.is_some()
        && limits.max_requests.is_none()
        && limits.adaptive.is_none()
    {
        let message = "no limit makes requests wait, so it has no effect";
        report(Block::Limits, "limits.maxPending", message, "add maxRequests or adaptive");
    }
    if !spec.subsets.is_empty() {
        let message = "nothing refers to subsets in this version, so the block has no effect";
        report(Block::Subsets, "subsets", message, "use a Service for each group of Pods");
    }
    unserved
}
