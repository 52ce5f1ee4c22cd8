//! Cookies of clients that contain sessions.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("sessions", bytes));
