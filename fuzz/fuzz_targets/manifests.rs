//! Manifest files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("manifests", bytes));
