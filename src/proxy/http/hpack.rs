//! Which header values are kept out of the tables of HPACK (RFC 7541, section 7.1.3).
//!
//! The library inserts what it sends into the table of the connection, and compares a value with all of the table that
//! have the same name. Values that differ in nearly every message would fill the table, displace values that do repeat,
//! and take thousands of instructions to compare. So they are marked as never indexed.

use http::header::{DATE, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::date::with_date;
use super::request_id::X_REQUEST_ID;

/// Marks a value that is generated for one request or client.
pub(in crate::proxy) fn never_indexed(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

/// Prepares the fields of a response for a client with HTTP/2. Sets the date, which the library would index otherwise.
pub(in crate::proxy) fn mark_changing_values(headers: &mut HeaderMap) {
    headers.entry(DATE).or_insert_with(|| with_date(HeaderValue::clone));
    for name in &CHANGING {
        if let Some(value) = headers.get_mut(name) {
            value.set_sensitive(true);
        }
    }
}

/// The usual fields of responses that differ in nearly every message or second. The library itself never indexes a
/// Content-Length, ETag, Location or Set-Cookie.
static CHANGING: [HeaderName; 4] = [DATE, EXPIRES, LAST_MODIFIED, X_REQUEST_ID];

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn changing_values_are_not_indexed() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("id of the endpoint"));
        mark_changing_values(&mut headers);
        let is_sensitive = |name| headers.get(name).map(HeaderValue::is_sensitive);
        assert_eq!(is_sensitive(X_REQUEST_ID), Some(true));
        assert_eq!(is_sensitive(DATE), Some(true), "the library would set one that it indexes");
        assert_eq!(is_sensitive(CONTENT_TYPE), Some(false));
        assert_eq!(headers.len(), 3);
    }
}
