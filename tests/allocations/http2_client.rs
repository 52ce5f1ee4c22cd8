//! An HTTP/2 client that does not allocate: it writes and reads the bytes of frames (RFC 9113, section 4).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A connection without TLS, by prior knowledge.
pub(crate) struct Http2Client {
    connection: TcpStream,
    next_stream: u32,
    payload: [u8; MAX_PAYLOAD],
}

impl Http2Client {
    pub(crate) fn connect(proxy: SocketAddr) -> Self {
        let mut connection = TcpStream::connect(proxy).unwrap();
        connection.set_nodelay(true).unwrap();
        connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut client = Http2Client { connection, next_stream: 1, payload: [0; MAX_PAYLOAD] };
        client.write_frame(SETTINGS, 0, 0, &[]);
        client
    }

    /// Sends a GET request in a new stream and reads its response, which must be 200.
    pub(crate) fn exchange(&mut self) {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.write_frame(HEADERS, END_STREAM | END_HEADERS, stream, REQUEST);
        loop {
            let mut head = [0; 9];
            self.connection.read_exact(&mut head).unwrap();
            let [length_high, length_middle, length_low, kind, flags, id @ ..] = head;
            let length = u32::from_be_bytes([0, length_high, length_middle, length_low]) as usize;
            self.connection.read_exact(&mut self.payload[..length]).unwrap();
            match kind {
                SETTINGS if flags & ACK == 0 => self.write_frame(SETTINGS, ACK, 0, &[]),
                HEADERS => assert_eq!(self.payload[0], STATUS_200),
                SETTINGS | DATA | WINDOW_UPDATE => {}
                _ => panic!("the proxy sent a frame of type {kind}"),
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                assert_eq!(u32::from_be_bytes(id), stream);
                return;
            }
        }
    }

    fn write_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = [0; 9 + REQUEST.len()];
        let [.., length] = payload.len().to_be_bytes();
        frame[2..5].copy_from_slice(&[length, kind, flags]);
        frame[5..9].copy_from_slice(&stream.to_be_bytes());
        let end = 9 + payload.len();
        frame[9..end].copy_from_slice(payload);
        self.connection.write_all(&frame[..end]).unwrap();
    }
}

/// The fields of a request, none of which are added to the table of the connection (RFC 7541, appendices A and B).
const REQUEST: &[u8] = b"\x82\x86\x04\x0b/path?query\x01\x09a.example\x0f\x2b\x04test\x0f\x04\x03*/*";
/// The first byte of the fields of a response with this status.
const STATUS_200: u8 = 0x88;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The default of HTTP/2.
const MAX_PAYLOAD: usize = 16_384;
