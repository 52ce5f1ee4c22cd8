//! The floods: what an unkind client sends, how fast, and whether it reads.

use std::time::Duration;

use anyhow::Result;

use super::frames::{
    self, CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, frame, get, post,
};
use crate::server::HOST;

/// One kind of unkindness.
pub(super) struct Flood {
    pub(super) name: &'static str,
    pub(super) connections: usize,
    pub(super) secure: bool,
    pub(super) opening: Vec<u8>,
    pub(super) then: Then,
    pub(super) reads: bool,
}

/// What comes after the opening.
#[derive(Clone, Copy)]
pub(super) enum Then {
    Nothing,
    /// The same bytes again and again, with a pause before each.
    Drip(&'static [u8], Duration),
    /// As much as the server takes; the number says how often this connection has sent before.
    Pour(fn(u32, &mut Vec<u8>)),
    /// Leaves at once.
    Leave,
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
        kind("idle connections", 2000, get_one.clone(), Then::Nothing),
        kind("connections that come and go", 200, get_one, Then::Leave),
        kind("slow heads", 2000, head, Then::Drip(b"x: y\r\n", Duration::from_millis(300))),
        kind("long heads without an end", 1000, long_head, Then::Nothing),
        kind("slow bodies", 1000, upload, Then::Drip(&[b'a'; 100], Duration::from_millis(300))),
        Flood { reads: false, ..kind("answers of 1 MB that nobody reads", 500, download, Then::Nothing) },
        Flood { secure: true, ..kind("TLS handshakes without an end", 1000, frames::client_hello()?, Then::Nothing) },
        Flood {
            reads: false,
            ..kind(
                "HTTP/2: 100 answers of 1 MB each that nobody reads",
                20,
                [&opened[..], &downloads].concat(),
                Then::Nothing,
            )
        },
        kind(
            "HTTP/2: streams without an end",
            200,
            opened.clone(),
            Then::Pour(|number, bytes| {
                (0..64).for_each(|of| bytes.extend(post((number * 64 + of) * 2 + 1)));
            }),
        ),
        kind(
            "HTTP/2: rapid resets",
            200,
            opened.clone(),
            Then::Pour(|number, bytes| {
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
            Then::Pour(|number, bytes| {
                if number == 0 {
                    bytes.extend(frame(HEADERS, END_STREAM, 1, &frames::head(b"\x82", "/")));
                }
                // A literal field that is not to be remembered, of 8 kB.
                bytes.extend(frame(CONTINUATION, 0, 1, &frames::long_field()));
            }),
        ),
        Flood {
            reads: false,
            ..kind(
                "HTTP/2: settings and pings",
                200,
                opened.clone(),
                Then::Pour(|_, bytes| {
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
            Then::Pour(|number, bytes| {
                if number == 0 {
                    // To be remembered: it has the index 62 from then on.
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
