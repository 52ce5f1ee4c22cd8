//! Which header fields are kept out of the tables of HPACK (RFC 7541, section 2.3.2).
//!
//! The library inserts what it sends into the table of the connection, and compares a value with all of the table that
//! have the same name. Values that differ in nearly every message, such as request ids, would fill the table, displace
//! values that do repeat, and take thousands of instructions to compare. So only fields whose values usually repeat are
//! indexed; others are marked as never indexed (section 6.2.3), which costs some more bytes.

use http::header::{self, DATE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::date::with_date;

/// Prepares the fields of a message that is sent over HTTP/2.
pub(in crate::proxy) fn mark_changing_values(headers: &mut HeaderMap) {
    for (name, value) in headers {
        if !is_usually_repeated(name) {
            value.set_sensitive(true);
        }
    }
}

/// Sets the date of a response, unless the endpoint has. The library would set one that it indexes.
pub(in crate::proxy) fn set_date(headers: &mut HeaderMap) {
    headers.entry(DATE).or_insert_with(|| with_date(HeaderValue::clone));
}

fn is_usually_repeated(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::ACCEPT_LANGUAGE
            | header::ACCEPT_RANGES
            | header::ACCESS_CONTROL_ALLOW_CREDENTIALS
            | header::ACCESS_CONTROL_ALLOW_HEADERS
            | header::ACCESS_CONTROL_ALLOW_METHODS
            | header::ACCESS_CONTROL_ALLOW_ORIGIN
            | header::ACCESS_CONTROL_EXPOSE_HEADERS
            | header::ACCESS_CONTROL_MAX_AGE
            | header::ALT_SVC
            | header::CACHE_CONTROL
            | header::CONTENT_ENCODING
            | header::CONTENT_LANGUAGE
            | header::CONTENT_SECURITY_POLICY
            | header::CONTENT_TYPE
            | header::PRAGMA
            | header::REFERRER_POLICY
            | header::SERVER
            | header::STRICT_TRANSPORT_SECURITY
            | header::TE
            | header::USER_AGENT
            | header::VARY
            | header::VIA
            | header::X_CONTENT_TYPE_OPTIONS
            | header::X_FRAME_OPTIONS
            | header::X_XSS_PROTECTION
    )
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn changing_values_are_not_indexed() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        headers.append("x-request-id", HeaderValue::from_static("1"));
        headers.append("x-request-id", HeaderValue::from_static("2"));
        set_date(&mut headers);
        mark_changing_values(&mut headers);
        let sensitive: Vec<_> =
            headers.iter().filter(|(_, value)| value.is_sensitive()).map(|(name, _)| name.as_str()).collect();
        assert_eq!((sensitive, headers.len()), (vec!["x-request-id", "x-request-id", "date"], 4));
    }

    #[test]
    fn date_of_the_endpoint_is_kept() {
        let date = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
        let mut headers = HeaderMap::from_iter([(DATE, date.clone())]);
        set_date(&mut headers);
        assert_eq!(headers[DATE], date);
    }
}
