//! The cookies that are generated for load balancing by hash, because a request lacks them.

use std::sync::Arc;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use crate::upstream::settings::{HashCookie, HashSource, RequestHash, SameSite};

/// The positions of the keys for which cookies were generated, with the values of the cookies.
pub(super) type CookieValues = SmallVec<[(usize, u128); 1]>;

/// The cookies that were generated for a request.
pub(in crate::proxy) struct GeneratedCookies {
    settings: Arc<RequestHash>,
    values: CookieValues,
    /// Whether the client uses TLS.
    is_secure: bool,
}

impl GeneratedCookies {
    pub(super) fn new(settings: Arc<RequestHash>, values: CookieValues, is_secure: bool) -> Self {
        GeneratedCookies { settings, values, is_secure }
    }

    /// Adds the cookies to the response.
    pub(super) fn add_to_response(&self, headers: &mut HeaderMap) {
        for (index, value) in &self.values {
            let HashSource::Cookie(cookie) = &self.settings.keys[*index].source else { continue };
            if let Ok(value) = HeaderValue::try_from(set_cookie(cookie, *value, self.is_secure)) {
                headers.append(SET_COOKIE, value);
            }
        }
    }
}

fn set_cookie(cookie: &HashCookie, value: u128, is_secure: bool) -> String {
    let HashCookie { name, ttl, path, same_site } = cookie;
    let max_age = if ttl.is_zero() { String::new() } else { format!("; Max-Age={}", ttl.as_secs().max(1)) };
    let same_site = match same_site {
        SameSite::Strict => "Strict",
        SameSite::Lax => "Lax",
        SameSite::None => "None",
    };
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{name}={value:032x}; Path={path}{max_age}; HttpOnly; SameSite={same_site}{secure}")
}

/// The value of a cookie, as [`set_cookie`] writes it.
pub(super) fn hexadecimal(value: u128) -> SmallVec<[u8; 32]> {
    let digit = |position: u32| b"0123456789abcdef"[(value >> (124 - 4 * position)) as usize & 15];
    (0..32).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn cookies_have_the_configured_attributes() {
        let cookie = |ttl: u64, same_site| HashCookie {
            name: "c".into(),
            ttl: Duration::from_millis(ttl),
            path: "/a".into(),
            same_site,
        };
        let value = "0000000000000000000000000000002a";
        for (ttl, same_site, is_secure, expected) in [
            (0, SameSite::Lax, false, "; Path=/a; HttpOnly; SameSite=Lax"),
            (60_000, SameSite::Strict, true, "; Path=/a; Max-Age=60; HttpOnly; SameSite=Strict; Secure"),
            // Zero would remove the cookie.
            (500, SameSite::None, true, "; Path=/a; Max-Age=1; HttpOnly; SameSite=None; Secure"),
        ] {
            assert_eq!(set_cookie(&cookie(ttl, same_site), 42, is_secure), format!("c={value}{expected}"));
        }
    }

    /// Otherwise the next request of the client would go to another endpoint.
    #[test]
    fn generated_value_is_hashed_as_it_is_written() {
        for value in [0, 42, u128::MAX, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210] {
            assert_eq!(hexadecimal(value).as_slice(), format!("{value:032x}").as_bytes());
        }
    }
}
