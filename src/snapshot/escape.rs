//! Percent-encoding: normalization of configured paths for matching, and encoding of paths that replace others.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

/// Decodes escapes of unreserved characters (`%7E` is `~`) and keeps all other escapes. The path of every request is
/// decoded in the same way before it is matched, so a rule with such escapes would never match otherwise.
pub(crate) fn decode_unreserved(path: &str) -> Cow<'_, str> {
    let mut pieces = path.split('%');
    let Some(first) = pieces.next().filter(|first| first.len() < path.len()) else { return Cow::Borrowed(path) };
    let mut decoded = first.to_owned();
    for piece in pieces {
        match decode_escape(piece).filter(|byte| is_unreserved(*byte)) {
            Some(byte) => {
                decoded.push(char::from(byte));
                decoded.push_str(&piece[2..]);
            }
            None => {
                decoded.push('%');
                decoded.push_str(piece);
            }
        }
    }
    Cow::Owned(decoded)
}

/// Encodes characters that may not occur in a path, so that a replacement neither ends the path nor makes the request
/// malformed: `?`, `#`, spaces, control characters, and percent signs without an escape. Existing escapes are kept.
pub(super) fn encode_path(path: &str) -> Cow<'_, str> {
    let encoded = Cow::from(utf8_percent_encode(path, ENCODE_IN_PATHS));
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

/// Encodes a part of a path for use in a query. Characters that separate parameters, or names from values, are
/// encoded, so that the path of a request cannot inject query parameters. Existing escapes are kept.
pub(super) fn encode_for_query(path: &str) -> Cow<'_, str> {
    utf8_percent_encode(path, ENCODE_IN_QUERY_VALUES).into()
}

/// Whether a percent sign is not followed by two hexadecimal digits.
pub(super) fn has_broken_escape(text: &str) -> bool {
    text.split('%').skip(1).any(|piece| decode_escape(piece).is_none())
}

/// The byte of an escape, given the text after the percent sign.
fn decode_escape(piece: &str) -> Option<u8> {
    let digits = piece.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// Whether the byte is an unreserved character of RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// All characters except the unreserved ones, the percent sign, and `/`, `:` and `@`, which RFC 3986, section 3.4
/// allows in a query.
const ENCODE_IN_QUERY_VALUES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'@')
    .remove(b'%');

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
    fn unreserved_escapes_are_decoded() {
        let cases = [
            ("/a", "/a"),
            ("/%7Euser/%41%2d", "/~user/A-"),
            ("/a%2Fb%2fc", "/a%2Fb%2fc"),
            ("/%C3%A9", "/%C3%A9"),
            ("/%", "/%"),
            ("/%4", "/%4"),
            ("/%zz%41", "/%zzA"),
            ("/%2541", "/%2541"),
            ("%é", "%é"),
            ("", ""),
        ];
        for (configured, decoded) in cases {
            assert_eq!(decode_unreserved(configured), decoded, "{configured}");
        }
    }

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
            assert_eq!(encode_path(configured), encoded, "{configured}");
        }
    }

    proptest::proptest! {
        #[test]
        fn encoded_replacement_is_a_valid_target(path in ".*") {
            let target = format!("/{}", encode_path(&path));
            let parsed: http::uri::PathAndQuery = target.parse().unwrap();
            proptest::prop_assert_eq!(parsed.path(), target);
            proptest::prop_assert_eq!(parsed.query(), None);
        }

        #[test]
        fn no_path_panics(path in "[%é4a/]*") {
            proptest::prop_assert!(decode_unreserved(&path).len() <= path.len());
        }
    }
}
