//! The settings of upstreams as JSON, in the form of the blocks of a BackendPolicy, whatever object has set them.
//!
//! ```text
//!   Endpoints ─▶ blocks ─┬ balancing.rs   loadBalancing, its hash and its sessions
//!                        ├ health.rs      health
//!                        ├ overload.rs    limits, circuitBreaker
//!                        └ attempts.rs    retry, retryBudget, timeouts
//!   form.rs   objects, references, durations and numbers as Kubernetes writes them
//! ```
//!
//! Fields that BackendPolicies do not have are those of other kinds: they are there only if they are set. What health
//! checks send may contain credentials, so it is hidden.

mod attempts;
mod balancing;
mod form;
mod health;
mod overload;

use serde_json::{Value, json};

use crate::upstream::{AlternativeBackends, BackendTraffic, Endpoints};

pub(super) use balancing::load_balancing;
use form::{backend_reference, list, object};
pub(super) use overload::overload_blocks;

/// The settings by the path in `spec` of a BackendPolicy. Blocks that are absent, and so have their defaults, are left
/// out, except `loadBalancing`.
pub(super) fn blocks(endpoints: &Endpoints) -> Vec<(&'static str, Value)> {
    let BackendTraffic { retry_limits, affinity, health, overload: _, retries, timeouts, alternatives, is_dry_run } =
        &endpoints.traffic;
    let active = health.as_ref().and_then(|health| health.active.as_deref());
    let of_failover = alternatives.as_deref().filter(|alternatives| !alternatives.failover.is_empty());
    let mut blocks = vec![("loadBalancing", load_balancing(&endpoints.balance))];
    let of_health = [
        ("loadBalancing.sessionPersistence", affinity.as_deref().map(balancing::session_persistence)),
        ("health.passive", health.as_ref().map(|health| health::passive(&health.passive))),
        ("health.maxEjectionPercent", health.as_ref().map(|health| json!(health.max_ejection_percent))),
        ("health.active", active.map(health::active)),
    ];
    let of_attempts = [
        ("retry", retries.as_deref().map(attempts::retry)),
        ("retryBudget", retry_limits.as_ref().map(attempts::retry_budget)),
        ("timeouts", timeouts.as_deref().map(attempts::timeouts)),
        ("failover", of_failover.map(failover)),
        ("mode", is_dry_run.then(|| json!("DryRun"))),
    ];
    let optional = of_health.into_iter().chain(overload_blocks(&endpoints.traffic)).chain(of_attempts);
    blocks.extend(optional.filter_map(|(block, setting)| Some((block, setting?))));
    blocks
}

/// The block whose source is that of a path: `maxEjectionPercent` belongs to the passive checks.
pub(super) fn block_of(path: &'static str) -> &'static str {
    if path == "health.maxEjectionPercent" { "health.passive" } else { path }
}

fn failover(alternatives: &AlternativeBackends) -> Value {
    let AlternativeBackends { failover, min_available_percent, on_statuses, circuit_fallback: _ } = alternatives;
    object([
        ("backendRefs", Some(failover.iter().map(backend_reference).collect())),
        ("minAvailablePercent", Some(json!(min_available_percent))),
        ("onStatuses", list(on_statuses)),
    ])
}

#[cfg(test)]
mod tests;
