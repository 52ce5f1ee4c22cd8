//! The `Via` field, which names the proxies on the way of a message, and the extension of list fields.

use http::header::VIA;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Appends Portico to `Via` (RFC 9110, section 7.6.3).
pub(in crate::proxy) fn append_via(headers: &mut HeaderMap, via: &HeaderValue) {
    let via = extended_list(headers, &VIA, via).unwrap_or_else(|| via.clone());
    headers.insert(VIA, via);
}

/// All values of a list header joined into one, with `item` at the end. None if the header is absent or empty.
pub(in crate::proxy) fn extended_list(
    headers: &HeaderMap,
    name: &HeaderName,
    item: &HeaderValue,
) -> Option<HeaderValue> {
    let mut list = Vec::new();
    for value in headers.get_all(name).iter().filter(|value| !value.is_empty()) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    if list.is_empty() {
        return None;
    }
    list.extend_from_slice(item.as_bytes());
    Some(HeaderValue::from_bytes(&list).expect("header values joined by commas are a header value"))
}
