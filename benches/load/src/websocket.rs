//! WebSocket messages: a client that sends a message and waits for its echo, and the backend that echoes.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http1::{LoadResponse, Stream};
use crate::pattern;
use crate::plan::RequestShape;

/// The path of all handshakes.
pub(crate) const PATH: &str = "/websocket";

/// An open WebSocket with messages of one length.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    /// The frame of a message, with the number of the last message.
    frame: Vec<u8>,
    echo: Vec<u8>,
    /// Length of a message.
    length: usize,
}

impl Connection {
    /// Opens a WebSocket for the messages of `shape`.
    pub(crate) async fn open(mut stream: Box<dyn Stream>, shape: &RequestShape) -> Result<Self> {
        let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\n{HANDSHAKE_FIELDS}\r\n", shape.path, shape.host);
        stream.write_all(request.as_bytes()).await.context("cannot send the handshake")?;
        let mut head = Vec::new();
        // No frame follows the head, because the backend only echoes.
        while !head.ends_with(b"\r\n\r\n") {
            let received = stream.read_buf(&mut head).await.context("cannot read the handshake")?;
            ensure!(received > 0, "the connection closed during the handshake");
        }
        let head = String::from_utf8_lossy(&head);
        ensure!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "the handshake failed: {head:?}");
        let length = shape.body.unwrap_or_default();
        let frame = masked_frame(pattern::body(length));
        Ok(Connection { stream, echo: vec![0; frame.len()], frame, length })
    }

    /// Sends a message and reads its echo, which counts as a response with status 200.
    pub(crate) async fn exchange(&mut self, number: u64) -> Result<LoadResponse> {
        let begin = self.frame.len() - self.length;
        let masked_number = number.to_be_bytes().into_iter().zip(MASK.into_iter().cycle());
        for (byte, (number, mask)) in self.frame[begin..].iter_mut().zip(masked_number) {
            *byte = number ^ mask;
        }
        // The sockets between here and the backend hold more than a message, so the proxy need not wait for the read.
        self.stream.write_all(&self.frame).await.context("cannot send the message")?;
        self.stream.read_exact(&mut self.echo).await.context("cannot read the echo")?;
        Ok(LoadResponse {
            status: 200,
            number: Some(number),
            received: Some(self.length),
            length: self.length,
            differs: self.echo != self.frame,
            ..LoadResponse::default()
        })
    }
}

/// The backend's side: completes the handshake and returns the bytes that follow, until the client closes. The frames
/// of the echo are therefore masked like those of the client, which is sufficient: proxies do not read frames.
pub(crate) async fn echo(mut stream: impl Stream, mut received: Vec<u8>) -> Result<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    received.reserve(ECHO_BUFFER_SIZE);
    loop {
        stream.write_all(&received).await?;
        received.clear();
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}

/// A frame with a binary message (RFC 6455, 5.2).
fn masked_frame(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![FINAL_BINARY];
    match message.len() {
        length @ 0..=125 => frame.push(MASKED | length as u8),
        length @ 126..=0xffff => {
            frame.push(MASKED | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(MASKED | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(message.iter().zip(MASK.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

const FINAL_BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// The key is the one of RFC 6455, 1.3, and `ACCEPT` the value that belongs to it.
const HANDSHAKE_FIELDS: &str = "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
                                sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Holds most messages, so that the backend takes little of the core that it shares with the clients.
const ECHO_BUFFER_SIZE: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_length_of_their_message() {
        // The example of a masked message in RFC 6455, 5.7, as binary.
        let hello: [u8; 11] = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(masked_frame(b"Hello"), hello);
        for (length, head) in [
            (125, vec![0x82, 0xfd]),
            (126, vec![0x82, 0xfe, 0, 126]),
            (0xffff, vec![0x82, 0xfe, 0xff, 0xff]),
            (0x10000, vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = masked_frame(pattern::body(length));
            assert!(frame.starts_with(&head), "{length}");
            assert_eq!(frame.len(), head.len() + MASK.len() + length);
        }
    }

    #[tokio::test]
    async fn echo_of_another_message_differs() {
        let (client, mut server) = tokio::io::duplex(1024);
        let shape = RequestShape::message("bench.example", 64);
        let backend = async {
            let mut handshake = [0; 1024];
            assert!(server.read(&mut handshake).await.unwrap() > 0);
            let head = format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n");
            server.write_all(head.as_bytes()).await.unwrap();
            let mut frame = vec![0; masked_frame(pattern::body(64)).len()];
            server.read_exact(&mut frame).await.unwrap();
            // The first message is also the echo of the second one.
            server.write_all(&frame.repeat(2)).await.unwrap();
        };
        let client = async {
            let mut connection = Connection::open(Box::new(client), &shape).await.unwrap();
            assert!(!connection.exchange(1).await.unwrap().differs);
            assert!(connection.exchange(2).await.unwrap().differs);
        };
        tokio::join!(backend, client);
    }
}
