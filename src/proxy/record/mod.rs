//! What is known about a request when it ends, and its readers: metrics and the access log.

pub mod access_log;
pub(in crate::proxy) mod request_record;
pub(in crate::proxy) mod stats;
