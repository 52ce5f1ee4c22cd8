//! Heads of HTTP/2 requests that Portico makes the library reject: only their stream ends.

use crate::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PADDED, RST_STREAM, RawConnection, frame, header_block,
};
use crate::harness::{Endpoint, TestServer, routes_to};

/// An error code (RFC 9113, section 7).
const PROTOCOL_ERROR: u32 = 1;

/// Other requests of the connection go on, and the header table stays that of the client.
#[tokio::test]
async fn malformed_head_with_a_fragment_ends_only_its_stream() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut raw = RawConnection::connect(server.address).await;
    let mut malformed = header_block(&[GET[0], GET[1], GET[3]]);
    // `x: y` enters the table, and a pseudo-header field follows it.
    malformed.extend([0x40, 1, b'x', 1, b'y']);
    malformed.extend(header_block(&[(":path", "/#")]));
    for number in 0..20 {
        let (bad, good) = (number * 4 + 1, number * 4 + 3);
        raw.send(frame(HEADERS, END_HEADERS | END_STREAM, bad, &malformed)).await;
        let end = raw.wait_for("the end of the stream", |frame| frame.stream == bad || frame.kind == GOAWAY).await;
        assert_eq!((end.kind, end.stream, end.error_code()), (RST_STREAM, bad, PROTOCOL_ERROR));
        // The field that entered the table last.
        let block = [header_block(&GET), vec![0x80 | 62]].concat();
        raw.send(frame(HEADERS, END_HEADERS | END_STREAM, good, &block)).await;
        let head = raw.wait_for("a response", |frame| frame.stream == good || frame.kind == GOAWAY).await;
        assert_eq!((head.kind, status_of(&head.payload)), (HEADERS, 200));
    }
    let requests = endpoint.log.requests();
    assert_eq!(requests.len(), 20);
    assert!(requests.iter().all(|request| request.contains("\r\nx: y\r\n")), "{requests:?}");
}

/// The fields that reject a head must not make its frame long enough for the padding.
#[tokio::test]
async fn padding_that_is_longer_than_its_frame_ends_the_connection() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    for extra in [0, 1, 5, 100] {
        let mut raw = RawConnection::connect(server.address).await;
        let block = header_block(&GET);
        let padding = u8::try_from(block.len() + 1 + extra).unwrap();
        let payload = [&[padding][..], &block].concat();
        raw.send(frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &payload)).await;
        let end = raw.wait_for("the end of the connection", |frame| frame.stream == 1 || frame.kind == GOAWAY).await;
        assert_eq!((end.kind, end.error_code()), (GOAWAY, PROTOCOL_ERROR), "{extra}");
    }
    assert_eq!(endpoint.log.requests().len(), 0);
}

/// Requests of one connection, whose fields refer to those of earlier ones.
#[tokio::test]
async fn only_requests_whose_path_has_a_fragment_are_rejected() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    // Entries of the static table: method, scheme, and authority with a value that enters the dynamic table.
    let start = [&[0x82, 0x86, 0x41, 9][..], b"a.example"].concat();
    let authority = 0x80 | 62;
    // `/a#b` with the Huffman code.
    let encoded = [0x60, 0x7f, 0xf5, 0x1f];
    let literal = |kind: u8, path: &[u8]| [&[kind, u8::try_from(path.len()).unwrap()][..], path].concat();
    // After the first request, and after each field that enters the table, the authority has another index.
    let blocks: Vec<(Vec<u8>, u16)> = vec![
        ([&start[..], &[0x84]].concat(), 200),
        ([&[0x82, 0x86, authority][..], &literal(0x04, b"/a#b")].concat(), 400),
        ([&[0x82, 0x86, authority, 0x84][..], &[0, 1, b'x', 3], b"a#b"].concat(), 200),
        ([&[0x82, 0x86, authority, 0x04, 0x84][..], &encoded].concat(), 400),
        // The path enters the table, and is used by its index.
        ([&[0x82, 0x86, authority][..], &literal(0x44, b"/c?d#e")].concat(), 400),
        (vec![0x82, 0x86, authority + 1, 0x80 | 62], 400),
        ([&[0x82, 0x86, authority + 1][..], &literal(0x44, b"/c")].concat(), 200),
        (vec![0x82, 0x86, authority + 2, 0x80 | 62], 200),
        (vec![0x82, 0x86, authority + 2, 0x80 | 63], 400),
        // A name by its index in the dynamic table.
        ([&[0x82, 0x86, authority + 2, 0x0f, 62 - 15][..], &[2], b"/#"].concat(), 400),
        // The table is emptied.
        ([&[0x20, 0x3f, 0xe1, 0x1f][..], &start, &[0x84]].concat(), 200),
        ([&[0x82, 0x86, authority][..], &literal(0x04, b"/#")].concat(), 400),
        (vec![0x82, 0x86, authority, 0x84], 200),
    ];
    for split in [false, true] {
        let mut raw = RawConnection::connect(server.address).await;
        for (index, (block, expected)) in blocks.iter().enumerate() {
            let stream = 1 + 2 * u32::try_from(index).unwrap();
            if split {
                let (first, rest) = block.split_at(block.len() - 2);
                raw.send(frame(HEADERS, END_STREAM, stream, first)).await;
                raw.send(frame(CONTINUATION, END_HEADERS, stream, rest)).await;
            } else {
                raw.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, block)).await;
            }
            let head = raw.wait_for("a response", |frame| frame.stream == stream || frame.kind == GOAWAY).await;
            assert_eq!((head.kind, status_of(&head.payload)), (HEADERS, *expected), "{index}: {block:x?}");
        }
    }
    let served = |path: &str| endpoint.log.requests().iter().filter(|request| request.starts_with(path)).count();
    assert_eq!((served("GET / "), served("GET /c ")), (8, 4));
    assert_eq!(endpoint.log.requests().len(), 12);
}

/// The status at the start of a header block: an entry of the HPACK static table, or a literal with Huffman coding.
pub(crate) fn status_of(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        // Huffman coding of 405, with or without indexing.
        [0x48 | 0x08, 0x83, 0x68, 0x0d, ..] => 405,
        [0x48 | 0x08, 0x82, 0x6c, 0x01, ..] => 501,
        other => panic!("an unexpected status in {:x?}", &other[..other.len().min(8)]),
    }
}
