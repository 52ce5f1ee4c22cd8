//! Bodies of the type `application/x-www-form-urlencoded`, and values in queries.

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything except letters, digits and these characters, which RFC 3986, section 2.3, reserves for no purpose.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The value of `Content-Type` for [`form_body`].
pub const FORM_MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// The fields as a body, in order.
pub fn form_body<'f>(fields: impl IntoIterator<Item = (&'f str, &'f str)>) -> Bytes {
    let mut body = String::new();
    for (name, value) in fields {
        if !body.is_empty() {
            body.push('&');
        }
        body.extend(utf8_percent_encode(name, ENCODED));
        body.push('=');
        body.extend(utf8_percent_encode(value, ENCODED));
    }
    body.into()
}

/// The text as a value of a query.
pub fn query_value(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::fields::{FieldValue, UrlEncodedForm};

    #[test]
    fn fields_survive_encoding() {
        let body = form_body([("scope", "a b&c=d"), ("token", "ä+%/~"), ("", "")]);
        assert_eq!(body, "scope=a%20b%26c%3Dd&token=%C3%A4%2B%25%2F~&=");
        let form = UrlEncodedForm(&body);
        assert_eq!(form.find(b"scope"), FieldValue::Single(b"a b&c=d".into()));
        assert_eq!(form.find(b"token"), FieldValue::Single("ä+%/~".as_bytes().into()));
        assert_eq!(query_value("http://a/?b=c"), "http%3A%2F%2Fa%2F%3Fb%3Dc");
    }
}
