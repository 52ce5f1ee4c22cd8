//! An HTTP/2 client that does not allocate for a request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, GET, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, frame, header_block,
};

/// A connection without TLS, by prior knowledge.
pub(crate) struct Http2Client {
    connection: TcpStream,
    next_stream: u32,
    /// The frame of the last request. The next one differs in the stream.
    request: Vec<u8>,
    payload: [u8; MAX_PAYLOAD],
}

impl Http2Client {
    pub(crate) fn connect(proxy: SocketAddr) -> Self {
        let mut connection = TcpStream::connect(proxy).unwrap();
        connection.set_nodelay(true).unwrap();
        connection.write_all(PREFACE).unwrap();
        connection.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
        let fields = header_block(&[&GET[..], &[("user-agent", "test"), ("accept", "*/*")]].concat());
        let request = frame(HEADERS, END_STREAM | END_HEADERS, 0, &fields);
        Http2Client { connection, next_stream: 1, request, payload: [0; MAX_PAYLOAD] }
    }

    /// Sends a GET request in a new stream and reads its response, which must be 200.
    pub(crate) fn exchange(&mut self) {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.request[5..9].copy_from_slice(&stream.to_be_bytes());
        self.connection.write_all(&self.request).unwrap();
        loop {
            let mut head = [0; 9];
            self.connection.read_exact(&mut head).unwrap();
            let [length_high, length_middle, length_low, kind, flags, id @ ..] = head;
            let length = u32::from_be_bytes([0, length_high, length_middle, length_low]) as usize;
            self.connection.read_exact(&mut self.payload[..length]).unwrap();
            match kind {
                SETTINGS if flags & ACK == 0 => self.connection.write_all(&frame(SETTINGS, ACK, 0, &[])).unwrap(),
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
}

/// The first byte of the fields of a response with this status, as an index of the static table (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;
/// The default of HTTP/2.
const MAX_PAYLOAD: usize = 16_384;
