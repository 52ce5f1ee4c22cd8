//! Portico's HTTP/1 codec: reads and writes the heads and bodies of messages (RFC 9112). It parses bytes and sends
//! messages on any stream, and does not know connections or routes; its callers pass the configured limits.
//!
//! ```text
//!   bytes of a client ────▶ RequestReader ──▶ request, BodyDecoder ──▶ frames of the body
//!   bytes of an endpoint ─▶ ResponseReader ─▶ response, BodyDecoder ─▶ frames of the body
//!   records of an endpoint ▶ CgiResponseReader ▶ the same, for FastCGI
//!   request or response ──▶ message_head ───▶ OutgoingMessage ───────▶ head, body, trailers on a stream
//! ```
//!
//! Framing is strict: another server must not find another end of a message in the same bytes. Where the httparse
//! library accepts more than that, the readers here check in addition.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

mod body_decoder;
mod cgi_response;
mod chunk_decoder;
mod fields;
mod head_end;
mod invalid_message;
mod joined_data;
mod known_names;
mod message_head;
mod name_case;
mod outgoing_message;
mod receive;
mod received_fields;
mod record_body;
mod recycled;
mod request_reader;
mod request_version;
mod response_reader;
#[cfg(test)]
mod tests;
mod trailer_names;

pub use body_decoder::BodyDecoder;
pub use cgi_response::CgiResponseReader;
pub use invalid_message::InvalidMessage;
pub use joined_data::JoinedData;
pub use message_head::{
    AddedFields, BodyFraming, BodyLength, PassedFields, ResponseContext, write_fast_cgi_head, write_informational,
    write_request_head, write_response_head,
};
pub use name_case::NameCase;
pub use outgoing_message::{OutgoingMessage, SendFailure};
pub use receive::{NextInput, poll_receive};
pub use received_fields::ReceivedFields;
pub use recycled::{recycle_map, take_buffer};
pub use request_reader::{Ambiguity, ReceivedRequest, RequestReader};
pub use response_reader::{ReceivedResponse, ResponseReader};
pub use trailer_names::is_permitted_trailer;

/// Maximum sizes of what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of a head, and of the trailers of a body.
    pub bytes: usize,
    /// Fields of a head, and of the trailers of a body.
    pub fields: usize,
}
