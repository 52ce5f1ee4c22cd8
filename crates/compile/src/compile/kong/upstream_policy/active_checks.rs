//! Active checks as Kong's kinds configure them, with Kong's defaults.

use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::fields::Notation;
use super::findings::Findings;
use crate::api::kong::{ActiveHealthcheck, Healthy, Unhealthy};
use crate::plugin_api::field_names::is_framing;
use crate::upstream::settings::{ActiveCheck, CheckKind, FailureThresholds, InitialHealth, StatusRanges};

/// The checks; `None` if both intervals are 0, so that Kong does not check either, or if a field is invalid.
pub(super) fn translate(
    active: &ActiveHealthcheck,
    host: &HeaderValue,
    notation: Notation,
    findings: &mut Findings,
) -> Option<ActiveCheck> {
    let (healthy, unhealthy) = (Healthy::default(), Unhealthy::default());
    let healthy = active.healthy.as_ref().unwrap_or(&healthy);
    let unhealthy = active.unhealthy.as_ref().unwrap_or(&unhealthy);
    let (interval, unhealthy_interval) = (seconds(healthy.interval), seconds(unhealthy.interval));
    if interval.is_zero() && unhealthy_interval.is_zero() {
        return None;
    }
    let thresholds = FailureThresholds {
        responses: count(unhealthy.http_failures),
        connections: count(unhealthy.tcp_failures),
        timeouts: count(unhealthy.timeouts),
    };
    let field = |name: &str| notation.field(&format!("healthchecks.active.{name}"));
    let counts = [thresholds.responses, thresholds.connections, thresholds.timeouts];
    let healthy_threshold = count(healthy.successes);
    // Without a threshold, Kong sends checks and ignores what they show.
    if counts.iter().all(|count| *count == 0) && healthy_threshold == 0 {
        let message = "all numbers of successes and failures are 0, so checks have no effect";
        findings.note(
            field("unhealthy"),
            message,
            "set healthy.successes and unhealthy.httpFailures, or remove the check",
        );
        return None;
    }
    let kind = check_kind(active, host, notation, findings)?;
    note_unused(active, notation, findings);
    Some(ActiveCheck {
        kind,
        interval,
        unhealthy_interval,
        timeout: Some(seconds(active.timeout)).filter(|timeout| !timeout.is_zero()).unwrap_or(DEFAULT_TIMEOUT),
        unhealthy_threshold: counts.into_iter().filter(|count| *count > 0).min().unwrap_or(0),
        failure_thresholds: Some(thresholds),
        healthy_threshold,
        initial: InitialHealth::Healthy,
        port: None,
        reuses_connection: true,
    })
}

/// What a check sends; `None` if a field is invalid.
fn check_kind(
    active: &ActiveHealthcheck,
    host: &HeaderValue,
    notation: Notation,
    findings: &mut Findings,
) -> Option<CheckKind> {
    let kind = active.kind.as_deref().unwrap_or("http");
    let field = |name: &str| notation.field(&format!("healthchecks.active.{name}"));
    match kind {
        "tcp" => Some(CheckKind::Tcp { send: Box::default(), expect: Box::default() }),
        "grpc" | "grpcs" => Some(CheckKind::Grpc { service: "".into(), authority: host.clone() }),
        "http" | "https" => {
            let text = active.http_path.as_deref().unwrap_or("/");
            let path = text.parse::<Uri>().ok().filter(|path| text.starts_with('/') && path.host().is_none());
            if path.is_none() {
                let message = format!("{text:?} is not a path, so nothing is checked");
                let remedy = "write a path that begins with a slash; encode spaces and other special characters";
                findings.problem(field("httpPath"), message, remedy);
            }
            let (mut headers, mut host) = (HeaderMap::new(), host.clone());
            for (name, values) in &active.headers {
                if let Some((name, values)) = header(name, values, notation, findings) {
                    for value in values {
                        if name == HOST {
                            host = value;
                        } else {
                            headers.append(&name, value);
                        }
                    }
                }
            }
            let passing = active.healthy.as_ref().and_then(|healthy| healthy.http_statuses.as_deref());
            let failing = active.unhealthy.as_ref().and_then(|unhealthy| unhealthy.http_statuses.as_deref());
            Some(CheckKind::Http {
                tls: kind == "https",
                method: Method::GET,
                path: path?,
                host,
                headers,
                expected: statuses(passing.unwrap_or(PASSING)),
                failing: Some(statuses(failing.unwrap_or(FAILING))),
            })
        }
        other => {
            let message = format!("{other:?} is not a type of checks, so nothing is checked");
            findings.problem(field("type"), message, "write http, https, tcp, grpc or grpcs");
            None
        }
    }
}

