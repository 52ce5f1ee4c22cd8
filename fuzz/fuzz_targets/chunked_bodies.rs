//! Chunked bodies, in the framing guard and in hyper.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("chunked_bodies", bytes));
