//! HTTP/1 requests, in the framing guard and in hyper.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("http1", bytes));
