//! The settings of upstreams as JSON, in the form of the blocks of a BackendPolicy, whatever object has set them.
//!
//! The types of the settings say how their fields are written, and hide what may be a credential. Here stands what
//! differs between the blocks of a policy and the settings: which settings are a block, fields that have another place,
//! and references to backends.

use serde::Serialize;
use serde_json::{Value, json};

use crate::api::Kind;
use crate::upstream::settings::{Balancing, CircuitBreakerSettings, OverloadSettings};
use crate::upstream::{AlternativeBackends, BackendTraffic, Endpoints, UpstreamKey, UpstreamSource};

/// The settings by the path in `spec` of a BackendPolicy. Blocks that are absent, and so have their defaults, are left
/// out, except `loadBalancing`.
pub(super) fn blocks(endpoints: &Endpoints) -> Vec<(&'static str, Value)> {
    let BackendTraffic { retry_limits, affinity, health, overload: _, retries, timeouts, alternatives, is_dry_run } =
        &endpoints.traffic;
    let active = health.as_ref().and_then(|health| health.active.as_deref());
    let of_failover = alternatives.as_deref().filter(|alternatives| !alternatives.failover.is_empty());
    let mut blocks = vec![("loadBalancing", load_balancing(&endpoints.balance))];
    let of_health = [
        ("loadBalancing.sessionPersistence", affinity.as_deref().map(block)),
        ("health.passive", health.as_ref().map(|health| block(&health.passive))),
        ("health.maxEjectionPercent", health.as_ref().map(|health| json!(health.max_ejection_percent))),
        ("health.active", active.map(block)),
    ];
    let of_attempts = [
        ("retry", retries.as_deref().map(block)),
        ("retryBudget", retry_limits.as_ref().map(block)),
        ("timeouts", timeouts.as_deref().map(block)),
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

/// `loadBalancing` without the sessions. A policy has the size of the table next to the keys of the hash.
pub(super) fn load_balancing(balancing: &Balancing) -> Value {
    let mut block = block(balancing);
    let size = balancing.algorithm.hash_table().map(|table| self::block(&table));
    if let (Some(Value::Object(hash)), Some(Value::Object(size))) = (block.get_mut("hash"), size) {
        hash.extend(size);
    }
    block
}

/// The settings by the path in `spec`; `None` for blocks that are absent.
pub(super) fn overload_blocks(traffic: &BackendTraffic) -> [(&'static str, Option<Value>); 2] {
    let OverloadSettings { limits, circuit_breaker: breaker } = &traffic.overload;
    let fallback = traffic.alternatives.as_ref().and_then(|alternatives| alternatives.circuit_fallback.as_ref());
    [
        ("limits", limits.as_deref().map(block)),
        ("circuitBreaker", breaker.as_deref().map(|breaker| circuit_breaker(breaker, fallback))),
    ]
}

/// `backend`: what gets the requests while the circuit is open, if they get no response.
fn circuit_breaker(settings: &CircuitBreakerSettings, backend: Option<&UpstreamKey>) -> Value {
    let mut block = block(settings);
    if let (None, Some(backend)) = (&settings.fallback, backend) {
        block["fallback"] = json!({"backendRef": backend_reference(backend)});
    }
    block
}

fn failover(alternatives: &AlternativeBackends) -> Value {
    let AlternativeBackends { failover, min_available_percent, on_statuses, circuit_fallback: _ } = alternatives;
    let backends: Vec<Value> = failover.iter().map(backend_reference).collect();
    let statuses = (!on_statuses.is_empty()).then_some(on_statuses);
    block(&json!({"backendRefs": backends, "minAvailablePercent": min_available_percent, "onStatuses": statuses}))
}

/// A reference that leads to an upstream.
fn backend_reference(upstream: &UpstreamKey) -> Value {
    let (kind, port) = match upstream.source {
        UpstreamSource::Service => (Kind::Service, Some(upstream.port)),
        UpstreamSource::XBackend => (Kind::XBackend, None),
    };
    let (namespace, name) = (&*upstream.namespace, &*upstream.service);
    block(&json!({
        "group": kind.group(), "kind": kind.name(), "namespace": namespace, "name": name, "port": port,
    }))
}

/// Settings without the fields that are not set.
fn block(settings: &impl Serialize) -> Value {
    let mut block = serde_json::to_value(settings).expect("the fields of settings have names and are JSON");
    remove_absent(&mut block);
    block
}

fn remove_absent(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(remove_absent);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_absent),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests;
