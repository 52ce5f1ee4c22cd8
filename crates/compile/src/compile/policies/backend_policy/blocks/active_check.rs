//! `spec.health.active`.

use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use http::{HeaderValue, Method, Uri};

use super::block_reader::BlockReader;
use crate::api::portico::ActiveCheckSpec;
use crate::upstream::settings::{ActiveCheck, CheckKind, InitialHealth, StatusRanges};

/// `default_host`: the name of the target in the cluster's DNS. `None` if there are problems.
pub(super) fn translate(
    spec: &ActiveCheckSpec,
    default_host: &str,
    block: &mut BlockReader<'_>,
) -> Option<ActiveCheck> {
    let interval = block.duration("interval", spec.interval.as_ref(), ["100ms", "1h"]).unwrap_or(DEFAULT_INTERVAL);
    let unhealthy_interval = block.duration("unhealthyInterval", spec.unhealthy_interval.as_ref(), ["100ms", "1h"]);
    let timeout = block.duration("timeout", spec.timeout.as_ref(), ["1ms", "1h"]);
    if timeout.is_some_and(|timeout| timeout > interval) {
        let message = "it is longer than interval, which defaults to 10s";
        block.problem("timeout", message, "shorten it, or lengthen interval");
    }
    let thresholds =
        [("unhealthyThreshold", spec.unhealthy_threshold, 3), ("healthyThreshold", spec.healthy_threshold, 2)];
    let [unhealthy_threshold, healthy_threshold] =
        thresholds.map(|(field, value, default)| block.number(field, value, 1..=100).unwrap_or(default));
    let initial = block.choice(
        "initial",
        spec.initial.as_ref(),
        [("Healthy", InitialHealth::Healthy), ("Unhealthy", InitialHealth::Unhealthy)],
    );
    let port = block.number("port", spec.port, 1..=65_535).and_then(|port| u16::try_from(port).ok());
    Some(ActiveCheck {
        kind: kind(spec, default_host, block)?,
        interval,
        unhealthy_interval: unhealthy_interval.unwrap_or(interval),
        timeout: timeout.unwrap_or_else(|| DEFAULT_TIMEOUT.min(interval)),
        unhealthy_threshold,
        healthy_threshold,
        failure_thresholds: None,
        initial: initial.unwrap_or_default(),
        port,
        reuses_connection: spec.reuse_connection.unwrap_or(true),
    })
}

const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

fn kind(spec: &ActiveCheckSpec, default_host: &str, block: &mut BlockReader<'_>) -> Option<CheckKind> {
    let name = spec.kind.as_deref().unwrap_or("HTTP");
    let is_http = matches!(name, "HTTP" | "HTTPS");
    for (field, is_set, is_used, types) in [
        ("path", spec.path.is_some(), is_http, "HTTP and HTTPS"),
        ("method", spec.method.is_some(), is_http, "HTTP and HTTPS"),
        ("headers", !spec.headers.is_empty(), is_http, "HTTP and HTTPS"),
        ("expectedStatuses", !spec.expected_statuses.is_empty(), is_http, "HTTP and HTTPS"),
        ("host", spec.host.is_some(), name != "TCP", "HTTP, HTTPS and GRPC"),
        ("service", spec.service.is_some(), name == "GRPC", "GRPC"),
        ("send", spec.send.is_some(), name == "TCP", "TCP"),
        ("expect", spec.expect.is_some(), name == "TCP", "TCP"),
    ] {
        if is_set && !is_used {
            block.problem(field, format!("it is for checks of type {types}"), "remove it, or change type");
        }
    }
    match name {
        "HTTP" | "HTTPS" => {
            let method =
                block.choice("method", spec.method.as_ref(), [("GET", 0), ("HEAD", 1), ("OPTIONS", 2), ("POST", 3)]);
            let method = [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST][method.unwrap_or_default()].clone();
            let headers = block.headers("headers", &spec.headers);
            let expected = expected_statuses(&spec.expected_statuses, block);
            let path = path(spec.path.as_deref().unwrap_or("/"), block);
            let host = host(spec, default_host, block);
            Some(CheckKind::Http {
                tls: name == "HTTPS",
                method,
                path: path?,
                host: host?,
                headers,
                expected,
                failing: None,
            })
        }
        "TCP" => {
            let send = octets("send", spec.send.as_deref(), block);
            let expect = octets("expect", spec.expect.as_deref(), block);
            Some(CheckKind::Tcp { send: send?, expect: expect? })
        }
        "GRPC" => {
            let service = spec.service.as_deref().unwrap_or_default();
            Some(CheckKind::Grpc { service: service.into(), authority: host(spec, default_host, block)? })
        }
        other => {
            let remedy = "use one of HTTP, HTTPS, TCP, GRPC";
            block.problem("type", format!("{other:?} is not a type of checks"), remedy);
            None
        }
    }
}

fn path(text: &str, block: &mut BlockReader<'_>) -> Option<Uri> {
    let uri = text.parse::<Uri>().ok().filter(|uri| text.starts_with('/') && uri.authority().is_none());
    if uri.is_none() {
        let remedy = "write a path that begins with a slash, with percent-encoding where needed";
        block.problem("path", format!("{text:?} is not a path"), remedy);
    }
    uri
}

fn host(spec: &ActiveCheckSpec, default_host: &str, block: &mut BlockReader<'_>) -> Option<HeaderValue> {
    let text = spec.host.as_deref().unwrap_or(default_host);
    let is_authority = text.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.as_str().contains('@'));
    let host = HeaderValue::try_from(text).ok().filter(|_| is_authority);
    if host.is_none() {
        block.problem("host", format!("{text:?} is not a host"), "write a name such as shop.example");
    }
    host
}

fn expected_statuses(texts: &[String], block: &mut BlockReader<'_>) -> StatusRanges {
    if texts.is_empty() {
        return StatusRanges([200..=299].into());
    }
    let mut ranges = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let bound = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
        match (bound(first), bound(last)) {
            (Some(first), Some(last)) if first <= last => ranges.push(first..=last),
            _ => {
                let message = format!("{text:?} is not a range of statuses");
                block.problem(&format!("expectedStatuses[{index}]"), message, "write it like 200 or 200-299");
            }
        }
    }
    StatusRanges(ranges.into())
}

/// Bytes in hexadecimal.
fn octets(field: &str, text: Option<&str>, block: &mut BlockReader<'_>) -> Option<Box<[u8]>> {
    let text = text.unwrap_or_default();
    let octets = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().filter(|octets| octets.len() <= MAX_OCTETS);
    if octets.is_none() {
        let message = format!("it is not the hexadecimal form of at most {MAX_OCTETS} bytes");
        block.problem(field, message, "write two digits for each byte, such as 50494e470d0a");
    }
    octets.map(Vec::into_boxed_slice)
}

const MAX_OCTETS: usize = 1024;
