//! The fields of BackendPolicies: for which traffic each has a meaning, and what it needs.

use super::{FieldNeeds, Meaning, Need, PolicyFields};
use crate::api::portico::{BackendPolicySpec, HashKeySpec};
use crate::compile::policies::backend_policy::blocks::failover_level;
use crate::upstream::settings::FailoverLevel;

const fn field(path: &'static str, meaning: Meaning, need: Need) -> FieldNeeds {
    FieldNeeds { path, meaning, need }
}

/// A field with a meaning for any traffic.
const fn any(path: &'static str, need: Need) -> FieldNeeds {
    field(path, Meaning::Any, need)
}

/// A field for requests.
const fn requests(path: &'static str, need: Need) -> FieldNeeds {
    field(path, Meaning::Requests, need)
}

const fn when(holds: fn(&PolicyFields<'_>) -> bool, message: &'static str, remedy: &'static str) -> Need {
    Need::When { holds, message, remedy }
}

const ALGORITHM: &str = "loadBalancing.algorithm";
const NO_RETRIES: &str = "attempts is 0, so requests are not sent again, and it has no effect";
const INCREASE: &str = "increase attempts, or remove it";

fn is_hashing(fields: &PolicyFields<'_>) -> bool {
    ["Maglev", "RingHash"].contains(&fields.text(ALGORITHM, ""))
}

fn compares_rates(fields: &PolicyFields<'_>) -> bool {
    fields.is_set("health.passive.successRate") || fields.is_set("health.passive.failurePercentage")
}

/// Whether anything ejects endpoints. Failures to connect and failed requests do so by default.
fn ejects(fields: &PolicyFields<'_>) -> bool {
    let passive = |field: &str, default| fields.number(&format!("health.passive.{field}"), default) > 0;
    passive("connectFailures", 1)
        || passive("localOriginFailures", 1)
        || passive("gatewayErrors", 0)
        || passive("serverErrors", 0)
        || compares_rates(fields)
        || fields.is_set("health.active")
}

fn retries(fields: &PolicyFields<'_>) -> bool {
    fields.number("retry.attempts", 1) > 0
}

/// Whether retries follow outcomes of requests that an endpoint may have processed.
fn retries_processed(fields: &PolicyFields<'_>) -> bool {
    let conditions = ["Reset", "Timeout", "GatewayError", "ServerError", "Codes", "GrpcCodes", "RetriableHeader"];
    fields.has_any("retry.retryOn", &conditions)
}

/// Whether retries follow responses with 429 or 503, which say when.
fn retries_responses(fields: &PolicyFields<'_>) -> bool {
    fields.has_any("retry.retryOn", &["GatewayError", "ServerError", "Codes", "RetriableHeader"])
}

/// PolicyFields that need nothing for any traffic, or only what their type and their parent require.
#[cfg(test)]
pub(super) const NEED_NOTHING: &[&str] = &[
    "circuitBreaker",
    "circuitBreaker.consecutive",
    "circuitBreaker.errorPercent",
    "circuitBreaker.fallback",
    "circuitBreaker.fallback.backendRef",
    "circuitBreaker.fallback.response.body",
    "circuitBreaker.fallback.response.headers",
    "circuitBreaker.fallback.response.status",
    "circuitBreaker.maxOpenFor",
    "circuitBreaker.minRequests",
    "circuitBreaker.openFor",
    "circuitBreaker.probes",
    "circuitBreaker.rampUp",
    "circuitBreaker.successes",
    "circuitBreaker.window",
    "failover",
    "failover.backendRefs",
    "failover.minAvailablePercent",
    "health",
    "health.active",
    "health.active.healthyThreshold",
    "health.active.initial",
    "health.active.interval",
    "health.active.port",
    "health.active.timeout",
    "health.active.type",
    "health.active.unhealthyInterval",
    "health.active.unhealthyThreshold",
    "health.maxEjectionPercent",
    "health.passive",
    "health.passive.connectFailures",
    "health.passive.failurePercentage",
    "health.passive.failurePercentage.minEndpoints",
    "health.passive.failurePercentage.minRequests",
    "health.passive.failurePercentage.threshold",
    "health.passive.interval",
    "health.passive.localOriginFailures",
    "health.passive.successRate",
    "health.passive.successRate.minEndpoints",
    "health.passive.successRate.minRequests",
    "health.passive.successRate.stdevFactor",
    "limits",
    "limits.adaptive.max",
    "limits.adaptive.min",
    "limits.admission",
    "limits.admission.aggression",
    "limits.admission.maxRejectPercent",
    "limits.admission.thresholdPercent",
    "limits.admission.window",
    "limits.maxRequests",
    "limits.maxRequestsPerEndpoint",
    "loadBalancing",
    "loadBalancing.algorithm",
    "loadBalancing.hash",
    "loadBalancing.hash.boundedLoadPercent",
    "loadBalancing.hash.keys[].cookie.path",
    "loadBalancing.hash.keys[].cookie.sameSite",
    "loadBalancing.hash.keys[].cookie.ttl",
    "loadBalancing.hash.keys[].regex",
    "loadBalancing.locality",
    "loadBalancing.locality.failover[].matchLabels",
    "loadBalancing.locality.failover[].region",
    "loadBalancing.locality.failover[].zone",
    "loadBalancing.panicThresholdPercent",
    "loadBalancing.peakEwma.decay",
    "loadBalancing.peakEwma.failurePenalty",
    "loadBalancing.sessionPersistence.absoluteTimeout",
    "loadBalancing.sessionPersistence.cookie.lifetimeType",
    "loadBalancing.sessionPersistence.cookie.path",
    "loadBalancing.sessionPersistence.cookie.sameSite",
    "loadBalancing.sessionPersistence.idleTimeout",
    "loadBalancing.sessionPersistence.name",
    "loadBalancing.sessionPersistence.strip",
    "loadBalancing.sessionPersistence.type",
    "loadBalancing.slowStart.aggression",
    "loadBalancing.slowStart.minWeightPercent",
    "loadBalancing.slowStart.window",
    "loadBalancing.whenUnhealthy",
    "retry.attemptHeader",
    "retry.attempts",
    "retry.backoff.base",
    "retry.backoff.max",
    "retry.hedge.delay",
    "retry.resetHeader.format",
    "retry.resetHeader.name",
    // Another spelling of `retryOn`, which is always refused.
    "retry.true",
    "retryBudget.interval",
    "retryBudget.minRetryRate",
    "retryBudget.percent",
    "subsets[].matchLabels",
    "subsets[].name",
    "targetRefs",
    "timeouts.connect",
    "timeouts.idle",
    "timeouts.maxDuration",
    "timeouts.streamIdle",
];

pub(super) const FIELDS: &[FieldNeeds] = &[
    any(
        "mode",
        when(
            |fields| {
                fields.text("mode", "Enforce") != "DryRun"
                    || ["health", "limits", "circuitBreaker"].iter().any(|block| fields.is_set(block))
            },
            "the policy has no health checks, limits or circuit breaker, so DryRun has no effect",
            "remove it",
        ),
    ),
    // loadBalancing
    any("loadBalancing.peakEwma", Need::ForValidity),
    any("loadBalancing.hash.keys", Need::ForValidity),
    any("loadBalancing.hash.keys[].name", Need::ForValidity),
    any("loadBalancing.hash.keys[].cookie", Need::ForValidity),
    any("loadBalancing.hash.keys[].ipv6Prefix", Need::ForValidity),
    any("loadBalancing.hash.keys[].source", Need::Elements(unreached_keys)),
    any(
        "loadBalancing.hash.combine",
        when(
            |fields| fields.length("loadBalancing.hash.keys") > 1,
            "there is one key, so it has no effect",
            "remove it",
        ),
    ),
    any(
        "loadBalancing.hash.maglevSize",
        when(
            |fields| fields.text(ALGORITHM, "") == "Maglev",
            "it has no effect with this algorithm",
            "set algorithm to Maglev, or remove it",
        ),
    ),
    any(
        "loadBalancing.hash.ringSize",
        when(
            |fields| fields.text(ALGORITHM, "") == "RingHash",
            "it has no effect with this algorithm",
            "set algorithm to RingHash, or remove it",
        ),
    ),
    any(
        "loadBalancing.slowStart",
        when(
            |fields| !is_hashing(fields),
            "hashes select the endpoints, so it has no effect with this algorithm",
            "use another algorithm, or remove it",
        ),
    ),
    any(
        "loadBalancing.locality.mode",
        when(
            |fields| fields.text("loadBalancing.locality.mode", "") != "ZoneAware",
            "ZoneAware is not served by this version, so Auto is in effect",
            "use PreferSameZone",
        ),
    ),
    any("loadBalancing.locality.failover", Need::Elements(idle_levels)),
    any(
        "loadBalancing.locality.overprovisioningPercent",
        when(
            |fields| {
                fields.text("loadBalancing.locality.mode", "Auto") != "Off"
                    || fields.is_set("loadBalancing.locality.failover")
            },
            "all endpoints have one level, so it has no effect",
            "set another mode or failover, or remove it",
        ),
    ),
    requests("loadBalancing.sessionPersistence", Need::Nothing),
    requests("loadBalancing.sessionPersistence.cookie", Need::ForValidity),
    // health
    requests("health.passive.gatewayErrors", Need::Nothing),
    requests("health.passive.serverErrors", Need::Nothing),
    requests(
        "health.passive.statuses",
        when(
            |fields| fields.number("health.passive.serverErrors", 0) > 0 || compares_rates(fields),
            "nothing counts statuses, so it has no effect",
            "set serverErrors, successRate or failurePercentage, or remove it",
        ),
    ),
    any(
        "health.passive.timeoutAfter",
        when(
            |fields| fields.number("health.passive.localOriginFailures", 1) > 0 || compares_rates(fields),
            "nothing counts timeouts, so it has no effect",
            "set localOriginFailures, successRate or failurePercentage, or remove it",
        ),
    ),
    any("health.passive.baseEjection", when(ejects, NOTHING_EJECTS, "set a count of failures, or remove it")),
    any("health.passive.maxEjection", when(ejects, NOTHING_EJECTS, "set a count of failures, or remove it")),
    any("health.passive.halfOpenSuccesses", when(ejects, NOTHING_EJECTS, "set a count of failures, or remove it")),
    any("health.active.path", Need::ForValidity),
    any("health.active.method", Need::ForValidity),
    any("health.active.headers", Need::ForValidity),
    any("health.active.expectedStatuses", Need::ForValidity),
    any("health.active.host", Need::ForValidity),
    any("health.active.service", Need::ForValidity),
    any("health.active.send", Need::ForValidity),
    any("health.active.expect", Need::ForValidity),
    any(
        "health.active.reuseConnection",
        when(
            |fields| fields.text("health.active.type", "HTTP") != "TCP",
            "each check of the type TCP opens a connection, so it has no effect",
            "remove it",
        ),
    ),
    any(
        "health.active.probers",
        when(
            |fields| fields.text("health.active.probers", "Each") != "Shared",
            "Shared is not served by this version, so each process checks all endpoints",
            "use Each",
        ),
    ),
    // limits
    field("limits.maxConnections", Meaning::Connections, Need::Nothing),
    field(
        "limits.maxPending",
        Meaning::Connections,
        when(
            |fields| fields.is_set("limits.maxRequests") || fields.is_set("limits.adaptive"),
            "no limit makes requests wait, so it has no effect",
            "add maxRequests or adaptive",
        ),
    ),
    field("limits.queueTimeout", Meaning::Connections, Need::ForValidity),
    requests("limits.maxRequestsPerConnection", Need::Nothing),
    requests("limits.maxRetries", Need::Nothing),
    field("limits.maxConnectionAge", Meaning::Connections, Need::Nothing),
    requests("limits.adaptive", Need::Nothing),
    // circuitBreaker
    requests("circuitBreaker.slowAfter", Need::ForValidity),
    requests("circuitBreaker.slowPercent", Need::ForValidity),
    requests("circuitBreaker.statuses", Need::Nothing),
    requests("circuitBreaker.fallback.response", Need::Nothing),
    any(
        "circuitBreaker.fallback.stale",
        when(
            |_| false,
            "responses of a cache are not served by this version, so an open circuit gives status 503",
            "use response",
        ),
    ),
    // retry
    requests("retry", Need::Nothing),
    requests("retry.retryOn", when(retries, NO_RETRIES, INCREASE)),
    requests("retry.codes", Need::ForValidity),
    requests("retry.grpcCodes", when(repeats_calls, NEVER_REPEATED, "set nonIdempotent or trustIdempotencyKey")),
    requests("retry.headers", Need::ForValidity),
    requests("retry.backoff", when(retries, NO_RETRIES, INCREASE)),
    requests("retry.maxRetryAfter", when(retries_responses, NO_RESPONSES, ADD_STATUSES)),
    requests("retry.resetHeader", when(retries_responses, NO_RESPONSES, ADD_STATUSES)),
    requests("retry.nonIdempotent", when(repeats_or_is_false, ONLY_UNPROCESSED, ADD_CONDITIONS)),
    requests("retry.trustIdempotencyKey", when(trusts_or_is_false, ONLY_UNPROCESSED, ADD_CONDITIONS)),
    requests("retry.maxBody", when(retries, NO_RETRIES, INCREASE)),
    requests("retry.hedge", Need::ForValidity),
    requests("retry.respectAttempt", Need::ForValidity),
    requests("retryBudget", Need::Nothing),
    field("timeouts", Meaning::Connections, Need::Nothing),
    requests("timeouts.request", Need::Nothing),
    requests("timeouts.backendRequest", Need::Nothing),
    requests("failover.onStatuses", Need::Nothing),
    any(
        "subsets",
        when(
            |_| false,
            "nothing refers to subsets in this version, so the block has no effect",
            "use a Service for each group of Pods",
        ),
    ),
];

const NOTHING_EJECTS: &str = "nothing ejects endpoints, so it has no effect";
const NEVER_REPEATED: &str = "calls use POST, which is not idempotent, so they are not sent again";
const NO_RESPONSES: &str = "no condition of retryOn is about responses, so it has no effect";
const ADD_STATUSES: &str = "add GatewayError, ServerError or Codes to retryOn, or remove it";
const ONLY_UNPROCESSED: &str = "requests are sent again only if no endpoint has processed them, so it has no effect";
const ADD_CONDITIONS: &str = "add another condition to retryOn, or remove it";

fn repeats_calls(fields: &PolicyFields<'_>) -> bool {
    fields.is_true("retry.nonIdempotent") || fields.is_true("retry.trustIdempotencyKey")
}

fn repeats_or_is_false(fields: &PolicyFields<'_>) -> bool {
    !fields.is_true("retry.nonIdempotent") || retries_processed(fields)
}

fn trusts_or_is_false(fields: &PolicyFields<'_>) -> bool {
    !fields.is_true("retry.trustIdempotencyKey") || retries_processed(fields)
}

/// The keys that are never hashed, because an earlier one always has a value.
fn unreached_keys(spec: &BackendPolicySpec) -> Vec<(usize, String, &'static str)> {
    let Some(hash) = spec.load_balancing.as_ref().and_then(|balancing| balancing.hash.as_ref()) else {
        return Vec::new();
    };
    if hash.combine.as_deref() == Some("All") {
        return Vec::new();
    }
    // Clients without the cookie get one, unless an expression selects a part of it.
    let always_has_value =
        |key: &HashKeySpec| matches!(&*key.source, "Cookie" | "Path" | "Host") && key.regex.is_none();
    let Some(last) = hash.keys.iter().position(always_has_value) else { return Vec::new() };
    let message = format!("keys[{last}] always has a value, which is hashed, so the key has no effect");
    let remedy = "remove the key, move it to the front, or set combine to All";
    (last + 1..hash.keys.len()).map(|index| (index, message.clone(), remedy)).collect()
}

/// The levels that have no endpoints.
fn idle_levels(spec: &BackendPolicySpec) -> Vec<(usize, String, &'static str)> {
    let locality = spec.load_balancing.as_ref().and_then(|balancing| balancing.locality.as_ref());
    let levels = locality.map(|locality| &*locality.failover).unwrap_or_default();
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
