//! Percent-encoding of configured paths: those that replace the path of a request, and those that are compared with it.
//!
//! The path of every request is normalized before it is compared: no byte of it needs to be encoded, no escape stands
//! for an unreserved character, and no segment is a dot segment.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// Encodes characters that may not occur in a path, so that a replacement neither ends the path nor makes the request
/// malformed: `?`, `#`, spaces, control characters, and percent signs without an escape. Existing escapes are kept.
pub fn encode_path(path: &[u8]) -> Cow<'_, str> {
    repair_escapes(Cow::from(percent_encode(path, ENCODE_IN_PATHS)))
}

/// A configured path as normalized requests have it: a browser that is given `/a b/../café` requests
/// `/caf%C3%A9`. Existing escapes are kept, unless they stand for unreserved characters.
pub fn path_in_requests(path: &str) -> Cow<'_, str> {
    let decoded = match repair_escapes(Cow::from(percent_encode(path.as_bytes(), NEVER_IN_REQUESTS))) {
        Cow::Borrowed(path) => decode_unreserved(path),
        Cow::Owned(path) => Cow::Owned(decode_unreserved(&path).into_owned()),
    };
    match resolve_dots(&decoded) {
        Some(resolved) => Cow::Owned(resolved),
        None => decoded,
    }
}

/// Whether a path can be sent to an endpoint as it is written: it starts with a slash, has no byte that must be
/// encoded, and neither broken escapes nor dot segments.
pub fn is_sendable_path(path: &str) -> bool {
    path.starts_with('/')
        && matches!(Cow::from(percent_encode(path.as_bytes(), NEVER_IN_REQUESTS)), Cow::Borrowed(_))
        && !has_broken_escape(path)
        && resolve_dots(&decode_unreserved(path)).is_none()
}

/// Encodes the percent signs that begin no escape.
fn repair_escapes(path: Cow<'_, str>) -> Cow<'_, str> {
    if !has_broken_escape(&path) {
        return path;
    }
    let mut pieces = path.split('%');
    let mut repaired = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        repaired.push_str(if decode_escape(piece).is_some() { "%" } else { "%25" });
        repaired.push_str(piece);
    }
    Cow::Owned(repaired)
}

/// Decodes escapes of unreserved characters (`%7E` is `~`) and keeps all other escapes. The path of every request is
/// decoded in the same way before it is matched, so a rule with such escapes would never match otherwise.
pub fn decode_unreserved(path: &str) -> Cow<'_, str> {
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

/// Decodes all escapes once. A percent sign that begins no escape stays.
pub fn decode_escapes(path: &str) -> Vec<u8> {
    let mut pieces = path.split('%');
    let mut decoded = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        match decode_escape(piece) {
            Some(byte) => {
                decoded.push(byte);
                decoded.extend_from_slice(&piece.as_bytes()[2..]);
            }
            None => {
                decoded.push(b'%');
                decoded.extend_from_slice(piece.as_bytes());
            }
        }
    }
    decoded
}

/// Writes the hex digits of escapes in upper case: `%2f` and `%2F` are equivalent (RFC 3986, section 6.2.2.1). The
/// length stays the same.
pub fn upper_case_escapes(path: &str) -> Cow<'_, str> {
    map_escapes(path, u8::is_ascii_lowercase, str::make_ascii_uppercase)
}

/// Writes the hex digits of escapes in lower case.
pub fn lower_case_escapes(path: &str) -> Cow<'_, str> {
    map_escapes(path, u8::is_ascii_uppercase, str::make_ascii_lowercase)
}

/// Changes the hex digits of the escapes that have a digit to change.
fn map_escapes(path: &str, is_to_change: fn(&u8) -> bool, change: fn(&mut str)) -> Cow<'_, str> {
    let mut changed: Option<String> = None;
    for (percent, _) in path.match_indices('%') {
        let rest = &path[percent + 1..];
        if decode_escape(rest).is_some() && rest.as_bytes()[..2].iter().any(is_to_change) {
            change(&mut changed.get_or_insert_with(|| path.to_owned())[percent + 1..percent + 3]);
        }
    }
    changed.map_or(Cow::Borrowed(path), Cow::Owned)
}

