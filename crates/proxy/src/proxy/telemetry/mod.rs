//! The metrics, the access log and the traces, in which requests and forwarded connections are recorded when they end.
//! What is known about a request until then is in `../http/record/request_facts.rs`, about a forwarded connection in
//! `../stream/connection_record.rs`.

pub mod access_log;
pub mod observations;
pub(in crate::proxy) mod request_tracer;
pub(in crate::proxy) mod stats;
