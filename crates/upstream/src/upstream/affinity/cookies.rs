//! The cookies of a request with one name.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// The values of all cookies with a name (RFC 6265, section 4.2.1), in the order in which the client sends them: those
/// with longer paths first.
pub fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|byte| *byte == b';')).filter_map(move |pair| cookie_value(pair, name))
}

/// The value of a cookie, if it has this name.
pub fn cookie_value<'p>(pair: &'p [u8], name: &str) -> Option<&'p [u8]> {
    let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.trim_ascii_start().strip_prefix(b"=")?;
    let value = value.trim_ascii();
    Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}
