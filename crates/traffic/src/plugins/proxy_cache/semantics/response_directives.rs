//! Which field of a response says how long it may be stored: one for caches in front of the backend, or `Cache-Control`
//! and `Expires`, which are for all caches.

use http::{HeaderMap, HeaderName};

use super::cache_control::CacheControl;
use super::dictionary::{DictionaryMember, joined, parse_dictionary};

/// The directives of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseDirectives {
    pub(crate) directives: CacheControl,
    /// Whether a field for caches like this one has them, so that `Expires` does not count (RFC 9213, section 2.2).
    pub(crate) are_targeted: bool,
}

impl ResponseDirectives {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let fields = [cdn_cache_control(headers).unwrap_or_default(), surrogate_control(headers)];
        // A field without a directive that is understood does not count (RFC 9213, section 2.1).
        match fields.into_iter().find(|directives| *directives != CacheControl::default()) {
            Some(directives) => ResponseDirectives { directives, are_targeted: true },
            None => ResponseDirectives { directives: CacheControl::of_response(headers), are_targeted: false },
        }
    }
}

/// The directives of a field that is a dictionary. `None` if it is none, or if a time in it is no integer and nothing
/// else says that the response is not for this cache: what follows is then what the other fields say.
fn cdn_cache_control(headers: &HeaderMap) -> Option<CacheControl> {
    let text = joined(headers, &CDN_CACHE_CONTROL)?;
    let mut directives = CacheControl::default();
    let mut is_readable = true;
    for DictionaryMember { key, value } in parse_dictionary(&text)? {
        is_readable &= directives.set_member(key, value);
    }
    (is_readable || directives.no_store || directives.private || directives.no_cache).then_some(directives)
}

/// The directives for all caches in front of the backend. Those with a parameter are for the cache that it names, and
/// Portico announces no name.
fn surrogate_control(headers: &HeaderMap) -> CacheControl {
    let mut directives = CacheControl::default();
    let values = headers.get_all(&SURROGATE_CONTROL).iter();
    let members = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    for member in members.filter(|member| !member.contains(&b';')) {
        // What follows `+` is the time for which a stale response may be sent, which is another permission.
        directives.read(member.split(|byte| *byte == b'+').next().unwrap_or_default());
    }
    directives
}

/// RFC 9213.
static CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// Edge Architecture Specification, W3C Note of 4 August 2001, section 2.3.
static SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    #[test]
    fn fields_for_caches_in_front_of_the_backend_come_first() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (fields, max_age, are_targeted) in [
            (&[("cache-control", "max-age=60")][..], seconds(60), false),
            (&[("cache-control", "no-store"), ("surrogate-control", "Max-Age=5")], seconds(5), true),
            (&[("surrogate-control", "max-age=5"), ("cdn-cache-control", "max-age=7")], seconds(7), true),
            (&[("cache-control", "max-age=60"), ("surrogate-control", "content=\"ESI/1.0\"")], seconds(60), false),
            (&[("cache-control", "max-age=60"), ("surrogate-control", "max-age=5;other")], seconds(60), false),
            (&[("surrogate-control", "max-age=5+60")], seconds(5), true),
            (&[("surrogate-control", "max-age=5;other, max-age=6")], seconds(6), true),
            (&[("cdn-cache-control", "")], None, false),
            (&[("cdn-cache-control", "max-age=7"), ("cdn-cache-control", "no-cache")], seconds(7), true),
            (&[("cdn-cache-control", "max-age=0, max-age=7;x=\"a\"")], seconds(7), true),
            (&[("cdn-cache-control", "max-age=-7")], seconds(0), true),
            (&[("cdn-cache-control", "no-store, max-age=\"7\""), ("cache-control", "max-age=60")], None, true),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let found = ResponseDirectives::of(&headers);
            assert_eq!((found.directives.max_age, found.are_targeted), (max_age, are_targeted), "{fields:?}");
        }
    }

    // RFC 9213, section 2.1
    #[test]
    fn a_malformed_cdn_cache_control_does_not_replace_no_store() {
        for malformed in ["&&&&&", "max-age=\"60\"", "max-age=60,", "max-age=60.5", "Max-Age=60", "max-age=60 x", "é"]
        {
            let mut headers = HeaderMap::new();
            headers.insert(&CDN_CACHE_CONTROL, HeaderValue::from_str(malformed).unwrap());
            headers.insert("cache-control", HeaderValue::from_static("no-store"));
            let found = ResponseDirectives::of(&headers);
            assert!(found.directives.no_store && !found.are_targeted, "{malformed}");
        }
    }
}
