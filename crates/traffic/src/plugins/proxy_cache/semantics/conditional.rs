//! Conditional requests: those of clients, which a stored response may satisfy, and those that validate it (RFC 9110,
//! section 13, and RFC 9111, section 4.3).

use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderName, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderValue};

use super::storing::{http_date, is_stored_field};

/// Whether the client has the stored response already, so that 304 is enough.
pub(crate) fn is_not_modified(request: &HeaderMap, stored: &HeaderMap) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        let Some(tag) = stored.get(ETAG) else { return false };
        let tags = request.get_all(IF_NONE_MATCH);
        return tags
            .iter()
            .any(|tags| tags.as_bytes().trim_ascii() == b"*" || has_tag(tags.as_bytes(), tag.as_bytes()));
    }
    let mut dates = request.get_all(IF_MODIFIED_SINCE).iter();
    let (Some(since), None) = (dates.next().and_then(|date| http_date(date.as_bytes())), dates.next()) else {
        return false;
    };
    let modified = stored.get(LAST_MODIFIED).or_else(|| stored.get(DATE));
    modified.and_then(|date| http_date(date.as_bytes())).is_some_and(|modified| modified <= since)
}

/// Whether a list has this entity tag, by weak comparison (RFC 9110, section 8.8.3.2).
fn has_tag(mut list: &[u8], tag: &[u8]) -> bool {
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    let wanted = opaque(tag.trim_ascii());
    loop {
        list = list.trim_ascii_start();
        let start = if list.starts_with(b"W/") { 2 } else { 0 };
        // The tag may contain commas, so it ends with its quotation mark.
        let Some(b'"') = list.get(start) else { return false };
        let Some(length) = list[start + 1..].iter().position(|byte| *byte == b'"') else { return false };
        let end = start + 1 + length + 1;
        if list[start..end] == *wanted {
            return true;
        }
        let rest = list[end..].trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b",") else { return false };
        list = rest;
    }
}

/// Whether the request has a condition that only the backend can decide.
pub(crate) fn needs_backend(request: &HeaderMap) -> bool {
    request.contains_key(IF_MATCH) || request.contains_key(IF_UNMODIFIED_SINCE)
}

/// Replaces the conditions of a request by those that validate the stored response. Returns false, and changes nothing,
/// if the response has no validator.
pub(crate) fn validate(request: &mut HeaderMap, stored: &HeaderMap) -> bool {
    let (tag, modified) = (stored.get(ETAG), stored.get(LAST_MODIFIED));
    if tag.is_none() && modified.is_none() {
        return false;
    }
    for (name, value) in [(IF_NONE_MATCH, tag), (IF_MODIFIED_SINCE, modified)] {
        match value {
            Some(value) => drop(request.insert(name, value.clone())),
            None => drop(request.remove(name)),
        }
    }
    true
}

/// Whether a 304 is about the stored response: its entity tag, if it has one, is that of the response.
pub(crate) fn validates(not_modified: &HeaderMap, stored: &HeaderMap) -> bool {
    let opaque = |tag: &HeaderValue| {
        let tag = tag.as_bytes();
        tag.strip_prefix(b"W/").unwrap_or(tag).to_vec()
    };
    let tags = (not_modified.get(ETAG), stored.get(ETAG));
    !matches!(tags, (Some(tag), Some(stored)) if opaque(tag) != opaque(stored))
}

/// The stored fields with those of the 304 that validates them (RFC 9111, section 3.2).
pub(crate) fn freshen(stored: &HeaderMap, not_modified: &HeaderMap) -> HeaderMap {
    let mut fields = stored.clone();
    let updates = |name: &&HeaderName| is_stored_field(name) && !OF_BODY.contains(name);
    for name in not_modified.keys().filter(updates) {
        fields.remove(name);
        for value in not_modified.get_all(name) {
            fields.append(name.clone(), value.clone());
        }
    }
    fields
}

/// Removes the fields that describe content, which a 304 does not have.
pub(crate) fn without_content(mut headers: HeaderMap) -> HeaderMap {
    for name in &OF_CONTENT {
        headers.remove(name);
    }
    headers
}

