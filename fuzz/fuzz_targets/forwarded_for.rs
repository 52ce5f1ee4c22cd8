//! `X-Forwarded-For` of trusted peers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("forwarded_for", bytes));
