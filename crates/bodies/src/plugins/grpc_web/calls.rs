//! The methods that can be called with messages in JSON, by their paths.

use std::collections::HashMap;

use bytes::Bytes;

use crate::plugin_formats::grpc::reflect::DescriptorPool;
use crate::plugin_formats::grpc::reflect::prost::Message;
use crate::plugin_formats::grpc::{MessageFrames, MessageReader, MessageWriter, frame, json_limit};

/// The methods of all services.
pub(super) struct Calls(HashMap<String, CallCodec>);

/// Translates the messages of one method.
#[derive(Clone)]
pub(super) struct CallCodec {
    reader: MessageReader,
    pub(super) writer: MessageWriter,
    /// Whether the response may have several messages.
    pub(super) is_streaming: bool,
    max_bytes: usize,
}

impl Calls {
    pub(super) fn new(pool: &DescriptorPool, max_bytes: usize) -> Calls {
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let by_path = methods.map(|method| {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let codec = CallCodec {
                reader: MessageReader::new(method.input(), false),
                writer: MessageWriter::new(method.output(), true, json_limit(max_bytes)),
                is_streaming: method.is_server_streaming(),
                max_bytes,
            };
            (path, codec)
        });
        Calls(by_path.collect())
    }

    pub(super) fn find(&self, path: &str) -> Option<CallCodec> {
        self.0.get(path).cloned()
    }
}

impl CallCodec {
    /// The body of the call. Fails with the message for the client.
    pub(super) fn encode_request(&self, body: &Bytes, is_framed: bool) -> Result<Bytes, &'static str> {
        let messages = if is_framed {
            MessageFrames::split(body, self.max_bytes).map_err(|_| "The body does not consist of frames")?
        } else {
            vec![body.clone()]
        };
        let mut frames = Vec::new();
        for message in messages {
            let message = self.reader.read(&message).map_err(|_| "The message does not have the type of the method")?;
            frames.extend_from_slice(&frame(0, &message.encode_to_vec()));
        }
        Ok(frames.into())
    }
}
