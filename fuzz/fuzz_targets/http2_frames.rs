//! HTTP/2 frames, in the limiter of their rate.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("http2_frames", bytes));
