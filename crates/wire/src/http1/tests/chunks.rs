//! Decoding of bodies: chunks and trailers, bodies with a length, and bodies that end with their connection.

use super::*;

const KIB: usize = 1024;

/// A decoded body, up to its end or an error.
#[derive(Debug, Default, PartialEq)]
pub(super) struct DecodedBody {
    pub(super) data: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) error: Option<InvalidMessage>,
    /// Bytes after the body.
    rest: Vec<u8>,
}

/// Decodes a chunked body from parts, and then the end of the connection.
pub(super) fn decode_chunks(parts: &[&[u8]], limits: HeadLimits) -> DecodedBody {
    let (mut body, mut input, mut decoded) = (BodyDecoder::chunked(limits), BytesMut::new(), DecodedBody::default());
    let mut has_ended = false;
    for part in parts {
        input.extend_from_slice(part);
        while let Poll::Ready(frame) = body.decode(&mut input)
            && !has_ended
        {
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => decoded.data.extend_from_slice(&data),
                Some(Ok(Err(frame))) => decoded.trailers = frame.into_trailers().ok(),
                Some(Err(error)) => (decoded.error, has_ended) = (Some(error), true),
                None => has_ended = true,
            }
        }
    }
    if !has_ended {
        decoded.error = body.end_input().err();
    } else if decoded.error.is_none() {
        decoded.rest = input.to_vec();
    }
    decoded
}

fn decode_all_ways(bytes: &[u8]) -> DecodedBody {
    read_all_ways(bytes, |parts| decode_chunks(parts, LIMITS))
}

/// The lengths of the frames that are decoded from input that has arrived in one piece.
fn frame_lengths(input: &[u8]) -> Vec<usize> {
    let (mut body, mut input) = (BodyDecoder::chunked(LIMITS), BytesMut::from(input));
    let mut lengths = Vec::new();
    while let Poll::Ready(Some(frame)) = body.decode(&mut input) {
        lengths.push(frame.unwrap().into_data().unwrap().len());
    }
    lengths
}

