//! Passive checks as Kong's kinds configure them, with Kong's defaults.

use super::active_checks::count;
use super::fields::Notation;
use super::findings::Findings;
use crate::api::kong::{PassiveHealthcheck, Unhealthy};
use crate::upstream::settings::PassiveChecks;

/// The checks; `None` if all numbers of failures are 0, so that Kong does not check either.
///
/// In Kong, an endpoint that is unhealthy gets no requests any more unless an active check passes. Here, it gets
/// one request after a while, as after any ejection.
pub(super) fn translate(
    passive: &PassiveHealthcheck,
    notation: Notation,
    findings: &mut Findings,
) -> Option<PassiveChecks> {
    let field = |name: &str| notation.field(&format!("healthchecks.passive.{name}"));
    let kind = passive.kind.as_deref().unwrap_or("http");
    if !["http", "https", "tcp", "grpc", "grpcs"].contains(&kind) {
        let message = format!("{kind:?} is not a type of checks, so nothing is checked");
        findings.problem(field("type"), message, "write http, https, tcp, grpc or grpcs");
        return None;
    }
    let default = Unhealthy::default();
    let unhealthy = passive.unhealthy.as_ref().unwrap_or(&default);
    let [mut responses, connections, timeouts] =
        [unhealthy.http_failures, unhealthy.tcp_failures, unhealthy.timeouts].map(count);
    if kind == "tcp" && responses > 0 {
        let message = "checks of type tcp ignore responses, so it has no effect";
        findings.note(field("unhealthy.httpFailures"), message, "remove it, or set the type to http");
        responses = 0;
    }
    if [responses, connections, timeouts] == [0; 3] {
        return None;
    }
    if passive.healthy.as_ref().is_some_and(|healthy| healthy.http_statuses.is_some()) {
        let message = "each response that does not count as failure is a success, so it has no effect";
        findings.note(field("healthy.httpStatuses"), message, "remove it");
    }
    let listed = unhealthy.http_statuses.as_deref().unwrap_or(FAILING);
    let mut statuses: Vec<u16> = listed.iter().filter_map(|status| u16::try_from(*status).ok()).collect();
    statuses.sort_unstable();
    statuses.dedup();
    // An empty list would mean the default of Portico.
    let is_any_status_listed = !statuses.is_empty();
    let defaults = PassiveChecks::default();
    Some(PassiveChecks {
        // An endpoint that refuses connections is avoided in any case.
        connect_failures: if connections > 0 { connections } else { defaults.connect_failures },
        local_origin_failures: timeouts,
        server_errors: if is_any_status_listed { responses } else { 0 },
        statuses: if responses > 0 { statuses.into() } else { Box::default() },
        half_open_successes: count(passive.healthy.as_ref().and_then(|healthy| healthy.successes)).max(1),
        ..defaults
    })
}

/// Statuses that count as failures in Kong.
const FAILING: &[i32] = &[429, 500, 503];
