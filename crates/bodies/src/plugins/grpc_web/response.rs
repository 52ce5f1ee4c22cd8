//! The body of a response: the messages of the call, and its trailers in a frame.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::base64_body::Encoder;
use crate::plugin_api::StreamingFilter;
use crate::plugin_api::changed_fields::MESSAGE_FIELDS;
use crate::plugin_formats::grpc::{CallStatus, FrameError, MessageFrames, MessageWriter, TRAILERS, frame};

/// A body of gRPC-Web while it is sent.
pub(super) struct WebBody {
    /// For a body in base64.
    encoder: Option<Encoder>,
    /// For messages in JSON.
    messages: Option<WebMessages>,
    /// The trailers, or the fields of a head that has them.
    trailers: HeaderMap,
}

/// Translates messages to JSON.
pub(super) struct WebMessages {
    writer: MessageWriter,
    frames: MessageFrames,
    /// Set when a message could not be translated, which ends the body.
    failure: Option<CallStatus>,
}

impl WebBody {
    pub(super) fn new(is_text: bool, status: HeaderMap) -> WebBody {
        WebBody { encoder: is_text.then(Encoder::default), messages: None, trailers: status }
    }

    pub(super) fn with_messages(mut self, messages: WebMessages) -> WebBody {
        self.messages = Some(messages);
        self
    }

    fn encode(&mut self, data: Bytes) -> Bytes {
        match &mut self.encoder {
            Some(encoder) => encoder.encode(data),
            None => data,
        }
    }

    /// The fields of the last frame.
    fn status_fields(&mut self) -> HeaderMap {
        let failure = self.messages.as_mut().and_then(WebMessages::finish);
        let fields = std::mem::take(&mut self.trailers);
        let missing = (!fields.contains_key(CallStatus::STATUS_FIELD)).then(CallStatus::missing);
        match failure.or(missing) {
            None => fields,
            Some(status) => {
                let message = HeaderValue::from_str(&status.message).unwrap_or(HeaderValue::from_static(""));
                let fields =
                    [(CallStatus::STATUS_FIELD, u16::from(status.code).into()), (CallStatus::MESSAGE_FIELD, message)];
                fields.into_iter().collect()
            }
        }
    }
}

impl StreamingFilter for WebBody {
    fn part(&mut self, data: Bytes) -> Bytes {
        let data = match &mut self.messages {
            Some(messages) => messages.translate(&data),
            None => data,
        };
        self.encode(data)
    }

    fn trailers(&mut self, trailers: HeaderMap) -> Option<HeaderMap> {
        // A server that has sent the same fields in the head has decided otherwise since.
        for name in trailers.keys() {
            self.trailers.remove(name);
        }
        self.trailers.extend(trailers);
        None
    }

    fn end(&mut self) -> Bytes {
        let mut fields = self.status_fields();
        // As in Kong, the status and the message are first, and always there.
        let none = || HeaderValue::from_static("");
        let first = [CallStatus::STATUS_FIELD, CallStatus::MESSAGE_FIELD]
            .map(|name| (name.clone(), fields.remove(name).unwrap_or_else(none)));
        let others = fields.iter().filter(|(name, _)| is_metadata(name));
        let mut block = Vec::new();
        for (name, value) in first.iter().map(|(name, value)| (name, value)).chain(others) {
            for piece in [name.as_str().as_bytes(), b":", value.as_bytes(), b"\r\n"] {
                block.extend_from_slice(piece);
            }
        }
        let last = self.encode(frame(TRAILERS, &block));
        match &mut self.encoder {
            Some(encoder) => [last, encoder.flush()].concat().into(),
            None => last,
        }
    }

    fn pause(&mut self) -> Bytes {
        self.encoder.as_mut().map_or_else(Bytes::new, Encoder::flush)
    }

    fn max_part(&self) -> Option<usize> {
        // Translating a message takes longer than passing it on.
        self.messages.is_some().then_some(64 << 10)
    }
}

impl WebMessages {
    pub(super) fn new(writer: MessageWriter, max_bytes: usize) -> WebMessages {
        WebMessages { writer, frames: MessageFrames::new(max_bytes), failure: None }
    }

    fn translate(&mut self, data: &[u8]) -> Bytes {
        let mut output = Vec::new();
        if self.failure.is_none() {
            self.frames.push(data);
            if let Err(failure) = self.translate_messages(&mut output) {
                self.failure = Some(failure);
            }
        }
        output.into()
    }

    fn translate_messages(&mut self, output: &mut Vec<u8>) -> Result<(), CallStatus> {
        while let Some(message) = self.frames.next_message().map_err(invalid_frame)? {
            output.extend_from_slice(&frame(0, &self.writer.write(&message)?));
        }
        Ok(())
    }

    fn finish(&mut self) -> Option<CallStatus> {
        self.failure.take().or_else(|| self.frames.finish().err().map(invalid_frame))
    }
}

fn invalid_frame(error: FrameError) -> CallStatus {
    CallStatus::new(CallStatus::INTERNAL, format!("in the response of the backend, {error}"))
}

/// Whether a field of the trailers is for the client, and not about the framing of the message.
fn is_metadata(name: &HeaderName) -> bool {
    !MESSAGE_FIELDS.contains(name)
}
