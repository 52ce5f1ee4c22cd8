//! Chunked bodies, in Portico's HTTP/1 codec and in hyper.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("http1_chunked_bodies", bytes));
