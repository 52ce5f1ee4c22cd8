//! The endpoints of Services: connections, health, load balancing and limits.

pub mod upstream;

use portico_base::{cookie_prefix, hex_digits, md5, rewound, shared_limit, transport_protocol, turn_clock};
#[cfg(test)]
use portico_wire::fast_cgi;
use portico_wire::{endpoint_tls, http1, http2_frames, ssrf_guard};
