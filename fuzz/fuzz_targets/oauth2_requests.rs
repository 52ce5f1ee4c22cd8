//! Requests for codes and tokens.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("oauth2_requests", bytes));
