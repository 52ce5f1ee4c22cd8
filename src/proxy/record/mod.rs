//! Where requests and TCP connections are recorded when they end: metrics and the access log.

pub mod access_log;
pub(in crate::proxy) mod stats;
