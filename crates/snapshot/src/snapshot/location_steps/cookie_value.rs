//! The value of a cookie, as variables of nginx have it.

use http::HeaderMap;
use http::header::COOKIE;

/// The value of the first cookie with this name, whose letter case does not matter.
pub(super) fn cookie_value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let mut pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let (known, value) = pair.trim_ascii().split_at_checked(name.len())?;
        value.strip_prefix(b"=").filter(|_| known.eq_ignore_ascii_case(name.as_bytes()))
    })
}
