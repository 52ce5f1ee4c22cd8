//! Bytes between clients, Portico and endpoints: heads and bodies of HTTP/1, frames of HTTP/2, records of FastCGI, TLS
//! to endpoints, and the addresses that connections may have.

pub mod endpoint_tls;
pub mod fast_cgi;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http1;
pub mod http2_frames;
pub mod ssrf_guard;
pub mod unverified_certificates;

use portico_base::{begun_trace, forwarding_fields, hop_count};
