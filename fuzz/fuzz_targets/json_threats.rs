//! JSON bodies that are scanned within limits.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("json_threats", bytes));
