//! HTTP/2 frames as bytes, and connections of clients and endpoints that can send frames that no library sends.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::with_timeout;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113, section 6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags of DATA and HEADERS, and of SETTINGS and PING.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const ACK: u8 = 1;

/// Length of a frame's header in bytes.
const FRAME_HEADER: usize = 9;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The payload of SETTINGS that sets SETTINGS_INITIAL_WINDOW_SIZE.
pub(crate) fn initial_window_size(size: u32) -> Vec<u8> {
    [&[0, 4][..], &size.to_be_bytes()].concat()
}

/// A header field as a literal without indexing or Huffman coding.
pub(crate) fn header_field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // An integer with a prefix of seven bits (RFC 7541, section 5.1).
        let mut length = text.len();
        if length < 127 {
            bytes.push(length as u8);
        } else {
            bytes.push(127);
            length -= 127;
            while length >= 128 {
                bytes.push((length % 128) as u8 | 128);
                length /= 128;
            }
            bytes.push(length as u8);
        }
        bytes.extend(text.as_bytes());
    }
    bytes
}

pub(crate) fn header_block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| header_field(name, value)).collect()
}

/// The fields of a GET request.
pub(crate) const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];

/// A complete GET request in one HEADERS frame.
pub(crate) fn get_request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &header_block(&GET))
}

/// An HTTP/2 connection, of a client or an endpoint, that sends and receives single frames.
pub(crate) struct RawConnection {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
}

impl RawConnection {
    /// A client connection after the exchange of SETTINGS.
    pub(crate) async fn connect(address: SocketAddr) -> RawConnection {
        RawConnection::connect_with_settings(address, &[]).await
    }

    /// A TCP connection without an HTTP/2 preface.
    pub(crate) async fn connect_without_preface(address: SocketAddr) -> RawConnection {
        RawConnection { socket: TcpStream::connect(address).await.unwrap(), buffer: Vec::new() }
    }

    /// Like [`RawConnection::connect`], with this payload of the client's SETTINGS.
    pub(crate) async fn connect_with_settings(address: SocketAddr, settings: &[u8]) -> RawConnection {
        let mut raw = RawConnection::connect_without_preface(address).await;
        raw.send([PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await;
        raw.wait_for("settings", |frame| frame.kind == SETTINGS && frame.flags == 0).await;
        raw.send(frame(SETTINGS, ACK, 0, &[])).await;
        raw
    }

    /// The server side of a connection, after the exchange of SETTINGS.
    pub(crate) async fn accept(mut socket: TcpStream) -> RawConnection {
        let mut preface = [0; PREFACE.len()];
        with_timeout("the preface", socket.read_exact(&mut preface)).await.unwrap();
        assert_eq!(preface, PREFACE);
        let mut raw = RawConnection { socket, buffer: Vec::new() };
        raw.send(frame(SETTINGS, 0, 0, &[])).await;
        raw.wait_for("settings", |frame| frame.kind == SETTINGS && frame.flags == 0).await;
        raw.send(frame(SETTINGS, ACK, 0, &[])).await;
        raw
    }

    /// The server side of a connection, with windows large enough for everything a test sends. It sends SETTINGS and
    /// does not wait for those of the client; None if the client sends no preface.
    pub(crate) async fn accept_with_large_windows(mut socket: TcpStream) -> Option<RawConnection> {
        let mut preface = [0; PREFACE.len()];
        with_timeout("the preface", socket.read_exact(&mut preface)).await.ok().filter(|_| preface == PREFACE)?;
        let mut raw = RawConnection { socket, buffer: Vec::new() };
        let settings = initial_window_size(1_000_000);
        raw.send([frame(SETTINGS, 0, 0, &settings), frame(WINDOW_UPDATE, 0, 0, &8_000_000_u32.to_be_bytes())].concat())
            .await;
        Some(raw)
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The proxy may have closed the connection; some tests are about that.
        drop(self.socket.write_all(bytes.as_ref()).await);
    }

    /// The next frame; None at the end of the connection, orderly or not.
    pub(crate) async fn next_frame(&mut self) -> Option<Frame> {
        with_timeout("a frame", async {
            loop {
                if let Some(header) = self.buffer.first_chunk::<FRAME_HEADER>() {
                    let [length_0, length_1, length_2, kind, flags, stream @ ..] = *header;
                    let end = FRAME_HEADER + u32::from_be_bytes([0, length_0, length_1, length_2]) as usize;
                    if self.buffer.len() >= end {
                        let payload = self.buffer[FRAME_HEADER..end].to_vec();
                        self.buffer.drain(..end);
                        return Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload });
                    }
                }
                match self.socket.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// The next frame that matches; frames before it are skipped.
    pub(crate) async fn wait_for(&mut self, what: &str, matches: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.next_frame().await.unwrap_or_else(|| panic!("the connection ended before {what}"));
            if matches(&frame) {
                return frame;
            }
        }
    }

    /// All frames until the end of the connection.
    pub(crate) async fn read_to_end(&mut self) -> Vec<Frame> {
        let mut rest = Vec::new();
        while let Some(frame) = self.next_frame().await {
            rest.push(frame);
        }
        rest
    }
}

impl Frame {
    /// The error code of an RST_STREAM or GOAWAY frame.
    pub(crate) fn error_code(&self) -> u32 {
        let offset = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[offset..offset + 4].try_into().unwrap())
    }

    /// The last stream ID of a GOAWAY frame.
    pub(crate) fn last_stream(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }
}
