//! `spec.circuitBreaker`.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::block_reader::BlockReader;
use crate::api::portico::{CircuitBreakerSpec, FallbackResponseSpec};
use crate::upstream::settings::{CircuitBreakerSettings, FallbackResponse, SlowRequests};

pub(super) fn translate(spec: &CircuitBreakerSpec, block: &mut BlockReader<'_>) -> CircuitBreakerSettings {
    let mut duration = |field: &str, text: &Option<String>, bounds: [&str; 2], default: u64| {
        block.duration(field, text.as_ref(), bounds).unwrap_or(Duration::from_secs(default))
    };
    let window = duration("window", &spec.window, ["1s", "1h"], 10);
    let open_for = duration("openFor", &spec.open_for, ["1s", "1h"], 10);
    let max_open_for = duration("maxOpenFor", &spec.max_open_for, ["1s", "24h"], 60);
    let ramp_up = duration("rampUp", &spec.ramp_up, ["0s", "1h"], 10);
    if open_for > max_open_for {
        let message = "it is longer than maxOpenFor, which defaults to 60s";
        block.problem("openFor", message, "shorten it, or lengthen maxOpenFor");
    }
    let slow_after = block.duration("slowAfter", spec.slow_after.as_ref(), ["1ms", "1h"]);
    let slow_percent = block.percent("slowPercent", spec.slow_percent, 1);
    let slow = match (slow_after, slow_percent) {
        (Some(after), Some(percent)) => Some(SlowRequests { after, percent }),
        _ => None,
    };
    if spec.slow_after.is_some() != spec.slow_percent.is_some() {
        let field = if spec.slow_after.is_some() { "slowAfter" } else { "slowPercent" };
        let message = "slowAfter and slowPercent need each other";
        block.problem(field, message, "add the missing one, or remove the other");
    }
    CircuitBreakerSettings {
        window,
        min_requests: block.number("minRequests", spec.min_requests, COUNTS).unwrap_or(20),
        error_percent: block.percent("errorPercent", spec.error_percent, 1).unwrap_or(50),
        slow,
        consecutive: block.number("consecutive", spec.consecutive, COUNTS),
        statuses: block.statuses("statuses", &spec.statuses, 400..=599),
        open_for,
        max_open_for,
        probes: block.number("probes", spec.probes, 1..=100).unwrap_or(1),
        successes: block.number("successes", spec.successes, 1..=100).unwrap_or(5),
        ramp_up,
        fallback: fallback(spec, block),
    }
}

const COUNTS: std::ops::RangeInclusive<u32> = 1..=1_000_000;

fn fallback(spec: &CircuitBreakerSpec, block: &mut BlockReader<'_>) -> Option<FallbackResponse> {
    let fallback = spec.fallback.as_ref()?;
    let forms = [fallback.response.is_some(), fallback.backend_ref.is_some(), fallback.stale.is_some()];
    if forms.into_iter().filter(|is_set| *is_set).count() != 1 {
        let message = "it needs exactly one of response, backendRef and stale";
        block.problem("fallback", message, "keep one of them");
    }
    fallback.response.as_ref().map(|spec| response(spec, &mut block.object("fallback.response")))
}

fn response(spec: &FallbackResponseSpec, block: &mut BlockReader<'_>) -> FallbackResponse {
    let status = block.number("status", spec.status, 200..=599).and_then(|status| u16::try_from(status).ok());
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let body = spec.body.clone().unwrap_or_default();
    if body.len() > MAX_BODY_BYTES {
        let message = format!("the body has {} bytes", body.len());
        block.problem("body", message, format!("shorten it to {MAX_BODY_BYTES} bytes"));
    }
    FallbackResponse {
        status: status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        headers: block.headers("headers", &spec.headers),
        body: Bytes::from(body),
    }
}

const MAX_BODY_BYTES: usize = 4096;
