//! The body of a FastCGI response: the data of records after the head.

use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::{InvalidMessage, JoinedData};
use crate::fast_cgi::{StdoutDecoder, StdoutPart};

/// Decodes the records of a body. Small ones that have arrived together are joined, since each frame costs its client a
/// chunk.
#[derive(Debug)]
pub(super) struct RecordBody {
    stdout: StdoutDecoder,
    /// Data that arrived together with the head.
    first: Bytes,
    /// What is left of the Content-Length, if there is one. What follows it is not part of the body.
    remaining: Option<u64>,
    state: BodyState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyState {
    Open,
    Ended,
    /// The error that follows the data before it.
    Failing(InvalidMessage),
    Failed,
}

impl RecordBody {
    pub(super) fn new(stdout: StdoutDecoder, first: Bytes, length: Option<u64>) -> Self {
        let mut body = RecordBody { stdout, first, remaining: length, state: BodyState::Open };
        body.end_at_length();
        body
    }

    /// As [`super::BodyDecoder::decode`].
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Poll<Option<Result<Frame<Bytes>, InvalidMessage>>> {
        let mut joined = JoinedData::default();
        let first = std::mem::take(&mut self.first);
        self.push(first, &mut joined);
        while self.state == BodyState::Open && joined.len() < JOINED {
            match self.stdout.decode(input) {
                Ok(None) => break,
                Ok(Some(StdoutPart::Data(data))) => self.push(data, &mut joined),
                Ok(Some(StdoutPart::End)) => self.state = self.state_at_end(),
                Err(error) => self.state = BodyState::Failing(InvalidMessage::Record(error)),
            }
        }
        if !joined.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(joined.take()))));
        }
        match self.state {
            BodyState::Open => Poll::Pending,
            BodyState::Ended | BodyState::Failed => Poll::Ready(None),
            BodyState::Failing(error) => {
                self.state = BodyState::Failed;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn push(&mut self, mut data: Bytes, joined: &mut JoinedData) {
        if let Some(remaining) = &mut self.remaining {
            data.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
            *remaining -= data.len() as u64;
        }
        if !data.is_empty() {
            joined.push(data);
        }
        self.end_at_length();
    }

    fn end_at_length(&mut self) {
        if self.remaining == Some(0) {
            self.state = BodyState::Ended;
        }
    }

    fn state_at_end(&self) -> BodyState {
        match self.remaining {
            None | Some(0) => BodyState::Ended,
            Some(1..) => BodyState::Failing(InvalidMessage::Truncated),
        }
    }

    /// As [`super::BodyDecoder::end_input`].
    pub(super) fn end_input(&mut self) -> Result<(), InvalidMessage> {
        if self.state == BodyState::Open && self.stdout.is_complete_at_close() {
            self.state = self.state_at_end();
        }
        if self.state == BodyState::Ended {
            return Ok(());
        }
        self.state = BodyState::Failed;
        Err(InvalidMessage::Truncated)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state == BodyState::Ended && self.first.is_empty()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match (self.state, self.remaining) {
            (BodyState::Ended, _) => SizeHint::with_exact(self.first.len() as u64),
            (_, Some(remaining)) => SizeHint::with_exact(remaining),
            (_, None) => SizeHint::default(),
        }
    }

    pub(super) fn take_stderr(&mut self) -> Option<Vec<u8>> {
        self.stdout.take_stderr()
    }
}

/// From here on, data is not joined with more.
const JOINED: usize = 4096;
