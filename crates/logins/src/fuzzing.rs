//! The fuzz targets of this crate: a function for each parser of untrusted bytes, which panics if a property of the
//! parser does not hold. Compiled only for tests and by cargo-fuzz.

use crate::plugins;

/// A fuzz target, which panics if a property does not hold for these bytes.
pub type FuzzTarget = fn(&[u8]);

/// The fuzz targets by name, sorted. Each has a file in `fuzz/fuzz_targets` and a folder in `fuzz/corpus`.
pub const TARGETS: &[(&str, FuzzTarget)] = &[("jwt", plugins::token), ("oauth2_requests", plugins::token_request)];

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
