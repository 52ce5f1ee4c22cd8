//! Directives without effect: neither clients nor endpoints would see a difference.

use super::directive_tree::WrittenDirective;
use super::refusal::DirectiveRefusal;

/// A directive that is accepted and has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredDirective {
    pub line: usize,
    pub directive: String,
    /// A sentence without its period.
    pub reason: &'static str,
}

/// What a directive does in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DirectiveEffect {
    Added,
    /// Nothing, because of the reason.
    None(&'static str),
    /// It is about something else.
    Other,
}

/// Why a directive has no effect. `Ok(None)` if it could have one.
pub(super) fn reason(directive: &WrittenDirective) -> Result<Option<&'static str>, DirectiveRefusal> {
    let name = &directive.name[..];
    let arguments = || directive.arguments.iter().map(String::as_str);
    let reason = if BUFFERS.contains(&name) {
        directive.some_arguments()?;
        "Portico forwards messages as they arrive, within its own limits of memory"
    } else if ERROR_LOGS.contains(&name) {
        directive.some_arguments()?;
        "it is about log files of nginx"
    } else if DEFAULTS.iter().any(|(known, values)| *known == name && arguments().eq(values.split(' '))) {
        "Portico does this in any case"
    } else if name == "proxy_ignore_headers" && arguments().all(|field| CACHE_FIELDS.contains(&field)) {
        directive.some_arguments()?;
        "the fields are about the cache of nginx"
    } else {
        return Ok(None);
    };
    Ok(Some(reason))
}

const BUFFERS: &[&str] = &[
    "proxy_buffering",
    "proxy_request_buffering",
    "proxy_buffer_size",
    "proxy_buffers",
    "proxy_busy_buffers_size",
    "proxy_max_temp_file_size",
    "proxy_temp_file_write_size",
    "client_body_buffer_size",
    "client_body_in_single_buffer",
    "grpc_buffer_size",
    "tcp_nodelay",
    "tcp_nopush",
];

const ERROR_LOGS: &[&str] = &["log_not_found", "log_subrequest"];

/// Directives with the arguments that are those of Portico.
const DEFAULTS: &[(&str, &str)] = &[
    ("proxy_http_version", "1.1"),
    ("chunked_transfer_encoding", "on"),
    ("proxy_intercept_errors", "off"),
    ("server_tokens", "off"),
    ("proxy_cache", "off"),
    ("proxy_socket_keepalive", "on"),
];

const CACHE_FIELDS: &[&str] = &["Cache-Control", "Expires", "Set-Cookie", "Vary"];
