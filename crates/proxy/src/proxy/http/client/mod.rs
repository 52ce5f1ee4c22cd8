//! The connections of clients, HTTP/1 and HTTP/2: their requests, the bodies to them, and their timers.

pub(in crate::proxy) mod client_connection;
pub(in crate::proxy) mod client_stream;
pub(in crate::proxy) mod deadlines;
pub(in crate::proxy) mod http1;
pub(in crate::proxy) mod http2;
pub(in crate::proxy) mod http2_flood_guard;
pub(in crate::proxy) mod malformed_input;
pub(in crate::proxy) mod malformed_request;
pub(in crate::proxy) mod request_streams;
pub(in crate::proxy) mod response_body;
mod sending_response;
pub(in crate::proxy) mod stream_tracker;
pub(in crate::proxy) mod tunnel;
mod websocket;
