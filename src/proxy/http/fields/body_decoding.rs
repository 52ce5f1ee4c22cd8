//! Content codings of response bodies, and decoding them for filters that read text.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// The content coding of a body (RFC 9110, section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ContentCoding {
    Identity,
    Gzip,
    Deflate,
    /// Another coding, or several.
    Unknown,
}

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum DecodingError {
    /// It is not in its declared coding.
    Invalid,
    /// It is larger than the limit when decoded.
    TooLarge,
}

impl ContentCoding {
    pub(in crate::proxy) fn from_headers(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return match headers.contains_key(CONTENT_ENCODING) {
                true => ContentCoding::Unknown,
                false => ContentCoding::Identity,
            };
        };
        let coding = value.as_bytes().trim_ascii();
        let is = |name: &[u8]| coding.eq_ignore_ascii_case(name);
        if is(b"gzip") || is(b"x-gzip") {
            ContentCoding::Gzip
        } else if is(b"deflate") {
            ContentCoding::Deflate
        } else if is(b"identity") || is(b"") {
            ContentCoding::Identity
        } else {
            ContentCoding::Unknown
        }
    }

    /// Decodes a whole body. Stops at `max_bytes`, however much the rest would decode to.
    pub(in crate::proxy) fn decode(self, body: &Bytes, max_bytes: usize) -> Result<Bytes, DecodingError> {
        let bytes = &body[..];
        match self {
            ContentCoding::Identity => Ok(body.clone()),
            ContentCoding::Gzip => read_up_to(MultiGzDecoder::new(bytes), max_bytes),
            ContentCoding::Deflate if has_zlib_header(bytes) => read_up_to(ZlibDecoder::new(bytes), max_bytes),
            // Some servers send `deflate` without the header that the coding requires.
            ContentCoding::Deflate => read_up_to(DeflateDecoder::new(bytes), max_bytes),
            ContentCoding::Unknown => Err(DecodingError::Invalid),
        }
    }
}

fn read_up_to(decoder: impl Read, max_bytes: usize) -> Result<Bytes, DecodingError> {
    let mut decoded = Vec::new();
    let limit = (max_bytes as u64).saturating_add(1);
    decoder.take(limit).read_to_end(&mut decoded).map_err(|_| DecodingError::Invalid)?;
    if decoded.len() > max_bytes { Err(DecodingError::TooLarge) } else { Ok(decoded.into()) }
}

/// Whether the data begins with the header of RFC 1950: the method is 8, and the two bytes are a multiple of 31.
fn has_zlib_header(bytes: &[u8]) -> bool {
    matches!(bytes, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn content_codings_are_read_from_headers() {
        for (values, expected) in [
            (&[][..], ContentCoding::Identity),
            (&["identity"], ContentCoding::Identity),
            (&["GZip"], ContentCoding::Gzip),
            (&[" x-gzip "], ContentCoding::Gzip),
            (&["deflate"], ContentCoding::Deflate),
            (&["br"], ContentCoding::Unknown),
            (&["gzip, gzip"], ContentCoding::Unknown),
            (&["gzip", "gzip"], ContentCoding::Unknown),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(ContentCoding::from_headers(&headers), expected, "{values:?}");
        }
    }

    #[test]
    fn gzip_and_both_forms_of_deflate_are_decoded() {
        let text = b"one two three";
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(text).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(text).unwrap();
        for (coding, body) in [
            (ContentCoding::Identity, text.to_vec()),
            (ContentCoding::Gzip, gzip(text)),
            (ContentCoding::Gzip, [gzip(b"one two"), gzip(b" three")].concat()),
            (ContentCoding::Deflate, zlib.finish().unwrap()),
            (ContentCoding::Deflate, raw.finish().unwrap()),
        ] {
            assert_eq!(coding.decode(&body.into(), 100).unwrap(), &text[..], "{coding:?}");
        }
    }

    #[test]
    fn decoding_stops_at_the_limit() {
        let bomb = Bytes::from(gzip(&vec![0; 10_000_000]));
        assert!(bomb.len() < 20_000, "{}", bomb.len());
        assert_eq!(ContentCoding::Gzip.decode(&bomb, 1000), Err(DecodingError::TooLarge));
        assert_eq!(ContentCoding::Gzip.decode(&gzip(&[0; 1000]).into(), 1000).map(|body| body.len()), Ok(1000));
    }

    #[test]
    fn invalid_and_truncated_bodies_are_not_decoded() {
        let whole = gzip(b"one two three");
        for body in [&whole[..whole.len() - 9], b"{}", b""] {
            let body = Bytes::copy_from_slice(body);
            assert_eq!(ContentCoding::Gzip.decode(&body, 100), Err(DecodingError::Invalid), "{body:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_body_decodes_without_panic(body in proptest::collection::vec(0..=255_u8, 0..200)) {
            let body = Bytes::from(body);
            for coding in [ContentCoding::Gzip, ContentCoding::Deflate] {
                if let Ok(decoded) = coding.decode(&body, 1000) {
                    proptest::prop_assert!(decoded.len() <= 1000);
                }
            }
        }
    }
}
