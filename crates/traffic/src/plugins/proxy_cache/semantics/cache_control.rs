//! The field `Cache-Control` of requests and responses (RFC 9111, section 5.2).

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};
use serde::{Deserialize, Serialize};

use super::dictionary::MemberValue;

/// The directives that a shared cache reads. Unknown ones have no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CacheControl {
    pub(crate) no_store: bool,
    /// Also in its form with field names, which a cache may treat as the one without.
    pub(crate) no_cache: bool,
    /// As [`CacheControl::no_cache`].
    pub(crate) private: bool,
    pub(crate) public: bool,
    pub(crate) must_revalidate: bool,
    pub(crate) proxy_revalidate: bool,
    pub(crate) must_understand: bool,
    pub(crate) only_if_cached: bool,
    pub(crate) max_age: Option<Duration>,
    pub(crate) s_maxage: Option<Duration>,
    /// [`MAX_DELTA`] if the directive has no argument.
    pub(crate) max_stale: Option<Duration>,
    pub(crate) min_fresh: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
}

impl CacheControl {
    /// The directives of a response.
    pub(crate) fn of_response(headers: &HeaderMap) -> Self {
        let mut directives = CacheControl::default();
        for value in headers.get_all(CACHE_CONTROL) {
            directives.read(value.as_bytes());
        }
        directives
    }

    /// The directives of a request. `Pragma: no-cache` counts if there is no `Cache-Control` (section 5.4).
    pub(crate) fn of_request(headers: &HeaderMap) -> Self {
        let mut directives = CacheControl::of_response(headers);
        if !headers.contains_key(CACHE_CONTROL) {
            let mut pragmas = headers.get_all(PRAGMA).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
            directives.no_cache = pragmas.any(|pragma| pragma.trim_ascii().eq_ignore_ascii_case(b"no-cache"));
        }
        directives
    }

    /// How long a response is fresh, if the directives say it (section 4.2.1).
    pub(crate) fn lifetime(&self) -> Option<Duration> {
        self.s_maxage.or(self.max_age)
    }

    /// Whether a stale response must not be sent without validation (section 4.2.4).
    pub(crate) fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.no_cache || self.s_maxage.is_some()
    }

    pub(super) fn read(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            let (name, argument, after) = next_directive(rest);
            rest = after;
            self.set(name, argument);
        }
    }

    /// Sets a directive that a structured field has (RFC 9213, section 2.1). Returns false if it is a time, and has a
    /// value of another type, which has no effect.
    pub(super) fn set_member(&mut self, key: &str, value: MemberValue) -> bool {
        let time = match value {
            MemberValue::Boolean(false) => return true,
            MemberValue::Integer(seconds) => Some(seconds.max(0).to_string()),
            MemberValue::Boolean(true) | MemberValue::Other => None,
        };
        if time.is_none() && TIMES.contains(&key) {
            return false;
        }
        self.set(key.as_bytes(), time.as_deref().map(str::as_bytes));
        true
    }

    fn set(&mut self, name: &[u8], argument: Option<&[u8]>) {
        let is = |text: &str| name.eq_ignore_ascii_case(text.as_bytes());
        let flags = [
            ("no-store", &mut self.no_store),
            ("no-cache", &mut self.no_cache),
            ("private", &mut self.private),
            ("public", &mut self.public),
            ("must-revalidate", &mut self.must_revalidate),
            ("proxy-revalidate", &mut self.proxy_revalidate),
            ("must-understand", &mut self.must_understand),
            ("only-if-cached", &mut self.only_if_cached),
        ];
        for (text, flag) in flags {
            if is(text) {
                *flag = true;
                return;
            }
        }
        if is("max-stale") {
            let limit = argument.map_or(MAX_DELTA, |argument| delta_seconds(argument).unwrap_or_default());
            self.max_stale = Some(self.max_stale.map_or(limit, |other| other.min(limit)));
            return;
        }
        if is("min-fresh") {
            // The larger one, which asks for more.
            let limit = argument.and_then(delta_seconds).unwrap_or(MAX_DELTA);
            self.min_fresh = Some(self.min_fresh.map_or(limit, |other| other.max(limit)));
            return;
        }
        let ages = [
            ("max-age", &mut self.max_age),
            ("s-maxage", &mut self.s_maxage),
            ("stale-while-revalidate", &mut self.stale_while_revalidate),
            ("stale-if-error", &mut self.stale_if_error),
        ];
        for (text, age) in ages {
            if is(text) {
                // An unreadable or repeated time counts as the shortest one, so that nothing is fresh by mistake.
                let time = argument.and_then(delta_seconds).unwrap_or_default();
                *age = Some(age.map_or(time, |other| other.min(time)));
                return;
            }
        }
    }
}

