//! Path templates and regular expressions of paths.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("path_templates", bytes));
