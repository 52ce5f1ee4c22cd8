//! The parameters of a request, which a server gets as the environment of a script: names and values, each with its
//! length.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

/// The parameters that do not follow from the fields of the request. An extension of the request, so that it is sent
/// again with them.
#[derive(Clone, Debug, Default)]
pub struct FastCgiParams {
    encoded: BytesMut,
    /// Names of parameters that are set here in place of those that follow from fields.
    replaced: Arc<[Box<str>]>,
}

impl FastCgiParams {
    /// `replaced`: the names of parameters that do not follow from the fields of the request.
    pub fn new(replaced: Arc<[Box<str>]>) -> Self {
        FastCgiParams { encoded: BytesMut::with_capacity(USUAL_BYTES), replaced }
    }

    /// Adds a parameter. A server takes the last one with a name, so each is added once.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        push_param(name, value, &mut self.encoded);
    }

    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Whether fields of the request do not decide about this parameter.
    pub(super) fn replaces(&self, name: &[u8]) -> bool {
        self.replaced.iter().any(|replaced| replaced.as_bytes() == name)
    }
}

pub(super) fn push_param(name: &[u8], value: &[u8], out: &mut BytesMut) {
    out.reserve(2 * LONG_LENGTH + name.len() + value.len());
    for part in [name, value] {
        match u8::try_from(part.len()) {
            Ok(length @ 0..=127) => out.put_u8(length),
            // The heads of requests are much shorter than what four bytes can tell.
            _ => out.put_u32(part.len() as u32 | 1 << 31),
        }
    }
    out.put_slice(name);
    out.put_slice(value);
}

/// The bytes of a length above 127.
const LONG_LENGTH: usize = 4;
const USUAL_BYTES: usize = 1024;

/// Reads parameters as a server does.
#[cfg(test)]
pub(super) fn decode(mut bytes: &[u8]) -> Vec<(String, String)> {
    fn length(bytes: &mut &[u8]) -> usize {
        let is_long = bytes[0] > 127;
        let (digits, rest) = bytes.split_at(if is_long { 4 } else { 1 });
        *bytes = rest;
        digits.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)) & !(1 << 31)
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let lengths = [length(&mut bytes), length(&mut bytes)];
        let [name, value] = lengths.map(|length| {
            let (part, rest) = bytes.split_at(length);
            bytes = rest;
            String::from_utf8(part.to_vec()).unwrap()
        });
        found.push((name, value));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_one_byte_or_four() {
        for (length, encoded) in
            [(0, &[0][..]), (127, &[127]), (128, &[128, 0, 0, 128]), (70_000, &[128, 1, 0x11, 0x70])]
        {
            let value = "v".repeat(length);
            let mut out = BytesMut::new();
            push_param(b"N", value.as_bytes(), &mut out);
            assert_eq!(out[..1 + encoded.len()], [&[1], encoded].concat());
            assert_eq!(decode(&out), [("N".to_owned(), value)]);
        }
    }
}
