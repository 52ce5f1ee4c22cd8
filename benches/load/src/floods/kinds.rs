//! Kinds of floods: the number of connections, their bytes and speed, and whether they read responses.

use std::time::Duration;

use anyhow::Result;

use super::frames::{
    self, CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, frame, get, post,
};
use crate::server::HOST;

/// One kind of flood.
pub(super) struct Flood {
    pub(super) name: &'static str,
    /// Number of concurrent connections.
    pub(super) connections: usize,
    /// Connect to the port of the HTTPS listener. TLS bytes, if any, are in `opening`.
    pub(super) over_tls: bool,
    /// The bytes that each connection sends first.
    pub(super) opening: Vec<u8>,
    pub(super) after_opening: AfterOpening,
    /// Whether the client reads responses.
    pub(super) reads_responses: bool,
}

/// Behavior after the opening bytes.
#[derive(Clone, Copy)]
pub(super) enum AfterOpening {
    Nothing,
    /// Sends the same bytes repeatedly, with a pause before each.
    SendSlowly(&'static [u8], Duration),
    /// Sends as fast as the server reads. The function appends the next bytes; its first argument is the number of
    /// previous calls on this connection.
    SendFast(fn(u32, &mut Vec<u8>)),
    /// Closes the connection after the response.
    Close,
}

/// The error code of a client that no longer needs a response (RFC 9113, section 7).
const CANCEL: u32 = 8;

pub(super) fn all() -> Result<Vec<Flood>> {
    let flood = |name, connections, opening, then| Flood {
        name,
        connections,
        over_tls: false,
        opening,
        after_opening: then,
        reads_responses: true,
    };
    let head = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n").into_bytes();
    let get_request = [&head[..], b"\r\n"].concat();
    let long_head = [&head[..], b"x-long: ", &[b'a'; 60_000]].concat();
    let upload = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 1000000\r\n\r\n").into_bytes();
    let chunked = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes();
    let download = format!("GET /bytes/1000000 HTTP/1.1\r\nhost: {HOST}\r\n\r\n").into_bytes();
    let http2_opening = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    let downloads: Vec<u8> = (0..100).flat_map(|number| get(number * 2 + 1, "/bytes/1000000", END_STREAM)).collect();
    Ok(vec![
        flood("idle connections", 2000, get_request.clone(), AfterOpening::Nothing),
        flood("connections that come and go", 200, get_request, AfterOpening::Close),
        flood("slow heads", 2000, head, AfterOpening::SendSlowly(b"x: y\r\n", Duration::from_millis(300))),
        flood("long heads without an end", 1000, long_head, AfterOpening::Nothing),
        flood("slow bodies", 1000, upload, AfterOpening::SendSlowly(&[b'a'; 100], Duration::from_millis(300))),
        flood(
            "bodies in chunks of one byte",
            200,
            chunked,
            AfterOpening::SendFast(|_, bytes| bytes.extend(b"1\r\na\r\n".repeat(2000))),
        ),
        Flood { reads_responses: false, ..flood("unread responses of 1 MB", 500, download, AfterOpening::Nothing) },
        Flood {
            over_tls: true,
            ..flood("TLS handshakes without an end", 1000, frames::client_hello()?, AfterOpening::Nothing)
        },
        Flood {
            reads_responses: false,
            ..flood(
                "HTTP/2: 100 unread responses of 1 MB each",
                20,
                [&http2_opening[..], &downloads].concat(),
                AfterOpening::Nothing,
            )
        },
        flood(
            "HTTP/2: streams without an end",
            200,
            http2_opening.clone(),
            AfterOpening::SendFast(|number, bytes| {
                (0..64).for_each(|index| bytes.extend(post((number * 64 + index) * 2 + 1)));
            }),
        ),
        flood(
            "HTTP/2: rapid resets",
            200,
            http2_opening.clone(),
            AfterOpening::SendFast(|number, bytes| {
                for index in 0..64 {
                    let stream = (number * 64 + index) * 2 + 1;
                    bytes.extend(get(stream, "/", END_STREAM));
                    bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
                }
            }),
        ),
        flood(
            "HTTP/2: CONTINUATION without an end",
            200,
            http2_opening.clone(),
            AfterOpening::SendFast(|number, bytes| {
                if number == 0 {
                    bytes.extend(frame(HEADERS, END_STREAM, 1, &frames::head(b"\x82", "/")));
                }
                // A field that HPACK does not index, so only the total length of the header list grows.
                bytes.extend(frame(CONTINUATION, 0, 1, &frames::long_field()));
            }),
        ),
        Flood {
            reads_responses: false,
            ..flood(
                "HTTP/2: settings and pings",
                200,
                http2_opening.clone(),
                AfterOpening::SendFast(|_, bytes| {
                    for _ in 0..64 {
                        bytes.extend(frame(SETTINGS, 0, 0, b""));
                        bytes.extend(frame(PING, 0, 0, b"portico!"));
                    }
                }),
            )
        },
        flood(
            "HTTP/2: header lists of 48 MB in 16 kB",
            200,
            http2_opening,
            AfterOpening::SendFast(|number, bytes| {
                if number == 0 {
                    // HPACK adds this field of 3 kB to its dynamic table, with index 62. Each byte of the later heads
                    // refers to the field, so that 16 kB become 48 MB of fields.
                    let fields = [&frames::head(b"\x82", "/")[..], b"\x40\x01x\x7f\x9d\x16", &[b'a'; 2972]].concat();
                    bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields));
                } else {
                    let fields = [&frames::head(b"\x82", "/")[..], &[0x80 | 62; 16_000]].concat();
                    bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, number * 2 + 1, &fields));
                }
            }),
        ),
    ])
}