/// Removes dot segments (RFC 3986, section 5.2.4) from a path that starts with a slash. `None` if it has none.
pub(crate) fn resolve_dots(path: &str) -> Option<String> {
    let is_dots = |segment: &str| segment == "." || segment == "..";
    if !path.split('/').any(is_dots) {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment == ".." {
            kept.pop();
        } else if segment != "." {
            kept.push(segment);
        }
        // A path that ends in a dot segment gets a trailing slash.
        if is_dots(segment) && segments.peek().is_none() {
            kept.push("");
        }
    }
    Some(kept.iter().fold(String::with_capacity(path.len()), |path, segment| path + "/" + segment))
}

/// Encodes the bytes that are not ASCII. Clients encode them, but the proxy also accepts them unencoded.
pub(crate) fn encode_non_ascii(path: &str) -> Cow<'_, str> {
    percent_encode(path.as_bytes(), NOTHING).into()
}

/// Whether the byte is an unreserved character of RFC 3986, section 2.3.
pub fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether a percent sign is not followed by two hexadecimal digits.
pub fn has_broken_escape(text: &str) -> bool {
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

/// The ASCII characters that the path of no request has unencoded: such requests are rejected, or `?` and `#` end their
/// path. Bytes that are not ASCII are always encoded.
const NEVER_IN_REQUESTS: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'`');

/// No ASCII character.
const NOTHING: &AsciiSet = &AsciiSet::EMPTY;

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

    #[test]
    fn paths_are_written_as_normalized_requests_have_them() {
        let cases = [
            ("/a/b;c=1,d:@!$&'()*+~{}|^[]\\", "/a/b;c=1,d:@!$&'()*+~{}|^[]\\"),
            ("/a b", "/a%20b"),
            ("/café", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%c3%a9"),
            ("/a?b#c", "/a%3Fb%23c"),
            ("/\u{7f}\n<>`\"", "/%7F%0A%3C%3E%60%22"),
            ("/100%", "/100%25"),
            ("/%7Eme/%2e%2E/x", "/x"),
            ("/a/./b/..", "/a/"),
            ("/a//b", "/a//b"),
        ];
        for (configured, expected) in cases {
            assert_eq!(path_in_requests(configured), expected, "{configured}");
        }
    }

    #[test]
    fn sendable_paths() {
        for path in ["/", "/v1", "/a%2Fb", "/%41", "/a/..b", "/{x}"] {
            assert!(is_sendable_path(path), "{path}");
        }
        for path in ["", "v1", "/a b", "/a?b", "/a#b", "/a\r\nb", "/a/../b", "/a/%2e%2e", "/.", "/%zz", "/%4", "/é"] {
            assert!(!is_sendable_path(path), "{path}");
        }
    }

    #[test]
    fn case_of_hex_digits_is_changed_in_escapes_only() {
        for (path, upper, lower) in [
            ("/a", "/a", "/a"),
            ("/caf%c3%A9/e", "/caf%C3%A9/e", "/caf%c3%a9/e"),
            ("/%2f%2F%20", "/%2F%2F%20", "/%2f%2f%20"),
            ("/%", "/%", "/%"),
            ("/%f", "/%f", "/%f"),
            ("/%fé%zz%aF", "/%fé%zz%AF", "/%fé%zz%af"),
            ("/%25cc", "/%25cc", "/%25cc"),
            ("", "", ""),
        ] {
            assert_eq!((&*upper_case_escapes(path), &*lower_case_escapes(path)), (upper, lower), "{path}");
        }
        assert!(matches!(upper_case_escapes("/%2F"), Cow::Borrowed(_)));
        assert!(matches!(lower_case_escapes("/%2f%20"), Cow::Borrowed(_)));
    }

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

        #[test]
        fn path_in_requests_is_idempotent(path in "/([ -~]|é|%2e|%41|/|\\.){0,12}") {
            let once = path_in_requests(&path);
            proptest::prop_assert_eq!(path_in_requests(&once), &*once);
            proptest::prop_assert!(is_sendable_path(&once), "{}", once);
        }

        #[test]
        fn encoded_replacement_is_a_valid_target(path in ".*") {
            let target = format!("/{}", encode_path(path.as_bytes()));
            let parsed: http::uri::PathAndQuery = target.parse().unwrap();
            proptest::prop_assert_eq!(parsed.path(), target);
            proptest::prop_assert_eq!(parsed.query(), None);
        }
    }
}
