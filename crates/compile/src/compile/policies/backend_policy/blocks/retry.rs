//! `spec.retry` and `spec.retryBudget`.

use std::time::Duration;

use super::block_reader::BlockReader;
use crate::api::portico::{RetryBudgetSpec, RetrySpec};
use crate::upstream::settings::{HedgeSettings, ResetHeader, RetryBackoff, RetryConditions, RetrySettings, TimeFormat};
use crate::upstream::{MinRetryRate, OverBudget, RetryLimits};

pub(super) fn translate(spec: &RetrySpec, block: &mut BlockReader<'_>) -> RetrySettings {
    let attempts = block.number("attempts", spec.attempts, 0..=10).unwrap_or(1);
    if attempts == 0 && spec.hedge.is_some() {
        let message = "it is a further attempt, but attempts is 0";
        block.problem("hedge", message, "remove it, or increase attempts");
    }
    let backoff = spec.backoff.clone().unwrap_or_default();
    let mut of_backoff = block.object("backoff");
    let base = of_backoff.duration("base", backoff.base.as_ref(), ["1ms", "1m"]).unwrap_or(DEFAULT_BASE);
    let max = of_backoff.duration("max", backoff.max.as_ref(), ["1ms", "1h"]).unwrap_or(base * 10);
    if base > max {
        of_backoff.problem("base", "it defaults to 25ms, and is longer than max", "shorten base, or lengthen max");
    }
    let respects_attempt = spec.respect_attempt.unwrap_or(false);
    if respects_attempt && spec.attempt_header.is_none() {
        let message = "it needs the name of the field with the number of the attempt";
        block.problem("respectAttempt", message, "add attemptHeader");
    }
    let reset_header = spec.reset_header.as_ref().and_then(|header| {
        let mut block = block.object("resetHeader");
        let formats = [("Seconds", TimeFormat::Seconds), ("UnixTimestamp", TimeFormat::UnixTimestamp)];
        let format = block.choice("format", header.format.as_ref(), formats).unwrap_or(TimeFormat::Seconds);
        Some(ResetHeader { name: block.header_name("name", &header.name)?, format })
    });
    if spec.unquoted_on.is_some() {
        let message = "YAML 1.1 reads the name on as the boolean true, and the field has another name";
        block.problem("true", message, "write retryOn");
    }
    RetrySettings {
        attempts,
        on: conditions(spec, block),
        backoff: RetryBackoff { base, max },
        max_retry_after: block
            .duration("maxRetryAfter", spec.max_retry_after.as_ref(), ["0s", "1h"])
            .unwrap_or_default(),
        reset_header,
        non_idempotent: spec.non_idempotent.unwrap_or(false),
        trust_idempotency_key: spec.trust_idempotency_key.unwrap_or(false),
        max_body: spec.max_body.as_deref().map_or(DEFAULT_MAX_BODY, |text| max_body(text, block)),
        hedge: spec.hedge.as_ref().map(|hedge| HedgeSettings {
            delay: block.object("hedge").duration("delay", hedge.delay.as_ref(), ["1ms", "1h"]),
        }),
        attempt_header: spec
            .attempt_header
            .as_deref()
            .and_then(|name| block.generated_header_name("attemptHeader", name)),
        respects_attempt,
    }
}

const DEFAULT_BASE: Duration = Duration::from_millis(25);
const DEFAULT_MAX_BODY: usize = 64 << 10;
const GREATEST_MAX_BODY: usize = 1 << 20;

