//! Parts of a dump that are one line of text: certificates, header edits, mirrors and servers.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;

use crate::endpoint_tls::UpstreamProtocol;
use crate::snapshot::certs::Certificate;
use crate::snapshot::external_auth::ExternalAuthFilter;
use crate::snapshot::rule::{HeaderEdits, Mirror, PathEdit};
use crate::snapshot::stream::StreamOptions;
use crate::upstream::UpstreamKey;

pub(super) fn certificate_line(certificate: &Certificate) -> String {
    let names: Vec<_> = certificate.names.iter().map(ToString::to_string).collect();
    let until = Timestamp::from_second(certificate.expires).map(|expiry| expiry.strftime("%F").to_string());
    format!("{}: {}, until {}", certificate.secret, names.join(", "), until.unwrap_or_default())
}

pub(super) fn header_edit_lines(edits: &HeaderEdits) -> Vec<String> {
    let HeaderEdits { set, add, remove } = edits;
    let remove = remove.iter().map(|name| format!("remove {name}"));
    let set = set.iter().map(|(name, value)| format!("set {}", header_line(name, value)));
    let add = add.iter().map(|(name, value)| format!("add {}", header_line(name, value)));
    remove.chain(set).chain(add).collect()
}

pub(super) fn mirror_line(mirror: &Mirror) -> String {
    let Mirror { upstream, numerator, denominator } = mirror;
    let mut line = upstream.key.to_string();
    if numerator != denominator {
        write!(line, " {numerator}/{denominator}").expect("writing to a string cannot fail");
    }
    add_connection_settings(&mut line, &upstream.key);
    line
}

pub(super) fn external_auth_lines(filter: &ExternalAuthFilter) -> Vec<String> {
    let mut server = filter.upstream.key.to_string();
    add_connection_settings(&mut server, &filter.upstream.key);
    let mut lines = vec![server];
    lines.extend(filter.describe());
    lines
}

/// Adds the protocol and TLS settings of an upstream, as far as they differ from HTTP/1.1 without TLS.
pub(super) fn add_connection_settings(line: &mut String, upstream: &UpstreamKey) {
    let tls = upstream.tls.as_ref().map(ToString::to_string);
    for setting in protocol(upstream).into_iter().chain(tls.as_deref()) {
        write!(line, ", {setting}").expect("writing to a string cannot fail");
    }
}

/// The protocol to the upstream, if it is not HTTP/1.1.
pub(super) fn protocol(upstream: &UpstreamKey) -> Option<&'static str> {
    let is_tls = upstream.tls.is_some();
    match upstream.protocol {
        UpstreamProtocol::Http1 => None,
        UpstreamProtocol::Http2 => Some(if is_tls { "h2" } else { "h2c" }),
        UpstreamProtocol::FastCgi => Some("FastCGI"),
    }
}

pub(super) fn path_edit_text(edit: &PathEdit) -> String {
    let or_root = |path: &str| if path.is_empty() { "/" } else { path }.to_owned();
    match edit {
        PathEdit::Full(path) => or_root(path),
        PathEdit::Prefix { strip, with } => format!("prefix {} -> {}", or_root(strip), or_root(with)),
    }
}

pub(super) fn header_line(name: &HeaderName, value: &HeaderValue) -> String {
    format!("{name}: {}", header_text(value))
}

/// Bytes that are not UTF-8 are replaced; a value marked as sensitive is hidden.
pub(super) fn header_text(value: &HeaderValue) -> String {
    if value.is_sensitive() {
        return "(secret)".to_owned();
    }
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// The options of a route for connections that differ from the defaults.
pub(super) fn stream_option_lines(options: &StreamOptions) -> Vec<String> {
    let StreamOptions { reads_proxy_header, idle_timeout, connect_attempts, connect_time } = *options;
    let attempts = connect_attempts.map(|attempts| match attempts {
        usize::MAX => "attempts at all endpoints".to_owned(),
        attempts => format!("at most {attempts} attempts"),
    });
    let lines = [
        reads_proxy_header.then(|| "reads PROXY header".to_owned()),
        idle_timeout.map(|timeout| format!("idle timeout {timeout:?}")),
        attempts,
        connect_time.map(|time| format!("no attempt begins after {time:?}")),
    ];
    lines.into_iter().flatten().collect()
}
