//! A WebSocket client and an echo endpoint (RFC 6455).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::harness::TEST_TIMEOUT;
use crate::harness::client::ClientResponse;

/// A message in a single frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    Binary(Vec<u8>),
    /// A close frame with a status code.
    Close(u16),
}

/// One end of a connection.
pub(crate) struct WebSocket {
    stream: BufReader<TcpStream>,
    /// Clients mask their frames, and servers do not.
    is_client: bool,
}

impl WebSocket {
    /// Opens a WebSocket with these additional header lines. A response with a status other than 101 is the inner
    /// error.
    pub(crate) fn open(address: &str, path: &str, headers: &str) -> io::Result<Result<WebSocket, ClientResponse>> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TEST_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let key = BASE64_STANDARD.encode(fastrand::u128(..).to_le_bytes());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{headers}\r\n"
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let head = read_head(&mut stream)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        let mut response = ClientResponse { status, head, body: String::new() };
        if status != 101 {
            let length = response.field("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
            let mut body = vec![0; length];
            stream.read_exact(&mut body)?;
            response.body = String::from_utf8_lossy(&body).into_owned();
            return Ok(Err(response));
        }
        assert_eq!(response.field("sec-websocket-accept"), Some(&*accept_key(&key)), "{}", response.head);
        assert!(response.field("upgrade").is_some_and(|protocol| protocol == "websocket"), "{}", response.head);
        Ok(Ok(WebSocket { stream, is_client: true }))
    }

    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        let (opcode, payload) = match message {
            Message::Text(text) => (1, text.clone().into_bytes()),
            Message::Binary(bytes) => (2, bytes.clone()),
            Message::Close(status) => (8, status.to_be_bytes().to_vec()),
        };
        let mask = if self.is_client { fastrand::u32(..).to_be_bytes() } else { [0; 4] };
        let mut frame = vec![0x80 | opcode];
        let mask_bit = if self.is_client { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..126 => frame.push(mask_bit | u8::try_from(length).unwrap()),
            length @ 126..65_536 => {
                frame.push(mask_bit | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(mask_bit | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        if self.is_client {
            frame.extend(mask);
        }
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.get_mut().write_all(&frame)
    }

    pub(crate) fn receive(&mut self) -> io::Result<Message> {
        let [first, second] = self.read_array()?;
        assert_eq!(first & 0xf0, 0x80, "neither end sends fragments");
        assert_eq!(second & 0x80 != 0, !self.is_client, "clients mask their frames, and servers do not");
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.read_array()?)),
            127 => u64::from_be_bytes(self.read_array()?),
            length => u64::from(length),
        };
        let mask = if self.is_client { [0; 4] } else { self.read_array()? };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload)?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(match first & 0x0f {
            1 => Message::Text(String::from_utf8(payload).unwrap()),
            2 => Message::Binary(payload),
            8 => Message::Close(u16::from_be_bytes(payload[..2].try_into().unwrap())),
            opcode => panic!("unexpected opcode {opcode}"),
        })
    }

    /// Whether the other end has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.stream.read(&mut [0]).is_ok_and(|read| read == 0)
    }

    fn read_array<const COUNT: usize>(&mut self) -> io::Result<[u8; COUNT]> {
        let mut bytes = [0; COUNT];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// Starts an endpoint that first sends the head of the request, then echoes all messages until it receives a close
/// frame.
pub(crate) fn start_endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            thread::spawn(move || serve_echo(stream));
        }
    });
    address
}

fn serve_echo(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let head = read_head(&mut stream)?;
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let key = fields.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).map(|(_, key)| key).next();
    let accepted = accept_key(key.unwrap_or_default());
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accepted}\r\n\r\n"
    );
    stream.get_mut().write_all(response.as_bytes())?;
    let mut socket = WebSocket { stream, is_client: false };
    socket.send(&Message::Text(head))?;
    loop {
        let message = socket.receive()?;
        socket.send(&message)?;
        if let Message::Close(_) = message {
            return Ok(());
        }
    }
}

fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed after {head:?}")));
        }
    }
    Ok(head)
}

/// The value of `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
fn accept_key(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}
