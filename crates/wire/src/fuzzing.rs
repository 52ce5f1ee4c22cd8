//! The fuzz targets of this crate: a function for each parser of untrusted bytes, which panics if a property of the
//! parser does not hold. Compiled only for tests and by cargo-fuzz.

use crate::http1::fuzzing::{fast_cgi_responses, messages, requests, responses};

/// A fuzz target, which panics if a property does not hold for these bytes.
pub type FuzzTarget = fn(&[u8]);

/// The fuzz targets by name, sorted. Each has a file in `fuzz/fuzz_targets` and a folder in `fuzz/corpus`.
pub const TARGETS: &[(&str, FuzzTarget)] = &[
    ("fast_cgi_responses", fast_cgi_responses::fast_cgi_responses),
    ("http1_chunked_bodies", requests::chunked_body),
    ("http1_messages", messages::messages),
    ("http1_requests", requests::requests),
    ("http1_responses", responses::responses),
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
