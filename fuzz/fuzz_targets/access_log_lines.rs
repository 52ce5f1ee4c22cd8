//! Templates of access log lines, rules for lines, and hostile values in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portico::fuzzing::run("access_log_lines", bytes));
