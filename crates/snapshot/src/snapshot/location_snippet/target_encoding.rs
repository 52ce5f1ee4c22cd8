//! Percent-encodes paths, queries and URLs that a snippet has put together, so that they can be sent.

use percent_encoding::{AsciiSet, CONTROLS};

use crate::snapshot::location_path::{ENCODED_IN_PATHS, encode_text};

/// The path as it is sent, from a decoded one. `None` if it has dot segments, which the endpoint could resolve to a
/// path of another location.
pub(super) fn encode_path(path: &str) -> Option<String> {
    let has_dots = path.split('/').any(|segment| segment == "." || segment == "..");
    (!has_dots).then(|| encode_text(path, ENCODED_IN_PATHS))
}

/// The query as it is sent. Its escapes stay.
pub(super) fn encode_query(query: &str) -> String {
    encode_text(query, QUERY)
}

/// A group of a path that becomes a part of a query.
pub(super) fn encode_argument(group: &str) -> String {
    encode_text(group, ARGUMENT)
}

/// A group of a path that becomes a part of the URL of a redirect.
pub(super) fn encode_in_url(group: &str) -> String {
    encode_text(group, GROUP_IN_URL)
}

/// The URL of a redirect. `None` if it has a control character, so that it could end the field.
pub(super) fn encode_url(url: &str) -> Option<String> {
    (!url.contains(|character: char| character.is_ascii_control())).then(|| encode_text(url, URL))
}

const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}');

const ARGUMENT: &AsciiSet = &ENCODED_IN_PATHS.add(b'&').add(b'+').add(b';');

const GROUP_IN_URL: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'?');

const URL: &AsciiSet = &CONTROLS.add(b' ');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_targets_are_encoded() {
        assert_eq!(encode_path("/a b%?é\u{f7ff}\u{f7e9}c").as_deref(), Some("/a%20b%25%3F%C3%A9%FF%E9c"));
        assert_eq!(encode_path("/a/../b"), None);
        assert_eq!(encode_path("/a/."), None);
        assert_eq!(encode_query("a=b c&d=%20é"), "a=b%20c&d=%20%C3%A9");
        assert_eq!(encode_argument("a&b+c"), "a%26b%2Bc");
        assert_eq!(encode_in_url("a?b&c d"), "a%3Fb&c%20d");
        assert_eq!(encode_url("https://a.example/é?b=c#d e").as_deref(), Some("https://a.example/%C3%A9?b=c#d%20e"));
        assert_eq!(encode_url("/a\r\nSet-Cookie: b"), None);
    }
}
