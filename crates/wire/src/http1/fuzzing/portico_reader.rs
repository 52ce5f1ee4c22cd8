//! Reads the messages of a connection with the codec, a number of bytes at a time, and checks what holds for every
//! input.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use http::Method;
use hyper::ext::ReasonPhrase;
use tokio::io::{AsyncRead, ReadBuf};

use super::found_message::{FoundInformational, FoundMessage, FoundRequestLine, FoundStatusLine, sorted};
use crate::http1::{
    Ambiguity, BodyDecoder, HeadLimits, InvalidMessage, NextInput, RequestReader, ResponseReader, poll_receive,
    recycle_map,
};

/// What the codec reads from a client that sends the input and then closes the connection.
#[derive(Debug, PartialEq)]
pub(super) struct PorticoRequests {
    /// Those without an ambiguity.
    pub(super) requests: Vec<FoundMessage<FoundRequestLine>>,
    pub(super) end: ReadingEnd,
    /// The bytes that were not read, from the message on that ended the reading.
    pub(super) rest: Vec<u8>,
}

/// Why no further message is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadingEnd {
    /// The rest of the input is at most the beginning of a head.
    EndOfInput,
    /// The message does not permit another one.
    NotPersistent,
    Ambiguous(Ambiguity),
    Invalid(InvalidMessage),
}

/// What the codec reads from an endpoint.
#[derive(Debug, PartialEq)]
pub(super) struct PorticoResponse {
    /// Those before the response, except `100 Continue`.
    pub(super) informational: Vec<FoundInformational>,
    /// None if the head is incomplete or invalid.
    pub(super) response: Option<FoundMessage<FoundStatusLine>>,
    pub(super) end: ReadingEnd,
    pub(super) rest: Vec<u8>,
}

/// Reads requests, of which `step` bytes arrive at a time.
pub(super) fn read_requests(input: &[u8], step: usize, limits: HeadLimits) -> PorticoRequests {
    let mut connection = FuzzedConnection::new(input, step);
    let mut reader = RequestReader::new(limits);
    let mut requests = Vec::new();
    let end = loop {
        let received = match connection.read_head(|buffer| reader.read(buffer)) {
            Ok(Some(received)) => received,
            Ok(None) => break ReadingEnd::EndOfInput,
            Err(error) => break ReadingEnd::Invalid(error),
        };
        if let Some(ambiguity) = received.ambiguity {
            assert!(received.body.is_ended() && !received.is_persistent, "nothing follows an ambiguous head");
            break ReadingEnd::Ambiguous(ambiguity);
        }
        let (head, ()) = received.head.into_parts();
        let line = FoundRequestLine { method: head.method, uri: head.uri, version: head.version };
        let mut found = FoundMessage::new(line, &head.headers);
        recycle_map(head.headers);
        let outcome = connection.read_body(received.body, &mut found);
        requests.push(found);
        match outcome {
            Err(error) => break ReadingEnd::Invalid(error),
            Ok(()) if !received.is_persistent => break ReadingEnd::NotPersistent,
            Ok(()) => {}
        }
    };
    PorticoRequests { requests, end, rest: connection.into_rest() }
}

/// Reads the response to a request with this method.
pub(super) fn read_response(input: &[u8], method: &Method, step: usize, limits: HeadLimits) -> PorticoResponse {
    let mut connection = FuzzedConnection::new(input, step);
    let mut reader = ResponseReader::new(limits, method);
    let (response, end) = match connection.read_head(|buffer| reader.read(buffer)) {
        Ok(None) => (None, ReadingEnd::EndOfInput),
        Err(error) => (None, ReadingEnd::Invalid(error)),
        Ok(Some(received)) => {
            let (head, ()) = received.head.into_parts();
            let reason = head.extensions.get::<ReasonPhrase>().map(|reason| reason.as_bytes().to_vec());
            let line = FoundStatusLine { version: head.version, status: head.status, reason };
            let mut found = FoundMessage::new(line, &head.headers);
            recycle_map(head.headers);
            let ends_with_connection = received.body.ends_with_connection();
            assert!(!ends_with_connection || !received.is_persistent, "nothing follows such a body");
            let end = match connection.read_body(received.body, &mut found) {
                Err(error) => ReadingEnd::Invalid(error),
                Ok(()) if received.is_persistent => ReadingEnd::EndOfInput,
                Ok(()) => ReadingEnd::NotPersistent,
            };
            (Some(found), end)
        }
    };
    let informational = reader.take_informational().into_iter().map(|response| FoundInformational {
        version: response.version(),
        status: response.status(),
        fields: sorted(response.headers()),
    });
    PorticoResponse { informational: informational.collect(), response, end, rest: connection.into_rest() }
}

