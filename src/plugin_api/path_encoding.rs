//! Percent-encoding of paths that replace the path of a request: those of filters, annotations and plugins.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// Encodes characters that may not occur in a path, so that a replacement neither ends the path nor makes the request
/// malformed: `?`, `#`, spaces, control characters, and percent signs without an escape. Existing escapes are kept.
pub fn encode_path(path: &[u8]) -> Cow<'_, str> {
    let encoded = Cow::from(percent_encode(path, ENCODE_IN_PATHS));
    if !has_broken_escape(&encoded) {
        return encoded;
    }
    let mut pieces = encoded.split('%');
    let mut repaired = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        repaired.push_str(if decode_escape(piece).is_some() { "%" } else { "%25" });
        repaired.push_str(piece);
    }
    Cow::Owned(repaired)
}

/// Whether a percent sign is not followed by two hexadecimal digits.
pub(crate) fn has_broken_escape(text: &str) -> bool {
    text.split('%').skip(1).any(|piece| decode_escape(piece).is_none())
}

/// The byte of an escape, given the text after the percent sign.
pub(crate) fn decode_escape(piece: &str) -> Option<u8> {
    let digits = piece.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// The characters that RFC 3986, section 3.3 does not allow in a path, except the percent sign.
const ENCODE_IN_PATHS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_are_encoded_for_paths() {
        let cases = [
            ("/a/b;c=1,d:@!$&'()*+~", "/a/b;c=1,d:@!$&'()*+~"),
            ("/a?b#c d", "/a%3Fb%23c%20d"),
            ("/é\r\n", "/%C3%A9%0D%0A"),
            ("/%2F%zz%", "/%2F%25zz%25"),
            ("", ""),
        ];
        for (configured, encoded) in cases {
            assert_eq!(encode_path(configured.as_bytes()), encoded, "{configured}");
        }
    }

    proptest::proptest! {
        #[test]
        fn encoded_replacement_is_a_valid_target(path in ".*") {
            let target = format!("/{}", encode_path(path.as_bytes()));
            let parsed: http::uri::PathAndQuery = target.parse().unwrap();
            proptest::prop_assert_eq!(parsed.path(), target);
            proptest::prop_assert_eq!(parsed.query(), None);
        }
    }
}
