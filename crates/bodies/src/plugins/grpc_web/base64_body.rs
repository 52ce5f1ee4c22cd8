//! Bodies in base64, which may consist of several padded texts one after the other.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

/// The bytes of a whole body. `None` if it is not base64.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut rest = text;
    while !rest.is_empty() {
        // Padding ends a text of whole groups of four characters.
        let length = memchr::memchr(b'=', rest).map_or(rest.len(), |padding| (padding / 4 + 1) * 4);
        let (group, after) = rest.split_at_checked(length)?;
        BASE64_STANDARD.decode_vec(group, &mut bytes).ok()?;
        rest = after;
    }
    Some(bytes)
}

/// Encodes a body that is sent in parts. Each text that is sent can be decoded by itself.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// Fewer than three bytes, which wait for those that complete a group.
    kept: Vec<u8>,
}

impl Encoder {
    pub(super) fn encode(&mut self, data: Bytes) -> Bytes {
        let data = if self.kept.is_empty() { data } else { [&self.kept, &data[..]].concat().into() };
        let (whole, rest) = data.split_at(data.len() / 3 * 3);
        self.kept = rest.to_vec();
        BASE64_STANDARD.encode(whole).into()
    }

    /// What is left, with padding.
    pub(super) fn flush(&mut self) -> Bytes {
        BASE64_STANDARD.encode(std::mem::take(&mut self.kept)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_texts_follow_one_another() {
        for (text, expected) in [
            ("", Some(&b""[..])),
            ("AAAA", Some(&[0, 0, 0])),
            ("AA==AAA=AAAA", Some(&[0, 0, 0, 0, 0, 0])),
            ("AA==", Some(&[0])),
            ("A", None),
            ("AAAAA", None),
            ("AA=", None),
            ("AA=A", None),
            ("A===", None),
            ("====", None),
            ("AB==", None),
            ("AA==\r\n", None),
            ("AA-_", None),
            ("\u{fc}AA", None),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn parts_are_encoded_and_flushed() {
        let data: Vec<u8> = (0..=255).collect();
        for size in [1, 2, 3, 4, 7, 256] {
            for flushes in [false, true] {
                let (mut encoder, mut text) = (Encoder::default(), Vec::new());
                for part in data.chunks(size) {
                    text.extend_from_slice(&encoder.encode(Bytes::copy_from_slice(part)));
                    if flushes {
                        text.extend_from_slice(&encoder.flush());
                        assert_eq!(text.len() % 4, 0);
                    }
                }
                text.extend_from_slice(&encoder.flush());
                assert!(encoder.flush().is_empty());
                assert_eq!(decode(&text).unwrap(), data, "{size} {flushes}");
            }
        }
    }
}
