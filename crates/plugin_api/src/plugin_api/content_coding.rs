//! Content codings of bodies, and decoding them: responses for filters that read text, requests for backends that do
//! not decode.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName};

/// The content coding of a body (RFC 9110, section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    Identity,
    Gzip,
    Deflate,
    Brotli,
    Zstd,
    /// Another coding, or several.
    Unknown,
}

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodingError {
    /// It is not in its declared coding.
    Invalid,
    /// It is larger than the limit when decoded.
    TooLarge,
}

impl ContentCoding {
    pub fn from_headers(headers: &HeaderMap) -> Self {
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
        } else if is(b"br") {
            ContentCoding::Brotli
        } else if is(b"zstd") {
            ContentCoding::Zstd
        } else if is(b"identity") || is(b"") {
            ContentCoding::Identity
        } else {
            ContentCoding::Unknown
        }
    }

    /// Decodes a whole body. Stops at `max_bytes`, however much the rest would decode to.
    pub fn decode(self, body: &Bytes, max_bytes: usize) -> Result<Bytes, DecodingError> {
        let Some(mut decoding) = self.start(body, max_bytes)? else { return Ok(body.clone()) };
        while decoding.step()? {}
        Ok(decoding.decoded.into())
    }

    /// Decodes a whole body as [`ContentCoding::decode`] does, and lets other requests of the worker run in between.
    pub async fn decode_in_turns(self, body: &Bytes, max_bytes: usize) -> Result<Bytes, DecodingError> {
        let Some(mut decoding) = self.start(body, max_bytes)? else { return Ok(body.clone()) };
        while decoding.step()? {
            tokio::task::yield_now().await;
        }
        Ok(decoding.decoded.into())
    }

    /// `None` if there is nothing to decode.
    fn start(self, body: &Bytes, max_bytes: usize) -> Result<Option<Decoding<'_>>, DecodingError> {
        let bytes = &body[..];
        let reader: Box<dyn Read + '_> = match self {
            ContentCoding::Identity => return Ok(None),
            // The decoders of these two codings take an empty body for a complete one.
            ContentCoding::Brotli | ContentCoding::Zstd if bytes.is_empty() => return Err(DecodingError::Invalid),
            ContentCoding::Gzip => Box::new(MultiGzDecoder::new(bytes)),
            ContentCoding::Deflate if has_zlib_header(bytes) => Box::new(ZlibDecoder::new(bytes)),
            // Some servers send `deflate` without the header that the coding requires.
            ContentCoding::Deflate => Box::new(DeflateDecoder::new(bytes)),
            ContentCoding::Brotli => Box::new(brotli::Decompressor::new(bytes, BROTLI_INPUT_BYTES)),
            ContentCoding::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(bytes).map_err(|_| DecodingError::Invalid)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|_| DecodingError::Invalid)?;
                Box::new(decoder)
            }
            ContentCoding::Unknown => return Err(DecodingError::Invalid),
        };
        Ok(Some(Decoding { reader, decoded: Vec::new(), max_bytes }))
    }
}

/// A body that is being decoded.
struct Decoding<'b> {
    reader: Box<dyn Read + 'b>,
    decoded: Vec<u8>,
    max_bytes: usize,
}

impl Decoding<'_> {
    /// Decodes the next bytes, about [`BYTES_PER_TURN`]. Returns false at the end of the body.
    fn step(&mut self) -> Result<bool, DecodingError> {
        let length = self.decoded.len();
        let read = self.reader.by_ref().take(BYTES_PER_TURN).read_to_end(&mut self.decoded);
        read.map_err(|_| DecodingError::Invalid)?;
        if self.decoded.len() > self.max_bytes {
            return Err(DecodingError::TooLarge);
        }
        Ok(self.decoded.len() > length)
    }
}

/// How many bytes are decoded at once, in some 100 microseconds.
const BYTES_PER_TURN: u64 = 32 << 10;

/// The input buffer of the decoder of Brotli.
const BROTLI_INPUT_BYTES: usize = 4 << 10;

/// The largest window of Zstandard, 8 MiB: what RFC 9659, section 3, allows in the content coding.
const ZSTD_WINDOW_LOG: u32 = 23;

/// The fields with digests of a body, which are no longer right if its bytes change.
pub static DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

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
            (&["br"], ContentCoding::Brotli),
            (&["ZSTD"], ContentCoding::Zstd),
            (&["compress"], ContentCoding::Unknown),
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

    fn brotli(data: &[u8]) -> Vec<u8> {
        let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 18);
        encoder.write_all(data).unwrap();
        encoder.into_inner()
    }

    #[test]
    fn all_codings_and_both_forms_of_deflate_are_decoded() {
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
            (ContentCoding::Brotli, brotli(text)),
            (ContentCoding::Zstd, zstd::encode_all(&text[..], 3).unwrap()),
        ] {
            assert_eq!(coding.decode(&body.into(), 100).unwrap(), &text[..], "{coding:?}");
        }
    }

    #[test]
    fn decoding_stops_at_the_limit() {
        let zeros = vec![0; 10_000_000];
        for (coding, bomb) in [
            (ContentCoding::Gzip, gzip(&zeros)),
            (ContentCoding::Brotli, brotli(&zeros)),
            (ContentCoding::Zstd, zstd::encode_all(&zeros[..], 3).unwrap()),
        ] {
            assert!(bomb.len() < 20_000, "{}", bomb.len());
            assert_eq!(coding.decode(&bomb.into(), 1000), Err(DecodingError::TooLarge), "{coding:?}");
        }
        assert_eq!(ContentCoding::Gzip.decode(&gzip(&[0; 1000]).into(), 1000).map(|body| body.len()), Ok(1000));
    }

    #[test]
    fn invalid_and_truncated_bodies_are_not_decoded() {
        for (coding, whole) in [
            (ContentCoding::Gzip, gzip(b"one two three")),
            (ContentCoding::Brotli, brotli(b"one two three")),
            (ContentCoding::Zstd, zstd::encode_all(&b"one two three"[..], 3).unwrap()),
        ] {
            for body in [&whole[..whole.len() - 9], b"{}", b""] {
                let body = Bytes::copy_from_slice(body);
                assert_eq!(coding.decode(&body, 100), Err(DecodingError::Invalid), "{coding:?} {body:?}");
            }
        }
    }

    // RFC 9659, section 3
    #[test]
    fn windows_of_zstd_are_limited() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(24).unwrap();
        encoder.write_all(b"one two three").unwrap();
        let body = Bytes::from(encoder.finish().unwrap());
        assert_eq!(ContentCoding::Zstd.decode(&body, 100), Err(DecodingError::Invalid));
    }

    #[tokio::test]
    async fn decoding_in_turns_gives_the_same_bytes() {
        let text = Bytes::from("0123456789".repeat(20_000));
        let body = gzip(&text).into();
        assert_eq!(ContentCoding::Gzip.decode_in_turns(&body, 200_000).await, Ok(text));
        assert_eq!(ContentCoding::Gzip.decode_in_turns(&body, 199_999).await, Err(DecodingError::TooLarge));
    }

    proptest::proptest! {
        #[test]
        fn any_body_decodes_without_panic(body in proptest::collection::vec(0..=255_u8, 0..200)) {
            let body = Bytes::from(body);
            for coding in [ContentCoding::Gzip, ContentCoding::Deflate, ContentCoding::Brotli, ContentCoding::Zstd] {
                if let Ok(decoded) = coding.decode(&body, 1000) {
                    proptest::prop_assert!(decoded.len() <= 1000);
                }
            }
        }
    }
}
