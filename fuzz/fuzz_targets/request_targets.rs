//! Request targets and hosts.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("request_targets", bytes));
