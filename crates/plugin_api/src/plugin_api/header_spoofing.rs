//! Protection against header spoofing with underscores.
//!
//! CGI and its successors (WSGI, Rack, PHP) map header names to variable names, so `X_Consumer_ID` and `X-Consumer-ID`
//! are the same to them. A client could spoof a header that the proxy sets by sending the other spelling.

use http::{HeaderMap, HeaderName};
use memchr::memchr;

/// Removes headers that differ from a `protected` name only in underscores. `protected` names must begin with `x-`.
pub fn remove_spoofed(headers: &mut HeaderMap, protected: &[HeaderName]) {
    while let Some(name) = headers.keys().find(|name| is_spoofed(name, protected)).cloned() {
        headers.remove(name);
    }
}

/// Whether a name equals a `protected` name except for underscores in place of hyphens.
pub fn is_spoofed(name: &HeaderName, protected: &[HeaderName]) -> bool {
    let name = name.as_str().as_bytes();
    let is_alike = |protected: &HeaderName| {
        let protected = protected.as_str().as_bytes();
        let is_same = |(sent, expected): (&u8, &u8)| sent == expected || (*sent, *expected) == (b'_', b'-');
        protected.len() == name.len() && name.iter().zip(protected).all(is_same)
    };
    // For speed: most names do not begin with `x`, and nearly all others have no underscore.
    name.first() == Some(&b'x') && memchr(b'_', name).is_some() && protected.iter().any(is_alike)
}

/// Whether two names are equal, or differ only in that hyphens are underscores.
pub fn is_alike(name: &HeaderName, other: &HeaderName) -> bool {
    let normalized = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let (name, other) = (name.as_str().as_bytes(), other.as_str().as_bytes());
    // From the end, because many names begin in the same way.
    name.len() == other.len() && name.iter().zip(other).rev().all(|(a, b)| normalized(*a) == normalized(*b))
}

/// Removes headers whose names differ from `name` only in that hyphens are underscores, or the reverse.
pub fn remove_alike(headers: &mut HeaderMap, name: &HeaderName) {
    let is_other_spelling = |other: &&HeaderName| *other != name && is_alike(other, name);
    while let Some(alike) = headers.keys().find(is_other_spelling).cloned() {
        headers.remove(alike);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_names_differing_in_underscores_are_removed() {
        static PROTECTED: [HeaderName; 2] = [HeaderName::from_static("x-real-ip"), HeaderName::from_static("x-id")];
        let names = ["x_real_ip", "x-real_ip", "x_real-ip", "x-real-ip", "x_real_ipx", "x_id", "y_id", "x_other"];
        let mut headers: HeaderMap =
            names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
        remove_spoofed(&mut headers, &PROTECTED);
        let mut remaining: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        remaining.sort_unstable();
        assert_eq!(remaining, ["x-real-ip", "x_other", "x_real_ipx", "y_id"]);
    }

    #[test]
    fn other_spellings_are_removed() {
        let names = ["remote-user", "remote_user", "remote-users", "remote_host"];
        for (name, expected) in [
            ("remote-user", ["remote-user", "remote-users", "remote_host"]),
            ("remote_user", ["remote-users", "remote_host", "remote_user"]),
        ] {
            let mut headers: HeaderMap =
                names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
            remove_alike(&mut headers, &HeaderName::from_static(name));
            let mut remaining: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
            remaining.sort_unstable();
            assert_eq!(remaining, expected);
        }
    }
}
