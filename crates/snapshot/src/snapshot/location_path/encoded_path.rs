//! Percent-encodes paths that were decoded, so that they can be sent.

use percent_encoding::{AsciiSet, CONTROLS, percent_encode, percent_encode_byte};

use super::decoded_path::byte_of;

/// The path as it is sent.
pub(super) fn encode_path(path: &str) -> String {
    encode_text(path, ENCODED_IN_PATHS)
}

/// A part of a decoded path with the characters of the set encoded. Characters that stand for a byte which is no text
/// are written as this byte.
pub(in crate::snapshot) fn encode_text(text: &str, set: &'static AsciiSet) -> String {
    let mut encoded = String::with_capacity(text.len());
    for piece in text.split_inclusive(|character| byte_of(character).is_some()) {
        let last = piece.char_indices().next_back().and_then(|(index, last)| Some((index, byte_of(last)?)));
        let text = last.map_or(piece, |(index, _)| &piece[..index]);
        encoded.extend(percent_encode(text.as_bytes(), set));
        if let Some((_, byte)) = last {
            encoded.push_str(percent_encode_byte(byte));
        }
    }
    encoded
}

/// What nginx encodes in a path that it has changed.
pub(in crate::snapshot) const ENCODED_IN_PATHS: &AsciiSet = &CONTROLS
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
