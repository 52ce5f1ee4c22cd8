//! Encoders of one response body, which work in parts and give back what they have kept when the backend pauses.

use std::io::{self, Write};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::write::ZlibEncoder;
use flate2::{Compress, Compression};
use zstd::stream::write::Encoder as ZstdEncoder;
use zstd::zstd_safe::CParameter;

use super::accepted::Coding;
use crate::plugin_api::StreamingFilter;

/// An encoder, with its output so far.
enum Encoder {
    /// The format is that of its `Compress`.
    Gzip(ZlibEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding, level: u8, length: Option<u64>) -> io::Result<Encoder> {
        let window_log = window_log(length);
        Ok(match coding {
            Coding::Gzip => {
                let bits = window_log.clamp(MIN_GZIP_WINDOW_LOG, MAX_GZIP_WINDOW_LOG);
                let compress = Compress::new_gzip(Compression::new(level.into()), bits);
                Encoder::Gzip(ZlibEncoder::new_with_compress(Vec::new(), compress))
            }
            Coding::Br => {
                let writer = CompressorWriter::new(Vec::new(), BROTLI_BUFFER_BYTES, level.into(), window_log.into());
                Encoder::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), level.into())?;
                encoder.window_log(window_log.into())?;
                if level >= 4 {
                    // Higher levels have tables of many MiB, which a window of this size does not need.
                    encoder.set_parameter(CParameter::HashLog(TABLE_LOG))?;
                    encoder.set_parameter(CParameter::ChainLog(TABLE_LOG))?;
                }
                if window_log <= MAX_SHORT_LOG {
                    // The tables are cleared for each body, which takes six times as long as encoding a short one.
                    encoder.set_parameter(CParameter::HashLog(window_log.into()))?;
                    encoder.set_parameter(CParameter::ChainLog(window_log.into()))?;
                }
                Encoder::Zstd(encoder)
            }
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Encoder::Gzip(encoder) => encoder,
            Encoder::Brotli(encoder) => encoder,
            Encoder::Zstd(encoder) => encoder,
        }
    }

    fn take_output(&mut self) -> Bytes {
        let output = match self {
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Brotli(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
        };
        std::mem::take(output).into()
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Brotli(encoder) => Ok(encoder.into_inner()),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// The binary logarithm of the window for a body, which needs none that is larger than itself.
fn window_log(length: Option<u64>) -> u8 {
    let needed = length.and_then(|length| u8::try_from(u64::BITS - length.leading_zeros()).ok());
    needed.unwrap_or(WINDOW_LOG).clamp(MIN_WINDOW_LOG, WINDOW_LOG)
}

/// The memory of an encoder, rounded up from what it allocated for 2 MiB of generated text in parts of 16 KiB.
pub(super) fn memory_bytes(coding: Coding, level: u8) -> usize {
    match coding {
        Coding::Gzip => 512 << 10,
        Coding::Br if level >= 5 => 6 << 20,
        Coding::Br => 5 << 20,
        Coding::Zstd if level >= 4 => 4 << 20,
        Coding::Zstd => 2 << 20,
    }
}

/// The body of a response while it is encoded.
pub(super) struct EncodedBody {
    /// None when the body has ended, or the encoder has failed.
    encoder: Option<Encoder>,
    /// Whether the encoder has data that it has not given back.
    has_kept: bool,
    has_failed: bool,
}

impl EncodedBody {
    /// An encoder for a body of this length, if it is known. It is only a hint.
    pub(super) fn new(coding: Coding, level: u8, length: Option<u64>) -> io::Result<EncodedBody> {
        Ok(EncodedBody { encoder: Some(Encoder::new(coding, level, length)?), has_kept: false, has_failed: false })
    }

    fn run(&mut self, step: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Bytes {
        let Some(encoder) = &mut self.encoder else { return Bytes::new() };
        match step(encoder.writer()) {
            Ok(()) => encoder.take_output(),
            Err(_) => self.fail(),
        }
    }

    fn fail(&mut self) -> Bytes {
        (self.encoder, self.has_failed) = (None, true);
        Bytes::new()
    }
}

impl StreamingFilter for EncodedBody {
    fn part(&mut self, data: Bytes) -> Bytes {
        self.has_kept = true;
        self.run(|writer| writer.write_all(&data))
    }

    fn end(&mut self) -> Bytes {
        match self.encoder.take().map(Encoder::finish) {
            Some(Ok(output)) => output.into(),
            Some(Err(_)) => self.fail(),
            None => Bytes::new(),
        }
    }

    fn pause(&mut self) -> Bytes {
        if !std::mem::take(&mut self.has_kept) {
            return Bytes::new();
        }
        self.run(|writer| writer.flush())
    }

    fn max_part(&self) -> Option<usize> {
        Some(PART_BYTES)
    }

    fn has_failed(&self) -> bool {
        self.has_failed
    }
}

/// How many bytes an encoder gets at once. Brotli collects several parts before it encodes them.
const PART_BYTES: usize = 16 << 10;

/// The window of Brotli and Zstandard, 256 KiB: eight times that of gzip, with a bounded memory for each response.
const WINDOW_LOG: u8 = 18;
/// The smallest window that both formats allow.
const MIN_WINDOW_LOG: u8 = 10;

/// The windows of gzip. Smaller ones than 4 KiB take longer, not shorter.
const MIN_GZIP_WINDOW_LOG: u8 = 12;
const MAX_GZIP_WINDOW_LOG: u8 = 15;

/// Bodies of less than 32 KiB get tables of their size from Zstandard.
const MAX_SHORT_LOG: u8 = 15;

/// The tables of Zstandard have 262,144 entries of 4 bytes.
const TABLE_LOG: u32 = 18;

const BROTLI_BUFFER_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::content_coding::ContentCoding;

    const CODINGS: [(Coding, ContentCoding); 3] =
        [(Coding::Gzip, ContentCoding::Gzip), (Coding::Br, ContentCoding::Brotli), (Coding::Zstd, ContentCoding::Zstd)];

    #[test]
    fn bodies_decode_to_what_was_encoded() {
        let parts = ["one ", "", "two ", &"three ".repeat(2000), "four"];
        for (coding, decoder) in CODINGS {
            // The length may be unknown, right or wrong.
            for (level, length) in [(1, None), (4, Some(12_011)), (6, Some(10)), (3, Some(u64::MAX)), (4, Some(0))] {
                let mut body = EncodedBody::new(coding, level, length).unwrap();
                let mut encoded = Vec::new();
                for part in parts {
                    encoded.extend_from_slice(&body.part(part.to_owned().into()));
                }
                encoded.extend_from_slice(&body.end());
                assert!(!body.has_failed());
                assert!(encoded.len() < 1000, "{coding:?} {level}: {}", encoded.len());
                let decoded = decoder.decode(&encoded.into(), 1 << 20).unwrap();
                assert_eq!(decoded, parts.concat(), "{coding:?} {level}");
            }
        }
    }

    /// The length is only a hint, also for the tables and windows of short bodies.
    #[test]
    fn short_bodies_of_any_announced_length_decode() {
        let text: String = (0..3_000).map(|number| format!("{{\"item\": {number}}}, ")).collect();
        for (coding, decoder) in CODINGS {
            for level in [1, 3, 6] {
                for (announced, actual) in [(700, 700), (4_096, 4_096), (32_767, 32_767), (100, 30_000), (32_768, 50)] {
                    let mut body = EncodedBody::new(coding, level, Some(announced)).unwrap();
                    let mut encoded = body.part(text[..actual].to_owned().into()).to_vec();
                    encoded.extend_from_slice(&body.end());
                    let decoded = decoder.decode(&encoded.into(), 1 << 20).unwrap();
                    assert_eq!(decoded, text[..actual], "{coding:?} {level} {announced} {actual}");
                }
            }
        }
    }

    #[test]
    fn a_pause_gives_back_everything_once() {
        for (coding, _) in CODINGS {
            let mut body = EncodedBody::new(coding, 3, None).unwrap();
            let mut encoded = body.part("data: 1\n\n".into()).to_vec();
            let flushed = body.pause();
            assert!(!flushed.is_empty(), "{coding:?}");
            encoded.extend_from_slice(&flushed);
            assert!(body.pause().is_empty(), "{coding:?}");
            assert_eq!(decode_beginning(coding, &encoded), b"data: 1\n\n", "{coding:?}");
            assert!(!body.end().is_empty(), "{coding:?}");
        }
    }

    #[test]
    fn an_empty_body_is_valid() {
        for (coding, decoder) in CODINGS {
            let mut body = EncodedBody::new(coding, 3, None).unwrap();
            assert!(body.pause().is_empty(), "{coding:?}");
            assert_eq!(decoder.decode(&body.end(), 10).unwrap(), "", "{coding:?}");
        }
    }

    /// What a client can decode before the end of a body.
    fn decode_beginning(coding: Coding, encoded: &[u8]) -> Vec<u8> {
        let mut decoded = Vec::new();
        match coding {
            Coding::Gzip => {
                let mut decoder = flate2::write::GzDecoder::new(&mut decoded);
                decoder.write_all(encoded).unwrap();
                decoder.flush().unwrap();
                drop(decoder);
            }
            Coding::Br => {
                let mut decoder = brotli::DecompressorWriter::new(&mut decoded, 4096);
                decoder.write_all(encoded).unwrap();
                decoder.flush().unwrap();
                // The body is incomplete, which closing the decoder would report.
                decoder.into_inner().map(drop).ok();
            }
            Coding::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(&mut decoded).unwrap();
                decoder.write_all(encoded).unwrap();
                decoder.flush().unwrap();
            }
        }
        decoded
    }
}
