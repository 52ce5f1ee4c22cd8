//! `spec.limits`.

use std::time::Duration;

use super::block_reader::BlockReader;
use crate::api::portico::{AdaptiveLimitSpec, AdmissionControlSpec, LimitsSpec};
use crate::upstream::settings::{AdaptiveLimit, AdmissionControl, RequestLimits};

pub(super) fn translate(spec: &LimitsSpec, block: &mut BlockReader<'_>) -> RequestLimits {
    let queue_timeout = block.duration("queueTimeout", spec.queue_timeout.as_ref(), ["0s", "1h"]).unwrap_or_default();
    if queue_timeout.is_zero() == spec.max_pending.is_some() {
        let field = if spec.max_pending.is_some() { "maxPending" } else { "queueTimeout" };
        let message = "requests wait only if maxPending and queueTimeout are both set";
        block.problem(field, message, "add the missing one, or remove the other");
    }
    let mut count = |field: &str, value: Option<i32>| block.number(field, value, COUNTS);
    RequestLimits {
        max_connections: count("maxConnections", spec.max_connections),
        max_requests: count("maxRequests", spec.max_requests),
        max_pending: count("maxPending", spec.max_pending),
        queue_timeout,
        max_requests_per_endpoint: count("maxRequestsPerEndpoint", spec.max_requests_per_endpoint),
        max_requests_per_connection: count("maxRequestsPerConnection", spec.max_requests_per_connection),
        max_retries: count("maxRetries", spec.max_retries),
        max_connection_age: block.duration("maxConnectionAge", spec.max_connection_age.as_ref(), ["1s", "9999h"]),
        adaptive: spec.adaptive.as_ref().map(|spec| adaptive(spec, &mut block.object("adaptive"))),
        admission: spec.admission.as_ref().map(|spec| admission(spec, &mut block.object("admission"))),
    }
}

const COUNTS: std::ops::RangeInclusive<u32> = 1..=1_000_000;

fn adaptive(spec: &AdaptiveLimitSpec, block: &mut BlockReader<'_>) -> AdaptiveLimit {
    let min = block.number("min", spec.min, COUNTS).unwrap_or(10);
    let max = block.number("max", spec.max, COUNTS).unwrap_or(1000);
    if min > max {
        let message = format!("the limit {min} is greater than max, {max}");
        block.problem("min", message, "reduce min, or increase max");
    }
    AdaptiveLimit { min, max }
}

fn admission(spec: &AdmissionControlSpec, block: &mut BlockReader<'_>) -> AdmissionControl {
    AdmissionControl {
        threshold_percent: block.percent("thresholdPercent", spec.threshold_percent, 1).unwrap_or(95),
        aggression: block.thousandths("aggression", spec.aggression.as_ref(), 10).unwrap_or(1000),
        max_reject_percent: block.percent("maxRejectPercent", spec.max_reject_percent, 1).unwrap_or(80),
        window: block.duration("window", spec.window.as_ref(), ["1s", "1h"]).unwrap_or(Duration::from_secs(30)),
    }
}
