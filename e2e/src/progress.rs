//! What is being done right now, for people who wait: lines on standard error.

use std::fmt;

/// Says a line.
#[expect(clippy::print_stderr, reason = "the one place that does, for tests and programs alike")]
pub fn say(line: fmt::Arguments<'_>) {
    eprintln!("e2e: {line}");
}
