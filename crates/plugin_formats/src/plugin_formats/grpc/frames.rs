//! The framing of gRPC messages: a byte of flags, four bytes of length, and the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The flag of a frame with trailers, in gRPC-Web.
pub const TRAILERS: u8 = 0x80;

/// A frame with this message.
pub fn frame(flags: u8, message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("messages are limited to far less than 4 GiB");
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + message.len());
    frame.put_u8(flags);
    frame.put_u32(length);
    frame.put_slice(message);
    frame.freeze()
}

/// Splits a body, which arrives in parts, into messages. It keeps at most one incomplete message and the last part.
#[derive(Debug)]
pub struct MessageFrames {
    buffer: BytesMut,
    max_bytes: usize,
}

/// Why a body is not a sequence of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a message is larger than {0} bytes")]
    TooLarge(usize),
    #[error("a message is compressed")]
    Compressed,
    #[error("a frame has the unknown flags {0:#04x}")]
    UnknownFlags(u8),
    #[error("the body ends within a message")]
    Truncated,
}

impl MessageFrames {
    pub fn new(max_bytes: usize) -> MessageFrames {
        MessageFrames { buffer: BytesMut::new(), max_bytes }
    }

    pub fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next message, or `None` if more data is needed.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some((head, _)) = self.buffer.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let [flags, length @ ..] = *head;
        match flags {
            0 => {}
            1 => return Err(FrameError::Compressed),
            flags => return Err(FrameError::UnknownFlags(flags)),
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.max_bytes {
            return Err(FrameError::TooLarge(self.max_bytes));
        }
        if self.buffer.len() - HEAD_BYTES < length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Fails if a part of a message is left at the end of the body.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(FrameError::Truncated) }
    }

    /// All messages of a whole body.
    pub fn split(body: &[u8], max_bytes: usize) -> Result<Vec<Bytes>, FrameError> {
        let mut frames = MessageFrames::new(max_bytes);
        frames.push(body);
        let mut messages = Vec::new();
        while let Some(message) = frames.next_message()? {
            if messages.len() == MAX_MESSAGES {
                return Err(FrameError::TooLarge(max_bytes));
            }
            messages.push(message);
        }
        frames.finish()?;
        Ok(messages)
    }
}

const HEAD_BYTES: usize = 5;

/// How many messages a body may have that is split at once. Empty messages would otherwise cost eight times their size.
const MAX_MESSAGES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_they_arrive() {
        let body = [frame(0, b"one"), frame(0, b""), frame(0, &[7; 300])].concat();
        for size in [1, 2, 5, 7, 100, body.len()] {
            let (mut frames, mut messages) = (MessageFrames::new(300), Vec::new());
            for part in body.chunks(size) {
                frames.push(part);
                while let Some(message) = frames.next_message().unwrap() {
                    messages.push(message.to_vec());
                }
            }
            assert_eq!(messages, [b"one".to_vec(), Vec::new(), vec![7; 300]], "{size}");
            assert_eq!(frames.finish(), Ok(()));
        }
    }

    #[test]
    fn invalid_bodies_are_refused() {
        for (body, expected) in [
            (&[0, 0, 0][..], FrameError::Truncated),
            (&[0, 0, 0, 0, 2, 1], FrameError::Truncated),
            (&[1, 0, 0, 0, 0], FrameError::Compressed),
            (&[0x80, 0, 0, 0, 0], FrameError::UnknownFlags(0x80)),
            (&[0, 0, 0, 0, 11], FrameError::TooLarge(10)),
            (&[0, 0xff, 0xff, 0xff, 0xff], FrameError::TooLarge(10)),
        ] {
            assert_eq!(MessageFrames::split(body, 10), Err(expected), "{body:?}");
        }
        assert_eq!(MessageFrames::split(&[0; 5 * 1025], 10), Err(FrameError::TooLarge(10)), "too many");
        assert_eq!(MessageFrames::split(&[0; 5 * 1024], 10).map(|messages| messages.len()), Ok(1024));
    }
}
