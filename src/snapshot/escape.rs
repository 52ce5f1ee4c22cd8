//! Percent-encoding: normalization of configured paths for matching, and encoding of paths in queries.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::plugin_api::path_encoding::decode_escape;

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

/// Encodes a part of a path for use in a query. Characters that separate parameters, or names from values, are
/// encoded, so that the path of a request cannot inject query parameters. Existing escapes are kept.
pub(super) fn encode_for_query(path: &str) -> Cow<'_, str> {
    utf8_percent_encode(path, ENCODE_IN_QUERY_VALUES).into()
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

    proptest::proptest! {
        #[test]
        fn no_path_panics(path in "[%é4a/]*") {
            proptest::prop_assert!(decode_unreserved(&path).len() <= path.len());
        }
    }
}
