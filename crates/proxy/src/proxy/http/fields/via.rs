//! The `Via` field, which names the proxies on the way of a message, and the extension of list fields.

use http::header::{Entry, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Appends Portico to `Via` (RFC 9110, section 7.6.3).
pub(in crate::proxy) fn append_via(headers: &mut HeaderMap, via: &HeaderValue) {
    // Mostly there is none, which one lookup finds.
    if let Entry::Vacant(entry) = headers.entry(VIA) {
        entry.insert(via.clone());
    } else if let Some(list) = extended_list(headers, &VIA, via) {
        headers.insert(VIA, list);
    } else {
        headers.insert(VIA, via.clone());
    }
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
