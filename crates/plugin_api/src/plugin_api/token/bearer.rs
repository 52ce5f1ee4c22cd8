//! Tokens in the header `Authorization` (RFC 6750).

/// The token after the scheme `Bearer`.
pub fn strip_bearer_scheme(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.trim_ascii().split_at_checked(6)?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer") && token.first().is_some_and(u8::is_ascii_whitespace);
    Some(token.trim_ascii_start()).filter(|token| is_bearer && !token.is_empty())
}
