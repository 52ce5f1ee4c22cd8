//! Fields of BackendPolicies that are valid, but have no effect, most of them because this version does not serve them.
//! Each is reported, so that none is ignored silently.

use crate::api::portico::{BackendPolicySpec, LocalityLevel};
use crate::diagnostic::Diagnostic;

use super::blocks::{Block, failover_level};
use crate::upstream::settings::FailoverLevel;

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
        for (index, message, remedy) in idle_levels(&locality.failover) {
            report(Block::LoadBalancing, &format!("loadBalancing.locality.failover[{index}]"), &message, remedy);
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

/// The levels that have no endpoints: their positions, with the message and the remedy.
fn idle_levels(levels: &[LocalityLevel]) -> Vec<(usize, String, &'static str)> {
    let known: Vec<_> = levels.iter().map(failover_level).collect();
    let mut idle = Vec::new();
    for (index, level) in known.iter().enumerate() {
        let Some(level) = level else { continue };
        let contains =
            |earlier: &Option<FailoverLevel>| earlier.as_ref().is_some_and(|earlier| earlier.contains(level));
        if *level == FailoverLevel::Nothing {
            let message = "labels of Pods are not known to this version, so the level has no endpoints".to_owned();
            idle.push((index, message, "use zone or region"));
        } else if let Some(earlier) = known[..index].iter().position(contains) {
            let message = format!("failover[{earlier}] has the same endpoints, so the level has none");
            idle.push((index, message, "remove the level, or put it before the other one"));
        }
    }
    idle
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn levels_without_endpoints_are_reported() {
        let spec = json!({"targetRefs": [], "loadBalancing": {"locality": {"failover": [
            {"region": "eu-central-1"}, {"zone": "eu-central-1a"}, {"matchLabels": {"tier": "spare"}},
            {"region": "eu-central-1"}, {"zone": "eu-central-2a"},
        ]}}});
        let spec: BackendPolicySpec = serde_json::from_value(spec).unwrap();
        let found: Vec<_> = unserved_fields(&spec).iter().map(|(_, diagnostic)| diagnostic.to_string()).collect();
        let shadowed = "failover[0] has the same endpoints, so the level has none; remove the level, or put it before \
                        the other one";
        let expected = [
            format!("spec.loadBalancing.locality.failover[1]: {shadowed}"),
            "spec.loadBalancing.locality.failover[2]: labels of Pods are not known to this version, so the level has \
             no endpoints; use zone or region"
                .to_owned(),
            format!("spec.loadBalancing.locality.failover[3]: {shadowed}"),
        ];
        assert_eq!(found, expected);
    }
}
