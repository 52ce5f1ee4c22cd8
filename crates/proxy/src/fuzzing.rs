//! The fuzz targets of this crate: a function for each parser of untrusted bytes, which panics if a property of the
//! parser does not hold. Compiled only for tests and by cargo-fuzz.

use crate::proxy::fuzzing as proxy;

/// A fuzz target, which panics if a property does not hold for these bytes.
pub type FuzzTarget = fn(&[u8]);

/// The fuzz targets by name, sorted. Each has a file in `fuzz/fuzz_targets` and a folder in `fuzz/corpus`.
pub const TARGETS: &[(&str, FuzzTarget)] = &[
    ("access_log_lines", proxy::access_log_lines::check),
    ("check_responses", proxy::check_responses::check),
    ("client_hello", proxy::client_hello::check),
    ("forwarded_for", proxy::forwarded_for::check),
    ("headers", proxy::headers::check),
    ("http2_frames", proxy::http2_frames::check),
    ("proxy_header", proxy::proxy_header::check),
    ("sessions", proxy::sessions::check),
];

#[cfg(test)]
mod tests {
    use super::TARGETS;

    #[test]
    fn targets_hold_for_the_corpus() {
        portico_corpus::check_inputs(TARGETS);
    }

    #[test]
    fn targets_hold_for_mutated_inputs() {
        portico_corpus::check_mutated_inputs(TARGETS);
    }
}