/// A connection whose bytes arrive in parts.
struct FuzzedConnection<'i> {
    input: &'i [u8],
    stream: FuzzedStream<'i>,
    buffer: BytesMut,
}

/// What a peer sends, in parts, before it closes the connection.
pub(super) struct FuzzedStream<'i> {
    rest: &'i [u8],
    step: usize,
}

impl<'i> FuzzedConnection<'i> {
    fn new(input: &'i [u8], step: usize) -> Self {
        FuzzedConnection { input, stream: FuzzedStream::new(input, step), buffer: BytesMut::new() }
    }

    /// Reads a head. None if the input ends before it does.
    fn read_head<T>(
        &mut self,
        mut read: impl FnMut(&mut BytesMut) -> Result<Option<T>, InvalidMessage>,
    ) -> Result<Option<T>, InvalidMessage> {
        loop {
            if let Some(head) = read(&mut self.buffer)? {
                return Ok(Some(head));
            }
            if !self.receive(NextInput::Unknown) {
                return Ok(None);
            }
        }
    }

    /// Reads the frames of a body. Fails if it is invalid or incomplete.
    fn read_body<L>(&mut self, mut decoder: BodyDecoder, found: &mut FoundMessage<L>) -> Result<(), InvalidMessage> {
        let expected = decoder.size_hint();
        let mut has_trailers = false;
        loop {
            match decoder.decode(&mut self.buffer) {
                Poll::Ready(Some(Err(error))) => {
                    let next = decoder.decode(&mut self.buffer);
                    assert!(!decoder.is_ended() && matches!(next, Poll::Ready(None)), "an invalid body has no end");
                    return Err(error);
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        assert!(!data.is_empty() && !has_trailers, "data before the trailers");
                        found.body.extend_from_slice(&data);
                    }
                    Err(frame) => {
                        found.trailers = frame.trailers_ref().map(sorted).unwrap_or_default();
                        assert!(decoder.is_ended() && !found.trailers.is_empty(), "trailers end the body");
                        has_trailers = true;
                    }
                },
                Poll::Ready(None) => {
                    assert!(decoder.is_ended(), "a decoder without frames has ended");
                    break;
                }
                Poll::Pending => {
                    assert!(!decoder.is_ended(), "a decoder that waits has not ended");
                    if !self.receive(decoder.next_input()) {
                        decoder.end_input()?;
                        break;
                    }
                }
            }
        }
        assert_eq!(decoder.size_hint().exact(), Some(0), "nothing remains");
        let length = found.body.len() as u64;
        assert!(expected.exact().is_none_or(|expected| expected == length), "a body has its length");
        found.is_complete = true;
        Ok(())
    }

    /// Receives the next part. False at the end of the input.
    fn receive(&mut self, expected: NextInput) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        match poll_receive(&mut self.stream, &mut context, &mut self.buffer, expected) {
            Poll::Ready(Ok(length)) => length > 0,
            outcome => panic!("the stream is ready and does not fail: {outcome:?}"),
        }
    }

    /// What was not read.
    fn into_rest(self) -> Vec<u8> {
        let (arrived, rest) = self.input.split_at(self.input.len() - self.stream.rest.len());
        assert!(arrived.ends_with(&self.buffer), "the buffer has the last bytes that arrived: {:?}", self.buffer);
        [&*self.buffer, rest].concat()
    }
}

impl<'i> FuzzedStream<'i> {
    pub(super) fn new(input: &'i [u8], step: usize) -> Self {
        FuzzedStream { rest: input, step }
    }
}

impl AsyncRead for FuzzedStream<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length = self.step.min(self.rest.len()).min(buffer.remaining());
        let (part, rest) = self.rest.split_at(length);
        buffer.put_slice(part);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}
