//! Messages that Portico's HTTP/1 codec writes, read by the codec and by hyper.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("http1_messages", bytes));
