//! What is known about a request or a TCP connection when it ends, and its readers: metrics and the access log.

pub mod access_log;
pub(in crate::proxy) mod connection_record;
pub(in crate::proxy) mod request_record;
pub(in crate::proxy) mod stats;
