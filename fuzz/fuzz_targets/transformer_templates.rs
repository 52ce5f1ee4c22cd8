//! Templates of request-transformer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("transformer_templates", bytes));