fn conditions(spec: &RetrySpec, block: &mut BlockReader<'_>) -> RetryConditions {
    let default = ["ConnectFailure".to_owned(), "RefusedStream".to_owned()];
    let names = spec.retry_on.as_deref().unwrap_or(&default);
    let mut on = RetryConditions::default();
    let (mut has_codes, mut has_grpc_codes, mut has_headers) = (false, false, false);
    for (index, name) in names.iter().enumerate() {
        let flag = match &**name {
            "ConnectFailure" => &mut on.connect_failure,
            "RefusedStream" => &mut on.refused_stream,
            "Reset" => &mut on.reset,
            "Timeout" => &mut on.timeout,
            "GatewayError" => &mut on.gateway_error,
            "ServerError" => &mut on.server_error,
            "Codes" => &mut has_codes,
            "GrpcCodes" => &mut has_grpc_codes,
            "RetriableHeader" => &mut has_headers,
            other => {
                let remedy = "use ConnectFailure, RefusedStream, Reset, Timeout, GatewayError, ServerError, Codes, \
                              GrpcCodes or RetriableHeader";
                block.problem(&format!("retryOn[{index}]"), format!("{other:?} is not a condition of retries"), remedy);
                continue;
            }
        };
        *flag = true;
    }
    for (field, is_set, condition, is_named) in [
        ("codes", spec.codes.is_some(), "Codes", has_codes),
        ("grpcCodes", spec.grpc_codes.is_some(), "GrpcCodes", has_grpc_codes),
        ("headers", spec.headers.is_some(), "RetriableHeader", has_headers),
    ] {
        if is_set != is_named {
            let message = format!("{field} and the condition {condition} need each other");
            block.problem(field, message, "add the missing one, or remove the other");
        }
    }
    on.codes = block.statuses("codes", spec.codes.as_deref().unwrap_or_default(), 400..=599);
    on.grpc_codes = block.statuses("grpcCodes", spec.grpc_codes.as_deref().unwrap_or_default(), 1..=16);
    let headers = spec.headers.iter().flatten().enumerate();
    on.headers = headers.filter_map(|(index, name)| block.header_name(&format!("headers[{index}]"), name)).collect();
    on
}

/// A number of bytes, with an optional unit.
fn max_body(text: &str, block: &mut BlockReader<'_>) -> usize {
    let (digits, unit) = match text.strip_suffix("Ki") {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix("Mi").map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<usize>().ok().filter(|_| is_number);
    let bytes = number.and_then(|number| number.checked_mul(unit)).filter(|bytes| *bytes <= GREATEST_MAX_BODY);
    bytes.unwrap_or_else(|| {
        block.problem("maxBody", format!("{text:?} is not a size of at most 1Mi"), "write it like 64Ki");
        DEFAULT_MAX_BODY
    })
}

/// `spec.retryBudget`. Absent fields have the defaults of the Gateway API (GEP-3388).
pub(super) fn retry_limits(spec: &RetryBudgetSpec, block: &mut BlockReader<'_>) -> RetryLimits {
    let percent = block.number("percent", spec.percent, 0..=100).unwrap_or(20);
    let interval = block.duration("interval", spec.interval.as_ref(), ["1s", "1h"]);
    let rate = spec.min_retry_rate.as_ref();
    let mut of_rate = block.object("minRetryRate");
    let count = of_rate.number("count", rate.and_then(|rate| rate.count), 1..=1_000_000).unwrap_or(10);
    let min_interval = of_rate.duration("interval", rate.and_then(|rate| rate.interval.as_ref()), ["1ms", "1h"]);
    RetryLimits {
        over_budget: OverBudget::LastOutcome,
        percent,
        interval: interval.unwrap_or(Duration::from_secs(10)),
        min_retry_rate: MinRetryRate { count, interval: min_interval.unwrap_or(Duration::from_secs(1)) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Endpoints got the number of the attempt as the host, and requests with the number as their length failed.
    #[test]
    fn the_number_of_an_attempt_replaces_no_field_with_a_meaning() {
        let refused = [
            "Host",
            "Content-Length",
            "X-Forwarded-For",
            "Authorization",
            "Cookie",
            "Connection",
            "Upgrade",
            "Expect",
            "Content-Type",
        ];
        let refused = refused.map(|name| (name, true));
        for (name, is_refused) in refused.into_iter().chain([("X-Attempt", false), ("x-retry-count", false)]) {
            let spec = RetrySpec { attempt_header: Some(name.to_owned()), ..RetrySpec::default() };
            let mut problems = Vec::new();
            let settings = translate(&spec, &mut BlockReader::new("spec.retry", &mut problems));
            let fields: Vec<&str> = problems.iter().map(|problem| &*problem.field).collect();
            let expected = if is_refused { vec!["spec.retry.attemptHeader"] } else { vec![] };
            assert_eq!((fields, settings.attempt_header.is_none()), (expected, is_refused), "{name}: {problems:?}");
        }
    }
}
