//! JSON Web Tokens and cookies.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("jwt", bytes));
