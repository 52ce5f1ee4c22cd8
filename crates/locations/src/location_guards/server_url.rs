//! The URL of a server whose path and query may have variables.

use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// A URL as scheme and host, and what follows.
pub(super) fn split(url: &str) -> (&str, &str) {
    let host = url.find("://").map_or(0, |scheme| scheme + 3);
    let end = url[host..].find(['/', '?']).map_or(url.len(), |path| host + path);
    url.split_at(end)
}

/// The host of the part of a URL before its path.
pub(super) fn host_of(origin: &str) -> &str {
    let authority = origin.split_once("//").map_or(origin, |(_, authority)| authority);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// The target with the values of variables, in which no character ends it or begins another part.
pub(super) fn path_and_query(text: &str) -> Option<PathAndQuery> {
    const ENCODED: &AsciiSet =
        &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}');
    let encoded = utf8_percent_encode(text, ENCODED);
    match text.starts_with('/') {
        true => encoded.to_string().parse().ok(),
        false => format!("/{encoded}").parse().ok(),
    }
}
