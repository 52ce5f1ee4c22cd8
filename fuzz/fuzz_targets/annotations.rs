//! Annotations of Ingresses, routes and Services.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("annotations", bytes));