/// A header of checks; `None` if it is invalid.
fn header(
    name: &str,
    values: &[String],
    notation: Notation,
    findings: &mut Findings,
) -> Option<(HeaderName, Vec<HeaderValue>)> {
    let field = notation.field(&format!("healthchecks.active.headers[{name}]"));
    let Ok(parsed) = HeaderName::try_from(name) else {
        findings.problem(field, format!("{name:?} is not the name of a header"), "write a name such as x-check");
        return None;
    };
    if is_framing(&parsed) {
        let message = format!("{parsed} describes the connection, so checks cannot have another value");
        findings.problem(field, message, "remove it");
        return None;
    }
    let is_valid = |value: &&String| HeaderValue::try_from(&***value).is_ok();
    if let Some(invalid) = values.iter().find(|value| !is_valid(value)) {
        findings.problem(field, format!("{invalid:?} is not the value of a header"), "remove control characters");
        return None;
    }
    Some((parsed, values.iter().filter_map(|value| HeaderValue::try_from(&**value).ok()).collect()))
}

/// Notes about fields that Portico decides itself.
fn note_unused(active: &ActiveHealthcheck, notation: Notation, findings: &mut Findings) {
    let field = |name: &str| notation.field(&format!("healthchecks.active.{name}"));
    if active.concurrency.is_some_and(|concurrency| concurrency != DEFAULT_CONCURRENCY) {
        let message = "the checks of all Services are limited together, so it has no effect";
        findings.note(field("concurrency"), message, "remove it, or set --health-checks-per-second");
    }
    for (is_set, name) in [
        (active.https_sni.is_some(), "httpsSni"),
        (active.https_verify_certificate.is_some(), "httpsVerifyCertificate"),
    ] {
        if is_set {
            let message = "checks verify the server as requests do, so it has no effect";
            findings.note(field(name), message, "remove it; annotations of the Service configure its TLS");
        }
    }
}

/// Statuses as ranges. Kong lists each.
fn statuses(listed: &[i32]) -> StatusRanges {
    let mut listed: Vec<u16> = listed.iter().filter_map(|status| u16::try_from(*status).ok()).collect();
    listed.sort_unstable();
    listed.dedup();
    let mut ranges: Vec<std::ops::RangeInclusive<u16>> = Vec::new();
    for status in listed {
        match ranges.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(status) => *last = *last.start()..=status,
            _ => ranges.push(status..=status),
        }
    }
    StatusRanges(ranges.into())
}

fn seconds(number: Option<i32>) -> Duration {
    Duration::from_secs(u64::try_from(number.unwrap_or(0)).unwrap_or(0))
}

/// A number of which 0, the default, switches a trigger off.
pub(super) fn count(number: Option<i32>) -> u32 {
    u32::try_from(number.unwrap_or(0)).unwrap_or(0)
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
const DEFAULT_CONCURRENCY: i32 = 10;
/// Statuses that pass in Kong.
const PASSING: &[i32] = &[200, 302];
/// Statuses that fail in Kong.
const FAILING: &[i32] = &[429, 404, 500, 501, 502, 503, 504, 505];
