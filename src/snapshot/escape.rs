//! Spellings of a path: what an operator writes becomes what requests are compared with and backends are sent.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

/// Decodes escapes that need none (`%7E` is `~`), as is done with the path of every request before it is matched: a
/// rule that is spelled with them would never be met otherwise. All other escapes stay as they are.
pub(crate) fn decode_unreserved(path: &str) -> Cow<'_, str> {
    let mut pieces = path.split('%');
    let Some(first) = pieces.next().filter(|first| first.len() < path.len()) else { return Cow::Borrowed(path) };
    let mut decoded = first.to_owned();
    for piece in pieces {
        match escaped(piece).filter(|byte| is_unreserved(*byte)) {
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

/// Escapes what must not stand in a path, so that a replacement never ends the path and never breaks the request:
/// `?` and `#` would begin something else, spaces and controls are not sent at all. Escapes that are there stay.
pub(super) fn encode_path(path: &str) -> Cow<'_, str> {
    let encoded = Cow::from(utf8_percent_encode(path, NOT_IN_PATHS));
    if !has_broken_escape(&encoded) {
        return encoded;
    }
    let mut pieces = encoded.split('%');
    let mut repaired = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        repaired.push_str(if escaped(piece).is_some() { "%" } else { "%25" });
        repaired.push_str(piece);
    }
    Cow::Owned(repaired)
}

/// Puts a piece of a path into a query. What means nothing in a path ends values there, parts names from them, or is a space, so
/// that whoever writes the path could write parameters of their own. Escapes that are there stay.
pub(super) fn encode_for_query(path: &str) -> Cow<'_, str> {
    utf8_percent_encode(path, NOT_IN_VALUES).into()
}

/// Whether a percent sign is followed by something else than two hexadecimal digits.
pub(super) fn has_broken_escape(text: &str) -> bool {
    text.split('%').skip(1).any(|piece| escaped(piece).is_none())
}

/// The byte of an escape, from what follows its percent sign.
fn escaped(piece: &str) -> Option<u8> {
    let digits = piece.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// All but what is unreserved, what RFC 3986, section 3.4 lets stand in a query and nobody parts it by, and the percent sign.
const NOT_IN_VALUES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'@')
    .remove(b'%');

/// What RFC 3986, section 3.3 does not let stand in a path, but the percent sign.
const NOT_IN_PATHS: &AsciiSet = &CONTROLS
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
    fn rules_are_compared_without_needless_escapes() {
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
        for (written, compared) in cases {
            assert_eq!(decode_unreserved(written), compared, "{written}");
        }
    }

    #[test]
    fn replacements_stay_in_the_path() {
        let cases = [
            ("/a/b;c=1,d:@!$&'()*+~", "/a/b;c=1,d:@!$&'()*+~"),
            ("/a?b#c d", "/a%3Fb%23c%20d"),
            ("/é\r\n", "/%C3%A9%0D%0A"),
            ("/%2F%zz%", "/%2F%25zz%25"),
            ("", ""),
        ];
        for (written, sent) in cases {
            assert_eq!(encode_path(written), sent, "{written}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_replacement_is_always_a_target(path in ".*") {
            let target = format!("/{}", encode_path(&path));
            let parsed: http::uri::PathAndQuery = target.parse().unwrap();
            proptest::prop_assert_eq!(parsed.path(), target);
            proptest::prop_assert_eq!(parsed.query(), None);
        }

        #[test]
        fn no_rule_makes_it_panic(path in "[%é4a/]*") {
            proptest::prop_assert!(decode_unreserved(&path).len() <= path.len());
        }
    }
}
