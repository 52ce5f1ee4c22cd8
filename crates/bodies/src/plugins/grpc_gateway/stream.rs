//! The response to a call with several messages: a line of JSON or a server-sent event for each, as it arrives.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;

use crate::plugin_api::StreamingFilter;
use crate::plugin_formats::grpc::{CallStatus, MessageFrames, MessageWriter};

pub(super) struct JsonStream {
    writer: MessageWriter,
    frames: MessageFrames,
    is_events: bool,
    /// The status of the call so far: that of the head, of a message that could not be translated, or of the trailers.
    status: Option<CallStatus>,
    has_failed: bool,
}

impl JsonStream {
    pub(super) fn new(writer: MessageWriter, is_events: bool, max_bytes: usize, status: Option<CallStatus>) -> Self {
        JsonStream { writer, frames: MessageFrames::new(max_bytes), is_events, status, has_failed: false }
    }

    fn translate(&mut self, output: &mut Vec<u8>) -> Result<(), CallStatus> {
        let invalid = |error| CallStatus::new(CallStatus::INTERNAL, format!("in the backend's response, {error}"));
        while let Some(message) = self.frames.next_message().map_err(invalid)? {
            let json = self.writer.write(&message)?;
            self.write(output, "data: ", &json);
        }
        Ok(())
    }

    fn write(&self, output: &mut Vec<u8>, event: &str, json: &[u8]) {
        if self.is_events {
            output.extend_from_slice(event.as_bytes());
        }
        output.extend_from_slice(json);
        output.extend_from_slice(if self.is_events { b"\n\n" } else { b"\n" });
    }
}

impl StreamingFilter for JsonStream {
    fn part(&mut self, data: Bytes) -> Bytes {
        let mut output = Vec::new();
        if !self.has_failed {
            self.frames.push(&data);
            if let Err(status) = self.translate(&mut output) {
                (self.status, self.has_failed) = (Some(status), true);
            }
        }
        output.into()
    }

    fn trailers(&mut self, trailers: HeaderMap) -> Option<HeaderMap> {
        if !self.has_failed {
            self.status = CallStatus::from_fields(&trailers).or(self.status.take());
        }
        None
    }

    fn end(&mut self) -> Bytes {
        let mut status = self.status.take().unwrap_or_else(CallStatus::missing);
        if status.is_ok()
            && let Err(error) = self.frames.finish()
        {
            status = CallStatus::new(CallStatus::INTERNAL, format!("in the backend's response, {error}"));
        }
        let mut output = Vec::new();
        if !status.is_ok() {
            let error = status.to_json(Some(self.writer.definitions()));
            let json = if self.is_events { error } else { json!({"error": error}) };
            self.write(&mut output, "event: error\ndata: ", json.to_string().as_bytes());
        }
        output.into()
    }

    fn max_part(&self) -> Option<usize> {
        Some(PART_BYTES)
    }
}

/// How many bytes are translated at once, before other requests run.
const PART_BYTES: usize = 64 << 10;
