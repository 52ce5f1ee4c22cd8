//! gRPC for plugins that translate between calls and other messages: framing, status, definitions, and JSON.

mod definitions;
mod frames;
mod json;
mod status;

pub use definitions::{Definitions, http_rule};
pub use frames::{FrameError, MessageFrames, TRAILERS, frame};
pub use json::{MessageReader, MessageWriter, convert_unary, json_limit};
/// The crate that describes messages at run time.
pub use prost_reflect as reflect;
pub use status::CallStatus;

use http::HeaderMap;

use crate::plugin_api::media_type::MediaType;

/// Whether a response is that of a gRPC server, and not of gRPC-Web.
pub fn is_call_response(headers: &HeaderMap) -> bool {
    MediaType::of(headers).is_some_and(|media_type| {
        let suffix = media_type.essence.strip_prefix("application/grpc");
        suffix.is_some_and(|suffix| suffix.is_empty() || suffix.starts_with('+'))
    })
}
