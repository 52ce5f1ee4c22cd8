//! Fields of BackendPolicies that have no meaning for datagrams, whose sessions have neither connections, responses nor
//! retries. Reported if all ports of all targets are UDP ports; the fields are in effect for other ports.

use super::blocks::Block;
use crate::api::portico::BackendPolicySpec;
use crate::diagnostic::Diagnostic;

/// The fields of a policy for datagrams that have no effect, each with its block.
pub(super) fn fields_without_effect(spec: &BackendPolicySpec) -> Vec<(Block, Diagnostic)> {
    let (limits, circuit) = (spec.limits.as_ref(), spec.circuit_breaker.as_ref());
    let passive = spec.health.as_ref().and_then(|health| health.passive.as_ref());
    let has = |is_set: Option<bool>| is_set.unwrap_or(false);
    let fields = [
        (has(limits.map(|limits| limits.max_connections.is_some())), Block::Limits, "limits.maxConnections"),
        (has(limits.map(|limits| limits.max_pending.is_some())), Block::Limits, "limits.maxPending"),
        (
            has(limits.map(|limits| limits.max_requests_per_connection.is_some())),
            Block::Limits,
            "limits.maxRequestsPerConnection",
        ),
        (has(limits.map(|limits| limits.max_retries.is_some())), Block::Limits, "limits.maxRetries"),
        (has(limits.map(|limits| limits.max_connection_age.is_some())), Block::Limits, "limits.maxConnectionAge"),
        (has(limits.map(|limits| limits.adaptive.is_some())), Block::Limits, "limits.adaptive"),
        (has(circuit.map(|circuit| circuit.slow_after.is_some())), Block::CircuitBreaker, "circuitBreaker.slowAfter"),
        (has(circuit.map(|circuit| !circuit.statuses.is_empty())), Block::CircuitBreaker, "circuitBreaker.statuses"),
        (
            has(circuit.and_then(|circuit| circuit.fallback.as_ref()).map(|fallback| fallback.response.is_some())),
            Block::CircuitBreaker,
            "circuitBreaker.fallback.response",
        ),
        (
            has(passive.map(|passive| passive.gateway_errors.is_some_and(|count| count > 0))),
            Block::PassiveHealth,
            "health.passive.gatewayErrors",
        ),
        (
            has(passive.map(|passive| passive.server_errors.is_some_and(|count| count > 0))),
            Block::PassiveHealth,
            "health.passive.serverErrors",
        ),
        (
            has(spec.failover.as_ref().map(|failover| !failover.on_statuses.is_empty())),
            Block::Failover,
            "failover.onStatuses",
        ),
        (spec.retry.is_some(), Block::Retry, "retry"),
        (spec.retry_budget.is_some(), Block::RetryBudget, "retryBudget"),
        (spec.timeouts.is_some(), Block::Timeouts, "timeouts"),
        (
            has(spec.load_balancing.as_ref().map(|balancing| balancing.session_persistence.is_some())),
            Block::SessionPersistence,
            "loadBalancing.sessionPersistence",
        ),
    ];
    let without_effect = fields.into_iter().filter(|(is_set, ..)| *is_set).map(|(_, block, field)| {
        let message = "all ports of the targets are UDP ports, for which the field has no meaning";
        (block, Diagnostic::warning(format!("spec.{field}"), message, "remove it"))
    });
    without_effect.collect()
}
