//! The path of a request as locations are matched with it.

use std::borrow::Cow;

use crate::request_target::path_encoding::decode_escapes;

/// The path with all escapes decoded once, consecutive slashes merged, and dot segments resolved, as nginx normalizes
/// it. `path` is as the client sent it; it begins with a slash. `None` if it leads above the root.
///
/// Bytes that are not UTF-8 are characters of a private range, one for each byte.
pub(in crate::snapshot) fn decoded_path(path: &str) -> Option<Cow<'_, str>> {
    let is_plain = |pair: &[u8]| pair[0] != b'%' && pair != b"//" && pair != b"/.";
    if path.as_bytes().windows(2).all(is_plain) && !path.ends_with('%') && path.is_ascii() {
        return Some(Cow::Borrowed(path));
    }
    let decoded = text_of(&decode_escapes(path));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = decoded.strip_prefix('/').unwrap_or(&decoded).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            // Slashes are merged before dot segments are resolved: `/a//../b` is `/b`.
            "" if !is_last => {}
            "." if !is_last => {}
            ".." => {
                kept.pop()?;
                kept.extend(is_last.then_some(""));
            }
            "." => kept.push(""),
            segment => kept.push(segment),
        }
    }
    Some(Cow::Owned(kept.iter().fold(String::with_capacity(path.len()), |path, segment| path + "/" + segment)))
}

/// The bytes of a decoded path.
pub(in crate::snapshot) fn bytes_of(path: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    for character in path.chars() {
        match byte_of(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// The text of bytes, with a private character for each that is no part of a character.
fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match byte_of(character) {
                None => text.push(character),
                // A character of the private range itself is not decoded, so that it stands for nothing else.
                Some(_) => text.extend(character.encode_utf8(&mut [0; 4]).bytes().filter_map(private_character)),
            }
        }
        text.extend(chunk.invalid().iter().copied().filter_map(private_character));
    }
    text
}

fn private_character(byte: u8) -> Option<char> {
    char::from_u32(PRIVATE + u32::from(byte))
}

/// The byte for which a character stands, which is not ASCII: neither a dot nor a slash can result.
pub(super) fn byte_of(character: char) -> Option<u8> {
    let byte = u32::from(character).checked_sub(PRIVATE).and_then(|byte| u8::try_from(byte).ok());
    byte.filter(|byte| !byte.is_ascii())
}

/// A private character for each byte that is not ASCII is at this place plus the byte.
const PRIVATE: u32 = 0xF700;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once_merged_and_resolved() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b///", "/a/b/"),
            ("//", "/"),
            ("/a%2Fb", "/a/b"),
            ("/a%2F%2Fb", "/a/b"),
            ("/a%252Fb", "/a%2Fb"),
            ("/a/./b/.", "/a/b/"),
            ("/a/../b/..", "/"),
            ("/a//../b", "/b"),
            ("/a%2F..%2Fb", "/b"),
            ("/a/%2E%2E%2Fb", "/b"),
            ("/a..b/.c/..d", "/a..b/.c/..d"),
            ("/caf%C3%A9", "/café"),
            ("/%FF/%3F", "/\u{f7ff}/?"),
            ("/%EF%9F%BF", "/\u{f7ef}\u{f79f}\u{f7bf}"),
            ("/100%25", "/100%"),
            ("/a%", "/a%"),
            // Characters of the private range stand for bytes, also if the client sends them as they are.
            ("/\u{f7ae}", "/\u{f7ef}\u{f79e}\u{f7ae}"),
            ("/\u{f72e}", "/\u{f72e}"),
            ("/é", "/é"),
        ] {
            assert_eq!(decoded_path(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn bytes_are_those_that_escapes_stand_for() {
        for (path, expected) in [
            ("/a%20b", &b"/a b"[..]),
            ("/caf%C3%A9", "/café".as_bytes()),
            ("/%FF%C3", b"/\xff\xc3"),
            ("/%EF%9F%BF", "/\u{f7ff}".as_bytes()),
        ] {
            assert_eq!(bytes_of(&decoded_path(path).unwrap()), expected, "{path}");
        }
    }

    #[test]
    fn no_path_leads_above_the_root() {
        for path in ["/..", "/../a", "/a/../..", "/a/%2e%2e/%2E%2E/b", "/a/..%2f..", "//..", "/./.."] {
            assert_eq!(decoded_path(path), None, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn result_is_a_path_without_dot_segments(rest in "([a/.é\u{f72e}\u{f72f}]|%2[Ff]|%2[Ee]|%25|%C3|%A9){0,12}") {
            let Some(decoded) = decoded_path(&format!("/{rest}")).map(Cow::into_owned) else { return Ok(()) };
            proptest::prop_assert!(decoded.starts_with('/') && !decoded.contains("//"), "{}", decoded);
            proptest::prop_assert!(!decoded.split('/').any(|segment| segment == ".." || segment == "."), "{}", decoded);
        }
    }
}