/// Whether `If-Range` permits a range of the stored response. Only equal strong validators do (RFC 9110, section
/// 13.1.5).
pub(crate) fn permits_range(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let Some(condition) = request.get(IF_RANGE) else { return true };
    let condition = condition.as_bytes();
    if condition.starts_with(b"\"") {
        return stored.get(ETAG).is_some_and(|tag| tag.as_bytes() == condition);
    }
    if condition.starts_with(b"W/") {
        return false;
    }
    // A date is strong if the response was generated at least a second later.
    let date = |name: HeaderName| http_date(stored.get(name)?.as_bytes());
    match (http_date(condition), date(LAST_MODIFIED), date(DATE)) {
        (Some(condition), Some(modified), Some(date)) => condition == modified && modified < date,
        _ => false,
    }
}

/// Whether the request is for a part of the response.
pub(crate) fn has_range(request: &HeaderMap) -> bool {
    request.contains_key(RANGE)
}

/// The fields that describe the bytes of the stored body, which a 304 cannot change.
static OF_BODY: [HeaderName; 6] = [
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];
static OF_CONTENT: [HeaderName; 5] = [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE];

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    #[test]
    fn clients_with_the_response_get_304() {
        let stored = [("etag", "\"a,b\""), ("last-modified", MODIFIED)];
        for (request, expected) in [
            (&[("if-none-match", "\"a,b\"")][..], true),
            (&[("if-none-match", "W/\"a,b\"")], true),
            (&[("if-none-match", "\"x\" , \"a,b\"")], true),
            (&[("if-none-match", "\"x\""), ("if-none-match", "\"a,b\"")], true),
            (&[("if-none-match", "*")], true),
            (&[("if-none-match", "a,b")], false),
            (&[("if-none-match", "\"a\"")], false),
            (&[("if-none-match", "\"x\""), ("if-modified-since", LATER)], false),
            (&[("if-modified-since", MODIFIED)], true),
            (&[("if-modified-since", LATER)], true),
            (&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], false),
            (&[("if-modified-since", "yesterday")], false),
            (&[("if-modified-since", MODIFIED), ("if-modified-since", MODIFIED)], false),
            (&[], false),
        ] {
            assert_eq!(is_not_modified(&fields(request), &fields(&stored)), expected, "{request:?}");
        }
        assert!(!is_not_modified(&fields(&[("if-none-match", "*")]), &fields(&[])));
    }

    #[test]
    fn stored_fields_are_updated() {
        let stored = fields(&[("etag", "\"a\""), ("content-type", "text/plain"), ("x-a", "1"), ("x-a", "2")]);
        let update = fields(&[("x-a", "3"), ("content-type", "x/y"), ("content-length", "9"), ("expires", MODIFIED)]);
        let expected = fields(&[("etag", "\"a\""), ("x-a", "3"), ("content-type", "x/y"), ("expires", MODIFIED)]);
        assert_eq!(freshen(&stored, &update), expected);
        assert!(validates(&fields(&[]), &stored) && validates(&fields(&[("etag", "W/\"a\"")]), &stored));
        assert!(!validates(&fields(&[("etag", "\"b\"")]), &stored));
        let mut request = fields(&[("if-none-match", "\"old\""), ("if-modified-since", LATER)]);
        assert!(validate(&mut request, &stored));
        assert_eq!(request, fields(&[("if-none-match", "\"a\"")]));
        assert!(!validate(&mut request, &fields(&[])));
    }

    #[test]
    fn ranges_need_the_same_strong_validator() {
        let stored = fields(&[("etag", "\"a\""), ("last-modified", MODIFIED), ("date", LATER)]);
        for (condition, expected) in
            [("\"a\"", true), ("\"b\"", false), ("W/\"a\"", false), (MODIFIED, true), (LATER, false), ("x", false)]
        {
            assert_eq!(permits_range(&fields(&[("if-range", condition)]), &stored), expected, "{condition}");
        }
        let weak = fields(&[("last-modified", MODIFIED), ("date", MODIFIED)]);
        assert!(!permits_range(&fields(&[("if-range", MODIFIED)]), &weak));
        assert!(permits_range(&fields(&[]), &stored));
    }
}
