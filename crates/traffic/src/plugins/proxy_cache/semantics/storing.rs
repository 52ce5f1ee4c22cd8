//! Whether a response may be stored, and how long it is fresh (RFC 9111, sections 3 and 4.2).

use std::time::{Duration, SystemTime};

use http::header::{AGE, DATE, ETAG, EXPIRES, HeaderName, LAST_MODIFIED, SET_COOKIE, TRAILER, VARY};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::cache_control::{CacheControl, MAX_DELTA, delta_seconds};
use super::response_directives::ResponseDirectives;

/// What the configuration permits in addition to RFC 9111, and its limit of guesses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoringRules {
    /// Whether the response is stored without permission for requests with `Authorization`: the request has none, or
    /// the configuration shares such responses.
    pub(crate) stores_authorized: bool,
    pub(crate) stores_cookies: bool,
    /// The longest time for which a response without an expiry is fresh.
    pub(crate) max_heuristic: Duration,
}

/// When a response was stored and how long it is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Freshness {
    pub(crate) lifetime: Duration,
    /// Its age when it was received.
    pub(crate) initial_age: Duration,
}

/// The directives and the freshness of a response to a GET request, or why it must not be stored.
pub(crate) fn storable(
    request: &HeaderMap,
    status: StatusCode,
    headers: &HeaderMap,
    rules: StoringRules,
    (sent, received): (SystemTime, SystemTime),
) -> Result<(CacheControl, Freshness), &'static str> {
    let ResponseDirectives { directives, are_targeted } = ResponseDirectives::of(headers);
    if CacheControl::of_request(request).no_store {
        return Err("request-no-store");
    }
    if !(200..600).contains(&status.as_u16()) || OF_ONE_REQUEST.contains(&status.as_u16()) {
        return Err("status");
    }
    // With `must-understand`, `no-store` is for caches that do not know the status (section 5.2.2.3).
    let understood = UNDERSTOOD.contains(&status.as_u16());
    if directives.must_understand && !understood || directives.no_store && !directives.must_understand {
        return Err("no-store");
    }
    if directives.private {
        return Err("private");
    }
    let permits_sharing = directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if !permits_sharing && !rules.stores_authorized {
        return Err("authorization");
    }
    if headers.contains_key(SET_COOKIE) && !rules.stores_cookies {
        return Err("set-cookie");
    }
    if headers.contains_key(TRAILER) {
        return Err("trailer");
    }
    if headers.get_all(VARY).iter().any(|names| names.as_bytes().split(|b| *b == b',').any(|n| n.trim_ascii() == b"*"))
    {
        return Err("vary");
    }
    let explicit = directives.lifetime().or_else(|| if are_targeted { None } else { expiry(headers, received) });
    let lifetime = match explicit {
        Some(lifetime) => lifetime,
        None if HEURISTIC.contains(&status.as_u16()) || directives.public => {
            heuristic_lifetime(headers, received).min(rules.max_heuristic)
        }
        None => return Err("no-expiry"),
    };
    let has_validator = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
    let stale_uses = directives.stale_if_error.or(directives.stale_while_revalidate).unwrap_or_default();
    if (lifetime.is_zero() || directives.no_cache) && !has_validator && stale_uses.is_zero() {
        return Err("expired");
    }
    Ok((directives, Freshness { lifetime, initial_age: initial_age(headers, sent, received) }))
}

/// The time from `Date` to `Expires`.
pub(crate) fn expiry(headers: &HeaderMap, received: SystemTime) -> Option<Duration> {
    let mut values = headers.get_all(EXPIRES).iter();
    let expires = values.next()?;
    // Anything but one date is in the past (section 5.3).
    let date = http_date(expires.as_bytes()).filter(|_| values.next().is_none());
    let from = date_of(headers).unwrap_or(received);
    Some(date.and_then(|date| date.duration_since(from).ok()).unwrap_or_default().min(MAX_DELTA))
}

