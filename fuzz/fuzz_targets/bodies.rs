//! Forms, multipart bodies and JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("bodies", bytes));
