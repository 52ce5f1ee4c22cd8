//! The cookies that are generated for load balancing by hash, because a request lacks them.

use std::sync::Arc;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use smallvec::SmallVec;

use super::affinity::warn_of_same_name;
use crate::upstream::Upstream;
use crate::upstream::settings::{HashSource, RequestHash};

/// The positions of the keys for which cookies were generated, with the values of the cookies.
pub(super) type CookieValues = SmallVec<[(usize, u128); 1]>;

/// The cookies that were generated for a request.
pub(in crate::proxy) struct GeneratedCookies {
    upstream: Arc<Upstream>,
    settings: Arc<RequestHash>,
    values: CookieValues,
    /// Whether the client uses TLS.
    is_secure: bool,
}

impl GeneratedCookies {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        settings: Arc<RequestHash>,
        values: CookieValues,
        is_secure: bool,
    ) -> Self {
        GeneratedCookies { upstream, settings, values, is_secure }
    }

    /// Adds the cookies to the response.
    pub(super) fn add_to_response(&self, headers: &mut HeaderMap) {
        for (index, value) in &self.values {
            let HashSource::Cookie(cookie) = &self.settings.keys[*index].source else { continue };
            warn_of_same_name(&self.upstream, &cookie.name, headers);
            if let Ok(value) =
                HeaderValue::try_from(cookie.with_value(format_args!("{value:032x}"), None, self.is_secure))
            {
                headers.append(SET_COOKIE, value);
            }
        }
    }
}

/// The value of a cookie, as [`GeneratedCookies::add_to_response`] writes it.
pub(super) fn hexadecimal(value: u128) -> SmallVec<[u8; 32]> {
    let digit = |position: u32| b"0123456789abcdef"[(value >> (124 - 4 * position)) as usize & 15];
    (0..32).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the next request of the client would go to another endpoint.
    #[test]
    fn generated_value_is_hashed_as_it_is_written() {
        for value in [0, 42, u128::MAX, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210] {
            assert_eq!(hexadecimal(value).as_slice(), format!("{value:032x}").as_bytes());
        }
    }
}
