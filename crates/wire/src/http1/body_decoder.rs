//! Decodes the body of a message from the bytes after its head.

use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::chunk_decoder::ChunkDecoder;
use super::fields::MAX_LENGTH;
use super::record_body::RecordBody;
use super::{HeadLimits, InvalidMessage, NextInput};

#[derive(Debug)]
pub struct BodyDecoder(DecoderState);

#[derive(Debug)]
enum DecoderState {
    /// Remaining bytes of a body with a length.
    Length(u64),
    /// Boxed, since few bodies are chunked.
    Chunked(Box<ChunkDecoder>),
    /// The body ends with the connection.
    UntilClose,
    /// The records of FastCGI.
    Records(Box<RecordBody>),
}

impl BodyDecoder {
    /// A body that has ended.
    pub const EMPTY: BodyDecoder = BodyDecoder(DecoderState::Length(0));

    pub(super) fn with_length(length: u64) -> Result<Self, InvalidMessage> {
        if length > MAX_LENGTH { Err(InvalidMessage::Length) } else { Ok(BodyDecoder(DecoderState::Length(length))) }
    }

    pub(super) fn chunked(trailer_limits: HeadLimits) -> Self {
        BodyDecoder(DecoderState::Chunked(Box::new(ChunkDecoder::new(trailer_limits))))
    }

    pub(super) fn until_close() -> Self {
        BodyDecoder(DecoderState::UntilClose)
    }

    pub(super) fn records(body: RecordBody) -> Self {
        BodyDecoder(DecoderState::Records(Box::new(body)))
    }

    /// Decodes the next frame, and removes its bytes from `input`. Pending if more bytes are necessary. None at the end
    /// of the body, and after an error.
    pub fn decode(&mut self, input: &mut BytesMut) -> Poll<Option<Result<Frame<Bytes>, InvalidMessage>>> {
        let available = match &mut self.0 {
            DecoderState::Length(0) => return Poll::Ready(None),
            DecoderState::Chunked(decoder) => return decoder.decode(input),
            DecoderState::Records(body) => return body.decode(input),
            _ if input.is_empty() => return Poll::Pending,
            DecoderState::UntilClose => input.len(),
            DecoderState::Length(remaining) => {
                let available = usize::try_from(*remaining).map_or(input.len(), |length| length.min(input.len()));
                *remaining -= available as u64;
                available
            }
        };
        Poll::Ready(Some(Ok(Frame::data(input.split_to(available).freeze()))))
    }

    /// Whether others should have their turn before the next frame, because the last one was mostly framing. Asked
    /// again, they need not.
    pub fn take_must_yield(&mut self) -> bool {
        if let DecoderState::Chunked(decoder) = &mut self.0 { decoder.take_must_yield() } else { false }
    }

    /// The connection was closed, and all input was decoded. Fails if the body is incomplete then.
    pub fn end_input(&mut self) -> Result<(), InvalidMessage> {
        match &mut self.0 {
            DecoderState::UntilClose => *self = BodyDecoder::EMPTY,
            DecoderState::Records(body) => return body.end_input(),
            DecoderState::Length(_) | DecoderState::Chunked(_) => {}
        }
        if self.is_ended() { Ok(()) } else { Err(InvalidMessage::Truncated) }
    }

    /// Whether all frames were returned. Never after an error: what follows the body has no meaning then.
    pub fn is_ended(&self) -> bool {
        match &self.0 {
            DecoderState::Length(remaining) => *remaining == 0,
            DecoderState::Chunked(decoder) => decoder.is_ended(),
            DecoderState::UntilClose => false,
            DecoderState::Records(body) => body.is_ended(),
        }
    }

    /// Whether the body ends with its connection.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.0, DecoderState::UntilClose)
    }

    /// How many bytes of data remain, as far as it is known.
    pub fn size_hint(&self) -> SizeHint {
        match &self.0 {
            DecoderState::Length(remaining) => SizeHint::with_exact(*remaining),
            DecoderState::Chunked(decoder) if decoder.is_ended() => SizeHint::with_exact(0),
            DecoderState::Chunked(_) | DecoderState::UntilClose => SizeHint::default(),
            DecoderState::Records(body) => body.size_hint(),
        }
    }

    /// What probably arrives next.
    pub fn next_input(&self) -> NextInput {
        match &self.0 {
            DecoderState::Length(remaining) => NextInput::Length(usize::try_from(*remaining).unwrap_or(usize::MAX)),
            DecoderState::Chunked(decoder) if decoder.has_small_chunks() => NextInput::SmallChunks,
            DecoderState::Chunked(_) | DecoderState::UntilClose | DecoderState::Records(_) => NextInput::Unknown,
        }
    }

    /// Takes the beginning of what a FastCGI server has written for its log since the last call.
    pub fn take_stderr(&mut self) -> Option<Vec<u8>> {
        if let DecoderState::Records(body) = &mut self.0 { body.take_stderr() } else { None }
    }
}
