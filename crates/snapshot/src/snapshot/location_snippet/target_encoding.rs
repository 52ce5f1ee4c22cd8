//! Percent-encodes paths, queries and URLs that a snippet has put together, so that they can be sent.

use percent_encoding::{AsciiSet, CONTROLS, percent_encode, percent_encode_byte};

/// The path as it is sent, from a decoded one. `None` if it has dot segments, which the endpoint could resolve to a
/// path of another location.
pub(super) fn encode_path(path: &str) -> Option<String> {
    let has_dots = path.split('/').any(|segment| segment == "." || segment == "..");
    (!has_dots).then(|| encode(path, PATH))
}

/// The query as it is sent. Its escapes stay.
pub(super) fn encode_query(query: &str) -> String {
    encode(query, QUERY)
}

/// A group of a path that becomes a part of a query.
pub(super) fn encode_argument(group: &str) -> String {
    encode(group, ARGUMENT)
}

/// A group of a path that becomes a part of the URL of a redirect.
pub(super) fn encode_in_url(group: &str) -> String {
    encode(group, GROUP_IN_URL)
}

/// The URL of a redirect. `None` if it has a control character, so that it could end the field.
pub(super) fn encode_url(url: &str) -> Option<String> {
    (!url.contains(|character: char| character.is_ascii_control())).then(|| encode(url, URL))
}

/// Characters that stand for a byte which is no text are written as this byte.
fn encode(text: &str, set: &'static AsciiSet) -> String {
    let mut encoded = String::with_capacity(text.len());
    for piece in text.split_inclusive(|character| byte_of(character).is_some()) {
        let byte = piece.chars().next_back().and_then(byte_of);
        let text = byte.map_or(piece, |_| piece.trim_end_matches(|character| byte_of(character).is_some()));
        encoded.extend(percent_encode(text.as_bytes(), set));
        encoded.extend(byte.map(percent_encode_byte));
    }
    encoded
}

/// The byte for which a character of a decoded path stands: see `location_path::decoded_path`.
fn byte_of(character: char) -> Option<u8> {
    let byte = u32::from(character).checked_sub(0xF700).and_then(|byte| u8::try_from(byte).ok());
    byte.filter(|byte| !byte.is_ascii())
}

/// What nginx encodes in a path that it has changed, as for the annotation `rewrite-target`.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}');

const ARGUMENT: &AsciiSet = &PATH.add(b'&').add(b'+').add(b';');

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
