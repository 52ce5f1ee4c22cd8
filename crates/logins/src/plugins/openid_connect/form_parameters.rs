//! The parameters of forms and queries that Portico and the provider send each other.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::plugin_api::fields::{FieldValue, UrlEncodedForm};

/// The parameters as a form or a query.
pub(super) fn encode_form<'p>(parameters: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let mut form = String::new();
    for (name, value) in parameters {
        append_parameter(&mut form, name, value);
    }
    form
}

/// Appends a parameter to a form or a query.
pub(super) fn append_parameter(form: &mut String, name: &str, value: &str) {
    if !form.is_empty() {
        form.push('&');
    }
    write!(form, "{}={}", encode(name), encode(value)).expect("writing to a String does not fail");
}

/// The URL with these parameters added to its query.
pub(super) fn with_query(url: &str, query: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{query}")
}

/// The text as it stands in a form.
pub(super) fn encode(text: &str) -> impl std::fmt::Display {
    /// All but the unreserved characters of RFC 3986, section 2.3.
    const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, &ENCODED)
}

/// The value of a parameter that must not occur several times.
pub(super) fn single(form: &str, name: &str) -> Option<String> {
    match UrlEncodedForm(form.as_bytes()).find(name.as_bytes()) {
        FieldValue::Single(value) => String::from_utf8(value.into_owned()).ok(),
        _ => None,
    }
}
