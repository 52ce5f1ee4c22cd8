//! Responses of FastCGI servers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("fast_cgi_responses", bytes));
