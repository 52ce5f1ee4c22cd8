//! `spec.health.passive` and `spec.health.maxEjectionPercent`.

use std::time::Duration;

use super::block_reader::BlockReader;
use crate::api::portico::{FailurePercentageSpec, HealthSpec, SuccessRateSpec};
use crate::upstream::settings::{FailurePercentage, HealthSettings, PassiveChecks, SuccessRate};

/// The settings without an active check.
pub(super) fn translate(spec: &HealthSpec, health: &mut BlockReader<'_>) -> HealthSettings {
    let defaults = HealthSettings::default();
    let max_ejection_percent = health.percent("maxEjectionPercent", spec.max_ejection_percent, 0);
    let passive = spec.passive.clone().unwrap_or_default();
    let mut block = health.object("passive");
    let PassiveChecks { interval, base_ejection, max_ejection, timeout_after, .. } = defaults.passive;
    let mut counter =
        |field: &str, value: Option<i32>, default: u32| block.number(field, value, 0..=100).unwrap_or(default);
    let connect_failures = counter("connectFailures", passive.connect_failures, defaults.passive.connect_failures);
    let local_origin_failures =
        counter("localOriginFailures", passive.local_origin_failures, defaults.passive.local_origin_failures);
    let gateway_errors = counter("gatewayErrors", passive.gateway_errors, defaults.passive.gateway_errors);
    let server_errors = counter("serverErrors", passive.server_errors, defaults.passive.server_errors);
    let mut duration = |field: &str, text: &Option<String>, bounds: [&str; 2], default: Duration| {
        block.duration(field, text.as_ref(), bounds).unwrap_or(default)
    };
    let timeout_after = duration("timeoutAfter", &passive.timeout_after, ["0s", "1h"], timeout_after);
    let interval = duration("interval", &passive.interval, ["1s", "1h"], interval);
    let base_ejection = duration("baseEjection", &passive.base_ejection, ["1s", "1h"], base_ejection);
    let max_ejection = duration("maxEjection", &passive.max_ejection, ["1s", "24h"], max_ejection);
    if base_ejection > max_ejection {
        let message = "it is longer than maxEjection, which defaults to 300s";
        block.problem("baseEjection", message, "shorten it, or lengthen maxEjection");
    }
    HealthSettings {
        max_ejection_percent: max_ejection_percent.unwrap_or(defaults.max_ejection_percent),
        ejects_last: defaults.ejects_last,
        passive: PassiveChecks {
            connect_failures,
            local_origin_failures,
            gateway_errors,
            server_errors,
            statuses: block.statuses("statuses", &passive.statuses, 400..=599),
            timeout_after,
            interval,
            base_ejection,
            max_ejection,
            half_open_successes: block
                .number("halfOpenSuccesses", passive.half_open_successes, 1..=100)
                .unwrap_or(defaults.passive.half_open_successes),
            success_rate: passive.success_rate.map(|spec| success_rate(&spec, &mut block.object("successRate"))),
            failure_percentage: passive
                .failure_percentage
                .map(|spec| failure_percentage(&spec, &mut block.object("failurePercentage"))),
        },
        active: None,
    }
}

fn success_rate(spec: &SuccessRateSpec, block: &mut BlockReader<'_>) -> SuccessRate {
    SuccessRate {
        min_endpoints: block.number("minEndpoints", spec.min_endpoints, 2..=1000).unwrap_or(5),
        min_requests: block.number("minRequests", spec.min_requests, 1..=1_000_000).unwrap_or(100),
        stdev_factor: block.thousandths("stdevFactor", spec.stdev_factor.as_ref(), 100).unwrap_or(1900),
    }
}

fn failure_percentage(spec: &FailurePercentageSpec, block: &mut BlockReader<'_>) -> FailurePercentage {
    FailurePercentage {
        threshold: block.percent("threshold", spec.threshold, 1).unwrap_or(85),
        min_endpoints: block.number("minEndpoints", spec.min_endpoints, 1..=1000).unwrap_or(5),
        min_requests: block.number("minRequests", spec.min_requests, 1..=1_000_000).unwrap_or(50),
    }
}
