//! `health`.

use std::ops::RangeInclusive;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::form::{HIDDEN, duration, list, object, thousandths};
use crate::upstream::settings::{
    ActiveCheck, CheckKind, FailurePercentage, FailureThresholds, InitialHealth, PassiveChecks, StatusRanges,
    SuccessRate,
};

pub(super) fn passive(checks: &PassiveChecks) -> Value {
    let PassiveChecks {
        connect_failures,
        local_origin_failures,
        gateway_errors,
        server_errors,
        statuses,
        timeout_after,
        interval,
        base_ejection,
        max_ejection,
        half_open_successes,
        success_rate,
        failure_percentage,
    } = checks;
    let success_rate = success_rate.map(|SuccessRate { min_endpoints, min_requests, stdev_factor }| {
        let factor = thousandths(stdev_factor);
        json!({"minEndpoints": min_endpoints, "minRequests": min_requests, "stdevFactor": factor})
    });
    let failure_percentage =
        failure_percentage.map(|FailurePercentage { threshold, min_endpoints, min_requests }| {
            json!({"threshold": threshold, "minEndpoints": min_endpoints, "minRequests": min_requests})
        });
    object([
        ("connectFailures", Some(json!(connect_failures))),
        ("localOriginFailures", Some(json!(local_origin_failures))),
        ("gatewayErrors", Some(json!(gateway_errors))),
        ("serverErrors", Some(json!(server_errors))),
        ("statuses", list(statuses)),
        ("timeoutAfter", Some(duration(*timeout_after))),
        ("interval", Some(duration(*interval))),
        ("baseEjection", Some(duration(*base_ejection))),
        ("maxEjection", Some(duration(*max_ejection))),
        ("halfOpenSuccesses", Some(json!(half_open_successes))),
        ("successRate", success_rate),
        ("failurePercentage", failure_percentage),
    ])
}

pub(super) fn active(check: &ActiveCheck) -> Value {
    let ActiveCheck {
        kind,
        interval,
        unhealthy_interval,
        timeout,
        unhealthy_threshold,
        failure_thresholds,
        healthy_threshold,
        initial,
        port,
        reuses_connection,
    } = check;
    let initial = match initial {
        InitialHealth::Healthy => "Healthy",
        InitialHealth::Unhealthy => "Unhealthy",
    };
    let thresholds = failure_thresholds.map(|FailureThresholds { responses, connections, timeouts }| {
        json!({"responses": responses, "connections": connections, "timeouts": timeouts})
    });
    let mut object = object([
        ("interval", Some(duration(*interval))),
        ("unhealthyInterval", Some(duration(*unhealthy_interval))),
        ("timeout", Some(duration(*timeout))),
        ("unhealthyThreshold", Some(json!(unhealthy_threshold))),
        ("failureThresholds", thresholds),
        ("healthyThreshold", Some(json!(healthy_threshold))),
        ("initial", Some(json!(initial))),
        ("port", port.map(|port| json!(port))),
        ("reuseConnection", Some(json!(reuses_connection))),
    ]);
    if let (Value::Object(fields), Value::Object(of_kind)) = (&mut object, check_kind(kind)) {
        fields.extend(of_kind);
    }
    object
}

/// What a check sends, and what it expects.
fn check_kind(kind: &CheckKind) -> Value {
    match kind {
        CheckKind::Http { tls, method, path, host, headers, expected, failing } => {
            let header = |name: &http::HeaderName| json!({"name": name.as_str(), "value": HIDDEN});
            let headers: Vec<Value> = headers.keys().map(header).collect();
            object([
                ("type", Some(json!(if *tls { "HTTPS" } else { "HTTP" }))),
                ("method", Some(json!(method.as_str()))),
                ("path", Some(json!(path.to_string()))),
                ("host", Some(json!(String::from_utf8_lossy(host.as_bytes())))),
                ("headers", list(&headers)),
                ("expectedStatuses", Some(status_ranges(expected))),
                ("failingStatuses", failing.as_ref().map(status_ranges)),
            ])
        }
        CheckKind::Tcp { send, expect } => {
            let expected = HEXLOWER.encode(expect);
            object([
                ("type", Some(json!("TCP"))),
                ("send", (!send.is_empty()).then(|| json!(HIDDEN))),
                ("expect", (!expect.is_empty()).then(|| json!(expected))),
            ])
        }
        CheckKind::Grpc { service, authority } => object([
            ("type", Some(json!("GRPC"))),
            ("service", Some(json!(service))),
            ("host", Some(json!(String::from_utf8_lossy(authority.as_bytes())))),
        ]),
    }
}

fn status_ranges(ranges: &StatusRanges) -> Value {
    let text = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    };
    ranges.0.iter().map(text).collect()
}
