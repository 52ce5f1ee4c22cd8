//! The connections of clients, HTTP/1 and HTTP/2: their requests, the bodies from and to them, and their timers.

pub(in crate::proxy) mod activity;
pub(in crate::proxy) mod client_body;
pub(in crate::proxy) mod client_connection;
pub(in crate::proxy) mod client_stream;
pub(in crate::proxy) mod continuations;
pub(in crate::proxy) mod filtered_body;
pub(in crate::proxy) mod frames;
pub(in crate::proxy) mod http1;
pub(in crate::proxy) mod http2;
pub(in crate::proxy) mod http_worker;
pub(in crate::proxy) mod malformed_request;
pub(in crate::proxy) mod minimum_rate;
pub(in crate::proxy) mod parked_connection;
pub(in crate::proxy) mod read_timeout;
pub(in crate::proxy) mod request_streams;
pub(in crate::proxy) mod response_body;
pub(in crate::proxy) mod unforwarded_bodies;
pub(in crate::proxy) mod unsent_responses;
