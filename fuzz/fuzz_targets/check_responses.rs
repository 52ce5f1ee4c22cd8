//! Responses of authorization servers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("check_responses", bytes));