fn encode(chunks: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for size in chunks {
        bytes.extend_from_slice(format!("{size:x}\r\n{}\r\n", "d".repeat(*size)).as_bytes());
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

#[test]
fn chunks_are_decoded() {
    let cases = [
        ("0\r\n\r\n", "", None),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", None),
        ("1\r\na\r\n2\r\nbc\r\n003\r\ndef\r\n000\r\n\r\n", "abcdef", None),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", None),
        ("4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", None),
        ("2;a=b\r\nab\r\n1 ; c=\"d;e\" ;f\r\nc\r\n0;g\r\n\r\n", "abc", None),
        ("2 \t\r\nab\r\n0\t\r\n\r\n", "ab", None),
        ("2\r\nab\r\n0\r\nSum: 1\r\n\r\n", "ab", Some(&[("sum", "1")][..])),
        ("0\r\na:\r\nA: b \r\nc: d\r\n\r\n", "", Some(&[("a", ""), ("a", "b"), ("c", "d")])),
    ];
    for (bytes, data, trailers) in cases {
        let decoded = decode_all_ways(format!("{bytes}GET /").as_bytes());
        assert_eq!((str::from_utf8(&decoded.data), decoded.error), (Ok(data), None), "{bytes:?}");
        let owned = |fields: &[(&str, &str)]| {
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(decoded.trailers.as_ref().map(fields_of), trailers.map(owned), "{bytes:?}");
        assert_eq!(decoded.rest, b"GET /", "{bytes:?}");
    }
}

#[test]
fn data_before_an_error_is_returned_first() {
    let cases = [
        ("", InvalidMessage::Truncated),
        ("0", InvalidMessage::Truncated),
        ("0\r\n", InvalidMessage::Truncated),
        ("0\r\nSum: 1\r\n", InvalidMessage::Truncated),
        ("2\r\n", InvalidMessage::Truncated),
        ("\r\n", InvalidMessage::ChunkSize),
        ("0x2\r\n", InvalidMessage::ChunkSize),
        ("+2\r\n", InvalidMessage::ChunkSize),
        ("-2\r\n", InvalidMessage::ChunkSize),
        (" 2\r\n", InvalidMessage::ChunkSize),
        ("g\r\n", InvalidMessage::ChunkSize),
        ("2 3\r\n", InvalidMessage::ChunkSize),
        ("2 x\r\n", InvalidMessage::ChunkSize),
        (";a\r\n", InvalidMessage::ChunkSize),
        ("2\n", InvalidMessage::ChunkSize),
        ("2;a\n", InvalidMessage::ChunkSize),
        ("2\r\r\n", InvalidMessage::ChunkSize),
        ("2\rx\r\n", InvalidMessage::ChunkSize),
        ("2;a\rb\r\n", InvalidMessage::ChunkSize),
        ("fffffffffffffffe\r\n", InvalidMessage::ChunkSize),
        ("10000000000000000\r\n", InvalidMessage::ChunkSize),
        ("0\r\n\n", InvalidMessage::Trailers),
        ("0\r\nno colon\r\n\r\n", InvalidMessage::Trailers),
        ("0\r\na: b\r\n c\r\n\r\n", InvalidMessage::Trailers),
        ("0\r\na : b\r\n\r\n", InvalidMessage::Trailers),
        ("0\r\na: \0\r\n\r\n", InvalidMessage::Trailers),
        ("0\r\na: b\n\r\n", InvalidMessage::Trailers),
        ("0\r\na: b\r\n\n", InvalidMessage::Trailers),
        ("0\r\n\r\r\n\r\n", InvalidMessage::Trailers),
    ];
    for (bytes, error) in cases {
        let decoded = decode_all_ways(bytes.as_bytes());
        assert_eq!((&*decoded.data, decoded.error), (&b""[..], Some(error)), "{bytes:?}");
        // Also after a chunk.
        let bytes = format!("2\r\nab\r\n{bytes}");
        let decoded = decode_all_ways(bytes.as_bytes());
        assert_eq!((&*decoded.data, decoded.error), (&b"ab"[..], Some(error)), "{bytes:?}");
    }
    for bytes in ["2\r\nabc\r\n", "2\r\nab\n0\r\n\r\n", "2\r\nab\r\r\n", "2\r\nab0\r\n\r\n", "2\r\nab\n"] {
        let decoded = decode_all_ways(bytes.as_bytes());
        assert_eq!((&*decoded.data, decoded.error), (&b"ab"[..], Some(InvalidMessage::ChunkEnd)), "{bytes:?}");
    }
}

#[test]
fn the_largest_chunk_size_is_accepted() {
    let decoded = decode_all_ways(b"fffffffffffffffd\r\nab");
    assert_eq!((&*decoded.data, decoded.error), (&b"ab"[..], Some(InvalidMessage::Truncated)));
}

#[test]
fn nothing_follows_an_error() {
    let (mut body, mut input) = (BodyDecoder::chunked(LIMITS), BytesMut::from("1\r\naX\r\n0\r\n\r\n"));
    let Poll::Ready(Some(Ok(frame))) = body.decode(&mut input) else { panic!("no data") };
    assert_eq!(frame.into_data().unwrap(), "a");
    assert!(!body.is_ended(), "the error was not returned");
    let Poll::Ready(Some(Err(InvalidMessage::ChunkEnd))) = body.decode(&mut input) else { panic!("no error") };
    let Poll::Ready(None) = body.decode(&mut input) else { panic!("a frame after an error") };
    assert!(!body.is_ended() && body.end_input().is_err(), "what follows must not be read as a message");
}

#[test]
fn chunks_that_arrive_together_are_joined_up_to_16_kib() {
    let cases: &[(&[usize], &[usize])] = &[
        (&[1, 2, 3], &[6]),
        (&[1; 100], &[100]),
        (&[8 * KIB, 8 * KIB], &[16 * KIB]),
        (&[8 * KIB, 8 * KIB, 1], &[16 * KIB, 1]),
        (&[8 * KIB, 8 * KIB + 1], &[8 * KIB, 8 * KIB + 1]),
        (&[1, 16 * KIB, 1], &[1, 16 * KIB, 1]),
        (&[40 * KIB, 1, 1], &[40 * KIB, 2]),
    ];
    for (chunks, frames) in cases {
        assert_eq!(frame_lengths(&encode(chunks)), *frames, "{chunks:?}");
    }
}

#[test]
fn incomplete_chunks_are_returned_without_the_rest() {
    assert_eq!(frame_lengths(b"2\r\nab\r\n5\r\nc"), [3]);
    assert_eq!(frame_lengths(b"2\r\nab\r"), [2]);
}

#[test]
fn a_single_chunk_is_not_copied() {
    for size in [10, 40 * KIB] {
        let mut input = BytesMut::from(&*encode(&[size]));
        let data_address = input.as_ptr().wrapping_add(format!("{size:x}\r\n").len());
        let Poll::Ready(Some(Ok(frame))) = BodyDecoder::chunked(LIMITS).decode(&mut input) else { panic!("no frame") };
        assert_eq!(frame.into_data().unwrap().as_ptr(), data_address);
    }
}

#[test]
fn the_end_is_reported_with_the_last_frame() {
    let cases = [
        ("2\r\nab\r\n0\r\n\r\n", [true, true]),
        ("2\r\nab\r\n0\r\n\r", [false, true]),
        ("2\r\nab\r\n0\r\n", [false, true]),
        ("2\r\nab\r\n", [false, true]),
        ("2\r\nab", [false, true]),
        ("2\r\nab\r\n0\r\na: b\r\n\r\n", [false, true]),
    ];
    let complete = ["2\r\nab\r\n0\r\n\r\n", "2\r\nab\r\n0\r\na: b\r\n\r\n"];
    for (bytes, expected) in cases {
        let (mut body, mut input) = (BodyDecoder::chunked(LIMITS), BytesMut::from(bytes));
        assert!(!body.is_ended() && body.size_hint().exact().is_none());
        let Poll::Ready(Some(Ok(_))) = body.decode(&mut input) else { panic!("no data") };
        let after_data = body.is_ended();
        assert_eq!(body.size_hint().exact().is_some(), after_data);
        let whole = complete.iter().find(|whole| whole.starts_with(bytes)).unwrap();
        input.extend_from_slice(&whole.as_bytes()[bytes.len()..]);
        while !body.is_ended() {
            assert!(body.decode(&mut input).is_ready(), "{bytes:?}");
        }
        assert_eq!([after_data, body.is_ended()], expected, "{bytes:?}");
    }
}

#[test]
fn trailers_are_limited() {
    let trailers = "a: b\r\nc: d\r\n\r\n";
    let cases = [
        (trailers.len(), 2, None),
        (trailers.len() - 1, 2, Some(InvalidMessage::Trailers)),
        (trailers.len(), 1, Some(InvalidMessage::Trailers)),
    ];
    for (bytes, fields, error) in cases {
        let body = format!("1\r\na\r\n0\r\n{trailers}");
        let decoded = read_all_ways(body.as_bytes(), |parts| decode_chunks(parts, HeadLimits { bytes, fields }));
        assert_eq!((&*decoded.data, decoded.error), (&b"a"[..], error), "{bytes} {fields}");
        assert_eq!(decoded.trailers.is_some(), error.is_none());
    }
    let limits = HeadLimits { bytes: 10, fields: 1 };
    let endless = decode_chunks(&[b"0\r\n", &[b'a'; 10], b"a"], limits);
    assert_eq!(endless.error, Some(InvalidMessage::Trailers), "before the end of the line");
}

#[test]
fn lines_with_sizes_are_limited() {
    const LONGEST: usize = 16 * KIB;
    let line = |length: usize| format!("{}1\r\n", "0".repeat(length - 3));
    let extension = |length: usize| format!("1;{}\r\n", "x".repeat(length - 4));
    let cases = [
        (line(LONGEST), None),
        (line(LONGEST + 1), Some(InvalidMessage::LongChunkLine)),
        (extension(LONGEST), None),
        (extension(LONGEST + 1), Some(InvalidMessage::LongChunkLine)),
    ];
    for (line, error) in cases {
        let body = format!("{line}a\r\n0\r\n\r\n");
        for part in [body.len(), 1000, 1] {
            let decoded = decode_chunks(&body.as_bytes().chunks(part).collect::<Vec<_>>(), LIMITS);
            assert_eq!(decoded.error, error, "{} in parts of {part}", line.len());
        }
    }
    let endless = [b'0'; LONGEST + 1];
    assert_eq!(decode_chunks(&[&endless[1..]], LIMITS).error, Some(InvalidMessage::Truncated));
    assert_eq!(decode_chunks(&[&endless], LIMITS).error, Some(InvalidMessage::LongChunkLine));
}

#[test]
fn extensions_are_limited_in_the_whole_body() {
    // Each line has 16 bytes of extensions, so 1024 lines have 16 KiB.
    let chunk = "1 ;123456789abcdef\r\na\r\n";
    for (chunks, last, error) in [
        (1024, "0\r\n\r\n", None),
        (1024, "0;\r\n\r\n", Some(InvalidMessage::LongChunkLine)),
        (1025, "0\r\n\r\n", Some(InvalidMessage::LongChunkLine)),
    ] {
        let body = chunk.repeat(chunks) + last;
        for part in [body.len(), 100] {
            let decoded = decode_chunks(&body.as_bytes().chunks(part).collect::<Vec<_>>(), LIMITS);
            assert_eq!((decoded.data.len(), decoded.error), (1024, error), "{chunks} {last:?}");
        }
    }
    // Leading zeros are no extensions.
    let zeros = "0".repeat(KIB) + "1\r\na\r\n";
    assert_eq!(decode_chunks(&[zeros.repeat(100).as_bytes(), b"0\r\n\r\n"], LIMITS).error, None);
}

#[test]
fn others_have_their_turn_after_data_that_was_mostly_framing() {
    for (chunk, chunks, is_costly) in [(1, 4000, true), (1, 300, true), (1, 10, false), (16, 4000, false)] {
        let small = format!("{chunk:x}\r\n{}\r\n", "d".repeat(chunk)).repeat(chunks);
        let (mut body, mut input) = (BodyDecoder::chunked(LIMITS), BytesMut::from(&*small));
        let expected = if is_costly { NextInput::SmallChunks } else { NextInput::Unknown };
        assert_eq!(body.next_input(), NextInput::Unknown);
        assert!(matches!(body.decode(&mut input), Poll::Ready(Some(Ok(_)))));
        assert_eq!(body.next_input(), expected, "{chunks} chunks of {chunk} bytes");
        assert_eq!((body.take_must_yield(), body.take_must_yield()), (is_costly, false), "{chunks} of {chunk} bytes");
        assert_eq!(body.next_input(), expected, "the turn of others changes nothing");
        while let Poll::Ready(Some(Ok(_))) = body.decode(&mut input) {}
        input.extend_from_slice(&encode(&[16 * KIB]));
        assert!(matches!(body.decode(&mut input), Poll::Ready(Some(Ok(_)))));
        assert_eq!((body.next_input(), body.take_must_yield()), (NextInput::Unknown, false), "a large chunk");
    }
}

#[test]
fn bodies_with_a_length_end_with_their_last_byte() {
    let (mut body, mut input) = (BodyDecoder::with_length(5).unwrap(), BytesMut::from("abc"));
    assert_eq!((body.size_hint().exact(), body.next_input()), (Some(5), NextInput::Length(5)));
    let Poll::Ready(Some(Ok(frame))) = body.decode(&mut input) else { panic!("no frame") };
    assert_eq!(frame.into_data().unwrap(), "abc");
    assert!(body.decode(&mut input).is_pending());
    assert_eq!((body.size_hint().exact(), body.next_input()), (Some(2), NextInput::Length(2)));
    assert!(!body.is_ended() && !body.take_must_yield());
    assert_eq!(body.end_input(), Err(InvalidMessage::Truncated));
    input.extend_from_slice(b"deGET");
    let Poll::Ready(Some(Ok(frame))) = body.decode(&mut input) else { panic!("no frame") };
    assert_eq!(frame.into_data().unwrap(), "de");
    assert!(body.is_ended() && matches!(body.decode(&mut input), Poll::Ready(None)));
    assert_eq!((body.end_input(), &*input), (Ok(()), &b"GET"[..]));
}

#[test]
fn bodies_without_framing_end_with_the_connection() {
    let (mut body, mut input) = (BodyDecoder::until_close(), BytesMut::new());
    assert!(body.decode(&mut input).is_pending() && body.ends_with_connection() && !body.is_ended());
    input.extend_from_slice(b"abc");
    let Poll::Ready(Some(Ok(frame))) = body.decode(&mut input) else { panic!("no frame") };
    assert_eq!(frame.into_data().unwrap(), "abc");
    assert!(body.decode(&mut input).is_pending() && body.size_hint().exact().is_none());
    assert_eq!(body.end_input(), Ok(()));
    assert!(body.is_ended() && matches!(body.decode(&mut input), Poll::Ready(None)));
}

#[test]
fn empty_bodies_have_ended() {
    let (mut body, mut input) = (BodyDecoder::EMPTY, BytesMut::from("GET"));
    assert!(body.is_ended() && !body.ends_with_connection());
    assert!(matches!(body.decode(&mut input), Poll::Ready(None)));
    assert_eq!((body.end_input(), body.size_hint().exact(), &*input), (Ok(()), Some(0), &b"GET"[..]));
}
