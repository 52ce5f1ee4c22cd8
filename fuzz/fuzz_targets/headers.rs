//! Hop-by-hop fields, fields of untrusted peers, and cookies.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("headers", bytes));
