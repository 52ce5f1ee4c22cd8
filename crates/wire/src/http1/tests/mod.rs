//! Tests of the codec. This file has what they share: it reads all messages of a connection from bytes that arrive in
//! parts.

mod added_fields;
mod chunks;
mod message_heads;
mod name_case;
mod received_fields;
mod received_requests;
mod receiving;
mod requests;
mod responses;
mod round_trips;
mod scripts;
mod sending;
mod splits;

use std::fmt::Debug;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Version};
use http_body::Frame;
use hyper::ext::ReasonPhrase;

use super::{
    Ambiguity, BodyDecoder, HeadLimits, InvalidMessage, NextInput, ReceivedRequest, ReceivedResponse, RequestReader,
    ResponseReader,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 100 };

/// What the readers found in the bytes of a connection.
#[derive(Debug, Default, PartialEq)]
struct ReadConnection {
    complete: Vec<ReadMessage>,
    /// A message of which a part of the body is missing.
    incomplete: Option<ReadMessage>,
    /// Why the rest was not read.
    rejection: Option<ReadRejection>,
}

#[derive(Debug, PartialEq)]
struct ReadMessage {
    first_line: String,
    fields: HeaderMap,
    is_persistent: bool,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum ReadRejection {
    Ambiguous(Ambiguity),
    Invalid(InvalidMessage),
}

impl From<InvalidMessage> for ReadRejection {
    fn from(error: InvalidMessage) -> Self {
        ReadRejection::Invalid(error)
    }
}

/// Reads requests from the parts of the input, and then the end of the connection.
fn read_requests(parts: &[&[u8]], limits: HeadLimits) -> ReadConnection {
    let mut reader = RequestReader::new(limits);
    read_connection(parts, |input| {
        let Some(request) = reader.read(input)? else { return Ok(None) };
        match request.ambiguity {
            Some(ambiguity) => Err(ReadRejection::Ambiguous(ambiguity)),
            None => Ok(Some(request.into())),
        }
    })
}

/// Reads the responses to requests with these methods, and then the end of the connection.
fn read_responses(methods: &[Method], parts: &[&[u8]], limits: HeadLimits) -> ReadConnection {
    let mut readers = methods.iter().map(|method| ResponseReader::new(limits, method));
    let mut reader = readers.next();
    read_connection(parts, |input| {
        let Some(expected) = &mut reader else { return Ok(None) };
        let response = expected.read(input)?;
        if response.is_some() {
            reader = readers.next();
        }
        Ok(response.map(From::from))
    })
}

type ReadHead = Result<Option<(ReadMessage, BodyDecoder)>, ReadRejection>;

fn read_connection(parts: &[&[u8]], mut read_head: impl FnMut(&mut BytesMut) -> ReadHead) -> ReadConnection {
    let (mut read, mut body, mut input) = (ReadConnection::default(), BodyDecoder::EMPTY, BytesMut::new());
    for part in parts {
        input.extend_from_slice(part);
        if let Err(rejection) = read.continue_with(&mut input, &mut body, &mut read_head) {
            read.rejection = Some(rejection);
            return read;
        }
    }
    if read.incomplete.is_some() {
        match body.end_input() {
            Ok(()) => read.complete.extend(read.incomplete.take()),
            Err(error) => read.rejection = Some(error.into()),
        }
    }
    read
}

impl ReadConnection {
    fn continue_with(
        &mut self,
        input: &mut BytesMut,
        body: &mut BodyDecoder,
        mut read_head: impl FnMut(&mut BytesMut) -> ReadHead,
    ) -> Result<(), ReadRejection> {
        loop {
            let Some(message) = &mut self.incomplete else {
                let Some((message, its_body)) = read_head(input)? else { return Ok(()) };
                (self.incomplete, *body) = (Some(message), its_body);
                continue;
            };
            match body.decode(input) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(frame)) => message.push(frame?),
                Poll::Ready(None) => {
                    assert!(body.is_ended(), "the end of the body was returned");
                    self.complete.extend(self.incomplete.take());
                }
            }
        }
    }
}

impl ReadMessage {
    fn push(&mut self, frame: Frame<Bytes>) {
        assert_eq!(self.trailers, None, "trailers are the last frame");
        match frame.into_data() {
            Ok(data) => self.body.extend_from_slice(&data),
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
    }
}

impl From<ReceivedRequest> for (ReadMessage, BodyDecoder) {
    fn from(request: ReceivedRequest) -> Self {
        let (head, _) = request.head.into_parts();
        let message = ReadMessage {
            first_line: format!("{} {} {:?}", head.method, head.uri, head.version),
            fields: head.headers,
            is_persistent: request.is_persistent,
            body: Vec::new(),
            trailers: None,
        };
        (message, request.body)
    }
}

impl From<ReceivedResponse> for (ReadMessage, BodyDecoder) {
    fn from(response: ReceivedResponse) -> Self {
        let (head, _) = response.head.into_parts();
        let reason = match head.extensions.get::<ReasonPhrase>() {
            Some(reason) => String::from_utf8(reason.as_bytes().to_vec()).unwrap(),
            None => head.status.canonical_reason().unwrap_or_default().to_owned(),
        };
        let message = ReadMessage {
            first_line: format!("{:?} {} {reason}", head.version, head.status.as_str()),
            fields: head.headers,
            is_persistent: response.is_persistent,
            body: Vec::new(),
            trailers: None,
        };
        (message, response.body)
    }
}

/// Reads the bytes in one piece, split at every position, and byte by byte. All must give the same result.
fn read_all_ways<T: Debug + PartialEq>(bytes: &[u8], read: impl Fn(&[&[u8]]) -> T) -> T {
    let whole = read(&[bytes]);
    for cut in 0..bytes.len() {
        assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
    }
    assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    whole
}

/// Parts of random sizes.
fn random_parts(mut bytes: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let largest = if random.bool() { bytes.len() } else { bytes.len().min(20) };
        let (part, rest) = bytes.split_at(random.usize(1..=largest));
        parts.push(part);
        bytes = rest;
    }
    parts
}

/// What a decoder expects, in words.
fn describe_body(body: &BodyDecoder) -> String {
    match body.size_hint().exact() {
        _ if body.ends_with_connection() => "until close".to_owned(),
        Some(0) => {
            assert!(body.is_ended(), "a body without bytes has ended");
            "empty".to_owned()
        }
        Some(length) => format!("{length} bytes"),
        None => "chunked".to_owned(),
    }
}

/// Names with values, as a recipient gets them.
fn fields_of(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}