/// A tenth of the time since the last modification (section 4.2.2).
fn heuristic_lifetime(headers: &HeaderMap, received: SystemTime) -> Duration {
    let modified = headers.get(LAST_MODIFIED).and_then(|value| http_date(value.as_bytes()));
    let age = modified.and_then(|modified| date_of(headers).unwrap_or(received).duration_since(modified).ok());
    age.unwrap_or_default() / 10
}

/// The age of a response when it was received (section 4.2.3).
pub(crate) fn initial_age(headers: &HeaderMap, sent: SystemTime, received: SystemTime) -> Duration {
    let apparent = date_of(headers).and_then(|date| received.duration_since(date).ok()).unwrap_or_default();
    // `Date` has whole seconds, so a part of a second is no age.
    let apparent = Duration::from_secs(apparent.as_secs());
    let delay = received.duration_since(sent).unwrap_or_default();
    // The first member of a list counts, and an unreadable age does not (section 5.1).
    let value = headers.get(AGE).map_or(&b""[..], |value| value.as_bytes());
    let first = value.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    let reported = delta_seconds(first).map_or(Duration::ZERO, |age| age + delay);
    apparent.max(reported).min(MAX_DELTA)
}

pub(crate) fn date_of(headers: &HeaderMap) -> Option<SystemTime> {
    http_date(headers.get(DATE)?.as_bytes())
}

pub(crate) fn http_date(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value).ok()?.trim()).ok()
}

/// Fields that are about one connection or one request, and are not stored (section 3.1).
pub(crate) fn is_stored_field(name: &HeaderName) -> bool {
    let name = name.as_str();
    !NOT_STORED.contains(&name) && !is_remaining_limit(name)
}

/// A field that reports how many requests the client of one response has left.
fn is_remaining_limit(name: &str) -> bool {
    name.contains("ratelimit-remaining")
}

/// `Proxy-*` fields are those of another proxy; Portico sets the last three itself.
const NOT_STORED: [&str; 15] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "age",
    "cache-status",
    "x-cache-status",
    "x-cache-key",
];

/// The statuses of responses that depend on what the key does not contain: credentials, ranges and conditions, the size
/// of fields, the rate or the connection of the client. One client could store them for others, and RFC 6585 forbids to
/// store four of them.
const OF_ONE_REQUEST: [u16; 14] = [206, 304, 401, 407, 408, 412, 416, 417, 421, 425, 428, 429, 431, 511];

/// The statuses whose caching requirements Portico implements.
const UNDERSTOOD: [u16; 18] =
    [200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 500, 501, 503];

