//! Which cookies clients keep only with the attribute `Secure`.

/// Whether clients drop a cookie without `Secure`, whatever the connection is: the page may have come through a proxy
/// that terminates TLS (RFC 6265bis, sections 4.1.3 and 5.7).
pub fn requires_secure(name: &str, is_same_site_none: bool) -> bool {
    is_same_site_none || has_prefix(name, "__Host-") || has_prefix(name, "__Secure-")
}

/// Whether the name of a cookie begins with a prefix that clients recognize, in any case of its letters.
pub fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
