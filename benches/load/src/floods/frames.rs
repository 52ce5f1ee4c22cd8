//! HTTP/2 frames as bytes, valid or not, and the first message of a TLS handshake.

use anyhow::Result;
use rustls::ClientConnection;

use crate::plan::Protocol;
use crate::server::HOST;
use crate::tls::Tls;

// RFC 9113, sections 3.4 and 6.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A GET request on a stream. `end_stream` is [`END_STREAM`], or 0 to keep the stream open.
pub(super) fn get(stream: u32, path: &str, end_stream: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | end_stream, stream, &head(b"\x82", path))
}

/// The head of a POST request. Its stream stays open for a body.
pub(super) fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head(b"\x83", "/"))
}

/// Encoded header fields of a request (RFC 7541): the method as an index of the static table, the others as literals
/// without indexing.
pub(super) fn head(method: &[u8], path: &str) -> Vec<u8> {
    let literal = |index: u8, text: &str| [&[index, text.len() as u8], text.as_bytes()].concat();
    [method, b"\x86", &literal(0x04, path), &literal(0x01, HOST)].concat()
}

/// An encoded header field `x` with a value of 8,000 bytes.
pub(super) fn long_field() -> Vec<u8> {
    [&b"\x00\x01x\x7f\xc1\x3d"[..], &[b'a'; 8000]].concat()
}

/// The first message of a TLS handshake.
pub(super) fn client_hello() -> Result<Vec<u8>> {
    let (config, name) = Tls::new(HOST, Protocol::Http1)?.into_parts();
    let mut bytes = Vec::new();
    ClientConnection::new(config, name)?.write_tls(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hpack_lengths_are_encoded_correctly() {
        // RFC 7541, section 5.1: 127 plus the rest in groups of seven bits.
        let decoded = |bytes: &[u8]| 127 + usize::from(bytes[0] & 0x7f) + (usize::from(bytes[1]) << 7);
        assert_eq!(decoded(b"\xc1\x3d"), 8000);
        assert_eq!(decoded(b"\x9d\x16"), 2972);
        assert_eq!(long_field().len(), 6 + 8000);
        assert_eq!(frame(PING, 0, 0, b"12345678")[..9], [0, 0, 8, 6, 0, 0, 0, 0, 0]);
    }
}