/// The statuses that are fresh for a time without an expiry (RFC 9110, section 15.1).
const HEURISTIC: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        NOW + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn decide(
        request: &[(&'static str, &str)],
        status: u16,
        response: &[(&'static str, &str)],
    ) -> Result<u64, &'static str> {
        let rules = StoringRules {
            stores_authorized: !request.iter().any(|(name, _)| *name == "authorization"),
            stores_cookies: false,
            max_heuristic: Duration::from_secs(300),
        };
        let status = StatusCode::from_u16(status).unwrap();
        storable(&fields(request), status, &fields(response), rules, (at(0), at(0)))
            .map(|(_, freshness)| freshness.lifetime.as_secs())
    }

    #[test]
    fn responses_are_stored_as_rfc_9111_permits() {
        let fresh: &[_] = &[("cache-control", "max-age=60")];
        assert_eq!(decide(&[], 200, fresh), Ok(60));
        assert_eq!(decide(&[], 599, fresh), Ok(60));
        assert_eq!(decide(&[("cache-control", "no-store")], 200, fresh), Err("request-no-store"));
        assert_eq!(decide(&[("authorization", "Basic YTpi")], 200, fresh), Err("authorization"));
        for sharing in ["public", "must-revalidate", "s-maxage=60"] {
            let value = format!("max-age=60, {sharing}");
            assert_eq!(decide(&[("authorization", "Basic YTpi")], 200, &[("cache-control", &value)]), Ok(60));
        }
        for (status, headers, reason) in [
            (200, &[("cache-control", "no-store, max-age=60")][..], "no-store"),
            (200, &[("cache-control", "private, max-age=60")], "private"),
            (200, &[("cache-control", "max-age=60"), ("set-cookie", "a=b")], "set-cookie"),
            (200, &[("cache-control", "max-age=60"), ("vary", "a"), ("vary", "b, *")], "vary"),
            (200, &[("cache-control", "max-age=60"), ("trailer", "x")], "trailer"),
            (206, &[("cache-control", "max-age=60")], "status"),
            (304, &[("cache-control", "max-age=60")], "status"),
            (401, &[("cache-control", "public, max-age=60")], "status"),
            (412, &[("cache-control", "public, max-age=60")], "status"),
            (416, &[("cache-control", "public, max-age=60")], "status"),
            (429, &[("cache-control", "public, max-age=60")], "status"),
            (431, &[("cache-control", "public, max-age=60")], "status"),
            (599, &[], "no-expiry"),
            (200, &[], "expired"),
            (200, &[("cache-control", "no-cache")], "expired"),
            (299, &[("cache-control", "max-age=60, must-understand")], "no-store"),
            (200, &[("expires", "0")], "expired"),
        ] {
            assert_eq!(decide(&[], status, headers), Err(reason), "{status} {headers:?}");
        }
        let understood = [("cache-control", "max-age=60, no-store, must-understand")];
        assert_eq!(decide(&[], 200, &understood), Ok(60), "section 5.2.2.3");
    }

    #[test]
    fn lifetime_is_explicit_or_a_tenth_of_the_age() {
        let date = httpdate::fmt_http_date(at(0));
        let later = httpdate::fmt_http_date(at(100));
        let modified = httpdate::fmt_http_date(at(0) - Duration::from_secs(1000));
        for (headers, lifetime) in [
            (&[("cache-control", "max-age=60, s-maxage=10")][..], 10),
            (&[("expires", &later), ("date", &date)], 100),
            (&[("expires", &later)], 100),
            (&[("expires", &later), ("cache-control", "max-age=60")], 60),
            (&[("expires", &later), ("expires", &later), ("etag", "\"a\"")], 0),
            (&[("last-modified", &modified)], 100),
            (&[("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT")], 300),
            (&[("etag", "\"a\"")], 0),
        ] {
            assert_eq!(decide(&[], 200, headers), Ok(lifetime), "{headers:?}");
        }
    }

    #[test]
    fn age_is_the_larger_one_of_date_and_field() {
        let old = httpdate::fmt_http_date(at(0) - Duration::from_secs(30));
        let received = at(0) + Duration::from_millis(2000);
        for (headers, age) in [
            (&[("date", &*old)][..], 32),
            (&[("date", &old), ("age", "10")], 32),
            (&[("age", "40")], 42),
            (&[("age", "40, 50")], 42),
            (&[("age", "-40")], 0),
            (&[("age", "99999999999999999999")], MAX_DELTA.as_secs()),
            (&[], 0),
        ] {
            assert_eq!(initial_age(&fields(headers), at(0), received).as_secs(), age, "{headers:?}");
        }
    }

    #[test]
    fn fields_of_one_connection_or_client_are_not_stored() {
        for (name, is_stored) in [
            ("content-type", true),
            ("set-cookie", true),
            ("transfer-encoding", false),
            ("content-length", false),
            ("x-ratelimit-remaining-minute", false),
            ("ratelimit-remaining", false),
            ("x-ratelimit-limit-minute", true),
        ] {
            assert_eq!(is_stored_field(&HeaderName::from_static(name)), is_stored, "{name}");
        }
    }
}
