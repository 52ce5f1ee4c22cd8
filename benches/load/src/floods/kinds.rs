//! Kinds of floods: their bytes, their speed, and whether they read responses.

use std::time::Duration;

use anyhow::Result;

use super::frames::{
    self, CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, frame, get, post,
};
use crate::server::HOST;

/// One kind of flood.
pub(super) struct Flood {
    pub(super) name: &'static str,
    pub(super) connections: usize,
    pub(super) secure: bool,
    pub(super) opening: Vec<u8>,
    pub(super) then: AfterOpening,
    pub(super) reads: bool,
}

/// Behavior after the opening bytes.
#[derive(Clone, Copy)]
pub(super) enum AfterOpening {
    Nothing,
    /// Sends the same bytes repeatedly, with a pause before each.
    SendSlowly(&'static [u8], Duration),
    /// Sends as fast as the server reads; the argument is the number of previous calls on this connection.
    SendFast(fn(u32, &mut Vec<u8>)),
    /// Closes the connection after the response.
    Close,
}

pub(super) fn all() -> Result<Vec<Flood>> {
    let kind =
        |name, connections, opening, then| Flood { name, connections, secure: false, opening, then, reads: true };
    let head = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n").into_bytes();
    let get_one = [&head[..], b"\r\n"].concat();
    let long_head = [&head[..], b"x-long: ", &[b'a'; 60_000]].concat();
    let upload = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 1000000\r\n\r\n").into_bytes();
    let download = format!("GET /bytes/1000000 HTTP/1.1\r\nhost: {HOST}\r\n\r\n").into_bytes();
    let opened = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    let downloads: Vec<u8> = (0..100).flat_map(|number| get(number * 2 + 1, "/bytes/1000000", END_STREAM)).collect();
    Ok(vec![
        kind("idle connections", 2000, get_one.clone(), AfterOpening::Nothing),
        kind("connections that come and go", 200, get_one, AfterOpening::Close),
        kind("slow heads", 2000, head, AfterOpening::SendSlowly(b"x: y\r\n", Duration::from_millis(300))),
        kind("long heads without an end", 1000, long_head, AfterOpening::Nothing),
        kind("slow bodies", 1000, upload, AfterOpening::SendSlowly(&[b'a'; 100], Duration::from_millis(300))),
        Flood { reads: false, ..kind("unread responses of 1 MB", 500, download, AfterOpening::Nothing) },
        Flood {
            secure: true,
            ..kind("TLS handshakes without an end", 1000, frames::client_hello()?, AfterOpening::Nothing)
        },
        Flood {
            reads: false,
            ..kind(
                "HTTP/2: 100 unread responses of 1 MB each",
                20,
                [&opened[..], &downloads].concat(),
                AfterOpening::Nothing,
            )
        },
        kind(
            "HTTP/2: streams without an end",
            200,
            opened.clone(),
            AfterOpening::SendFast(|number, bytes| {
                (0..64).for_each(|of| bytes.extend(post((number * 64 + of) * 2 + 1)));
            }),
        ),
        kind(
            "HTTP/2: rapid resets",
            200,
            opened.clone(),
            AfterOpening::SendFast(|number, bytes| {
                for of in 0..64 {
                    let stream = (number * 64 + of) * 2 + 1;
                    bytes.extend(get(stream, "/", END_STREAM));
                    bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                }
            }),
        ),
        kind(
            "HTTP/2: CONTINUATION without an end",
            200,
            opened.clone(),
            AfterOpening::SendFast(|number, bytes| {
                if number == 0 {
                    bytes.extend(frame(HEADERS, END_STREAM, 1, &frames::head(b"\x82", "/")));
                }
                // A literal field of 8 kB without indexing.
                bytes.extend(frame(CONTINUATION, 0, 1, &frames::long_field()));
            }),
        ),
        Flood {
            reads: false,
            ..kind(
                "HTTP/2: settings and pings",
                200,
                opened.clone(),
                AfterOpening::SendFast(|_, bytes| {
                    for _ in 0..64 {
                        bytes.extend(frame(SETTINGS, 0, 0, b""));
                        bytes.extend(frame(PING, 0, 0, b"portico!"));
                    }
                }),
            )
        },
        kind(
            "HTTP/2: header lists of 48 MB in 16 kB",
            200,
            opened,
            AfterOpening::SendFast(|number, bytes| {
                if number == 0 {
                    // With incremental indexing: the field gets index 62.
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