/// The first directive of a list: its name, its argument without quotes, and what follows the comma.
fn next_directive(list: &[u8]) -> (&[u8], Option<&[u8]>, &[u8]) {
    let name_end = list.iter().position(|byte| matches!(byte, b',' | b'=')).unwrap_or(list.len());
    let name = list[..name_end].trim_ascii();
    if list.get(name_end) != Some(&b'=') {
        return (name, None, list.get(name_end + 1..).unwrap_or_default());
    }
    let argument = &list[name_end + 1..];
    let Some(quoted) = argument.trim_ascii_start().strip_prefix(b"\"") else {
        let end = argument.iter().position(|byte| *byte == b',').unwrap_or(argument.len());
        return (name, Some(argument[..end].trim_ascii()), argument.get(end + 1..).unwrap_or_default());
    };
    let mut end = 0;
    while end < quoted.len() && quoted[end] != b'"' {
        end += if quoted[end] == b'\\' { 2 } else { 1 };
    }
    let text = quoted.get(..end).unwrap_or(quoted);
    let after = quoted.get(end..).unwrap_or_default();
    let comma = after.iter().position(|byte| *byte == b',');
    (name, Some(text), comma.map_or(&[][..], |comma| &after[comma + 1..]))
}

/// A number of seconds. Larger ones than a cache must support have the largest value (section 1.2.2).
pub(super) fn delta_seconds(text: &[u8]) -> Option<Duration> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(Duration::from_secs(text.iter().fold(0, add)).min(MAX_DELTA))
}

/// The directives of responses that have a time.
const TIMES: [&str; 4] = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"];

/// 2^31 seconds, the time that stands for all longer ones.
pub(crate) const MAX_DELTA: Duration = Duration::from_secs(1 << 31);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parse(values: &[&str]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, HeaderValue::from_str(value).unwrap());
        }
        CacheControl::of_response(&headers)
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn directives_are_read_from_all_fields() {
        let directives =
            parse(&["Max-Age=60, , NO-STORE", "private=\"a, max-age=1\", s-maxage=\"5\"; x, must-revalidate"]);
        let expected = CacheControl {
            no_store: true,
            private: true,
            must_revalidate: true,
            max_age: seconds(60),
            s_maxage: seconds(5),
            ..CacheControl::default()
        };
        assert_eq!(directives, expected);
        assert_eq!(parse(&["max-stale"]).max_stale, Some(MAX_DELTA));
        assert_eq!(parse(&["max-stale=3"]).max_stale, seconds(3));
    }

    #[test]
    fn unreadable_ages_are_the_shortest() {
        for (text, age) in [
            ("max-age=60", seconds(60)),
            ("max-age=0060", seconds(60)),
            ("max-age=99999999999999999999999", Some(MAX_DELTA)),
            ("max-age", seconds(0)),
            ("max-age=", seconds(0)),
            ("max-age=-1", seconds(0)),
            ("max-age=1.5", seconds(0)),
            ("max-age='60'", seconds(0)),
            ("max-age=60, max-age=30", seconds(30)),
            ("xmax-age=60", None),
            ("a=\"max-age=60", None),
            ("a=\"\\\", max-age=60", None),
        ] {
            assert_eq!(parse(&[text]).max_age, age, "{text}");
        }
        assert_eq!(parse(&["min-fresh=x"]).min_fresh, Some(MAX_DELTA));
    }

    #[test]
    fn pragma_counts_without_cache_control() {
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, HeaderValue::from_static("x, No-Cache"));
        assert!(CacheControl::of_request(&headers).no_cache);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=1"));
        assert!(!CacheControl::of_request(&headers).no_cache);
    }
}
