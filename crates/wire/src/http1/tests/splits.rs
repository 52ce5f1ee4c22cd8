//! Properties of all input: no bytes panic, and the sizes of the parts in which they arrive have no meaning.

use proptest::prelude::*;

use super::chunks::decode_chunks;
use super::*;

/// Pieces of messages in any order, most of which are valid at some place.
fn pieces(valid: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        12 => proptest::sample::select(valid).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

const OF_MESSAGES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /a HTTP/1.0\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 304 x\r\n",
    "HTTP/1.1 100 \r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "content-length: 2\r\n",
    "Content-Length: x\r\n",
    "Connection: close\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
    "A: b\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ":",
    "#",
    "abc",
    "3\r\nabc\r\n",
    "2;x\r\nab\r\n",
    "0\r\n\r\n",
    "0\r\nSum: 1\r\n\r\n",
];

const OF_CHUNKS: &[&str] = &[
    "0",
    "1",
    "12\r\n",
    "2\r\n",
    "a",
    "ab",
    "1\r\na\r\n",
    "3;x=y\r\nabc\r\n",
    "0\r\n",
    "A: b\r\n",
    "A: b\n",
    "\r\n",
    "\r",
    "\n",
    ";",
    " ",
    ":",
];

const BEGINNINGS: [&str; 5] = [
    "",
    "GET / HTTP/1.1\r\n",
    "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 ",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
];

/// Methods of more responses than the pieces have.
fn methods(is_head: bool) -> Vec<Method> {
    vec![if is_head { Method::HEAD } else { Method::GET }; 40]
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), seed in any::<u64>()) {
        for beginning in BEGINNINGS {
            let bytes = [beginning.as_bytes(), &bytes].concat();
            let parts = random_parts(&bytes, seed);
            read_requests(&parts, LIMITS);
            read_responses(&methods(false), &parts, LIMITS);
        }
    }

    // The empty line at the end completes the last head. Before that, some splits reject garbage earlier than others.
    #[test]
    fn all_splits_have_the_same_requests(bytes in pieces(OF_MESSAGES), seed in any::<u64>()) {
        let bytes = [&bytes[..], b"\r\n\r\n"].concat();
        let whole = read_requests(&[&bytes], LIMITS);
        prop_assert_eq!(read_requests(&random_parts(&bytes, seed), LIMITS), whole);
    }

    #[test]
    fn all_splits_have_the_same_responses(
        bytes in pieces(OF_MESSAGES), is_head in any::<bool>(), seed in any::<u64>(),
    ) {
        let bytes = [b"HTTP/1.1 200 OK\r\n", &bytes[..], b"\r\n\r\n"].concat();
        let whole = read_responses(&methods(is_head), &[&bytes], LIMITS);
        prop_assert_eq!(read_responses(&methods(is_head), &random_parts(&bytes, seed), LIMITS), whole);
    }

    #[test]
    fn all_splits_have_the_same_chunks(bytes in pieces(OF_CHUNKS), seed in any::<u64>()) {
        let limits = HeadLimits { bytes: 20, fields: 2 };
        let whole = decode_chunks(&[&bytes], limits);
        prop_assert_eq!(decode_chunks(&random_parts(&bytes, seed), limits), whole);
    }

    #[test]
    fn data_in_any_chunks_is_decoded(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..3000), 0..8),
        has_trailers in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(if has_trailers { b"0\r\na: b\r\n\r\n" } else { b"0\r\n\r\n" });
        let decoded = decode_chunks(&random_parts(&bytes, seed), LIMITS);
        prop_assert_eq!((decoded.data, decoded.error), (chunks.concat(), None));
        prop_assert_eq!(decoded.trailers.is_some(), has_trailers);
    }
}
